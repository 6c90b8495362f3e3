"""Shifts and scalings: of features by the latents' statistics, of rows by their own."""

import jax
import jax.numpy as jnp

from relrep_jax._linalg import mean_of
from relrep_jax.similarities.pairwise import power_of_two
from relrep_jax.transforms.base import (
    Params,
    Transform,
    accumulated,
    fitted,
    fitted_width,
    safe_norm,
)


def _mean_and_scale(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = mean_of(x)
    centred = x - mean
    # Rounding leaves a constant feature with a spread of an ulp or so of its mean;
    # dividing by that would turn noise into signal.
    resolution = 4 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
    # Of features near 1, so that no square overflows or underflows.
    power = power_of_two(centred.T, axis=-1).T[0]
    variance = jnp.mean(jnp.square(centred / power), axis=0)
    is_constant = variance <= jnp.square(resolution / power)
    scale = jnp.where(is_constant, 1.0, power * jnp.sqrt(jnp.where(is_constant, 1.0, variance)))
    return mean, scale


identity = Transform(
    fit=fitted(lambda x: ()),
    apply=lambda params, x: jnp.asarray(x),
    invert=lambda params, y: jnp.asarray(y),
)
"""x -> x."""

centering = Transform(
    fit=fitted(mean_of),
    apply=accumulated(lambda mean, x: x - mean, fitted_width),
    invert=accumulated(lambda mean, y: y + mean, fitted_width),
)
"""x -> x - mean: makes any similarity blind to translations.

Example:
    >>> import jax.numpy as jnp
    >>> from relrep_jax import transforms
    >>> mean = transforms.centering.fit(jnp.array([[0.0, 2.0], [2.0, 4.0]]))
    >>> print(transforms.centering.apply(mean, jnp.array([[1.0, 1.0]])))
    [[ 0. -2.]]
"""

standard_scaling = Transform(
    fit=fitted(_mean_and_scale),
    apply=accumulated(lambda params, x: (x - params[0]) / params[1], fitted_width),
    invert=accumulated(lambda params, y: y * params[1] + params[0], fitted_width),
)
"""x -> (x - mean) / std, a feature at a time; constant features are only centred.

With cosine this makes the relative representation of arXiv 2409.10967, blind to translations,
diagonal scalings and signed permutations, but no longer to rotations; `robust` scales rows, too.
"""


def _l2(params: Params, x: jax.Array) -> jax.Array:
    x = x / power_of_two(x, axis=-1)
    norm = safe_norm(x)
    return x / jnp.where(norm == 0, 1.0, norm)


def _layer_normalize(params: Params, x: jax.Array) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    centred = centred / power_of_two(centred, axis=-1)
    spread = safe_norm(centred) / jnp.sqrt(x.shape[-1])
    return centred / jnp.where(spread == 0, 1.0, spread)


l2_normalization = Transform(fit=fitted(lambda x: ()), apply=accumulated(_l2), invert=None)
"""x -> x / |x|_2, a row at a time; a zero row stays zero."""

layer_normalization = Transform(
    fit=fitted(lambda x: ()), apply=accumulated(_layer_normalize), invert=None
)
"""x -> (x - mean(x)) / std(x), a row at a time, without parameters; a constant row becomes zero.

As a relative transform (over the anchor axis) it makes any distance blind to rescalings of the
latent space: the reason why products of Euclidean, L1 and L-infinity spaces survive the
LayerNorm-and-sum aggregations of arXiv 2310.01211.
"""
