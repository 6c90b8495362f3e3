"""Which distance is blind to which maps? Experiment B8.

Cannistraci et al. 2024 (arXiv 2310.01211), the table of invariances in the appendix, measured:
latents are mapped, statistics are estimated anew, and the relative spaces before and after are
compared, with and without the LayerNorm over anchors that aggregations begin with.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report, similarities, transforms
from relrep_jax.experiments import latents
from relrep_jax.experiments.config import ConfigError
from relrep_jax.projection import relative_projection

ANCHORS = 50
COLUMNS = ("distance", "layer_normalization", "map", "encoder", "seed", "change")

Space = np.ndarray


def _rotation(rng: np.random.Generator, width: int) -> Space:
    turn, upper = np.linalg.qr(rng.standard_normal((width, width)))
    return turn * np.sign(np.diag(upper))


def _orthogonal(rng: np.random.Generator, x: Space) -> Space:
    return x @ _rotation(rng, x.shape[1])


def _scaling(rng: np.random.Generator, x: Space) -> Space:
    del rng
    return 3.0 * x


def _translation(rng: np.random.Generator, x: Space) -> Space:
    return x + rng.standard_normal(x.shape[1]) * x.std()


def _signed_permutation(rng: np.random.Generator, x: Space) -> Space:
    signs = rng.choice([-1.0, 1.0], x.shape[1])
    return x[:, rng.permutation(x.shape[1])] * signs


def _diagonal(rng: np.random.Generator, x: Space) -> Space:
    return x * np.exp(rng.uniform(-1.0, 1.0, x.shape[1]))


def _linear(rng: np.random.Generator, x: Space) -> Space:
    return _orthogonal(rng, _diagonal(rng, _orthogonal(rng, x)))


def _affine(rng: np.random.Generator, x: Space) -> Space:
    return _translation(rng, _linear(rng, x))


MAPS: dict[str, Callable[[np.random.Generator, Space], Space]] = {
    "orthogonal": _orthogonal,
    "scaling": _scaling,
    "translation": _translation,
    "signed permutation": _signed_permutation,
    "diagonal": _diagonal,
    "linear": _linear,
    "affine": _affine,
}
"""Random maps `(generator, latents [n, d]) -> [n, d]` by the class that they are of."""

Distance = Callable[[jax.Array, jax.Array], jax.Array]


def _projected(name: str, transform: str | None = None) -> Distance:
    # Statistics of all samples, not of anchors alone, which may be fewer than there are features.
    def distance(x, anchors):
        fitted = None if transform is None else transforms.fit(transform, x)
        return relative_projection(x, anchors, name, fitted)

    return distance


def _whitened_inner(x: jax.Array, anchors: jax.Array) -> jax.Array:
    return similarities.whitened_inner(x, anchors, *similarities.covariance_statistics(x, 0.0))


def _mahalanobis(x: jax.Array, anchors: jax.Array) -> jax.Array:
    return similarities.mahalanobis(x, anchors, similarities.covariance_statistics(x, 0.0)[1])


DISTANCES: dict[str, Distance] = {
    "cosine": _projected("cosine"),
    "centred cosine": _projected("cosine", "centering"),
    "standardised cosine": _projected("cosine", "standard_scaling"),
    "angular": _projected("angular"),
    "inner": _projected("inner"),
    "Euclidean": _projected("euclidean"),
    "L1": _projected("manhattan"),
    "L∞": _projected("chebyshev"),
    "change of basis": similarities.change_of_basis,
    "Mahalanobis": _mahalanobis,
    "whitened inner": _whitened_inner,
}
"""Distances and similarities `(latents [n, d], anchors [m, d]) -> [n, m]` by name."""

LAYER_NORMALIZED = ("no", "yes")


def default_config() -> ConfigDict:
    """Every field of this experiment."""
    config = latents.latent_fields("invariances")
    latents.anchor_fields(config)
    # Latents are seen through so many principal components, so that covariances have full rank.
    config.components = 16
    # Relative changes below this are rounding: the distance is invariant.
    config.tolerance = 1e-6
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
    config, problem = latents.prepare_latents(
        config, default_config(), least={"anchors.count": 0, "components": 2, "tolerance": 0}
    )
    count = latents.num_anchors(config.anchors.count, config, problem, ANCHORS)
    most = min(len(problem.train) - 1, *(space.shape[1] for space in problem.spaces.values()))
    if config.components > most:
        raise ConfigError(
            f"config.components must be at most {most}, the width of the narrowest encoder or one "
            f"less than there are training samples, got {config.components}."
        )
    return Job(config, problem, count)


def components(x: np.ndarray, count: int) -> np.ndarray:
    """The first principal components `[n, count]` of latents `[n, d]`, as float64.

    Brought to a standard deviation of 1 over all of them, and moved away from the origin.
    """
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    _, _, axes = np.linalg.svd(x - mean, full_matrices=False)
    kept = (x - mean) @ axes[:count].T
    return kept / kept.std() + 0.5


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Largest change of an entry, relative to the largest entry."""
    return float(np.abs(after - before).max() / np.abs(before).max())


def relative_changes(x: np.ndarray, num_anchors: int, seed: int) -> np.ndarray:
    """How much every distance changes under a random map of every class.

    Args:
        x: latents `[n, d]`, float64, whose first rows are the anchors.
        num_anchors: how many anchors.
        seed: of the maps.

    Returns:
        `[2, distances, maps]`, the second half after a LayerNorm over the anchors.
    """
    found = np.zeros((len(LAYER_NORMALIZED), len(DISTANCES), len(MAPS)))
    mapped = [move(np.random.default_rng(seed), x) for move in MAPS.values()]
    # Rounding of float32 would hide what is zero.
    with jax.enable_x64(True):
        for d, distance in enumerate(DISTANCES.values()):
            before = _relative_spaces(distance, x, num_anchors)
            for m, moved in enumerate(mapped):
                after = _relative_spaces(distance, moved, num_anchors)
                found[:, d, m] = [change(*pair) for pair in zip(before, after, strict=True)]
    return found


@partial(jax.jit, static_argnums=(0, 2))
def _compiled(distance: Distance, x: jax.Array, num_anchors: int) -> tuple[jax.Array, jax.Array]:
    space = distance(x, x[:num_anchors])
    return space, transforms.layer_normalization.apply((), space)


def _relative_spaces(distance: Distance, x: np.ndarray, num_anchors: int) -> list[np.ndarray]:
    """The relative space as it is, and after a LayerNorm over the anchors."""
    return [np.asarray(space) for space in _compiled(distance, jnp.asarray(x), num_anchors)]


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Measure every distance under every map; write tables.

    Returns:
        The report's path.
    """
    config, problem = job.config, job.problem
    seeds = latents.seeds_of(config)
    changes = np.zeros((len(problem.spaces), len(seeds), 2, len(DISTANCES), len(MAPS)))
    with report.progress(console, "mapping", changes[..., 0, 0, 0].size) as advance:
        for e, space in enumerate(problem.spaces.values()):
            reduced = components(space[problem.train], config.components)
            for s, seed in enumerate(seeds):
                order = np.random.default_rng(seed).permutation(len(reduced))
                changes[e, s] = relative_changes(reduced[order], job.num_anchors, seed)
                advance(what=problem.names[e])
    rows = [
        (distance, normalized, move, encoder, seed, float(changes[e, s, k, d, m]))
        for k, normalized in enumerate(LAYER_NORMALIZED)
        for d, distance in enumerate(DISTANCES)
        for m, move in enumerate(MAPS)
        for e, encoder in enumerate(problem.names)
        for s, seed in enumerate(seeds)
    ]
    figures = []
    for k, normalized in enumerate(("bare distances", "after a LayerNorm over the anchors")):
        # The encoder on which a distance changes most, mean over seeds.
        largest = changes[:, :, k].max(axis=0).mean(axis=0)
        figure = report.change_map(
            largest, [*DISTANCES], [*MAPS], "largest relative change", config.tolerance
        )
        name = ("bare", "normalized")[k]
        path = report.save(figure, workdir / "figures" / f"{name}.png")
        figures.append((f"What changes under which maps, {normalized}.", path))
    sheets = [
        change_sheet(title, changes[:, :, k], config.tolerance)
        for k, title in enumerate(("Bare distances", "After a LayerNorm over the anchors"))
    ]
    return latents.write_findings(
        latents.Findings(
            title=f"Invariances of distances: {problem.name}",
            intro=(
                "How much relative spaces change when latents are mapped, B8 of Cannistraci et "
                f"al. 2024: {config.components} principal components of each encoder, "
                f"{job.num_anchors} anchors, float64. Scaling is by 3, features are scaled by "
                "factors from 0.37 to 2.7, linear maps are that between two rotations, and "
                "affine ones are linear ones with a translation."
            ),
            sheets=sheets,
            tables={"changes": (COLUMNS, rows)},
            figures=figures,
        ),
        problem,
        workdir,
        console,
        command,
    )


def change_sheet(title: str, changes: np.ndarray, tolerance: float) -> report.Sheet:
    """A row for each distance, a column for each class of maps.

    Args:
        title: of the table.
        changes: `[encoders, seeds, distances, maps]`.
        tolerance: below it a change is shown as 0.
    """
    rows, bold = [], set()
    for d, distance in enumerate(DISTANCES):
        cells = []
        for m in range(len(MAPS)):
            # The encoder on which a distance changes most, of every seed.
            largest = changes[:, :, d, m].max(axis=0)
            if largest.max() < tolerance:
                bold.add((d, 1 + m))
                cells.append("0")
            else:
                mean, std = latents.mean_and_std(largest)
                cells.append(f"{mean:.2f} ± {std:.2f}")
        rows.append([distance, *cells])
    return report.Sheet(
        title,
        ("Distance", *MAPS),
        rows,
        "Largest change of an entry relative to the largest entry, of the encoder that changes "
        f"most; mean ± standard deviation over {changes.shape[1]} random maps. 0: below "
        f"{tolerance:g} always, invariant.",
        frozenset(bold),
    )
