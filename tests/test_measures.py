import warnings
from functools import lru_cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
from absl.testing import parameterized
from sklearn.cross_decomposition import CCA
from sklearn.datasets import load_digits

from relrep_jax import measures
from relrep_jax.measures import cka, prepared

NAMES = sorted(measures.MEASURES)


def mostly_slow(names, fast):
    """The names, all but the fast ones marked as slow."""
    return [pytest.param(n, marks=[] if n in fast else pytest.mark.slow) for n in names]


SYMMETRIC = [name for name in NAMES if name not in ("pwcca", "cknna", "jaccard", "mrr")]
DEBIASED = {
    "linear_cka debiased": partial(measures.linear_cka, debiased=True),
    "rbf_cka debiased": partial(measures.rbf_cka, debiased=True),
    "rsa spearman": partial(measures.rsa, correlation="spearman"),
}
ALL = {name: jax.jit(function) for name, function in (measures.MEASURES | DEBIASED).items()}
EAGER = measures.MEASURES | DEBIASED


@lru_cache
def compiled(name, **options):
    """One compiled function for all tests."""
    return jax.jit(partial(getattr(measures, name), **options))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def rotation(seed, d):
    return scipy.linalg.qr(normal(seed, d, d))[0]


def f32(x):
    return jnp.asarray(x, jnp.float32)


def alike(n, d1, d2, seed=0):
    """Two noisy views of the same factors."""
    z = normal(seed, n, 5)
    x = z @ normal(seed + 1, 5, d1) + normal(seed + 2, n, d1)
    y = np.tanh(z @ normal(seed + 3, 5, d2)) + 0.5 * normal(seed + 4, n, d2)
    return x, y


def digits():
    images = load_digits().data[:300]  # with constant features, and offsets
    return images, np.maximum(images @ normal(0, 64, 30), 0.0)


PAIRS = {
    "plain": lambda: alike(60, 12, 9),
    "offset": lambda: tuple(v + 100.0 for v in alike(60, 12, 9)),
    "low rank": lambda: (normal(0, 60, 3) @ normal(1, 3, 12), alike(60, 12, 9)[1]),
    "few rows": lambda: alike(20, 50, 40),
    "digits": digits,
    "two blocks": lambda: alike(1100, 10, 6),
    "two wide blocks": lambda: alike(1100, 400, 400),
}
SMALL = ["plain", "offset", "low rank", "few rows", "digits"]
SAME_SHAPE = ["plain", "offset", "low rank"]


def pair(name):
    """Float32 spaces and the float64 copies of them that references see."""
    x, y = map(f32, PAIRS[name]())
    return x, y, np.float64(x), np.float64(y)


# --- independent references --------------------------------------------------------------------


def hsic(k, l):  # noqa: E741
    k, l = (m - m.mean(0) - m.mean(1)[:, None] + m.mean() for m in (k, l))  # noqa: E741
    return np.sum(k * l.T)


def unbiased_hsic(k, l):  # noqa: E741
    n = len(k)
    k, l = (m * (1 - np.eye(n)) for m in (k, l))  # noqa: E741
    middle = k.sum() * l.sum() / ((n - 1) * (n - 2))
    crossed = k.sum(0) @ l.sum(1)  # 1' K L 1
    return (np.sum(k * l.T) + middle - 2 / (n - 2) * crossed) / (n * (n - 3))


def alignment(k, l, debiased):  # noqa: E741
    h = unbiased_hsic if debiased else hsic
    return h(k, l) / np.sqrt(h(k, k) * h(l, l))


def gaussian(x, bandwidth=None):
    d = scipy.spatial.distance.pdist(x)
    bandwidth = np.median(d) if bandwidth is None else bandwidth
    return np.exp(-(scipy.spatial.distance.squareform(d) ** 2) / (2 * bandwidth**2))


def principal(x, threshold):
    x = x - x.mean(0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    keep = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), threshold)) + 1
    return u[:, :keep]


def neighbours(queries, keys, k, others):
    cosines = 1 - scipy.spatial.distance.cdist(queries, keys, "cosine")
    if others:
        np.fill_diagonal(cosines, -np.inf)
    return cosines, np.argsort(-cosines, axis=1, kind="stable")[:, :k]


# --- agreement ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SMALL, "two wide blocks"])
@pytest.mark.parametrize("debiased", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_linear_cka_agrees_with_its_gram_form(name, debiased):
    x, y, rx, ry = pair(name)
    expected = alignment(rx @ rx.T, ry @ ry.T, debiased)
    np.testing.assert_allclose(compiled("linear_cka", debiased=debiased)(x, y), expected, atol=1e-5)


@pytest.mark.parametrize("name", mostly_slow([*SMALL, "two blocks"], fast=("plain",)))
@pytest.mark.parametrize("debiased", [False, True])
def test_rbf_cka_agrees_with_its_definition(name, debiased):
    x, y, rx, ry = pair(name)
    expected = alignment(gaussian(rx), gaussian(ry), debiased)
    np.testing.assert_allclose(compiled("rbf_cka", debiased=debiased)(x, y), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("bandwidth", [3.0, (2.0, 6.0)])
def test_rbf_cka_takes_one_bandwidth_or_two(bandwidth):
    x, y, rx, ry = pair("plain")
    bx, by = bandwidth if isinstance(bandwidth, tuple) else (bandwidth, bandwidth)
    expected = alignment(gaussian(rx, bx), gaussian(ry, by), False)
    np.testing.assert_allclose(compiled("rbf_cka", bandwidth=bandwidth)(x, y), expected, atol=1e-5)


@pytest.mark.parametrize("debiased", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rbf_cka_of_a_wide_bandwidth_is_linear_cka(debiased):
    x, y, rx, ry = pair("plain")
    expected = alignment(rx @ rx.T, ry @ ry.T, debiased)
    for bandwidth in (1e5, (1e12, 1e6)):
        wide = partial(measures.rbf_cka, bandwidth=bandwidth, debiased=debiased)
        np.testing.assert_allclose(wide(x, y), expected, atol=1e-5)
    wide = partial(measures.rbf_cka, bandwidth=1e5, debiased=debiased)
    tested = measures.permutation_test(wide, x, y, jax.random.key(0), 3)
    np.testing.assert_allclose(tested.score, expected, atol=1e-5)
    stream = measures.minibatch_cka("rbf", 1e5)
    score = stream.compute(stream.update(stream.init(), x, y))
    np.testing.assert_allclose(score, alignment(rx @ rx.T, ry @ ry.T, True), atol=1e-5)


def test_rows_far_from_the_others_leave_their_distances_as_they_are():
    x, y, _, _ = pair("plain")
    for row in (0, 7):
        far = x.at[row].add(1e6)
        distances = scipy.spatial.distance.pdist(np.asarray(far, np.float64))
        np.testing.assert_allclose(measures.median_distance(far), np.median(distances), rtol=1e-5)
        expected = alignment(gaussian(np.asarray(far, np.float64)), gaussian(y), False)
        np.testing.assert_allclose(measures.rbf_cka(far, y), expected, atol=1e-5)


@pytest.mark.parametrize(
    "n", [2, 5, 100, *(pytest.param(n, marks=pytest.mark.slow) for n in (1027, 2500))]
)
def test_median_distance_agrees_with_numpy(n):
    x = f32(normal(n, n, 8) * 3.0 + 7.0)
    expected = np.median(scipy.spatial.distance.pdist(np.float64(x)))
    np.testing.assert_allclose(compiled("median_distance")(x), expected, rtol=5e-6)


def test_median_distance_meets_ties_and_gaps():
    x = f32(np.repeat(np.eye(3) * [[1.0], [10.0], [100.0]], [30, 20, 10], axis=0))
    expected = np.median(scipy.spatial.distance.pdist(np.float64(x)))
    np.testing.assert_allclose(compiled("median_distance")(x), expected, rtol=5e-6)


@pytest.mark.parametrize("name", [*SAME_SHAPE, "few rows"])
@pytest.mark.parametrize("threshold", [0.5, pytest.param(0.99, marks=pytest.mark.slow)])
def test_svcca_agrees_with_principal_subspaces(name, threshold):
    x, y, rx, ry = pair(name)
    a, b = principal(rx, threshold), principal(ry, threshold)
    expected = np.linalg.svd(a.T @ b, compute_uv=False).mean()
    np.testing.assert_allclose(compiled("svcca", threshold=threshold)(x, y), expected, atol=1e-5)


def test_svcca_without_a_cut_is_the_mean_of_scikit_learns_correlations():
    x, y, rx, ry = pair("plain")
    a, b = CCA(n_components=9, max_iter=5000, tol=1e-12).fit_transform(rx, ry)
    expected = np.mean([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(9)])
    np.testing.assert_allclose(compiled("svcca", threshold=1.0)(x, y), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["plain", "offset"])
def test_pwcca_agrees_with_its_definition(name):
    x, y, rx, ry = pair(name)
    rx, ry = rx - rx.mean(0), ry - ry.mean(0)
    qx, qy = np.linalg.qr(rx)[0], np.linalg.qr(ry)[0]
    p, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    weights = np.abs((qx @ p).T @ rx).sum(1)
    np.testing.assert_allclose(compiled("pwcca")(x, y), weights @ rho / weights.sum(), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_procrustes_distance_agrees_with_scipy(name):
    x, y, rx, ry = pair(name)
    width = max(rx.shape[1], ry.shape[1])
    rx, ry = (np.pad(v - v.mean(0), ((0, 0), (0, width - v.shape[1]))) for v in (rx, ry))
    disparity = scipy.spatial.procrustes(rx, ry)[2]  # 1 - (nuclear norm)^2
    expected = 1 - np.sqrt(1 - disparity)
    np.testing.assert_allclose(compiled("procrustes_distance")(x, y), expected, atol=1e-5)


@pytest.mark.parametrize("name", [*SAME_SHAPE, "digits"])
@pytest.mark.parametrize("correlation", ["pearson", "spearman"])
def test_rsa_agrees_with_scipy(name, correlation):
    x, y, rx, ry = pair(name)
    function = getattr(scipy.stats, correlation + "r")
    expected = function(*(scipy.spatial.distance.pdist(v) for v in (rx, ry)))[0]
    np.testing.assert_allclose(compiled("rsa", correlation=correlation)(x, y), expected, atol=1e-5)


def test_rsa_over_blocks_agrees_with_scipy():
    x, y, rx, ry = pair("two blocks")
    expected = scipy.stats.pearsonr(*(scipy.spatial.distance.pdist(v) for v in (rx, ry)))[0]
    np.testing.assert_allclose(compiled("rsa", correlation="pearson")(x, y), expected, atol=1e-6)


def test_spearman_gives_equal_distances_their_mean_rank():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (40, 4)) + 10.0, rng.integers(0, 2, (40, 5)) * 1.0
    expected = scipy.stats.spearmanr(*(scipy.spatial.distance.pdist(v) for v in (x, y)))[0]
    np.testing.assert_allclose(measures.rsa(f32(x), f32(y), "spearman"), expected, atol=1e-6)


@pytest.mark.parametrize("name", [*SAME_SHAPE, "two blocks"])
@pytest.mark.parametrize("k", [10])
def test_mutual_knn_agrees_with_sets(name, k):
    x, y, rx, ry = pair(name)
    a, b = (neighbours(v, v, k, True)[1] for v in (rx, ry))
    expected = np.mean([len(set(i) & set(j)) / k for i, j in zip(a, b, strict=True)])
    # Two neighbours that are equally near but for float32's rounding may change places.
    few = 2.5 / (k * len(rx))
    np.testing.assert_allclose(compiled("mutual_knn", k=k)(x, y), expected, atol=few)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SAME_SHAPE, "few rows"])
@pytest.mark.parametrize("k", [10])
def test_cknna_agrees_with_masked_kernels(name, k):
    x, y, rx, ry = pair(name)
    kernels, masks = [], []
    for v in (rx, ry):
        cosines, near = neighbours(v, v, k, True)
        mask = np.zeros_like(cosines)
        np.put_along_axis(mask, near, 1.0, axis=1)
        np.fill_diagonal(cosines, 0.0)
        kernels.append(cosines)
        masks.append(mask)

    def masked(i, j):
        mask = masks[i] * masks[j]
        return unbiased_hsic(mask * kernels[i], mask * kernels[j])

    expected = masked(0, 1) / np.sqrt(masked(0, 0) * masked(1, 1))
    np.testing.assert_allclose(compiled("cknna", k=k)(x, y), expected, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("n", [90, pytest.param(1100, marks=pytest.mark.slow)])
def test_retrieval_agrees_with_sets(n, k):
    x = normal(0, n, 12)
    y = x + 0.7 * normal(1, n, 12)
    x, y = f32(x), f32(y)
    rx, ry = np.float64(x), np.float64(y)
    cosines, found = neighbours(rx, ry, k, False)
    expected = neighbours(ry, ry, k, False)[1]
    pairs = [(set(i), set(j)) for i, j in zip(found, expected, strict=True)]
    jaccard = np.mean([len(i & j) / len(i | j) for i, j in pairs])
    rank = 1 + (cosines > np.diag(cosines)[:, None]).sum(1)
    mrr = np.mean(np.where(rank <= k, 1 / rank, 0.0))
    np.testing.assert_allclose(compiled("jaccard", k=k)(x, y), jaccard, atol=1e-6)
    np.testing.assert_allclose(compiled("mrr", k=k)(x, y), mrr, atol=1e-6)
    assert 0.0 < jaccard < 1.0
    assert 0.0 < mrr < 1.0


def test_mean_cosine_agrees_with_scipy():
    x, y = map(f32, alike(60, 9, 9))
    rx, ry = np.float64(x), np.float64(y)
    rows = [1 - scipy.spatial.distance.cosine(a, b) for a, b in zip(rx, ry, strict=True)]
    np.testing.assert_allclose(ALL["mean_cosine"](x, y), np.mean(rows), atol=1e-6)


# --- properties --------------------------------------------------------------------------------


def perfect(name):
    return 0.0 if name in measures.DISTANCES else 1.0


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("name", sorted(ALL))
def test_identical_spaces_score_best(name, offset):
    x = f32(alike(60, 9, 9)[0] + offset)
    np.testing.assert_allclose(ALL[name](x, x), perfect(name), atol=2e-6)


SIMILAR = [name for name in sorted(ALL) if name.split()[0] not in measures.SAME_WIDTH]


@pytest.mark.parametrize(
    "name",
    mostly_slow(SIMILAR, fast=("linear_cka", "procrustes_distance", "rsa", "mutual_knn")),
)
def test_rotations_and_scales_of_one_space_change_nothing(name):
    x, y = alike(60, 9, 9)
    moved = 3.0 * y @ rotation(7, 9)
    before, after = ALL[name](f32(x), f32(y)), ALL[name](f32(x), f32(moved))
    np.testing.assert_allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    mostly_slow([n for n in SIMILAR if n not in ("mutual_knn", "cknna")], ("linear_cka", "rsa")),
)
def test_shifts_of_one_space_change_nothing(name):
    x, y = alike(60, 9, 9)
    before, after = ALL[name](f32(x), f32(y)), ALL[name](f32(x), f32(y) + 5.0)
    np.testing.assert_allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("name", ["mutual_knn", "cknna", "jaccard", "mrr", "mean_cosine"])
def test_scales_of_rows_change_nothing(name):
    x, y = alike(60, 9, 9)
    scales = np.random.default_rng(0).uniform(0.1, 10.0, (60, 1))
    before, after = ALL[name](f32(x), f32(y)), ALL[name](f32(x), f32(y * scales))
    np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.slow
def test_affine_maps_leave_canonical_correlations():
    x, y = alike(200, 6, 9)
    moved = y @ (normal(8, 9, 9) + 2 * np.eye(9)) + 3.0
    for function in (partial(measures.svcca, threshold=1.0), measures.pwcca):
        before, after = function(f32(x), f32(y)), function(f32(x), f32(moved))
        np.testing.assert_allclose(before, after, atol=1e-4)
        np.testing.assert_allclose(function(f32(y), f32(moved)), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_order_of_spaces_is_free(name):
    x, y = map(f32, alike(60, 9, 9))
    np.testing.assert_allclose(ALL[name](x, y), ALL[name](y, x), atol=1e-6)


@pytest.mark.parametrize("name", sorted(ALL))
def test_common_reordering_of_rows_changes_nothing(name):
    x, y = map(f32, alike(60, 9, 9))
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(ALL[name](x, y), ALL[name](x[order], y[order]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("name", SIMILAR)
def test_extreme_scales_neither_overflow_nor_vanish(name, scale):
    x, y = alike(60, 9, 9)
    before, after = ALL[name](f32(x), f32(y)), ALL[name](f32(x * scale), f32(y))
    np.testing.assert_allclose(before, after, atol=1e-5)


@pytest.mark.slow
def test_debiased_estimates_do_not_grow_with_the_width():
    x, y = f32(normal(0, 30, 400)), f32(normal(1, 30, 400))
    assert float(ALL["linear_cka"](x, y)) > 0.9
    assert abs(float(ALL["linear_cka debiased"](x, y))) < 0.1


class VariantsTest(chex.TestCase, parameterized.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters("linear_cka", "mutual_knn", "procrustes_distance", "svcca")
    def test_jit_changes_nothing(self, name):
        x, y = map(f32, alike(60, 9, 9))
        score = self.variant(EAGER[name])(x, y)
        np.testing.assert_allclose(score, ALL[name](x, y), atol=1e-6)


@pytest.mark.parametrize("name", mostly_slow(sorted(ALL), fast=("linear_cka", "mrr", "rsa")))
def test_vmap_equals_a_loop(name):
    x, y = f32(normal(0, 2, 60, 9)), f32(normal(1, 2, 60, 9))
    mapped = jax.jit(jax.vmap(EAGER[name]))(x, y)
    for i in range(2):
        np.testing.assert_allclose(mapped[i], ALL[name](x[i], y[i]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_cka", "median_distance", "mutual_knn"])
def test_vmap_equals_a_loop_over_blocks(name):
    x, y = f32(normal(0, 2, 1100, 4)), f32(normal(1, 2, 1100, 3))
    function = measures.MEASURES.get(name, lambda x, y: measures.median_distance(x))
    mapped = jax.jit(jax.vmap(function))(x, y)
    for i in range(2):
        np.testing.assert_allclose(mapped[i], function(x[i], y[i]), rtol=1e-5, atol=1e-5)


# --- where definitions end ---------------------------------------------------------------------


def degenerate():
    x, y = alike(60, 9, 9)
    constant = x.copy()
    constant[:, 2] = 0.1
    zero_row = x.copy()
    zero_row[3] = 0.0
    return {
        "constant feature": (constant, y),
        "zero row": (zero_row, y),
        "duplicated rows": (np.repeat(x[:12], 5, 0), np.repeat(y[:12], 5, 0)),
        "mostly one row": (np.where(np.arange(60)[:, None] < 50, x[:1], x), y),
        "all rows equal": (np.full((60, 9), 0.1), y),
        "all rows equal, twice": (np.full((60, 9), 0.1), np.full((60, 9), 0.7)),
        "zeros": (np.zeros((60, 9)), y),
        "one direction": (np.outer(x[:, 0], y[0]), y),
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", degenerate())
@pytest.mark.parametrize("name", sorted(ALL))
def test_nothing_is_ever_nan(name, case):
    x, y = map(f32, degenerate()[case])
    for score in (ALL[name](x, y), ALL[name](y, x)):
        assert -1.0 <= float(score) <= 1.0 + 1e-5


@pytest.mark.parametrize("case", ["all rows equal", "all rows equal, twice", "zeros"])
@pytest.mark.parametrize("name", [n for n in SIMILAR if n not in ("mutual_knn", "cknna")])
def test_space_that_does_not_vary_is_like_no_other(name, case):
    x, y = map(f32, degenerate()[case])
    assert float(ALL[name](x, y)) == 1.0 - perfect(name)


@pytest.mark.parametrize("case", ["constant feature", "duplicated rows", "zero row"])
def test_degenerate_spaces_agree_with_references_where_these_exist(case):
    x, y = degenerate()[case]
    x, y = f32(x), f32(y)
    rx, ry = np.float64(x), np.float64(y)
    for debiased in (False, True):
        linear = alignment(rx @ rx.T, ry @ ry.T, debiased)
        np.testing.assert_allclose(
            compiled("linear_cka", debiased=debiased)(x, y), linear, atol=1e-5
        )
        rbf = alignment(gaussian(rx), gaussian(ry), debiased)
        np.testing.assert_allclose(compiled("rbf_cka", debiased=debiased)(x, y), rbf, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in SIMILAR if n not in ("svcca", "pwcca")])
def test_rows_at_equal_distances_are_never_nan(name):
    x, y = f32(np.eye(20)), f32(normal(0, 20, 20))
    assert np.isfinite([float(ALL[name](x, y)), float(ALL[name](x, x))]).all()


@pytest.mark.slow
def test_rows_at_equal_distances_leave_debiased_cka_and_rsa_undefined():
    x = f32(np.eye(20))
    for name in ("linear_cka debiased", "rbf_cka debiased", "rsa", "rsa spearman"):
        assert float(ALL[name](x, x)) == 0.0


def test_collapsed_target_space_is_not_retrieved_from():
    assert float(measures.mrr(f32(np.ones((50, 3))), f32(np.ones((50, 3))))) == 0.0


@lru_cache
def gradients(name):
    return jax.jit(jax.grad(EAGER[name], argnums=(0, 1)))


@pytest.mark.parametrize("case", degenerate())
@pytest.mark.parametrize(
    "name",
    mostly_slow(
        ["linear_cka", "rbf_cka", "rsa", "procrustes_distance", "mean_cosine", "cknna"],
        fast=("linear_cka", "procrustes_distance", "mean_cosine"),
    ),
)
def test_gradients_are_finite(name, case):
    x, y = map(f32, degenerate()[case])
    for gradient in gradients(name)(x, y):
        assert np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_cka", "rsa", "procrustes_distance"])
def test_gradients_agree_with_finite_differences(name):
    x, y = alike(30, 6, 5)
    direction = normal(9, 30, 6)
    with jax.enable_x64(True):
        function = jax.jit(ALL[name])
        gradient = jax.grad(function)(jnp.asarray(x), jnp.asarray(y))
        up, down = (function(jnp.asarray(x + s * direction), jnp.asarray(y)) for s in (1e-5, -1e-5))
        numeric = float(up - down) / 2e-5
        np.testing.assert_allclose(float(jnp.vdot(gradient, direction)), numeric, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32])
@pytest.mark.parametrize("name", ["linear_cka", "mutual_knn", "mean_cosine"])
def test_narrow_dtypes_are_accumulated_in_float32(name, dtype):
    x, y = (jnp.asarray(np.round(4 * v), dtype) for v in alike(60, 9, 9))
    score = ALL[name](x, y)
    assert score.dtype == jnp.float32
    np.testing.assert_allclose(score, ALL[name](f32(x), f32(y)), atol=1e-6)


# --- memory ------------------------------------------------------------------------------------


def temporaries(function, n, *widths):
    shapes = [jax.ShapeDtypeStruct((n, d), jnp.float32) for d in widths]
    return jax.jit(function).lower(*shapes).compile().memory_analysis().temp_size_in_bytes


def test_linear_cka_takes_a_tenth_of_the_memory_of_gram_matrices():
    def gram(x, y):
        x, y = x - x.mean(0), y - y.mean(0)
        k, l = x @ x.T, y @ y.T  # noqa: E741
        return jnp.vdot(k, l) / jnp.linalg.norm(k) / jnp.linalg.norm(l)

    ours = temporaries(measures.linear_cka, 20_000, 768, 512)
    assert 10 * ours < temporaries(gram, 20_000, 768, 512)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["linear_cka", "rbf_cka debiased", "rsa", "cknna", "mrr"],
)
def test_memory_grows_with_rows_not_with_their_square(name):
    small, large = (temporaries(EAGER[name], n, 16, 16) for n in (8_192, 65_536))
    assert large < 10 * small


@pytest.mark.slow
def test_memory_of_gradients_grows_with_rows_not_with_their_square():
    small, large = (temporaries(jax.grad(measures.rsa), n, 16, 16) for n in (8_192, 32_768))
    assert large < 8 * small


# --- streams -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(30, 30), (1, 30, 29)])
@pytest.mark.parametrize("name", ["plain", "offset", "low rank"])
def test_streaming_linear_cka_is_that_of_all_rows(name, sizes):
    x, y, rx, ry = pair(name)
    stream = measures.streaming_linear_cka
    state = stream.init(x.shape[1], y.shape[1])
    update = jax.jit(stream.update)
    for rows in np.split(np.arange(60), np.cumsum(sizes)[:-1]):
        state = update(state, x[rows], y[rows])
    expected = alignment(rx @ rx.T, ry @ ry.T, False)
    np.testing.assert_allclose(stream.compute(state), expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1e18, 1e-20])
def test_streaming_linear_cka_at_any_scale(scale):
    x, y, rx, ry = pair("plain")
    stream = measures.streaming_linear_cka
    state = stream.init(x.shape[1], y.shape[1])
    for rows in np.split(np.arange(60), [1, 25]):
        state = stream.update(state, x[rows] * scale, y[rows] / scale)
    expected = alignment(rx @ rx.T, ry @ ry.T, False)
    np.testing.assert_allclose(stream.compute(state), expected, atol=1e-5)


@pytest.mark.parametrize("first", [0.0, 1e-25, 1e-12])
@pytest.mark.parametrize("kind", ["streaming", "minibatch", "minibatch rbf"])
def test_a_first_batch_without_weight_does_not_set_the_scale(kind, first):
    x, y, _, _ = pair("plain")
    if kind == "streaming":
        stream = measures.streaming_linear_cka
        begun = stream.init(x.shape[1], y.shape[1])
    else:
        stream = measures.minibatch_cka(*(["rbf", 4.0] if "rbf" in kind else []))
        begun = stream.init()
    batches = [(x[:20] * first, y[:20] * first), (x[20:] * 1e6, y[20:])]
    if kind == "minibatch rbf":
        batches[1] = (x[20:], y[20:])
    state, turned = begun, begun
    for one, other in zip(batches, batches[::-1], strict=True):
        state, turned = stream.update(state, *one), stream.update(turned, *other)
    assert 0.1 < float(stream.compute(state)) <= 1
    np.testing.assert_allclose(stream.compute(state), stream.compute(turned), rtol=1e-5)


@pytest.mark.slow
def test_streaming_linear_cka_survives_batches_that_drift_apart():
    x, y = alike(200, 6, 5)
    drift = np.repeat(np.arange(10) * 100.0, 20)[:, None]
    x, y = f32(x + drift), f32(y - drift)
    stream = measures.streaming_linear_cka
    batches = x.reshape(10, 20, 6), y.reshape(10, 20, 5)
    state, _ = jax.lax.scan(lambda s, b: (stream.update(s, *b), None), stream.init(6, 5), batches)
    rx, ry = np.float64(x), np.float64(y)
    expected = alignment(rx @ rx.T, ry @ ry.T, False)
    np.testing.assert_allclose(stream.compute(state), expected, atol=1e-5)


@pytest.mark.slow
def test_streams_know_nothing_before_the_first_batch():
    assert (
        float(measures.streaming_linear_cka.compute(measures.streaming_linear_cka.init(3, 4))) == 0
    )
    stream = measures.minibatch_cka()
    assert float(stream.compute(stream.init())) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_minibatch_cka_averages_unbiased_estimates(kernel):
    x, y, rx, ry = pair("two blocks")
    bandwidth = (4.0, 2.0) if kernel == "rbf" else None
    stream = measures.minibatch_cka(kernel, bandwidth)
    batches = x.reshape(11, 100, -1), y.reshape(11, 100, -1)
    state, _ = jax.lax.scan(lambda s, b: (stream.update(s, *b), None), stream.init(), batches)
    sums = np.zeros(3)
    for a, b in zip(rx.reshape(11, 100, -1), ry.reshape(11, 100, -1), strict=True):
        if kernel == "rbf":
            k, l = gaussian(a, 4.0), gaussian(b, 2.0)  # noqa: E741
        else:
            k, l = a @ a.T, b @ b.T  # noqa: E741
        sums += [unbiased_hsic(k, l), unbiased_hsic(k, k), unbiased_hsic(l, l)]
    expected = sums[0] / np.sqrt(sums[1] * sums[2])
    np.testing.assert_allclose(stream.compute(state), expected, atol=1e-5)
    whole = {"linear": measures.linear_cka, "rbf": partial(measures.rbf_cka, bandwidth=bandwidth)}
    np.testing.assert_allclose(stream.compute(state), whole[kernel](x, y, debiased=True), atol=0.02)


# --- permutations ------------------------------------------------------------------------------


@lru_cache
def permutation(measure, **options):
    return jax.jit(partial(measures.permutation_test, measure, **options))


@pytest.mark.slow
def test_permutation_test_keeps_its_definitions():
    x, y = map(f32, alike(60, 9, 9))
    key = jax.random.key(3)
    result = permutation("linear_cka", count=50, alpha=0.1)(x, y, key)
    orders = [jax.random.permutation(one, 60) for one in jax.random.split(key, 50)]
    null = np.array([ALL["linear_cka"](x, y[order]) for order in orders])
    score = float(ALL["linear_cka"](x, y))
    np.testing.assert_allclose(result.null, null, atol=1e-6)
    np.testing.assert_allclose(result.score, score, atol=1e-6)
    np.testing.assert_allclose(result.p_value, (1 + (null >= score).sum()) / 51, atol=1e-6)
    threshold = np.sort(np.append(null, score))[int(np.ceil(0.9 * 51)) - 1]
    np.testing.assert_allclose(result.threshold, threshold, atol=1e-6)
    calibrated = np.clip((score - threshold) / (1 - threshold), 0, 1)
    np.testing.assert_allclose(result.calibrated, calibrated, atol=1e-5)
    assert calibrated > 0


def likeness(x, y):
    return 1 - measures.procrustes_distance(x, y)


@pytest.mark.slow
def test_distances_turn_all_orders_round():
    x, y = map(f32, alike(60, 9, 9))
    key = jax.random.key(3)
    ours = permutation("procrustes_distance", count=40)(x, y, key)
    turned = permutation(likeness, count=40)(x, y, key)
    np.testing.assert_allclose(ours.score, 1 - turned.score, atol=1e-6)
    np.testing.assert_allclose(ours.threshold, 1 - turned.threshold, atol=1e-6)
    np.testing.assert_allclose(ours.p_value, turned.p_value, atol=1e-6)
    np.testing.assert_allclose(ours.calibrated, turned.calibrated, atol=1e-5)
    assert float(ours.p_value) == pytest.approx(1 / 41)


@pytest.mark.slow
def test_wide_spaces_that_are_alike_by_chance_are_called_out():
    x, y = f32(normal(0, 20, 200)), f32(normal(1, 20, 200))
    result = permutation("linear_cka", count=100)(x, y, jax.random.key(0))
    assert float(result.score) > 0.8
    assert float(result.p_value) > 0.05
    assert float(result.calibrated) == 0.0


def test_scores_that_rounding_tells_apart_are_ties():
    x, y = jax.random.normal(jax.random.key(0), (2, 30, 60))
    result = permutation("pwcca", count=99)(x, y, jax.random.key(1))
    np.testing.assert_allclose(result.score, 1, atol=1e-6)  # so many features explain anything
    np.testing.assert_allclose(result.null, 1, atol=1e-6)
    assert float(result.p_value) == 1
    assert float(result.calibrated) == 0


@pytest.mark.slow
def test_p_values_of_unrelated_spaces_are_uniform():
    x, y = f32(normal(0, 100, 15, 2)), f32(normal(1, 100, 15, 2))
    keys = jax.random.split(jax.random.key(0), 100)
    p_values = jax.vmap(permutation("linear_cka", count=99))(x, y, keys).p_value
    assert scipy.stats.kstest(np.asarray(p_values), "uniform").pvalue > 0.01


@pytest.mark.slow
def test_permutations_are_free_of_the_batch_size():
    x, y = map(f32, alike(60, 9, 9))
    one, some = (
        permutation("linear_cka", count=50, alpha=0.1, **options)(x, y, jax.random.key(3))
        for options in ({}, {"batch_size": 7})
    )
    chex.assert_trees_all_close(one, some, atol=1e-6)


def unprepared(name):
    return lambda x, y: EAGER[name](x, y)  # a function that is not known


def assert_same_test(ours, theirs, atol=2e-5):
    np.testing.assert_allclose(ours.score, theirs.score, atol=atol)
    np.testing.assert_allclose(ours.null, theirs.null, atol=atol)
    np.testing.assert_allclose(ours.threshold, theirs.threshold, atol=atol)
    if np.ptp(np.append(theirs.null, theirs.score)) > 1e-4:  # else rounding decides
        np.testing.assert_allclose(ours.p_value, theirs.p_value, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ALL))
def test_prepared_forms_give_the_same_test(name):
    x, y = map(f32, alike(60, 9, 9))
    options = {"count": 20, "distance": name in measures.DISTANCES, "best": 1.0}
    key = jax.random.key(3)
    ours = measures.permutation_test(EAGER[name], x, y, key, **options)
    assert_same_test(
        ours, jax.jit(partial(measures.permutation_test, unprepared(name), **options))(x, y, key)
    )
    np.testing.assert_allclose(ours.score, ALL[name](x, y), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_cka", "svcca", "pwcca", "procrustes_distance", "rsa"])
@pytest.mark.parametrize("widths", [(40, 50), (40, 5)])
def test_prepared_forms_of_wide_spaces_give_the_same_test(name, widths):
    x, y = map(f32, alike(30, *widths))
    ours, theirs = (
        permutation(measure, count=10, distance=False)(x, y, jax.random.key(3))
        for measure in (name, unprepared(name))
    )
    assert_same_test(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_cka", "rsa"])
def test_prepared_matrices_of_many_rows_are_summed_in_bands(name):
    x, y = map(f32, alike(601, 200, 200))
    ours, theirs = (
        permutation(measure, count=3)(x, y, jax.random.key(3))
        for measure in (EAGER[name], unprepared(name))
    )
    assert_same_test(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_cka debiased", "rbf_cka", "rsa"])
def test_without_room_for_matrices_the_test_is_the_same(name, monkeypatch):
    makers = (prepared._linear_cka, prepared._rbf_cka, prepared._rsa)
    monkeypatch.setattr(prepared, "MATRIX_ROWS", 50)
    for maker in makers:
        maker.cache_clear()
    x, y = map(f32, alike(61, 9, 7))
    form = prepared.form_of(EAGER[name], 61, (9, 7))
    assert all(leaf.size != 61 * 61 for leaf in jax.tree.leaves(form.space(x)))
    ours, theirs = (
        jax.jit(partial(measures.permutation_test, measure, count=20))(x, y, jax.random.key(3))
        for measure in (EAGER[name], unprepared(name))
    )
    assert_same_test(ours, theirs)
    for maker in makers:
        maker.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("copies", [2, 15])
@pytest.mark.parametrize("name", ["mutual_knn", "cknna", "jaccard", "mrr"])
def test_prepared_neighbours_that_tie_are_told_apart_as_ever(name, copies):
    # Few copies: the lists hold all that tie. Many: only a search for each permutation knows.
    rng = np.random.default_rng(0)
    x, y = (f32(np.repeat(rng.integers(-4, 5, (60 // copies, 2)) + 0.5, copies, 0)) for _ in "xy")
    ours, theirs = (
        permutation(partial(measure, k=3), count=20)(x, y, jax.random.key(3))
        for measure in (EAGER[name], unprepared_with_k(name))
    )
    assert_same_test(ours, theirs, atol=1e-6)


def unprepared_with_k(name):
    return lambda x, y, k: EAGER[name](x, y, k)


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_collapsed_spaces_are_not_called_alike(jit):
    x = jnp.ones((40, 3))
    test = partial(measures.permutation_test, "mutual_knn", count=19)
    result = (jax.jit(test) if jit else test)(x, x, jax.random.key(0))
    assert float(result.p_value) == 1.0


@pytest.mark.slow
def test_bandwidths_are_found_once_in_a_test(monkeypatch):
    found = []
    monkeypatch.setattr(cka, "median_distance", lambda x: found.append(x.shape) or x[0, 0] ** 0)
    x, y = map(f32, alike(53, 17, 7))  # shapes of no other test: nothing is compiled yet
    measures.permutation_test("rbf_cka", x, y, jax.random.key(0), 3)
    assert [shape for shape in found if shape[1] == 17] == [(53, 17)] * (1 + 1)  # and at the doors


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["linear_cka", "mrr", "custom"]
    + [pytest.param(n, marks=pytest.mark.slow) for n in ("rsa", "mutual_knn", "cknna", "pwcca")],
)
def test_tests_of_many_spaces_are_those_of_their_pairs(name):
    measure = (lambda x, y: jnp.mean(x[:, 0] * y[:, 0])) if name == "custom" else name
    spaces = [f32(normal(0, 40, 6)), *(f32(a) for a in alike(40, 6, 6))]
    if name != "mrr":
        spaces.append(f32(normal(1, 40, 9)))
    key, done = jax.random.key(5), []
    tests = measures.permutation_tests(measure, spaces, key, 15, visit=done.append)
    assert list(tests) == [(i, j) for i in range(len(spaces)) for j in range(i + 1, len(spaces))]
    assert sum(done) == len(tests)
    for i, j in [(0, 1), (1, 2), (0, len(spaces) - 1)]:
        alone = measures.permutation_test(measure, spaces[i], spaces[j], key, 15)
        assert_same_test(tests[i, j], alone)
        np.testing.assert_allclose(tests[i, j].calibrated, alone.calibrated, atol=2e-5)


def decomposed(jaxpr):
    """Shapes of all matrices whose singular values a program takes."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "svd":
            yield equation.invars[0].aval.shape
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "jaxpr")
        ):
            if hasattr(inner, "jaxpr"):
                yield from decomposed(inner.jaxpr)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["procrustes_distance", "svcca", "pwcca"])
def test_decompositions_of_many_spaces_are_never_batched(name):
    # Batched LAPACK calls on several CPU devices at once can wait for each other forever.
    x, order = f32(normal(0, 30, 5)), jnp.arange(30)
    form = prepared.form_of(measures.get(name), 30, (5, 5, 5))
    left, right = form.pair(form.space(x), form.space(x))
    program = jax.make_jaxpr(form.scores)((left,) * 3, right, order, order)
    assert set(decomposed(program.jaxpr)) == {(5, 5)}


@pytest.mark.slow
def test_tests_of_many_spaces_meet_ties_and_chosen_pairs():
    collapsed, other = jnp.ones((40, 3)), f32(normal(0, 40, 3))
    tests = measures.permutation_tests(
        "mutual_knn", [collapsed, other, collapsed], jax.random.key(0), 19, pairs=[(2, 0), (1, 0)]
    )
    assert list(tests) == [(2, 0), (1, 0)]
    assert float(tests[2, 0].p_value) == 1.0
    alone = measures.permutation_test("mutual_knn", other, collapsed, jax.random.key(0), 19)
    assert_same_test(tests[1, 0], alone)


def test_tests_of_many_spaces_refuse_what_is_no_pair():
    x, key = jnp.ones((12, 4)), jax.random.key(0)
    with pytest.raises(ValueError, match="Two or more spaces are needed, got 1"):
        measures.permutation_tests("rsa", [x], key)
    with pytest.raises(ValueError, match=r"no pair \(0, 2\): there are 2 spaces"):
        measures.permutation_tests("rsa", [x, x], key, pairs=[(0, 2)])
    with pytest.raises(ValueError, match=r"\(12, 4\).*\(13, 4\)"):
        measures.permutation_tests("rsa", [x, jnp.ones((13, 4))], key)
    with pytest.raises(ValueError, match=r"\(12, 4\).*\(12, 5\)"):
        measures.permutation_tests("mrr", [x, jnp.ones((12, 5))], key)
    with pytest.raises(ValueError, match="count"):
        measures.permutation_tests("rsa", [x, x], key, 0)


# --- doors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ALL))
def test_row_counts_that_differ_are_named(name):
    with pytest.raises(ValueError, match=r"\(17, 4\).*\(18, 4\)"):
        ALL[name](jnp.ones((17, 4)), jnp.ones((18, 4)))


@pytest.mark.parametrize("name", ["mutual_knn", "cknna", "jaccard", "mrr"])
@pytest.mark.parametrize("k", [0, 12, 13])
def test_k_out_of_range_is_refused_with_the_shapes(name, k):
    with pytest.raises(ValueError, match=rf"k={k}.*\(12, 4\)"):
        EAGER[name](jnp.ones((12, 4)), jnp.ones((12, 4)), k)


@pytest.mark.parametrize("name", sorted(measures.SAME_WIDTH))
def test_widths_that_differ_are_refused_where_axes_are_compared(name):
    with pytest.raises(ValueError, match=r"\(12, 4\).*\(12, 5\)"):
        ALL[name](jnp.ones((12, 4)), jnp.ones((12, 5)))


@pytest.mark.parametrize(
    "function, rows",
    [
        (measures.linear_cka, 2),
        (partial(measures.linear_cka, debiased=True), 4),
        pytest.param(partial(measures.rbf_cka, debiased=True), 4, marks=pytest.mark.slow),
        pytest.param(partial(measures.cknna, k=1), 4, marks=pytest.mark.slow),
        pytest.param(measures.rsa, 3, marks=pytest.mark.slow),
        (partial(measures.minibatch_cka().update, measures.minibatch_cka().init()), 4),
    ],
)
def test_too_few_rows_are_refused_with_the_shapes(function, rows):
    x = jnp.ones((rows - 1, 5))
    with pytest.raises(ValueError, match=rf"{rows} rows.*\({rows - 1}, 5\)"):
        function(x, x)
    score = jax.jit(function)(f32(normal(0, rows, 5)), f32(normal(1, rows, 5)))
    chex.assert_tree_all_finite(score)


def test_bad_options_are_refused():
    x, y = jnp.ones((12, 4)), jnp.ones((12, 4))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"'kendall'.*\(12, 4\).*pearson, spearman"):
        measures.rsa(x, y, "kendall")
    with pytest.raises(ValueError, match="threshold"):
        measures.svcca(x, y, 0.0)
    with pytest.raises(ValueError, match="positive"):
        measures.rbf_cka(x, y, 0.0)
    with pytest.raises(ValueError, match="pair"):
        measures.rbf_cka(x, y, (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="fixed bandwidth"):
        measures.minibatch_cka("rbf")
    with pytest.raises(ValueError, match="Known: linear, rbf"):
        measures.minibatch_cka("cubic")
    with pytest.raises(ValueError, match="2 rows"):
        measures.median_distance(x[:1])
    with pytest.raises(ValueError, match=r"widths 4 and 5.*\(12, 4\)"):
        measures.streaming_linear_cka.update(measures.streaming_linear_cka.init(4, 5), x, y)
    with pytest.raises(ValueError, match="count"):
        measures.permutation_test("rsa", x, y, key, count=0)
    with pytest.raises(ValueError, match="alpha"):
        measures.permutation_test("rsa", x, y, key, alpha=1.0)
    with pytest.raises(ValueError, match="Did you mean 'linear_cka'"):
        measures.permutation_test("linear_cca", x, y, key)
    with pytest.raises(ValueError, match="'rsa'"):
        measures.get("rsaa")


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([3], id="one row"),
        pytest.param(slice(None), id="all rows", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "name", mostly_slow([*NAMES, "rsa spearman"], fast=("linear_cka", "rsa", "svcca", "mutual_knn"))
)
def test_rows_that_are_not_finite_have_no_score(name, rows):
    x, y = f32(normal(0, 16, 4)), f32(normal(1, 16, 4))
    for bad in (jnp.nan, jnp.inf):
        assert jnp.isnan(ALL[name](x.at[rows, 1].set(bad), y))
        assert jnp.isnan(ALL[name](x, y.at[rows, 1].set(bad)))
    assert jnp.isfinite(ALL[name](x, y))


@pytest.mark.slow
def test_other_scores_of_rows_that_are_not_finite_are_nan():
    x = f32(normal(0, 16, 4)).at[0, 0].set(jnp.nan)
    y = f32(normal(1, 16, 4))
    assert jnp.isnan(measures.median_distance(x))
    for stream in (measures.minibatch_cka(), measures.streaming_linear_cka):
        state = stream.init() if stream is not measures.streaming_linear_cka else stream.init(4, 4)
        assert jnp.isnan(stream.compute(stream.update(state, x, y)))
    key = jax.random.key(0)
    single = measures.permutation_test("linear_cka", y, x, key, count=9)
    many = measures.permutation_tests("linear_cka", [x, y, y + 1.0], key, count=9)
    for result in (single, many[0, 1], many[0, 2]):
        for value in (result.score, result.p_value, result.calibrated, result.threshold):
            assert jnp.isnan(value)
    assert many[1, 2].p_value <= 0.5
    assert many[1, 2].score > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_streams_are_blind_to_scales(scale):
    x, y = (f32(part) for part in alike(64, 5, 4))
    for stream, sizes in ((measures.streaming_linear_cka, (5, 4)), (measures.minibatch_cka(), ())):
        scores = []
        for factor in (1.0, scale):
            state = stream.init(*sizes)
            for i in range(0, 64, 16):
                state = stream.update(state, x[i : i + 16] * factor, y[i : i + 16] / factor)
            scores.append(float(stream.compute(state)))
        assert scores[1] == pytest.approx(scores[0], rel=1e-4)
        assert scores[0] > 0.05


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "mrr" else pytest.mark.slow)
        for name in ("rbf_cka", "svcca", "mutual_knn", "mrr", "rsa")
    ],
)
def test_measures_are_compiled_once_outside_of_jit(name, caplog):
    x, y = f32(normal(0, 16, 4)), f32(normal(1, 16, 4))
    measure = measures.get(name)

    def call(x, y):
        measure(x, y)
        measures.permutation_test(name, x, y, jax.random.key(0), count=3)

    call(x, y)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        call(x + 1.0, y)
    assert not [r for r in caplog.records if "Compiling" in r.message and "add" not in r.message]


def test_options_that_are_no_numbers_of_use_are_refused():
    x = f32(normal(0, 16, 4))
    for width in (float("nan"), np.float32(-1), 0, float("inf")):
        with pytest.raises(ValueError, match="bandwidth must be positive"):
            measures.rbf_cka(x, x, width)
    with pytest.raises(ValueError, match="must hold real numbers, got dtype <U1"):
        measures.linear_cka(np.array([["a", "b"]]), x)
    with pytest.raises(ValueError, match="must hold real numbers, got dtype key<"):
        measures.linear_cka(jax.random.split(jax.random.key(0), (4, 4)), x)


@pytest.mark.slow
def test_a_distance_is_known_however_it_is_wrapped():
    x = normal(0, 40, 4)
    tests = [
        measures.permutation_test(measure, x, 2 * x, jax.random.key(0), count=19, **options)
        for measure, options in [
            ("procrustes_distance", {}),
            (jax.jit(measures.procrustes_distance), {}),
            (partial(jax.jit(measures.procrustes_distance)), {}),
            (lambda a, b: measures.procrustes_distance(a, b), {"distance": True}),
        ]
    ]
    for test in tests:
        assert float(test.p_value) == pytest.approx(0.05)
        assert float(test.calibrated) > 0.99
    own = lambda a, b: measures.procrustes_distance(a, b)  # noqa: E731
    for call in (
        lambda: measures.permutation_test(own, x, 2 * x, jax.random.key(0), count=19),
        lambda: measures.permutation_tests(own, [x, 2 * x], jax.random.key(0), count=19),
    ):
        with pytest.raises(ValueError, match="is it a distance"):
            call()


@pytest.mark.slow
def test_spaces_that_no_pair_names_may_have_other_rows():
    x, y, z = normal(0, 30, 4), normal(1, 20, 3), normal(2, 20, 5)
    key = jax.random.key(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of NumPy's float64
        tests = measures.permutation_tests("linear_cka", [x, y, z], key, count=19, pairs=[(1, 2)])
    alone = measures.permutation_test("linear_cka", y, z, key, count=19)
    np.testing.assert_allclose(tests[1, 2].score, alone.score, rtol=1e-5)
    np.testing.assert_allclose(tests[1, 2].p_value, alone.p_value)
    with pytest.raises(ValueError, match="30 and 20 rows"):
        measures.permutation_tests(
            "linear_cka", [x, x, y, z], key, count=19, pairs=[(0, 1), (2, 3)]
        )


@pytest.mark.slow
@pytest.mark.parametrize("n", [11, 20, 30, 60])
def test_equal_spaces_with_ties_have_equal_neighbours(n):
    rng = np.random.default_rng(0)
    for x in (np.eye(n, dtype=np.float32), rng.integers(0, 2, (2 * n, 9)).astype(np.float32)):
        for name in ("jaccard", "mutual_knn"):
            assert float(getattr(measures, name)(x, x, k=5)) == pytest.approx(1, abs=1e-6)
        test = measures.permutation_test("jaccard", x, x, jax.random.key(0), count=19)
        assert float(test.score) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_too_few_permutations_calibrate_nothing():
    x = normal(0, 30, 4)
    few = measures.permutation_test("linear_cka", x, x, jax.random.key(0), count=18)
    assert np.isnan(few.calibrated)
    assert float(few.p_value) == pytest.approx(1 / 19)
    enough = measures.permutation_test("linear_cka", x, x, jax.random.key(0), count=19)
    assert float(enough.calibrated) == pytest.approx(1, abs=1e-5)


def test_messages_name_the_arguments_there_are():
    x = normal(0, 30, 4)
    for name in ("jaccard", "mrr", "mean_cosine"):
        with pytest.raises(ValueError, match=r"x and y must have the same width, got x \(30, 4\)"):
            getattr(measures, name)(x, x[:, :3])
    with pytest.raises(ValueError, match="k must be a whole number"):
        measures.mrr(x, x, k=2.5)


def _nearly_degenerate():
    x, y = normal(0, 30, 6), normal(1, 30, 4)
    dead = x.copy()
    dead[:, 2] = 0
    return {
        "a dead feature": (dead, y),
        "one space twice": (x, x),
        "fewer rows than features": (normal(2, 5, 6), normal(3, 5, 7)),
        "no variance": (np.ones_like(x), y),
        "rows twice": (np.repeat(x[:15], 2, 0), y),
    }


@pytest.mark.parametrize(
    "case", mostly_slow(_nearly_degenerate(), fast=("a dead feature", "one space twice"))
)
@pytest.mark.parametrize("name", mostly_slow(["svcca", "pwcca"], fast=("svcca",)))
def test_gradients_of_canonical_correlations_are_finite(name, case):
    x, y = map(f32, _nearly_degenerate()[case])
    for gradient in jax.grad(ALL[name], argnums=(0, 1))(x, y):
        assert jnp.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["svcca", "pwcca"])
def test_gradients_of_canonical_correlations_beside_a_dead_feature_are_right(name):
    function, step = getattr(measures, name), 1e-6
    with jax.enable_x64(True):
        x, y = map(jnp.asarray, _nearly_degenerate()["a dead feature"])
        # The feature stays dead: where a direction begins to vary, the score jumps.
        direction = jnp.asarray(normal(9, *x.shape)).at[:, 2].set(0)
        expected = (function(x + step * direction, y) - function(x - step * direction, y)) / 2
        actual = jnp.vdot(jax.grad(function)(x, y), direction)
        assert abs(expected / step) > 1e-3
        np.testing.assert_allclose(actual, expected / step, rtol=1e-5)


def test_svcca_without_a_cut_keeps_directions_of_little_variance():
    z, spread = normal(0, 500, 6), 10.0 ** -np.arange(6)
    score = measures.svcca(f32(z * spread), f32(z * spread[::-1]), threshold=1.0)
    np.testing.assert_allclose(score, 1.0, atol=1e-5)


def test_rows_of_zeros_are_equally_near_to_all():
    x = normal(0, 120, 8)
    y = x + normal(1, 120, 8)
    x[::5] = 0
    near = x @ y.T / np.linalg.norm(y, axis=1)
    near /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    own = np.diag(near)[:, None]
    rank = (near > own).sum(axis=1) + ((near == own).sum(axis=1) + 1) / 2
    expected = np.where(rank <= 10, 1 / rank, 0).mean()
    np.testing.assert_allclose(measures.mrr(f32(x), f32(y)), expected, atol=1e-6)
    tested = measures.permutation_test("mrr", f32(x), f32(y), jax.random.key(0), count=19)
    np.testing.assert_allclose(tested.score, expected, atol=1e-6)
    assert measures.mrr(jnp.zeros_like(f32(x)), f32(y)) == 0
    zeros = jnp.zeros((120, 3))
    np.testing.assert_allclose(measures.mutual_knn(zeros, zeros), 1.0)


def test_an_array_is_a_pair_of_bandwidths():
    x, y = f32(normal(0, 40, 4)), f32(normal(1, 40, 3))
    expected = measures.rbf_cka(x, y, bandwidth=(1.0, 2.0))
    for pair in (np.array([1.0, 2.0]), jnp.array([1.0, 2.0])):
        np.testing.assert_allclose(measures.rbf_cka(x, y, bandwidth=pair), expected, rtol=1e-6)
    for wrong, message in (
        (np.ones((40, 1)), "must be one number or a pair, got an array"),
        (np.ones(3), "got 3 of them"),
        (np.array(-1.0), "must be positive"),
        ("median", "must be a number, a pair or None, got 'median'"),
    ):
        with pytest.raises(ValueError, match=message):
            measures.rbf_cka(x, y, bandwidth=wrong)
        with pytest.raises(ValueError, match=message):
            measures.minibatch_cka("rbf", wrong)


def test_a_measure_gives_one_number():
    x, y, key = f32(normal(0, 20, 4)), f32(normal(1, 20, 4)), jax.random.key(0)
    for function in (lambda a, b: jnp.ones(3), lambda a, b: (jnp.ones(()), 2.0)):
        with pytest.raises(ValueError, match="gives one number"):
            measures.permutation_test(function, x, y, key, count=19, distance=False)
        with pytest.raises(ValueError, match="gives one number"):
            measures.permutation_tests(function, [x, y], key, count=19, distance=False)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        measures.permutation_test("linear_cka", x, y, key, count=19, batch_size=-1)


def test_permutations_without_a_score_do_not_make_it_more_surprising():
    x, y = normal(0, 100, 8), normal(1, 100, 8)
    y = y[np.argsort(y[:, 0])]

    def half_of_them(a, b):
        return jnp.where(b[0, 0] < b[1, 0], measures.linear_cka(a, b), jnp.nan)

    found = measures.permutation_test(
        half_of_them, f32(x), f32(y), jax.random.key(0), count=99, distance=False
    )
    without = np.isnan(found.null).sum()
    assert 30 < without < 70
    assert found.p_value >= (1 + without) / 100
