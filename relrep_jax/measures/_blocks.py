"""Sums over pairs of rows, block by block: memory grows with `n`, never with `n^2`."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from relrep_jax._linalg import as_float, dot, size_of
from relrep_jax.checks import check_matrix

Carry = TypeVar("Carry")

BLOCK = 1024
"""Largest number of rows in a block."""


def check_pair(x: Any, y: Any, *, rows: int = 2, why: str = "") -> None:
    """Raise `ValueError` unless `x [n, d1]` and `y [n, d2]` hold the same `n >= rows` samples."""
    check_matrix("x", x, columns="d1")
    check_matrix("y", y, columns="d2")
    shapes = f"x {tuple(x.shape)} and y {tuple(y.shape)}"
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"x and y must describe the same samples, row by row, got {shapes}. "
            "Index the rows that correspond first."
        )
    if x.shape[0] < rows:
        raise ValueError(f"At least {rows} rows are needed{why}, got {shapes}.")


def check_neighbours(k: int, x: Any, y: Any) -> None:
    """Raise `ValueError` unless k is a whole number, `1 <= k < n`."""
    if not isinstance(k, int | np.integer) or not 1 <= k < x.shape[0]:
        raise ValueError(
            f"k must be a whole number, at least 1 and below the number of rows, got k={k} for "
            f"x {tuple(x.shape)} and y {tuple(y.shape)}."
        )


def as_floats(x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    """Both spaces in one dtype of at least float32."""
    x, y = as_float(x), as_float(y)
    dtype = jnp.promote_types(x.dtype, y.dtype)
    return x.astype(dtype), y.astype(dtype)


def split(x: jax.Array, block: int = BLOCK) -> jax.Array:
    """`[n, ...]` as `[blocks, rows, ...]`, the last block padded with zeros."""
    n = x.shape[0]
    blocks = -(-n // block)
    rows = -(-n // blocks)
    padding = [(0, blocks * rows - n)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(blocks, rows, *x.shape[1:])


def fold_pairs(
    step: Callable[..., Carry], init: Carry, arrays: tuple[jax.Array, ...], block: int = BLOCK
) -> Carry:
    """Fold `step(carry, left, right, rows, columns, distinct)` over the pairs of row blocks.

    Every unordered pair of rows `i < j` is met once: `left` and `right` are tuples with one
    block of each array, `rows` and `columns` their row numbers, `distinct [rows, columns]`
    says where `i < j < n`.
    """
    n = arrays[0].shape[0]
    parts = tuple(split(a, block) for a in arrays)
    blocks, size = parts[0].shape[:2]

    def visit(carry, pair):
        i, j = pair
        rows, columns = i * size + jnp.arange(size), j * size + jnp.arange(size)
        distinct = (rows[:, None] < columns[None, :]) & (columns[None, :] < n)
        left, right = tuple(p[i] for p in parts), tuple(p[j] for p in parts)
        return step(carry, left, right, rows, columns, distinct), None

    if blocks == 1:
        return visit(init, (0, 0))[0]
    pairs = np.triu_indices(blocks)
    # Gradients recompute a block instead of keeping all of them.
    visit = jax.checkpoint(visit, prevent_cse=False)
    return lax.scan(visit, init, tuple(jnp.asarray(p) for p in pairs))[0]


def squared_distances(
    left: jax.Array, right: jax.Array, left_squares: jax.Array, right_squares: jax.Array
) -> jax.Array:
    """`||l_i - r_j||^2` from one matrix product; what is below its rounding error is 0."""
    both = left_squares[:, None] + right_squares[None, :]
    squared = both - 2.0 * dot(left, right.T)
    return jnp.where(squared > 8 * jnp.finfo(left.dtype).eps * both, squared, 0.0)


def divide(numerator: jax.Array, denominator: jax.Array, floor: Any = 0.0) -> jax.Array:
    """`numerator / denominator` where `denominator > floor`, else 0, with finite gradients."""
    defined = denominator > floor
    return jnp.where(defined, numerator / jnp.where(defined, denominator, 1.0), 0.0)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """Square root, 0 with a zero gradient where `x <= 0`."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def unit_scale(x: jax.Array) -> jax.Array:
    """`x` with its largest entry brought to between 1 and 2, so that no power of it overflows."""
    return x / size_of(x)
