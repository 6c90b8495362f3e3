"""Which class of maps links two encoders? Experiment B1.

Cannistraci et al. 2024 (arXiv 2310.01211), figure 1: if the spaces of two encoders differ by a map
of some class, then projections that are invariant to the class are alike. How alike is measured by
linear CKA; no class is the right one for all pairs.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import measures, report
from relrep_jax.experiments import latents
from relrep_jax.projection import Similarity, relative_projection
from relrep_jax.report.comparison import PairScore, comparison_figure
from relrep_jax.training.seeds import over_seeds, plan_seeds
from relrep_jax.transforms import TransformLike

ANCHORS = 500
COLUMNS = ("class", "first", "second", "seed", "cka")

CLASSES: dict[str, tuple[Similarity, TransformLike]] = {
    "conformal": ("cosine", "centering"),
    "Euclidean": ("euclidean", None),
    "orthogonal": ("inner", None),
    "signed permutation (L1)": ("manhattan", None),
    "signed permutation (L∞)": ("chebyshev", None),
    "diagonal": ("cosine", "standard_scaling"),
}
"""Classes of maps, and a similarity with an absolute transform that is blind to each of them.

Conformal: rotations, one scale, translations. Euclidean: rotations, translations. Orthogonal:
rotations. Signed permutation: these and translations. Diagonal: a scale for each feature, signed
permutations, translations.
"""


def default_config() -> ConfigDict:
    """Every field of this experiment."""
    config = latents.latent_fields("transformation_classes")
    latents.anchor_fields(config)
    # Names of CLASSES.
    config.classes = tuple(CLASSES)
    # Unbiased estimates of CKA, which do not grow with the number of anchors.
    config.debiased = True
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A config that was found good, with its data."""

    config: ConfigDict
    problem: latents.Problem
    num_anchors: int


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    config, problem = latents.prepare_latents(config, default_config(), least={"anchors.count": 0})
    latents.check_names("config.classes", config.classes, CLASSES)
    return Job(config, problem, latents.num_anchors(config.anchors.count, config, problem, ANCHORS))


def similarities_of_classes(job: Job) -> np.ndarray:
    """Linear CKA of test samples, `[seeds, classes, pairs]`; pairs as `itertools.combinations`."""
    problem, config = job.problem, job.config
    test, train = problem.test, problem.train
    pairs = list(itertools.combinations(range(len(problem.spaces)), 2))
    seeds = latents.seeds_of(config)
    rows = np.stack(
        [np.random.default_rng(seed).permutation(train)[: job.num_anchors] for seed in seeds]
    )

    def one(anchors, spaces):
        found = []
        for name in config.classes:
            similarity, transform = CLASSES[name]
            projected = [
                relative_projection(space[test], space[anchors], similarity, transform)
                for space in spaces
            ]
            stacked = jnp.stack(projected)
            first, second = (jnp.asarray(side) for side in zip(*pairs, strict=True))
            found.append(
                jax.lax.map(
                    lambda pair, stacked=stacked: measures.linear_cka(
                        stacked[pair[0]], stacked[pair[1]], debiased=config.debiased
                    ),
                    (first, second),
                )
            )
        return jnp.stack(found)

    plan = plan_seeds(len(seeds))
    scored = over_seeds(one, plan)(plan.pad(jnp.asarray(rows)), plan.share(problem.on_device()))
    return np.asarray(plan.unpad(scored), np.float64)


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Compare all pairs of encoders for every class; write tables and heat maps.

    Returns:
        The report's path.
    """
    config, problem = job.config, job.problem
    scores = similarities_of_classes(job)
    pairs = list(itertools.combinations(problem.names, 2))
    rows = [
        (name, *pair, seed, float(scores[run, c, p]))
        for c, name in enumerate(config.classes)
        for p, pair in enumerate(pairs)
        for run, seed in enumerate(latents.seeds_of(config))
    ]
    figure = comparison_figure(
        [
            PairScore(name, *pair, float(scores[:, c, p].mean()), None, None, None, 0, 0)
            for c, name in enumerate(config.classes)
            for p, pair in enumerate(pairs)
        ],
        problem.names,
    )
    path = report.save(figure, workdir / "figures" / "classes.png")
    sheets = [pair_sheet(config.classes, pairs, scores)]
    if len(config.classes) > 1:
        sheets.append(winner_sheet(config.classes, scores))
    return latents.write_findings(
        latents.Findings(
            title=f"Classes of maps between encoders: {problem.name}",
            intro=(
                "Linear CKA between relative spaces of two encoders that are blind to a class of "
                f"maps, B1 of Cannistraci et al. 2024. {job.num_anchors} anchors among the "
                f"training samples, {len(problem.test)} test samples"
                f"{', unbiased estimates' if config.debiased else ''}."
            ),
            sheets=sheets,
            tables={"cka": (COLUMNS, rows)},
            figures=[("Linear CKA by class of maps, mean over seeds of anchors.", path)],
        ),
        problem,
        workdir,
        console,
        command,
    )


def pair_sheet(
    classes: Sequence[str], pairs: Sequence[tuple[str, str]], scores: np.ndarray
) -> report.Sheet:
    """A row for each pair, a column for each class."""
    rows, bold = [], set()
    for p, pair in enumerate(pairs):
        cells = [latents.mean_and_std(scores[:, c, p]) for c in range(len(classes))]
        rows.append([*pair, *(f"{mean:.3f} ± {std:.3f}" for mean, std in cells)])
        bold.add((p, 2 + latents.best_of([mean for mean, _ in cells])))
    return report.Sheet(
        "Linear CKA of relative spaces",
        ("First", "Second", *classes),
        rows,
        f"Mean ± standard deviation over {len(scores)} seeds of anchors. Bold: the class whose "
        "invariant spaces are most alike.",
        frozenset(bold),
        num_left=2,
    )


def winner_sheet(classes: Sequence[str], scores: np.ndarray) -> report.Sheet:
    """How often each class is the best, and how it compares with the best on average."""
    means = scores.mean(axis=0)
    best = latents.best_of(means.mean(axis=1))
    wins = np.bincount(np.argmax(means, axis=0), minlength=len(classes))
    rows = []
    for c, name in enumerate(classes):
        test = report.paired_test(means[c], means[best])
        cells = report.paired_cells(test) if c != best else ["best on average", "", "", ""]
        rows.append([name, f"{means[c].mean():.3f}", f"{wins[c]} of {means.shape[1]}", *cells])
    universal = wins[best] == means.shape[1]
    claim = (
        f"{classes[best]} is the best class of every pair here: these data do not show that no "
        "class is universal."
        if universal
        else f"No class is the best of all pairs: {classes[best]}, the best on average, is so of "
        f"{wins[best]} of {means.shape[1]}."
    )
    return report.Sheet(
        "Is there a universal class?",
        ("Class", "Mean CKA", "Best of pairs", *report.PAIRED_HEADER),
        rows,
        f"{claim} The difference to the class that is best on average is in hundredths of CKA, "
        "tested over pairs of encoders.",
    )
