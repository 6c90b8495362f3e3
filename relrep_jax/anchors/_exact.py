"""Distances in twice the precision of their dtype, as unevaluated sums of two floats.

A value is `(high, low)` with `high` the rounded sum, so that pairs compare lexicographically.
Products are only ever taken of halves whose product is exact, so that neither fused
multiply-adds nor the order in which a compiler takes them can change a result.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

Double = tuple[Array, Array]


def two_sum(a: Array, b: Array) -> Double:
    """`a + b`, exactly (Knuth)."""
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)


def _halves(x: Array) -> Double:
    """Upper and lower digits, exactly `x` together; products of any two halves are exact."""
    bits, low = {4: (jnp.int32, 12), 8: (jnp.int64, 27)}[x.dtype.itemsize]
    upper = lax.bitcast_convert_type(lax.bitcast_convert_type(x, bits) & -(1 << low), x.dtype)
    return upper, x - upper


def _pinned(x: Array) -> Array:
    """`x` without its last bit, by way of integers, so that no product merges into a sum."""
    bits = {4: jnp.int32, 8: jnp.int64}[x.dtype.itemsize]
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, bits) & -2, x.dtype)


def add(a: Double, b: Double) -> Double:
    high, low = two_sum(a[0], b[0])
    return two_sum(high, low + (a[1] + b[1]))


def multiply(a: Double, b: Double) -> Double:
    (a1, a2), (b1, b2) = _halves(a[0]), _halves(b[0])
    high, low = two_sum(a1 * b1, a1 * b2)
    high, rest = two_sum(high, a2 * b1)
    low = low + rest
    high, rest = two_sum(high, a2 * b2)
    return two_sum(high, (low + rest) + (_pinned(a[0] * b[1]) + _pinned(a[1] * b[0])))


def total(x: Double) -> Double:
    """The sum over the last axis, by halves."""
    size = x[0].shape[-1]
    width = 1 << max(size - 1, 0).bit_length()
    padding = [(0, 0)] * (x[0].ndim - 1) + [(0, width - size)]
    x = jax.tree.map(lambda v: jnp.pad(v, padding), x)
    while width > 1:
        width //= 2
        x = add((x[0][..., :width], x[1][..., :width]), (x[0][..., width:], x[1][..., width:]))
    return x[0][..., 0], x[1][..., 0]


def unit(x: Array) -> Double:
    """Rows of length 1; a zero row stays zero."""
    length = total(multiply((x, jnp.zeros_like(x)), (x, jnp.zeros_like(x))))
    norm, low = length[0][..., None], length[1][..., None]
    positive = norm > 0
    square = jnp.where(positive, norm, 1), jnp.where(positive, low, 0)
    rough = lax.rsqrt(square[0])
    guess = rough, jnp.zeros_like(rough)
    # Newton: y + y (1 - s y^2) / 2.
    correction = multiply(square, multiply(guess, guess))
    correction = add(
        (jnp.ones_like(rough), jnp.zeros_like(rough)), jax.tree.map(jnp.negative, correction)
    )
    inverse = add(guess, (_pinned(rough * correction[0] / 2), jnp.zeros_like(rough)))
    inverse = jax.tree.map(lambda v: jnp.broadcast_to(v, x.shape), inverse)
    return jax.tree.map(
        lambda v: jnp.where(positive, v, 0), multiply((x, jnp.zeros_like(x)), inverse)
    )


@partial(jax.jit, static_argnames="metric")
def squared_distance(x: Array, a: Array, metric: str = "euclidean") -> Double:
    """`|x - a|^2` of rows along the last axis; of unit rows for cosine.

    The relative error is some `2 ^ -44` for float32. Compiled, since it is a hundred operations.
    """
    if metric == "cosine":
        high, low = unit(a)
        difference = add(unit(x), (-high, -low))
    else:
        difference = two_sum(x, -a)
    return total(multiply(difference, difference))


def less(a: Double, b: Double) -> Array:
    return (a[0] < b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
