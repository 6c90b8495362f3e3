"""Choosing anchors: which samples, or which means of samples, a space is seen from.

Most choices are indices of training samples, `[m]` int32, all different:

>>> import jax
>>> from relrep_jax import anchors
>>> anchors.uniform(jax.random.key(0), 1000, 50).shape
(50,)
"""

from relrep_jax.anchors._checks import check_num_anchors
from relrep_jax.anchors.bootstrapping import BootstrapResult, bootstrap
from relrep_jax.anchors.budget import count_parallel_samples
from relrep_jax.anchors.clustering import (
    KMeansResult,
    cluster,
    kmeans,
    memberships,
    prototypes,
    prototypes_of,
)
from relrep_jax.anchors.facility import greedy
from relrep_jax.anchors.farthest import farthest_point
from relrep_jax.anchors.mixing import (
    apply_mixtures,
    centroid_mixtures,
    learn_mixtures,
    mixture_loss,
)
from relrep_jax.anchors.sampling import stratified, top_frequency, uniform

__all__ = [
    "BootstrapResult",
    "KMeansResult",
    "apply_mixtures",
    "bootstrap",
    "centroid_mixtures",
    "check_num_anchors",
    "cluster",
    "count_parallel_samples",
    "farthest_point",
    "greedy",
    "kmeans",
    "learn_mixtures",
    "memberships",
    "mixture_loss",
    "prototypes",
    "prototypes_of",
    "stratified",
    "top_frequency",
    "uniform",
]
