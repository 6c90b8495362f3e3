"""Stitching: every encoder with every decoder, without any training in between.

`stitching_grid` is the bare idea for any decoder; `stitch_latents` takes arrays of latents,
trains classifier heads on them and stitches. Its ways to make latents comparable are
`REPRESENTATIONS`, its classifiers `HEADS`.
"""

from relrep_jax.stitching import heads, representations
from relrep_jax.stitching.grid import (
    Decode,
    Score,
    is_correct,
    squared_error,
    stitching_column,
    stitching_grid,
    stitching_index,
)
from relrep_jax.stitching.heads import HEADS, Head
from relrep_jax.stitching.latents import LatentStitching, check_problem, stitch_latents, stitch_run
from relrep_jax.stitching.representations import REPRESENTATIONS, Representation, Views
from relrep_jax.stitching.scores import accuracy, f1_weighted

__all__ = [
    "HEADS",
    "REPRESENTATIONS",
    "Decode",
    "Head",
    "LatentStitching",
    "Representation",
    "Score",
    "Views",
    "accuracy",
    "check_problem",
    "f1_weighted",
    "heads",
    "is_correct",
    "representations",
    "squared_error",
    "stitch_latents",
    "stitch_run",
    "stitching_column",
    "stitching_grid",
    "stitching_index",
]
