"""Names of the measures."""

from collections.abc import Callable

import jax

from relrep_jax.checks import lookup
from relrep_jax.measures.canonical import pwcca, svcca
from relrep_jax.measures.cka import linear_cka, rbf_cka
from relrep_jax.measures.geometry import mean_cosine, procrustes_distance, rsa
from relrep_jax.measures.neighbours import cknna, jaccard, mrr, mutual_knn

MEASURES: dict[str, Callable[..., jax.Array]] = {
    "linear_cka": linear_cka,
    "rbf_cka": rbf_cka,
    "svcca": svcca,
    "pwcca": pwcca,
    "procrustes_distance": procrustes_distance,
    "rsa": rsa,
    "mutual_knn": mutual_knn,
    "cknna": cknna,
    "jaccard": jaccard,
    "mrr": mrr,
    "mean_cosine": mean_cosine,
}
"""Measures `(x [n, d1], y [n, d2]) -> score` by name."""

DISTANCES: frozenset[str] = frozenset({"procrustes_distance"})
"""The measures of which a lower score means more alike."""

SAME_WIDTH: frozenset[str] = frozenset({"jaccard", "mrr", "mean_cosine"})
"""The measures that compare axes as well, so that both spaces must have one width."""


def get(name: str) -> Callable[..., jax.Array]:
    """The measure called `name`.

    Args:
        name: one of `MEASURES`.

    Returns:
        The function `(x [n, d1], y [n, d2]) -> score`.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    return lookup("measure", name, MEASURES)
