"""Measures of neighbourhoods: who is near whom, by cosine, in each space."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from relrep_jax._linalg import dot, mean_of, unit_rows
from relrep_jax.checks import check_same_width
from relrep_jax.measures._blocks import (
    as_floats,
    check_neighbours,
    check_pair,
    divide,
    safe_sqrt,
    split,
)
from relrep_jax.measures._compiled import measure


def _over_scores(visit: Callable[..., Any], queries: jax.Array, keys: jax.Array) -> Any:
    """`visit(scores [rows, n], own [rows])` over blocks of the queries, its answers joined.

    Both hold unit (or zero) rows; `own` are the queries' numbers. A query's scores rank the
    keys as the cosines do: they are these less `(1 + |q|^2 - |q - m|^2) / 2`, with `m` the mean
    key. Formed about `m`, they keep the digits that tell neighbours apart where all rows point
    nearly the same way and all cosines are nearly 1.
    """
    n = queries.shape[0]
    # Both less the same rounded mean, so that a query that is a key sees what the key sees.
    mean = mean_of(keys)
    about, looking = keys - mean, queries - mean
    empty = jnp.all(keys == 0, axis=1)
    lengths = (jnp.sum(about * about, axis=1) + empty) / 2
    # To a query of zeros all keys are equally near, whatever rounding says.
    nowhere = jnp.all(queries == 0, axis=1, keepdims=True)
    level = -(1 - jnp.sum(mean * mean)) / 2

    def some(block):
        rows, nowhere, own = block
        return visit(jnp.where(nowhere, level, dot(rows, about.T) - lengths), own)

    parts = lax.map(some, (split(looking), split(nowhere), split(jnp.arange(n))))
    return jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:])[:n], parts)


def _nearest(
    queries: jax.Array, keys: jax.Array, k: int, *, others: bool
) -> tuple[jax.Array, jax.Array]:
    """Scores and indices `[n, k]` of the `k` rows of `keys` nearest to each of `queries`.

    `others` leaves out the row of a query's own number. Of equally near rows the first comes
    first.
    """
    columns = jnp.arange(keys.shape[0])

    def visit(scores, own):
        if others:
            scores = jnp.where(own[:, None] == columns, -jnp.inf, scores)
        return tuple(lax.top_k(scores, k))

    return _over_scores(visit, queries, keys)


def _shared(a: jax.Array, b: jax.Array) -> jax.Array:
    """Which entries of each row of `a [n, k]` occur in that row of `b [n, k]`."""
    return jnp.any(a[:, :, None] == b[:, None, :], axis=-1)


@measure("k")
def mutual_knn(x: ArrayLike, y: ArrayLike, k: int = 10) -> jax.Array:
    """Mutual nearest neighbours: the share of neighbours that both spaces agree on.

    `mean_i |kNN_x(i) ∩ kNN_y(i)| / k`, with the `k` nearest other samples by cosine in each
    space (the first in order among equally near ones).

    Args:
        x: `[n, d1]`.
        y: `[n, d2]`, the same samples.
        k: how many neighbours, below `n`.

    Returns:
        A scalar in [0, 1]; 1 for spaces that differ by a rotation or reflection and a positive
        scale, even one for each row. Chance level is `k / (n - 1)`. No gradient.

    Raises:
        ValueError: the row counts differ or `k` is out of range.

    Reference:
        Huh et al., arXiv 2405.07987, appendix A.
    """
    check_pair(x, y)
    check_neighbours(k, x, y)
    near = [_nearest(u, u, k, others=True)[1] for u in map(unit_rows, as_floats(x, y))]
    return jnp.mean(_shared(*near), dtype=jnp.float32)


@measure("k")
def cknna(x: ArrayLike, y: ArrayLike, k: int = 10) -> jax.Array:
    """Centred kernel nearest-neighbour alignment: CKA among mutual nearest neighbours.

    `HSIC(M K, M L) / sqrt(HSIC(M_x K, M_x K) HSIC(M_y L, M_y L))` with cosine kernels `K`, `L`,
    the unbiased HSIC, `M_ij = 1` where `j` is among the `k` nearest others of `i` in both
    spaces and `M_x`, `M_y` the same for one space. The masks are not symmetric, and neither
    is the score: exchanging the spaces changes it a little. Memory grows with `n k^2`.

    Args:
        x: `[n, d1]`, `n >= 4`.
        y: `[n, d2]`, the same samples.
        k: how many neighbours, below `n`.

    Returns:
        A scalar, 1 for spaces that differ by a rotation or reflection and a positive scale, even
        one for each row; at most about 1. 0 where it is not defined.

    Raises:
        ValueError: the row counts differ, fewer than four rows, or `k` is out of range.

    Reference:
        Huh et al., arXiv 2405.07987, as in its published code with the unbiased estimate,
        without that code's `1e-6` in the denominator.
    """
    check_pair(x, y, rows=4, why=" by the unbiased estimate")
    check_neighbours(k, x, y)
    (kx, near_x), (ly, near_y) = (_kernel_neighbours(u, k) for u in map(unit_rows, as_floats(x, y)))
    back = _back(near_x)
    cross = _shared_hsic(near_x, back, kx, near_y, ly)
    norms = (
        safe_sqrt(_masked_hsic(near_x, back, kx, kx)),
        safe_sqrt(_masked_hsic(near_y, _back(near_y), ly, ly)),
    )
    return divide(divide(cross, norms[0]), norms[1])


def _kernel_neighbours(unit: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Cosines with the `k` nearest others of every row, and their indices, `[n, k]`."""
    scores, indices = _nearest(unit, unit, k, others=True)
    return scores + _rest(unit) / 2, indices


def _rest(unit: jax.Array) -> jax.Array:
    """Twice what the scores of `_nearest` lack of the cosines, `[n, 1]`."""
    about = unit - mean_of(unit)
    return (1 + jnp.sum(unit * unit, axis=1) - jnp.sum(about * about, axis=1))[:, None]


def _back(indices: jax.Array) -> jax.Array:
    """Where `i` is among the neighbours of its neighbour `j`, `[n, k, k]`."""
    return indices[indices] == jnp.arange(indices.shape[0])[:, None, None]


def _masked_hsic(
    indices: jax.Array, back: jax.Array, k_entries: jax.Array, l_entries: jax.Array
) -> jax.Array:
    """Unbiased HSIC times `n (n - 3)` of two kernels with entries `[n, k]` at `indices`."""
    n = indices.shape[0]
    # tr(K L) meets K_ij with L_ji.
    transposed = jnp.sum(jnp.where(back, l_entries[indices], 0.0), axis=-1)
    k_columns = jnp.zeros((n,), k_entries.dtype).at[indices].add(k_entries)
    sums = jnp.sum(k_entries) * jnp.sum(l_entries) / float((n - 1) * (n - 2))
    crossed = jnp.vdot(k_columns, l_entries.sum(axis=1))
    return jnp.sum(k_entries * transposed) + sums - 2 * crossed / (n - 2)


def _shared_hsic(
    near_x: jax.Array, back: jax.Array, kx: jax.Array, near_y: jax.Array, ly: jax.Array
) -> jax.Array:
    """The same of both kernels where both spaces share a neighbour; `back` is that of `near_x`."""
    match = near_x[:, :, None] == near_y[:, None, :]
    l_shared = jnp.sum(jnp.where(match, ly[:, None, :], 0.0), axis=-1)
    k_shared = jnp.where(match.any(axis=-1), kx, 0.0)
    return _masked_hsic(near_x, back, k_shared, l_shared)


@measure("k")
def jaccard(x: ArrayLike, y: ArrayLike, k: int = 10) -> jax.Array:
    """Jaccard@k: does a row find the neighbours that its counterpart has?

    `mean_i |N(x_i) ∩ N(y_i)| / |N(x_i) ∪ N(y_i)|`, where both `x_i` and `y_i` look for their
    `k` nearest rows of `y` by cosine, so that both spaces must have the same axes, as two
    relative spaces have. A row finds itself, if it is near enough.

    Args:
        x: the source space, `[n, d]`.
        y: the target space, `[n, d]`, the same samples.
        k: how many neighbours, below `n`.

    Returns:
        A scalar in [0, 1], 1 for identical spaces. It does not change under a rotation or
        reflection of both spaces at once and under a positive scale of any row. No gradient.
        Of equally near rows the first count: a target space that does not vary gives both sides
        the same neighbours, and 1. `mrr` tells it apart.

    Raises:
        ValueError: the shapes differ or `k` is out of range.

    Reference:
        Moschella et al., arXiv 2209.15430, section 4.1 and Table 1, and its published code,
        which searches the target space for both.
    """
    check_pair(x, y)
    check_same_width(x, y, ("x", "y"))
    check_neighbours(k, x, y)
    x, y = map(unit_rows, as_floats(x, y))
    found, expected = (_nearest(queries, y, k, others=False)[1] for queries in (x, y))
    common = _shared(found, expected).sum(axis=1)
    return jnp.mean(common / (2 * k - common), dtype=jnp.float32)


@measure("k")
def mrr(x: ArrayLike, y: ArrayLike, k: int = 10) -> jax.Array:
    """Mean reciprocal rank: how soon a row finds its counterpart.

    `mean_i 1 / rank_i`, with `rank_i` the place of `y_i` among all rows of `y` by cosine to
    `x_i`, and 0 in place of `1 / rank_i` beyond the first `k`. Rows as near as `y_i` share
    their mean rank, so that a collapsed target space does not score.

    Args:
        x: the source space, `[n, d]`.
        y: the target space, `[n, d]`, the same samples.
        k: how many places count, below `n`.

    Returns:
        A scalar in [0, 1]; 1 where every row finds its counterpart first. It does not change
        under a rotation or reflection of both spaces at once and under a positive scale of any
        row. No gradient.

    Raises:
        ValueError: the shapes differ or `k` is out of range.

    Reference:
        Moschella et al., arXiv 2209.15430, section 4.1 and Table 1.
    """
    check_pair(x, y)
    check_same_width(x, y, ("x", "y"))
    check_neighbours(k, x, y)
    x, y = map(unit_rows, as_floats(x, y))

    def visit(scores, own):
        # Taken from the same product, so that a tie is a tie to the last bit.
        mine = jnp.take_along_axis(scores, own[:, None], axis=1)
        return jnp.sum(scores > mine, axis=1), jnp.sum(scores == mine, axis=1)

    above, level = _over_scores(visit, x, y)
    rank = above + (level + 1) / 2
    return jnp.mean(jnp.where(rank <= k, 1.0 / rank, 0.0), dtype=jnp.float32)
