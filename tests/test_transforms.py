"""Transforms: what they do, that they invert, and that they pass through jit and vmap."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler, normalize

from relrep_jax import transforms


def latents(n=40, d=6, offset=3.0, seed=0):
    return np.random.default_rng(seed).normal(offset, 2.0, (n, d)).astype(np.float32)


REFERENCES = {
    "identity": lambda x, y: y,
    "centering": lambda x, y: y - x.mean(axis=0),
    "standard_scaling": lambda x, y: StandardScaler().fit(x).transform(y),
    "l2_normalization": lambda x, y: normalize(y),
    "layer_normalization": lambda x, y: (
        (y - y.mean(axis=1, keepdims=True)) / y.std(axis=1, keepdims=True)
    ),
}


class AgreementTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_every_transform_agrees_with_its_float64_reference(self):
        x, y = latents(), latents(seed=1)
        assert set(REFERENCES) == set(transforms.TRANSFORMS)
        for name, reference in REFERENCES.items():
            transform = transforms.get(name)
            result = self.variant(lambda x, y, t=transform: t.apply(t.fit(x), y))(x, y)
            expected = reference(x.astype(np.float64), y.astype(np.float64))
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["identity", "centering", "standard_scaling"])
def test_invert_undoes_apply(name):
    x, y = latents(), latents(seed=1)
    fitted = transforms.fit(name, x)
    np.testing.assert_allclose(fitted.invert(fitted(y)), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["l2_normalization", "layer_normalization"])
def test_what_loses_information_says_that_it_cannot_be_inverted(name):
    with pytest.raises(ValueError, match="cannot be inverted"):
        transforms.fit(name, latents()).invert(latents())


@pytest.mark.parametrize("name", sorted(transforms.TRANSFORMS))
def test_fitting_and_applying_map_over_seeds(name):
    transform = transforms.get(name)
    x = jnp.stack([latents(seed=seed) for seed in range(3)])
    fitted = jax.vmap(lambda x: transforms.fit(transform, x))(x)
    together = jax.vmap(lambda fitted, x: fitted(x))(fitted, x)
    for one, alone in zip(together, x, strict=True):
        np.testing.assert_allclose(one, transforms.fit(name, alone)(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(transforms.TRANSFORMS))
@pytest.mark.parametrize("rows", ["zero", "constant"])
def test_degenerate_latents_give_finite_values_and_gradients(name, rows):
    transform = transforms.get(name)
    x = jnp.zeros((5, 4)) if rows == "zero" else jnp.full((5, 4), 7.3)

    def total(x):
        return jnp.sum(jnp.sin(transform.apply(transform.fit(x), x)))

    value, gradient = jax.value_and_grad(total)(x)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()


def test_a_constant_feature_is_centred_and_not_blown_up():
    x = latents()
    x[:, 2] = 1234.567
    scaled = transforms.fit("standard_scaling", x)(x)
    np.testing.assert_allclose(scaled[:, 2], 0.0, atol=1e-3)
    np.testing.assert_allclose(np.std(np.delete(scaled, 2, axis=1), axis=0), 1.0, rtol=1e-4)


def test_a_chain_fits_each_link_on_what_comes_out_of_the_one_before():
    x, y = latents(), latents(seed=1)
    chained = transforms.fit(transforms.chain("centering", "l2_normalization"), x)
    np.testing.assert_allclose(chained(y), normalize(y - x.mean(axis=0)), rtol=1e-4, atol=1e-6)
    both = transforms.fit(transforms.chain("standard_scaling", "centering"), x)
    np.testing.assert_allclose(both.invert(both(y)), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(transforms.TRANSFORMS))
def test_bfloat16_stays_bfloat16_and_is_accumulated_in_more(name):
    x = jnp.asarray(latents(n=500, offset=0.5), jnp.bfloat16)
    result = transforms.fit(name, x)(x)
    assert result.dtype == jnp.bfloat16
    expected = REFERENCES[name](np.asarray(x, np.float64), np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=0.02, atol=0.02)


def test_integers_become_float32():
    x = np.arange(12).reshape(4, 3)
    assert transforms.fit("centering", x)(x).dtype == jnp.float32


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="Did you mean 'centering'.*standard_scaling"):
        transforms.get("centring")
    with pytest.raises(ValueError, match=r"\[n, d\]"):
        transforms.centering.fit(np.zeros(3))
