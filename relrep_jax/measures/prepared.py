"""Measures in two steps, for permutation tests: what one space gives, once; then every order.

Permuting the rows of a space changes neither its kernel matrix nor its neighbours nor its basis:
it renames their rows. A `Form` keeps what does not change, so that the score of a permutation
costs a gather and a sum.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from relrep_jax._linalg import centre, dot, nuclear_norm, svd, unit_rows
from relrep_jax.measures import canonical, cka, geometry, neighbours
from relrep_jax.measures._blocks import (
    divide,
    fold_pairs,
    safe_sqrt,
    squared_distances,
    unit_scale,
)

MATRIX_ROWS = 8192
"""Up to so many rows kernels and distances are kept as matrices `[n, n]`, above them never."""

_BANDS = 4
_FEATURES_COST = 44  # multiply-adds of a matrix product in the time of one gathered entry


def _unchanged(x: Any, y: Any) -> tuple[Any, Any]:
    return x, y


class Form(NamedTuple):
    """A measure in steps.

    Attributes:
        space: `x [n, d] -> prepared`, what depends on one space alone.
        pair: `(prepared_x, prepared_y) -> (left, right)`, what depends on the pair; `right` on
            `y` alone.
        score: `(left, right, order [n], inverse [n]) -> score` of `x` and `y[order]`.
        exact: `(left, right) -> bool`, whether `score` can tell all ties as the measure does;
            None where it always can.
        several: `(lefts, right, order, inverse) -> scores` of a tuple of `left`s of equal shapes;
            None where `vmap` of `score` does it well.
    """

    space: Callable[[jax.Array], Any]
    pair: Callable[[Any, Any], tuple[Any, Any]]
    score: Callable[[Any, Any, jax.Array, jax.Array], jax.Array]
    exact: Callable[[Any, Any], jax.Array] | None = None
    several: Callable[[tuple[Any, ...], Any, jax.Array, jax.Array], jax.Array] | None = None

    def scores(
        self, lefts: tuple[Any, ...], right: Any, order: jax.Array, inverse: jax.Array
    ) -> jax.Array:
        """Scores `[len(lefts)]` of one order of the permuted space."""
        if self.several is not None:
            return self.several(lefts, right, order, inverse)
        if len(lefts) == 1:
            return self.score(lefts[0], right, order, inverse)[None]
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lefts)
        score = jax.vmap(self.score, in_axes=(0, None, None, None))
        return score(together, right, order, inverse)


def _itself(x: jax.Array) -> jax.Array:
    return x


@lru_cache
def general(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Form:
    """The form of any measure: nothing is prepared."""
    return Form(_itself, _unchanged, lambda x, y, order, inverse: function(x, y[order]))


def form_of(measure: Callable, n: int, widths: tuple[int, ...]) -> Form | None:
    """The prepared form of a measure of this package, or of a `functools.partial` of one.

    Args:
        measure: the function.
        n: number of rows.
        widths: the widths of all spaces that are to be compared.

    Returns:
        The same object for the same arguments; None for functions and options without one.
    """
    options: dict[str, Any] = {}
    if isinstance(measure, partial):
        if measure.args:
            return None
        measure, options = measure.func, measure.keywords
    try:
        maker = _MAKERS.get(measure)
        return maker(n, max(widths), **options) if maker else None
    except TypeError:  # what cannot be hashed, such as traced options, or does not exist
        return None


def _by_svd(space: Callable[[jax.Array], Any], score: Callable[..., jax.Array]) -> Form:
    """A form whose score takes a singular value decomposition."""

    def several(lefts, right, order, inverse):
        # One after another: under vmap, on several CPU devices with one thread each, the batched
        # LAPACK calls of jaxlib 0.10 wait for each other's threads forever.
        return jnp.stack([score(left, right, order, inverse) for left in lefts])

    return Form(space, _unchanged, score, several=several)


# --- Matrices: CKA and RSA ---------------------------------------------------------------------


class _Matrix(NamedTuple):
    """A symmetric matrix of norm 1, whole and as the bands of its doubled upper triangle."""

    whole: jax.Array
    bands: tuple[jax.Array, ...]
    lowest: jax.Array


def _cuts(n: int) -> list[int]:
    bands = _BANDS if n >= 512 else 1
    return [n * i // bands for i in range(bands + 1)]


def _as_matrix(entries: jax.Array, norm: jax.Array, lowest: float) -> _Matrix:
    whole = divide(entries, norm)
    upper = jnp.triu(2 * whole, 1) + jnp.diag(jnp.diagonal(whole))
    cuts = _cuts(whole.shape[0])
    bands = tuple(upper[a:b, a:] for a, b in zip(cuts, cuts[1:], strict=False))
    return _Matrix(whole, bands, jnp.asarray(lowest, whole.dtype))


def _matrix_pair(x: _Matrix, y: _Matrix) -> tuple[Any, Any]:
    return (x.bands, x.lowest), y.whole


def _correlate_several(
    lefts: tuple[Any, ...], right: jax.Array, order: jax.Array, inverse: jax.Array
) -> jax.Array:
    """`sum_ij A_ij B_{order(i) order(j)}` for several `A`."""
    cuts = _cuts(right.shape[0])

    def taken(x, indices, axis):
        return x.at[(slice(None),) * axis + (indices,)].get(mode="promise_in_bounds")

    def by_rows(bands, rows, columns):
        # A row stays in cache while its entries are picked, and is picked once.
        def one(row):
            entries, i = row
            picked = taken(taken(right, i, 0), columns, 0)
            return tuple(jnp.vdot(some, picked) for some in entries)

        return tuple(sums.sum() for sums in lax.map(one, (bands, rows)))

    def at_once(bands, rows, columns):
        picked = taken(taken(right, rows, 0), columns, 1)
        return tuple(jnp.sum(jnp.sum(band * picked, axis=1)) for band in bands)

    totals = jnp.zeros((len(lefts),), right.dtype)
    for band, (a, b) in enumerate(zip(cuts, cuts[1:], strict=False)):
        bands = tuple(left[0][band] for left in lefts)
        totals += jnp.stack(
            lax.platform_dependent(bands, order[a:b], order[a:], cpu=by_rows, default=at_once)
        )
    return jnp.clip(totals, jnp.stack([left[1] for left in lefts]), 1.0)


def _correlate(left: Any, right: jax.Array, order: jax.Array, inverse: jax.Array) -> jax.Array:
    return _correlate_several((left,), right, order, inverse)[0]


def _matrix_form(space: Callable[[jax.Array], _Matrix]) -> Form:
    return Form(space, _matrix_pair, _correlate, several=_correlate_several)


def _from_kernel(kernel: jax.Array, debiased: bool, size: float) -> _Matrix:
    """Centred, or U-centred, and of norm 1; `size` is that of the entries of the kernel."""
    n = kernel.shape[0]
    off = ~jnp.eye(n, dtype=bool)
    if size:
        kernel = kernel - jnp.sum(jnp.where(off, kernel, 0.0)) / (n * (n - 1))
    if debiased:
        kernel = jnp.where(off, kernel, 0.0)
        rows = kernel.sum(axis=1) / (n - 2)
        mean = rows.sum() / (n - 1)
        centred = jnp.where(off, kernel - rows[:, None] - rows[None, :] + mean, 0.0)
    else:
        rows = kernel.mean(axis=1)
        centred = kernel - rows[:, None] - rows[None, :] + rows.mean()
    own, energy = jnp.sum(centred * centred), jnp.sum(kernel * kernel)
    norm = cka._above_rounding(own, energy, n, size)
    return _as_matrix(centred, norm, -1.0 if debiased else 0.0)


@lru_cache
def _linear_cka(n: int, width: int, debiased: bool = False) -> Form:
    if n > MATRIX_ROWS or width * width < _FEATURES_COST * n:
        return Form(partial(_features, debiased=debiased), _unchanged, _FEATURES[debiased])

    return _matrix_form(partial(_linear_matrix, debiased=debiased))


def _linear_matrix(x: jax.Array, debiased: bool) -> _Matrix:
    x = unit_scale(centre(x)[0])
    return _from_kernel(dot(x, x.T), debiased, 0.0)


def _features(x: jax.Array, debiased: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    x = unit_scale(centre(x)[0])
    diagonal = jnp.sum(x * x, axis=1)
    off = jnp.sum(dot(x.T, x) ** 2) - jnp.vdot(diagonal, diagonal)
    return x, diagonal, cka._norm(off, -diagonal, diagonal, debiased)


def _features_score(left, right, order, inverse, debiased: bool) -> jax.Array:
    (x, p, x_norm), (y, q, y_norm) = left, right
    y, q = y[order], q[order]
    off = jnp.sum(dot(x.T, y) ** 2) - jnp.vdot(p, q)
    cross = cka._hsic(off, -p, -q, p, q, debiased)
    return jnp.clip(divide(divide(cross, x_norm), y_norm), -1.0 if debiased else 0.0, 1.0)


_FEATURES = {choice: partial(_features_score, debiased=choice) for choice in (False, True)}


@lru_cache
def _rbf_cka(n: int, width: int, bandwidth: Any = None, debiased: bool = False) -> Form | None:
    if isinstance(bandwidth, tuple):  # then the two spaces are not prepared alike
        return None
    if n <= MATRIX_ROWS:
        return _matrix_form(partial(_rbf_matrix, bandwidth=bandwidth, debiased=debiased))
    space = partial(_rbf_blocks, bandwidth=bandwidth, debiased=debiased)
    return Form(space, _unchanged, partial(_rbf_blocks_score, debiased=debiased))


def _rbf_matrix(x: jax.Array, bandwidth: Any, debiased: bool) -> _Matrix:
    x = cka._rbf_space(x, bandwidth)
    squares = jnp.sum(x * x, axis=1)
    kernel = cka._rbf_kernel(cka._rbf_size(x))(x, x, squares, squares)
    # The diagonal is known; of the product it has the rounding error.
    return _from_kernel(jnp.where(jnp.eye(x.shape[0], dtype=bool), 0.0, kernel), debiased, 1.0)


def _rbf_blocks(x: jax.Array, bandwidth: Any, debiased: bool) -> tuple[jax.Array, ...]:
    x = cka._rbf_space(x, bandwidth)
    size = cka._rbf_size(x)
    shift, kernel = cka._rbf_shift(x, size), cka._rbf_kernel(size)
    diagonal = jnp.full(x.shape[:1], -shift, x.dtype)
    sums = cka._pair_sums(x, x, (kernel, kernel), (shift, shift), (diagonal, diagonal))
    norm = cka._norm(sums.kk, sums.k_rows, diagonal, debiased, 1.0)
    return x, size, shift, sums.k_rows, diagonal, norm


def _rbf_blocks_score(left, right, order, inverse, debiased: bool) -> jax.Array:
    x, x_size, x_shift, k_rows, k_diagonal, k_norm = left
    y, y_size, y_shift, l_rows, l_diagonal, l_norm = right
    y, l_rows = y[order], l_rows[order]
    arrays = (x, y, jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1))

    def step(total, a, b, rows, columns, distinct):
        k = cka._rbf_kernel(x_size)(a[0], b[0], a[2], b[2]) - x_shift
        l = cka._rbf_kernel(y_size)(a[1], b[1], a[3], b[3]) - y_shift  # noqa: E741
        return total + jnp.sum(jnp.where(distinct, k * l, 0.0))

    products = 2 * fold_pairs(step, jnp.zeros((), x.dtype), arrays)
    cross = cka._hsic(products, k_rows, l_rows, k_diagonal, l_diagonal, debiased)
    return jnp.clip(divide(divide(cross, k_norm), l_norm), -1.0 if debiased else 0.0, 1.0)


@lru_cache
def _rsa(n: int, width: int, correlation: str = "pearson") -> Form:
    if correlation == "spearman":
        return _matrix_form(_rank_matrix)
    if n <= MATRIX_ROWS:
        return _matrix_form(_distance_matrix)
    return Form(_distance_blocks, _unchanged, _distance_blocks_score)


def _distance_matrix(x: jax.Array) -> _Matrix:
    x = unit_scale(centre(x)[0])
    n = x.shape[0]
    squares = jnp.sum(x * x, axis=1)
    off = ~jnp.eye(n, dtype=bool)
    distances = safe_sqrt(squared_distances(x, x, squares, squares))
    mean = jnp.sum(jnp.where(off, distances, 0.0)) / (n * (n - 1))
    centred = jnp.where(off, distances - mean, 0.0)
    own = jnp.sum(centred * centred)
    floor = (32 * float(jnp.finfo(x.dtype).eps) * mean) ** 2 * (n * (n - 1))
    return _as_matrix(centred, safe_sqrt(jnp.where(own > floor, own, 0.0)), -1.0)


def _rank_matrix(x: jax.Array) -> _Matrix:
    n = x.shape[0]
    ranks = geometry._ranks(geometry._distances(x))
    mean = (ranks.size + 1) / 2
    ranks = (ranks - mean) / mean
    upper = jnp.zeros((n, n), x.dtype).at[np.triu_indices(n, 1)].set(ranks)
    entries = upper + upper.T
    return _as_matrix(entries, safe_sqrt(jnp.sum(entries * entries)), -1.0)


def _distance_blocks(x: jax.Array) -> tuple[jax.Array, ...]:
    x = unit_scale(centre(x)[0])
    count, mean, _, own, _, _ = geometry._distance_moments(x, x)
    floor = (32 * float(jnp.finfo(x.dtype).eps) * mean) ** 2 * count
    return x, mean, safe_sqrt(jnp.where(own > floor, own, 0.0))


def _distance_blocks_score(left, right, order, inverse) -> jax.Array:
    (x, x_mean, x_norm), (y, y_mean, y_norm) = left, right
    y = y[order]
    arrays = (x, y, jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1))

    def step(total, a, b, rows, columns, distinct):
        u = safe_sqrt(squared_distances(a[0], b[0], a[2], b[2])) - x_mean
        v = safe_sqrt(squared_distances(a[1], b[1], a[3], b[3])) - y_mean
        return total + jnp.sum(jnp.where(distinct, u * v, 0.0))

    cross = fold_pairs(step, jnp.zeros((), x.dtype), arrays)
    return jnp.clip(divide(divide(cross, x_norm), y_norm), -1.0, 1.0)


# --- Bases: SVCCA, PWCCA, Procrustes -----------------------------------------------------------


@lru_cache
def _svcca(n: int, width: int, threshold: float = 0.99) -> Form:
    return _by_svd(partial(_leading_basis, threshold=threshold), _svcca_score)


def _leading_basis(x: jax.Array, threshold: float) -> tuple[jax.Array, jax.Array]:
    factors, real = canonical._directions(x)
    kept = canonical._leading(factors.s, real, threshold)
    return factors.combine(jnp.diag(kept.astype(x.dtype))), kept.sum()


def _svcca_score(left, right, order, inverse) -> jax.Array:
    (x, x_count), (y, y_count) = left, right
    total = nuclear_norm(dot(x.T, y[order]))
    count = jnp.minimum(x_count, y_count).astype(total.dtype)
    return jnp.clip(divide(total, count), 0.0, 1.0)


@lru_cache
def _pwcca(n: int, width: int) -> Form:
    return _by_svd(_stretched_basis, _pwcca_score)


def _stretched_basis(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    factors, real = canonical._directions(x)
    basis = factors.combine(jnp.diag(real.astype(x.dtype)))
    return basis, jnp.where(real, factors.s, 0.0)[:, None] * factors.vt, real.sum()


def _pwcca_score(left, right, order, inverse) -> jax.Array:
    (x, x_features, x_count), (y, _, y_count) = left, right
    p, rho, _ = svd(dot(x.T, y[order]))
    weights = jnp.sum(jnp.abs(dot(p.T, x_features)), axis=1)
    weights = jnp.where(jnp.arange(rho.size) < jnp.minimum(x_count, y_count), weights, 0.0)
    return jnp.clip(divide(jnp.vdot(weights, rho), weights.sum()), 0.0, 1.0)


@lru_cache
def _procrustes(n: int, width: int) -> Form:
    return _by_svd(_shape, _procrustes_score)


def _shape(x: jax.Array) -> jax.Array:
    """Centred, of norm 1 and no wider than it has rows; zero where it does not vary."""
    x = unit_scale(centre(x)[0])
    x = divide(x, safe_sqrt(jnp.sum(x * x)))
    return x if x.shape[1] <= x.shape[0] else jnp.linalg.qr(x.T)[1].T


def _procrustes_score(x, y, order, inverse) -> jax.Array:
    return jnp.clip(1.0 - nuclear_norm(dot(x.T, y[order])), 0.0, 1.0)


# --- Neighbours --------------------------------------------------------------------------------


class _Near(NamedTuple):
    """The nearest rows of every row, twice as many as are wanted, so that ties can be told."""

    scores: jax.Array
    indices: jax.Array


def _look(queries: jax.Array, keys: jax.Array, k: int, *, others: bool) -> _Near:
    found = min(2 * k, keys.shape[0] - others)
    return _Near(*neighbours._nearest(queries, keys, found, others=others))


def _ties(near: _Near, k: int) -> jax.Array:
    """Whether the `k`-th row of some list is as near as the next one."""
    if near.scores.shape[1] == k:
        return jnp.asarray(False)
    return jnp.any(near.scores[:, k - 1] == near.scores[:, k])


def _tellable(near: _Near, k: int, others: bool) -> jax.Array:
    """Whether every list holds all rows that are as near as its `k`-th."""
    if near.scores.shape[1] == near.scores.shape[0] - others:
        return jnp.asarray(True)
    return jnp.all(near.scores[:, k - 1] > near.scores[:, -1])


def _renamed(near: _Near, k: int, inverse: jax.Array) -> jax.Array:
    """The `k` nearest rows `[n, k]` by their new numbers; the first of them where they tie."""

    def plainly(near, inverse):
        return inverse[near.indices[:, :k]]

    def telling(near, inverse):
        found = near.scores.shape[1]
        last = near.scores[:, k - 1 : k]
        nearer, level = near.scores > last, near.scores == last
        number = inverse[near.indices]
        earlier = level[:, None, :] & (number[:, None, :] < number[:, :, None])
        rank = nearer.sum(axis=1, keepdims=True) + earlier.sum(axis=2)
        place = jnp.where(nearer, jnp.arange(found), jnp.where(level, rank, found))
        # Each place is taken once: a sum over the lists is quicker than a scatter.
        taken = place[:, None, :] == jnp.arange(k)[None, :, None]
        return jnp.sum(jnp.where(taken, number[:, None, :], 0), axis=2)

    return lax.cond(_ties(near, k), telling, plainly, near, inverse)


@lru_cache
def _mutual_knn(n: int, width: int, k: int = 10) -> Form:
    def space(x):
        units = unit_rows(x)
        return _look(units, units, k, others=True)

    def pair(x, y):
        return x.indices[:, :k], y

    def score(x, y, order, inverse):
        shared = neighbours._shared(x, _renamed(y, k, inverse)[order])
        return jnp.mean(shared, dtype=jnp.float32)

    return Form(space, pair, score, lambda x, y: _tellable(y, k, True))


@lru_cache
def _cknna(n: int, width: int, k: int = 10) -> Form:
    def norm(indices, entries, back):
        return safe_sqrt(neighbours._masked_hsic(indices, back, entries, entries))

    def space(x):
        units = unit_rows(x)
        near = _look(units, units, k, others=True)
        entries = near.scores[:, :k] + neighbours._rest(units) / 2
        back = neighbours._back(near.indices[:, :k])
        return near, entries, back, norm(near.indices[:, :k], entries, back)

    def pair(x, y):
        near, entries, back, x_norm = x
        return (near.indices[:, :k], entries, back, x_norm), (y[0], y[1], y[3])

    def score(x, y, order, inverse):
        x_indices, x_entries, back, x_norm = x
        near, y_entries, y_norm = y
        y_indices, y_entries = _renamed(near, k, inverse)[order], y_entries[order]
        cross = neighbours._shared_hsic(x_indices, back, x_entries, y_indices, y_entries)
        y_norm = lax.cond(
            _ties(near, k),
            lambda: norm(y_indices, y_entries, neighbours._back(y_indices)),
            lambda: y_norm,
        )
        return divide(divide(cross, x_norm), y_norm)

    return Form(space, pair, score, lambda x, y: _tellable(y[0], k, True))


@lru_cache
def _jaccard(n: int, width: int, k: int = 10) -> Form:
    def pair(x, y):
        return _look(x, y, k, others=False), _look(y, y, k, others=False)

    def score(found, expected, order, inverse):
        found, expected = (_renamed(near, k, inverse) for near in (found, expected))
        common = neighbours._shared(found, expected[order]).sum(axis=1)
        return jnp.mean(common / (2 * k - common), dtype=jnp.float32)

    def exact(found, expected):
        return _tellable(found, k, False) & _tellable(expected, k, False)

    return Form(unit_rows, pair, score, exact)


@lru_cache
def _mrr(n: int, width: int, k: int = 10) -> Form:
    def pair(x, y):
        # Rows beyond the first 2k, or level with one of these, have a mean rank above k.
        near = _look(x, y, k, others=False)
        left, right = near.scores[:, None, :], near.scores[:, :, None]
        rank = jnp.sum(left > right, axis=2) + (jnp.sum(left == right, axis=2) + 1) / 2
        return (near.indices, jnp.where(rank <= k, 1.0 / rank, 0.0)), ()

    def score(found, _, order, inverse):
        indices, reciprocal = found
        mine = jnp.where(indices == order[:, None], reciprocal, 0.0)
        return jnp.mean(mine.sum(axis=1), dtype=jnp.float32)

    return Form(unit_rows, pair, score)


@lru_cache
def _mean_cosine(n: int, width: int) -> Form:
    def score(x, y, order, inverse):
        return jnp.clip(jnp.mean(jnp.sum(x * y[order], axis=1)), -1.0, 1.0)

    return Form(unit_rows, _unchanged, score)


_MAKERS: dict[Callable, Callable[..., Form | None]] = {
    cka.linear_cka: _linear_cka,
    cka.rbf_cka: _rbf_cka,
    canonical.svcca: _svcca,
    canonical.pwcca: _pwcca,
    geometry.procrustes_distance: _procrustes,
    geometry.rsa: _rsa,
    geometry.mean_cosine: _mean_cosine,
    neighbours.mutual_knn: _mutual_knn,
    neighbours.cknna: _cknna,
    neighbours.jaccard: _jaccard,
    neighbours.mrr: _mrr,
}
