"""Stitching: every encoder with every decoder, without any training in between."""

from relrep_jax.stitching.grid import (
    Decode,
    Score,
    is_correct,
    squared_error,
    stitching_column,
    stitching_grid,
)

__all__ = [
    "Decode",
    "Score",
    "is_correct",
    "squared_error",
    "stitching_column",
    "stitching_grid",
]
