"""What is done to similarities once they are computed: rounding, sparsity and powers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax import checks
from relrep_jax.similarities import pairwise
from relrep_jax.similarities.vectors import accumulate, inexact, unit


def quantize(similarities: ArrayLike, bin: float) -> Array:
    """Round similarities to multiples of `bin`, with the gradient of the identity.

    `s + stop_gradient(bin round(s / bin) - s)`: small differences between spaces vanish, and
    training goes on through the rounding (straight-through estimate).

    Args:
        similarities: an array of any shape.
        bin: the distance between neighbouring values, above 0.

    Returns:
        Multiples of `bin`, in the shape and dtype of the similarities.

    Raises:
        ValueError: `bin` is a number that is not above 0.

    Reference:
        Bengio et al., "Estimating or propagating gradients through stochastic neurons", 1308.3432.

    >>> import jax.numpy as jnp
    >>> print(quantize(jnp.array([0.2, 0.9, -0.6]), 0.5))
    [ 0.   1.  -0.5]
    """
    checks.check_number("bin", bin, "be above 0", lambda value: value > 0)
    s = inexact(jnp.asarray(similarities))
    wide = accumulate(s)
    # Beyond this, numbers of the dtype lie further apart than bins, and stay.
    near = jnp.abs(wide) < bin / jnp.finfo(wide.dtype).eps
    rounded = jnp.where(near, jnp.round(wide / bin) * bin, wide)
    return s + lax.stop_gradient(jnp.where(jnp.isfinite(s), rounded.astype(s.dtype) - s, 0))


def sparsify_and_power(similarities: ArrayLike, k: int, p: float) -> Array:
    """Keep the `k` largest similarities of each row, raise them to a power, and normalise.

    `v / |v|` with `v_j = sign(s_j) |s_j|^p` for the k largest `s_j` by value and 0 for the others.
    A row of zeros stays zero.

    Args:
        similarities: `[n, m]`.
        k: how many to keep, from 1 to m; of equal ones the first.
        p: the power, at least 1; it sharpens the contrast.

    Returns:
        Rows `[n, m]` of length 1 with at most `k` entries.

    Raises:
        ValueError: not a matrix, empty, `k` is not a whole number in [1, m] or `p` is below 1.

    Reference:
        Norelli et al., "ASIF: coupled data turns unimodal models to multimodal without training",
        2210.01738, section 2.

    >>> import jax.numpy as jnp
    >>> print(sparsify_and_power(jnp.array([[3.0, 1.0, 4.0]]), k=2, p=1.0))
    [[0.6 0.  0.8]]
    """
    checks.check_matrix("similarities", similarities, columns="m")
    s = jnp.asarray(similarities)
    s, dtype = accumulate(s), inexact(s).dtype
    if not isinstance(k, int | np.integer) or not 1 <= k <= s.shape[1]:
        raise ValueError(
            f"k must be a whole number from 1 to the {s.shape[1]} anchors of similarities "
            f"{s.shape}, got {k!r}."
        )
    checks.check_number("p", p, "be at least 1", lambda value: value >= 1)
    s = jnp.where(_are_largest(lax.stop_gradient(s), int(k)), s, 0)
    # Powers of ratios to the largest entry of a row, which do not overflow.
    largest = jnp.max(jnp.abs(lax.stop_gradient(s)), axis=1, keepdims=True)
    s = s * pairwise.reciprocal(largest)
    magnitude = jnp.where(s == 0, 1, jnp.abs(s))
    return unit(jnp.where(s == 0, 0, jnp.sign(s) * magnitude**p)).astype(dtype)


@partial(jax.jit, static_argnames="k")
def _are_largest(s: Array, k: int) -> Array:
    """Which entries are the k largest of their row, of equal ones the first."""
    places = lax.top_k(s, k)[1]
    return jax.vmap(lambda row, places: jnp.zeros_like(row, bool).at[places].set(True))(s, places)
