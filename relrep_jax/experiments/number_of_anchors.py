"""Accuracy against the number of anchors, with frozen encoders: experiment A9.

Moschella et al. 2023 (arXiv 2209.15430), the analysis of anchors in the appendix: with a frozen
encoder, more anchors are never worse. The numbers here are of *parallel samples*: a prototype is
the mean of several, so that representations are compared at equal knowledge.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report
from relrep_jax.experiments import latent_stitching as stitching
from relrep_jax.experiments import latents
from relrep_jax.experiments.config import ConfigError
from relrep_jax.stitching import REPRESENTATIONS, representations
from relrep_jax.stitching.heads import Head

METRIC = "accuracy"
STEP_COLUMNS = ("method", "kind", "from", "to", *report.PairedTest._fields)


def default_config() -> ConfigDict:
    """Every field of this experiment."""
    config = latents.latent_fields("number_of_anchors")
    config.anchors = ConfigDict()
    # Numbers of parallel samples; those above the number of training samples are an error.
    config.anchors.counts = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    latents.head_fields(config, "logistic_regression", epochs=10)
    # Names of relrep_jax.stitching.REPRESENTATIONS that use parallel samples.
    config.methods = ("centred_cosine", "product", "prototypes", "orthogonal")
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A config that was found good, with its data."""

    config: ConfigDict
    problem: latents.Problem
    head: Head
    counts: tuple[int, ...]


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    config, problem = latents.prepare_latents(
        config, default_config(), least={}, smoke={"head": latents.SMOKE_HEAD}
    )
    latents.check_names("config.methods", config.methods, REPRESENTATIONS)
    for name in config.methods:
        if not representations.get(name).uses_parallel_samples:
            raise ConfigError(f"config.methods has {name}, which has no anchors.")
    if not config.anchors.counts:
        raise ConfigError("config.anchors.counts is empty: name at least one number.")
    if config.scale == "smoke":
        config.anchors.counts = config.anchors.counts[1:8:4]
        config.methods = config.methods[:2]
    for count in config.anchors.counts:
        latents.check_anchors("every number of config.anchors.counts", count, problem)
    return Job(
        config, problem, latents.make_head(config.head), tuple(sorted(set(config.anchors.counts)))
    )


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Stitch with every number of anchors; write tables and curves.

    Returns:
        The report's path.
    """
    config, problem = job.config, job.problem
    outcomes = latents.stitch_methods(
        problem, config.methods, job.counts, head=job.head,
        seeds=latents.seeds_of(config), console=console,
    )  # fmt: skip
    steps = step_rows(outcomes, config.methods)
    return latents.write_findings(
        latents.Findings(
            title=f"Number of anchors: {problem.name}",
            intro=(
                "Accuracy against the number of parallel samples with frozen encoders, A9 of "
                f"Moschella et al. 2023. One head ({config.head.name.replace('_', ' ')}) on "
                "each encoder; every seed draws its own anchors, each number a prefix of the "
                "larger ones."
            ),
            sheets=[
                *(count_sheet(outcomes, kind, config.methods) for kind in KINDS),
                step_sheet(steps),
                *([method_sheet(outcomes, config.methods)] if len(config.methods) > 1 else []),
            ],
            tables={**stitching.tables(outcomes), "steps": (STEP_COLUMNS, steps)},
            figures=[
                curve_figure(workdir, outcomes, kind, config.methods, job.counts) for kind in KINDS
            ],
        ),
        problem,
        workdir,
        console,
        command,
    )


KINDS = ("non_stitched", "stitched")


def _scores(outcomes: Sequence[stitching.Outcome], method: str, kind: str) -> dict[int, np.ndarray]:
    """Scores `[seeds, encoders or pairs]` by number of parallel samples."""
    return {
        outcome.parallel_samples: getattr(outcome.result, kind)(METRIC)
        for outcome in outcomes
        if outcome.method == method
    }


def count_sheet(
    outcomes: Sequence[stitching.Outcome], kind: str, methods: Sequence[str]
) -> report.Sheet:
    """A row for each number, a column for each method."""
    found = {method: _scores(outcomes, method, kind) for method in methods}
    counts = sorted({outcome.parallel_samples for outcome in outcomes})
    rows, bold = [], set()
    for i, count in enumerate(counts):
        cells = [latents.seed_summary(found[method][count]) for method in methods]
        rows.append([str(count), *(report.percent(*cell) for cell in cells)])
        bold.add((i, 1 + latents.best_of([mean for mean, _ in cells])))
    what = "encoders with their own heads" if kind == "non_stitched" else "ordered pairs"
    return report.Sheet(
        f"Accuracy by number of parallel samples, {kind.replace('_', '-')}",
        ("Parallel samples", *methods),
        rows,
        "In percent, mean ± standard deviation over "
        f"{len(outcomes[0].result.seeds)} seeds of the mean over {what}. Bold: the best of a row.",
        frozenset(bold),
    )


def step_rows(outcomes: Sequence[stitching.Outcome], methods: Sequence[str]) -> list[tuple]:
    """Each number of anchors compared with the one before it (see `STEP_COLUMNS`)."""
    rows = []
    for method in methods:
        # Heads on the latents as they are do not depend on the number of parallel samples.
        for kind in KINDS[1:] if representations.get(method).keeps_latents else KINDS:
            found = _scores(outcomes, method, kind)
            counts = sorted(found)
            for before, after in zip(counts, counts[1:], strict=False):
                test = report.paired_test(found[after].mean(axis=0), found[before].mean(axis=0))
                rows.append((method, kind, before, after, *test))
    return rows


def step_sheet(steps: Sequence[tuple]) -> report.Sheet:
    """Where more anchors help, and where they do not."""
    rows = []
    for method, kind, before, after, *test in steps:
        cells = report.paired_cells(report.PairedTest(*test))
        rows.append([method, kind.replace("_", "-"), f"{before} → {after}", *cells])
    return report.Sheet(
        "More anchors, step by step",
        ("Method", "Heads", "Parallel samples", *report.PAIRED_HEADER),
        rows,
        "Difference in percentage points of the means over seeds, tested over encoders (own heads) "
        "or ordered pairs (stitched).",
        num_left=3,
    )


def method_sheet(outcomes: Sequence[stitching.Outcome], methods: Sequence[str]) -> report.Sheet:
    """Every two methods at every number of parallel samples, stitched."""
    found = {method: _scores(outcomes, method, "stitched") for method in methods}
    rows = []
    for first, second in itertools.combinations(methods, 2):
        for count, scores in found[first].items():
            test = report.paired_test(scores.mean(axis=0), found[second][count].mean(axis=0))
            rows.append([first, second, str(count), *report.paired_cells(test)])
    return report.Sheet(
        "Methods, stitched",
        ("Method", "Against", "Parallel samples", *report.PAIRED_HEADER),
        rows,
        "Difference in percentage points of the means over seeds, tested over ordered pairs, which "
        "share encoders and are not independent: the p-values are too small rather than too large.",
        num_left=2,
    )


def curve_figure(
    workdir: Path,
    outcomes: Sequence[stitching.Outcome],
    kind: str,
    methods: Sequence[str],
    counts: Sequence[int],
) -> tuple[str, Path]:
    """Curves with a band over seeds."""
    curves = {}
    for method in methods:
        found = _scores(outcomes, method, kind)
        curves[method] = 100 * np.stack([found[count].mean(axis=1) for count in counts], axis=1)
    figure = report.learning_curves(
        curves, "accuracy in percent", log=False, xlabel="parallel samples", x=counts, log_x=True
    )
    path = report.save(figure, workdir / "figures" / f"{kind}.png")
    return (
        f"Accuracy by number of parallel samples, {kind.replace('_', '-')}: the mean over seeds, "
        "from the lowest to the highest seed as a band.",
        path,
    )
