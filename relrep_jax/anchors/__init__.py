"""Choosing anchors: which samples, or which means of samples, a space is seen from.

Most choices are indices of training samples, `[m]` int32, all different:

>>> import jax
>>> from relrep_jax import anchors
>>> anchors.uniform(jax.random.key(0), 1000, 50).shape
(50,)
"""

from relrep_jax.anchors._checks import check_num_anchors
from relrep_jax.anchors.farthest import farthest_point
from relrep_jax.anchors.sampling import stratified, top_frequency, uniform

__all__ = [
    "check_num_anchors",
    "farthest_point",
    "stratified",
    "top_frequency",
    "uniform",
]
