"""Coordinates of latents in the basis that the anchors make."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from relrep_jax.similarities.pairwise import power_of_two
from relrep_jax.similarities.vectors import matmul, prepare


def change_of_basis(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Coordinates of each sample in the basis, or frame, that the anchors form.

    `argmin_r |A^T r - x|`, the shortest `r` where many do, by the singular value decomposition of
    the anchors `A`. Unchanged by all invertible linear maps where the anchors are linearly
    independent and span the space, and by orthogonal maps and rescaling otherwise.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`; they may depend linearly on each other.

    Returns:
        Coordinates `[n, m]`, unbounded.

    Raises:
        ValueError: not matrices, empty, or of different width.

    >>> import jax.numpy as jnp
    >>> print(change_of_basis(jnp.array([[4.0, 6.0]]), 2 * jnp.eye(2)))
    [[2. 3.]]
    """
    x, anchors, dtype = prepare(x, anchors)
    cutoff = max(anchors.shape) * float(jnp.finfo(anchors.dtype).eps)
    # The derivative of the pseudo-inverse squares it: brought near 1, it stays in range.
    scale = power_of_two(anchors)
    coordinates = matmul(x, jnp.linalg.pinv(anchors / scale, rtol=cutoff)) / scale
    return coordinates.astype(dtype)
