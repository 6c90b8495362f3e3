"""Transforms by name, one after another, and fitted."""

from collections.abc import Callable
from functools import lru_cache

import jax
from jax.typing import ArrayLike

from relrep_jax.checks import lookup
from relrep_jax.transforms.base import FittedTransform, Params, Transform, made_by
from relrep_jax.transforms.decorrelation import pca_whitening, whitening
from relrep_jax.transforms.scaling import (
    centering,
    identity,
    l2_normalization,
    layer_normalization,
    standard_scaling,
)

TRANSFORMS: dict[str, Transform] = {
    "identity": identity,
    "centering": centering,
    "standard_scaling": standard_scaling,
    "l2_normalization": l2_normalization,
    "layer_normalization": layer_normalization,
    "whitening": whitening,
    "pca_whitening": pca_whitening,
}

TransformLike = str | Transform | FittedTransform | Callable[[jax.Array], jax.Array] | None


def get(transform: str | Transform) -> Transform:
    """The transform of that name, or the transform itself.

    Args:
        transform: a name in `TRANSFORMS`, or a `Transform`.

    Returns:
        The `Transform`.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if isinstance(transform, Transform):
        return transform
    return lookup("transform", transform, TRANSFORMS)


for _name, _transform in TRANSFORMS.items():
    made_by(get, (_name,), _transform)


def chain(*transforms: str | Transform) -> Transform:
    """One transform after another, each fitted on what the ones before it give.

    Args:
        *transforms: names or transforms, first applied first.

    Returns:
        A `Transform`; it can be inverted if every link can.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import transforms
        >>> sphere = transforms.chain("standard_scaling", "l2_normalization")
        >>> x = jnp.array([[0.0, 2.0], [2.0, 4.0]])
        >>> print(sphere.apply(sphere.fit(x), x).round(3))
        [[-0.707 -0.707]
         [ 0.707  0.707]]
    """
    return _chain(tuple(get(transform) for transform in transforms))


@lru_cache(maxsize=256)
def _chain(links: tuple[Transform, ...]) -> Transform:
    # Equal chains are one object: what they fitted has one pytree structure and one trace.
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

    made = Transform(fit, apply, invert if all(link.invert for link in links) else None)
    return made_by(_chain, (links,), made)


robust = chain("standard_scaling", "l2_normalization")
"""Standardised features, then rows of length 1: the robust relative representation.

After it the inner product is the cosine of standardised latents, `<x', a'>` with
`x' = (x - mean) / std / |...|`, and every distance is one on the sphere. The relative space is
blind to translations, scalings of features and signed permutations, but no longer to rotations.

Reference: arXiv 2409.10967, whose batch normalisation without learned parameters this is with the
statistics of the latents instead of running ones.

Example:
    >>> import jax.numpy as jnp
    >>> from relrep_jax import transforms
    >>> x = jnp.array([[0.0, 2.0], [2.0, 40.0]])
    >>> print(transforms.fit("robust", x)(x).round(3))
    [[-0.707 -0.707]
     [ 0.707  0.707]]
"""
TRANSFORMS["robust"] = robust


def fit(transform: str | Transform, latents: ArrayLike) -> FittedTransform:
    """Fit a transform on latents: a pytree that is called like a function.

    Args:
        transform: a name in `TRANSFORMS`, or a `Transform`.
        latents: `[n, d]`.

    Returns:
        The fitted transform: `fitted(x)` for rows `x [k, d]`, and `fitted.invert(y)` where it has
        an inverse.

    Raises:
        ValueError: an unknown name (the message lists the known ones), or latents that are no
            matrix or empty.

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
    """A function of one array from anything that names a transform; unfitted ones are fitted.

    Args:
        transform: a name, a `Transform`, a `FittedTransform`, a function, or None for the identity.
        latents: `[n, d]`, what a name or a `Transform` is fitted on.

    Returns:
        The function, of rows `[k, d]`.

    Raises:
        ValueError: an unknown name, or none of these.
    """
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
