"""Graph convolutions against dense float64 references; the node classifier in all its forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental.sparse import BCOO

from relrep_jax.models import Representation, functional, represent
from relrep_jax.models.graph import (
    LAYERS,
    Adjacency,
    GCN2Conv,
    GCNConv,
    GINConv,
    GraphClassifier,
    GraphOptions,
    drop,
    identity_strength,
    normalized_adjacency,
    propagate,
    sparse_product,
)

pytestmark = pytest.mark.usefixtures("full_precision")

normalize = jax.jit(normalized_adjacency, static_argnums=1, static_argnames="self_loops")

FORMS = {
    "absolute": Representation("absolute"),
    "relative": Representation("relative", ("cosine",)),
    "product": Representation("product", ("cosine", "euclidean"), "mlp_sum"),
}
NODES, FEATURES, HIDDEN, ANCHORS = 12, 5, 6, 4


def random_graph(seed=0, isolated=()):
    """Edges [2, e] in both directions, some self-loops; the dense matrix [target, source]."""
    rng = np.random.default_rng(seed)
    dense = np.triu(rng.random((NODES, NODES)) < 0.3)
    dense |= dense.T
    for node in isolated:
        dense[node] = dense[:, node] = False
    return np.argwhere(dense.T).T.astype(np.int32), dense.astype(np.float64)


def dense_normalized(dense, self_loops):
    if self_loops:
        dense = np.maximum(dense, np.eye(len(dense)))
    degrees = dense.sum(axis=1)
    scale = np.array([0 if d == 0 else d**-0.5 for d in degrees])
    return scale[:, None] * dense * scale


def to_dense(adjacency):
    dense = np.zeros((NODES, NODES))
    np.add.at(dense, (np.asarray(adjacency.edges[1]), np.asarray(adjacency.edges[0])),
              np.asarray(adjacency.weights, np.float64))  # fmt: skip
    return dense


def features(seed=0, width=FEATURES):
    return np.random.default_rng(seed).standard_normal((NODES, width)).astype(np.float32)


def weights_of(linear):
    return np.asarray(linear.kernel[...], np.float64)


def build(form="relative", **options):
    options = {"num_layers": 3, "hidden_features": HIDDEN, "latent_dim": 4, **options}
    return functional(
        lambda rngs: GraphClassifier(
            FEATURES, num_classes=3, representation=FORMS[form], num_anchors=ANCHORS,
            rngs=rngs, **options,
        )
    )  # fmt: skip


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("isolated", [(), (0, 7)])
def test_the_normalised_adjacency_is_the_dense_one(self_loops, isolated):
    edges, dense = random_graph(isolated=isolated)
    found = normalize(edges, NODES, self_loops=self_loops)
    np.testing.assert_allclose(to_dense(found), dense_normalized(dense, self_loops), atol=1e-6)


def test_padded_edges_change_nothing():
    edges, dense = random_graph()
    padded = np.concatenate([edges, np.zeros((2, 9), np.int32)], axis=1)
    weights = np.concatenate([np.ones(edges.shape[1]), np.zeros(9)]).astype(np.float32)
    for self_loops in (True, False):
        found = normalize(padded, NODES, jnp.asarray(weights), self_loops=self_loops)
        np.testing.assert_allclose(to_dense(found), dense_normalized(dense, self_loops), atol=1e-6)


@pytest.mark.parametrize(
    "dtype", [jnp.int32, *(pytest.param(d, marks=pytest.mark.slow) for d in (bool, jnp.bfloat16))]
)
def test_weights_of_other_dtypes_cost_features_no_digits(dtype):
    edges, ones = jnp.array([[0, 1, 1, 2], [1, 0, 2, 1]]), jnp.ones(4)
    x = jnp.array([[0.7], [0.9], [0.3]])
    plain = propagate(Adjacency(edges, ones), x)
    np.testing.assert_array_equal(propagate(Adjacency(edges, ones.astype(dtype)), x), plain)
    if dtype != jnp.bfloat16:
        np.testing.assert_array_equal(
            normalized_adjacency(edges, 3, ones.astype(dtype)).weights,
            normalized_adjacency(edges, 3).weights,
        )
        mask = normalized_adjacency(np.asarray(edges).tolist(), 3, [1, 1, 0, 0], self_loops=False)
        np.testing.assert_array_equal(mask.weights, [1, 1, 0, 0])


def test_directed_messages_go_from_source_to_target():
    adjacency = Adjacency(jnp.array([[0, 0], [1, 2]]), jnp.array([2.0, 3.0]))
    received = propagate(adjacency, jnp.array([[1.0], [10.0], [100.0]]))
    assert received.ravel().tolist() == [0.0, 2.0, 3.0]


def test_a_gcn_layer_is_its_formula():
    edges, dense = random_graph(isolated=(3,))
    layer = GCNConv(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    layer.bias[...] = jnp.arange(HIDDEN, dtype=jnp.float32)
    x = features()
    expected = dense_normalized(dense, True) @ x.astype(np.float64) @ weights_of(layer.linear)
    found = layer(x, normalize(edges, NODES))
    np.testing.assert_allclose(found, expected + np.arange(HIDDEN), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_a_gcnii_layer_is_its_formula(shared):
    edges, dense = random_graph(isolated=(3,))
    layer = GCN2Conv(FEATURES, shared_weights=shared, rngs=nnx.Rngs(0))
    x, initial = features(), features(1)
    alpha, beta = 0.2, float(identity_strength(0.5, 3))
    assert beta == pytest.approx(np.log(0.5 / 3 + 1))
    first = weights_of(layer.linear)
    second = first if shared else weights_of(layer.initial_linear)
    smoothed = (1 - alpha) * dense_normalized(dense, False) @ x.astype(np.float64)
    residual = alpha * initial.astype(np.float64)
    mix = np.eye(FEATURES) * (1 - beta)
    expected = smoothed @ (mix + beta * first) + residual @ (mix + beta * second)
    adjacency = normalize(edges, NODES, self_loops=False)
    found = layer(x, initial, adjacency, alpha=alpha, beta=beta)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_gin_layer_is_its_formula():
    edges, dense = random_graph(isolated=(3,))
    layer = GINConv(FEATURES, HIDDEN, rngs=nnx.Rngs(0))
    layer.epsilon[...] = jnp.asarray(0.25)
    x = features().astype(np.float64)
    hidden = (1.25 * x + dense @ x) @ weights_of(layer.first)
    expected = np.maximum(hidden, 0) @ weights_of(layer.second)
    ones = jnp.ones(edges.shape[1])
    found = layer(features(), Adjacency(jnp.asarray(edges), ones))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_the_deep_classifier_is_its_layers_one_after_another(layer):
    """An independent road: dense NumPy in float64, layer by layer, from the stacked parameters."""
    edges, dense = random_graph(isolated=(5,))
    model = build(layer=layer)
    variables = jax.jit(model.init)(jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables.params)
    if layer == "gin":
        adjacency, matrix = Adjacency(jnp.asarray(edges), jnp.ones(edges.shape[1])), dense
    else:
        adjacency = normalize(edges, NODES, self_loops=False)
        matrix = dense_normalized(dense, False)

    def linear(part, x):
        return x @ part["kernel"] + part["bias"]

    x = initial = np.maximum(linear(params["to_hidden"], features().astype(np.float64)), 0)
    for i in range(3):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        if layer == "gcn":
            x = matrix @ x @ own["linear"]["kernel"] + own["bias"]
        elif layer == "gin":
            x = np.maximum(linear(own["first"], (1 + own["epsilon"]) * x + matrix @ x), 0)
            x = linear(own["second"], x)
        else:
            beta = np.log(0.7 / (i + 1) + 1)
            x = 0.7 * matrix @ x + 0.3 * initial
            x = (1 - beta) * x + beta * x @ own["linear"]["kernel"]
        x = np.maximum(x, 0)
    options = GraphOptions(alpha=0.3, theta=0.7)
    latents, _ = model.apply(variables, "encode", features(), adjacency, options)
    np.testing.assert_allclose(latents, linear(params["to_latent"], x), rtol=1e-3, atol=1e-4)
    kernels = params["layers"]["first" if layer == "gin" else "linear"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_renumbering_the_nodes_renumbers_the_latents(layer):
    edges, _ = random_graph(isolated=(5,))
    order = np.random.default_rng(1).permutation(NODES)
    place = np.argsort(order).astype(np.int32)
    model = build(layer=layer)

    @jax.jit
    def encode(x, edges):
        variables = model.init(jax.random.key(0))
        return model.apply(variables, "encode", x, normalize(edges, NODES))[0]

    latents, renumbered = encode(features(), edges), encode(features()[order], place[edges])
    np.testing.assert_allclose(renumbered, latents[order], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_finite_with_isolated_nodes_that_are_anchors_and_every_parameter_learns(form):
    edges, _ = random_graph(isolated=(0, 1))
    adjacency = normalize(edges, NODES, self_loops=False)
    model = build(form)
    variables = jax.jit(model.init)(jax.random.key(0))
    x = jnp.asarray(features()).at[0].set(0)

    @jax.jit
    @jax.grad
    def gradient(params):
        seed = variables._replace(params=params)
        options = GraphOptions(dropout=0.5)
        latents, _ = model.apply(seed, "encode", x, adjacency, options, jax.random.key(1))
        space = represent(FORMS[form], latents, jax.lax.stop_gradient(latents[:ANCHORS]))
        logits, _ = model.apply(seed, "decode", space)
        assert logits.shape == (NODES, 3)
        return jnp.sum(logits[:, 0] ** 2 + logits[:, 1])

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables.params)):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.any(leaf != 0), path


@pytest.mark.slow
def test_seeds_and_options_under_vmap_equal_each_alone():
    edges, _ = random_graph()
    adjacency = normalize(edges, NODES)
    model = build()
    keys = jax.random.split(jax.random.key(0), 2)
    options = GraphOptions(jnp.array([0.1, 0.5]), jnp.array([0.1, 0.4]), jnp.array([0.5, 1.0]))

    def encode(key, options):
        return model.apply(model.init(key), "encode", features(), adjacency, options, key)[0]

    one = jax.jit(encode)
    together = jax.jit(jax.vmap(encode))(keys, options)
    for i in range(2):
        alone = one(keys[i], jax.tree.map(lambda leaf, i=i: leaf[i], options))
        np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-5)
    assert jnp.abs(one(keys[0], options._replace(dropout=0.1, alpha=0.1, theta=0.5))
                   - one(keys[0], GraphOptions(0.1, 0.9, 0.5))).max() > 1e-3  # fmt: skip


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_the_rate_and_keeps_the_mean(rate):
    dropped = np.asarray(jax.jit(drop)(jax.random.key(0), jnp.ones((301, 33)), rate))
    assert np.unique(dropped).size <= 2
    kept = dropped > 0
    assert kept.mean() == pytest.approx(1 - rate, abs=0.02)
    np.testing.assert_allclose(dropped[kept], 1 / (1 - rate), rtol=1e-6)
    # Neighbours share a random word; they must not share their fate.
    flat = kept.ravel()[: kept.size // 2 * 2].reshape(-1, 2)
    assert (flat[:, 0] & flat[:, 1]).mean() == pytest.approx((1 - rate) ** 2, abs=0.03)


def bag_of_words(seed=0):
    x = np.maximum(features(seed) - 1, 0)
    x[3] = 0
    return x, BCOO.fromdense(x)


@pytest.mark.slow
@pytest.mark.parametrize("indices_sorted", [True, False])
def test_sparse_features_are_the_same_features(indices_sorted):
    edges, _ = random_graph()
    adjacency = normalize(edges, NODES)
    model = build()
    variables = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(0), 2))
    dense, sparse = bag_of_words()
    assert 0 < sparse.nse < dense.size / 3
    if not indices_sorted:
        order = np.random.default_rng(0).permutation(sparse.nse)
        sparse = BCOO((sparse.data[order], sparse.indices[order]), shape=sparse.shape)

    def latents(variables, x):
        return model.apply(variables, "encode", x, adjacency)[0]

    def slope(variables, x):
        return jax.grad(lambda v: jnp.square(latents(v, x)).sum())(variables).params

    for function in (latents, slope):
        program = jax.jit(jax.vmap(function, in_axes=(0, None)))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5),
            program(variables, jnp.asarray(dense)),
            program(variables, sparse),
        )


@pytest.mark.slow
def test_features_with_dense_axes_are_refused():
    with pytest.raises(ValueError, match="sparse in both of its two axes.* 1 dense axes"):
        sparse_product(BCOO.fromdense(jnp.eye(3), n_dense=1), jnp.ones((3, 2)))


@pytest.mark.slow
def test_stored_entries_of_sparse_features_are_dropped():
    dense, sparse = bag_of_words()
    dropped = drop(jax.random.key(0), sparse, 0.5)
    assert dropped.shape == sparse.shape
    found = np.asarray(dropped.todense())
    kept = found != 0
    np.testing.assert_array_equal(found[kept], 2 * dense[kept])
    assert 0 < kept.sum() < sparse.nse


@pytest.mark.slow
def test_training_drops_and_encoding_does_not():
    edges, _ = random_graph()
    adjacency = normalize(edges, NODES)
    model = build()
    variables = jax.jit(model.init)(jax.random.key(0))

    @jax.jit
    def encode(key):
        return model.apply(variables, "encode", features(), adjacency, GraphOptions(), key)[0]

    calm = [model.apply(variables, "encode", features(), adjacency)[0] for _ in range(2)]
    # On a GPU, what neighbours send adds up in any order.
    np.testing.assert_allclose(*calm, rtol=1e-5, atol=1e-6)
    noisy = [encode(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_allclose(noisy[0], noisy[1], rtol=1e-5, atol=1e-6)
    assert jnp.abs(noisy[0] - noisy[2]).max() > 1e-3


def test_the_program_does_not_grow_with_the_layers():
    adjacency = normalize(random_graph()[0], NODES)
    sizes = []
    for num_layers in (2, 64):
        model = build(num_layers=num_layers)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        program = jax.jit(lambda v, m=model: m.apply(v, "encode", features(), adjacency)[0])
        sizes.append(program.lower(shapes).as_text().count("\n"))
    assert sizes[0] == sizes[1]


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match=r"shape \[2, e\].*got \(4, 2\)"):
        normalized_adjacency(jnp.zeros((4, 2), int), 3)
    with pytest.raises(ValueError, match="integers"):
        normalized_adjacency(jnp.zeros((2, 4)), 3)
    with pytest.raises(ValueError, match=r"weights must have shape \[4\]"):
        normalized_adjacency(jnp.zeros((2, 4), int), 3, jnp.ones(3))
    with pytest.raises(ValueError, match="Did you mean 'gcnii'"):
        build(layer="gcni")
    with pytest.raises(ValueError, match="Known: elu"):
        build(layer_activation="swish")
    with pytest.raises(ValueError, match="num_layers must be at least 1, got 0"):
        build(num_layers=0)
