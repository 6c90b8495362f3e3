"""Stored latents of several encoders, stitched by many methods: tables, pictures, a report.

The vision and text experiments of Moschella et al. 2023 (arXiv 2209.15430, section 5) and
Cannistraci et al. 2024 (arXiv 2310.01211, section 4.2), on latents that somebody else computed.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table
from rich.text import Text

from relrep_jax import report
from relrep_jax.stitching import representations, stitching_index
from relrep_jax.stitching.heads import Head
from relrep_jax.stitching.latents import LatentStitching, stitch_latents
from relrep_jax.stitching.representations import Representation

METHODS = (
    "absolute",
    "centred_cosine",
    "euclidean",
    "product",
    "prototypes",
    "whitened_inner",
    "orthogonal",
    "ridge",
    "inverse_relative",
    "consensus",
    "matched_consensus",
)
"""What is compared where nobody names methods."""

PAIR_COLUMNS = ("method", "parallel_samples", "seed", "encoder", "decoder", "metric", "value")
SUMMARY_COLUMNS = (
    "method",
    "parallel_samples",
    "metric",
    "non_stitched_mean",
    "non_stitched_std",
    "stitched_mean",
    "stitched_std",
    "stitched_std_over_pairs",
    "stitching_index",
    "num_seeds",
    "num_pairs",
)
METRICS = ("accuracy", "f1_weighted")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One method at one budget of parallel samples."""

    method: str
    result: LatentStitching

    @property
    def parallel_samples(self) -> int:
        return self.result.parallel_samples


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the summary: what it says and what its figures are means of.

    Attributes:
        method, parallel_samples, metric: what was scored.
        non_stitched_mean: mean over seeds and encoders with their own heads.
        non_stitched_std: standard deviation over seeds of the mean over encoders.
        stitched_mean: mean over seeds and over the pairs of different encoders.
        stitched_std: standard deviation over seeds of the mean over pairs: how sure the mean is.
        stitched_std_over_pairs: standard deviation over pairs of the mean over seeds: how much
            pairs differ.
        stitching_index: mean over pairs of the stitched score divided by the non-stitched score
            of the same head.
        num_seeds, num_pairs: how many of each.
    """

    method: str
    parallel_samples: int
    metric: str
    non_stitched_mean: float
    non_stitched_std: float
    stitched_mean: float
    stitched_std: float
    stitched_std_over_pairs: float
    stitching_index: float
    num_seeds: int
    num_pairs: int


def _std(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1)) if values.size > 1 else math.nan


def summarize(outcome: Outcome, metric: str) -> Row:
    """Means and spreads of one method at one budget."""
    result = outcome.result
    own, stitched = result.non_stitched(metric), result.stitched(metric)
    index = math.nan
    if stitched.size:
        grid = np.mean(getattr(result, metric), axis=0)
        index = float(stitching_index(grid, where=result.crosses))
    return Row(
        method=outcome.method,
        parallel_samples=outcome.parallel_samples,
        metric=metric,
        non_stitched_mean=float(own.mean()),
        non_stitched_std=_std(own.mean(axis=1)),
        stitched_mean=float(stitched.mean()) if stitched.size else math.nan,
        stitched_std=_std(stitched.mean(axis=1)) if stitched.size else math.nan,
        stitched_std_over_pairs=_std(stitched.mean(axis=0)) if stitched.size else math.nan,
        stitching_index=index,
        num_seeds=len(own),
        num_pairs=stitched.shape[1],
    )


def plan(methods: Sequence[str], budgets: Sequence[int | None]) -> list[tuple[str, int | None]]:
    """Every method at every budget; those that use no parallel samples first, and once."""
    free = [name for name in methods if not representations.get(name).uses_parallel_samples]
    others = [name for name in methods if name not in free]
    return [(name, None) for name in free] + [(n, budget) for budget in budgets for n in others]


def stitch(
    method: str,
    spaces: Mapping[str, Any],
    labels: Any,
    split: Any,
    parallel_samples: int | None,
    *,
    seeds: int | Sequence[int],
    head: str | Head,
    representation: Representation | None = None,
    heads: LatentStitching | None = None,
) -> Outcome:
    """One method at one budget; the arguments are those of `stitch_latents`.

    The method names its representation, where none is given.
    """
    return Outcome(
        method,
        stitch_latents(
            spaces,
            labels,
            split,
            method if representation is None else representation,
            head,
            seeds,
            parallel_samples=parallel_samples,
            heads=heads,
        ),
    )


def pair_rows(outcomes: Sequence[Outcome]) -> list[tuple]:
    """A row for each method, budget, seed, pair and metric (see `PAIR_COLUMNS`)."""
    return [
        (
            outcome.method,
            outcome.parallel_samples,
            int(seed),
            encoder,
            decoder,
            metric,
            float(getattr(outcome.result, metric)[run, i, j]),
        )
        for outcome in outcomes
        for run, seed in enumerate(outcome.result.seeds)
        for i, encoder in enumerate(outcome.result.names)
        for j, decoder in enumerate(outcome.result.names)
        for metric in METRICS
        if not math.isnan(getattr(outcome.result, metric)[run, i, j])
    ]


def letters(names: Sequence[str]) -> list[str]:
    """A, B, ..., Z, AA, ...: what stands for long names in pictures."""
    made = []
    for number in range(len(names)):
        word = ""
        while number >= 0:
            word, number = chr(ord("A") + number % 26) + word, number // 26 - 1
        made.append(word)
    return made


def grids(outcomes: Sequence[Outcome], metric: str) -> list[report.Grid]:
    """Means over seeds, a grid for each method, encoders by their letters."""
    made = []
    for outcome in outcomes:
        short = tuple(letters(outcome.result.names))
        values = np.mean(getattr(outcome.result, metric), axis=0)
        made.append(report.Grid(outcome.method.replace("_", " "), metric, values, short, short))
    return made


def tables(outcomes: Sequence[Outcome]) -> dict[str, tuple[Sequence[str], list[tuple]]]:
    """Columns and rows of `pairs`, with a row for each score, and of `summary`."""
    summary = [dataclasses.astuple(summarize(o, metric)) for metric in METRICS for o in outcomes]
    return {"pairs": (PAIR_COLUMNS, pair_rows(outcomes)), "summary": (SUMMARY_COLUMNS, summary)}


def write_tables(folder: Path, outcomes: Sequence[Outcome]) -> list[Path]:
    """`pairs` and `summary`, each as CSV and JSON."""
    return [
        write(folder / f"{name}{ending}", columns, rows)
        for name, (columns, rows) in tables(outcomes).items()
        for ending, write in ((".csv", report.write_csv), (".json", report.write_json))
    ]


def write_figures(
    folder: Path, outcomes: Sequence[Outcome], metric: str = "accuracy"
) -> list[tuple[str, Path]]:
    """A heat map of the mean score for each method, a figure for each budget."""
    figures = []
    budgets = list(dict.fromkeys(outcome.parallel_samples for outcome in outcomes))
    for budget in [budget for budget in budgets if budget] or budgets:
        # What needs no parallel samples stands beside, to be compared with.
        chosen = [outcome for outcome in outcomes if outcome.parallel_samples in (0, budget)]
        figure = report.pair_grid(grids(chosen, metric), missing="widths differ")
        path = report.save(figure, folder / f"pairs_{budget}.png")
        names = chosen[0].result.names
        key = ", ".join(
            f"{short} {name}" for short, name in zip(letters(names), names, strict=True)
        )
        known = f"{budget} parallel samples" if budget else "no parallel samples"
        label = report.get_metric(metric).label
        figures.append((f"{label} with {known}, mean over seeds. {key}.", path))
    return figures


HEADER = (
    "Method",
    "Parallel samples",
    "Own head",
    "Stitched",
    "± over pairs",
    "Stitching index",
)


def table_cells(outcomes: Sequence[Outcome], metric: str = "accuracy") -> list[list[str]]:
    """The rows of the table for people, in percent (see `HEADER`)."""
    rows = []
    for row in (summarize(outcome, metric) for outcome in outcomes):
        spread, index = row.stitched_std_over_pairs, row.stitching_index
        rows.append(
            [
                row.method,
                str(row.parallel_samples),
                report.percent(row.non_stitched_mean, row.non_stitched_std),
                report.percent(row.stitched_mean, row.stitched_std),
                "–" if math.isnan(spread) else f"{100 * spread:.1f}",
                "–" if math.isnan(index) else f"{index:.3f}",
            ]
        )
    return rows


def best(outcomes: Sequence[Outcome], metric: str = "accuracy") -> set[int]:
    """The outcomes with the highest stitched mean of each budget."""
    means = [summarize(outcome, metric).stitched_mean for outcome in outcomes]
    found = set()
    for budget in {outcome.parallel_samples for outcome in outcomes}:
        rows = [
            i
            for i, outcome in enumerate(outcomes)
            if outcome.parallel_samples == budget and not math.isnan(means[i])
        ]
        if len(rows) > 1:
            found.add(max(rows, key=lambda i: means[i]))
    return found


def describe(outcomes: Sequence[Outcome]) -> str:
    """What the numbers of the table are."""
    row = summarize(outcomes[0], "accuracy")
    encoders = len(outcomes[0].result.names)
    return (
        f"Accuracy in percent, mean ± standard deviation over {row.num_seeds} seeds of the mean "
        f"over {encoders} encoders with their own heads and {encoders * (encoders - 1)} ordered "
        "pairs of different encoders; '± over pairs' is the standard deviation over pairs. The "
        "stitching index is the stitched accuracy divided by that of the head's own encoder. Bold: "
        "the best of each number of parallel samples. absolute: pairs of one width only."
    )


def terminal_table(outcomes: Sequence[Outcome], title: str) -> Table:
    """The table for the terminal."""
    table = Table(title=title, caption=describe(outcomes), title_style="bold")
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="right" if i else "left", no_wrap=i != 1)
    bold, previous = best(outcomes), None
    for i, (outcome, cells) in enumerate(zip(outcomes, table_cells(outcomes), strict=True)):
        if previous not in (None, outcome.parallel_samples):
            table.add_section()
        previous = outcome.parallel_samples
        table.add_row(*(Text(cell, style="bold" if i in bold else "") for cell in cells))
    return table


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """The table in Markdown."""
    lines = [list(HEADER), [":---", *["---:"] * (len(HEADER) - 1)]]
    bold = best(outcomes)
    for i, cells in enumerate(table_cells(outcomes)):
        lines.append(
            [f"**{cell}**" if i in bold and j in (0, 3) else cell for j, cell in enumerate(cells)]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_latents_report(
    path: Path,
    *,
    title: str,
    intro: str,
    command: str,
    outcomes: Sequence[Outcome],
    figures: Sequence[tuple[str, Path]],
    failures: Sequence[str] = (),
) -> Path:
    """The report of a job: what was run, its table and pictures, and how to run it again."""
    pictures = [
        report.markdown_image(caption, image.absolute(), relative_to=path.parent)
        for caption, image in figures
    ]
    sections = [
        ("Results", f"{markdown_table(outcomes)}\n{describe(outcomes)}"),
        ("Figures", "\n\n".join(pictures)),
    ]
    if failures:
        sections.append(("Left out", "\n".join(f"- {failure}" for failure in failures)))
    sections.append(
        (
            "Files",
            "`pairs.csv` has a row for each method, number of parallel samples, seed, encoder "
            "(whose latents are fed), decoder (whose head reads them) and metric; `summary.csv` "
            "the table above with all digits, and the weighted F1 as well.",
        )
    )
    return report.write_report(
        path,
        title=title,
        intro=intro,
        command=command,
        sections=sections,
        versions={
            **report.environment("optax"),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        },
    )
