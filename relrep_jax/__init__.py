"""Relative representations and products of invariances in JAX."""

from relrep_jax import aggregation, anchors, similarities, transforms
from relrep_jax.checks import validate_latents
from relrep_jax.projection import product_projection, relative_projection
from relrep_jax.stitching import stitching_column, stitching_grid

__version__ = "0.1.0"

__all__ = [
    "aggregation",
    "anchors",
    "product_projection",
    "relative_projection",
    "similarities",
    "stitching_column",
    "stitching_grid",
    "transforms",
    "validate_latents",
]
