"""Tables of text for people, the same in the terminal and in a report; and paired tests."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from relrep_jax.report.tables import markdown_cell

__all__ = [
    "PAIRED_HEADER",
    "PairedTest",
    "Sheet",
    "paired_cells",
    "paired_tail",
    "paired_test",
    "percent",
    "sheet_markdown",
    "sheet_terminal",
]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table whose cells are texts already.

    Attributes:
        title: its heading.
        header: names of the columns; the first ones, `num_left`, are texts, the others numbers.
        rows: as many cells each.
        caption: what the numbers are.
        bold: cells `(row, column)` to set off.
        num_left: how many columns are aligned to the left.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    bold: frozenset[tuple[int, int]] = frozenset()
    num_left: int = 1


def sheet_markdown(sheet: Sheet) -> str:
    """The table in Markdown, with its caption below."""
    align = [":---" if i < sheet.num_left else "---:" for i in range(len(sheet.header))]
    lines = [list(sheet.header), align]
    for i, row in enumerate(sheet.rows):
        cells = enumerate(map(markdown_cell, row))
        lines.append([f"**{cell}**" if (i, j) in sheet.bold else cell for j, cell in cells])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{sheet.caption}" if sheet.caption else table


def sheet_terminal(sheet: Sheet) -> Table:
    """The table for the terminal."""
    table = Table(title=sheet.title, caption=sheet.caption or None, title_style="bold")
    for i, name in enumerate(sheet.header):
        left = i < sheet.num_left
        longest = max((len(row[i]) for row in sheet.rows), default=0)
        # Texts may wrap, but do not vanish where numbers need the room. More than this, and
        # sheets with several texts lose their last numbers in a terminal of 80 columns.
        width = min(longest, 6) if left else None
        table.add_column(
            name, justify="left" if left else "right", overflow="fold", min_width=width
        )
    for i, row in enumerate(sheet.rows):
        cells = (
            Text(cell, style="bold" if (i, j) in sheet.bold else "") for j, cell in enumerate(row)
        )
        table.add_row(*cells)
    return table


def percent(mean: float, std: float = math.nan) -> str:
    """`87.1 ± 0.4` for a mean and a standard deviation in 0 .. 1; a dash where there is none."""
    if math.isnan(mean):
        return "–"
    return f"{100 * mean:.1f}" + ("" if math.isnan(std) else f" ± {100 * std:.1f}")


class PairedTest(NamedTuple):
    """Two methods on the same pairs of encoders.

    Attributes:
        pairs: how many pairs both have a score of.
        difference: mean of the first minus the second.
        wins: on how many pairs the first is above the second.
        t_p: p-value of the paired t-test, two-sided; NaN where it cannot be done.
        wilcoxon_p: p-value of Wilcoxon's signed-rank test, likewise.
    """

    pairs: int
    difference: float
    wins: int
    t_p: float
    wilcoxon_p: float


def paired_test(first: np.ndarray, second: np.ndarray) -> PairedTest:
    """Compare scores `[p]` and `[p]` pair by pair; pairs with a NaN are left out."""
    # Loaded here, because it takes a while and most reports do without.
    from scipy import stats

    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"paired scores must have one shape [p], got {first.shape} and {second.shape}"
        )
    both = np.isfinite(first) & np.isfinite(second)
    difference = (first - second)[both]
    t_p = wilcoxon_p = math.nan
    if len(difference) > 1 and difference.any():
        wilcoxon_p = float(stats.wilcoxon(difference).pvalue)
        # Differences that are equal but for rounding have no spread to divide by.
        size = max(np.abs(first[both]).max(), np.abs(second[both]).max())
        if np.ptp(difference) > 1e-12 * size:
            t_p = float(stats.ttest_rel(first[both], second[both]).pvalue)
    mean = float(difference.mean()) if len(difference) else math.nan
    return PairedTest(len(difference), mean, int((difference > 0).sum()), t_p, wilcoxon_p)


PAIRED_HEADER = ("Difference", "Pairs won", "t-test p", "Wilcoxon p")


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def paired_cells(test: PairedTest) -> list[str]:
    """The cells of a test under `PAIRED_HEADER`, the difference in percentage points."""
    difference = "–" if math.isnan(test.difference) else f"{100 * test.difference:+.1f}"
    return [difference, *paired_tail(test)]


def paired_tail(test: PairedTest) -> list[str]:
    """The cells of a test after its difference."""
    return [f"{test.wins} of {test.pairs}", _p(test.t_p), _p(test.wilcoxon_p)]
