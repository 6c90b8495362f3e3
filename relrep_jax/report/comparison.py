"""How alike spaces are: tables and a figure of measures of pairs."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich import box
from rich.table import Table
from rich.text import Text

from relrep_jax.report.figures import _MISSING, _SOFT, _figure, _ink_on, _style
from relrep_jax.report.tables import markdown_cell, write_csv, write_json

if TYPE_CHECKING:
    from relrep_jax.data.latents import LatentSpace

__all__ = [
    "COMPARISON_COLUMNS",
    "PairScore",
    "comparison_figure",
    "comparison_markdown",
    "comparison_tables",
    "spaces_markdown",
    "write_comparison_csv",
    "write_comparison_json",
]

LABELS = {
    "linear_cka": "Linear CKA",
    "rbf_cka": "RBF CKA",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "procrustes_distance": "Procrustes distance",
    "rsa": "RSA",
    "mutual_knn": "Mutual kNN",
    "cknna": "CKNNA",
    "jaccard": "Jaccard",
    "mrr": "MRR",
    "mean_cosine": "Mean cosine",
}

COMPARISON_COLUMNS = (
    "measure",
    "first",
    "second",
    "score",
    "p_value",
    "calibrated",
    "threshold",
    "permutations",
    "rows",
)


@dataclasses.dataclass(frozen=True)
class PairScore:
    """One measure of one pair of spaces.

    Attributes:
        measure: its name.
        first: name of the first space.
        second: name of the second space, whose rows were permuted.
        score: the measure.
        p_value: of the permutation test; None where there was none.
        calibrated: 0 at chance level, 1 for identical spaces; None likewise.
        threshold: the score to pass; None likewise.
        permutations: how many there were.
        rows: how many rows the score was computed on.
        distance: whether a lower score means more alike.
    """

    measure: str
    first: str
    second: str
    score: float
    p_value: float | None
    calibrated: float | None
    threshold: float | None
    permutations: int
    rows: int
    distance: bool = False


def label_of(measure: str) -> str:
    """What a measure is called in tables and figures."""
    return LABELS.get(measure, measure)


def _rows(scores: Sequence[PairScore]) -> list[list[Any]]:
    return [[getattr(score, column) for column in COMPARISON_COLUMNS] for score in scores]


def write_comparison_csv(path: str | os.PathLike[str], scores: Sequence[PairScore]) -> Path:
    """Writes a row for each measure and pair, with `COMPARISON_COLUMNS`."""
    return write_csv(path, COMPARISON_COLUMNS, _rows(scores))


def write_comparison_json(path: str | os.PathLike[str], scores: Sequence[PairScore]) -> Path:
    """Writes the rows of the CSV file as a list of objects."""
    return write_json(path, COMPARISON_COLUMNS, _rows(scores))


def format_p(p_value: float, permutations: int) -> str:
    """A p-value with as many decimals as so many permutations can tell."""
    return f"{p_value:.{max(2, math.ceil(math.log10(permutations + 1)))}f}"


def _grid(scores: Sequence[PairScore]) -> tuple[list[tuple[str, str]], list[str], dict[Any, Any]]:
    pairs = list(dict.fromkeys((score.first, score.second) for score in scores))
    measures = list(dict.fromkeys(score.measure for score in scores))
    return pairs, measures, {(s.first, s.second, s.measure): s for s in scores}


def comparison_tables(scores: Sequence[PairScore], width: int) -> list[Table]:
    """Tables for the terminal: a row for each pair, a column for each measure.

    Args:
        scores: the rows.
        width: of the terminal; measures that do not fit go to a further table.

    Returns:
        Tables to print with `rich`.
    """
    pairs, measures, found = _grid(scores)
    left = width - max(len(name) for pair in pairs for name in pair)
    groups: list[list[str]] = [[]]
    for measure in measures:
        needed = max(len(label_of(measure)), 15) + 2
        if groups[-1] and left < needed * (1 + len(groups[-1])):
            groups.append([])
        groups[-1].append(measure)
    tables = []
    for shown in groups:
        table = Table(box=box.HORIZONTALS, border_style="dim", pad_edge=False, padding=(0, 1))
        table.add_column("Spaces", overflow="fold")
        for measure in shown:
            table.add_column(label_of(measure), justify="right", no_wrap=True)
        for number, (first, second) in enumerate(pairs):
            cells = [Text(f"{first}\n{second}")]
            for measure in shown:
                score = found.get((first, second, measure))
                cells.append(Text("–", style="dim") if score is None else _cell(score))
            table.add_row(*cells, end_section=number < len(pairs) - 1)
        tables.append(table)
    return tables


def _cell(score: PairScore) -> Text:
    cell = Text(f"{score.score:.3f}", style="bold")
    if score.p_value is not None and score.calibrated is not None:
        p = format_p(score.p_value, score.permutations)
        cell.append(f"\n{score.calibrated:.2f}  p {p}", style="not bold dim")
    return cell


def comparison_markdown(scores: Sequence[PairScore]) -> str:
    """A table in Markdown with a row for each measure and pair."""
    lines = [
        "| Measure | First | Second | Score | Calibrated | p-value |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
    ]
    for s in scores:
        names = map(markdown_cell, (s.first, s.second))
        calibrated = "" if s.calibrated is None else f"{s.calibrated:.3f}"
        p = "" if s.p_value is None else format_p(s.p_value, s.permutations)
        cells = (label_of(s.measure), *names, f"{s.score:.4f}", calibrated, p)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spaces_markdown(spaces: Sequence[LatentSpace]) -> str:
    """A table in Markdown with a row for each space."""
    lines = ["| Space | Rows | Width | Stored as |", "| :--- | ---: | ---: | :--- |"]
    for space in spaces:
        rows, width = space.array.shape
        lines.append(
            f"| {markdown_cell(space.name)} | {rows:,} | {width:,} | {space.array.dtype} |"
        )
    return "\n".join(lines) + "\n"


def comparison_figure(
    scores: Sequence[PairScore], names: Sequence[str], alpha: float = 0.05
) -> Figure:
    """Heat maps of spaces by spaces, one for each measure.

    Above the diagonal stand the scores, below it the calibrated scores, with "n.s." where the
    permutation test found no more than chance; without a test the scores stand on both sides.
    Brighter is more alike, from 0 to 1 in all of them.

    Args:
        scores: the values.
        names: of the spaces, in order.
        alpha: level of significance.

    Returns:
        The figure, with one axes for each measure, then one for the colour bar.

    Raises:
        ValueError: no scores, or fewer than two names.
    """
    if not scores or len(names) < 2:
        raise ValueError(
            f"a comparison needs two spaces and a score, got {len(names)} spaces and "
            f"{len(scores)} scores"
        )
    _, measures, found = _grid(scores)
    count = len(names)
    columns = min(len(measures), 3)
    rows = -(-len(measures) // columns)
    panel = float(np.clip(0.5 * count, 1.7, 3.2 if columns > 1 else 4.5))
    norm, colormap = Normalize(0.0, 1.0, clip=True), matplotlib.colormaps["viridis"]
    tested = any(score.p_value is not None for score in scores)

    with _style():
        # Laid out by hand, in inches: slanted names would push the columns apart unevenly.
        letter = 0.064 * max(map(len, names))
        left, bottom, gap = letter + 0.15, 0.64 * letter + 0.4, 0.42
        width = left + columns * panel + (columns - 1) * gap * 0.6 + 0.95
        height = bottom + rows * panel + (rows - 1) * gap + 0.35
        figure = _figure(width, height, gap=0.0)
        figure.set_layout_engine("none")
        panels = [
            figure.add_axes(
                (
                    (left + (k % columns) * (panel + gap * 0.6)) / width,
                    (bottom + (rows - 1 - k // columns) * (panel + gap)) / height,
                    panel / width,
                    panel / height,
                )
            )
            for k in range(len(measures))
        ]
        image = None
        for k, (axes, measure) in enumerate(zip(panels, measures, strict=True)):
            shown = np.full((count, count), np.nan)
            texts: dict[tuple[int, int], str] = {}
            for i in range(count):
                for j in range(i + 1, count):
                    score = found.get((names[i], names[j], measure))
                    if score is None:
                        continue
                    alike = 1.0 - score.score if score.distance else score.score
                    shown[i, j] = shown[j, i] = alike
                    texts[i, j] = texts[j, i] = f"{score.score:.2f}"
                    if score.p_value is not None and score.calibrated is not None:
                        shown[j, i] = score.calibrated
                        significant = score.p_value <= alpha
                        texts[j, i] = f"{score.calibrated:.2f}" if significant else "n.s."
            image = axes.imshow(np.ma.masked_invalid(shown), cmap=colormap, norm=norm)
            axes.set_title(label_of(measure), fontweight="bold", pad=5)
            for i in range(count):
                axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor=_MISSING, lw=0))
            lowest = k + columns >= len(measures)  # no panel beneath it
            axes.set_xticks(range(count), names if lowest else [""] * count)
            axes.set_yticks(range(count), names if k % columns == 0 else [""] * count)
            # Slanted names would run behind a neighbour one row below.
            slanted = k // columns == rows - 1
            for tick in axes.get_xticklabels():
                tick.set(rotation=40 if slanted else 90, ha="right", rotation_mode="anchor")
                tick.set_verticalalignment("top" if slanted else "center")
            axes.tick_params(length=0, pad=3)
            axes.spines[:].set_visible(False)
            size = float(np.clip(panel / count * 72 / 2.6, 3.5, 8.5))
            if count <= 12:
                for (i, j), text in texts.items():
                    ink = _ink_on(colormap, norm, 0.0, float(shown[i, j]))
                    axes.text(j, i, text, ha="center", va="center", color=ink, fontsize=size)
        tall = min(2.0 * panel, height - bottom - 0.35)
        place = figure.add_axes(
            ((width - 0.78) / width, (height - 0.35 - tall) / height, 0.13 / width, tall / height)
        )
        bar = figure.colorbar(image, cax=place, label="more alike →")
        bar.outline.set_visible(False)
        if tested:
            figure.text(
                left / width,
                0.08 / height,
                "above the diagonal: score; below: calibrated (0 chance, 1 identical)",
                fontsize=8,
                color=_SOFT,
            )
    return figure
