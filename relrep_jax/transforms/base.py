"""What a transform is: a triple of pure functions."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from relrep_jax._sharding import automatic_sharding
from relrep_jax.checks import check_matrix

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

    def __reduce__(self):
        # Pickled by how it was made, which gives the same object again; else as functions.
        made = getattr(self.fit, "made_by", None)
        return made or (Transform, tuple(self))


def made_by(maker: Callable[..., Transform], arguments: tuple, transform: Transform) -> Transform:
    """Note on a transform what makes an equal one, so that it can be pickled."""
    transform.fit.made_by = (maker, arguments)
    return transform


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["transform"])
@dataclasses.dataclass(frozen=True)
class FittedTransform:
    """A transform together with its parameters: a pytree that is called like a function."""

    transform: Transform
    params: Params

    def __call__(self, x: ArrayLike) -> jax.Array:
        return self.transform.apply(self.params, jnp.asarray(x))

    def invert(self, y: ArrayLike) -> jax.Array:
        """Undo the call.

        Raises:
            ValueError: the transform loses information.
        """
        if self.transform.invert is None:
            raise ValueError("This transform cannot be inverted: it loses information.")
        return self.transform.invert(self.params, jnp.asarray(y))


def compute_dtype(x: jax.Array) -> jnp.dtype:
    """The dtype that statistics are accumulated in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def float_dtype(x: jax.Array) -> jnp.dtype:
    """The dtype that results have: that of x, or float32 for integers."""
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else compute_dtype(x)


def accumulated(
    function: Callable[[Params, jax.Array], jax.Array],
    width: Callable[[Params], int] | None = None,
) -> Callable:
    """Compute in float32 at least; return the dtype of the input.

    Args:
        function: `(params, x) -> y`.
        width: of the latents that the parameters were fitted on; another one would broadcast.
    """

    def wrapped(params: Params, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        if width is not None and x.shape[-1:] != (width(params),):
            raise ValueError(
                f"This transform was fitted on latents of width {width(params)}, got {x.shape}."
            )
        return function(params, x.astype(compute_dtype(x))).astype(float_dtype(x))

    return wrapped


def fitted_width(params: Params) -> int:
    """The width of the latents that parameters were fitted on, the first of which is a mean."""
    return jax.tree.leaves(params)[0].shape[-1]


def fitted(function: Callable[[jax.Array], Params]) -> Callable[[ArrayLike], Params]:
    """`function` of latents that were checked, in float32 at least."""
    function = automatic_sharding(function)

    def fit(latents: ArrayLike) -> Params:
        check_matrix("latents", latents)
        latents = jnp.asarray(latents)
        return function(latents.astype(compute_dtype(latents)))

    return fit


def safe_norm(x: jax.Array) -> jax.Array:
    """L2 norms along the last axis, with gradient zero at zero vectors.

    Args:
        x: vectors `[..., d]`.

    Returns:
        Their lengths, `[..., 1]`.
    """
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    is_zero = squared == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, squared)))
