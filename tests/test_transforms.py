"""Transforms: what they do, that they invert, and that they pass through jit and vmap."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import StandardScaler, normalize

from relrep_jax import transforms
from relrep_jax.similarities import covariance_statistics


def latents(n=40, d=6, offset=3.0, seed=0):
    return np.random.default_rng(seed).normal(offset, 2.0, (n, d)).astype(np.float32)


def white(kind):
    def reference(x, y):
        values, vectors = np.linalg.eigh(LedoitWolf().fit(x).covariance_)
        values, vectors = values[::-1], vectors[:, ::-1]
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(len(values))])
        matrix = vectors / np.sqrt(values)
        return (y - x.mean(axis=0)) @ (matrix if kind == "pca" else matrix @ vectors.T)

    return reference


REFERENCES = {
    "identity": lambda x, y: y,
    "centering": lambda x, y: y - x.mean(axis=0),
    "standard_scaling": lambda x, y: StandardScaler().fit(x).transform(y),
    "l2_normalization": lambda x, y: normalize(y),
    "layer_normalization": lambda x, y: (
        (y - y.mean(axis=1, keepdims=True)) / y.std(axis=1, keepdims=True)
    ),
    "whitening": white("zca"),
    "pca_whitening": white("pca"),
    "robust": lambda x, y: normalize(StandardScaler().fit(x).transform(y)),
}
INVERTIBLE = ["identity", "centering", "standard_scaling", "whitening", "pca_whitening"]


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


@pytest.mark.parametrize("name", INVERTIBLE)
def test_invert_undoes_apply(name):
    x, y = latents(), latents(seed=1)
    fitted = transforms.fit(name, x)
    np.testing.assert_allclose(fitted.invert(fitted(y)), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(REFERENCES) - set(INVERTIBLE)))
def test_what_loses_information_says_that_it_cannot_be_inverted(name):
    with pytest.raises(ValueError, match="cannot be inverted"):
        transforms.fit(name, latents()).invert(latents())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(transforms.TRANSFORMS))
def test_fitting_and_applying_map_over_seeds(name):
    transform = transforms.get(name)
    x = jnp.stack([latents(seed=seed) for seed in range(3)])
    fitted = jax.vmap(lambda x: transforms.fit(transform, x))(x)
    together = jax.vmap(lambda fitted, x: fitted(x))(fitted, x)
    for one, alone in zip(together, x, strict=True):
        np.testing.assert_allclose(one, transforms.fit(name, alone)(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(transforms.TRANSFORMS))
def test_bfloat16_stays_bfloat16_and_is_accumulated_in_more(name):
    # Features of different spread: principal axes of a ball are decided by rounding.
    x = latents(n=500, offset=0.5)
    x = jnp.asarray(x * np.geomspace(1, 4, x.shape[1]), jnp.bfloat16)
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


def anisotropic(n=300, d=8, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) * 1.5 ** -np.arange(d)) + 5).astype(
        np.float32
    )


@pytest.mark.parametrize("kind", [pytest.param("zca", marks=pytest.mark.slow), "pca"])
def test_whitening_leaves_no_correlations(kind):
    x = anisotropic()
    result = transforms.fit(transforms.whitening_by(kind, shrinkage=0.0), x)(x)
    np.testing.assert_allclose(np.cov(result.T, bias=True), np.eye(8), atol=2e-2)


@pytest.mark.slow
def test_zca_changes_latents_least_and_pca_sorts_by_variance():
    x = anisotropic()
    zca, pca = (
        transforms.whitening_by(kind, shrinkage=0.0).fit(jnp.asarray(x)) for kind in ("zca", "pca")
    )
    np.testing.assert_allclose(zca[1], zca[1].T, atol=1e-4 * np.abs(zca[1]).max())
    lengths = np.linalg.norm(pca[2], axis=1)
    assert (np.diff(lengths) < 0).all()
    np.testing.assert_allclose(
        lengths**2, np.linalg.eigvalsh(np.cov(x.T.astype(float), bias=True))[::-1], rtol=1e-2
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zca", "pca"])
@pytest.mark.parametrize("shape", [(6, 20), (40, 20)])
def test_singular_covariances_are_whitened_in_their_span(kind, shape):
    n, d = shape
    x = latents(n, d)
    if n > d:
        x[:, 3:] = x[:, :3] @ np.random.default_rng(2).normal(size=(3, d - 3)).astype(np.float32)
    rank = min(n - 1, 3 if n > d else d)
    fitted = transforms.fit(transforms.whitening_by(kind, shrinkage=0.0), x)
    result = np.asarray(fitted(x))
    values = np.linalg.svd(result, compute_uv=False) ** 2 / n
    np.testing.assert_allclose(values[:rank], 1, rtol=1e-2)
    np.testing.assert_allclose(values[rank:], 0, atol=1e-4)
    np.testing.assert_allclose(fitted.invert(result), x, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_whitening_has_the_derivative_of_finite_differences(kind):
    x = jnp.asarray(anisotropic(40, 4))
    transform = transforms.whitening_by(kind, shrinkage=0.1)
    weights = jnp.asarray(latents(40, 4, seed=3))

    def total(x):
        return jnp.sum(weights * transform.apply(transform.fit(x), x))

    direction = jnp.asarray(latents(40, 4, offset=0, seed=4))
    _, slope = jax.jvp(total, (x,), (direction,))
    step = 1e-2
    expected = (total(x + step * direction) - total(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=3e-2)


@pytest.mark.slow
def test_cosine_after_whitening_is_blind_to_affine_maps():
    x = latents(500, 5)
    matrix = np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32)
    spaces = []
    for z in (x, x @ matrix + 7):
        white = np.asarray(transforms.fit(transforms.whitening_by(shrinkage=0.0), z)(z))
        white = white / np.linalg.norm(white, axis=1, keepdims=True)
        spaces.append(white @ white[:10].T)
    np.testing.assert_allclose(*spaces, atol=1e-2)


def test_whitening_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="Unknown kind of whitening 'zcaa'.*'zca'"):
        transforms.whitening_by("zcaa")
    with pytest.raises(ValueError, match="shrinkage must lie in"):
        transforms.whitening_by(shrinkage=2.0).fit(latents())


@pytest.mark.slow
def test_robust_makes_the_inner_product_blind_to_scalings_of_features():
    x = latents()
    scale = np.array([0.1, 3, 1, 20, 5, 0.5], np.float32)
    first, second = (np.asarray(transforms.fit("robust", z)(z)) for z in (x, x * scale + 2))
    np.testing.assert_allclose(first @ first.T, second @ second.T, atol=1e-5)


def test_zero_padding_pads_cuts_and_goes_through_jit_and_vmap():
    x = latents(d=3)
    padding = transforms.zero_padding(5)
    fitted = jax.jit(lambda x: transforms.fit(padding, x))(x)
    padded = jax.jit(lambda fitted, x: fitted(x))(fitted, x)
    np.testing.assert_array_equal(padded, np.pad(x, [(0, 0), (0, 2)]))
    np.testing.assert_array_equal(fitted.invert(padded), x)
    many = jax.vmap(lambda x: padding.apply(padding.fit(x), x))(jnp.stack([x, x]))
    assert many.shape == (2, 40, 5)
    assert transforms.zero_padding(3).apply(padding.fit(x), x).shape == (40, 3)


def test_zero_padding_refuses_wider_latents():
    with pytest.raises(ValueError, match=r"\(40, 6\) are wider than the 4 features"):
        transforms.zero_padding(4).fit(latents())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        transforms.zero_padding(0)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-23, 1.0, 1e23])
@pytest.mark.parametrize("name", ["l2_normalization", "layer_normalization", "standard_scaling"])
def test_squares_neither_overflow_nor_underflow(name, scale):
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    expected = transforms.fit(name, x)(x)
    scaled = np.float32(scale) * x
    np.testing.assert_allclose(transforms.fit(name, scaled)(scaled), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["centering", "standard_scaling", "whitening"])
@pytest.mark.parametrize("width", [1, 5])
def test_latents_of_another_width_than_the_fitted_ones_are_refused(name, width):
    fitted = transforms.fit(name, np.random.default_rng(0).normal(size=(6, 4)))
    with pytest.raises(ValueError, match=rf"width 4, got \(2, {width}\)"):
        fitted(np.ones((2, width)))
    with pytest.raises(ValueError, match="width 4"):
        fitted.invert(np.ones((2, width)))


ALL = [
    *sorted(transforms.TRANSFORMS),
    transforms.chain("centering", "l2_normalization"),
    transforms.zero_padding(9),
    transforms.whitening_by("pca", 0.1),
    transforms.chain(transforms.whitening_by(), transforms.zero_padding(8)),
]


@pytest.mark.slow
@pytest.mark.parametrize("transform", ALL, ids=lambda one: one if isinstance(one, str) else "made")
def test_fitted_transforms_are_pickled_and_stay_of_one_structure(transform):
    x = latents()
    fitted = transforms.fit(transform, x)
    again = pickle.loads(pickle.dumps(fitted))
    assert jax.tree.structure(again) == jax.tree.structure(fitted)
    np.testing.assert_array_equal(again(x), fitted(x))


@pytest.mark.slow
def test_equal_transforms_are_one_structure_and_one_trace():
    traced = []

    @jax.jit
    def apply(fitted, x):
        traced.append(1)
        return fitted(x)

    makers = (
        lambda: transforms.chain("standard_scaling", "l2_normalization"),
        lambda: transforms.whitening_by("zca", 0.2),
        lambda: transforms.zero_padding(7),
    )
    for number, make in enumerate(makers):
        many = [transforms.fit(make(), latents(seed=seed)) for seed in range(3)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *many)
        for seed, fitted in enumerate(many):
            one = jax.vmap(lambda f, x: f(x), in_axes=(0, None))(stacked, latents())[seed]
            np.testing.assert_allclose(apply(fitted, latents()), one, rtol=1e-5, atol=1e-6)
        assert len(traced) == number + 1


@pytest.mark.slow
def test_constant_features_vanish_beside_small_ones():
    rng = np.random.default_rng(0)
    x = np.full((1000, 4), 1234.567, np.float32)
    x[:, :3] = 1e-3 * rng.standard_normal((1000, 3))
    for name in ("centering", "standard_scaling"):
        np.testing.assert_array_equal(transforms.fit(name, x)(x)[:, 3], 0)
    _, precision = covariance_statistics(x, 0.0)
    assert float(precision[3, 3]) < 1e-3 * float(precision[0, 0])
