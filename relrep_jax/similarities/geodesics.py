"""Lengths of paths as a decoder maps them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax.checks import check_count
from relrep_jax.similarities.pairwise import is_sharded
from relrep_jax.similarities.vectors import norm, prepare


def pullback_geodesic(
    x: ArrayLike,
    anchors: ArrayLike,
    decoder: Callable[[Array], Array],
    steps: int = 8,
) -> Array:
    """Length of the decoded straight line from each sample to each anchor.

    `sum_j |D(g_j) - D(g_(j-1))|` with `g_j = x + (j / steps) (a - x)`: an upper bound, in the
    limit of many steps, of the geodesic distance in the metric that the decoder pulls back to the
    latent space. Unchanged by reparametrisations of the latent space that keep straight lines
    straight and leave the decoded function unchanged, such as affine ones. The gradient is 0
    where a sample is an anchor.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.
        decoder: a function of a batch `[b, d]` to `[b, ...]`. It sees the `m (steps + 1)` points
            of one sample at a time, so that memory does not grow with `n`, unless the type of `x`
            spreads its rows over devices: outside of `jax.shard_map` it then sees those of all.
        steps: number of pieces of each line, at least 1; static.

    Returns:
        Lengths `[n, m]`, at least 0.

    Raises:
        ValueError: not matrices, empty, or of different width; `steps` is not a whole number of at
            least 1.

    Reference:
        Arvanitidis et al., "Latent Space Oddity: on the Curvature of Deep Generative Models",
        1710.11379, section 2.

    >>> import jax.numpy as jnp
    >>> print(pullback_geodesic(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2)), lambda z: 2 * z))
    [[10.]]
    """
    check_count("steps", steps)
    x, anchors, dtype = prepare(x, anchors)
    m, d = anchors.shape
    part = jnp.arange(steps + 1, dtype=x.dtype)[:, None, None] / steps

    @jax.checkpoint
    def lengths(row: Array) -> Array:
        # Not (1 - t) x + t a, which rounds to different points where x is a.
        points = row + part * (anchors - row)
        decoded = decoder(points.reshape(-1, d).astype(dtype))
        decoded = decoded.astype(x.dtype).reshape(steps + 1, m, -1)
        return jnp.sum(norm(jnp.diff(decoded, axis=0), keepdims=False), axis=0)

    # Rows that are spread over devices can't be taken one after another.
    each = jax.vmap(lengths) if is_sharded(x) else partial(lax.map, lengths)
    return each(x).astype(dtype)
