"""Canonical correlations: SVCCA and PWCCA."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from relrep_jax._linalg import SVD, centre, default_rcond, dot, nuclear_norm, overlap, svd, thin_svd
from relrep_jax.measures._blocks import as_floats, check_pair, divide, unit_scale
from relrep_jax.measures._compiled import measure


def _directions(x: jax.Array) -> tuple[SVD, jax.Array]:
    """Thin SVD of the centred `x` and which of its directions are more than rounding error."""
    x = unit_scale(centre(x)[0])
    factors = thin_svd(x)
    return factors, (factors.s > default_rcond(x) * factors.s[0]) & (factors.s > 0)


def _leading(s: jax.Array, real: jax.Array, threshold: float) -> jax.Array:
    """The fewest leading directions whose share of the variance reaches `threshold`."""
    variance = s * s
    # By what is left, summed from the smallest on: beside what came before, small ones are lost.
    left = jnp.cumsum(variance[::-1])[::-1]
    return real & (left > (1 - threshold) * left[0])


@measure("threshold")
def svcca(x: ArrayLike, y: ArrayLike, threshold: float = 0.99) -> jax.Array:
    """Singular vector canonical correlation: CCA between the leading directions.

    Each space is cut to the fewest principal directions that hold `threshold` of its variance;
    the score is the mean of the `min(k_x, k_y)` canonical correlations between them.

    Args:
        x: `[n, d1]`, `n >= 2`.
        y: `[n, d2]`, the same samples.
        threshold: share of the variance to keep, in (0, 1].

    Returns:
        A scalar in [0, 1]; 1 for spaces that differ by a rotation or reflection, one scale and
        a shift; with a threshold of 1, by any invertible affine map. 0 where a space does not
        vary. Where rows are not far more than the kept directions it nears 1 for any spaces.

    Raises:
        ValueError: the row counts differ or the threshold is out of range.

    Reference:
        Raghu et al., arXiv 1706.05806.
    """
    check_pair(x, y)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}.")
    x, y = as_floats(x, y)
    (svd_x, real_x), (svd_y, real_y) = _directions(x), _directions(y)
    kept_x = _leading(svd_x.s, real_x, threshold)
    kept_y = _leading(svd_y.s, real_y, threshold)
    total = nuclear_norm(overlap(svd_x, svd_y) * (kept_x[:, None] & kept_y))
    count = jnp.minimum(kept_x.sum(), kept_y.sum())
    return jnp.clip(divide(total, count.astype(total.dtype)), 0.0, 1.0)


@measure()
def pwcca(x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Projection-weighted canonical correlation.

    `sum_i a_i rho_i / sum_i a_i` over the canonical correlations `rho_i`, weighted by how much
    of `x` its canonical variates `h_i` account for: `a_i = sum_j |<h_i, x_j>|` over the
    features `x_j`. Not symmetric: the weights are those of `x`.

    Args:
        x: `[n, d1]`, `n >= 2`.
        y: `[n, d2]`, the same samples.

    Returns:
        A scalar in [0, 1]; 1 where `y` holds an invertible affine map of `x`. The correlations
        do not change under invertible affine maps of either space; the weights do not change
        under those of `y` and under a scale and shift of `x`. 0 where a space does not vary.
        Where rows are not far more than features it nears 1 for any spaces.

    Raises:
        ValueError: the row counts differ.

    Reference:
        Morcos, Raghu and Bengio, arXiv 1806.05759, section 3.
    """
    check_pair(x, y)
    x, y = as_floats(x, y)
    (svd_x, real_x), (svd_y, real_y) = _directions(x), _directions(y)
    cross = overlap(svd_x, svd_y) * (real_x[:, None] & real_y)
    p, rho, _ = svd(cross)
    stretched = p * jnp.where(real_x, svd_x.s, 0.0)[:, None]
    weights = jnp.sum(jnp.abs(dot(stretched.T, svd_x.vt)), axis=1)
    counted = jnp.arange(rho.size) < jnp.minimum(real_x.sum(), real_y.sum())
    weights = jnp.where(counted, weights, 0.0)
    return jnp.clip(divide(jnp.vdot(weights, rho), weights.sum()), 0.0, 1.0)
