"""Centred kernel alignment: whole, debiased, and over a stream of batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from relrep_jax._linalg import as_float, centre, dot, size_of
from relrep_jax._sharding import automatic_sharding
from relrep_jax.checks import check_matrix, check_number
from relrep_jax.measures._blocks import (
    as_floats,
    check_pair,
    divide,
    fold_pairs,
    safe_sqrt,
    squared_distances,
    unit_scale,
)
from relrep_jax.measures._compiled import all_finite, measure

_RANKED_ROWS = 65_536  # pairs of so many rows are counted in int32
_SAMPLED_ROWS = 256


class _Sums(NamedTuple):
    """Sums over pairs `i != j` of two kernels `K` and `L`, and their diagonals."""

    kl: jax.Array
    kk: jax.Array
    ll: jax.Array
    k_rows: jax.Array
    l_rows: jax.Array
    k_diagonal: jax.Array
    l_diagonal: jax.Array


def _hsic(products, a_rows, b_rows, a_diagonal, b_diagonal, debiased: bool) -> jax.Array:
    """`tr(KHLH)`, or `n (n - 3)` times Song's unbiased estimate, from sums over pairs."""
    n = a_rows.shape[0]
    if not debiased:
        products = products + jnp.vdot(a_diagonal, b_diagonal)
        a_rows, b_rows = a_rows + a_diagonal, b_rows + b_diagonal
    a_mean, b_mean = a_rows.mean(), b_rows.mean()
    rows = jnp.vdot(a_rows - a_mean, b_rows - b_mean)
    if debiased:
        means = a_mean * b_mean * n
        return products + means * (n / ((n - 1) * (n - 2))) - 2 * (rows + means) / (n - 2)
    return products - 2 / n * rows - a_mean * b_mean


def _norm(
    products: jax.Array, rows: jax.Array, diagonal: jax.Array, debiased: bool, size: float = 0.0
) -> jax.Array:
    """`sqrt(HSIC(K, K))` from sums over pairs, 0 where the kernel does not vary.

    `size` is that of the entries before a shift was taken from them, which left its rounding.
    """
    own = _hsic(products, rows, rows, diagonal, diagonal, debiased)
    energy = products if debiased else products + jnp.vdot(diagonal, diagonal)
    return _above_rounding(own, energy, rows.shape[0], size)


def _above_rounding(own: jax.Array, energy: jax.Array, n: int, size: float) -> jax.Array:
    # What is left of a kernel without variation is the rounding error of its sums.
    eps = float(jnp.finfo(own.dtype).eps)
    floor = 32 * eps * energy + (8 * eps * size * n) ** 2
    return safe_sqrt(jnp.where(own > floor, own, 0.0))


def _alignment(sums: _Sums, debiased: bool, size: float = 0.0) -> jax.Array:
    """`HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`, 0 where a kernel does not vary."""
    k, l = (sums.k_rows, sums.k_diagonal), (sums.l_rows, sums.l_diagonal)  # noqa: E741
    cross = _hsic(sums.kl, k[0], l[0], k[1], l[1], debiased)
    k_norm, l_norm = (
        _norm(products, *side, debiased, size) for products, side in ((sums.kk, k), (sums.ll, l))
    )
    ratio = divide(divide(cross, k_norm), l_norm)
    return jnp.clip(ratio, -1.0 if debiased else 0.0, 1.0)


def _pair_sums(
    x: jax.Array,
    y: jax.Array,
    kernels: tuple[Callable, Callable],
    shifts: tuple[Any, Any],
    diagonals: tuple,
) -> _Sums:
    """Sums over blocks of both kernels; `shifts` is taken from every entry beforehand.

    Centring forgets a constant, and sums of entries about zero lose no digits to it.
    """
    n = x.shape[0]
    arrays = (x, y, jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1))

    def step(carry, left, right, rows, columns, distinct):
        (kl, kk, ll), (k_rows, l_rows) = carry
        k = kernels[0](left[0], right[0], left[2], right[2]) - shifts[0]
        l = kernels[1](left[1], right[1], left[3], right[3]) - shifts[1]  # noqa: E741
        k, l = jnp.where(distinct, k, 0.0), jnp.where(distinct, l, 0.0)  # noqa: E741
        products = (kl + jnp.sum(k * l), kk + jnp.sum(k * k), ll + jnp.sum(l * l))
        row_sums = tuple(
            total.at[rows].add(m.sum(axis=1), mode="drop").at[columns].add(m.sum(0), mode="drop")
            for total, m in ((k_rows, k), (l_rows, l))
        )
        return products, row_sums

    zero, zeros = jnp.zeros((), x.dtype), jnp.zeros((n,), x.dtype)
    init = ((zero, zero, zero), (zeros, zeros))
    (kl, kk, ll), (k_rows, l_rows) = fold_pairs(step, init, arrays)
    return _Sums(2 * kl, 2 * kk, 2 * ll, k_rows, l_rows, *diagonals)


@measure("debiased")
def linear_cka(x: ArrayLike, y: ArrayLike, debiased: bool = False) -> jax.Array:
    """Linear centred kernel alignment.

    `||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)` on centred features, which is
    `HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` with `K = X X^T` and `L = Y Y^T`. `debiased`
    takes the unbiased estimate of HSIC, which does not grow with the width when rows are few.
    Whichever of features and rows is cheaper is multiplied out; rows go block by block, so
    that memory never grows with `n^2`.

    Args:
        x: `[n, d1]`, `n >= 2` (4 where debiased).
        y: `[n, d2]`, the same samples.
        debiased: whether to take the unbiased HSIC.

    Returns:
        A scalar in [0, 1], or in [-1, 1] where debiased; 1 for spaces that differ by a rotation
        or reflection, one scale and a shift. 0 where a space does not vary.

    Raises:
        ValueError: the row counts differ or there are too few rows.

    Reference:
        Kornblith et al., arXiv 1905.00414, eq. 4; unbiased HSIC: Song et al. (2012), eq. 5.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> round(float(linear_cka(x, 3.0 * x[:, ::-1] + 1.0)), 4)
    1.0
    """
    _check_rows(x, y, debiased)
    x, y = (unit_scale(centre(z)[0]) for z in as_floats(x, y))
    (n, d1), d2 = x.shape, y.shape[1]
    p, q = jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1)
    if n * (d1 + d2) <= 2 * (d1 * d1 + d2 * d2 + d1 * d2):
        kernels = (_linear_kernel, _linear_kernel)
        return _alignment(_pair_sums(x, y, kernels, (0.0, 0.0), (p, q)), debiased)
    products = [jnp.sum(dot(a.T, b) ** 2) for a, b in ((x, y), (x, x), (y, y))]
    # The rows of a centred Gram matrix sum to zero: without the diagonal, to minus the diagonal.
    diagonal = [jnp.vdot(a, b) for a, b in ((p, q), (p, p), (q, q))]
    off = [a - b for a, b in zip(products, diagonal, strict=True)]
    return _alignment(_Sums(*off, -p, -q, p, q), debiased)


def _linear_kernel(left, right, left_squares, right_squares) -> jax.Array:
    return dot(left, right.T)


def _check_rows(x: Any, y: Any, debiased: bool) -> None:
    if debiased:
        check_pair(x, y, rows=4, why=" by the debiased estimate")
    else:
        check_pair(x, y)


def _evenly(n: int, rows: int) -> np.ndarray:
    """`rows` of `n` row numbers, evenly spaced."""
    return np.arange(rows) * n // rows


def _about_the_middle(x: jax.Array) -> jax.Array:
    """`x` less the median of each column, from a sample of rows.

    Distances are formed from products, which lose what is small beside the rows themselves. Few
    rows far from the others move their mean, not their median.
    """
    sample = lax.stop_gradient(x[_evenly(x.shape[0], min(x.shape[0], _SAMPLED_ROWS))])
    return x - jnp.median(sample, axis=0)


def _bits(dtype: Any) -> tuple[Any, int]:
    """The integers that order as the positive floats of `dtype` do, and that of the largest."""
    if dtype == jnp.float64:
        return jnp.int64, 0x7FEFFFFFFFFFFFFF
    return jnp.int32, 0x7F7FFFFF


def median_distance(x: ArrayLike) -> jax.Array:
    """Median of the Euclidean distances between distinct rows, over the pairs `i < j`.

    Found by counting, block by block, how many squared distances lie below each of a few
    thresholds and narrowing these down: memory grows with `n` alone. Up to 2,048 rows it is the
    median as NumPy defines it (the mean of the middle two of an even number); above that the
    lower of the middle two, to a relative 4e-6 at worst; above 65,536 rows that of as many
    rows, evenly spaced. No gradient flows through it.

    Args:
        x: `[n, d]`, `n >= 2`.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: fewer than two rows.
    """
    check_matrix("x", x)
    if x.shape[0] < 2:
        raise ValueError(f"Distances need at least 2 rows, got x {tuple(x.shape)}.")
    return jnp.where(all_finite(x), _median_distance(x), jnp.nan)


@automatic_sharding
@jax.jit
def _median_distance(x: jax.Array) -> jax.Array:
    x = lax.stop_gradient(as_float(x))
    n = x.shape[0]
    if n > _RANKED_ROWS:
        x = x[_evenly(n, _RANKED_ROWS)]
        n = _RANKED_ROWS
    x = _about_the_middle(x)
    size = size_of(x)
    x = x / size
    squares = jnp.sum(x * x, axis=1)
    total = n * (n - 1) // 2
    target = (total + 1) // 2  # the lower of the middle two, counted from 1
    exact = n <= 2048
    integer, top = _bits(x.dtype)
    cuts = 65

    def to_float(bits):
        return lax.bitcast_convert_type(bits, x.dtype)

    def count(thresholds):
        """How many squared distances are at most each threshold, `[cuts]`."""

        def step(carry, left, right, rows, columns, distinct):
            squared = squared_distances(left[0], right[0], left[1], right[1])
            squared = jnp.where(distinct, squared, jnp.inf)
            # Few rows at a time against all thresholds: the counts stay in cache.
            some = 8 if squared.shape[0] % 8 == 0 else 1
            groups = squared.reshape(-1, some, squared.shape[1])

            def add(counts, group):
                below = group[None] <= thresholds[:, None, None]
                return counts + below.sum(axis=1, dtype=jnp.int32), None

            zeros = jnp.zeros((cuts, squared.shape[1]), jnp.int32)
            return carry + lax.scan(add, zeros, groups)[0].sum(axis=1, dtype=jnp.int32)

        return fold_pairs(step, jnp.zeros((cuts,), jnp.int32), (x, squares))

    def narrow(state, cut_bits):
        """The bracket `low < answer <= high` after counting at sorted `cut_bits`."""
        low, high, below_low, below_high = state
        counts = count(to_float(cut_bits))
        under = counts < target
        new_low = jnp.max(jnp.where(under, cut_bits, low))
        new_high = jnp.min(jnp.where(under, high, cut_bits))
        return (
            jnp.maximum(low, new_low),
            jnp.minimum(high, new_high),
            jnp.maximum(below_low, jnp.max(jnp.where(under, counts, below_low))),
            jnp.minimum(below_high, jnp.min(jnp.where(under, below_high, counts))),
        )

    width = 1 if exact else 64

    def wide(state):
        return state[1] - state[0] > width

    def halve(state):
        low, high, below_low, below_high = state
        span = high - low
        # Half of the cuts are evenly spaced, which bounds the number of rounds; the others crowd
        # about where even growth of the counts puts the answer, which is soon met.
        even = low + jnp.maximum(span // (cuts // 2 + 1), 1) * jnp.arange(1, cuts // 2 + 1)
        share = (target - below_low) / jnp.maximum(below_high - below_low, 1)
        guess = low + jnp.clip(share * span, 0, span).astype(integer)
        reach = span >> jnp.arange(2, 2 + cuts // 4, dtype=integer)
        crowd = jnp.concatenate(
            [guess - reach, guess[None], guess + jnp.minimum(reach, high - guess)]
        )
        cut_bits = jnp.concatenate([even.astype(integer), crowd])
        return narrow(state, jnp.sort(jnp.clip(cut_bits, low + 1, high)))

    state = (
        jnp.asarray(-1, integer),
        jnp.asarray(top, integer),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(total, jnp.int32),
    )
    if not exact:  # thresholds from a sample of rows bring the bracket down at once
        rows = _evenly(n, _SAMPLED_ROWS)
        sample = squared_distances(x[rows], x[rows], squares[rows], squares[rows])
        first, second = np.triu_indices(_SAMPLED_ROWS, 1)
        quantiles = jnp.quantile(sample[first, second], 0.5 + jnp.linspace(-0.15, 0.15, cuts))
        cut_bits = lax.bitcast_convert_type(jnp.sort(quantiles), integer)
        state = narrow(state, cut_bits)
    low, high, below_low, below_high = lax.while_loop(wide, halve, state)

    if exact:
        lower = to_float(high)
        if total % 2:
            return jnp.sqrt(lower) * size

        def above(carry, left, right, rows, columns, distinct):
            squared = squared_distances(left[0], right[0], left[1], right[1])
            return jnp.minimum(
                carry, jnp.min(jnp.where(distinct & (squared > lower), squared, jnp.inf))
            )

        following = fold_pairs(above, jnp.asarray(jnp.inf, x.dtype), (x, squares))
        upper = jnp.where(below_high > target, lower, following)
        return (jnp.sqrt(lower) + jnp.sqrt(upper)) / 2 * size
    # Between two thresholds so near, the counts grow evenly.
    bottom, end = to_float(jnp.maximum(low, 0)), to_float(high)
    share = (target - below_low) / jnp.maximum(below_high - below_low, 1)
    return jnp.sqrt(bottom + share.astype(x.dtype) * (end - bottom)) * size


def _bandwidths(bandwidth: Any) -> tuple[Any, Any]:
    """That of either space, of one for both or a pair; `ValueError` where it is neither."""
    is_pair = isinstance(bandwidth, tuple | list) or np.ndim(bandwidth) == 1
    widths = tuple(bandwidth) if is_pair else (bandwidth, bandwidth)
    if len(widths) != 2:
        raise ValueError(f"bandwidth must be one number or a pair, got {len(widths)} of them.")
    for width in widths:
        if width is None:
            continue
        if not isinstance(width, int | float | np.generic | np.ndarray | jax.Array):
            raise ValueError(f"bandwidth must be a number, a pair or None, got {width!r}.")
        if np.ndim(width):
            raise ValueError(
                f"bandwidth must be one number or a pair, got an array {jnp.shape(width)}."
            )
        number = width.item() if isinstance(width, np.ndarray) else width
        check_number("bandwidth", number, "be positive", lambda width: width > 0)
    return widths


@automatic_sharding
def default_bandwidth(x: ArrayLike) -> jax.Array:
    """The `median_distance` of rows `[n, d]`, `n >= 2`; their root mean square distance where more
    than half of the pairs coincide, 1 where all do. No gradient flows through it."""
    x = as_float(x)
    median = median_distance(x)
    x = centre(x)[0]
    size = size_of(x)
    mean_square = 2 * jnp.sum((x / size) ** 2) / (x.shape[0] - 1)
    bandwidth = jnp.where(median > 0, median, jnp.sqrt(mean_square) * size)
    return lax.stop_gradient(jnp.where(bandwidth == 0, 1.0, bandwidth))


def _rbf_space(x: Any, bandwidth: Any) -> jax.Array:
    """`x` shifted and scaled so that its kernel is `exp(-||x_i - x_j||^2)`."""
    x = _about_the_middle(x)
    if bandwidth is None:
        bandwidth = default_bandwidth(x)
    return x / (jnp.sqrt(2.0) * bandwidth).astype(x.dtype)


def rbf_cka(
    x: ArrayLike,
    y: ArrayLike,
    bandwidth: Any = None,
    debiased: bool = False,
) -> jax.Array:
    """Centred kernel alignment of Gaussian kernels.

    `HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))` with
    `K_ij = exp(-||x_i - x_j||^2 / (2 bandwidth^2))`, from row blocks by
    `tr(KHLH) = sum(K * L) - 2/n <K 1, L 1> + (1'K 1)(1'L 1)/n^2`. Where the bandwidth is large
    beside all distances, that is `linear_cka`.

    Args:
        x: `[n, d1]`, `n >= 2` (4 where debiased).
        y: `[n, d2]`, the same samples.
        bandwidth: one for both spaces, a pair, or None for the `median_distance` of each space
            (its root mean square distance where more than half of the pairs coincide). No
            gradient flows through the default.
        debiased: whether to take the unbiased HSIC.

    Returns:
        A scalar in [0, 1], or in [-1, 1] where debiased; 1 for spaces that differ by a rotation
        or reflection, a shift and, with the default bandwidth, one scale. 0 where a space does
        not vary.

    Raises:
        ValueError: the row counts differ, there are too few rows, or a bandwidth is not positive.

    Reference:
        Kornblith et al., arXiv 1905.00414, section 3; unbiased HSIC: Song et al. (2012), eq. 5.
    """
    _check_rows(x, y, debiased)
    widths = _bandwidths(bandwidth)
    return _rbf_cka(x, y, widths, debiased)


@measure("debiased")
def _rbf_cka(x: jax.Array, y: jax.Array, widths: tuple[Any, Any], debiased: bool) -> jax.Array:
    x, y = as_floats(x, y)
    return _rbf_alignment(_rbf_space(x, widths[0]), _rbf_space(y, widths[1]), debiased)


def _rbf_size(x: jax.Array) -> jax.Array:
    """What `1 - K` is at most, to divide by it; 1 where all rows coincide."""
    widest = 4 * jnp.max(jnp.sum(lax.stop_gradient(x) ** 2, axis=1))
    return jnp.where(widest > 0, -jnp.expm1(-widest), 1.0)


def _rbf_kernel(size: jax.Array) -> Callable[..., jax.Array]:
    """`(K - 1) / size`, which centring does not tell from `K`: with a bandwidth that is large
    beside all distances the digits of `K` are those of the 1."""

    def kernel(left, right, left_squares, right_squares):
        return jnp.expm1(-squared_distances(left, right, left_squares, right_squares)) / size

    return kernel


def _rbf_shift(x: jax.Array, size: jax.Array) -> jax.Array:
    """About the mean entry of the kernel of `x`, from a sample of rows."""
    n = x.shape[0]
    sample = lax.stop_gradient(x[_evenly(n, min(n, _SAMPLED_ROWS))])
    squares = jnp.sum(sample * sample, axis=1)
    entries = _rbf_kernel(size)(sample, sample, squares, squares)
    number = entries.shape[0]
    return (jnp.sum(entries) - jnp.trace(entries)) / (number * (number - 1))


def _rbf_alignment(x: jax.Array, y: jax.Array, debiased: bool) -> jax.Array:
    sizes = _rbf_size(x), _rbf_size(y)
    shifts = _rbf_shift(x, sizes[0]), _rbf_shift(y, sizes[1])
    diagonals = tuple(jnp.full(x.shape[:1], -shift, x.dtype) for shift in shifts)
    kernels = _rbf_kernel(sizes[0]), _rbf_kernel(sizes[1])
    return _alignment(_pair_sums(x, y, kernels, shifts, diagonals), debiased, size=1.0)


class Accumulator(NamedTuple):
    """A measure over a stream of batches.

    `init(...) -> state`, `update(state, x, y) -> state`, `compute(state) -> score`; the state
    is a pytree of fixed shapes, so that `update` fits into `jax.jit` and `jax.lax.scan`.
    """

    init: Callable[..., Any]
    update: Callable[..., Any]
    compute: Callable[[Any], jax.Array]


class CKAState(NamedTuple):
    """Count, means and centred co-moments of what has been seen of two spaces, divided by their
    sizes, the largest so far: squares of entries would over- or underflow without."""

    count: jax.Array
    x_mean: jax.Array
    y_mean: jax.Array
    xx: jax.Array
    yy: jax.Array
    xy: jax.Array
    x_size: jax.Array
    y_size: jax.Array


def _init_linear(d1: int, d2: int, dtype: Any = jnp.float32) -> CKAState:
    zeros = jnp.zeros
    return CKAState(
        zeros((), dtype),
        zeros((d1,), dtype),
        zeros((d2,), dtype),
        zeros((d1, d1), dtype),
        zeros((d2, d2), dtype),
        zeros((d1, d2), dtype),
        zeros((), dtype),
        zeros((), dtype),
    )


@automatic_sharding
def _update_linear(state: CKAState, x: jax.Array, y: jax.Array) -> CKAState:
    check_pair(x, y, rows=1)
    widths = state.x_mean.shape[-1], state.y_mean.shape[-1]
    if (x.shape[1], y.shape[1]) != widths:
        raise ValueError(
            f"The stream was begun for widths {widths[0]} and {widths[1]}, got a batch "
            f"x {tuple(x.shape)} and y {tuple(y.shape)}."
        )
    x, y = as_floats(x, y)
    x_size, x_divisor, x_ratio = _grown(state.x_size, x, size_of)
    y_size, y_divisor, y_ratio = _grown(state.y_size, y, size_of)
    x, y = x / x_divisor, y / y_divisor
    old_x_mean, old_y_mean = state.x_mean * x_ratio, state.y_mean * y_ratio
    count = state.count + x.shape[0]
    weight = state.count * x.shape[0] / count
    # About its own mean the batch is small even where both lie far from zero.
    (x, x_mean), (y, y_mean) = centre(x), centre(y)
    dx, dy = x_mean - old_x_mean, y_mean - old_y_mean

    return CKAState(
        count,
        old_x_mean + dx * (x.shape[0] / count),
        old_y_mean + dy * (x.shape[0] / count),
        state.xx * x_ratio**2 + dot(x.T, x) + weight * jnp.outer(dx, dx),
        state.yy * y_ratio**2 + dot(y.T, y) + weight * jnp.outer(dy, dy),
        state.xy * x_ratio * y_ratio + dot(x.T, y) + weight * jnp.outer(dx, dy),
        x_size,
        y_size,
    )


def _grown(size: jax.Array, space: jax.Array, measured: Callable) -> tuple[Any, Any, Any]:
    """The largest size that a stream has met, what to divide by for it, and what to multiply with
    what was divided by the size before."""
    found = jnp.where(jnp.any(lax.stop_gradient(space) != 0), measured(space), 0.0)
    largest = jnp.maximum(size, found.astype(size.dtype))
    divisor = jnp.where(largest > 0, largest, 1.0)
    return largest, divisor, size / divisor


@automatic_sharding
def _compute_linear(state: CKAState) -> jax.Array:
    def root_of_norm(moments):
        size = size_of(moments)
        return safe_sqrt(jnp.linalg.norm(moments / size)) * jnp.sqrt(size)

    root = divide(divide(state.xy, root_of_norm(state.xx)), root_of_norm(state.yy))
    score = jnp.clip(jnp.sum(root * root), 0.0, 1.0)
    return jnp.where(all_finite(state.xx, state.yy, state.xy), score, jnp.nan)


streaming_linear_cka = Accumulator(_init_linear, _update_linear, _compute_linear)
"""Linear CKA over batches of any sizes, equal to `linear_cka` of all rows at once.

`init(d1, d2)`, `update(state, x [b, d1], y [b, d2])`, `compute(state)`. The state holds the
centred co-moments `[d1, d1]`, `[d2, d2]` and `[d1, d2]`, merged by the rule of Chan, Golub and
LeVeque (1979), which large offsets do not harm.

>>> import jax.numpy as jnp
>>> x = jnp.arange(12.0).reshape(6, 2) ** 2
>>> state = streaming_linear_cka.init(2, 2)
>>> for rows in (x[:2], x[2:]):
...     state = streaming_linear_cka.update(state, rows, rows[:, ::-1])
>>> round(float(streaming_linear_cka.compute(state)), 4)
1.0
"""


class MinibatchState(NamedTuple):
    """Sums over batches of the unbiased HSIC estimates, of spaces (or of kernels of distances)
    divided by their sizes.

    The sizes are the largest so far: products of four entries would over- or underflow without.
    """

    xy: jax.Array
    xx: jax.Array
    yy: jax.Array
    x_size: jax.Array
    y_size: jax.Array


def minibatch_cka(kernel: str = "linear", bandwidth: Any = None) -> Accumulator:
    """CKA from averages of unbiased HSIC estimates over batches.

    `sum_b HSIC_1(K_b, L_b) / sqrt(sum_b HSIC_1(K_b, K_b) sum_b HSIC_1(L_b, L_b))`: its
    expectation does not depend on the batch size, and memory is that of one batch.

    Args:
        kernel: "linear" or "rbf".
        bandwidth: for "rbf": one for both spaces, or a pair. It must be the same for every
            batch, so there is no default: `median_distance` of some thousand rows will do.

    Returns:
        An `Accumulator`: `init()`, `update(state, x [b, d1], y [b, d2])` with `b >= 4`,
        `compute(state)`, a scalar in [-1, 1].

    Raises:
        ValueError: the kernel is unknown, or its bandwidth is missing or not positive.

    Reference:
        Nguyen, Raghu and Kornblith, arXiv 2010.15327, eq. 2.
    """
    if kernel not in ("linear", "rbf"):
        raise ValueError(f"Unknown kernel {kernel!r}. Known: linear, rbf.")
    widths = _bandwidths(bandwidth)
    if kernel == "rbf" and any(width is None for width in widths):
        raise ValueError(
            "The rbf kernel over batches needs a fixed bandwidth (or a pair, one a space): "
            "take median_distance of some of the rows."
        )

    def init(dtype: Any = jnp.float32) -> MinibatchState:
        return MinibatchState(*(jnp.zeros((), dtype) for _ in MinibatchState._fields))

    @automatic_sharding
    def update(state: MinibatchState, x: jax.Array, y: jax.Array) -> MinibatchState:
        _check_rows(x, y, debiased=True)
        n = x.shape[0]
        x, y = as_floats(x, y)
        if kernel == "rbf":
            x, y = _rbf_space(x, widths[0]), _rbf_space(y, widths[1])
        else:
            x, y = centre(x)[0], centre(y)[0]
        measured = size_of if kernel == "linear" else _rbf_size
        x_size, x_divisor, x_ratio = _grown(state.x_size, x, measured)
        y_size, y_divisor, y_ratio = _grown(state.y_size, y, measured)
        if kernel == "linear":
            x, y = x / x_divisor, y / y_divisor
            kernels = (_linear_kernel, _linear_kernel)
            x_ratio, y_ratio = x_ratio**2, y_ratio**2  # a kernel is a product of two entries
        else:
            kernels = _rbf_kernel(x_divisor), _rbf_kernel(y_divisor)
        nothing = jnp.zeros((n,), x.dtype)
        sums = _pair_sums(x, y, kernels, (0.0, 0.0), (nothing, nothing))
        k, l = sums.k_rows, sums.l_rows  # noqa: E741
        scale = 1.0 / (n * (n - 3))
        return MinibatchState(
            *(
                total + scale * _hsic(products, a, b, nothing, nothing, True)
                for total, products, a, b in (
                    (state.xy * x_ratio * y_ratio, sums.kl, k, l),
                    (state.xx * x_ratio**2, sums.kk, k, k),
                    (state.yy * y_ratio**2, sums.ll, l, l),
                )
            ),
            x_size,
            y_size,
        )

    @automatic_sharding
    def compute(state: MinibatchState) -> jax.Array:
        ratio = divide(divide(state.xy, safe_sqrt(state.xx)), safe_sqrt(state.yy))
        ratio = jnp.clip(ratio, -1.0, 1.0)
        return jnp.where(all_finite(state.xy, state.xx, state.yy), ratio, jnp.nan)

    return Accumulator(init, update, compute)
