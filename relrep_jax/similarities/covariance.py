"""Similarities that know how a space is spread, and the estimate of its covariance."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax import checks
from relrep_jax._linalg import mean_of
from relrep_jax._sharding import automatic_sharding
from relrep_jax.similarities import pairwise
from relrep_jax.similarities.vectors import accumulate, matmul, prepare


def mahalanobis(x: ArrayLike, anchors: ArrayLike, precision: ArrayLike) -> Array:
    """Mahalanobis distance of each sample to each anchor.

    `sqrt((x - a)^T P (x - a))`. With a precision matrix that is estimated from each space anew, it
    is unchanged by all invertible affine maps.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.
        precision: `P [d, d]`, symmetric positive semi-definite, such as `covariance_statistics`
            gives.

    Returns:
        Distances `[n, m]`, at least 0.

    Raises:
        ValueError: not matrices, empty, of different width, or `precision` is not `[d, d]`.

    Reference:
        Mahalanobis, "On the generalised distance in statistics", 1936.

    >>> import jax.numpy as jnp
    >>> print(mahalanobis(jnp.ones((1, 2)), jnp.zeros((1, 2)), jnp.diag(jnp.array([4.0, 5.0]))))
    [[3.]]
    """
    x, anchors, dtype = prepare(x, anchors)
    root = _symmetric_root(_check_precision(precision, x))
    # About the anchors' mean, since a far origin would cost digits in the product with the root.
    centre = pairwise.centre_of(anchors)
    x, anchors = matmul(x - centre, root), matmul(anchors - centre, root)
    return pairwise.euclidean(x, anchors).astype(dtype)


def whitened_inner(
    x: ArrayLike, anchors: ArrayLike, mean: ArrayLike, precision: ArrayLike
) -> Array:
    """Inner product of each sample with each anchor in the whitened space.

    `(x - mu)^T P (a - mu)`. With statistics that are estimated from each space anew, it is
    unchanged by all invertible affine maps and, unlike a cosine, keeps magnitudes.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.
        mean: `mu [d]`.
        precision: `P [d, d]`, symmetric positive semi-definite.

    Returns:
        Similarities `[n, m]`, unbounded.

    Raises:
        ValueError: not matrices, empty, of different width, `mean` is not `[d]` or `precision` is
            not `[d, d]`.

    Reference:
        The whitened inner product of 2605.30596.

    >>> import jax.numpy as jnp
    >>> print(whitened_inner(jnp.ones((1, 2)), jnp.eye(2), jnp.zeros(2), 2 * jnp.eye(2)))
    [[2. 2.]]
    """
    x, anchors, dtype = prepare(x, anchors)
    precision = _check_precision(precision, x)
    mean = jnp.asarray(mean, x.dtype)
    if mean.shape != x.shape[1:]:
        raise ValueError(
            f"mean must have shape [{x.shape[1]}] for latents {x.shape}, got {mean.shape}."
        )
    return matmul(x - mean, matmul(anchors - mean, precision).T).astype(dtype)


@automatic_sharding
def covariance_statistics(
    latents: ArrayLike, shrinkage: float | str = "ledoit_wolf"
) -> tuple[Array, Array]:
    """Mean and precision matrix of a space, for `mahalanobis` and `whitened_inner`.

    The pseudo-inverse of `(1 - s) S + s tr(S) / d I`, with `S` the covariance of the latents
    (divided by n) and `s` the shrinkage. It stays finite with fewer samples than features and with
    constant features. Shrinkage above 0 gives up some of the invariance to affine maps for it.

    Args:
        latents: `[n, d]`.
        shrinkage: "ledoit_wolf" for the estimate of least expected squared error, or a number
            from 0 (none) to 1 (a sphere).

    Returns:
        The mean `[d]` and the precision `[d, d]`, symmetric positive semi-definite; both at least
        float32. The precision goes with one over the square of the latents and is NaN where their
        largest deviation is beyond 2^56, about 7e16, or below 2^-56 (float32; 2^504 in float64).
        Directions whose variance is below `d eps` of the largest count as having none, so that
        without shrinkage features should have like units (float32 and d = 8: their deviations
        within a factor of 100, for five digits).

    Raises:
        ValueError: not a matrix, empty, an unknown shrinkage or a number outside [0, 1].

    Reference:
        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
        2004.

    >>> import jax.numpy as jnp
    >>> mean, precision = covariance_statistics(jnp.array([[0.0, 1.0], [2.0, 1.0]]), 0.5)
    >>> print(mean, jnp.diag(precision))
    [1. 1.] [1.3333334 4.       ]
    """
    checks.check_matrix("latents", latents)
    x = accumulate(jnp.asarray(latents))
    d = x.shape[1]
    mean = mean_of(x)
    covariance, scale = shrunk_covariance(x - mean, shrinkage)
    cutoff = d * float(jnp.finfo(x.dtype).eps)
    precision = jnp.linalg.pinv(covariance, rtol=cutoff, hermitian=True)
    precision = (precision + precision.T) / 2
    # Where the square of the scale leaves the normal range, so would the precision: it would be 0.
    largest = 2.0 ** (jnp.finfo(x.dtype).maxexp // 2 - 8)
    in_range = (scale <= largest) & (scale >= 1 / largest)
    return mean, jnp.where(in_range, precision / scale / scale, jnp.nan)


def shrunk_covariance(centred: Array, shrinkage: float | str) -> tuple[Array, Array]:
    """`(1 - s) S + s tr(S) / d I` of centred latents `[n, d]` over a power of two, and that."""
    if isinstance(shrinkage, str):
        checks.lookup("shrinkage", shrinkage, {"ledoit_wolf": None})
    else:
        checks.check_number("shrinkage", shrinkage, "lie in [0, 1]", lambda value: 0 <= value <= 1)
    n, d = centred.shape
    scale = pairwise.power_of_two(centred)
    x = centred / scale
    covariance = matmul(x.T, x) / n
    sphere = jnp.trace(covariance) / d
    if shrinkage == "ledoit_wolf":
        shrinkage = _ledoit_wolf(x, covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * sphere * jnp.eye(d, dtype=x.dtype)
    return shrunk, scale


def _check_precision(precision: ArrayLike, x: Array) -> Array:
    precision = jnp.asarray(precision, x.dtype)
    d = x.shape[1]
    if precision.shape != (d, d):
        raise ValueError(
            f"precision must have shape [{d}, {d}] for latents {x.shape}, got {precision.shape}."
        )
    return precision


@jax.custom_jvp
def _symmetric_root(matrix: Array) -> Array:
    """The symmetric positive semi-definite square root of such a matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    return matmul(vectors * jnp.sqrt(jnp.maximum(values, 0)), vectors.T)


@_symmetric_root.defjvp
def _symmetric_root_jvp(primals, tangents):
    # From R R = M: R dR + dR R = dM, solved in the basis of eigenvectors. Unlike the derivatives of
    # these vectors, it is finite for equal eigenvalues.
    (matrix,), (tangent,) = primals, tangents
    root = _symmetric_root(matrix)
    values, vectors = jnp.linalg.eigh(lax.stop_gradient(root))
    values = jnp.maximum(values, 0)
    sums = values[:, None] + values[None, :]
    tangent = matmul(matmul(vectors.T, (tangent + tangent.T) / 2), vectors)
    cutoff = values.shape[0] * jnp.finfo(matrix.dtype).eps * values[-1]
    tangent = jnp.where(sums > cutoff, tangent / jnp.where(sums > cutoff, sums, 1), 0)
    return root, matmul(matmul(vectors, tangent), vectors.T)


def _ledoit_wolf(x: Array, covariance: Array) -> Array:
    """The Ledoit-Wolf shrinkage of centred `x [n, d]`, in [0, 1]."""
    n, d = x.shape
    square = jnp.sum(covariance * covariance)
    sphere = jnp.trace(covariance) / d
    spread = square - d * sphere * sphere
    noise = (jnp.sum(jnp.sum(x * x, axis=1) ** 2) / n - square) / n
    noise = jnp.clip(noise, 0, jnp.maximum(spread, 0))
    return noise * pairwise.reciprocal(spread)
