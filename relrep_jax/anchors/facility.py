"""Greedy choice of anchors that no sample is far from."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax._linalg import as_float
from relrep_jax._sharding import automatic_sharding
from relrep_jax.anchors._checks import check_candidates
from relrep_jax.checks import check_matrix
from relrep_jax.similarities import pairwise

# Candidates whose distances to all samples are held at a time.
BLOCK = 128
# Up to so many distances are computed once and kept.
HELD = 2**27


def greedy(x: ArrayLike, num_anchors: int, *, candidates: ArrayLike | None = None) -> Array:
    """Anchors that, one after another, bring the samples nearest to an anchor (facility location).

    Each step takes the candidate that lowers `mean_i min_j |x_i - a_j|` most, of equal ones the
    first. After the first anchor it is lowered by at least `1 - 1/e` of what the best choice
    could. What a candidate gains never grows, so that many need not be looked at again (Minoux).
    Up to `2^27` distances are kept; beyond, they are computed anew for a block of candidates at a
    time. Equal to the same choice in float64 except for gains that differ by less than the
    rounding of a float32 sum.

    Args:
        x: latents `[n, d]`.
        num_anchors: the number m of anchors.
        candidates: indices `[c]`, distinct, of the samples that may become anchors; None for all.
            The first look at all candidates takes as long as `[c, n]` distances: give a few
            thousand of many, such as `uniform` draws.

    Returns:
        `[m]` int32 indices in `[0, n)`, distinct, in the order of choice: a prefix of them is the
        choice of fewer.

    Raises:
        ValueError: not a matrix; `candidates` is not a vector of indices; `num_anchors` is below 1
            or above the number of candidates.

    Reference: Minoux, "Accelerated greedy algorithms for maximizing submodular set functions",
        1978.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> x = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [20.0]])
        >>> print(anchors.greedy(x, 3))
        [3 1 6]
    """
    check_matrix("x", x)
    x = jnp.asarray(x)
    candidates = check_candidates(candidates, x.shape[0], num_anchors)
    candidates = jnp.sort(candidates).astype(jnp.int32)
    return _greedy(x, candidates, num_anchors)


@automatic_sharding
@partial(jax.jit, static_argnames="num_anchors")
def _greedy(x: Array, candidates: Array, num_anchors: int) -> Array:
    x = as_float(x)
    # Samples that are not finite pull no anchor near, and are chosen last.
    finite = jnp.all(jnp.isfinite(x), axis=1)
    x = jnp.where(finite[:, None], x, 0.0)
    # Sums of distances stay finite; the choice is the same.
    x = x / pairwise.power_of_two(x)
    c = candidates.shape[0]
    block = min(BLOCK, c)

    def distances(places):
        return jnp.where(finite, pairwise.euclidean(x, x[candidates[places]]).T, 0.0)

    if c * x.shape[0] <= HELD:
        places = jnp.minimum(jnp.arange(c + -c % block), c - 1).reshape(-1, block)
        held = lax.map(distances, places).reshape(-1, x.shape[0])

        def distances(places):  # noqa: F811
            return held[places]

    def choose(state, _):
        """Look at the most promising candidates anew, until the best is known."""
        nearest, bounds, first = state

        def unsettled(state):
            bounds, fresh = state
            best = jnp.max(jnp.where(fresh, bounds, -jnp.inf))
            return jnp.any(~fresh & (bounds >= best) & (bounds > -jnp.inf))

        def look(state):
            bounds, fresh = state
            places = lax.top_k(jnp.where(fresh, -jnp.inf, bounds), block)[1]
            rows = distances(places)
            # Without an anchor there is nothing to be nearer than: the least sum is best.
            gains = jnp.where(first, -rows, jnp.maximum(nearest - rows, 0))
            gains = jnp.sum(gains, axis=1)
            gains = jnp.where(finite[candidates[places]], gains, jnp.finfo(gains.dtype).min)
            # Anchors are not on offer, and what has been looked at stays.
            keep = (bounds[places] == -jnp.inf) | fresh[places]
            return (
                bounds.at[places].set(jnp.where(keep, bounds[places], gains)),
                fresh.at[places].set(True),
            )

        fresh = bounds == -jnp.inf
        bounds, fresh = lax.while_loop(unsettled, look, (bounds, fresh))
        place = jnp.argmax(jnp.where(fresh, bounds, -jnp.inf))
        to_it = distances(place[None])[0]
        nearest = jnp.where(first, to_it, jnp.minimum(nearest, to_it))
        # The sums of the first look are no bounds of gains.
        bounds = jnp.where(first & (bounds > -jnp.inf), jnp.inf, bounds).at[place].set(-jnp.inf)
        return (nearest, bounds, first & False), place

    start = jnp.zeros_like(x[:, 0]), jnp.full(c, jnp.inf, x.dtype), jnp.asarray(True)
    places = lax.scan(choose, start, length=num_anchors)[1]
    return candidates[places]
