"""Checks at the doors of this package."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from relrep_jax._sharding import automatic_sharding
from relrep_jax.checks import check_count, check_matrix


def check_num_anchors(num_samples: int, num_anchors: int) -> None:
    """Raise `ValueError` unless these are whole numbers, `1 <= num_anchors <= num_samples`."""
    check_count("num_samples", num_samples, 0)
    check_count("num_anchors", num_anchors)
    if num_anchors > num_samples:
        raise ValueError(
            f"num_anchors is {num_anchors}, but there are only {num_samples} samples to choose "
            "from, and anchors are distinct. Ask for fewer anchors or give more samples."
        )


def check_indices(name: str, indices: Any, limit: int, what: str) -> None:
    """Raise `ValueError` unless these are integers in `[0, limit)`; values if they are concrete."""
    dtype = jnp.asarray(indices).dtype if not hasattr(indices, "dtype") else indices.dtype
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"{name} must be integers, got dtype {dtype}.")
    if isinstance(indices, jax.core.Tracer):
        return
    indices = np.asarray(indices)
    wrong = indices[(indices < 0) | (indices >= limit)]
    if wrong.size:
        raise ValueError(
            f"{name} must lie in [0, {limit}) for {limit} {what}, got {wrong.ravel()[0]}."
        )


def check_candidates(candidates: ArrayLike | None, num_samples: int, num_anchors: int) -> jax.Array:
    """Indices `[c]` of the samples to choose among, all where None; `num_anchors` of them at least.

    Raises:
        ValueError: not a vector of indices, out of range, one of them twice, or fewer than the
            anchors.
    """
    if candidates is None:
        candidates = jnp.arange(num_samples)
    if jnp.ndim(candidates) != 1:
        raise ValueError(
            f"candidates must be a vector [c] of indices, got shape {jnp.shape(candidates)}."
        )
    check_indices("candidates", candidates, num_samples, "samples")
    if not isinstance(candidates, jax.core.Tracer):
        known, counts = np.unique(np.asarray(candidates), return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"candidates must be distinct, got {known[counts > 1][0]} twice.")
    candidates = jnp.asarray(candidates)
    check_num_anchors(candidates.shape[0], num_anchors)
    return candidates


def matched_rows(spaces: Sequence[ArrayLike], rows: Sequence[ArrayLike] | None) -> list[jax.Array]:
    """The corresponding rows of spaces `[n_i, d_i]`, `[p, d_i]` each.

    `rows` holds an index array `[p]` for each space, or is None where all rows correspond.
    """
    if not isinstance(spaces, list | tuple) or not spaces:
        raise ValueError("spaces must be a list of latents [n, d], at least one of them.")
    for i, x in enumerate(spaces):
        check_matrix(f"spaces[{i}]", x)
    if rows is None:
        counts = [x.shape[0] for x in spaces]
        if len(set(counts)) > 1:
            raise ValueError(
                f"spaces must hold the same samples, got {counts} rows. Say with rows, one index "
                "array [p] for each space, which rows correspond."
            )
        return [jnp.asarray(x) for x in spaces]
    if len(rows) != len(spaces):
        raise ValueError(
            f"rows must hold an index array [p] for each of the {len(spaces)} spaces, got "
            f"{len(rows)}."
        )
    shapes = [jnp.shape(index) for index in rows]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise ValueError(
            "rows must be index arrays of one shape [p], so that entry k of each is the same "
            f"sample, got {shapes}."
        )
    for i, (x, index) in enumerate(zip(spaces, rows, strict=True)):
        check_indices(f"rows[{i}]", index, x.shape[0], f"rows of spaces[{i}]")
    return [
        _take(jnp.asarray(x), jnp.asarray(index)) for x, index in zip(spaces, rows, strict=True)
    ]


@automatic_sharding
def _take(x: jax.Array, index: jax.Array) -> jax.Array:
    return x[index]
