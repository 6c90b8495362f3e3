"""The kernels of the pairwise distances: exact, differentiable, and never `[n, m, d]` in memory.

A distance is a reduction over features of a function of `x_i - a_j`. It is accumulated a group of
features at a time, in tiles of rows and anchors that stay in cache. The derivative is written
as a sum over groups of anchors (for the samples) and groups of samples (for the anchors), so that
its transpose, the gradient, is as lean as the distance itself.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jax.custom_derivatives import SymbolicZero

from relrep_jax.checks import is_at_least

# Features, or vectors in the derivative, that one step of a scan takes. XLA fuses them into one
# loop that reads and writes the accumulator once.
GROUP = 16
# Rows and anchors of a tile on CPU: accumulator and operands stay in the second-level cache.
TILE_ROWS, TILE_ANCHORS = 1024, 768
# From this many n*m*d on, Euclidean distances come from a matrix product.
MATMUL_SIZE = 2**28
MATMUL_WIDTH = 64
# Squared distances below this part of |x|^2 + |a|^2 have lost digits in that product.
CANCELLED = 0.03
# Rows below this part of the largest magnitude have squares that may underflow beside it.
UNEVEN = 2.0**-36
# Rows that are computed anew at a time.
MEND_ROWS = 128


def manhattan(x: Array, a: Array) -> Array:
    """Sum of absolute differences, `x [n, d]`, `a [m, d]` of one floating dtype to `[n, m]`."""
    return _compiled("manhattan", 1.0, x, a)


def chebyshev(x: Array, a: Array) -> Array:
    """Largest absolute difference, `[n, m]`."""
    return _compiled("chebyshev", 1.0, x, a)


def minkowski(x: Array, a: Array, p: float) -> Array:
    """`(sum |x - a|^p)^(1/p)`, `[n, m]`, for 1 < p < inf."""
    return _minkowski(p, x, a)


def euclidean(x: Array, a: Array) -> Array:
    """Euclidean distance, `[n, m]`, without cancellation."""
    return _compiled("euclidean", 2.0, x, a)


def power_of_two(x: Array, axis: Literal[-1] | None = None) -> Array:
    """The power of two below the largest magnitude of `x`; 1 where that is zero or not finite.

    Where all of `x` has one power, entries that are not finite are passed over, lest those of one
    row cost others their digits.

    Dividing by it is exact and keeps squares from overflowing and underflowing. It is a constant
    to differentiation.
    """
    dtype, bits = x.dtype, _bits(x.dtype)
    size = jnp.abs(lax.stop_gradient(x))
    if axis is None:
        size = jnp.where(size < jnp.inf, size, 0)
    largest = jnp.max(size, axis, keepdims=axis is not None)
    # Neither the power nor its reciprocal may leave the normal range.
    limit = 2.0 ** (jnp.finfo(dtype).maxexp - 8)
    exponent = lax.bitcast_convert_type(jnp.asarray(jnp.inf, dtype), bits)
    power = lax.bitcast_convert_type(jnp.clip(largest, 1 / limit, limit), bits) & exponent
    power = lax.bitcast_convert_type(power, dtype)
    return jnp.where((largest > 0) & (largest < jnp.inf), power, 1)


def centre_of(a: Array) -> Array:
    """The mean of the rows, with a bit less than its dtype has.

    What is subtracted from samples and from anchors must be one number. Without the rounding, the
    compiler may merge the division by the count into one of the subtractions, but not the other.
    """
    info = jnp.finfo(a.dtype)
    return lax.reduce_precision(jnp.mean(a, axis=0), info.nexp, info.nmant - 1)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _distance(kind: str, p: float, x: Array, a: Array) -> Array:
    (n, d), m = x.shape, a.shape[0]
    large = d >= MATMUL_WIDTH and is_at_least(n * m * d, MATMUL_SIZE)
    if kind == "euclidean" and large and not (is_sharded(x) or is_sharded(a)):
        return _euclidean_by_product(x, a)
    return _direct(kind, p, x, a)


@partial(_distance.defjvp, symbolic_zeros=True)
def _distance_jvp(kind, p, primals, tangents):
    x, a = primals
    dx, da = tangents
    out = _distance(kind, p, x, a)
    weight, column, factor = _slope(kind, p, x, a, out)
    tangent = jnp.zeros_like(out)
    if not isinstance(dx, SymbolicZero):
        tangent = tangent + _directional(weight, x, a, column, dx).T
    if not isinstance(da, SymbolicZero):
        # x and a change places: every weight is odd in the difference, and so is the derivative.
        column = None if column is None else column.T
        tangent = tangent + _directional(weight, a, x, column, da)
    return out, tangent if factor is None else factor * tangent


# So that calls outside of `jit` compile once a shape.
_compiled = jax.jit(_distance, static_argnums=(0, 1))


@partial(jax.jit, static_argnums=0)
def _minkowski(p: float, x: Array, a: Array) -> Array:
    """The reciprocal of a difference near the largest number is below the smallest normal one, and
    taken for 0: such spaces are brought down by a power of two, which changes no digit."""
    largest = jnp.maximum(power_of_two(x), power_of_two(a))
    down = jnp.where(largest > 2.0 ** (jnp.finfo(x.dtype).maxexp - 28), 2.0**-12, 1.0)
    down = down.astype(x.dtype)
    return _distance("minkowski", p, x * down, a * down) / down


# --- distances ---------------------------------------------------------------------------------


def _direct(kind: str, p: float, x: Array, a: Array) -> Array:
    """The distance by differences, in tiles on CPU and all at once elsewhere."""
    tile = partial(_tile, kind, p)
    n, m = x.shape[0], a.shape[0]
    open_ended = not (isinstance(n, int) and isinstance(m, int))  # in `jax.export`
    if open_ended or n <= TILE_ROWS and m <= TILE_ANCHORS or is_sharded(x) or is_sharded(a):
        return tile(x, a)
    return lax.platform_dependent(x, a, cpu=partial(_tiled, tile), default=tile)


def is_sharded(x: Array) -> bool:
    """Whether the type of `x` spreads an axis over devices, so that it can't be cut into tiles."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


def _tiled(tile: Callable[[Array, Array], Array], x: Array, a: Array) -> Array:
    """`tile` over blocks of rows and anchors.

    The last block of an axis overlaps the one before it instead of being padded, so that neither
    the samples nor the result are copied.
    """
    rows, row_blocks = _block(x.shape[0], TILE_ROWS)
    anchors, anchor_blocks = _block(a.shape[0], TILE_ANCHORS)

    def step(index, out):
        row = jnp.minimum((index // anchor_blocks) * rows, x.shape[0] - rows)
        anchor = jnp.minimum((index % anchor_blocks) * anchors, a.shape[0] - anchors)
        block = tile(
            lax.dynamic_slice_in_dim(x, row, rows), lax.dynamic_slice_in_dim(a, anchor, anchors)
        )
        return lax.dynamic_update_slice(out, block, (row, anchor))

    # Every element is overwritten. Made from the inputs, so that it is mapped and sharded as they.
    out = jnp.broadcast_to((x[0, 0] + a[0, 0]) * 0, (x.shape[0], a.shape[0]))
    return lax.fori_loop(0, row_blocks * anchor_blocks, step, out)


def _block(size: int, limit: int) -> tuple[int, int]:
    """Size and number of even blocks, none larger than `limit`, that cover an axis."""
    blocks = -(-size // limit)
    return -(-size // blocks), blocks


def _tile(kind: str, p: float, x: Array, a: Array) -> Array:
    """The distance of all rows of `x` to all of `a`."""
    if kind == "manhattan":
        return _over_features(jnp.abs, jnp.add, x, a, together=2)
    if kind == "euclidean":
        near, anchors, scale = _rescale(x, a)
        out = jnp.sqrt(_over_features(lambda t: t * t, jnp.add, near, anchors)) * scale
        uneven = jnp.any(_is_tiny(near)) | jnp.any(_is_tiny(anchors))
        # A loop, not a cond: mapped over many problems, it costs nothing unless one needs it.
        return lax.while_loop(
            lambda state: state[0],
            lambda state: (state[0] & False, _by_ratios(2.0, x, a)),
            (uneven, out),
        )[1]
    return _largest(x, a) if kind == "chebyshev" else _by_ratios(p, x, a)


def _by_ratios(p: float, x: Array, a: Array) -> Array:
    """The Minkowski distance by powers of ratios to the largest difference of each pair, which can
    neither overflow nor all underflow."""
    largest = _largest(x, a)
    unscale = reciprocal(largest)
    total = _over_features(lambda t: _power(jnp.abs(t) * unscale, p), jnp.add, x, a)
    total = jnp.where((largest > 0) & (largest != jnp.inf), total, 1)
    return largest * total ** (1 / p)


def _is_tiny(x: Array) -> Array:
    """Which rows of what `_rescale` brought near 1 are so small that their squares may underflow;
    zero rows are none."""
    largest = jnp.max(jnp.abs(x), axis=1)
    return (largest < UNEVEN) & (largest > 0)


def _largest(x: Array, a: Array) -> Array:
    """The largest absolute difference.

    Bits of non-negative floats are ordered as the floats are, and NaN is above them all: as
    integers the maximum takes one instruction, which as floats NaN makes three.
    """
    bits = _bits(x.dtype)
    magnitude = jnp.iinfo(bits).max  # all but the sign

    def value(t):
        return lax.bitcast_convert_type(t, bits) & magnitude

    return lax.bitcast_convert_type(_over_features(value, jnp.maximum, x, a, bits), x.dtype)


def _bits(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.dtype({4: jnp.int32, 8: jnp.int64}[dtype.itemsize])


def _over_features(
    value: Callable[[Array], Array],
    combine: Callable[[Array, Array], Array],
    x: Array,
    a: Array,
    dtype: jnp.dtype | None = None,
    together: int = 1,
) -> Array:
    """Combine `value(x_k - a_k)` of all features `k`, from an accumulator of zeros.

    Values of so many features are combined `together` before the accumulator, whose additions
    otherwise wait for one another.
    """

    def fold(out, group):
        x, a = group
        values = [value(x[k][:, None] - a[k][None, :]) for k in range(x.shape[0])]
        for start in range(0, len(values), together):
            out = combine(out, reduce(combine, values[start : start + together]))
        return out

    return _fold_features(fold, jnp.zeros((), dtype or x.dtype), _rounded(x), _rounded(a))


def _fold_features(fold: Callable, out: Array, *arrays: Array) -> Array:
    """`fold(out, group)`, a group of features `[g, rows]` of each array `[rows, d]` at a time."""
    features = [v.T for v in arrays]
    d = features[0].shape[0]
    first = d % GROUP or min(d, GROUP)
    out = fold(out, [v[:first] for v in features])
    if first == d:
        return out
    rest = [v[first:].reshape(-1, GROUP, v.shape[1]) for v in features]
    return lax.scan(lambda out, group: (fold(out, group), None), out, rest)[0]


@jax.custom_jvp
def _rounded(x: Array) -> Array:
    """`x`, each entry rounded to its dtype before it is used.

    A compiler that fuses what made `x`, say a product, into a difference may merge both into one
    operation with one rounding. Then differences are not zero where sample and anchor agree, and
    those of the derivative are not equal to those of the largest difference. The integer minimum
    changes no number (only one of the many bit patterns of NaN), but no operation can be merged
    through it.
    """
    bits = lax.bitcast_convert_type(x, _bits(x.dtype))
    bits = jnp.minimum(bits, jnp.iinfo(bits.dtype).max - 1)
    return lax.bitcast_convert_type(bits, x.dtype)


_rounded.defjvps(lambda tangent, _, __: tangent)


def _rescale(x: Array, a: Array) -> tuple[Array, Array, Array]:
    """Both divided by one power of two that brings them near 1, and that power."""
    scale = jnp.maximum(power_of_two(x), power_of_two(a))
    return x / scale, a / scale, scale


@sequential_vmap
def _euclidean_by_product(x: Array, a: Array) -> Array:
    """Euclidean distances from matrix products, mended where these lost digits.

    Mapped one problem after another: a map of the loop that mends would copy the whole result at
    each of its steps.
    """
    n = x.shape[0]
    rows, _ = _block(n, TILE_ROWS)
    out, lost = lax.platform_dependent(
        x, a, cpu=partial(_products, rows), default=partial(_products, n)
    )
    # Rows that lost digits come first; what fills up is n: out of bounds.
    count = jnp.sum(lost)
    (order,) = jnp.nonzero(lost, size=n + -n % MEND_ROWS, fill_value=n)

    def mend(state):
        done, out = state
        chunk = lax.dynamic_slice_in_dim(order, done, MEND_ROWS)
        exact = _tile("euclidean", 2.0, x.at[chunk].get(mode="clip"), a)
        return done + MEND_ROWS, out.at[chunk].set(exact, mode="drop")

    return lax.while_loop(lambda state: state[0] < count, mend, (count * 0, out))[1]


def _products(rows: int, x: Array, a: Array) -> tuple[Array, Array]:
    """Distances as `|x|^2 - 2 x.a + |a|^2` about the anchors' mean, a block of rows at a time.

    Also tells the rows in which any distance lost digits to cancellation.
    """
    (n, _), m = x.shape, a.shape[0]
    centre = centre_of(a)

    def step(index, state):
        start = jnp.minimum(index * rows, n - rows)
        block, anchors, scale = _rescale(lax.dynamic_slice_in_dim(x, start, rows) - centre, centred)
        lengths = jnp.sum(block * block, axis=1)
        norms = lengths[:, None] + jnp.sum(anchors * anchors, axis=1)
        squares = norms - 2 * jnp.matmul(block, anchors.T, precision=lax.Precision.HIGHEST)
        # Written so that NaN, which infinite entries leave behind, counts as lost. A sum since it
        # is several times as fast as `any` on CPU.
        lost = jnp.sum(jnp.where(squares >= CANCELLED * norms, 0, 1), axis=1) > 0
        # Rows whose squares may underflow beside a huge one are lost as well.
        lost = lost | (lengths < UNEVEN**2) | (smallest < UNEVEN * scale)
        update = (jnp.sqrt(jnp.maximum(squares, 0)) * scale, lost)
        return jax.tree.map(
            lambda whole, part: lax.dynamic_update_slice_in_dim(whole, part, start, 0),
            state,
            update,
        )

    centred = a - centre
    sizes = jnp.max(jnp.abs(centred), axis=1)
    smallest = jnp.min(jnp.where(sizes > 0, sizes, jnp.inf))
    zero = (x[0, 0] + a[0, 0]) * 0
    state = jnp.broadcast_to(zero, (n, m)), jnp.broadcast_to(zero != 0, (n,))
    return lax.fori_loop(0, -(-n // rows), step, state)


# --- derivatives -------------------------------------------------------------------------------


def _slope(kind: str, p: float, x: Array, a: Array, out: Array):
    """The derivative of a distance by a difference `t`: `factor * weight(t, column)`.

    `column` and `factor` are `[n, m]` or None.
    """
    if kind == "manhattan":
        return lambda t, _: jnp.sign(t), None, None
    if kind == "euclidean":
        return lambda t, _: t, None, reciprocal(out)
    if kind == "minkowski":
        # Differences of zero have slope zero; a power of 0 < p - 1 < 1 has no derivative there.
        slope = lambda r: jnp.where(r > 0, _power(jnp.where(r > 0, r, 1), p - 1), 0)  # noqa: E731
        return lambda t, unscale: jnp.sign(t) * slope(jnp.abs(t) * unscale), reciprocal(out), None
    # Features that tie for the largest difference share the derivative.
    out = lax.stop_gradient(out)
    ties = _ties(lax.stop_gradient(x), lax.stop_gradient(a), out)
    return lambda t, out: jnp.where(jnp.abs(t) == out, jnp.sign(t), 0), out, 1 / ties


def _ties(x: Array, a: Array, largest: Array) -> Array:
    """How many features reach the largest difference; 1 where NaN keeps any from it."""
    count = _over_features(lambda t: jnp.abs(t) == largest, jnp.add, x, a)
    return jnp.maximum(count, 1)


def _directional(
    weight: Callable, x: Array, a: Array, column: Array | None, tangent: Array
) -> Array:
    """`sum_k weight(x_ik - a_jk) tangent_ik`, `[m, n]`, a group of `a` at a time.

    Weights are made anew in the transpose (`jax.checkpoint`), where they are `[n, d]` for one
    `a_j`, and kept by neither.
    """
    x, a = _rounded(x), _rounded(a)
    if is_sharded(a):
        return _directional_by_features(weight, x, a, column, tangent)
    column = None if column is None else column.T[:, :, None]

    @jax.checkpoint
    def group(tangent, pair):
        a, column = pair
        return jnp.stack(
            [
                jnp.sum(weight(x - a[j], None if column is None else column[j]) * tangent, axis=1)
                for j in range(a.shape[0])
            ]
        )

    m = a.shape[0]
    first = m % GROUP or min(m, GROUP)
    out = group(tangent, jax.tree.map(lambda v: v[:first], (a, column)))
    if first == m:
        return out
    rest = jax.tree.map(lambda v: v[first:].reshape(-1, GROUP, *v.shape[1:]), (a, column))
    rest = lax.map(partial(group, tangent), rest)
    return jnp.concatenate([out, rest.reshape(m - first, -1)])


def _directional_by_features(
    weight: Callable, x: Array, a: Array, column: Array | None, tangent: Array
) -> Array:
    """`_directional`, a group of features at a time: rows of `a` that are spread over devices can't
    be taken one by one."""
    column = None if column is None else column.T

    @jax.checkpoint
    def fold(out, group):
        x, a, tangent = group
        for k in range(x.shape[0]):
            difference = x[k][None, :] - a[k][:, None]
            out = out + weight(difference, column) * tangent[k][None, :]
        return out

    return _fold_features(fold, jnp.zeros((), x.dtype), x, a, tangent)


def reciprocal(x: Array) -> Array:
    """`1 / x`, and 0 where `x` is 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def _power(x: Array, p: float) -> Array:
    """`x ** p` for `x >= 0`, by multiplications where p is a small whole number."""
    return lax.integer_pow(x, int(p)) if p == int(p) and p <= 8 else x**p
