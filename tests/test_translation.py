from functools import lru_cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from absl.testing import parameterized
from sklearn.linear_model import Ridge

import relrep_jax as rr
from relrep_jax import consensus, translation

NAMES = sorted(translation.TRANSLATIONS)
FAST = ("orthogonal", "ridge")  # of tests that compile much for every name
MOSTLY_SLOW = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
AFFINE = [name for name in NAMES if name not in ("linear", "inverse_relative")]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def rotation(seed, d):
    return scipy.linalg.qr(normal(seed, d, d))[0]


def conditioned(seed, n, d, condition):
    """`[n, d]`, centred columns, singular values spread evenly in the logarithm."""
    x = normal(seed, n, d)
    u, _, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return u @ np.diag(np.sqrt(n) * np.geomspace(1, 1 / condition, d)) @ vt


def f32(x):
    return jnp.asarray(x, jnp.float32)


@lru_cache
def compiled(name, **options):
    """One compiled function for all tests."""
    translator = translation.get(name)

    def run(x, y, new):
        return translator.apply(translator.fit(x, y, **options), new)

    return jax.jit(run)


def predict(name, x, y, new, **options):
    return np.asarray(compiled(name, **options)(f32(x), f32(y), f32(new)))


class VariantsTest(chex.TestCase, parameterized.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(*NAMES)
    def test_rotation_scale_and_shift_are_recovered(self, name):
        x, new = normal(0, 60, 8), normal(1, 20, 8)
        shift = 0.0 if name == "linear" else 5.0
        if name == "inverse_relative":  # which keeps directions, not lengths
            x, new = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, new))
            x, new = np.concatenate([x, -x]), new  # so that the mean is the origin
        q = rotation(2, 8)
        options = {"penalty": 0.0} if name == "ridge" else {}
        translator = translation.get(name)

        @self.variant
        def run(x, y, new):
            return translator.apply(translator.fit(x, y, **options), new)

        got = run(f32(x), f32(3.0 * x @ q + shift), f32(new))
        np.testing.assert_allclose(got, 3.0 * new @ q + shift, atol=2e-5)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters("linear", "affine", "low_rank", "cca", "ridge")
    def test_linear_map_is_recovered(self, name):
        x, new, w = normal(0, 90, 8), normal(1, 20, 8), normal(2, 8, 5)
        options = {"penalty": 0.0} if name == "ridge" else {}
        translator = translation.get(name)

        @self.variant
        def run(x, y, new):
            return translator.apply(translator.fit(x, y, **options), new)

        np.testing.assert_allclose(run(f32(x), f32(x @ w), f32(new)), new @ w, atol=1e-4)

    @chex.variants(with_jit=True, without_jit=True)
    def test_generalized_procrustes_brings_copies_together(self):
        base = normal(0, 50, 4)
        spaces = [
            scale * np.pad(base, ((0, 0), (0, d - 4))) @ rotation(d, d) + d
            for d, scale in ((4, 1.0), (7, 5.0), (6, 0.2))
        ]
        gpa = translation.generalized_procrustes

        @self.variant
        def run(spaces):
            params = gpa.fit(spaces)
            return [gpa.apply(params, i, s) for i, s in enumerate(spaces)], gpa.translate(
                params, 1, 2, spaces[1]
            )

        mapped, translated = run([f32(s) for s in spaces])
        for z in mapped[1:]:
            np.testing.assert_allclose(z, mapped[0], atol=1e-5)
        np.testing.assert_allclose(translated, spaces[2], atol=1e-5)


@pytest.mark.parametrize("widths", [(6, 6), (4, 7), (7, 4)])
@pytest.mark.parametrize("scaling", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_orthogonal_agrees_with_scipy_on_padded_spaces(widths, scaling):
    d1, d2 = widths
    x, y = normal(0, 80, d1), normal(1, 80, d2) + 0.5
    x[:, : min(widths)] += y[:, : min(widths)]
    wide = max(widths)
    px = np.pad(x - x.mean(0), ((0, 0), (0, wide - d1)))
    py = np.pad(y - y.mean(0), ((0, 0), (0, wide - d2)))
    r, total = scipy.linalg.orthogonal_procrustes(px, py)
    scale = total / (px**2).sum() if scaling else 1.0
    expected = (scale * px @ r)[:, :d2] + y.mean(0)
    np.testing.assert_allclose(predict("orthogonal", x, y, x, scaling=scaling), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(5, 8), (8, 5), (6, 6)])
def test_orthogonal_matrix_has_orthonormal_rows_or_columns(widths):
    x, y = normal(0, 40, widths[0]), normal(1, 40, widths[1])
    m = np.asarray(translation.orthogonal.fit(f32(x), f32(y), scaling=False).matrix)
    gram = m @ m.T if widths[0] <= widths[1] else m.T @ m
    np.testing.assert_allclose(gram, np.eye(min(widths)), atol=1e-5)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, pytest.param(300.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", [(100, 20), (15, 40)])
def test_ridge_agrees_with_scikit_learn(penalty, shape):
    x, y = normal(0, *shape) + 3.0, normal(1, shape[0], 6) - 2.0
    new = normal(2, 30, shape[1]) + 3.0
    expected = Ridge(alpha=penalty).fit(x, y).predict(new)
    np.testing.assert_allclose(predict("ridge", x, y, new, penalty=penalty), expected, atol=3e-4)


@pytest.mark.slow
def test_ridge_maps_over_a_path_of_penalties():
    x, y = f32(normal(0, 50, 5)), f32(normal(1, 50, 4))
    path = jnp.array([0.1, 1.0, 10.0])
    mapped = jax.vmap(lambda p: translation.ridge.fit(x, y, penalty=p).matrix)(path)
    xc, yc = x - x.mean(0), y - y.mean(0)
    for i, p in enumerate(path):
        expected = np.linalg.solve(xc.T @ xc + p * np.eye(5), xc.T @ yc)
        np.testing.assert_allclose(mapped[i], expected, atol=1e-5)


@pytest.mark.parametrize("condition", [1e1, 1e2, 1e3])
@pytest.mark.parametrize("name", ["linear", "affine"])
def test_least_squares_hold_the_documented_tolerance(name, condition):
    x = conditioned(0, 400, 50, condition)
    y = x @ normal(1, 50, 30) + 0.1 * normal(2, 400, 30)
    columns = x if name == "linear" else np.c_[x, np.ones(len(x))]
    # The reference sees the same rounded inputs: what is left is the solver's own error.
    r_columns, r_y = np.float64(np.float32(columns)), np.float64(np.float32(y))
    expected = r_columns @ np.linalg.lstsq(r_columns, r_y, rcond=None)[0]
    error = np.abs(predict(name, x, y, x) - expected).max()
    assert error <= 1e-6 * condition * np.abs(y).max()


@pytest.mark.parametrize("n", [12, 30])
def test_linear_has_least_norm_where_rows_are_few_or_columns_repeat(n):
    x, y = normal(0, n, 20), normal(1, n, 7)
    x[:, 10:] = x[:, :10]
    expected = np.linalg.lstsq(x, y, rcond=1e-6)[0]
    got = translation.linear.fit(f32(x), f32(y)).matrix
    np.testing.assert_allclose(got, expected, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_low_rank_agrees_with_reduced_rank_regression(rank):
    x, y = normal(0, 100, 9), normal(1, 100, 6)
    y[:, :4] += x[:, :4] @ normal(2, 4, 4)
    xc, yc = x - x.mean(0), y - y.mean(0)
    w = np.linalg.lstsq(xc, yc, rcond=None)[0]
    v = np.linalg.svd(xc @ w, full_matrices=False)[2][:rank].T
    expected = xc @ w @ v @ v.T + y.mean(0)
    np.testing.assert_allclose(predict("low_rank", x, y, x, rank=rank), expected, atol=1e-4)
    assert np.linalg.matrix_rank(expected - y.mean(0)) == rank


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_cca_maps_canonical_variates_onto_each_other(rank):
    x, y = normal(0, 200, 7), normal(1, 200, 5)
    y[:, :3] += 2 * x[:, :3] @ normal(2, 3, 3)
    xc, yc = x - x.mean(0), y - y.mean(0)

    def inverse_root(c):
        w, v = np.linalg.eigh(c)
        return v @ np.diag(w**-0.5) @ v.T

    wx, wy = inverse_root(xc.T @ xc), inverse_root(yc.T @ yc)
    p, _, qt = np.linalg.svd(wx @ xc.T @ yc @ wy, full_matrices=False)
    expected = xc @ wx @ p[:, :rank] @ qt[:rank] @ np.linalg.inv(wy) + y.mean(0)
    np.testing.assert_allclose(predict("cca", x, y, x, rank=rank), expected, atol=1e-4)


def test_inverse_relative_agrees_with_its_formula():
    x, y, new = normal(0, 12, 6) + 1, normal(1, 12, 9) - 1, normal(2, 30, 6)

    def unit(v):
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    a_x, a_y = unit(x - x.mean(0)), unit(y - y.mean(0))
    relative = unit(new - x.mean(0)) @ a_x.T
    scale = np.linalg.norm(y - y.mean(0), axis=1).mean()
    expected = scale * relative @ np.linalg.pinv(a_y.T) + y.mean(0)
    np.testing.assert_allclose(predict("inverse_relative", x, y, new), expected, atol=1e-4)


@pytest.mark.slow
def test_generalized_procrustes_of_two_spaces_is_procrustes():
    x, y = normal(0, 60, 5), normal(1, 60, 5)
    y += x
    gpa = translation.generalized_procrustes
    params = gpa.fit([f32(x), f32(y)], scaling=False)
    got = gpa.translate(params, 0, 1, f32(x))
    np.testing.assert_allclose(got, predict("orthogonal", x, y, x, scaling=False), atol=1e-4)


@pytest.mark.slow
def test_generalized_procrustes_beats_rotations_onto_one_space():
    base = normal(0, 100, 6)
    spaces = [(base + 0.5 * normal(i, 100, 6)) @ rotation(i, 6) for i in range(1, 5)]

    def spread(iterations):
        gpa = translation.generalized_procrustes
        params = gpa.fit([f32(s) for s in spaces], iterations=iterations)
        mapped = [gpa.apply(params, i, f32(s)) for i, s in enumerate(spaces)]
        return sum(float(jnp.sum((z - params.consensus) ** 2)) for z in mapped)

    first, middle, last = spread(1), spread(5), spread(50)
    assert last <= middle * (1 + 1e-5) <= first * (1 + 2e-5)
    assert last < first


@pytest.mark.slow
def test_generalized_procrustes_restores_what_it_maps():
    spaces = [f32(normal(i, 30, d) + i) for i, d in enumerate((4, 9, 6))]
    gpa = translation.generalized_procrustes
    params = gpa.fit(spaces)
    for i, space in enumerate(spaces):
        back = gpa.restore(params, i, gpa.apply(params, i, space))
        np.testing.assert_allclose(back, space, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["orthogonal", "affine", "cca"])
def test_there_and_back_again(name):
    x = normal(0, 60, 6)
    y = 2.0 * x @ rotation(1, 6) + 1.0
    there = predict(name, x, y, x)
    np.testing.assert_allclose(predict(name, y, x, there), x, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(4, 9), (9, 4)])
@pytest.mark.parametrize("name", NAMES)
def test_widths_may_differ_both_ways(name, widths):
    x, y = normal(0, 50, widths[0]), normal(1, 50, widths[1])
    got = predict(name, x, y, normal(2, 3, widths[0]))
    assert got.shape == (3, widths[1])
    assert np.isfinite(got).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_partial_correspondences_are_indexing(name):
    x = normal(0, 80, 5)
    order = np.random.default_rng(1).permutation(80)
    y = (2.0 * x @ rotation(2, 5))[order]
    rows_of_x = order[:40]
    shuffled = predict(name, x[rows_of_x], y[:40], x)
    straight = predict(name, x[rows_of_x], 2.0 * x[rows_of_x] @ rotation(2, 5), x)
    np.testing.assert_allclose(shuffled, straight, atol=1e-5)


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_vmap_over_pairs_equals_a_loop(name):
    x, y, new = f32(normal(0, 3, 40, 5)), f32(normal(1, 3, 40, 6)), f32(normal(2, 3, 7, 5))
    translator = translation.get(name)
    params = jax.jit(jax.vmap(translator.fit))(x, y)
    mapped = jax.vmap(translator.apply)(params, new)
    for i in range(3):
        expected = predict(name, x[i], y[i], new[i])
        np.testing.assert_allclose(mapped[i], expected, atol=1e-4)


def degenerate():
    x, y = normal(0, 30, 6), normal(1, 30, 6)
    low = normal(2, 30, 2) @ normal(3, 2, 6)
    constant = x.copy()
    constant[:, 2] = 0.1
    return {
        "low rank": (low, y),
        "low rank target": (x, low),
        "constant feature": (constant, y),
        "duplicated rows": (np.repeat(x[:5], 6, 0), np.repeat(y[:5], 6, 0)),
        "all rows equal": (np.ones((30, 6)) * 0.1, y),
        "both constant": (np.ones((30, 6)) * 0.1, np.ones((30, 6)) * 0.7),
        "identical": (x, x),
    }


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_few_rows_give_finite_maps(name, rows):
    x, y = normal(0, rows, 6), normal(1, rows, 6)
    assert np.isfinite(predict(name, x, y, normal(5, 4, 6))).all()


@pytest.mark.slow
@pytest.mark.parametrize("case", degenerate())
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_inputs_give_finite_maps(name, case):
    x, y = degenerate()[case]
    assert np.isfinite(predict(name, x, y, normal(5, 4, 6))).all()


@lru_cache
def gradients(name):
    run = compiled(name)
    return jax.jit(jax.grad(lambda *inputs: jnp.sum(run(*inputs) ** 2), argnums=(0, 1, 2)))


@pytest.mark.parametrize("case", degenerate())
@pytest.mark.parametrize(
    "name", [p for p, n in zip(MOSTLY_SLOW, NAMES, strict=True) if n not in ("cca", "low_rank")]
)
def test_gradients_are_finite(name, case):
    x, y = degenerate()[case]
    new = f32(normal(5, 4, 6)).at[0].set(f32(x).mean(0))
    for gradient in gradients(name)(f32(x), f32(y), new):
        assert np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, widths",
    [
        ("orthogonal", (6, 6)),
        ("orthogonal", (4, 6)),
        ("orthogonal", (6, 4)),
        ("linear", (6, 4)),
        ("ridge", (4, 6)),
        ("inverse_relative", (6, 6)),
    ],
)
def test_gradients_agree_with_finite_differences(name, widths):
    x, y = normal(0, 30, widths[0]), normal(1, 30, widths[1])
    translator = translation.get(name)
    new = normal(5, 4, widths[0])
    with jax.enable_x64(True):

        def loss(x, y):
            return jnp.sum(translator.apply(translator.fit(x, y), jnp.asarray(new)) ** 3)

        loss = jax.jit(loss)
        gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(x), jnp.asarray(y))
        step = 1e-5
        for which, direction in enumerate((normal(6, *x.shape), normal(7, *y.shape))):
            moves = [(direction if which == i else 0.0) for i in range(2)]
            up = loss(jnp.asarray(x + step * moves[0]), jnp.asarray(y + step * moves[1]))
            down = loss(jnp.asarray(x - step * moves[0]), jnp.asarray(y - step * moves[1]))
            numeric = float(up - down) / (2 * step)
            np.testing.assert_allclose(
                float(jnp.vdot(gradients[which], direction)), numeric, rtol=1e-4, atol=1e-5
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", AFFINE)
def test_large_offsets_do_no_harm(name):
    x, y = normal(0, 60, 5), normal(1, 60, 5)
    y += x
    offset = np.float64(np.float32(x + 1000.0)) - 1000.0
    expected = predict(name, offset, y, offset)
    np.testing.assert_allclose(predict(name, x + 1000.0, y, x + 1000.0), expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_in_bfloat16_out(name):
    x, y = normal(0, 60, 5), normal(1, 60, 4)
    translator = translation.get(name)
    half = [jnp.asarray(v, jnp.bfloat16) for v in (x, y)]
    got = translator.apply(translator.fit(*half), half[0])
    assert got.dtype == jnp.bfloat16
    full = translator.apply(translator.fit(*(v.astype(jnp.float32) for v in half)), f32(half[0]))
    np.testing.assert_allclose(got.astype(jnp.float32), full, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_row_counts_that_differ_are_named(name):
    with pytest.raises(ValueError, match=r"\(7, 4\).*\(8, 5\)"):
        translation.get(name).fit(jnp.ones((7, 4)), jnp.ones((8, 5)))


@pytest.mark.parametrize("name", MOSTLY_SLOW)
def test_another_width_is_refused(name):
    translator = translation.get(name)
    params = translator.fit(f32(normal(0, 20, 4)), f32(normal(1, 20, 5)))
    with pytest.raises(ValueError, match=r"\(3, 5\).*width 4"):
        translator.apply(params, jnp.ones((3, 5)))


def test_bad_options_are_refused():
    x, y = jnp.ones((8, 4)), jnp.ones((8, 5))
    for name in ("low_rank", "cca"):
        with pytest.raises(ValueError, match="between 1 and 4, got 5"):
            translation.get(name).fit(x, y, rank=5)
    with pytest.raises(ValueError, match="negative"):
        translation.ridge.fit(x, y, penalty=-1.0)
    gpa = translation.generalized_procrustes
    with pytest.raises(ValueError, match="two or more"):
        gpa.fit([x])
    with pytest.raises(ValueError, match="two or more"):
        gpa.fit(jnp.ones((3, 8, 4)))
    with pytest.raises(ValueError, match=r"\(8, 4\), \(7, 5\)"):
        gpa.fit([x, jnp.ones((7, 5))])
    with pytest.raises(ValueError, match="iterations"):
        gpa.fit([x, y], iterations=0)
    with pytest.raises(ValueError, match="no space 2"):
        gpa.apply(gpa.fit([x, y]), 2, x)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'orthogonal'.*ridge"):
        translation.get("orthogonall")


def _divide_and_conquer_that_fails(monkeypatch):
    """As LAPACK's does on rare matrices: finite input, NaN out."""
    from relrep_jax import _linalg

    fast = jnp.linalg.svd

    def failing(x, **options):
        found = fast(x, **options)
        return jax.tree.map(lambda part: jnp.full_like(part, jnp.nan), found)

    monkeypatch.setattr(_linalg.jnp.linalg, "svd", failing)
    return _linalg.svd


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_a_decomposition_that_does_not_converge_is_done_another_way(shape, monkeypatch):
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    svd = _divide_and_conquer_that_fails(monkeypatch)
    for each in (svd, jax.jit(svd)):
        u, s, vt = each(x[0])
        np.testing.assert_allclose(s, np.linalg.svd(x[0], compute_uv=False), rtol=1e-5)
        np.testing.assert_allclose(u * s @ vt, x[0], atol=1e-5)
    _, several, _ = jax.jit(jax.vmap(svd))(x)
    np.testing.assert_allclose(several, np.linalg.svd(x, compute_uv=False), rtol=1e-5)


def test_a_decomposition_of_nan_is_nan():
    from relrep_jax._linalg import svd

    assert np.isnan(jax.jit(svd)(jnp.full((3, 2), jnp.nan))[1]).all()


@pytest.mark.slow
def test_translations_survive_a_decomposition_that_does_not_converge(monkeypatch):
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    y = x @ np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0].astype(np.float32)
    _divide_and_conquer_that_fails(monkeypatch)
    for name in ("orthogonal", "ridge", "affine"):
        translator = translation.get(name)
        found = translator.apply(translator.fit(x, y), x)
        np.testing.assert_allclose(found, y, atol=0.3 if name == "ridge" else 1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-20, 1e18])
@pytest.mark.parametrize("name", ["orthogonal", "inverse_relative"])
def test_scales_of_either_space_do_no_harm(name, scale):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    y = x[:, ::-1] + 0.1 * np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    translator = translation.get(name)
    expected = translator.apply(translator.fit(x, y), x)
    for source, target in ((scale, 1.0), (1.0, scale), (scale, scale)):
        a, b = np.float32(source) * x, np.float32(target) * y
        found = translator.apply(translator.fit(a, b), a) / np.float32(target)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-20, 1e18])
def test_scales_do_no_harm_to_a_consensus(scale):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    spaces = [x, x[:, ::-1] + 0.1 * np.random.default_rng(1).normal(size=(40, 5))]
    expected = translation.generalized_procrustes.fit(spaces).consensus
    scaled = [np.float32(scale) * np.float32(space) for space in spaces]
    for others in (scaled, [spaces[0], scaled[1]]):
        found = translation.generalized_procrustes.fit(others).consensus
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    maps = consensus.fit(spaces)
    expected = consensus.apply(maps, 1, spaces[1])
    found = consensus.apply(consensus.fit(scaled), 1, scaled[1])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["orthogonal", "ridge", "cca"])
def test_maps_are_compiled_once_outside_of_jit(name, caplog):
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    fit = translation.get(name).fit
    fit(x, x[:, ::-1])
    with jax.log_compiles(), caplog.at_level("WARNING"):
        fit(x[::-1], x)
    assert not [record for record in caplog.records if "Compiling" in record.message]


def test_penalties_that_are_no_numbers_of_use_are_refused():
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    for penalty in (float("nan"), np.float32(-1), float("inf")):
        with pytest.raises(ValueError, match="penalty must be a finite number, not negative"):
            translation.ridge.fit(x, x, penalty=penalty)
        with pytest.raises(ValueError, match="relative_penalty must be positive"):
            consensus.fit([x, x], relative_penalty=penalty)
        with pytest.raises(ValueError, match="final_penalty must be positive"):
            consensus.match_and_fit([x, x], [x, x], final_penalty=penalty)
    with pytest.raises(ValueError, match="weights must be 0 or 1"):
        consensus.fit([x, x], weights=np.full((2, 10), 0.5))
    with pytest.raises(ValueError, match="must be a list of two or more arrays .*, got dict"):
        consensus.fit({"a": x, "b": x})


@pytest.mark.slow
def test_relative_vectors_are_decoded_by_the_targets_anchors_alone():
    rng = np.random.default_rng(3)
    x, new = (rng.standard_normal((n, 6)).astype(np.float32) for n in (30, 50))
    frame = np.linalg.qr(rng.standard_normal((9, 6)))[0].T.astype(np.float32)
    y, expected = 2 * x @ frame + 1, 2 * new @ frame + 1
    relative = rr.relative_projection(new, x, "cosine", "centering")
    found = translation.decode_relative(relative, y)
    whole = translation.apply_inverse_relative(translation.fit_inverse_relative(x, y), new)
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-4)
    directions = [each - y.mean(axis=0) for each in (np.asarray(found), expected)]
    cosines = np.sum(directions[0] * directions[1], axis=1) / np.prod(
        [np.linalg.norm(each, axis=1) for each in directions], axis=0
    )
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    many = jax.vmap(translation.decode_relative, in_axes=(None, 0))(
        relative, jnp.stack([jnp.asarray(y), 2 * y])
    )
    np.testing.assert_allclose(many[0], found, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(many[1], 2 * found, rtol=1e-4, atol=1e-3)
    gradient = jax.grad(lambda a: jnp.sum(translation.decode_relative(relative, a)))(y)
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match=r"relative \(50, 30\) and anchors \(29, 9\)"):
        translation.decode_relative(relative, y[:29])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["low_rank", "cca"])
def test_gradients_of_truncated_maps_are_finite_and_right(name):
    """Beside a dead feature and equal singular values, whose decomposition has no derivative."""
    rows = normal(0, 12, 4)
    rows = scipy.linalg.qr(rows - rows.mean(0), mode="economic")[0]
    dead = np.zeros((12, 1))
    x, direction = (np.concatenate([part, dead], 1) for part in (rows, normal(2, 12, 4)))
    y = normal(1, 12, 4)

    def size(x):
        params = translation.get(name).fit(x, y, rank=2)
        return jnp.sum(jnp.sin(translation.get(name).apply(params, x)))

    with jax.enable_x64(True):
        x, step = jnp.asarray(x), 1e-6
        gradient = jax.grad(size)(x)
        assert jnp.isfinite(gradient).all()
        expected = (size(x + step * direction) - size(x - step * direction)) / (2 * step)
        np.testing.assert_allclose(jnp.vdot(gradient, direction), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("power", [-62, 63])
def test_generalized_procrustes_without_scales_of_its_own_at_any_scale(power):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4))
    turned = x @ scipy.linalg.qr(rng.standard_normal((4, 4)))[0]
    a, b = (np.asarray(v * 2.0**power, np.float32) for v in (x, turned))
    fitted = translation.generalized_procrustes.fit([a, b], scaling=False)
    found = translation.generalized_procrustes.translate(fitted, 0, 1, a)
    np.testing.assert_allclose(np.float64(found) / 2.0**power, turned, atol=1e-5)
    consensus = translation.generalized_procrustes.apply(fitted, 0, a)
    np.testing.assert_allclose(
        np.float64(consensus) / 2.0**power, np.float64(fitted.consensus) / 2.0**power, atol=1e-5
    )


@pytest.mark.parametrize("name", ["linear", "affine"])
@pytest.mark.parametrize("scale", [1e-20, 1e19])
def test_gradients_in_the_source_at_any_scale(name, scale):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((20, d)).astype(np.float32) for d in (3, 2))
    fit, scale = getattr(translation, name).fit, np.float32(scale)

    def gradient(scale):
        return jax.grad(lambda x: jnp.sum(fit(x, y * scale).matrix))(x * scale)

    # The map has no units, so that the gradient goes with one over the scale.
    np.testing.assert_allclose(gradient(scale) * scale, gradient(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["linear", *(pytest.param(n, marks=pytest.mark.slow) for n in ("affine", "low_rank", "cca"))],
)
@pytest.mark.parametrize("scale", [1e-20, pytest.param(1e18, marks=pytest.mark.slow)])
def test_gradients_of_predictions_at_any_scale_of_the_source(name, scale):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((40, d)).astype(np.float32) for d in (6, 5))
    map_of, scale = getattr(translation, name), np.float32(scale)

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(jnp.sin(map_of.apply(map_of.fit(x, y), x))))(x)

    np.testing.assert_allclose(gradient(x * scale) * scale, gradient(x), rtol=1e-4, atol=1e-4)
