"""Measures of shape: Procrustes distance, representational similarity, mean cosine."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from relrep_jax._linalg import centre, dot, nuclear_norm, unit_rows
from relrep_jax.checks import check_same_width
from relrep_jax.measures._blocks import (
    as_floats,
    check_pair,
    divide,
    fold_pairs,
    safe_sqrt,
    split,
    squared_distances,
    unit_scale,
)
from relrep_jax.measures._compiled import measure


@measure()
def procrustes_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Procrustes distance, normalised: a distance, 0 for spaces alike, 1 for unrelated ones.

    `1 - ||X^T Y||_* / (||X||_F ||Y||_F)` on centred features, with `||.||_*` the sum of the
    singular values: half of `min_R ||X/||X|| R - Y/||Y|| ||_F^2` over orthogonal `R`. Take
    `1 - procrustes_distance(x, y)` for a similarity.

    Args:
        x: `[n, d1]`, `n >= 2`.
        y: `[n, d2]`, the same samples.

    Returns:
        A scalar in [0, 1]; 0 for spaces that differ by a rotation or reflection (into more
        features, too), one scale and a shift. 1 where a space does not vary.

    Raises:
        ValueError: the row counts differ.

    Reference:
        Ding, Denain and Steinhardt, arXiv 2108.01661, section 3, there unnormalised.
    """
    check_pair(x, y)
    x, y = (unit_scale(centre(z)[0]) for z in as_floats(x, y))
    norms = safe_sqrt(jnp.sum(x * x)), safe_sqrt(jnp.sum(y * y))
    if x.shape[0] < min(x.shape[1], y.shape[1]):  # the same singular values, [n, n]
        x, y = (jnp.linalg.qr(z.T)[1] for z in (x, y))
        cross = dot(x, y.T)
    else:
        cross = dot(x.T, y)
    alike = divide(divide(nuclear_norm(cross), norms[0]), norms[1])
    return jnp.clip(1.0 - alike, 0.0, 1.0)


def _pearson(count, mean_a, mean_b, aa, bb, ab, digits: float) -> jax.Array:
    """Correlation from centred moments, 0 where one side varies by rounding error alone."""
    floor = (32 * digits) ** 2 * count
    aa = jnp.where(aa > floor * mean_a**2, aa, 0.0)
    bb = jnp.where(bb > floor * mean_b**2, bb, 0.0)
    ratio = divide(divide(ab, safe_sqrt(aa)), safe_sqrt(bb))
    return jnp.clip(ratio, -1.0, 1.0)


def _rsa_pearson(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = (unit_scale(centre(z)[0]) for z in (x, y))
    return _pearson(*_distance_moments(x, y), digits=float(jnp.finfo(x.dtype).eps))


def _distance_moments(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
    """Count, means and centred moments of the distances of the pairs `i < j`."""
    arrays = (x, y, jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1))

    def step(carry, left, right, rows, columns, distinct):
        a = safe_sqrt(squared_distances(left[0], right[0], left[2], right[2]))
        b = safe_sqrt(squared_distances(left[1], right[1], left[3], right[3]))
        count = distinct.sum().astype(a.dtype)
        several = jnp.maximum(count, 1.0)
        mean_a = jnp.sum(jnp.where(distinct, a, 0.0)) / several
        mean_b = jnp.sum(jnp.where(distinct, b, 0.0)) / several
        a, b = jnp.where(distinct, a - mean_a, 0.0), jnp.where(distinct, b - mean_b, 0.0)
        # Moments of both parts about their common mean (Chan, Golub and LeVeque 1979).
        old, old_a, old_b, aa, bb, ab = carry
        total = jnp.maximum(old + count, 1.0)
        da, db, weight = mean_a - old_a, mean_b - old_b, old * count / total
        return (
            old + count,
            old_a + da * count / total,
            old_b + db * count / total,
            aa + jnp.sum(a * a) + weight * da * da,
            bb + jnp.sum(b * b) + weight * db * db,
            ab + jnp.sum(a * b) + weight * da * db,
        )

    zero = jnp.zeros((), x.dtype)
    return fold_pairs(step, (zero,) * 6, arrays)


def _ranks(values: jax.Array) -> jax.Array:
    """Ranks from 1, the mean rank for equal values."""
    order = jnp.argsort(values)
    ordered = values[order]
    position = jnp.arange(values.size)
    edge = jnp.array([True])
    differs = ordered[1:] != ordered[:-1]
    first = lax.cummax(jnp.where(jnp.concatenate([edge, differs]), position, 0))
    last = lax.cummin(
        jnp.where(jnp.concatenate([differs, edge]), position, values.size), reverse=True
    )
    ranks = 1.0 + (first + last).astype(values.dtype) / 2
    return jnp.zeros_like(values).at[order].set(ranks)


def _distances(x: jax.Array) -> jax.Array:
    """Distances of the pairs `i < j` by differences, so that equal ones stay equal."""
    x = unit_scale(x - x[0])
    blocks = split(x, 64)

    def some(rows):
        return jnp.sum((rows[:, None] - x[None]) ** 2, axis=-1)

    squared = lax.map(some, blocks).reshape(-1, x.shape[0])
    return squared[np.triu_indices(x.shape[0], 1)]


def _rsa_spearman(x: jax.Array, y: jax.Array) -> jax.Array:
    a, b = _ranks(_distances(x)), _ranks(_distances(y))
    mean = (a.size + 1) / 2
    a, b = (a - mean) / mean, (b - mean) / mean
    ratio = divide(divide(jnp.sum(a * b), safe_sqrt(jnp.sum(a * a))), safe_sqrt(jnp.sum(b * b)))
    return jnp.clip(ratio, -1.0, 1.0)


@measure("correlation")
def rsa(x: ArrayLike, y: ArrayLike, correlation: str = "pearson") -> jax.Array:
    """Representational similarity analysis: do the same samples lie far apart in both spaces?

    The correlation of the Euclidean distances `||x_i - x_j||` with `||y_i - y_j||` over the
    pairs `i < j`. "pearson" goes block by block, its memory grows with `n`; "spearman" (of
    ranks, the mean rank for equal distances) sorts all pairs, its memory grows with `n^2`, and
    it has no gradient.

    Args:
        x: `[n, d1]`, `n >= 3`.
        y: `[n, d2]`, the same samples.
        correlation: "pearson" or "spearman".

    Returns:
        A scalar in [-1, 1]; 1 for spaces that differ by a rotation or reflection, one scale and
        a shift. 0 where all distances of a space are equal.

    Raises:
        ValueError: the row counts differ, fewer than three rows, or an unknown correlation.

    Reference:
        Kriegeskorte, Mur and Bandettini (2008).
    """
    check_pair(x, y, rows=3, why=" for distances to vary")
    if correlation not in ("pearson", "spearman"):
        raise ValueError(
            f"Unknown correlation {correlation!r} for x {tuple(x.shape)} and y {tuple(y.shape)}. "
            "Known: pearson, spearman."
        )
    x, y = as_floats(x, y)
    return _rsa_pearson(x, y) if correlation == "pearson" else _rsa_spearman(x, y)


@measure()
def mean_cosine(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Mean cosine of corresponding rows: `mean_i <x_i, y_i> / (||x_i|| ||y_i||)`.

    Args:
        x: `[n, d]`.
        y: `[n, d]`, the same samples in a space with the same axes (two relative spaces).

    Returns:
        A scalar in [-1, 1]; 1 where every row has the direction of its counterpart. It does not
        change under a rotation or reflection of both spaces at once and under a positive scale
        of any row. The cosine of a zero row is 0.

    Raises:
        ValueError: the shapes differ.

    Reference:
        Moschella et al., arXiv 2209.15430, section 4.1 and, as a proxy of performance, 4.2.
    """
    check_pair(x, y, rows=1)
    check_same_width(x, y, ("x", "y"))
    x, y = as_floats(x, y)
    return jnp.clip(jnp.mean(jnp.sum(unit_rows(x) * unit_rows(y), axis=1)), -1.0, 1.0)
