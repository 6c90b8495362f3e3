"""Distances of the Lp family, and the kernel that is made of one."""

import numbers

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from relrep_jax import checks
from relrep_jax.similarities import pairwise
from relrep_jax.similarities.vectors import prepare


def euclidean(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Euclidean distance of each sample to each anchor.

    `sqrt(sum_k (x_k - a_k)^2)`. Unchanged by rigid motions: orthogonal maps and translations.
    Exact to rounding for samples that are close to an anchor and for spaces far from the origin.
    The gradient is 0 where a sample is an anchor.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Distances `[n, m]`, at least 0.

    Raises:
        ValueError: not matrices, empty, or of different width.

    Reference:
        Cannistraci et al., "From Bricks to Bridges: Product of Invariances to Enhance Latent
        Space Communication", 2310.01211, section 3.

    >>> import jax.numpy as jnp
    >>> print(euclidean(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))))
    [[5.]]
    """
    x, anchors, dtype = prepare(x, anchors)
    return pairwise.euclidean(x, anchors).astype(dtype)


def manhattan(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Manhattan (L1) distance of each sample to each anchor.

    `sum_k |x_k - a_k|`. Unchanged by signed permutations and translations, not by rotations. The
    gradient of a feature is 0 where sample and anchor agree in it.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Distances `[n, m]`, at least 0.

    Raises:
        ValueError: not matrices, empty, or of different width.

    Reference:
        Cannistraci et al., 2310.01211, section 3.

    >>> import jax.numpy as jnp
    >>> print(manhattan(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))))
    [[7.]]
    """
    x, anchors, dtype = prepare(x, anchors)
    return pairwise.manhattan(x, anchors).astype(dtype)


def chebyshev(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Chebyshev (L-infinity) distance of each sample to each anchor.

    `max_k |x_k - a_k|`. Unchanged by signed permutations and translations, not by rotations.
    Features that tie for the maximum share the gradient equally.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Distances `[n, m]`, at least 0.

    Raises:
        ValueError: not matrices, empty, or of different width.

    Reference:
        Cannistraci et al., 2310.01211, section 3.

    >>> import jax.numpy as jnp
    >>> print(chebyshev(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))))
    [[4.]]
    """
    x, anchors, dtype = prepare(x, anchors)
    return pairwise.chebyshev(x, anchors).astype(dtype)


def minkowski(x: ArrayLike, anchors: ArrayLike, p: float) -> Array:
    """Minkowski (Lp) distance of each sample to each anchor.

    `(sum_k |x_k - a_k|^p)^(1/p)`; the Manhattan distance for p = 1, the Euclidean one for p = 2 and
    the Chebyshev one for p = inf. Unchanged, unless p = 2, by signed permutations and translations
    alone. As a similarity elsewhere: `functools.partial(minkowski, p=3.0)`.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.
        p: the order, a number from 1 to infinity; static.

    Returns:
        Distances `[n, m]`, at least 0.

    Raises:
        ValueError: not matrices, empty, of different width, or `p` is not a number of at least 1.

    >>> import jax.numpy as jnp
    >>> print(minkowski(jnp.array([[3.0, 4.0, 5.0]]), jnp.zeros((1, 3)), p=3.0))
    [[6.]]
    """
    if isinstance(p, jax.core.Tracer) or not isinstance(p, numbers.Real) or not p >= 1:
        raise ValueError(
            f"p must be a Python number of at least 1 (float('inf') for the largest), got {p!r}."
        )
    if p == 1:
        return manhattan(x, anchors)
    if p == 2:
        return euclidean(x, anchors)
    if p == float("inf"):
        return chebyshev(x, anchors)
    x, anchors, dtype = prepare(x, anchors)
    return pairwise.minkowski(x, anchors, float(p)).astype(dtype)


def rbf(x: ArrayLike, anchors: ArrayLike, bandwidth: float | Array) -> Array:
    """Radial basis function (Gaussian) kernel of each sample and each anchor.

    `exp(-|x - a|^2 / (2 bandwidth^2))`. Unchanged by rigid motions.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.
        bandwidth: the distance at which the kernel has fallen to `exp(-1/2)`, above 0.

    Returns:
        Similarities `[n, m]` in [0, 1].

    Raises:
        ValueError: not matrices, empty, or of different width; `bandwidth` is a number that is not
            above 0.

    >>> import jax.numpy as jnp
    >>> print(rbf(jnp.zeros((1, 2)), jnp.array([[0.0, 0.0], [30.0, 40.0]]), bandwidth=1.0))
    [[1. 0.]]
    """
    checks.check_number("bandwidth", bandwidth, "be above 0", lambda value: value > 0)
    x, anchors, dtype = prepare(x, anchors)
    # A bandwidth of 0 that was computed: 1 for a sample that is the anchor, 0 for all others.
    bandwidth = jnp.maximum(jnp.asarray(bandwidth, x.dtype), jnp.finfo(x.dtype).tiny)
    ratio = pairwise.euclidean(x, anchors) / bandwidth
    return jnp.exp(-0.5 * ratio * ratio).astype(dtype)
