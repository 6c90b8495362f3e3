"""Whitening: features without correlations, of variance 1."""

from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from relrep_jax._linalg import centre, dot, inverse_or_zero
from relrep_jax.checks import lookup
from relrep_jax.similarities.covariance import shrunk_covariance
from relrep_jax.transforms.base import (
    Params,
    Transform,
    accumulated,
    fitted,
    fitted_width,
    made_by,
)

KINDS = {"zca": None, "pca": None}


def whitening_by(
    kind: Literal["zca", "pca"] = "zca", shrinkage: float | str = "ledoit_wolf"
) -> Transform:
    """A transform to features without correlations, of variance 1.

    `x -> (x - mean) W` with `W W^T` the pseudo-inverse of the covariance
    `(1 - s) S + s tr(S) / d I`. Directions in which the latents do not vary at all become 0, as
    do, in float32 and without shrinkage, those of less than about a millionth of the largest
    variance. With cosine or Euclidean distance, and no shrinkage, the relative space is blind to
    all invertible affine maps; with few samples it needs shrinkage.

    Args:
        kind: "zca" for the symmetric W, which changes latents least, or "pca" for principal
            components, of falling variance, the largest coefficient of each positive.
        shrinkage: `s`: "ledoit_wolf", or a number from 0 (none) to 1 (one scale for all
            features), as for `similarities.covariance_statistics`.

    Returns:
        A `Transform`. Inverting it undoes it; rows outside of the span of the latents, where their
        covariance is singular, come back projected to it.

    Raises:
        ValueError: an unknown kind; on fitting, an unknown shrinkage.

    Reference: Kessy, Lewin and Strimmer, "Optimal whitening and decorrelation", 2018; Ledoit and
        Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from relrep_jax import transforms
        >>> x = jax.random.normal(jax.random.key(0), (500, 3)) @ jnp.array(
        ...     [[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
        >>> white = transforms.fit(transforms.whitening_by(shrinkage=0.0), x)(x)
        >>> bool(jnp.allclose(jnp.cov(white.T, bias=True), jnp.eye(3), atol=1e-3))
        True
    """
    lookup("kind of whitening", kind, KINDS)
    if isinstance(shrinkage, str | int | float):
        return _whitening_by(kind, shrinkage)
    return _make(kind, shrinkage)  # an array


@cache
def _whitening_by(kind: str, shrinkage: float | str) -> Transform:
    return made_by(_whitening_by, (kind, shrinkage), _make(kind, shrinkage))


def _make(kind: str, shrinkage: float | str | Array) -> Transform:
    def fit(latents: Array) -> Params:
        centred, mean = centre(latents)
        covariance, scale = shrunk_covariance(centred, shrinkage)
        if kind == "zca":
            root, inverse = _roots(covariance)
            return mean, inverse / scale, root * scale
        values, vectors = _spectrum(covariance)
        positive = values > _cutoff(values)
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, values, 1)), 0)
        inverse = inverse_or_zero(root, jnp.zeros_like(root))
        return mean, vectors * inverse / scale, (vectors * root).T * scale

    return Transform(
        fit=fitted(fit),
        apply=accumulated(lambda params, x: dot(x - params[0], params[1]), fitted_width),
        invert=accumulated(lambda params, y: dot(y, params[2]) + params[0], fitted_width),
    )


def _cutoff(values: Array) -> Array:
    """Eigenvalues up to this are zero but for rounding."""
    return values.shape[0] * jnp.finfo(values.dtype).eps * jnp.max(values)


@jax.custom_jvp
def _roots(matrix: Array) -> tuple[Array, Array]:
    """The symmetric square root of a positive semi-definite matrix and its pseudo-inverse."""
    values, vectors = jnp.linalg.eigh(matrix)
    root = jnp.sqrt(jnp.maximum(values, 0))
    inverse = inverse_or_zero(root, jnp.sqrt(_cutoff(values)))
    root = jnp.where(inverse > 0, root, 0)
    return dot(vectors * root, vectors.T), dot(vectors * inverse, vectors.T)


@_roots.defjvp
def _roots_jvp(primals, tangents):
    # Divided differences of the root (Daleckii and Krein), which are finite for equal eigenvalues,
    # unlike the derivatives of eigenvectors.
    (matrix,), (tangent,) = primals, tangents
    values, vectors = jnp.linalg.eigh(matrix)
    root = jnp.sqrt(jnp.maximum(values, 0))
    inverse = inverse_or_zero(root, jnp.sqrt(_cutoff(values)))
    root = jnp.where(inverse > 0, root, 0)
    tangent = dot(dot(vectors.T, (tangent + tangent.T) / 2), vectors)
    sums = root[:, None] + root[None, :]
    tangent = tangent * inverse_or_zero(sums, jnp.zeros_like(sums))
    # Where one eigenvalue is zero, the pseudo-inverse 1/r has the difference 1/r^2 / r.
    both = inverse[:, None] * inverse[None, :]
    one = jnp.square(inverse[:, None] + inverse[None, :])
    slope = jnp.where(both > 0, -both, one * (sums > 0))
    back = lambda t: dot(dot(vectors, t), vectors.T)  # noqa: E731
    primal = dot(vectors * root, vectors.T), dot(vectors * inverse, vectors.T)
    return primal, (back(tangent), back(tangent * slope))


@jax.custom_jvp
def _spectrum(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues, falling, and eigenvectors, whose largest entries are positive."""
    values, vectors = jnp.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = jnp.argmax(jnp.abs(vectors), axis=0)
    sign = jnp.sign(jnp.take_along_axis(vectors, largest[None], axis=0))
    return values, vectors * sign


@_spectrum.defjvp
def _spectrum_jvp(primals, tangents):
    # Eigenvectors of equal eigenvalues are arbitrary: these directions get no derivative.
    (matrix,), (tangent,) = primals, tangents
    values, vectors = _spectrum(matrix)
    tangent = dot(dot(vectors.T, (tangent + tangent.T) / 2), vectors)
    gaps = values[None, :] - values[:, None]
    distinct = jnp.abs(gaps) > _cutoff(values)
    turn = jnp.where(distinct, tangent / jnp.where(distinct, gaps, 1), 0)
    return (values, vectors), (jnp.diag(tangent), dot(vectors, turn))


whitening = whitening_by("zca")
"""`whitening_by("zca", "ledoit_wolf")`."""

pca_whitening = whitening_by("pca")
"""`whitening_by("pca", "ledoit_wolf")`."""
