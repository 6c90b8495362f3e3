"""Pairwise similarities and distances between latents `[n, d]` and anchors `[m, d]`: `[n, m]`.

Distances are returned as distances, neither negated nor squared. Every function is pure and
survives `jit`, `vmap` and `grad`; the result has the inputs' common dtype (float32 for integers),
accumulated in at least float32; gradients are finite where a sample is an anchor and where a
vector is zero. With latents sharded over devices by rows, call them inside `jax.shard_map`, which
keeps every device on its own rows.
"""

from collections.abc import Callable

from jax import Array
from jax.typing import ArrayLike

from relrep_jax import checks
from relrep_jax.similarities.angles import angular, cosine, inner
from relrep_jax.similarities.bases import change_of_basis
from relrep_jax.similarities.covariance import covariance_statistics, mahalanobis, whitened_inner
from relrep_jax.similarities.distances import chebyshev, euclidean, manhattan, minkowski, rbf
from relrep_jax.similarities.geodesics import pullback_geodesic
from relrep_jax.similarities.rounding import quantize, sparsify_and_power

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

SIMILARITIES: dict[str, Similarity] = {
    "cosine": cosine,
    "inner": inner,
    "euclidean": euclidean,
    "manhattan": manhattan,
    "chebyshev": chebyshev,
    "angular": angular,
    "change_of_basis": change_of_basis,
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
