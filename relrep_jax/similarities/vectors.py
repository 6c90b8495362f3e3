"""What the similarities share: checks and dtypes, products, lengths and directions."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax import checks
from relrep_jax.similarities import pairwise


def inexact(x: Array) -> Array:
    """`x` itself, as float32 where it holds integers."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def accumulate(x: Array) -> Array:
    """`x` in the dtype to compute in, at least float32."""
    return x.astype(jnp.promote_types(inexact(x).dtype, jnp.float32))


def prepare(x: ArrayLike, anchors: ArrayLike) -> tuple[Array, Array, jnp.dtype]:
    """Check both, bring them to the dtype to compute in, and name the dtype of the result."""
    checks.check_same_width(x, anchors)
    x, anchors = jnp.asarray(x), jnp.asarray(anchors)
    dtype = jnp.result_type(inexact(x), inexact(anchors))
    compute = jnp.promote_types(dtype, jnp.float32)
    return x.astype(compute), anchors.astype(compute), dtype


def matmul(x: Array, y: Array) -> Array:
    """The matrix product in full precision, on accelerators too."""
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="keepdims")
def norm(x: Array, keepdims: bool = True) -> Array:
    """Lengths of the vectors on the last axis, without overflow; gradient 0 at the zero vector."""
    scale = pairwise.power_of_two(x, axis=-1)
    x = x / scale
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), square) * scale
    return norm if keepdims else norm[..., 0]


@jax.jit
def unit(x: Array) -> Array:
    """Vectors of length 1 in the same directions; zero, with gradient 0, for the zero vector."""
    x = x / pairwise.power_of_two(x, axis=-1)
    return x * pairwise.reciprocal(norm(x))
