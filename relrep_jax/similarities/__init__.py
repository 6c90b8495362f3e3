"""Pairwise similarities and distances between latents `[n, d]` and anchors `[m, d]`: `[n, m]`.

Distances are returned as distances, neither negated nor squared. Every function is pure and
survives `jit`, `vmap` and `grad`; the result has the inputs' common dtype (float32 for integers),
accumulated in at least float32; gradients are finite where a sample is an anchor and where a
vector is zero. With latents sharded over devices by rows, call them inside `jax.shard_map`, which
keeps every device on its own rows.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax import checks
from relrep_jax.similarities import pairwise

__all__ = [
    "SIMILARITIES",
    "angular",
    "change_of_basis",
    "chebyshev",
    "cosine",
    "covariance_statistics",
    "euclidean",
    "get",
    "inner",
    "mahalanobis",
    "manhattan",
    "minkowski",
    "pullback_geodesic",
    "quantize",
    "rbf",
    "sparsify_and_power",
    "whitened_inner",
]

Similarity = Callable[[ArrayLike, ArrayLike], Array]


def cosine(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Cosine of the angle between each sample and each anchor.

    `<x, a> / (|x| |a|)`, and 0 where either is the zero vector. Unchanged by orthogonal maps and
    by positive rescaling, of single samples too.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Similarities `[n, m]` in [-1, 1], up to rounding.

    Raises:
        ValueError: not matrices, empty, or of different width.

    Reference:
        Moschella et al., "Relative representations enable zero-shot latent space communication",
        2209.15430, section 3.

    >>> import jax.numpy as jnp
    >>> print(cosine(jnp.array([[3.0, 4.0]]), jnp.eye(2)))
    [[0.6 0.8]]
    """
    x, anchors, dtype = _prepare(x, anchors)
    anchors = _unit(anchors)

    if x.size * anchors.shape[0] < pairwise.MATMUL_SIZE:
        return _scaled_product(x, anchors).astype(dtype)
    return _large_scaled_product(x, anchors).astype(dtype)


def inner(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Inner product of each sample with each anchor.

    `<x, a>`. Unchanged by orthogonal maps.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Similarities `[n, m]`, unbounded.

    Raises:
        ValueError: not matrices, empty, or of different width.

    >>> import jax.numpy as jnp
    >>> print(inner(jnp.array([[3.0, 4.0]]), jnp.eye(2)))
    [[3. 4.]]
    """
    x, anchors, dtype = _prepare(x, anchors)
    return _matmul(x, anchors.T).astype(dtype)


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
    x, anchors, dtype = _prepare(x, anchors)
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
    x, anchors, dtype = _prepare(x, anchors)
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
    x, anchors, dtype = _prepare(x, anchors)
    return pairwise.chebyshev(x, anchors).astype(dtype)


def angular(x: ArrayLike, anchors: ArrayLike) -> Array:
    """Angle between each sample and each anchor, as a part of a half turn.

    `arccos(cos(x, a)) / pi`, and 0.5 where either is the zero vector. Unchanged by what leaves the
    cosine unchanged. Computed as `2 atan2(|u - v|, |u + v|) / pi` of the unit vectors `u` and `v`,
    which keeps its digits, and a finite gradient, for vectors that are nearly or wholly parallel.

    Args:
        x: latents `[n, d]`.
        anchors: anchors `[m, d]`.

    Returns:
        Distances `[n, m]` in [0, 1].

    Raises:
        ValueError: not matrices, empty, or of different width.

    Reference:
        Cannistraci et al., 2310.01211, the geodesic distance on the sphere. Kahan, "How futile are
        mindless assessments of roundoff in floating-point computation?", section 12.

    >>> import jax.numpy as jnp
    >>> print(angular(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0], [-2.0, 0.0]])))
    [[0.5 1. ]]
    """
    x, anchors, dtype = _prepare(x, anchors)
    u, v = _unit(x), _unit(anchors)
    apart, together = jnp.split(pairwise.euclidean(u, jnp.concatenate([v, -v])), 2, axis=1)
    # With a zero vector both lengths are alike, and with two both are 0: half of a half turn.
    defined = jnp.any(u != 0, axis=1)[:, None] & jnp.any(v != 0, axis=1)
    apart, together = jnp.where(defined, apart, 1), jnp.where(defined, together, 1)
    return (2 / jnp.pi * jnp.arctan2(apart, together)).astype(dtype)


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
    if isinstance(p, jax.core.Tracer) or not isinstance(p, int | float) or not p >= 1:
        raise ValueError(
            f"p must be a Python number of at least 1 (float('inf') for the largest), got {p!r}."
        )
    if p == 1:
        return manhattan(x, anchors)
    if p == 2:
        return euclidean(x, anchors)
    if p == float("inf"):
        return chebyshev(x, anchors)
    x, anchors, dtype = _prepare(x, anchors)
    return pairwise.minkowski(x, anchors, float(p)).astype(dtype)


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
    x, anchors, dtype = _prepare(x, anchors)
    root = _symmetric_root(_check_precision(precision, x))
    # About the anchors' mean, since a far origin would cost digits in the product with the root.
    centre = pairwise.centre_of(anchors)
    x, anchors = _matmul(x - centre, root), _matmul(anchors - centre, root)
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
    x, anchors, dtype = _prepare(x, anchors)
    precision = _check_precision(precision, x)
    mean = jnp.asarray(mean, x.dtype)
    if mean.shape != x.shape[1:]:
        raise ValueError(
            f"mean must have shape [{x.shape[1]}] for latents {x.shape}, got {mean.shape}."
        )
    return _matmul(x - mean, _matmul(anchors - mean, precision).T).astype(dtype)


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
    x, anchors, dtype = _prepare(x, anchors)
    cutoff = max(anchors.shape) * float(jnp.finfo(anchors.dtype).eps)
    return _matmul(x, jnp.linalg.pinv(anchors, rtol=cutoff)).astype(dtype)


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
    x, anchors, dtype = _prepare(x, anchors)
    # A bandwidth of 0 that was computed: 1 for a sample that is the anchor, 0 for all others.
    bandwidth = jnp.maximum(jnp.asarray(bandwidth, x.dtype), jnp.finfo(x.dtype).tiny)
    ratio = pairwise.euclidean(x, anchors) / bandwidth
    return jnp.exp(-0.5 * ratio * ratio).astype(dtype)


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
            of one sample at a time, so that memory does not grow with `n`.
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
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}.")
    x, anchors, dtype = _prepare(x, anchors)
    m, d = anchors.shape
    part = jnp.arange(steps + 1, dtype=x.dtype)[:, None, None] / steps

    @jax.checkpoint
    def lengths(row: Array) -> Array:
        # Not (1 - t) x + t a, which rounds to different points where x is a.
        points = row + part * (anchors - row)
        decoded = decoder(points.reshape(-1, d).astype(dtype))
        decoded = decoded.astype(x.dtype).reshape(steps + 1, m, -1)
        return jnp.sum(_norm(jnp.diff(decoded, axis=0), keepdims=False), axis=0)

    return lax.map(lengths, x).astype(dtype)


def shrunk_covariance(centred: Array, shrinkage: float | str) -> tuple[Array, Array]:
    """`(1 - s) S + s tr(S) / d I` of centred latents `[n, d]` over a power of two, and that."""
    if isinstance(shrinkage, str):
        checks.lookup("shrinkage", shrinkage, {"ledoit_wolf": None})
    else:
        checks.check_number("shrinkage", shrinkage, "lie in [0, 1]", lambda value: 0 <= value <= 1)
    n, d = centred.shape
    scale = pairwise.power_of_two(centred)
    x = centred / scale
    covariance = _matmul(x.T, x) / n
    sphere = jnp.trace(covariance) / d
    if shrinkage == "ledoit_wolf":
        shrinkage = _ledoit_wolf(x, covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * sphere * jnp.eye(d, dtype=x.dtype)
    return shrunk, scale


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
        float32.

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
    x = _accumulate(jnp.asarray(latents))
    d = x.shape[1]
    mean = jnp.mean(x, axis=0)
    covariance, scale = shrunk_covariance(x - mean, shrinkage)
    cutoff = d * float(jnp.finfo(x.dtype).eps)
    precision = jnp.linalg.pinv(covariance, rtol=cutoff, hermitian=True)
    precision = (precision + precision.T) / 2
    return mean, precision / scale / scale


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
    s = _inexact(jnp.asarray(similarities))
    return s + lax.stop_gradient((jnp.round(s / bin) * bin).astype(s.dtype) - s)


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
    s, dtype = _accumulate(s), _inexact(s).dtype
    if not isinstance(k, int | np.integer) or not 1 <= k <= s.shape[1]:
        raise ValueError(
            f"k must be a whole number from 1 to the {s.shape[1]} anchors of similarities "
            f"{s.shape}, got {k!r}."
        )
    checks.check_number("p", p, "be at least 1", lambda value: value >= 1)
    kept = lax.top_k(lax.stop_gradient(s), k)[1]
    kept = jax.vmap(lambda row, kept: row.at[kept].set(True))(jnp.zeros(s.shape, bool), kept)
    s = jnp.where(kept, s, 0)
    # Powers of ratios to the largest entry of a row, which do not overflow.
    largest = jnp.max(jnp.abs(lax.stop_gradient(s)), axis=1, keepdims=True)
    s = s * pairwise.reciprocal(largest)
    magnitude = jnp.where(s == 0, 1, jnp.abs(s))
    return _unit(jnp.where(s == 0, 0, jnp.sign(s) * magnitude**p)).astype(dtype)


SIMILARITIES: dict[str, Similarity] = {
    "cosine": cosine,
    "inner": inner,
    "euclidean": euclidean,
    "manhattan": manhattan,
    "chebyshev": chebyshev,
    "angular": angular,
}
"""The similarities that need nothing but samples and anchors, by name."""


def get(similarity: str | Similarity) -> Similarity:
    """The similarity of a name, or the function itself where it is one.

    Args:
        similarity: a name in `SIMILARITIES`, or a function of latents `[n, d]` and anchors
            `[m, d]` to `[n, m]`, such as a `functools.partial` of `minkowski`.

    Returns:
        The function.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.

    >>> get("cosine") is cosine
    True
    """
    return checks.resolve("similarity", similarity, SIMILARITIES)


def _inexact(x: Array) -> Array:
    """`x` itself, as float32 where it holds integers."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)


def _accumulate(x: Array) -> Array:
    """`x` in the dtype to compute in, at least float32."""
    return x.astype(jnp.promote_types(_inexact(x).dtype, jnp.float32))


def _prepare(x: ArrayLike, anchors: ArrayLike) -> tuple[Array, Array, jnp.dtype]:
    """Check both, bring them to the dtype to compute in, and name the dtype of the result."""
    checks.check_same_width(x, anchors)
    x, anchors = jnp.asarray(x), jnp.asarray(anchors)
    dtype = jnp.result_type(_inexact(x), _inexact(anchors))
    compute = jnp.promote_types(dtype, jnp.float32)
    return x.astype(compute), anchors.astype(compute), dtype


def _check_precision(precision: ArrayLike, x: Array) -> Array:
    precision = jnp.asarray(precision, x.dtype)
    d = x.shape[1]
    if precision.shape != (d, d):
        raise ValueError(
            f"precision must have shape [{d}, {d}] for latents {x.shape}, got {precision.shape}."
        )
    return precision


def _scaled_product(x: Array, units: Array) -> Array:
    """`x units^T / |x|`, and 0 for zero vectors.

    Lengths are applied after the product, so that no normalised copy of the samples is made.
    """
    return _matmul(x, units.T) * pairwise.reciprocal(_norm(x))


@jax.custom_jvp
def _large_scaled_product(x: Array, units: Array) -> Array:
    """`_scaled_product` where there is much to compute.

    XLA makes one pass of product and scaling where no zero, tiny or huge vector has to be guarded
    against: worth a look at the lengths.
    """

    def plain(x: Array, units: Array) -> Array:
        return _matmul(x, units.T) * lax.rsqrt(jnp.sum(x * x, axis=1, keepdims=True))

    squares = jnp.sum(x * x, axis=1)
    is_plain = jnp.all((squares > 1e-30) & (squares < 1e30))
    return lax.cond(is_plain, plain, _scaled_product, x, units)


@_large_scaled_product.defjvp
def _large_scaled_product_jvp(primals, tangents):
    # Batched, the derivative of the cond has no transpose.
    return jax.jvp(_scaled_product, primals, tangents)


def _matmul(x: Array, y: Array) -> Array:
    """The matrix product in full precision, on accelerators too."""
    return jnp.matmul(x, y, precision=lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="keepdims")
def _norm(x: Array, keepdims: bool = True) -> Array:
    """Lengths of the vectors on the last axis, without overflow; gradient 0 at the zero vector."""
    scale = pairwise.power_of_two(x, axis=-1)
    x = x / scale
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), square) * scale
    return norm if keepdims else norm[..., 0]


@jax.jit
def _unit(x: Array) -> Array:
    """Vectors of length 1 in the same directions; zero, with gradient 0, for the zero vector."""
    x = x / pairwise.power_of_two(x, axis=-1)
    return x * pairwise.reciprocal(_norm(x))


@jax.custom_jvp
def _symmetric_root(matrix: Array) -> Array:
    """The symmetric positive semi-definite square root of such a matrix."""
    values, vectors = jnp.linalg.eigh(matrix)
    return _matmul(vectors * jnp.sqrt(jnp.maximum(values, 0)), vectors.T)


@_symmetric_root.defjvp
def _symmetric_root_jvp(primals, tangents):
    # From R R = M: R dR + dR R = dM, solved in the basis of eigenvectors. Unlike the derivatives of
    # these vectors, it is finite for equal eigenvalues.
    (matrix,), (tangent,) = primals, tangents
    root = _symmetric_root(matrix)
    values, vectors = jnp.linalg.eigh(lax.stop_gradient(root))
    values = jnp.maximum(values, 0)
    sums = values[:, None] + values[None, :]
    tangent = _matmul(_matmul(vectors.T, (tangent + tangent.T) / 2), vectors)
    cutoff = values.shape[0] * jnp.finfo(matrix.dtype).eps * values[-1]
    tangent = jnp.where(sums > cutoff, tangent / jnp.where(sums > cutoff, sums, 1), 0)
    return root, _matmul(_matmul(vectors, tangent), vectors.T)


def _ledoit_wolf(x: Array, covariance: Array) -> Array:
    """The Ledoit-Wolf shrinkage of centred `x [n, d]`, in [0, 1]."""
    n, d = x.shape
    square = jnp.sum(covariance * covariance)
    sphere = jnp.trace(covariance) / d
    spread = square - d * sphere * sphere
    noise = (jnp.sum(jnp.sum(x * x, axis=1) ** 2) / n - square) / n
    noise = jnp.clip(noise, 0, jnp.maximum(spread, 0))
    return noise * pairwise.reciprocal(spread)
