"""Accuracy against the number of anchors, with encoders trained end to end: experiment A9.

Moschella et al. 2023 (arXiv 2209.15430), the analysis of anchors in the appendix: where an encoder
learns together with its relative layer, more anchors do not always help, and training may
collapse. Beside them absolute latents, through maps that are fitted on as many samples. The half
with frozen encoders is `number_of_anchors`.
"""

import dataclasses
import itertools
import shlex
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report
from relrep_jax.experiments import end_to_end, graph_stitching
from relrep_jax.experiments.config import ConfigError, check_fields
from relrep_jax.training.logs import MetricsLog, TrainingProgress

COLUMNS = ("representation", "anchors", "encoder", "decoder", "accuracy")
KINDS = ("non_stitched", "stitched")
SMOKE_COUNTS = 2
"""How many numbers of anchors are tried at the scale `smoke`."""


def default_config() -> ConfigDict:
    """Every field of this experiment, with the values of a small job."""
    config = graph_stitching.default_config()
    config.experiment = "end_to_end_anchors"
    # One number is trained after another.
    del config.anchors.count
    config.anchors.counts = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    # Absolute latents have no anchors to train with: they are trained once, and the maps of
    # config.translations from encoder to decoder are fitted on the same numbers of nodes.
    config.translations = ("orthogonal",)
    return config


@dataclasses.dataclass(frozen=True)
class Job:
    """A config that was found good: one job of training for each number of anchors."""

    config: ConfigDict
    runs: dict[int, graph_stitching.Job]


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its graph, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, default_config(), free=end_to_end.FREE_FIELDS)
    counts = tuple(sorted(set(config.anchors.counts)))
    if not counts:
        raise ConfigError("config.anchors.counts is empty: name at least one number.")
    if config.scale == "smoke":
        counts = counts[1 : 1 + SMOKE_COUNTS] or counts
    runs = {count: graph_stitching.prepare(_one(config, count)) for count in counts}
    first = min(counts)
    labels = [
        _label(one, name, count)
        for count, one in runs.items()
        for name in one.models
        if one.representations[name].similarities or count == first
    ]
    if len(set(labels)) < len(labels):
        raise ConfigError(
            "Two trainings would have the same name, a representation's with its number of "
            f"anchors: {', '.join(sorted(labels))}. Rename the one that ends in a number."
        )
    return Job(config, runs)


def _one(config: ConfigDict, count: int) -> ConfigDict:
    """The config of `graph_stitching` with so many anchors."""
    one = config.copy_and_resolve_references()
    with one.unlocked():
        one.experiment = "graph_stitching"
        del one.anchors.counts
        one.anchors.count = count
        one.representations = config.representations  # a copy would sort them
    return one


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Train and stitch with every number of anchors; write tables and curves.

    Returns:
        The report's path.
    """
    first = next(iter(job.runs.values()))
    names, seeds = list(first.models), first.seeds
    console.print(f"{_title(first)}\n{_headline(job)}", highlight=False)
    totals = {
        _label(one, name, count): one.config.training.epochs
        for name in names
        for count, one in job.runs.items()
    }
    grids: dict[str, dict[int, np.ndarray]] = {}
    with MetricsLog(workdir, seeds) as log, TrainingProgress(console, totals) as progress:
        for name in names:
            trained = None
            for count, one in job.runs.items():
                if trained is None or one.representations[name].similarities:
                    label = _label(one, name, count)
                    trained = graph_stitching.train(one, name, workdir, log, progress, label=label)
                found, _ = graph_stitching.evaluate(one, name, trained)
                for row, grid in found.items():
                    grids.setdefault(row, {})[count] = grid

    rows = [
        (name, count, seeds[i], seeds[j], float(grid[i, j]))
        for name, by_count in grids.items()
        for count, grid in by_count.items()
        for i in range(len(seeds))
        for j in range(len(seeds))
    ]
    report.write_csv(workdir / "tables" / "accuracy.csv", COLUMNS, rows)
    report.write_json(workdir / "tables" / "accuracy.json", COLUMNS, rows)
    translated = [row for row in grids if row not in names]
    relative = [name for name in names if first.representations[name].similarities]
    # Of each kind the rows that say something of their own: not stitched nothing is translated.
    shown = {"non_stitched": {name: grids[name] for name in names}, "stitched": grids}
    varying = {"non_stitched": relative, "stitched": [*relative, *translated]}
    sheets = [_sheet(shown[kind], kind, not job.config.data.path) for kind in KINDS]
    if len(seeds) > 1 and len(job.runs) > 1 and (relative or translated):
        sheets.append(_step_sheet(grids, varying))
    if len(seeds) > 1 and relative and len(grids) > 1:
        sheets.append(_comparison_sheet(grids, relative[0]))
    for sheet in sheets:
        console.print(report.sheet_terminal(sheet))
    path = report.write_report(
        workdir / "report.md",
        title=_title(first),
        intro=f"{_headline(job)}.",
        command=command or f"python train.py --workdir={shlex.quote(str(workdir))}",
        figures=[_figure(shown[kind], kind, workdir) for kind in KINDS],
        sections=[
            *((sheet.title, report.sheet_markdown(sheet)) for sheet in sheets),
            *end_to_end.translations_section(translated),
            *end_to_end.published_section(job.config, is_embedded=not job.config.data.path),
        ],
        versions=report.environment("flax", "optax"),
    )
    console.print(f"Tables, figures and report: {workdir}", highlight=False, soft_wrap=True)
    return path


def _label(job: graph_stitching.Job, name: str, count: int) -> str:
    """What logs and checkpoints call a training; that of absolute latents has no anchors."""
    return f"{name}_{count}" if job.representations[name].similarities else name


def by_seed(grid: np.ndarray, kind: str) -> np.ndarray:
    """Of scores `[encoders, decoders]` one a seed: its own, or the mean over other encoders."""
    own = np.eye(len(grid), dtype=bool)
    if kind == "non_stitched":
        return grid[own]
    others = np.where(own, np.nan, grid)
    # Of encoders that did not diverge.
    alive = np.isfinite(others).any(axis=0)
    return np.array([np.nanmean(others[:, j]) if alive[j] else np.nan for j in range(len(grid))])


def _sheet(grids: dict[str, dict[int, np.ndarray]], kind: str, is_embedded: bool) -> report.Sheet:
    counts = list(next(iter(grids.values())))
    rows = []
    for count in counts:
        cells = [str(count)]
        for by_count in grids.values():
            values = by_seed(by_count[count], kind)
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
            cells.append(report.percent(float(values.mean()), spread))
        rows.append(cells)
    number = len(next(iter(next(iter(grids.values())).values())))
    return report.Sheet(
        f"Accuracy by number of anchors, {kind.replace('_', '-')}"
        + (" (embedded digits)" if is_embedded else ""),
        ("Anchors", *grids),
        rows,
        f"In percent, mean ± standard deviation over {number} "
        + ("seeds." if kind == "non_stitched" else "heads of the mean over other encoders."),
    )


def _step_sheet(
    grids: dict[str, dict[int, np.ndarray]], varying: dict[str, list[str]]
) -> report.Sheet:
    """Each number of anchors against the one before it, of rows that depend on it, by kind."""
    rows = []
    for name, by_count in grids.items():
        for kind in (kind for kind in KINDS if name in varying[kind]):
            scores = {count: by_seed(grid, kind) for count, grid in by_count.items()}
            for before, after in itertools.pairwise(scores):
                cells = report.paired_cells(report.paired_test(scores[after], scores[before]))
                rows.append([name, kind.replace("_", "-"), f"{before} → {after}", *cells])
    return report.Sheet(
        "More anchors, step by step",
        ("Representation", "Heads", "Anchors", *report.PAIRED_HEADER),
        rows,
        "Difference in percentage points, tested over seeds.",
        num_left=3,
    )


def _comparison_sheet(grids: dict[str, dict[int, np.ndarray]], reference: str) -> report.Sheet:
    """Each representation against one of them, stitched."""
    rows = []
    for name, by_count in grids.items():
        for count, grid in by_count.items() if name != reference else ():
            pair = (by_seed(one, "stitched") for one in (grid, grids[reference][count]))
            cells = report.paired_cells(report.paired_test(*pair))
            rows.append([name, reference, str(count), *cells])
    return report.Sheet(
        "Representations, stitched",
        ("Representation", "Against", "Anchors", *report.PAIRED_HEADER),
        rows,
        "Difference in percentage points, tested over heads, which are scored with the same "
        "encoders and are not independent: the p-values are too small rather than too large.",
        num_left=2,
    )


def _figure(grids: dict[str, dict[int, np.ndarray]], kind: str, workdir: Path) -> tuple[str, str]:
    counts = list(next(iter(grids.values())))
    curves = {
        name: 100 * np.stack([by_seed(by_count[count], kind) for count in counts], axis=1)
        for name, by_count in grids.items()
    }
    figure = report.learning_curves(
        curves, "accuracy in percent", log=False, xlabel="anchors", x=counts, log_x=True
    )
    report.save(figure, workdir / "figures" / f"{kind}.png")
    caption = (
        f"Accuracy by number of anchors, {kind.replace('_', '-')}: the mean over seeds, from the "
        "lowest to the highest as a band."
    )
    return caption, f"figures/{kind}.png"


def _title(first: graph_stitching.Job) -> str:
    return f"Number of anchors, end to end: {first.dataset.name}"


def _headline(job: Job) -> str:
    first = next(iter(job.runs.values()))
    fields = first.config
    return (
        f"{first.dataset.num_nodes:,} nodes, {fields.model.num_layers} {fields.model.layer} layers "
        f"of {fields.model.hidden_features} features, {fields.training.epochs} epochs, "
        f"{len(first.seeds)} seeds, {', '.join(map(str, job.runs))} anchors"
    )
