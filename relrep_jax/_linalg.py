"""Linear algebra shared by the measures and the translations, solid in float32."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


def as_float(x: Any) -> jax.Array:
    """`x` as an array of at least float32: what sums are accumulated in."""
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product at full precision on every device (no TF32, no bfloat16 passes)."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def mean_of(x: jax.Array) -> jax.Array:
    """The mean of the rows `[n, d] -> [d]`, exact where a column is constant.

    The mean of what the first estimate leaves is added to it: alone, that of a constant column is
    wrong by the rounding of a long sum, which is large beside features of little variance. Unlike
    `centre` it looks at no single row, which may lie on another device.
    """
    rough = jnp.mean(x, axis=0)
    return rough + jnp.mean(x - rough, axis=0)


def centre(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`(x - mean, mean)`, exact where a column is constant and careful with large offsets.

    The first row is taken away before the mean is formed, so that a constant column gives
    zeros to the last bit instead of the rounding error of its mean.
    """
    first = lax.stop_gradient(x[0])
    shifted = x - first
    rough = shifted.mean(axis=0)
    centred = shifted - rough
    rest = centred.mean(axis=0)
    return centred - rest, first + rough + rest


def size_of(x: jax.Array) -> jax.Array:
    """The power of two at or below the largest entry, 1 where all are 0: to divide by it is exact,
    and no square of an entry over- or underflows afterwards. No gradient flows through it."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(x)))
    _, exponent = jnp.frexp(largest)
    return jnp.where(largest > 0, jnp.ldexp(jnp.ones_like(largest), exponent - 1), 1.0)


def default_rcond(x: jax.Array) -> float:
    """Singular values below this fraction of the largest one count as zero.

    `eps * max(10, min(n, d))`: above the rounding error of an exactly rank-deficient matrix,
    and far below `eps * max(n, d)`, which in float32 would cut away genuine directions of
    tall matrices.
    """
    return float(jnp.finfo(x.dtype).eps) * max(10, min(x.shape))


@jax.custom_jvp
def svd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Thin singular value decomposition `(u, s, vt)` that converges.

    LAPACK's divide and conquer, the fast way, fails on some finite float32 matrices with many
    equal singular values and leaves NaN (seen with ridge regression, whose penalty makes them
    equal); then, and only then, they are decomposed by QR iteration, several times slower.
    """

    def plain(x):
        return tuple(jnp.linalg.svd(x, full_matrices=False))

    def guarded(x):
        def failed(state):
            tried, (_, s, _) = state
            return ~tried & ~jnp.all(jnp.isfinite(s)) & jnp.all(jnp.isfinite(x))

        def again(state):
            del state
            return jnp.bool_(True), tuple(_svd_by_iteration(x))

        # A loop, not a cond: of a batch, none is decomposed twice unless one has to be.
        return lax.while_loop(failed, again, (jnp.bool_(False), plain(x)))[1]

    return lax.platform_dependent(x, cpu=guarded, default=plain)


def _svd_by_iteration(x: jax.Array):
    return lax.linalg.svd(x, full_matrices=False, algorithm=lax.linalg.SvdAlgorithm.QR)


@svd.defjvp
def _svd_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    factors = SVD(None, *svd(x))
    return factors[1:], _svd_tangents(factors, dx)


class SVD(NamedTuple):
    """Thin singular value decomposition `x = U diag(s) vt` with `U` in two factors.

    For tall matrices `U = q @ u`, which is never multiplied out: `u` is as small as the short
    side. Elsewhere `q` is None and `U = u`.
    """

    q: jax.Array | None
    u: jax.Array
    s: jax.Array
    vt: jax.Array

    def coordinates(self, y: jax.Array) -> jax.Array:
        """`U^T y`."""
        return dot(self.u.T, y if self.q is None else dot(self.q.T, y))

    def combine(self, c: jax.Array) -> jax.Array:
        """`U c`."""
        c = dot(self.u, c)
        return c if self.q is None else dot(self.q, c)


@jax.custom_jvp
def thin_svd(x: jax.Array) -> SVD:
    """Thin singular value decomposition of `x [n, d]` by way of a QR of its long side."""
    n, d = x.shape
    if n > d:
        q, r = jnp.linalg.qr(x)
        return SVD(q, *svd(r))
    if n < d:
        q, r = jnp.linalg.qr(x.T)
        u, s, vt = svd(r.T)
        return SVD(None, u, s, dot(vt, q.T))
    return SVD(None, *svd(x))


@thin_svd.defjvp
def _thin_svd_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    factors = thin_svd(x)
    du, ds, dvt = _svd_tangents(factors, dx)
    if factors.q is None:
        return factors, SVD(None, du, ds, dvt)
    # Not by way of the QR, whose derivative is infinite where a column depends on others: all of
    # that of `U = q u` is given to `q`.
    return factors, SVD(dot(du, factors.u.T), jnp.zeros_like(factors.u), ds, dvt)


def _svd_tangents(factors: SVD, dx: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tangents of `U [n, k]`, `s [k]` and `vt [k, d]`, finite everywhere.

    Directions of equal singular values may be rotated into each other, and those of zero singular
    values into any others, without a change of `x`. Such rotations get no derivative: that of what
    depends on the space alone which such directions span is right, and so is that of `U vt`.
    """
    # That of `x / size`: products and quotients of its singular values stay in range.
    size = size_of(factors.s)
    s, v, dx = factors.s / size, factors.vt.T, dx / size
    cutoff = default_rcond(dx) * s[0]
    dx_v = dot(dx, v)
    inner = factors.coordinates(dx_v)
    gap, total = s - s[:, None], s + s[:, None]
    differ = (jnp.abs(gap) > cutoff) & (total > cutoff)
    turn = jnp.where(differ, 1 / jnp.where(differ, gap * total, 1), 0)
    # Of equal ones, how far left and right are turned against each other.
    equal = ~differ & (total > cutoff)
    against = jnp.where(equal, (inner - inner.T) / (2 * jnp.where(equal, total, 1)), 0)
    du = factors.combine(turn * (inner * s + s[:, None] * inner.T) + against)
    dv = dot(v, turn * (s[:, None] * inner + inner.T * s) - against)
    inverse = inverse_or_zero(s, cutoff)
    if dx.shape[0] > s.size:
        du = du + (dx_v - factors.combine(inner)) * inverse
    if dx.shape[1] > s.size:
        dv = dv + (factors.coordinates(dx).T - dot(v, inner.T)) * inverse
    return du, jnp.diagonal(inner) * size, dv.T


def overlap(a: SVD, b: SVD) -> jax.Array:
    """`U_a^T U_b` of two spaces with the same rows."""
    if a.q is None:
        return b.coordinates(a.u).T
    if b.q is None:
        return a.coordinates(b.u)
    return dot(a.u.T, dot(dot(a.q.T, b.q), b.u))


def inverse_or_zero(s: jax.Array, cutoff: jax.Array) -> jax.Array:
    """`1 / s` where `s > cutoff`, 0 elsewhere, with finite gradients."""
    keep = s > cutoff
    return jnp.where(keep, 1.0 / jnp.where(keep, s, 1.0), 0.0)


@jax.custom_jvp
def polar(m: jax.Array) -> jax.Array:
    """The matrix with orthonormal rows or columns nearest to `m`: `U V^T` of its SVD.

    The derivative is written in closed form, so that repeated singular values, where that of
    the SVD itself is infinite, do no harm; directions of zero singular value, where the factor
    is arbitrary, get a zero derivative.
    """
    u, _, vt = svd(m)
    return dot(u, vt)


@polar.defjvp
def _polar_jvp(primals, tangents):
    (m,), (dm,) = primals, tangents
    u, s, vt = svd(m)
    cutoff = default_rcond(m) * s[0]
    inner = dot(dot(u.T, dm), vt.T)
    twist = (inner - inner.T) * inverse_or_zero(s[:, None] + s[None, :], cutoff)
    out = dot(dot(u, twist), vt)
    inverse = inverse_or_zero(s, cutoff)
    if m.shape[0] < m.shape[1]:
        outside = dm - dot(dot(dm, vt.T), vt)
        out = out + dot(u * inverse, dot(u.T, outside))
    elif m.shape[0] > m.shape[1]:
        outside = dm - dot(u, dot(u.T, dm))
        out = out + dot(dot(outside, vt.T) * inverse, vt)
    return dot(u, vt), out


@jax.custom_jvp
def nuclear_norm(m: jax.Array) -> jax.Array:
    """Sum of the singular values of `m`, with `polar(m)` as its gradient."""
    return jnp.sum(jnp.linalg.svd(m, compute_uv=False))


@nuclear_norm.defjvp
def _nuclear_norm_jvp(primals, tangents):
    (m,), (dm,) = primals, tangents
    factor = polar(m)
    return jnp.sum(factor * m), jnp.sum(factor * dm)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def least_squares(x: jax.Array, y: jax.Array, rcond: float) -> jax.Array:
    """The matrix `w [d1, d2]` of least norm among those that minimise `||x w - y||`.

    Solved by QR and SVD, never by a Gram matrix, so that the condition number is that of `x`
    and not its square. The derivative is that of the pseudo-inverse at constant rank (Golub
    and Pereyra 1973) and finite for repeated and for zero singular values.
    """
    factors = thin_svd(x)
    inverse = inverse_or_zero(factors.s, rcond * factors.s[0])[:, None]
    return dot(factors.vt.T, inverse * factors.coordinates(y))


@least_squares.defjvp
def _least_squares_jvp(rcond, primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    factors = thin_svd(x)
    s, vt = factors.s, factors.vt
    keep = (s > rcond * s[0])[:, None]
    inverse = inverse_or_zero(s, rcond * s[0])[:, None]

    def pseudo(b):
        return dot(vt.T, inverse * factors.coordinates(b))

    w = pseudo(y)
    out = pseudo(dy - dot(dx, w))
    # One of two divisions by singular values is given to the residual or to `dx`, forwards and
    # backwards: their square may overflow or underflow.
    size = jnp.where(s[0] > 0, s[0], 1.0)
    across = dot((dx / size).T, factors.combine(size * inverse * dot(vt, w)))
    residual = (y - dot(x, w)) / size
    out = out + dot(vt.T, size * inverse * (inverse * dot(vt, dot(dx.T, residual))))
    out = out + across - dot(vt.T, keep * dot(vt, across))
    return w, out


def unit_rows(x: jax.Array) -> jax.Array:
    """Rows of `x` scaled to length 1; a zero row stays zero, with a zero gradient, and NaN NaN."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=1, keepdims=True))
    x = x / jnp.where(largest > 0, largest, 1.0)
    squared = jnp.sum(x * x, axis=1, keepdims=True)
    is_zero = squared == 0
    return jnp.where(is_zero, 0.0, x * lax.rsqrt(jnp.where(is_zero, 1.0, squared)))
