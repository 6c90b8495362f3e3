"""Stitching grids, their summaries, and tables of them: terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from relrep_jax._files import atomic_write_text

__all__ = [
    "METRICS",
    "STITCHING_COLUMNS",
    "SUMMARY_COLUMNS",
    "Grid",
    "Metric",
    "Summary",
    "describe",
    "describe_excluded",
    "get_metric",
    "markdown_cell",
    "markdown_table",
    "read_stitching_csv",
    "summarize",
    "terminal_table",
    "write_csv",
    "write_json",
    "write_stitching_csv",
    "write_stitching_json",
    "write_summary_csv",
    "write_summary_json",
]

STITCHING_COLUMNS = ("representation", "encoder", "decoder", "metric", "value")
SUMMARY_COLUMNS = (
    "representation",
    "metric",
    "non_stitched_mean",
    "non_stitched_std",
    "stitched_mean",
    "stitched_std",
    "stitching_index",
)


@dataclasses.dataclass(frozen=True)
class Metric:
    """How a metric is read and shown.

    Attributes:
        label: its name in tables and figures, with the unit or the factor that is shown.
        higher_is_better: True for a score, False for an error.
        scale: factor that values are multiplied by in tables and figures for people (never in
            CSV or JSON files).
    """

    label: str
    higher_is_better: bool
    scale: float = 1.0


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", True),
    "ergas": Metric("ERGAS", False),
    "f1": Metric("F1", True),
    "f1_weighted": Metric("Weighted F1", True),
    "psnr": Metric("PSNR (dB)", True),
    "ssim": Metric("SSIM", True),
    "mae": Metric("MAE", False),
    "mse": Metric("MSE ×10³", False, 1e3),
    "rmse": Metric("RMSE", False),
}


def get_metric(name: str) -> Metric:
    """Looks a metric up by name.

    Args:
        name: a key of `METRICS`.

    Returns:
        Its direction, label and scale.

    Raises:
        ValueError: if the name is not known.
    """
    if name not in METRICS:
        raise ValueError(
            f"unknown metric {name!r}; known: {', '.join(sorted(METRICS))}. Add an entry to "
            "relrep_jax.report.METRICS to report another"
        )
    return METRICS[name]


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Scores of every encoder with every decoder, for one representation and one metric.

    A cell is *non-stitched* where encoder and decoder carry the same label (they were trained
    together) and *stitched* elsewhere; with equal labels on both sides, the non-stitched cells
    are the diagonal. A NaN on the diagonal marks a seed that diverged.

    Attributes:
        representation: name of the representation, such as `absolute`.
        metric: name of the metric, such as `mse`.
        values: scores `[e, d]`; row i is encoder i, column j is decoder j. Kept as read-only
            float64.
        encoders: e labels of rows; the seed numbers `0, 1, ...` if left out.
        decoders: d labels of columns; the seed numbers `0, 1, ...` if left out.

    Raises:
        ValueError: if the values are not a non-empty matrix, or if labels do not fit.
    """

    representation: str
    metric: str
    values: np.ndarray
    encoders: tuple[str, ...] = ()
    decoders: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 2 or values.size == 0:
            raise ValueError(
                f"a grid has shape [encoders, decoders] with at least one of each, got "
                f"{values.shape} for representation {self.representation!r}"
            )
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        for side, size in zip(("encoders", "decoders"), values.shape, strict=True):
            labels = tuple(str(label) for label in getattr(self, side))
            labels = labels or tuple(str(i) for i in range(size))
            if len(labels) != size:
                raise ValueError(
                    f"{len(labels)} {side} labels for values of shape {values.shape}: expected "
                    f"{size}"
                )
            if len(set(labels)) != size:
                raise ValueError(f"labels of {side} must differ from one another, got {labels}")
            object.__setattr__(self, side, labels)

    @property
    def non_stitched(self) -> np.ndarray:
        """Boolean mask `[e, d]` of the cells whose encoder and decoder were trained together."""
        return np.array(self.encoders)[:, None] == np.array(self.decoders)[None, :]

    @property
    def diverged(self) -> tuple[str, ...]:
        """Labels of the diverged seeds, in order.

        A seed has diverged if its own cell is not finite, or, where it has no own cell, if none
        of its cells is.
        """
        finite = np.isfinite(self.values)
        own = self.non_stitched
        found: dict[str, None] = {}
        for labels, alive, mine in (
            (self.encoders, finite, own),
            (self.decoders, finite.T, own.T),
        ):
            for label, cells, is_own in zip(labels, alive, mine, strict=True):
                good = cells[is_own].all() if is_own.any() else cells.any()
                if not good:
                    found.setdefault(label)
        return tuple(found)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and spread of one grid, stitched and non-stitched.

    Attributes:
        representation: name of the representation.
        metric: name of the metric.
        non_stitched_mean: mean over cells of an encoder with its own decoder.
        non_stitched_std: their sample standard deviation; NaN for fewer than two cells.
        stitched_mean: mean over all other cells; NaN if there is none.
        stitched_std: their sample standard deviation; NaN for fewer than two cells.
        stitching_index: 1 where stitching loses nothing, smaller where it loses.
        num_seeds: number of non-stitched cells counted.
        num_pairs: number of stitched cells counted.
        excluded: labels of the diverged seeds that were left out.
    """

    representation: str
    metric: str
    non_stitched_mean: float
    non_stitched_std: float
    stitched_mean: float
    stitched_std: float
    stitching_index: float
    num_seeds: int
    num_pairs: int
    excluded: tuple[str, ...] = ()


def _mean_std(cells: np.ndarray) -> tuple[float, float]:
    mean = float(np.mean(cells)) if cells.size else math.nan
    with np.errstate(invalid="ignore"):
        std = float(np.std(cells, ddof=1)) if cells.size > 1 else math.nan
    return mean, std


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def summarize(grid: Grid) -> Summary:
    r"""Mean and spread of a stitching grid, and its stitching index.

    With :math:`\bar s` the mean over stitched cells and :math:`\bar o` over non-stitched ones,
    the stitching index is :math:`\bar s / \bar o` for scores and :math:`\bar o / \bar s` for
    errors: 1 means that nothing is lost by stitching.

    Spreads are sample standard deviations (divided by count minus one, as pandas does) over the
    cells. Seeds that diverged (see `Grid.diverged`) are left out, row and column, and listed. A
    cell that is not finite between two seeds that did not diverge is counted, so that it shows
    in the mean and does not vanish.

    Args:
        grid: scores `[e, d]`.

    Returns:
        The summary. Values of which there is nothing to take a mean of are NaN.

    Raises:
        ValueError: if the metric is not known.

    Example:
        >>> summary = summarize(Grid("relative", "accuracy", [[0.9, 0.8], [0.6, 0.8]]))
        >>> round(summary.stitching_index, 3), summary.num_pairs
        (0.824, 2)
    """
    metric = get_metric(grid.metric)
    excluded = grid.diverged
    kept = np.outer(
        [label not in excluded for label in grid.encoders],
        [label not in excluded for label in grid.decoders],
    )
    own = grid.values[kept & grid.non_stitched]
    stitched = grid.values[kept & ~grid.non_stitched]
    own_mean, own_std = _mean_std(own)
    stitched_mean, stitched_std = _mean_std(stitched)
    if metric.higher_is_better:
        index = _ratio(stitched_mean, own_mean)
    else:
        index = _ratio(own_mean, stitched_mean)
    return Summary(
        representation=grid.representation,
        metric=grid.metric,
        non_stitched_mean=own_mean,
        non_stitched_std=own_std,
        stitched_mean=stitched_mean,
        stitched_std=stitched_std,
        stitching_index=index,
        num_seeds=own.size,
        num_pairs=stitched.size,
        excluded=excluded,
    )


# --- Files for machines: full precision, no scaling -------------------------------------------


def _csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        # repr() of a float is the shortest text that reads back as the same float.
        writer.writerow([repr(cell) if isinstance(cell, float) else cell for cell in row])
    return buffer.getvalue()


def _json_text(rows: list[dict[str, Any]]) -> str:
    def clean(value: Any) -> Any:
        # JSON has no NaN and no infinity.
        return None if isinstance(value, float) and not math.isfinite(value) else value

    cleaned = [{key: clean(value) for key, value in row.items()} for row in rows]
    return json.dumps(cleaned, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_csv(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Path:
    """Writes rows as CSV in one step; floats read back as the same floats.

    Args:
        path: where the file goes; it is replaced in one step.
        columns: the header.
        rows: one value for each column.

    Returns:
        The path.
    """
    return atomic_write_text(path, _csv_text(columns, rows))


def write_json(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> Path:
    """Writes rows as a JSON list of objects in one step; what is not finite is `null`.

    Args:
        path: where the file goes; it is replaced in one step.
        columns: the keys.
        rows: one value for each column.

    Returns:
        The path.
    """
    return atomic_write_text(path, _json_text([dict(zip(columns, r, strict=True)) for r in rows]))


def _check_distinct(items: Sequence[Grid] | Sequence[Summary]) -> None:
    seen: set[tuple[str, str]] = set()
    for item in items:
        key = (item.representation, item.metric)
        if key in seen:
            raise ValueError(
                f"representation {key[0]!r} with metric {key[1]!r} is given twice; give each "
                "representation a name of its own"
            )
        seen.add(key)


def _stitching_rows(grids: Sequence[Grid]) -> list[tuple[str, str, str, str, float]]:
    _check_distinct(grids)
    return [
        (grid.representation, encoder, decoder, grid.metric, float(grid.values[i, j]))
        for grid in grids
        for i, encoder in enumerate(grid.encoders)
        for j, decoder in enumerate(grid.decoders)
    ]


def write_stitching_csv(path: str | os.PathLike[str], grids: Sequence[Grid]) -> Path:
    """Writes every cell of the grids as CSV, one row for each pair and metric.

    Columns: `representation,encoder,decoder,metric,value`. Values are written so that they read
    back as the same float64; a diverged seed is `nan`.

    Args:
        path: where the file goes; it is replaced in one step.
        grids: the grids, in the order in which they are to appear.

    Returns:
        The path.

    Raises:
        ValueError: if two grids have the same representation and metric.
    """
    return write_csv(path, STITCHING_COLUMNS, _stitching_rows(grids))


def write_stitching_json(path: str | os.PathLike[str], grids: Sequence[Grid]) -> Path:
    """Writes every cell of the grids as a JSON list of objects with the columns of the CSV.

    Args:
        path: where the file goes; it is replaced in one step.
        grids: the grids, in the order in which they are to appear. What is not finite is `null`.

    Returns:
        The path.

    Raises:
        ValueError: if two grids have the same representation and metric.
    """
    return write_json(path, STITCHING_COLUMNS, _stitching_rows(grids))


def read_stitching_csv(path: str | os.PathLike[str]) -> list[Grid]:
    """Reads the grids that `write_stitching_csv` wrote.

    Args:
        path: a CSV file with the columns `representation,encoder,decoder,metric,value`.

    Returns:
        One grid for each representation and metric, in the order of the file; a pair without a
        row is NaN.

    Raises:
        ValueError: if the columns are others.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = tuple(next(reader, ()))
        if header != STITCHING_COLUMNS:
            raise ValueError(
                f"{path} has the columns {','.join(header)}, expected {','.join(STITCHING_COLUMNS)}"
            )
        tables: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
        for representation, encoder, decoder, metric, value in reader:
            tables.setdefault((representation, metric), {})[encoder, decoder] = float(value)
    grids = []
    for (representation, metric), cells in tables.items():
        encoders = tuple(dict.fromkeys(encoder for encoder, _ in cells))
        decoders = tuple(dict.fromkeys(decoder for _, decoder in cells))
        values = [[cells.get((e, d), math.nan) for d in decoders] for e in encoders]
        grids.append(Grid(representation, metric, np.array(values), encoders, decoders))
    return grids


def write_summary_csv(path: str | os.PathLike[str], summaries: Sequence[Summary]) -> Path:
    """Writes summaries as CSV, one row for each representation and metric.

    Columns: `representation,metric,non_stitched_mean,non_stitched_std,stitched_mean,
    stitched_std,stitching_index`. Values are not scaled; what does not exist is `nan`.

    Args:
        path: where the file goes; it is replaced in one step.
        summaries: the summaries, in the order in which they are to appear.

    Returns:
        The path.

    Raises:
        ValueError: if two summaries have the same representation and metric.
    """
    _check_distinct(summaries)
    rows = [[getattr(summary, column) for column in SUMMARY_COLUMNS] for summary in summaries]
    return write_csv(path, SUMMARY_COLUMNS, rows)


def write_summary_json(path: str | os.PathLike[str], summaries: Sequence[Summary]) -> Path:
    """Writes summaries as a JSON list of objects, with all their fields.

    Args:
        path: where the file goes; it is replaced in one step.
        summaries: the summaries, in the order in which they are to appear. What does not exist
            is `null`.

    Returns:
        The path.

    Raises:
        ValueError: if two summaries have the same representation and metric.
    """
    _check_distinct(summaries)
    return atomic_write_text(path, _json_text([dataclasses.asdict(s) for s in summaries]))


# --- Tables for people: scaled, rounded -------------------------------------------------------


def _decimals(value: float, significant: int) -> int:
    """Decimals that show so many significant digits of a value."""
    return significant - 1 - math.floor(math.log10(abs(value))) if value else significant


def format_mean_std(mean: float, std: float, count: int) -> str:
    """`mean ± std` with as many digits as the spread supports: three or four of the mean.

    Args:
        mean: the mean, already scaled.
        std: the standard deviation, already scaled; NaN if there is none.
        count: how many values there were; with none, the result is a dash.

    Returns:
        The text.
    """
    if count == 0:
        return "–"
    if not math.isfinite(mean):
        return str(mean)
    if mean and not 1e-3 <= abs(mean) < 1e5:
        return f"{mean:.2e}" + (f" ± {std:.1e}" if math.isfinite(std) else "")
    least, most = _decimals(mean, 3), _decimals(mean, 4)
    spread = math.isfinite(std) and std > 0
    decimals = max(min(max(_decimals(std, 2), least), most) if spread else most, 0)
    return f"{mean:.{decimals}f}" + (f" ± {std:.{decimals}f}" if math.isfinite(std) else "")


def _format_ratio(value: float) -> str:
    if math.isnan(value):
        return "–"
    if value and abs(value) < 0.0995:
        return f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.3g}"


def _best(summaries: Sequence[Summary]) -> set[int]:
    """Rows with the best stitched mean of their metric, where there is more than one to compare."""
    best: set[int] = set()
    for name in {summary.metric for summary in summaries}:
        sign = 1 if get_metric(name).higher_is_better else -1
        rows = {
            i: sign * summary.stitched_mean
            for i, summary in enumerate(summaries)
            if summary.metric == name and math.isfinite(summary.stitched_mean)
        }
        if len(rows) > 1:
            best |= {i for i, value in rows.items() if value == max(rows.values())}
    return best


def _cells(summaries: Sequence[Summary]) -> tuple[list[str], list[list[str]], int]:
    """Header, rows, and the index of the column of stitched values."""
    metrics = list(dict.fromkeys(summary.metric for summary in summaries))
    single = get_metric(metrics[0]) if len(metrics) == 1 else None
    with_ratio = single is not None and not single.higher_is_better
    unit = f" ({single.label})" if single else ""
    header = ["Representation", f"Non-stitched{unit}", f"Stitched{unit}"]
    if single is None:
        header.insert(1, "Metric")
    if with_ratio:
        header.append("Stitched ÷ non-stitched")
    header.append("Stitching index")
    rows = []
    for s in summaries:
        metric = get_metric(s.metric)
        scale = metric.scale
        row = [
            s.representation,
            format_mean_std(s.non_stitched_mean * scale, s.non_stitched_std * scale, s.num_seeds),
            format_mean_std(s.stitched_mean * scale, s.stitched_std * scale, s.num_pairs),
        ]
        if single is None:
            row.insert(1, metric.label)
        if with_ratio:
            row.append(_format_ratio(_ratio(s.stitched_mean, s.non_stitched_mean)))
        row.append(_format_ratio(s.stitching_index))
        rows.append(row)
    return header, rows, 2 if single else 3


def _range(values: Iterable[int], noun: str) -> str:
    low, high = min(values := list(values)), max(values)
    number = str(low) if low == high else f"{low}–{high}"
    return f"{number} {noun}" + ("" if number == "1" else "s")


def describe(summaries: Sequence[Summary]) -> str:
    """One sentence that says what the numbers of a table are means of.

    Args:
        summaries: the rows of the table.

    Returns:
        The text, such as `Mean ± standard deviation over 5 seeds and 20 stitched pairs.`; empty
        if there are no rows.
    """
    if not summaries:
        return ""
    return (
        "Mean ± standard deviation over "
        f"{_range([s.num_seeds for s in summaries], 'seed')} and "
        f"{_range([s.num_pairs for s in summaries], 'stitched pair')}."
    )


def describe_excluded(summaries: Sequence[Summary]) -> str:
    """One sentence that lists the seeds that diverged and were left out.

    Args:
        summaries: the rows of the table.

    Returns:
        The text; empty if no seed diverged.
    """
    left_out: dict[str, dict[str, None]] = {}
    for summary in summaries:
        if summary.excluded:
            left_out.setdefault(summary.representation, {}).update(dict.fromkeys(summary.excluded))
    if not left_out:
        return ""
    parts = [
        f"{name}: {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"
        for name, seeds in left_out.items()
    ]
    return f"Left out because training diverged: {'; '.join(parts)}."


def terminal_table(summaries: Sequence[Summary], *, title: str | None = None) -> Table:
    """Table of summaries for the terminal.

    Rows are representations; columns are the non-stitched and the stitched score as mean ±
    standard deviation, the stitching index, and for an error also how many times larger it is
    after stitching. Name and stitched score of the best representation are bold. With more than
    one metric there is a column that names it.

    Args:
        summaries: the rows.
        title: text above the table.

    Returns:
        A table to print with `rich`.

    Raises:
        ValueError: if a metric is not known.
    """
    header, rows, stitched = _cells(summaries)
    caption = " ".join(filter(None, [describe(summaries), describe_excluded(summaries)]))
    table = Table(title=title, caption=caption or None, title_style="bold")
    for i, name in enumerate(header):
        numeric = i >= stitched - 1
        table.add_column(
            name.replace(" (", "\n(").replace("Stitching ", "Stitching\n").replace("÷ ", "÷\n"),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=numeric and "÷" not in name,
        )
    best = _best(summaries)
    for i, row in enumerate(rows):
        # Text, because a name in square brackets would be read as markup.
        table.add_row(
            *(
                Text(cell, style="bold" if i in best and j in (0, stitched) else "")
                for j, cell in enumerate(row)
            )
        )
    return table


def markdown_cell(text: str) -> str:
    """A text, such as a name that a user gave, for a cell of a table in Markdown."""
    return text.replace("|", "\\|")


def markdown_table(summaries: Sequence[Summary]) -> str:
    """Table of summaries in Markdown, with the rows and columns of `terminal_table`.

    Args:
        summaries: the rows.

    Returns:
        The table, one line a row, ending with a line end.

    Raises:
        ValueError: if a metric is not known.
    """
    header, rows, stitched = _cells(summaries)
    best = _best(summaries)
    rule = ["---:" if i >= stitched - 1 else ":---" for i in range(len(header))]
    lines = [header, rule]
    for i, row in enumerate(rows):
        cells = [markdown_cell(cell) for cell in row]
        if i in best:
            cells = [f"**{c}**" if j in (0, stitched) else c for j, c in enumerate(cells)]
        lines.append(cells)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
