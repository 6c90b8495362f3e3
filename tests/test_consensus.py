"""The consensus relative space: against NumPy in float64, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relrep_jax as rr
from relrep_jax import consensus

fit = jax.jit(consensus.fit)
apply = jax.jit(consensus.apply, static_argnums=1)


def centred_cosine(anchors):
    centred = anchors - anchors.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return unit @ unit.T


def reference(anchors, spaces, relative_penalty):
    """The docstring of `consensus.fit` in float64."""
    target = np.mean([centred_cosine(a) for a in anchors], axis=0)
    out = []
    for a, x in zip(anchors, spaces, strict=True):
        rows = a - a.mean(axis=0)
        penalty = relative_penalty * np.mean(np.sum(rows**2, axis=1))
        gram = rows.T @ rows + penalty * np.eye(a.shape[1])
        matrix = np.linalg.solve(gram, rows.T @ (target - target.mean(axis=0)))
        out.append((x - a.mean(axis=0)) @ matrix + target.mean(axis=0))
    return out


def three_views(seed=0, n=200, noise=0.3):
    """One latent cause seen by three encoders of different widths, scales and offsets."""
    rng = np.random.default_rng(seed)
    cause = rng.standard_normal((n, 10))
    return [
        scale * (cause @ rng.standard_normal((10, d)) + noise * rng.standard_normal((n, d))) + shift
        for d, scale, shift in ((16, 1.0, 0.0), (40, 30.0, 5.0), (24, 0.01, -0.3))
    ]


@pytest.mark.parametrize("num_anchors", [12, 100], ids=["fewer than features", "more"])
@pytest.mark.parametrize("relative_penalty", [0.1, 1.0])
def test_agrees_with_float64(num_anchors, relative_penalty):
    spaces = three_views()
    anchors = [x[:num_anchors] for x in spaces]
    params = fit([jnp.asarray(a) for a in anchors], relative_penalty=relative_penalty)
    for i, expected in enumerate(reference(anchors, spaces, relative_penalty)):
        got = apply(params, i, jnp.asarray(spaces[i], jnp.float32))
        assert got.shape == (200, num_anchors)
        np.testing.assert_allclose(got, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("rank", [1, 8])
def test_a_penalty_that_rounding_drowns(rank):
    rng = np.random.default_rng(0)
    spaces = [
        (rng.normal(size=(90, rank)) @ rng.normal(size=(rank, 100)) + 1000).astype(np.float32)
        for _ in range(3)
    ]
    params = fit(spaces, relative_penalty=1e-12)
    least = fit(spaces, relative_penalty=4 * 90 * 2.0**-23)
    for matrix, other in zip(params.maps, least.maps, strict=True):
        assert bool(jnp.isfinite(matrix).all())
        np.testing.assert_array_equal(matrix, other)


def test_an_encoder_that_says_nothing_is_mapped_to_nothing():
    constant = np.full((30, 8), 0.1, np.float32) * np.arange(1, 9, dtype=np.float32)
    varied = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    np.testing.assert_array_equal(fit([constant, varied]).maps[0], 0.0)


@pytest.mark.slow
def test_is_the_same_under_jit():
    anchors = [jnp.asarray(x[:50]) for x in three_views()]
    plain, jitted = consensus.fit(anchors), fit(anchors)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), plain, jitted)


@pytest.mark.slow
def test_sets_of_anchors_are_a_vmap():
    spaces = [jnp.asarray(x) for x in three_views()]
    sets = jnp.stack([jnp.arange(30), jnp.arange(40, 70)])
    many = jax.vmap(lambda rows: apply(fit([x[rows] for x in spaces]), 0, spaces[0]))(sets)
    for rows, got in zip(sets, many, strict=True):
        one = apply(fit([x[rows] for x in spaces]), 0, spaces[0])
        np.testing.assert_allclose(got, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_does_not_see_rotations_scales_and_offsets_of_any_space():
    spaces = [jnp.asarray(x) for x in three_views()]
    key = jax.random.key(0)
    turned = []
    for i, x in enumerate(spaces):
        q, _ = jnp.linalg.qr(jax.random.normal(jax.random.fold_in(key, i), (x.shape[1],) * 2))
        turned.append((3.0 + i) * x @ q + 2.0)
    plain = fit([x[:60] for x in spaces])
    moved = fit([x[:60] for x in turned])
    for i in range(3):
        np.testing.assert_allclose(
            apply(moved, i, turned[i]), apply(plain, i, spaces[i]), atol=2e-3
        )


@pytest.mark.slow
def test_encoders_meet_in_it():
    spaces = [jnp.asarray(x) for x in three_views()]
    params = fit([x[:80] for x in spaces])
    a, b = apply(params, 0, spaces[0][80:]), apply(params, 1, spaces[1][80:])
    plain = [rr.relative_projection(x, x[:80], absolute_transform="centering")[80:] for x in spaces]

    def error(u, v):
        return float(jnp.mean(jnp.square(u - v)) / jnp.var(u))

    assert error(a, b) < 0.5 * error(plain[0], plain[1])


@pytest.mark.slow
def test_an_anchor_that_an_encoder_lacks_does_not_count():
    spaces = [jnp.asarray(x) for x in three_views()]
    anchors = [x[:40] for x in spaces]
    weights = jnp.ones((3, 40)).at[1, 5].set(0).at[2, 7:9].set(0)
    garbage = [anchors[0], anchors[1].at[5].set(jnp.nan), anchors[2].at[7:9].set(-50.0)]
    a = fit(anchors, weights=weights)
    b = fit(garbage, weights=weights)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-4, atol=1e-5), a, b)
    kept = fit([x[jnp.arange(39) + (jnp.arange(39) >= 5)] for x in anchors])
    without = fit(anchors, weights=jnp.ones((3, 40)).at[:, 5].set(0))
    column = jnp.arange(39) + (jnp.arange(39) >= 5)
    np.testing.assert_allclose(without.maps[0][:, column], kept.maps[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(without.maps[0][:, 5], 0.0)


@pytest.mark.slow
def test_gradients_are_finite_at_degenerate_anchors():
    x = jnp.asarray(three_views()[0])[:20]
    x = x.at[3].set(x[4]).at[5].set(x.mean(axis=0))

    def loss(a):
        params = fit([a, jnp.zeros_like(a)])
        return jnp.sum(jnp.square(apply(params, 0, a)))

    assert bool(jnp.isfinite(jax.grad(loss)(x)).all())


@pytest.mark.slow
def test_finds_the_correspondence_of_pools_in_any_order():
    # Seen through orthonormal maps, so that cosines in different spaces are alike.
    rng = np.random.default_rng(1)
    cause = rng.standard_normal((400, 12))
    spaces = []
    for d in (20, 32, 26):
        frame, _ = np.linalg.qr(rng.standard_normal((d, 12)))
        spaces.append(jnp.asarray(cause @ frame.T + 0.2 * rng.standard_normal((400, d))))
    anchors = [x[:25] for x in spaces]
    pools = [x[25:300][rng.permutation(275)] for x in spaces]
    few = fit(anchors)
    many = jax.jit(consensus.match_and_fit)(anchors, pools)

    def disagreement(params):
        u, v = (apply(params, i, spaces[i][300:]) for i in (0, 1))
        u, v = u - u.mean(0), v - v.mean(0)
        return float(jnp.sum(jnp.square(u - v)) / jnp.sum(jnp.square(u)))

    assert many.maps[0].shape == (20, 25 + 275)
    assert disagreement(many) < 0.8 * disagreement(few)


@pytest.mark.slow
def test_mutual_matches():
    x = jnp.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    y = jnp.array([[0.0, 2.0], [3.0, 0.0]])
    to, mutual = consensus.mutual_matches(x, y)
    np.testing.assert_array_equal(to, [1, 1, 0])
    np.testing.assert_array_equal(mutual, [True, False, True])


@pytest.mark.slow
def test_pools_of_different_sizes():
    spaces = [jnp.asarray(x) for x in three_views()]
    pools = [spaces[0][40:], spaces[1][40:100], spaces[2][60:]]
    params = jax.jit(consensus.match_and_fit)([x[:40] for x in spaces], pools)
    assert params.maps[1].shape == (40, 40 + 160)
    assert all(bool(jnp.isfinite(m).all()) for m in params.maps)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: consensus.fit([x]), "two or more"),
        (lambda x: consensus.fit(x), "two or more"),
        (lambda x: consensus.fit([x, x[:-1]]), "corresponding rows"),
        (lambda x: consensus.fit([x, x], relative_penalty=0.0), "must be positive"),
        (lambda x: consensus.fit([x, x], weights=jnp.ones((2, 3))), r"shape \[2, 20\]"),
        (lambda x: consensus.apply(fit([x, x]), 2, x), "no space 2"),
        (lambda x: consensus.apply(fit([x, x]), 0, x[:, 1:]), "width"),
        (lambda x: consensus.match_and_fit([x, x], [x]), "1 pools for 2 spaces"),
        (lambda x: consensus.match_and_fit([x, x], [x, x[:, 1:]]), r"pools\[1\]"),
        (lambda x: consensus.match_and_fit([x, x], [x, x], rounds=0), "rounds"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.asarray(three_views(n=20)[0]))


def test_matches_need_one_space():
    with pytest.raises(ValueError, match=r"x \(5, 4\) and y \(6, 2\)"):
        consensus.mutual_matches(jnp.ones((5, 4)), jnp.ones((6, 2)))
