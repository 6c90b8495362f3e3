"""Similarities of directions: cosine, inner product, angular distance."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax import checks
from relrep_jax.similarities import pairwise
from relrep_jax.similarities.vectors import matmul, norm, prepare, unit


def cosine(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Cosine of the angle between each sample and each anchor.

    `<x, a> / (|x| |a|)`, and 0 where either is the zero vector. Unchanged by orthogonal maps and
    by positive rescaling, of single samples too.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Similarities `[n, m]` in [-1, 1], up to rounding.

    Raises:
        ValueError: not matrices, empty, or of different width.

    Reference:
        Moschella et al., "Relative representations enable zero-shot latent space communication",
        2209.15430, section 3.

    >>> import jax.numpy as jnp
    >>> print(cosine(jnp.array([[3.0, 4.0]]), jnp.eye(2)))
    [[0.6 0.8]]
    """
    x, anchors, dtype = prepare(x, anchors)
    large = checks.is_at_least(x.size * anchors.shape[0], pairwise.MATMUL_SIZE)
    product = _large_scaled_product if large else _scaled_product
    return _with_unit_anchors(product, x, anchors).astype(dtype)


def inner(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Inner product of each sample with each anchor.

    `<x, a>`. Unchanged by orthogonal maps.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Similarities `[n, m]`, unbounded.

    Raises:
        ValueError: not matrices, empty, or of different width.

    >>> import jax.numpy as jnp
    >>> print(inner(jnp.array([[3.0, 4.0]]), jnp.eye(2)))
    [[3. 4.]]
    """
    x, anchors, dtype = prepare(x, anchors)
    return matmul(x, anchors.T).astype(dtype)


def angular(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Angle between each sample and each anchor, as a part of a half turn.

    `arccos(cos(x, a)) / pi`, and 0.5 where either is the zero vector. Unchanged by what leaves the
    cosine unchanged. Computed as `2 atan2(|u - v|, |u + v|) / pi` of the unit vectors `u` and `v`:
    for vectors that are nearly or wholly parallel it is as exact as these are, to one rounding
    error of 1, where an arccosine loses half of its digits, and has a finite gradient.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Distances `[n, m]` in [0, 1].

    Raises:
        ValueError: not matrices, empty, or of different width.

    Reference:
        Cannistraci et al., 2310.01211, the geodesic distance on the sphere. Kahan, "How futile are
        mindless assessments of roundoff in floating-point computation?", section 12.

    >>> import jax.numpy as jnp
    >>> print(angular(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0], [-2.0, 0.0]])))
    [[0.5 1. ]]
    """
    x, anchors, dtype = prepare(x, anchors)
    u, v = unit(x), unit(anchors)
    apart, together = jnp.split(pairwise.euclidean(u, jnp.concatenate([v, -v])), 2, axis=1)
    # With a zero vector both lengths are alike, and with two both are 0: half of a half turn.
    defined = jnp.any(u != 0, axis=1)[:, None] & jnp.any(v != 0, axis=1)
    defined |= jnp.any(jnp.isnan(u), axis=1)[:, None] | jnp.any(jnp.isnan(v), axis=1)
    apart, together = jnp.where(defined, apart, 1), jnp.where(defined, together, 1)
    return (2 / jnp.pi * jnp.arctan2(apart, together)).astype(dtype)


@partial(jax.jit, static_argnums=0)  # Outside of `jit`, too, lengths and product are one pass.
def _with_unit_anchors(product: Callable[[Array, Array], Array], x: Array, anchors: Array) -> Array:
    return product(x, unit(anchors))


def _scaled_product(x: Array, units: Array) -> Array:
    """`x units^T / |x|`, and 0 for zero vectors.

    Lengths are applied after the product; that the samples are first brought to lengths near 1 by
    powers of two changes no digit, but keeps the derivative of the length in range.
    """
    x = x / pairwise.power_of_two(x, axis=-1)
    return matmul(x, units.T) * pairwise.reciprocal(norm(x))


@jax.custom_jvp
def _large_scaled_product(x: Array, units: Array) -> Array:
    """`_scaled_product` where there is much to compute.

    XLA makes one pass of product and scaling where no zero, tiny or huge vector has to be guarded
    against: worth a look at the lengths.
    """

    def plain(x: Array, units: Array) -> Array:
        return matmul(x, units.T) * lax.rsqrt(jnp.sum(x * x, axis=1, keepdims=True))

    squares = jnp.sum(x * x, axis=1)
    is_plain = jnp.all((squares > 1e-30) & (squares < 1e30))
    return lax.cond(is_plain, plain, _scaled_product, x, units)


@_large_scaled_product.defjvp
def _large_scaled_product_jvp(primals, tangents):
    # Batched, the derivative of the cond has no transpose.
    return jax.jvp(_scaled_product, primals, tangents)
