"""Aggregations: formulae against NumPy, widths, independence of spaces, jit, vmap, grad."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relrep_jax import aggregation

S, N, M = 3, 10, 6


def product(seed=0):
    rng = np.random.default_rng(seed)
    # Spaces of different ranges, as cosines and distances have.
    scale = np.array([0.3, 5.0, 40.0])[:, None, None]
    return (rng.normal(2.0, 1.0, (S, N, M)) * scale).astype(np.float32)


def build(name, seed=0):
    return aggregation.get(name)(S, M, rngs=nnx.Rngs(seed))


def normalized(product):
    product = product.astype(np.float64)
    centred = product - product.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(product.var(axis=-1, keepdims=True) + 1e-5)


def reference_attention(module, tokens):
    def dense(layer, x):
        kernel, bias = np.float64(layer.kernel[...]), np.float64(layer.bias[...])
        return np.tensordot(x, kernel, axes=(-1, 0)) + bias

    attention = module.attention
    query, key, value = (
        dense(layer, tokens)[:, :, 0] for layer in (attention.query, attention.key, attention.value)
    )
    scores = query @ key.swapaxes(1, 2) / np.sqrt(M)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = weights @ value
    kernel, bias = np.float64(attention.out.kernel[...]), np.float64(attention.out.bias[...])
    return mixed @ kernel[0] + bias


def reference_mlp(module, x):
    kernel, bias = np.float64(module.kernel[...]), np.float64(module.bias[...])
    return np.tanh(normalized(x) @ kernel + bias)


REFERENCES = {
    "concatenation": lambda module, x: np.concatenate(list(normalized(x)), axis=-1),
    "sum": lambda module, x: normalized(x).sum(axis=0),
    "weighted_average": lambda module, x: normalized(x).mean(axis=0),
    "mlp_sum": lambda module, x: reference_mlp(module, x).sum(axis=0),
    "mlp_self_attention": lambda module, x: reference_attention(
        module, np.moveaxis(reference_mlp(module.embed, x), 0, 1)
    ).sum(axis=1),
    "self_attention": lambda module, x: reference_attention(
        module, np.moveaxis(normalized(x), 0, 1)
    ).sum(axis=1),
}


class AgreementTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_every_aggregation_agrees_with_its_formula_and_says_its_width(self):
        assert set(REFERENCES) == set(aggregation.AGGREGATIONS)
        for name, reference in REFERENCES.items():
            module = build(name)
            graph, state = nnx.split(module)
            apply = self.variant(lambda state, x, graph=graph: nnx.merge(graph, state)(x))
            result = apply(state, product())
            assert result.shape == (N, module.out_features)
            np.testing.assert_allclose(
                result, reference(module, product()), rtol=1e-4, atol=1e-4, err_msg=name
            )


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_scaling_or_shifting_one_distance_space_changes_nothing(name):
    module = build(name)
    x = product()
    changed = x.copy()
    changed[1] = 2.5 * changed[1] + 7.0
    np.testing.assert_allclose(module(changed), module(x), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_parameters_of_spaces_are_not_shared(name):
    """Exchanging two spaces changes the result, once their parameters have parted."""
    module = build(name)
    key = jax.random.key(1)
    graph, state = nnx.split(module)
    leaves, tree = jax.tree.flatten(state)
    leaves = [
        leaf + 0.3 * jax.random.normal(jax.random.fold_in(key, i), leaf.shape)
        for i, leaf in enumerate(leaves)
    ]
    module = nnx.merge(graph, jax.tree.unflatten(tree, leaves))
    x = product()
    assert np.abs(module(x[::-1]) - module(x)).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_seeds_under_vmap_equal_seeds_alone_and_all_parameters_learn(name):
    graph, _ = nnx.split(build(name))
    states = [nnx.split(build(name, seed))[1] for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    inputs = jnp.stack([product(seed) for seed in range(2)])

    def loss(state, x):
        return jnp.mean(jnp.sin(nnx.merge(graph, state)(x) + 0.3))

    values, gradients = jax.vmap(jax.value_and_grad(loss))(stacked, inputs)
    for seed, state in enumerate(states):
        value, gradient = jax.value_and_grad(loss)(state, inputs[seed])
        np.testing.assert_allclose(values[seed], value, rtol=1e-5)
        for together, alone in zip(
            jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True
        ):
            np.testing.assert_allclose(together[seed], alone, rtol=1e-4, atol=1e-6)
            assert jnp.isfinite(alone).all()
    # Softmax attention ignores a bias of the keys; everything else must have a gradient.
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if not jnp.any(jnp.abs(leaf) > 1e-9)
    ]
    assert all("key" in path and "bias" in path for path in silent), silent


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_bfloat16(name):
    result = build(name)(jnp.asarray(product(), jnp.bfloat16))
    assert result.dtype == jnp.bfloat16
    exact = build(name)(product())
    assert np.abs(np.float32(result) - np.asarray(exact)).max() < 0.1 * np.abs(exact).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_gradients_are_finite_for_constant_rows(name):
    module = build(name)
    gradient = jax.grad(lambda x: jnp.sum(module(x) ** 2))(jnp.ones((S, N, M)))
    assert jnp.isfinite(gradient).all()


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"\[3, n, 6\], got \(2, 10, 6\)"):
        build("sum")(jnp.zeros((2, N, M)))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        aggregation.Sum(0, M, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="does not divide"):
        aggregation.SelfAttention(S, M, num_heads=4, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="Did you mean 'mlp_sum'"):
        aggregation.get("mlpsum")


def test_attention_heads():
    module = aggregation.SelfAttention(S, M, num_heads=2, rngs=nnx.Rngs(0))
    assert module(product()).shape == (N, M)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_a_product_of_integers_is_read_as_floats(name):
    whole = jnp.round(10 * product()).astype(jnp.int32)
    module = build(name)
    np.testing.assert_array_equal(module(whole), module(whole.astype(jnp.float32)))
