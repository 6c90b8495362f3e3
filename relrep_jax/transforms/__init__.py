"""Fitted maps of a space: `params = fit(latents)`, `apply(params, x)`, `invert(params, x)`.

A `Transform` is a triple of pure functions, as an optax optimiser is a pair of them; its
parameters are a pytree of arrays, so that fitting and applying pass through `jit` and `vmap`.
`relative_projection` takes a transform by name, as a `Transform` (fitted on the anchors), as a
`FittedTransform` (fitted on whatever latents you chose) or as a plain function.

>>> import jax.numpy as jnp
>>> from relrep_jax import transforms
>>> x = jnp.array([[0.0, 2.0], [2.0, 6.0]])
>>> scaling = transforms.fit("standard_scaling", x)
>>> print(scaling(x))
[[-1. -1.]
 [ 1.  1.]]
>>> print(scaling.invert(scaling(x)))
[[0. 2.]
 [2. 6.]]
"""

from relrep_jax.transforms.base import FittedTransform, Params, Transform, safe_norm
from relrep_jax.transforms.decorrelation import pca_whitening, whitening, whitening_by
from relrep_jax.transforms.padding import zero_padding
from relrep_jax.transforms.registry import (
    TRANSFORMS,
    TransformLike,
    chain,
    fit,
    get,
    resolve,
    robust,
)
from relrep_jax.transforms.scaling import (
    centering,
    identity,
    l2_normalization,
    layer_normalization,
    standard_scaling,
)

__all__ = [
    "TRANSFORMS",
    "FittedTransform",
    "Params",
    "Transform",
    "TransformLike",
    "centering",
    "chain",
    "fit",
    "get",
    "identity",
    "l2_normalization",
    "layer_normalization",
    "pca_whitening",
    "resolve",
    "robust",
    "safe_norm",
    "standard_scaling",
    "whitening",
    "whitening_by",
    "zero_padding",
]
