"""Spaces of different widths in one."""

from functools import cache

import jax
import jax.numpy as jnp

from relrep_jax.checks import check_count
from relrep_jax.transforms.base import Params, Transform, fitted, made_by


def zero_padding(width: int) -> Transform:
    """A transform that appends zeros until latents are `width` wide.

    So that spaces of different widths can be compared feature by feature. Inverted by cutting.

    Args:
        width: how wide the result is, at least as wide as the latents.

    Returns:
        A `Transform`; its parameter is an array of zeros `[d]`, whose length is the width to go
        back to.

    Raises:
        ValueError: `width` is below 1; on fitting and applying, wider latents.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import transforms
        >>> print(transforms.fit(transforms.zero_padding(4), jnp.ones((2, 3)))(jnp.ones((1, 3))))
        [[1. 1. 1. 0.]]
    """
    check_count("width", width)
    return _zero_padding(int(width))


@cache
def _zero_padding(width: int) -> Transform:
    def check(x: jax.Array) -> None:
        if x.shape[-1] > width:
            raise ValueError(
                f"Latents of shape {tuple(x.shape)} are wider than the {width} features that they "
                "should be padded to. Pad to the width of the widest space."
            )

    def fit(latents: jax.Array) -> Params:
        check(latents)
        return jnp.zeros_like(latents[0])

    def apply(params: Params, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        check(x)
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])

    def invert(params: Params, y: jax.Array) -> jax.Array:
        return jnp.asarray(y)[..., : params.shape[-1]]

    return made_by(_zero_padding, (width,), Transform(fitted(fit), apply, invert))
