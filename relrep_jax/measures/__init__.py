"""How alike two spaces of the same samples are.

Every measure is a pure function `(x [n, d1], y [n, d2], ...) -> score` of corresponding rows,
under `jit` and `vmap` alike. It accumulates in float32 at least, its memory grows with `n` and
not with `n^2` (but for Spearman's RSA), and it is NaN where a row is not finite, and only there:
what a measure of geometry cannot judge, such as a space that does not vary, it calls unlike (0, or
1 for a distance); measures of neighbours then break ties by the order of the rows.
"""

from relrep_jax.measures.canonical import pwcca, svcca
from relrep_jax.measures.cka import (
    Accumulator,
    CKAState,
    MinibatchState,
    linear_cka,
    median_distance,
    minibatch_cka,
    rbf_cka,
    streaming_linear_cka,
)
from relrep_jax.measures.geometry import mean_cosine, procrustes_distance, rsa
from relrep_jax.measures.neighbours import cknna, jaccard, mrr, mutual_knn
from relrep_jax.measures.permutation import (
    PermutationResult,
    pair_scores,
    permutation_test,
    permutation_tests,
)
from relrep_jax.measures.registry import DISTANCES, MEASURES, SAME_WIDTH, get

__all__ = [
    "DISTANCES",
    "MEASURES",
    "SAME_WIDTH",
    "Accumulator",
    "CKAState",
    "MinibatchState",
    "PermutationResult",
    "cknna",
    "get",
    "jaccard",
    "linear_cka",
    "mean_cosine",
    "median_distance",
    "minibatch_cka",
    "mrr",
    "mutual_knn",
    "pair_scores",
    "permutation_test",
    "permutation_tests",
    "procrustes_distance",
    "pwcca",
    "rbf_cka",
    "rsa",
    "streaming_linear_cka",
    "svcca",
]
