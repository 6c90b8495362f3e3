"""Farthest-point sampling, as exact as float64 and far from reading all samples at every step.

Every sample has an interval that holds its squared distance to the nearest anchor. A round takes
the samples whose intervals reach highest, and chooses among these alone for as long as the best
of them provably beats all others; then all samples meet the new anchors in one matrix product.
Where intervals overlap, distances in twice the precision decide.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax._linalg import as_float, dot
from relrep_jax._sharding import automatic_sharding
from relrep_jax.anchors import _exact
from relrep_jax.anchors._checks import check_indices, check_num_anchors
from relrep_jax.checks import check_matrix, lookup
from relrep_jax.similarities import pairwise

# Samples that a round chooses among, and anchors that it chooses at most.
CANDIDATES, STEPS = 1024, 32
# Samples whose distances are taken in twice the precision, or anew, at a time.
CLOSE_ROWS, MEND_ROWS = 8, 128
# More close samples than this count as equally far.
CLOSE_LIMIT = 1024
# Rows that are scaled to length 1 at a time.
NORMALISED_ROWS = 256
# Intervals from the matrix product that are wider than this multiple of those from differences
# have lost digits.
LOST = 32

METRICS = {"euclidean": None, "cosine": None}


class _Space(NamedTuple):
    """What does not depend on where the choice starts."""

    x: Array  # [n, d] samples; unit rows for cosine
    given: Array  # [n, d] samples as they came
    centred: Array  # [n, d]
    norms: Array  # [n] squared lengths of the centred samples
    error: Array  # relative error of a sum of d products
    shift: float  # how far rounding may have moved a sample


class _State(NamedTuple):
    filled: Array  # how many are chosen
    chosen: Array  # [m]
    lower: Array  # [n]
    upper: Array  # [n]; -1 for anchors


def farthest_point(
    x: ArrayLike,
    num_anchors: int,
    start: ArrayLike = 0,
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
) -> Array:
    """Anchors far from each other: each is the sample farthest from all before it.

    `a_1 = start` and `a_(j+1) = argmax_i min_(k <= j) |x_i - x_(a_k)|`; of equally far samples the
    first. The indices are those of the same choice in float64 wherever squared distances to the
    nearest anchor differ by more than one part in `2^44` (of float32 input and below), be the data
    far from the origin or full of duplicates. The one exception: where more than 1024 samples are
    farthest up to the rounding of float32, as are sparse ones that are orthogonal to all anchors,
    they count as equally far.

    Args:
        x: latents `[n, d]`.
        num_anchors: the number m of anchors.
        start: index of the first anchor, or indices `[s]` for as many choices side by side.
        metric: "euclidean", or "cosine" for Euclidean distances of rows scaled to length 1, which
            are ordered as cosines are; a zero row stays zero.

    Returns:
        `[m]` int32 indices in `[0, n)`, distinct, in the order of choice: a prefix of them is the
        choice of fewer; `[s, m]` for several starts.

    Raises:
        ValueError: not a matrix; `num_anchors` is below 1 or above n; `start` is not an index or a
            vector of them, or is out of range; an unknown metric.

    Reference: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> x = jnp.array([[0.0], [1.0], [5.0], [9.0]])
        >>> print(anchors.farthest_point(x, 3), anchors.farthest_point(x, 2, start=[1, 2]))
        [0 3 2] [[1 3]
         [2 0]]
    """
    check_matrix("x", x)
    x = jnp.asarray(x)
    n = x.shape[0]
    check_num_anchors(n, num_anchors)
    lookup("metric", metric, METRICS)
    start = _check_start(start, n)
    return _farthest_point(x, start, num_anchors, metric)


def _check_start(start: ArrayLike, n: int) -> Array:
    if jnp.ndim(start) > 1 or jnp.size(start) == 0:
        raise ValueError(
            f"start must be an index or a vector [s] of indices, got shape {jnp.shape(start)}."
        )
    check_indices("start", start, n, "samples")
    start = jnp.asarray(start)
    return start.astype(jnp.int32)


@automatic_sharding
@partial(jax.jit, static_argnames=("num_anchors", "metric"))
def _farthest_point(x: Array, start: Array, num_anchors: int, metric: str) -> Array:
    space = _prepare(as_float(x), metric)
    choose = partial(_choose, space, num_anchors=num_anchors, metric=metric)
    return jax.vmap(choose)(start) if start.ndim else choose(start)


def _prepare(x: Array, metric: str) -> _Space:
    d = x.shape[1]
    unit = float(jnp.finfo(x.dtype).eps) / 2
    x = x / pairwise.power_of_two(x)
    given, shift = x, 0.0
    if metric == "cosine":
        # Lengths in twice the precision, so that rounding moves a row by no more than its digits.
        rows = max(1, min(NORMALISED_ROWS, x.shape[0]))
        x = lax.map(
            lambda row: _exact.unit(row / pairwise.power_of_two(row))[0], x, batch_size=rows
        )
        shift = 1.1 * unit
    # Whole numbers that are small enough make every operation exact: nothing to be unsure about.
    magnitude = jnp.max(jnp.abs(given)) * 1
    exact = (metric == "euclidean") & jnp.all(given == jnp.round(given * 128) / 128)
    exact = exact & (magnitude * 128 * magnitude * 128 * 4 * d < 1 / (2 * unit))
    centre = jnp.where(exact, 0, pairwise.centre_of(x))
    centred = x - centre
    error = jnp.where(exact, 0, (d + 16) * unit * 1.1).astype(x.dtype)
    return _Space(x, given, centred, jnp.sum(centred * centred, axis=1), error, shift)


def _choose(space: _Space, start: Array, num_anchors: int, metric: str) -> Array:
    n = space.x.shape[0]
    # Made from the start, so that it is mapped as that is.
    zero = jnp.zeros_like(space.norms) * (start * 0).astype(space.x.dtype)
    state = _State(
        filled=start * 0 + 1,
        chosen=jnp.full(num_anchors, start, jnp.int32),
        lower=zero + jnp.inf,
        upper=(zero + jnp.inf).at[start].set(-1),
    )
    state = _meet(space, state._replace(lower=state.lower.at[start].set(-1)), state.filled * 0, 1)
    if num_anchors == 1:
        return state.chosen
    rounds = partial(_round, space, metric=metric, width=min(CANDIDATES, n))
    return lax.while_loop(lambda state: state.filled < num_anchors, rounds, state).chosen


def _round(space: _Space, state: _State, metric: str, width: int) -> _State:
    """Choose from the most promising samples alone for as long as that is safe."""
    n, num_anchors = space.x.shape[0], state.chosen.shape[0]
    before = state.filled
    if width < n:
        tops, candidates = lax.top_k(state.upper, width + 1)
        rest, candidates = tops[-1], candidates[:-1]
    else:
        candidates = jnp.arange(n) + before * 0
        rest = jnp.asarray(-jnp.inf, space.x.dtype)
    # In the order of the samples, so that the first of equals is the first of them all.
    candidates = jnp.sort(candidates).astype(jnp.int32)
    block = space.x[candidates]
    decide = partial(_decide, space, metric=metric)

    # The first choice may involve samples that are not candidates.
    first = decide(state.chosen, before, state.lower, state.upper)

    def choose(state: _State, index: Array) -> _State:
        """Take a sample; `lower` and `upper` are those of the candidates."""
        squares = jnp.sum(jnp.square(block - space.x[index]), axis=1)
        low, high = _interval(squares, squares * space.error, space.shift)
        taken = candidates == index
        return _State(
            state.filled + 1,
            state.chosen.at[state.filled].set(index),
            jnp.where(taken, -1, jnp.minimum(state.lower, low)),
            jnp.where(taken, -1, jnp.minimum(state.upper, high)),
        )

    def more(state: _State) -> Array:
        left = (state.filled < num_anchors) & (state.filled < before + STEPS)
        return left & (jnp.max(state.lower) > rest)

    def step(state: _State) -> _State:
        chosen = decide(state.chosen, state.filled, state.lower, state.upper, candidates)
        return choose(state, chosen)

    inner = _State(state.filled, state.chosen, state.lower[candidates], state.upper[candidates])
    inner = lax.while_loop(more, step, choose(inner, first))
    state = state._replace(filled=inner.filled, chosen=inner.chosen)
    return _meet(space, state, before, min(STEPS, num_anchors))


def _interval(squares: Array, error: Array, shift: float) -> tuple[Array, Array]:
    """Bounds of squared distances that are known up to `error`, of samples moved by `shift`."""
    lower, upper = jnp.maximum(squares - error, 0), squares + error
    if shift:
        low, high = jnp.sqrt(lower) - 2 * shift, jnp.sqrt(upper) + 2 * shift
        lower, upper = jnp.square(jnp.maximum(low, 0)) * (1 - shift), high * high * (1 + shift)
    return lower, upper


def _meet(space: _Space, state: _State, before: Array, width: int) -> _State:
    """Compare all samples with the anchors from `before` on, of which there are `width` at most."""
    num_anchors = state.chosen.shape[0]
    # Anchors that are met a second time do no harm.
    position = jnp.minimum(before + jnp.arange(width), state.filled - 1)
    anchors = state.chosen[jnp.minimum(position, num_anchors - 1)]
    squares, error = _by_product(space, space.centred, space.norms, anchors)
    low, high = _interval(squares, error, space.shift)
    low, high = jnp.min(low, axis=1), jnp.min(high, axis=1)
    # Digits are lost where a distance is small beside the distances from the centre. Only worth
    # mending where it may be the smallest so far.
    lost = (high - low > LOST * (space.error * high + 4 * space.shift * jnp.sqrt(high))) & (
        low < state.upper
    )
    low, high = _mend(space, anchors, lost, low, high)
    is_anchor = jnp.zeros_like(lost).at[anchors].set(True) | (state.upper < 0)
    return state._replace(
        lower=jnp.where(is_anchor, -1, jnp.minimum(state.lower, low)),
        upper=jnp.where(is_anchor, -1, jnp.minimum(state.upper, high)),
    )


def _by_product(space: _Space, centred: Array, norms: Array, anchors: Array):
    """Squared distances `[k, w]` by a matrix product, and bounds of their errors."""
    others = space.norms[anchors]
    squares = norms[:, None] + others - 2 * dot(centred, space.centred[anchors].T)
    error = space.error * jnp.square(jnp.sqrt(norms)[:, None] + jnp.sqrt(others))
    return squares, error


def _mend(space: _Space, anchors: Array, lost: Array, low: Array, high: Array):
    """Bounds by differences for the samples that lost digits."""
    n = lost.shape[0]
    size = min(MEND_ROWS, n)

    def step(state):
        lost, low, high = state
        rows = jnp.nonzero(lost, size=size, fill_value=n)[0]
        block = space.x.at[rows].get(mode="clip")
        squares = jnp.min(
            lax.map(lambda a: jnp.sum(jnp.square(block - space.x[a]), axis=1), anchors), axis=0
        )
        bounds = _interval(squares, squares * space.error, space.shift)
        low, high = (
            v.at[rows].set(b, mode="drop") for v, b in zip((low, high), bounds, strict=True)
        )
        return lost.at[rows].set(False, mode="drop"), low, high

    return lax.while_loop(lambda state: jnp.any(state[0]), step, (lost, low, high))[1:]


def _decide(
    space: _Space,
    chosen: Array,
    count: Array,
    lower: Array,
    upper: Array,
    candidates: Array | None = None,
    *,
    metric: str,
) -> Array:
    """The sample that is farthest from the anchors, the first of equals."""
    n = lower.shape[0]
    size = min(CLOSE_ROWS, n)
    best_lower = jnp.max(lower)
    close = (upper >= best_lower) & (upper >= 0)
    # Without a doubt, also where all are equally far to the last bit.
    count_close = jnp.sum(close)
    unsure = (count_close > 1) & (count_close <= CLOSE_LIMIT) & jnp.any(close & (lower < upper))
    # Anything that is not a number is at the end of the queue.
    queue = jnp.where(upper < 0, -jnp.inf, jnp.nan_to_num(upper, nan=-0.5))
    sure = jnp.argmax(close) + jnp.where(jnp.any(close), 0, jnp.argmax(queue))

    def step(state):
        close, best, (high, low) = state
        rows = jnp.nonzero(close, size=size, fill_value=n)[0]
        close = close.at[rows].set(False, mode="drop")
        samples = rows if candidates is None else candidates.at[rows].get(mode="clip")
        value = _nearest(space, samples, chosen, count, metric)
        value = tuple(jnp.where(rows < n, v, -1) for v in value)
        tied = value[0] == jnp.max(value[0])
        top = jnp.argmax(jnp.where(tied, value[1], -jnp.inf))
        better = _exact.less((high, low), (value[0][top], value[1][top]))
        best = jnp.where(better, rows[top], best)
        return (
            close,
            best,
            (jnp.where(better, value[0][top], high), jnp.where(better, value[1][top], low)),
        )

    nothing = best_lower * 0 - 1
    state = (close & unsure, sure, (nothing, nothing * 0))
    index = lax.while_loop(lambda state: jnp.any(state[0]), step, state)[1]
    return (index if candidates is None else candidates[index]).astype(jnp.int32)


def _nearest(space: _Space, rows: Array, chosen: Array, count: Array, metric: str):
    """Squared distances of a few samples to their nearest anchors, in twice the precision."""
    clipped = jnp.minimum(rows, space.x.shape[0] - 1)
    squares, error = _by_product(space, space.centred[clipped], space.norms[clipped], chosen)
    low, high = _interval(squares, error, space.shift)
    known = jnp.arange(chosen.shape[0]) < count
    low, high = jnp.where(known, low, jnp.inf), jnp.where(known, high, jnp.inf)
    low = jnp.where(low <= jnp.min(high, axis=1, keepdims=True), low, jnp.inf)
    samples = space.given[clipped]

    def step(state):
        low, best = state
        # The most promising anchor of each sample.
        anchor = jnp.argmin(low, axis=1)
        value = _exact.squared_distance(samples, space.given[chosen[anchor]], metric)
        better = _exact.less(value, best)
        best = tuple(jnp.where(better, v, b) for v, b in zip(value, best, strict=True))
        low = jnp.where(jnp.arange(low.shape[1]) == anchor[:, None], jnp.inf, low)
        return jnp.where(low <= best[0][:, None] * (1 + space.error), low, jnp.inf), best

    start = jnp.full_like(low[:, 0], jnp.inf)
    return lax.while_loop(
        lambda state: jnp.any(state[0] < jnp.inf), step, (low, (start, jnp.zeros_like(start)))
    )[1]
