"""Subspaces and quantised similarities: experiment A10.

Code of Moschella et al. 2023 (arXiv 2209.15430), sections "subspaces" and "quantization", which
are not in the paper: latents are cut into subspaces that are projected one by one, and
similarities are rounded so that small differences between encoders vanish.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report, similarities
from relrep_jax.experiments import latent_stitching as stitching
from relrep_jax.experiments import latents
from relrep_jax.experiments.config import ConfigError
from relrep_jax.stitching import Representation, representations
from relrep_jax.stitching.heads import Head

ANCHORS = 256
METRIC = "accuracy"
PLAIN = "one space, not rounded"
STITCHED = "stitched accuracy in percent"


def default_config() -> ConfigDict:
    """Every field of this experiment."""
    config = latents.latent_fields("subspaces")
    latents.anchor_fields(config)
    # Names of relrep_jax.similarities.SIMILARITIES and, joined by +, of transforms.
    config.anchors.similarity = "cosine"
    config.anchors.absolute_transform = "centering"
    latents.head_fields(config, "logistic_regression", epochs=10)
    # Into how many subspaces latents are cut; 1 needs no pooling.
    config.subspaces = (2, 4, 8, 16)
    # How their relative spaces are pooled: concatenation | sum | mean | max
    config.poolings = ("concatenation", "sum", "mean", "max")
    # Similarities are rounded to multiples of these widths.
    config.bins = (0.01, 0.05, 0.1, 0.2, 0.5)
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
    """One way to project.

    Attributes:
        name: in tables.
        family: pooling, or `rounded`; of each a curve.
        amount: number of subspaces or width of bins.
        representation: what does it.
    """

    name: str
    family: str
    amount: float
    representation: Representation


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A config that was found good, with its data."""

    config: ConfigDict
    problem: latents.Problem
    head: Head
    num_anchors: int
    variants: tuple[Variant, ...]


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    config, problem = latents.prepare_latents(
        config, default_config(), least={"anchors.count": 0}, smoke={"head": latents.SMOKE_HEAD}
    )
    if config.scale == "smoke":
        config.subspaces, config.bins = config.subspaces[:1], config.bins[-2:-1]
        config.poolings = config.poolings[:2]
    narrowest = min(space.shape[1] for space in problem.spaces.values())
    for number in config.subspaces:
        if not 1 <= number <= narrowest:
            raise ConfigError(
                f"config.subspaces must lie in 1 .. {narrowest}, the width of the narrowest "
                f"encoder, got {number}."
            )
    for width in config.bins:
        if not width > 0:
            raise ConfigError(f"config.bins must be above 0, got {width}.")
    count = latents.num_anchors(config.anchors.count, config, problem, ANCHORS)
    return Job(config, problem, latents.make_head(config.head), count, _variants(config))


def _variants(config: ConfigDict) -> tuple[Variant, ...]:
    similarity = similarities.get(config.anchors.similarity)
    transform = latents.transform_of(config.anchors.absolute_transform)
    latents.check_names("config.poolings", config.poolings, representations.POOLINGS)
    plain = representations.relative(similarity, transform)
    cut = [
        Variant(
            f"{number} subspaces, {pooling}",
            pooling,
            number,
            representations.subspaces(number, pooling, similarity, transform),
        )
        for pooling in config.poolings
        for number in config.subspaces
    ]
    rounded = [
        Variant(
            f"rounded to {width:g}",
            "rounded",
            width,
            representations.relative(
                similarity, transform, partial(similarities.quantize, bin=width)
            ),
        )
        for width in config.bins
    ]
    return (Variant(PLAIN, "plain", 1, plain), *cut, *rounded)


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Stitch with every variant; write tables and curves.

    Returns:
        The report's path.
    """
    config, problem, outcomes = job.config, job.problem, []
    transform = config.anchors.absolute_transform
    with report.progress(console, "stitching", len(job.variants)) as advance:
        for variant in job.variants:
            outcomes.append(
                stitching.stitch(
                    variant.name, problem.spaces, problem.labels, problem.split, job.num_anchors,
                    seeds=latents.seeds_of(config), head=job.head,
                    representation=variant.representation,
                )
            )  # fmt: skip
            advance(what=variant.name)
    return latents.write_findings(
        latents.Findings(
            title=f"Subspaces and quantised similarities: {problem.name}",
            intro=(
                f"{config.anchors.similarity.capitalize()} to {job.num_anchors} anchors"
                f"{f' after {transform}' if transform else ''}, in contiguous subspaces of equal "
                "size, or rounded (A10, in the code of Moschella et al. 2023). A "
                f"{config.head.name.replace('_', ' ')} head on each encoder."
            ),
            sheets=[variant_sheet(outcomes)],
            tables=stitching.tables(outcomes),
            figures=write_figures(workdir / "figures", job.variants, outcomes),
        ),
        problem,
        workdir,
        console,
        command,
    )


def variant_sheet(outcomes: Sequence[stitching.Outcome]) -> report.Sheet:
    """A row for each variant, with its paired test against the plain projection."""
    plain = latents.pair_means(outcomes[0], METRIC)
    means = [outcome.result.stitched(METRIC).mean() for outcome in outcomes]
    rows = []
    for outcome in outcomes:
        test = report.paired_test(latents.pair_means(outcome, METRIC), plain)
        rows.append([
            outcome.method,
            report.percent(*latents.seed_summary(outcome.result.non_stitched(METRIC))),
            report.percent(*latents.seed_summary(outcome.result.stitched(METRIC))),
            *(report.paired_cells(test) if outcome is not outcomes[0] else [""] * 4),
        ])  # fmt: skip
    return report.Sheet(
        "Subspaces and rounding",
        ("Projection", "Own head", "Stitched", *report.PAIRED_HEADER),
        rows,
        f"Accuracy in percent, mean ± standard deviation over {len(outcomes[0].result.seeds)} "
        "seeds of the mean over encoders or ordered pairs; the difference to the first row in "
        "percentage points, tested over pairs.",
        frozenset({(latents.best_of(means), 2)}),
    )


def write_figures(
    folder: Path, variants: Sequence[Variant], outcomes: Sequence[stitching.Outcome]
) -> list[tuple[str, Path]]:
    """Stitched accuracy by number of subspaces, and by width of bins."""
    scores = {
        variant.name: outcome.result.stitched(METRIC).mean(axis=1)
        for variant, outcome in zip(variants, outcomes, strict=True)
    }
    families: dict[str, list[Variant]] = {}
    for variant in variants[1:]:
        families.setdefault(variant.family, []).append(variant)
    rounded = families.pop("rounded", [])
    figures = []
    if families:
        curves = {
            pooling: 100 * np.stack([scores[PLAIN], *(scores[one.name] for one in members)], axis=1)
            for pooling, members in families.items()
        }
        amounts = [1, *(one.amount for one in next(iter(families.values())))]
        figure = report.learning_curves(
            curves, STITCHED, log=False, xlabel="subspaces", x=amounts, log_x=True
        )
        path = report.save(figure, folder / "subspaces.png")
        figures.append(("Stitched accuracy by number of subspaces; bands over seeds.", path))
    if rounded:
        curves = {
            "rounded": 100 * np.stack([scores[one.name] for one in rounded], axis=1),
            PLAIN: 100 * np.tile(scores[PLAIN][:, None], len(rounded)),
        }
        amounts = [one.amount for one in rounded]
        figure = report.learning_curves(
            curves, STITCHED, log=False, xlabel="width of bins", x=amounts, log_x=True
        )
        path = report.save(figure, folder / "bins.png")
        figures.append(("Stitched accuracy by width of bins; bands over seeds.", path))
    return figures
