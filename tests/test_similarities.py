"""Behaviour of the pairwise similarities and distances."""

import functools
import os
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.covariance import LedoitWolf

from relrep_jax import measures
from relrep_jax import similarities as sim
from relrep_jax.projection import relative_projection
from relrep_jax.similarities import pairwise

NAMES = sorted(sim.SIMILARITIES)
DISTANCES = ["euclidean", "manhattan", "chebyshev", "minkowski3", "minkowski1.5"]


def mostly_slow(cases, fast):
    """The cases of a test, all but the fast ones marked as slow."""
    cases = [case if isinstance(case, tuple) else (case,) for case in cases]
    fast = [case if isinstance(case, tuple) else (case,) for case in fast]
    return [pytest.param(*c, marks=[] if c in fast else pytest.mark.slow) for c in cases]


def function(name):
    if name.startswith("minkowski"):
        return functools.partial(sim.minkowski, p=float(name.removeprefix("minkowski")))
    return sim.get(name)


def reference(name, x, a):
    """The same in float64 by SciPy and NumPy."""
    x, a = np.asarray(x, np.float64), np.asarray(a, np.float64)
    if name.startswith("minkowski"):
        return cdist(x, a, "minkowski", p=float(name.removeprefix("minkowski")))
    if name == "inner":
        return x @ a.T
    if name == "change_of_basis":
        return x @ np.linalg.pinv(a)
    if name in ("cosine", "angular"):
        u = x / np.linalg.norm(x, axis=1, keepdims=True)
        v = a / np.linalg.norm(a, axis=1, keepdims=True)
        return u @ v.T if name == "cosine" else np.arccos(np.clip(u @ v.T, -1, 1)) / np.pi
    return cdist(x, a, {"manhattan": "cityblock"}.get(name, name))


def problem(n, m, d, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)).astype(dtype)
    a = rng.standard_normal((m, d)).astype(dtype)
    return x, a


def near_problem(n, m, d, offset=0.0, scale=1.0):
    """Samples of which many are anchors, next to one anchor, or next to several at once."""
    x, a = problem(n, m, d)
    noise = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    a[1] = a[0]
    a[2:6] = a[0] + 1e-3 * noise[:4]
    x[: m // 2] = a[: m // 2]
    x[m // 2 : m] = a[m // 2 :] + 1e-4 * noise[m // 2 : m]
    x[m : m + 20] = a[0] + 1e-4 * noise[m : m + 20]
    scale, offset = np.float32(scale), np.float32(offset)
    return (x + offset) * scale, (a + offset) * scale


def assert_relative(actual, expected, tolerance):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    # Zeros must be met exactly: a sample that is an anchor has distance zero.
    error = np.abs(actual - expected) / np.where(expected == 0, np.finfo(float).tiny, expected)
    assert error.max() <= tolerance, f"largest relative error {error.max()}"


SIMILARITIES = NAMES + ["minkowski3", "minkowski1.5", "minkowski20"]


class AgreesWithReference(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(*SIMILARITIES)
    def test_small(self, name):
        self.agrees(name, (40, 20, 35))

    def agrees(self, name, size):
        x, a = problem(*size)
        np.testing.assert_allclose(
            self.variant(function(name))(x, a), reference(name, x, a), rtol=2e-6, atol=4e-6
        )


@pytest.mark.slow
class AgreesWithReferenceWhereTiny(AgreesWithReference):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.product(name=SIMILARITIES, size=[(1, 1, 1), (5, 3, 2)])
    def test_tiny(self, name, size):
        self.agrees(name, size)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize(
    "size",
    [
        (1030, 20, 9),
        *(pytest.param(s, marks=pytest.mark.slow) for s in [(30, 800, 17), (1100, 800, 32)]),
    ],
)
def test_many_tiles(name, size):
    x, a = problem(*size)
    assert_relative(jax.jit(function(name))(x, a), reference(name, x, a), 3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name, tolerance", [("cosine", 1e-6), ("angular", 1e-6), ("inner", 2e-4)])
def test_large_products(name, tolerance):
    x, a = problem(2000, 300, 512)
    np.testing.assert_allclose(function(name)(x, a), reference(name, x, a), atol=tolerance)


@pytest.mark.parametrize("size", [(100, 30, 24), (1000, 400, 700)], ids=["differences", "product"])
@pytest.mark.parametrize("offset", [0.0, pytest.param(1e4, marks=pytest.mark.slow), 1e6])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_euclidean_keeps_its_digits(size, offset, scale):
    x, a = near_problem(*size, offset=offset, scale=scale)
    assert_relative(jax.jit(sim.euclidean)(x, a), reference("euclidean", x, a), 1e-5)


def test_euclidean_with_every_row_close_to_an_anchor():
    x, a = problem(1000, 400, 700)
    x = a[np.arange(1000) % 400] + np.float32(1e-4) * x
    assert_relative(jax.jit(sim.euclidean)(x, a), reference("euclidean", x, a), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(100, 30, 24), (1000, 400, 700)], ids=["differences", "product"])
@pytest.mark.parametrize("where", ["samples", "anchors", "both"])
def test_euclidean_of_rows_beside_a_huge_one(size, where):
    """Neither these rows nor their gradients vanish beside a square of 1e50."""
    x, a = problem(*size)
    x[-1] *= 1e25 if where != "anchors" else 1
    a[-1] *= 1e25 if where != "samples" else 1
    assert_relative(jax.jit(sim.euclidean)(x, a), reference("euclidean", x, a), 1e-5)
    if size[0] > 100:
        return
    mapped = jax.jit(jax.vmap(sim.euclidean, in_axes=(0, None)))(np.stack([x, x[::-1]]), a)
    assert_relative(mapped[1], reference("euclidean", x[::-1], a), 1e-5)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(sim.euclidean(x, a[:-1])[:-1])))(x)
    assert np.isfinite(slope).all()
    assert (np.linalg.norm(slope[:-1], axis=1) > 0.1).all()


def test_product_path_is_the_one_tested():
    assert pairwise.MATMUL_SIZE <= 1000 * 400 * 700
    jaxpr = str(jax.make_jaxpr(sim.euclidean)(*problem(1000, 400, 700)))
    assert "dot_general" in jaxpr
    assert "dot_general" not in str(jax.make_jaxpr(sim.euclidean)(*problem(100, 30, 24)))


@pytest.mark.slow
@pytest.mark.parametrize("size", [(100, 30, 24), (1000, 400, 700)], ids=["differences", "product"])
def test_infinite_and_missing_values_stay_in_their_rows(size):
    x, a = problem(*size)
    expected = np.asarray(sim.euclidean(x, a))
    x[3, 0], x[4, 1] = np.inf, np.nan
    actual = np.asarray(sim.euclidean(x, a))
    assert np.isinf(actual[3]).all()
    assert np.isnan(actual[4]).all()
    others = np.setdiff1d(np.arange(len(x)), [3, 4])
    np.testing.assert_allclose(actual[others], expected[others], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cosine", "angular"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("size", [(20, 10, 30), (2000, 300, 512)])
def test_directions_of_tiny_and_huge_vectors(name, scale, size):
    x, a = problem(*size)
    scaled = function(name)(x * np.float32(scale), a / np.float32(scale))
    np.testing.assert_allclose(scaled, reference(name, x, a), atol=1e-6)


@pytest.mark.slow
def test_angular_keeps_its_digits_near_parallel():
    angles = np.array([0.0, 1e-6, 1e-4, 0.1, np.pi / 2, np.pi - 1e-3, np.pi])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    a = np.array([[1.0, 0.0]], np.float32)
    true = np.arctan2(x[:, 1].astype(float), x[:, 0].astype(float)) / np.pi
    np.testing.assert_allclose(sim.angular(x, a)[:, 0], true, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("p, name", [(1, "manhattan"), (2.0, "euclidean"), (np.inf, "chebyshev")])
def test_minkowski_is_the_named_distance(p, name):
    x, a = problem(7, 4, 3)
    np.testing.assert_array_equal(
        sim.minkowski(x, a, np.float64(p)), sim.minkowski(x, a, np.float32(p))
    )
    np.testing.assert_array_equal(sim.minkowski(x, a, p), function(name)(x, a))


@pytest.mark.slow
@pytest.mark.parametrize("p", [3.0, 1.5, 40.0])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_minkowski_neither_overflows_nor_underflows(p, scale):
    x, a = problem(7, 4, 30)
    scaled = sim.minkowski(x * np.float32(scale), a * np.float32(scale), p)
    assert_relative(np.asarray(scaled, float) / scale, reference(f"minkowski{p}", x, a), 5e-6)


@pytest.mark.slow
def test_minkowski_near_the_largest_number():
    x, a = np.array([[9e37, 0, 0]], np.float32), np.array([[0, 9e37, 0], [0, 0, 0]], np.float32)
    value, gradient = jax.value_and_grad(lambda x: sim.minkowski(x, a, 3.0)[0, 0])(x)
    assert value == pytest.approx(9e37 * 2 ** (1 / 3), rel=1e-5)
    np.testing.assert_allclose(gradient[0], [2 ** (-2 / 3), -(2 ** (-2 / 3)), 0], rtol=1e-5)
    assert sim.minkowski(x, a, 3.0)[0, 1] == pytest.approx(9e37, rel=1e-5)
    x = np.array([[np.inf, 0, 0], [np.inf, np.nan, 0], [3, 4, 0]], np.float32)
    found = np.asarray(sim.minkowski(x, np.zeros((1, 3), np.float32), 3.0))[:, 0]
    assert found[0] == np.inf
    assert np.isnan(found[1])
    assert found[2] == pytest.approx(91 ** (1 / 3), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", DISTANCES)
def test_a_row_that_is_not_finite_leaves_huge_ones_alone(name, bad):
    x = np.array([[bad, 0], [1e25, 0], [1, 0]], np.float32)
    found = np.asarray(function(name)(x, np.array([[0, 1]], np.float32)))[:, 0]
    assert not np.isfinite(found[0])
    assert found[1] == pytest.approx(1e25, rel=1e-5)


# --- properties --------------------------------------------------------------------------------

sizes = st.sampled_from([(3, 8, 2), (12, 5, 19)])
seeds = st.integers(0, 2**16)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(size=sizes, seed=seeds, name=st.sampled_from(DISTANCES + ["angular"]))
def test_distances_are_metrics(size, seed, name):
    x, a = problem(*size, seed)
    d = function(name)
    xa, xx, aa = (np.asarray(d(*pair)) for pair in ((x, a), (x, x), (a, a)))
    assert (xa >= 0).all()
    np.testing.assert_allclose(xa.T, d(a, x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.diag(xx), 0, atol=1e-6)
    assert (xa[:, None, :] <= xx[:, :, None] + xa[None] + 1e-4).all()
    assert (xa[:, :, None] <= xa[:, None, :] + aa[None] + 1e-4).all()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(size=sizes, seed=seeds)
def test_distances_are_ordered(size, seed):
    x, a = problem(*size, seed)
    orders = [1, 1.5, 2, 3, 7.5, float("inf")]
    values = np.stack([sim.minkowski(x, a, p) for p in orders])
    assert (np.diff(values, axis=0) <= 1e-5 * values[0]).all()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(size=sizes, seed=seeds)
def test_ranges(size, seed):
    x, a = problem(*size, seed)
    assert (np.abs(sim.cosine(x, a)) <= 1 + 1e-6).all()
    assert ((sim.angular(x, a) >= 0) & (sim.angular(x, a) <= 1)).all()
    assert ((sim.rbf(x, a, 0.7) >= 0) & (sim.rbf(x, a, 0.7) <= 1)).all()


# --- invariances -------------------------------------------------------------------------------


def invertible(rng, d):
    return (
        ortho_group.rvs(d, random_state=rng)
        * rng.uniform(0.5, 2, d)
        @ ortho_group.rvs(d, random_state=rng)
    )


MAPS = {
    "orthogonal": lambda rng, d: (ortho_group.rvs(d, random_state=rng), 0),
    "rescaling": lambda rng, d: (3.0 * np.eye(d), 0),
    "translation": lambda rng, d: (np.eye(d), rng.standard_normal(d) * 2),
    "signed permutation": lambda rng, d: (
        np.eye(d)[rng.permutation(d)] * rng.choice([-1.0, 1.0], d),
        0,
    ),
    "diagonal": lambda rng, d: (np.diag(rng.uniform(0.3, 3, d)), 0),
    "linear": lambda rng, d: (invertible(rng, d), 0),
    "affine": lambda rng, d: (invertible(rng, d), rng.standard_normal(d) * 2),
}
ISOMETRIES = {"orthogonal", "signed permutation", "translation"}
INVARIANT = {
    "cosine": {"orthogonal", "signed permutation", "rescaling"},
    "angular": {"orthogonal", "signed permutation", "rescaling"},
    "inner": {"orthogonal", "signed permutation"},
    "euclidean": ISOMETRIES,
    "manhattan": {"signed permutation", "translation"},
    "chebyshev": {"signed permutation", "translation"},
    "minkowski3": {"signed permutation", "translation"},
    "rbf": ISOMETRIES,
    "change_of_basis": set(MAPS) - {"translation", "affine"},
    "mahalanobis": set(MAPS),
    "whitened_inner": set(MAPS),
}


def with_statistics(name, space, x, a):
    """`name` with what it needs to know estimated from `space`."""
    if name == "rbf":
        return sim.rbf(x, a, 5.0)
    if name == "change_of_basis":
        return sim.change_of_basis(x, a)
    if name in ("mahalanobis", "whitened_inner"):
        mean, precision = sim.covariance_statistics(space, shrinkage=0.0)
        if name == "mahalanobis":
            return sim.mahalanobis(x, a, precision)
        return sim.whitened_inner(x, a, mean, precision)
    return function(name)(x, a)


@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("name", INVARIANT)
def test_invariances(name, map_name):
    rng = np.random.default_rng(3)
    d = 12
    space = rng.standard_normal((200, d))
    matrix, shift = MAPS[map_name](rng, d)
    moved = space @ matrix + shift
    with jax.enable_x64(True):
        before = np.asarray(with_statistics(name, space, space[:60], space[60:90]))
        after = np.asarray(with_statistics(name, moved, moved[:60], moved[60:90]))
    change = np.abs(after - before).max() / np.abs(before).max()
    if map_name in INVARIANT[name]:
        assert change < 1e-9
    else:
        assert change > 0.02


def test_gradient_of_large_cosine(monkeypatch):
    x, a = problem(60, 30, 12)
    slope = lambda x: jax.jit(jax.grad(lambda x: jnp.sum(sim.cosine(x, a) ** 2)))(x)  # noqa: E731
    small = slope(x)
    monkeypatch.setattr(pairwise, "MATMUL_SIZE", 1)
    assert "cond" in str(jax.make_jaxpr(sim.cosine)(x, a))
    np.testing.assert_allclose(slope(x), small, atol=1e-6)


def test_cosine_ignores_the_length_of_each_sample():
    x, a = problem(20, 10, 8)
    lengths = np.random.default_rng(0).uniform(0.1, 10, (20, 1)).astype(np.float32)
    np.testing.assert_allclose(sim.cosine(x * lengths, a), sim.cosine(x, a), atol=1e-6)


# --- derivatives -------------------------------------------------------------------------------


def broadcast(name, x, a):
    """The plain expression, differentiated by JAX itself."""
    t = x[:, None] - a[None]
    if name == "manhattan":
        return jnp.sum(jnp.abs(t), -1)
    if name == "chebyshev":
        return jnp.max(jnp.abs(t), -1)
    p = 2.0 if name == "euclidean" else float(name.removeprefix("minkowski"))
    return jnp.sum(jnp.abs(t) ** p, -1) ** (1 / p)


@pytest.mark.parametrize("name", mostly_slow(DISTANCES, fast=("euclidean", "chebyshev")))
@pytest.mark.parametrize("size", [(20, 33, 19), pytest.param((40, 16, 16), marks=pytest.mark.slow)])
def test_gradients_of_both_arguments(name, size):
    x, a = problem(*size)
    weights = problem(size[0], size[1], 1)[0] * np.ones(size[1], np.float32)
    loss = lambda f: lambda x, a: jnp.sum(weights * jnp.sin(f(x, a)))  # noqa: E731
    expected = jax.grad(loss(functools.partial(broadcast, name)), (0, 1))(x, a)
    for argument in (0, (0, 1)):
        actual = jax.jit(jax.grad(loss(function(name)), argument))(x, a)
        wanted = expected if argument == (0, 1) else expected[argument]
        chex.assert_trees_all_close(actual, wanted, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES + ["minkowski3"])
def test_first_and_second_derivatives_in_both_modes(name):
    f = function(name)
    with jax.enable_x64(True):
        x, a = (jnp.asarray(v) for v in problem(3, 4, 5, dtype=np.float64))
        dx, da = (jnp.asarray(v) for v in problem(3, 4, 5, seed=1, dtype=np.float64))
        along = lambda h: (x + h * dx, a + h * da)  # noqa: E731
        loss = lambda x, a: jnp.sum(jnp.sin(f(x, a)))  # noqa: E731
        gradient = jax.grad(loss, (0, 1))
        slope = lambda x, a: sum(jnp.vdot(*v) for v in zip(gradient(x, a), (dx, da), strict=True))  # noqa: E731

        @jax.jit
        def derivatives(h):
            forward = jax.jvp(lambda h: loss(*along(h)), (h,), (1.0,))[1]
            forward_reverse = jax.jvp(lambda h: gradient(*along(h)), (h,), (1.0,))[1]
            return forward, slope(*along(h)), forward_reverse, jax.grad(slope, (0, 1))(*along(h))

        loss, gradient = jax.jit(loss), jax.jit(gradient)
        h = 1e-5
        first = (loss(*along(h)) - loss(*along(-h))) / (2 * h)
        second = jax.tree.map(
            lambda u, v: (u - v) / (2 * h), gradient(*along(h)), gradient(*along(-h))
        )
        forward, reverse, forward_reverse, reverse_reverse = derivatives(0.0)
    np.testing.assert_allclose([forward, reverse], first, rtol=1e-6)
    chex.assert_trees_all_close(forward_reverse, second, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(reverse_reverse, second, rtol=1e-5, atol=1e-7)


def test_chebyshev_ties_share_the_gradient():
    gradient = jax.grad(lambda x: sim.chebyshev(x, jnp.zeros((1, 4)))[0, 0])
    np.testing.assert_allclose(
        gradient(jnp.array([[2.0, -2.0, 1.0, 2.0]])), [[1 / 3, -1 / 3, 0, 1 / 3]], rtol=1e-6
    )


@pytest.mark.parametrize(
    "size",
    [(100, 30, 24), pytest.param((1000, 400, 700), marks=pytest.mark.slow)],
    ids=["differences", "product"],
)
def test_euclidean_gradient_close_to_anchors(size):
    x, a = near_problem(*size, offset=10.0)
    d = reference("euclidean", x, a)
    t = 1 / np.where(d > 0, d, np.inf)
    expected = t.sum(1)[:, None] * x.astype(float) - t @ a.astype(float)
    actual = jax.jit(jax.grad(lambda x: jnp.sum(sim.euclidean(x, a))))(x)
    # Unit vectors add up, one for each anchor.
    np.testing.assert_allclose(actual, expected, atol=3e-5 * np.sqrt(size[1]))


@pytest.mark.parametrize(
    "name",
    mostly_slow(
        NAMES + ["minkowski3", "minkowski1.5"],
        fast=("cosine", "euclidean", "manhattan", "chebyshev", "inner"),
    ),
)
def test_gradients_are_finite_at_anchors_and_zero_vectors(name):
    x, a = problem(6, 6, 4)
    x[:3] = a[:3]
    x[3], a[4], x[5], a[5] = 0, 0, 0, 0
    values, gradients = jax.value_and_grad(lambda x, a: jnp.sum(function(name)(x, a)), (0, 1))(x, a)
    chex.assert_tree_all_finite((values, gradients))
    if name in DISTANCES:
        at_anchor = jax.grad(lambda x: jnp.sum(function(name)(x, a[:1])))(a[:1])
        np.testing.assert_array_equal(at_anchor, np.zeros((1, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("name, value", [("cosine", 0.0), ("angular", 0.5)])
@pytest.mark.parametrize("size", [(3, 3, 4), (2000, 300, 512)])
def test_directions_of_zero_vectors(name, value, size):
    x, a = problem(*size)
    x[0], a[1] = 0, 0
    gradient = jax.grad(lambda x: jnp.sum(function(name)(x, a)))(x)
    assert np.isfinite(gradient).all()
    actual = np.asarray(function(name)(x, a))
    np.testing.assert_allclose(actual[0], value, atol=1e-7)
    np.testing.assert_allclose(actual[:, 1], value, atol=1e-7)


# --- memory ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("argument", [0, (0, 1)])
def test_gradient_never_holds_all_differences(name, argument):
    n, m, d = 400, 300, 256
    x, a = problem(n, m, d)
    loss = jax.jit(jax.value_and_grad(lambda x, a: jnp.sum(function(name)(x, a) ** 2), argument))
    memory = loss.lower(x, a).compile().memory_analysis()
    # All differences are 123 MB; groups of 16 vectors or features and a few [n, m] are far less.
    assert memory.temp_size_in_bytes < 4 * n * m * d / 8


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTANCES)
def test_distance_never_holds_all_differences(name):
    x, a = problem(3000, 700, 40)
    memory = jax.jit(function(name)).lower(x, a).compile().memory_analysis()
    # All differences are 336 MB, a result 8.4 MB.
    assert memory.temp_size_in_bytes < 3 * 4 * 3000 * 700


# --- transformations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size",
    mostly_slow(
        [(name, (9, 7, 5)) for name in NAMES + ["minkowski3"]]
        + [(name, (1100, 20, 18)) for name in ("manhattan", "euclidean")],
        fast=[(name, (9, 7, 5)) for name in ("cosine", "euclidean", "chebyshev")],
    ),
)
def test_vmap_over_either_and_both(name, size):
    x, a = problem(*size)
    f = function(name)
    xs, as_ = np.stack([x, 2 * x]), np.stack([a, -a, a + 1])
    over_x = jax.vmap(f, (0, None))(xs, a)
    over_a = jax.vmap(f, (None, 0))(x, as_)
    over_both = jax.jit(jax.vmap(jax.vmap(f, (None, 0)), (0, None)))(xs, as_)
    for i in range(2):
        np.testing.assert_allclose(over_x[i], f(xs[i], a), rtol=1e-5, atol=1e-5)
        for j in range(3):
            np.testing.assert_allclose(over_both[i, j], f(xs[i], as_[j]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(over_a, np.stack([f(x, a) for a in as_]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_vmap_of_the_product_path():
    x, a = near_problem(1000, 400, 700)
    xs = np.stack([x, x[::-1] * 3])
    actual = jax.jit(jax.vmap(sim.euclidean, (0, None)))(xs, a)
    for i in range(2):
        assert_relative(actual[i], reference("euclidean", xs[i], a), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES + ["minkowski3"])
def test_gradients_inside_vmap_and_scan(name):
    x, a = problem(6, 20, 5)
    f = function(name)
    gradient = jax.grad(lambda x, a: jnp.mean(f(x, a)), (0, 1))

    def train(x, a):
        def step(state, _):
            return jax.tree.map(lambda v, g: v - 0.1 * g, state, gradient(*state)), None

        return jax.lax.scan(step, (x, a), length=3)[0]

    mapped = jax.jit(jax.vmap(train))(np.stack([x, x + 1]), np.stack([a, a - 1]))
    for i, start in enumerate([(x, a), (x + 1, a - 1)]):
        chex.assert_trees_all_close(
            jax.tree.map(lambda v, i=i: v[i], mapped), train(*start), atol=1e-5
        )


@pytest.mark.parametrize(
    "name, sizes",
    mostly_slow(
        [
            (name, sizes)
            for name in ["chebyshev", "manhattan", "euclidean", "angular", "minkowski3"]
            for sizes in [(64, 8, 16), (200, 20, 64), (500, 30, 100)]
        ],
        fast=[("chebyshev", (64, 8, 16))],
    ),
)
def test_inputs_are_rounded_before_they_are_subtracted(name, sizes):
    """What makes them, compiled together with the distance, must not be merged into it: the
    difference that is the largest would not be found again by the derivative."""
    n, m, d = sizes
    x = np.random.default_rng(0).standard_normal((n, d), np.float32)
    a = x[:m].copy()
    f = function(name)

    def loss(x, a):
        # Two divisions, then a product.
        x, a = (v / jnp.linalg.norm(v, axis=1, keepdims=True) * 3 for v in (x, a))
        return jnp.sum(f(x, a) ** 2)

    gradient = jax.grad(loss, (0, 1))
    expected = gradient(jnp.asarray(x), jnp.asarray(a))
    for found, wanted in zip(jax.jit(gradient)(x, a), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_shards_and_shard_map_agree_with_one_device():
    program = """
        import jax
        jax.config.update("jax_num_cpu_devices", 2)
        import jax.numpy as jnp, numpy as np
        from functools import partial
        from jax.sharding import NamedSharding, PartitionSpec as P
        from relrep_jax import similarities as sim
        mesh = jax.make_mesh((2,), ("data",))
        fs = {name: sim.get(name) for name in ("cosine", "euclidean", "manhattan", "chebyshev")}
        for n, m, d in [(40, 20, 18), (2200, 20, 18), (1600, 350, 512)]:
            rng = np.random.default_rng(0)
            x = rng.standard_normal((n, d), np.float32)
            a = rng.standard_normal((m, d), np.float32)
            x[:5] = a[:5] + 1e-2 * x[:5]
            sharded = jax.device_put(x, NamedSharding(mesh, P("data")))
            for name, f in fs.items():
                if n > 40 and name != "euclidean":
                    continue
                expected = f(x, a)
                close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)
                close(jax.jit(f)(sharded, a), expected)
                specs = dict(mesh=mesh, in_specs=(P("data"), P()))
                close(jax.jit(jax.shard_map(f, out_specs=P("data"), **specs))(sharded, a), expected)
                loss = lambda x, a: jnp.sum(jnp.sin(f(x, a)))
                total = jax.shard_map(
                    lambda x, a: jax.lax.psum(loss(x, a), "data"), out_specs=P(), **specs
                )
                if d == 512:
                    continue
                for actual, wanted in zip(
                    jax.jit(jax.grad(total, (0, 1)))(sharded, a),
                    jax.grad(loss, (0, 1))(x, a),
                ):
                    close(actual, wanted, atol=2e-4)
                # Not inside of `shard_map`: the arrays' types say how they are spread.
                for specs in [(P("data"), P()), (P(), P("data"))]:
                    spread = [NamedSharding(mesh, spec) for spec in specs]
                    spread = jax.device_put([x, a], spread)
                    found = jax.jit(jax.grad(loss, (0, 1)))(*spread)
                    for actual, wanted in zip(found, jax.grad(loss, (0, 1))(x, a)):
                        close(actual, wanted, atol=2e-4)
                # A training step: the gradient is taken inside, of one seed a device.
                pair = jnp.stack([x, x + 1]), jnp.stack([a, a - 1])
                step = lambda x, a: jax.vmap(jax.grad(loss, (0, 1)))(x, a)
                shards = jax.shard_map(step, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
                apart = jax.device_put(pair, NamedSharding(mesh, P("data")))
                for actual, wanted in zip(jax.jit(shards)(*apart), jax.jit(step)(*pair)):
                    close(actual, wanted, atol=2e-4)
        print("agreed")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert result.stdout == "agreed\n", result.stderr[-3000:]


# --- dtypes ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES + ["minkowski3"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype_of_the_result_is_that_of_the_inputs(name, dtype):
    x, a = (jnp.asarray(v, dtype) for v in problem(20, 10, 40))
    values = function(name)(x, a)
    assert values.dtype == dtype
    # One rounding at the end: sums are kept in float32.
    expected = reference(name, x.astype(jnp.float32), a.astype(jnp.float32))
    np.testing.assert_allclose(
        values.astype(jnp.float32), expected, rtol=float(jnp.finfo(dtype).eps) * 8, atol=3e-6
    )
    gradient = jax.grad(lambda x: jnp.sum(function(name)(x, a)))(x)
    assert gradient.dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mixed_and_whole_dtypes(name):
    x, a = problem(5, 4, 3)
    whole = np.arange(12).reshape(4, 3)
    assert function(name)(x, whole).dtype == jnp.float32
    assert function(name)(whole, whole).dtype == jnp.float32
    assert function(name)(jnp.asarray(x, jnp.bfloat16), a).dtype == jnp.float32
    assert function(name)(x.astype(np.float64), a.astype(np.float64)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert function(name)(whole, whole).dtype == jnp.float32
        x, a = problem(5, 4, 3, dtype=np.float64)
        values = function(name)(x, a)
        assert values.dtype == jnp.float64
        np.testing.assert_allclose(values, reference(name, x, a), rtol=1e-13, atol=1e-14)


# --- doors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES + ["minkowski3"])
def test_errors_state_both_shapes(name):
    with pytest.raises(ValueError, match=r"\(5, 3\).*\(4, 2\)"):
        function(name)(jnp.ones((5, 3)), jnp.ones((4, 2)))
    with pytest.raises(ValueError, match=r"\(2, 5, 3\).*vmap"):
        function(name)(jnp.ones((2, 5, 3)), jnp.ones((4, 3)))


@pytest.mark.parametrize("p", [0.5, -1, float("nan"), "2", None])
def test_minkowski_rejects_what_is_no_order(p):
    with pytest.raises(ValueError, match="at least 1"):
        sim.minkowski(jnp.ones((2, 3)), jnp.ones((2, 3)), p)


def test_get():
    assert all(sim.get(name) is f for name, f in sim.SIMILARITIES.items())
    partial = functools.partial(sim.minkowski, p=3.0)
    assert sim.get(partial) is partial
    with pytest.raises(ValueError, match="Unknown similarity 'cosin'.*'cosine'.*manhattan"):
        sim.get("cosin")


# --- with statistics ---------------------------------------------------------------------------


class Statistics(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_mahalanobis(self):
        x, a = problem(50, 9, 6)
        x, a = x + 100, a + 100
        root = problem(6, 6, 6)[0].astype(float)
        precision = root @ root.T
        expected = cdist(x.astype(float), a.astype(float), "mahalanobis", VI=precision)
        actual = self.variant(sim.mahalanobis)(x, a, precision.astype(np.float32))
        np.testing.assert_allclose(actual, expected, rtol=1e-3)

    @chex.variants(with_jit=True, without_jit=True)
    def test_whitened_inner(self):
        x, a = problem(20, 9, 6)
        mean, root = x[0], problem(6, 6, 6)[0]
        precision = root @ root.T
        actual = self.variant(sim.whitened_inner)(x, a, mean, precision)
        np.testing.assert_allclose(actual, (x - mean) @ precision @ (a - mean).T, atol=1e-3)

    @chex.variants(with_jit=True, without_jit=True)
    def test_rbf(self):
        x, a = problem(20, 9, 6)
        expected = np.exp(-(cdist(x.astype(float), a.astype(float)) ** 2) / (2 * 1.7**2))
        np.testing.assert_allclose(self.variant(sim.rbf)(x, a, 1.7), expected, rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((4, 9), (9, 9), (20, 9))
    def test_change_of_basis(self, m, d):
        x, a = problem(15, m, d)
        expected = np.linalg.lstsq(a.T.astype(float), x.T.astype(float), rcond=None)[0].T
        actual = self.variant(sim.change_of_basis)(x, a)
        np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


def test_change_of_basis_of_dependent_anchors():
    x, a = problem(5, 4, 6)
    a = np.concatenate([a, a[:2], np.zeros((1, 6), np.float32)])
    expected = np.linalg.lstsq(a.T, x.T, rcond=1e-5)[0].T
    np.testing.assert_allclose(sim.change_of_basis(x, a), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1e19])
def test_gradients_of_a_change_of_basis_of_any_size(scale):
    x, a = problem(7, 4, 5)

    def total(a, scale):
        return jnp.sum(sim.change_of_basis(x * scale, a))

    expected = jax.grad(total)(a, 1.0)
    actual = jax.grad(total)(a * np.float32(scale), np.float32(scale)) * np.float32(scale)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("cosine", "manhattan") else pytest.mark.slow)
        for name in sorted(sim.SIMILARITIES)
    ],
)
def test_exported_for_any_number_of_samples(name):
    (n,) = jax.export.symbolic_shape("n")
    _, a = problem(1, 4, 6)

    def project(x):
        return relative_projection(x, a, name)

    samples = jax.ShapeDtypeStruct((n, 6), jnp.float32)
    exported = jax.export.deserialize(jax.export.export(jax.jit(project))(samples).serialize())
    for count in (3, 2000):  # tiled, where it is known
        x, _ = problem(count, 1, 6)
        np.testing.assert_allclose(exported.call(x), project(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_mahalanobis_of_the_identity_is_euclidean_with_gradients():
    x, a = problem(5, 4, 3)
    precision = jnp.eye(3)
    np.testing.assert_allclose(sim.mahalanobis(x, a, precision), sim.euclidean(x, a), rtol=1e-5)
    with jax.enable_x64(True):
        x, a = (jnp.asarray(v, jnp.float64) for v in (x, a))
        check_grads(jax.jit(sim.mahalanobis), (x, a, jnp.eye(3)), 1, ["rev"], rtol=1e-4)


@pytest.mark.parametrize("precision", [jnp.eye(2), jnp.ones(3)])
def test_statistics_of_another_width_are_rejected(precision):
    x, a = problem(5, 4, 3)
    with pytest.raises(ValueError, match=r"precision must have shape \[3, 3\].*\(5, 3\)"):
        sim.mahalanobis(x, a, precision)
    with pytest.raises(ValueError, match=r"mean must have shape \[3\]"):
        sim.whitened_inner(x, a, jnp.ones(2), jnp.eye(3))


@pytest.mark.parametrize("n, d", [(200, 10), (8, 20)])
@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (1e3, 1e4), (1e-12, 0.0)])
def test_covariance_statistics_agree_with_scikit_learn(n, d, scale, offset):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)) * rng.uniform(0.3, 3, d) * scale + offset
    fitted = LedoitWolf().fit(x)
    with jax.enable_x64(True):
        mean, precision = jax.jit(sim.covariance_statistics)(x)
    np.testing.assert_allclose(mean, fitted.location_, rtol=1e-10, atol=1e-10 * scale)
    np.testing.assert_allclose(
        precision, fitted.precision_, rtol=1e-6, atol=1e-6 * np.abs(fitted.precision_).max()
    )
    x = x.astype(np.float32)
    mean, precision = jax.jit(sim.covariance_statistics)(x)
    assert precision.dtype == mean.dtype == jnp.float32
    fitted = LedoitWolf().fit(x.astype(float))
    np.testing.assert_allclose(
        precision, fitted.precision_, atol=1e-3 * np.abs(fitted.precision_).max()
    )


@pytest.mark.slow
@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", 0.0])
@pytest.mark.parametrize("kind", ["constant feature", "fewer samples", "one sample", "constant"])
def test_degenerate_covariances_stay_finite(shrinkage, kind):
    x, a = problem(5, 3, 8)
    if kind == "constant feature":
        x[:, 2] = 7
    if kind == "one sample":
        x = x[:1]
    if kind == "constant":
        x[:] = 7

    @jax.jit
    def total(x, a):
        mean, precision = sim.covariance_statistics(x, shrinkage)
        distances = sim.mahalanobis(x, a, precision)
        products = sim.whitened_inner(x, a, mean, precision)
        return jnp.sum(distances) + jnp.sum(products), (mean, precision)

    (value, statistics), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(x, a)
    chex.assert_tree_all_finite((value, statistics, gradients))
    np.testing.assert_array_equal(statistics[1], statistics[1].T)


@pytest.mark.slow
@pytest.mark.parametrize("shrinkage", [0.1, 1.0])
def test_shrinkage_by_a_number(shrinkage):
    x = problem(200, 3, 6)[0]
    covariance = np.cov(x.T.astype(float), bias=True)
    sphere = np.trace(covariance) / 6 * np.eye(6)
    expected = np.linalg.inv((1 - shrinkage) * covariance + shrinkage * sphere)
    actual = sim.covariance_statistics(x, shrinkage)[1]
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_a_precision_out_of_range_is_nan_and_not_zero(scale):
    x = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    mean, precision = sim.covariance_statistics(x * np.float32(scale))
    assert np.isfinite(mean).all()
    assert np.isnan(precision).all()
    _, inside = sim.covariance_statistics(x * np.float32(1e15))
    _, expected = sim.covariance_statistics(x)
    np.testing.assert_allclose(inside * np.float32(1e15) * np.float32(1e15), expected, rtol=1e-3)


def test_covariance_statistics_reject_what_is_no_shrinkage():
    with pytest.raises(ValueError, match="Unknown shrinkage"):
        sim.covariance_statistics(jnp.ones((3, 2)), "ledoit")
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        sim.covariance_statistics(jnp.ones((3, 2)), 1.5)


# --- after a similarity ------------------------------------------------------------------------


def test_quantize_rounds_and_lets_gradients_through():
    s = problem(6, 4, 3)[0]
    actual, pullback = jax.vjp(lambda s: sim.quantize(s, 0.25), s)
    np.testing.assert_allclose(actual, np.round(s * 4) / 4, atol=1e-6)
    np.testing.assert_array_equal(pullback(actual)[0], actual)
    assert sim.quantize(jnp.asarray(s, jnp.bfloat16), 0.25).dtype == jnp.bfloat16
    many = jnp.array([700.0, -650.0], jnp.float16)
    np.testing.assert_array_equal(sim.quantize(many, 0.01), many)
    most = jnp.array([jnp.inf, -1e38, 3.2])
    np.testing.assert_allclose(sim.quantize(most, 0.5), [jnp.inf, -1e38, 3.0])
    with pytest.raises(ValueError, match="bin"):
        sim.quantize(s, 0.0)


@pytest.mark.parametrize("k, p", [(1, 1.0), (3, 8.0), (10, 2.5)])
def test_sparsify_and_power(k, p):
    s = problem(20, 10, 1)[0] * np.ones(10, np.float32) * problem(10, 1, 1, 5)[0].T
    actual = np.asarray(jax.jit(lambda s: sim.sparsify_and_power(s, k, p))(s))
    expected = np.zeros(s.shape)
    for row, out in zip(s.astype(float), expected, strict=True):
        kept = np.argsort(-row)[:k]
        out[kept] = np.sign(row[kept]) * np.abs(row[kept]) ** p
        out /= np.linalg.norm(out)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.slow
def test_sparsify_and_power_keeps_k_of_equal_ones_and_zeros():
    actual = sim.sparsify_and_power(jnp.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), 2, 8.0)
    np.testing.assert_allclose(actual, [[0.5**0.5, 0.5**0.5, 0], [0, 0, 0]], rtol=1e-6)
    gradient = jax.grad(lambda s: jnp.sum(sim.sparsify_and_power(s, 2, 2.5)))
    assert np.isfinite(gradient(jnp.array([[0.0, 0.0, 0.0], [1e-30, 0.0, -1.0]]))).all()
    for k in (0, 4, 1.5):
        with pytest.raises(ValueError, match=r"k must be .* 3 anchors .*\(2, 3\)"):
            sim.sparsify_and_power(jnp.ones((2, 3)), k, 2.0)


# --- geodesics ---------------------------------------------------------------------------------


def curved(z):
    return jnp.stack([z[:, 0], jnp.sin(3 * z[:, 1]), z[:, 0] * z[:, 1]], axis=1)


@pytest.mark.parametrize("steps", [1, 8])
def test_pullback_geodesic(steps):
    x, a = problem(7, 5, 2)
    expected = np.zeros((7, 5))
    for j in range(steps):
        ends = [x[:, None] + (a - x[:, None]) * t / steps for t in (j, j + 1)]
        ends = [np.asarray(curved(jnp.asarray(e.reshape(-1, 2)))) for e in ends]
        expected += np.linalg.norm(ends[1] - ends[0], axis=1).reshape(7, 5)
    actual = jax.jit(lambda x, a: sim.pullback_geodesic(x, a, curved, steps))(x, a)
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.slow
def test_pullback_geodesic_of_a_reparametrised_decoder():
    x, a = problem(7, 5, 2)
    matrix, shift = problem(2, 1, 2, 9)
    moved = sim.pullback_geodesic(
        x @ matrix + shift,
        a @ matrix + shift,
        lambda z: curved((z - shift) @ jnp.linalg.inv(matrix)),
    )
    np.testing.assert_allclose(moved, sim.pullback_geodesic(x, a, curved), rtol=1e-3)


@pytest.mark.slow
def test_pullback_geodesic_at_an_anchor_and_of_images():
    x, a = problem(7, 5, 2)
    x[0] = a[0]
    decoder = lambda z: jnp.tanh(z[:, :, None, None] * jnp.ones((3, 4)))  # noqa: E731
    values, gradients = jax.value_and_grad(
        lambda x, a: jnp.sum(sim.pullback_geodesic(x, a, decoder)), (0, 1)
    )(x, a)
    chex.assert_tree_all_finite((values, gradients))
    assert sim.pullback_geodesic(x, a, decoder)[0, 0] == 0
    with pytest.raises(ValueError, match="steps"):
        sim.pullback_geodesic(x, a, decoder, steps=0)


@pytest.mark.slow
def test_a_bandwidth_of_zero_tells_anchors_from_all_else():
    x = jnp.array([[0.0, 1.0], [2.0, 3.0]])
    median = measures.median_distance(jnp.repeat(x[:1], 4, axis=0))
    assert median == 0
    np.testing.assert_array_equal(sim.rbf(x, x, median), np.eye(2))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-10, 1e15])
@pytest.mark.parametrize("name", ["cosine", "angular"])
def test_gradients_are_finite_however_short_the_samples(name, scale):
    x = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    value = lambda z, a: jnp.sum(sim.get(name)(z, a) ** 2)  # noqa: E731
    expected = jax.grad(value)(x, x[:3] + 1)
    found = jax.grad(value)(jnp.float32(scale) * x, x[:3] + 1)
    np.testing.assert_allclose(found * jnp.float32(scale), expected, rtol=1e-3, atol=1e-4)


def test_samples_of_nan_show_beside_anchors_of_zero():
    x = np.ones((2, 3), np.float32)
    x[1, 0] = np.nan
    found = sim.angular(x, np.array([[0.0, 0, 0], [1, 2, 3]], np.float32))
    np.testing.assert_array_equal(np.isnan(found), [[False, False], [True, True]])
