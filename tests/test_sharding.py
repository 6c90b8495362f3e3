"""Rows that are spread over devices, on meshes of explicit and of automatic axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import relrep_jax as rr
from relrep_jax import anchors, consensus, measures, similarities, transforms, translation

N, D, M = 32, 6, 8
KEY = jax.random.key(0)

# Functions of two spaces [n, d] whose rows are spread.
FUNCTIONS = {
    "product": lambda x, y: rr.product_projection(x, jnp.eye(D)),
    "sparsify_and_power": lambda x, y: similarities.sparsify_and_power(x, 3, 2.0),
    "covariance_statistics": lambda x, y: similarities.covariance_statistics(x),
    "decode_relative": lambda x, y: translation.decode_relative(
        rr.relative_projection(x, jnp.eye(D)), jnp.eye(D)
    ),
    "generalized_procrustes": lambda x, y: translation.translate_generalized_procrustes(
        translation.fit_generalized_procrustes([x, y]), 0, 1, x
    ),
    "consensus": lambda x, y: consensus.apply(consensus.fit([x, y]), 0, x),
    "mutual_matches": lambda x, y: consensus.mutual_matches(x, y),
    "stratified": lambda x, y: anchors.stratified(KEY, (x[:, 0] > 0).astype(int), M),
    "farthest_point": lambda x, y: anchors.farthest_point(x, M),
    "greedy": lambda x, y: anchors.greedy(x, M),
    "kmeans": lambda x, y: anchors.kmeans(KEY, x, M),
    "prototypes": lambda x, y: anchors.prototypes(KEY, [x, y], M),
    "learn_mixtures": lambda x, y: anchors.apply_mixtures(
        anchors.learn_mixtures(KEY, x, M, steps=3), y
    ),
    "mixture_loss": lambda x, y: anchors.mixture_loss(jnp.ones((2, N)) / N, x),
    "memberships": lambda x, y: anchors.memberships(
        KEY, [x, y], 4, rows=[jnp.arange(12), jnp.arange(12) + 3]
    ),
    "bootstrap": lambda x, y: anchors.bootstrap(
        KEY, x, y, [[i, i] for i in range(4)], M, steps=2
    ),
    "centroid_mixtures": lambda x, y: anchors.centroid_mixtures(x, jnp.eye(D), steps=3),
    "pullback_geodesic": lambda x, y: similarities.pullback_geodesic(x, jnp.eye(D), jnp.tanh),
    "median_distance": lambda x, y: measures.median_distance(x),
    "permutation_test": lambda x, y: measures.permutation_test("linear_cka", x, y, KEY, 19),
    "streaming_linear_cka": lambda x, y: measures.streaming_linear_cka.compute(
        measures.streaming_linear_cka.update(measures.streaming_linear_cka.init(D, D), x, y)
    ),
    "minibatch_cka": lambda x, y: measures.minibatch_cka().compute(
        measures.minibatch_cka().update(measures.minibatch_cka().init(), x, y)
    ),
}  # fmt: skip
FUNCTIONS |= {
    f"similarity {name}": lambda x, y, f=function: f(x, jnp.eye(D))
    for name, function in similarities.SIMILARITIES.items()
}
FUNCTIONS |= {
    f"transform {name}": lambda x, y, name=name: transforms.fit(name, x)(y)
    for name in transforms.TRANSFORMS
}
FUNCTIONS |= {f"measure {name}": function for name, function in measures.MEASURES.items()}
FUNCTIONS |= {
    f"translation {name}": lambda x, y, t=translator: t.apply(t.fit(x, y), x)
    for name, translator in translation.TRANSLATIONS.items()
}
FAST = ("measure linear_cka",)


@pytest.fixture
def spaces():
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(N, D)), jnp.float32) for _ in range(2))


@pytest.mark.parametrize(
    ("axes", "jit"),
    [(AxisType.Explicit, False), (AxisType.Explicit, True), (AxisType.Auto, True)],
    ids=["explicit", "explicit-jit", "automatic-jit"],
)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in FUNCTIONS]
)
def test_spread_rows_give_what_whole_ones_do(name, axes, jit, spaces):
    function = FUNCTIONS[name]
    mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(axes,))
    assert jax.device_count() > 1
    spread = jax.device_put(spaces, NamedSharding(mesh, PartitionSpec("rows")))
    result = (jax.jit(function) if jit else function)(*spread)
    whole = jax.tree.leaves(function(*spaces))
    assert len(whole) == len(jax.tree.leaves(result))
    for found, expected in zip(jax.tree.leaves(result), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        if axes == AxisType.Explicit and name.startswith("measure"):
            assert found.sharding.is_fully_replicated


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_cka", "procrustes_distance"])
def test_gradients_are_spread_as_the_rows(name, spaces):
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    gradient = jax.grad(measures.get(name))
    expected = gradient(*spaces)
    spread = jax.device_put(spaces, rows)
    for found in (jax.jit(gradient)(*spread), in_mesh(mesh, lambda: gradient(*spread))):
        assert found.sharding.is_equivalent_to(rows, 2)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def in_mesh(mesh, function):
    with jax.set_mesh(mesh):
        return function()


@pytest.mark.slow
def test_a_spread_space_may_be_captured_by_a_function_that_is_traced(spaces):
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    x, y = jax.device_put(spaces, NamedSharding(mesh, PartitionSpec("rows")))
    expected = measures.linear_cka(*spaces)
    np.testing.assert_allclose(jax.jit(lambda y: measures.linear_cka(x, y))(y), expected, rtol=1e-4)
    for other in (y, spaces[1]):
        several = jax.vmap(lambda scale, other=other: measures.linear_cka(x, scale * other))
        np.testing.assert_allclose(several(jnp.arange(1.0, 3.0)), [expected] * 2, rtol=1e-4)


@pytest.mark.slow
def test_many_permutation_tests_inside_and_outside_of_a_mesh(spaces):
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    spread = jax.device_put(spaces, NamedSharding(mesh, PartitionSpec("rows")))
    test = lambda s: measures.permutation_tests("linear_cka", s, KEY, 19)[0, 1].null  # noqa: E731
    expected = test(list(spaces))
    np.testing.assert_allclose(test(list(spread)), expected, rtol=1e-3, atol=1e-5)
    found = in_mesh(mesh, lambda: test(list(spread)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_maps_of_seeds_are_fitted_side_by_side(spaces):
    """`vmap` over seeds, with the rows of each spread."""
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    seeds = tuple(jnp.stack([space, 2 * space]) for space in spaces)
    spread = jax.device_put(seeds, NamedSharding(mesh, PartitionSpec(None, "rows")))
    fit = jax.jit(jax.vmap(translation.fit_orthogonal))
    for found, expected in zip(*map(jax.tree.leaves, (fit(*spread), fit(*seeds))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_one_space_may_lie_on_one_device(spaces):
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    spread = jax.device_put(spaces[0], NamedSharding(mesh, PartitionSpec("rows")))
    for x, y in [(spread, spaces[1]), (spread, np.asarray(spaces[1]))]:
        found = measures.linear_cka(x, y, debiased=True)
        np.testing.assert_allclose(found, measures.linear_cka(*spaces, debiased=True), rtol=1e-4)
