"""Fitted maps of a space: `params = fit(latents)`, `apply(params, x)`, `invert(params, x)`.

A `Transform` is a triple of pure functions, as an optax optimiser is a pair of them; its
parameters are a pytree of arrays, so that fitting and applying pass through `jit` and `vmap`.
`relative_projection` takes a transform by name, as a `Transform` (fitted on the anchors), as a
`FittedTransform` (fitted on whatever latents you chose) or as a plain function.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from relrep_jax.checks import check_matrix, lookup

Params = Any


class Transform(NamedTuple):
    """A map of a space whose parameters are estimated from latents.

    Attributes:
        fit: `latents [n, d] -> params`, a pytree of arrays.
        apply: `(params, x [k, d]) -> [k, d]`.
        invert: `(params, y [k, d]) -> [k, d]`, undoes `apply`; None where that is impossible.
    """

    fit: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    invert: Callable[[Params, jax.Array], jax.Array] | None


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["transform"])
@dataclasses.dataclass(frozen=True)
class FittedTransform:
    """A transform together with its parameters: a pytree that is called like a function."""

    transform: Transform
    params: Params

    def __call__(self, x: ArrayLike) -> jax.Array:
        return self.transform.apply(self.params, jnp.asarray(x))

    def invert(self, y: ArrayLike) -> jax.Array:
        if self.transform.invert is None:
            raise ValueError("This transform cannot be inverted: it loses information.")
        return self.transform.invert(self.params, jnp.asarray(y))


def _compute_dtype(x: jax.Array) -> jnp.dtype:
    """The dtype that statistics are accumulated in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _float_dtype(x: jax.Array) -> jnp.dtype:
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else _compute_dtype(x)


def _accumulated(function: Callable[[Params, jax.Array], jax.Array]) -> Callable:
    """Compute in float32 at least; return the dtype of the input."""

    def wrapped(params: Params, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        return function(params, x.astype(_compute_dtype(x))).astype(_float_dtype(x))

    return wrapped


def _fitted(function: Callable[[jax.Array], Params]) -> Callable[[ArrayLike], Params]:
    def fit(latents: ArrayLike) -> Params:
        check_matrix("latents", latents)
        latents = jnp.asarray(latents)
        return function(latents.astype(_compute_dtype(latents)))

    return fit


def safe_norm(x: jax.Array) -> jax.Array:
    """L2 norms along the last axis, `[..., d] -> [..., 1]`, with gradient zero at zero vectors."""
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    is_zero = squared == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squared)))


def _mean_and_scale(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = jnp.mean(x, axis=0)
    centred = x - mean
    # Rounding leaves a constant feature with a spread of an ulp or so of its mean;
    # dividing by that would turn noise into signal.
    resolution = 4 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
    variance = jnp.mean(jnp.square(centred), axis=0)
    is_constant = variance <= jnp.square(resolution)
    scale = jnp.where(is_constant, 1.0, jnp.sqrt(jnp.where(is_constant, 1.0, variance)))
    return mean, scale


identity = Transform(
    fit=_fitted(lambda x: ()),
    apply=lambda params, x: jnp.asarray(x),
    invert=lambda params, y: jnp.asarray(y),
)
"""x -> x."""

centering = Transform(
    fit=_fitted(lambda x: jnp.mean(x, axis=0)),
    apply=_accumulated(lambda mean, x: x - mean),
    invert=_accumulated(lambda mean, y: y + mean),
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
    fit=_fitted(_mean_and_scale),
    apply=_accumulated(lambda params, x: (x - params[0]) / params[1]),
    invert=_accumulated(lambda params, y: y * params[1] + params[0]),
)
"""x -> (x - mean) / std, a feature at a time; constant features are only centred.

With cosine this is the "robust" relative representation of arXiv 2409.10967: blind to
translations, diagonal scalings and signed permutations, but no longer to rotations.
"""


def _l2(params: Params, x: jax.Array) -> jax.Array:
    norm = safe_norm(x)
    return x / jnp.where(norm == 0, 1.0, norm)


def _layer_normalize(params: Params, x: jax.Array) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    spread = safe_norm(centred) / jnp.sqrt(x.shape[-1])
    return centred / jnp.where(spread == 0, 1.0, spread)


l2_normalization = Transform(fit=_fitted(lambda x: ()), apply=_accumulated(_l2), invert=None)
"""x -> x / |x|_2, a row at a time; a zero row stays zero."""

layer_normalization = Transform(
    fit=_fitted(lambda x: ()), apply=_accumulated(_layer_normalize), invert=None
)
"""x -> (x - mean(x)) / std(x), a row at a time, without parameters; a constant row becomes zero.

As a relative transform (over the anchor axis) it makes any distance blind to rescalings of the
latent space: the reason why products of Euclidean, L1 and L-infinity spaces survive the
LayerNorm-and-sum aggregations of arXiv 2310.01211.
"""

TRANSFORMS: dict[str, Transform] = {
    "identity": identity,
    "centering": centering,
    "standard_scaling": standard_scaling,
    "l2_normalization": l2_normalization,
    "layer_normalization": layer_normalization,
}

TransformLike = str | Transform | FittedTransform | Callable[[jax.Array], jax.Array] | None


def get(transform: str | Transform) -> Transform:
    """The transform of that name, or the transform itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if isinstance(transform, Transform):
        return transform
    return lookup("transform", transform, TRANSFORMS)


def chain(*transforms: str | Transform) -> Transform:
    """One transform after another, each fitted on what the ones before it give.

    Args:
        *transforms: names or transforms, first applied first.

    Returns:
        A `Transform`; it can be inverted if every link can.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import transforms
        >>> robust = transforms.chain("standard_scaling", "l2_normalization")
        >>> x = jnp.array([[0.0, 2.0], [2.0, 4.0]])
        >>> print(robust.apply(robust.fit(x), x).round(3))
        [[-0.707 -0.707]
         [ 0.707  0.707]]
    """
    links = tuple(get(transform) for transform in transforms)

    def fit(latents: ArrayLike) -> Params:
        params = []
        for link in links:
            params.append(link.fit(latents))
            latents = link.apply(params[-1], latents)
        return tuple(params)

    def apply(params: Params, x: jax.Array) -> jax.Array:
        for link, link_params in zip(links, params, strict=True):
            x = link.apply(link_params, x)
        return x

    def invert(params: Params, y: jax.Array) -> jax.Array:
        for link, link_params in zip(reversed(links), reversed(params), strict=True):
            y = link.invert(link_params, y)
        return y

    return Transform(fit, apply, invert if all(link.invert for link in links) else None)


def fit(transform: str | Transform, latents: ArrayLike) -> FittedTransform:
    """Fit a transform on latents `[n, d]`: a pytree that is called like a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import transforms
        >>> centre = transforms.fit("centering", jnp.array([[0.0, 2.0], [2.0, 4.0]]))
        >>> print(centre(jnp.array([[1.0, 1.0]])))
        [[ 0. -2.]]
    """
    transform = get(transform)
    return FittedTransform(transform, transform.fit(latents))


def resolve(transform: TransformLike, latents: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A function of one array from anything that names a transform; unfitted ones are fitted."""
    if transform is None:
        return lambda x: x
    if isinstance(transform, str | Transform):
        return fit(transform, latents)
    if callable(transform):
        return transform
    raise ValueError(
        "A transform must be a name, a Transform, a FittedTransform, a function or None, "
        f"got {type(transform).__name__}."
    )
