"""From a few known correspondences of two spaces to many, by optimal transport."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from relrep_jax._linalg import as_float, dot, unit_rows
from relrep_jax._sharding import automatic_sharding
from relrep_jax.anchors._checks import check_indices
from relrep_jax.anchors.clustering import _next_to
from relrep_jax.anchors.mixing import _minimise
from relrep_jax.checks import check_count, check_matrix, check_number


class BootstrapResult(NamedTuple):
    """Anchors of two spaces that correspond.

    Attributes:
        pairs: `[m, 2]` int32, rows of the first and of the second space; the seeds come first.
            The second are the samples next to the learned anchors, all different.
        anchors: `[m, d2]`, the anchors of the second space as they were learned, of length 1; use
            `x[pairs[:, 0]]` as those of the first.
        costs: `[2]`, the entropic transport cost (regularisation included) between the relative
            spaces before and after learning.
    """

    pairs: Array
    anchors: Array
    costs: Array


def bootstrap(
    key: Array,
    x: ArrayLike,
    y: ArrayLike,
    seeds: ArrayLike,
    num_anchors: int,
    *,
    num_samples: int | None = None,
    epsilon: float = 1e-2,
    sinkhorn_steps: int = 100,
    steps: int = 100,
    learning_rate: float = 0.02,
) -> BootstrapResult:
    """Corresponding anchors of two spaces of which only a few samples are known to correspond.

    Anchors of the first space are the seeds and samples drawn at random. Those of the second are
    the seeds and learned vectors: they start where the relative representation by the seeds is
    most alike, and minimise by Adam the entropic optimal transport (Sinkhorn) cost between the
    relative spaces of all samples, whose rows are not matched. Similarities are cosines and so is
    the transport cost, `1 - cos` of rows. Needs OTT-JAX: `pip install "relrep_jax[ot]"`.

    Args:
        key: a `jax.random.key`.
        x: latents `[n1, d1]` of the first space.
        y: latents `[n2, d2]` of the second, in any order; of the same data or of similar ones.
        seeds: `[k, 2]` known correspondences, row `seeds[i, 0]` of x and row `seeds[i, 1]` of y.
            Distinct in each column.
        num_anchors: the number m of anchors, `k <= m`.
        num_samples: how many random samples of each space are transported; None for all. Memory
            and time are those of several arrays `[num_samples, num_samples]`.
        epsilon: entropic regularisation, as a fraction of the mean cost of transport.
        sinkhorn_steps: iterations of Sinkhorn at most.
        steps: how many steps of Adam; 0 leaves the matches by the seeds.
        learning_rate: their size; the anchors have length 1.

    Returns:
        A `BootstrapResult`.

    Raises:
        ImportError: OTT-JAX is not installed.
        ValueError: not matrices; `seeds` is not `[k, 2]`, holds rows that do not exist or one
            twice; `num_anchors` is below the number of seeds or above that of samples; `epsilon`,
            `steps`, `sinkhorn_steps` or `learning_rate` are out of range.

    Reference: Cannistraci et al. 2023 (arXiv 2303.00721).
    """
    check_matrix("x", x, columns="d1")
    check_matrix("y", y, columns="d2")
    x, y = jnp.asarray(x), jnp.asarray(y)
    _check_seeds(seeds, x.shape[0], y.shape[0], num_anchors)
    if num_samples is not None:
        check_count("num_samples", num_samples, 2)
    check_count("steps", steps, 0)
    check_count("sinkhorn_steps", sinkhorn_steps)
    check_number("epsilon", epsilon, "be above 0", lambda value: value > 0)
    check_number("learning_rate", learning_rate, "be at least 0", lambda value: value >= 0)
    _import_ott()
    return _bootstrap(
        key,
        x,
        y,
        jnp.asarray(seeds).astype(jnp.int32),
        num_anchors,
        num_samples,
        epsilon,
        sinkhorn_steps,
        steps,
        learning_rate,
    )


def _import_ott() -> tuple[Any, Any]:
    try:
        from ott.geometry import geometry
        from ott.solvers import linear
    except ImportError as error:
        raise ImportError(
            "Bootstrapping anchors needs OTT-JAX, which is not installed. Install it with "
            'pip install "relrep_jax[ot]".'
        ) from error
    return geometry, linear


def _check_seeds(seeds: ArrayLike, n1: int, n2: int, num_anchors: int) -> None:
    shape = jnp.shape(seeds)
    if len(shape) != 2 or shape[1] != 2 or shape[0] == 0:
        raise ValueError(
            f"seeds must be index pairs [k, 2], a row of x and one of y each, got shape {shape}."
        )
    if not isinstance(seeds, jax.core.Tracer):
        seeds = np.asarray(seeds)  # known, also where the rest is traced
        for column, (name, n) in enumerate((("x", n1), ("y", n2))):
            index = seeds[:, column]
            check_indices(f"seeds[:, {column}]", index, n, f"rows of {name}")
            if len(set(index.tolist())) < shape[0]:
                raise ValueError(
                    f"seeds[:, {column}] holds a row of {name} twice. Anchors are distinct: give "
                    "every correspondence once."
                )
    if not shape[0] <= num_anchors <= min(n1, n2):
        raise ValueError(
            f"num_anchors must lie between the number of seeds, {shape[0]}, and that of samples, "
            f"{min(n1, n2)}, got {num_anchors}."
        )


@automatic_sharding
@partial(jax.jit, static_argnames=("num_anchors", "num_samples", "sinkhorn_steps"))
def _bootstrap(
    key, x, y, seeds, num_anchors, num_samples, epsilon, sinkhorn_steps, steps, learning_rate
) -> BootstrapResult:
    geometry, linear = _import_ott()
    x, y = unit_rows(as_float(x)), unit_rows(as_float(y))
    count = seeds.shape[0]
    anchor_key, x_key, y_key = jax.random.split(key, 3)

    # Others than the seeds, in random order.
    order = jax.random.permutation(anchor_key, x.shape[0])
    is_seed = jnp.zeros(x.shape[0], bool).at[seeds[:, 0]].set(True)
    others = order[jnp.argsort(is_seed[order], stable=True)][: num_anchors - count]
    rows = jnp.concatenate([seeds[:, 0], others]).astype(jnp.int32)
    known = y[seeds[:, 1]]
    if num_anchors == count:
        return BootstrapResult(seeds, known, jnp.zeros(2, x.dtype))

    # The sample of y whose similarities to the seeds are most like those of the anchor.
    alike = dot(unit_rows(dot(x[others], x[seeds[:, 0]].T)), unit_rows(dot(y, known.T)).T)
    learned = y[jnp.argmax(alike, axis=1)]

    def some(key, z):
        if num_samples is None or num_samples >= z.shape[0]:
            return z
        return z[jax.random.permutation(key, z.shape[0])[:num_samples]]

    relative_x = unit_rows(dot(some(x_key, x), x[rows].T))
    samples = some(y_key, y)

    def loss(learned):
        anchors = jnp.concatenate([known, unit_rows(learned)])
        cost = 1 - dot(relative_x, unit_rows(dot(samples, anchors.T)).T)
        problem = geometry.Geometry(
            cost_matrix=cost, epsilon=epsilon * jax.lax.stop_gradient(jnp.mean(cost))
        )
        # At the optimum the potentials may be held constant (Danskin's theorem).
        solution = linear.solve(problem, max_iterations=sinkhorn_steps, use_danskin=True)
        return solution.reg_ot_cost

    before = loss(learned)
    learned = _minimise(loss, learned, steps, learning_rate)
    anchors = jnp.concatenate([known, unit_rows(learned)])
    # Samples of seeds are taken; the others are next to the learned anchors.
    free = jnp.ones(y.shape[0], bool).at[seeds[:, 1]].set(False)
    matches = _next_to(y, anchors[count:], True, free)
    pairs = jnp.stack([rows, jnp.concatenate([seeds[:, 1], matches])], axis=1)
    return BootstrapResult(pairs, anchors, jnp.stack([before, loss(learned)]))
