"""Relative representations and products of invariances in JAX.

>>> import jax, relrep_jax as rr
>>> z = jax.random.normal(jax.random.key(0), (1000, 64))
>>> anchors = rr.anchors.uniform(jax.random.key(1), 1000, 100)
>>> rr.relative_projection(z, z[anchors]).shape
(1000, 100)
>>> rr.product_projection(z, z[anchors]).shape
(4, 1000, 100)
"""

from relrep_jax import (
    aggregation,
    anchors,
    consensus,
    measures,
    models,
    similarities,
    transforms,
    translation,
)
from relrep_jax.checks import validate_latents
from relrep_jax.measures import permutation_test
from relrep_jax.projection import product_projection, relative_projection
from relrep_jax.stitching import stitch_latents, stitching_column, stitching_grid

__version__ = "0.1.0"

__all__ = [
    "aggregation",
    "anchors",
    "consensus",
    "measures",
    "models",
    "permutation_test",
    "product_projection",
    "relative_projection",
    "similarities",
    "stitch_latents",
    "stitching_column",
    "stitching_grid",
    "transforms",
    "translation",
    "validate_latents",
]
