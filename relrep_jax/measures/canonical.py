"""Canonical correlations: SVCCA and PWCCA."""

import jax
import jax.numpy as jnp

from relrep_jax._linalg import centre, default_rcond, dot, nuclear_norm, thin_svd
from relrep_jax.measures._blocks import as_floats, check_pair, divide, unit_scale


def _basis(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Thin SVD of the centred `x` and which of its directions are more than rounding error."""
    x = unit_scale(centre(x)[0])
    u, s, vt = thin_svd(x)
    return u, s, vt, (s > default_rcond(x) * s[0]) & (s > 0)


def _leading(s: jax.Array, real: jax.Array, threshold: float) -> jax.Array:
    """The fewest leading directions whose share of the variance reaches `threshold`."""
    variance = s * s
    before = jnp.cumsum(variance) - variance
    return real & (before < threshold * jnp.sum(variance))


def svcca(x: jax.Array, y: jax.Array, threshold: float = 0.99) -> jax.Array:
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
    (ux, sx, _, real_x), (uy, sy, _, real_y) = _basis(x), _basis(y)
    kept_x, kept_y = _leading(sx, real_x, threshold), _leading(sy, real_y, threshold)
    total = nuclear_norm(dot((ux * kept_x).T, uy * kept_y))
    count = jnp.minimum(kept_x.sum(), kept_y.sum())
    return jnp.clip(divide(total, count.astype(total.dtype)), 0.0, 1.0)


def pwcca(x: jax.Array, y: jax.Array) -> jax.Array:
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
    (ux, sx, vxt, real_x), (uy, _, _, real_y) = _basis(x), _basis(y)
    p, rho, _ = jnp.linalg.svd(dot((ux * real_x).T, uy * real_y), full_matrices=False)
    weights = jnp.sum(jnp.abs(dot((p * sx[:, None] * real_x[:, None]).T, vxt)), axis=1)
    counted = jnp.arange(rho.size) < jnp.minimum(real_x.sum(), real_y.sum())
    weights = jnp.where(counted, weights, 0.0)
    return jnp.clip(divide(jnp.vdot(weights, rho), weights.sum()), 0.0, 1.0)
