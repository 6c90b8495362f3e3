"""Models: shapes for every image size and form, what has a gradient, purity."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from relrep_jax.models import (
    Autoencoder,
    Classifier,
    Representation,
    VariationalAutoencoder,
    functional,
    represent,
)
from relrep_jax.models.convolutional import feature_sizes

FORMS = {
    "absolute": Representation("absolute"),
    "relative": Representation("relative", ("cosine",)),
    "product": Representation(
        "product", ("cosine", "euclidean", "manhattan", "chebyshev"), "mlp_sum"
    ),
}
NUM_ANCHORS = 7


def build(module, image_shape=(8, 8, 1), form="product", **options):
    options = {"channels": (4, 6), "latent_dim": 5, **options}
    return functional(
        lambda rngs: module(
            image_shape, representation=FORMS[form], num_anchors=NUM_ANCHORS, rngs=rngs, **options
        )
    )


def initialized(model, seed=0):
    """One seed's variables; compiled, since eager initialisation takes many small programs."""
    return jax.jit(model.init)(jax.random.key(seed))


def images(n, shape=(8, 8, 1), seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((n, *shape)), jnp.float32)


@pytest.mark.parametrize("module", [Autoencoder, VariationalAutoencoder])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((8, 8, 1), (4, 6)),
        pytest.param((28, 28, 1), (4, 5, 6, 7), marks=pytest.mark.slow),
        pytest.param((32, 32, 3), (4, 5, 6, 7), marks=pytest.mark.slow),
        ((7, 10, 2), (3,)),
    ],
    ids=str,
)
def test_reconstructions_have_the_shape_of_the_images(module, form, shape, channels):
    model = build(module, shape, form, channels=channels)

    def forward(key, x, anchors):
        variables = model.init(key)
        anchor_latents, _ = model.apply(variables, "encode", anchors)
        (prediction, divergence), stats = model.apply(
            variables, "reconstruct", x, anchor_latents, key, train=True
        )
        return anchor_latents, prediction, divergence, variables.stats, stats

    latents, prediction, divergence, before, after = jax.eval_shape(
        forward, jax.random.key(0), images(3, shape), images(NUM_ANCHORS, shape)
    )
    assert latents.shape == (NUM_ANCHORS, 5)
    assert prediction.shape == (3, *shape)
    assert divergence.shape == ()
    chex.assert_trees_all_equal_shapes(before, after)


@pytest.mark.slow
def test_values_lie_in_the_unit_interval_and_change_with_the_input():
    model = build(Autoencoder)
    variables = initialized(model)
    anchors, _ = model.apply(variables, "encode", images(NUM_ANCHORS, seed=1))
    (prediction, _), _ = model.apply(
        variables, "reconstruct", images(4), anchors, jax.random.key(1), train=False
    )
    assert prediction.min() > 0
    assert prediction.max() < 1
    assert jnp.abs(prediction[0] - prediction[1]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_decoding_what_was_represented_is_what_reconstruct_does(form):
    """The way over `encode`, `represent`, `decode`, which stitching takes, is the model's own."""
    for module in (Autoencoder, VariationalAutoencoder):
        model = build(module, form=form)
        variables = initialized(model)
        anchors, _ = model.apply(variables, "encode", images(NUM_ANCHORS, seed=1))
        latents, _ = model.apply(variables, "encode", images(4))
        space = represent(FORMS[form], latents, anchors)
        assert space.shape == (
            (4, 5) if form == "absolute" else (len(FORMS[form].similarities), 4, 7)
        )
        decoded, _ = model.apply(variables, "decode", space)
        (whole, _), _ = model.apply(
            variables, "reconstruct", images(4), anchors, jax.random.key(1), train=False
        )
        np.testing.assert_allclose(decoded, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_classifier_gives_logits(form):
    model = build(Classifier, form=form, num_classes=3)
    variables = initialized(model)
    anchors, _ = model.apply(variables, "encode", images(NUM_ANCHORS, seed=1))
    latents, _ = model.apply(variables, "encode", images(4))
    logits, _ = model.apply(variables, "decode", represent(FORMS[form], latents, anchors))
    assert logits.shape == (4, 3)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_learns_and_the_relative_loss_is_finite_where_samples_are_anchors(form):
    for module in (Autoencoder, VariationalAutoencoder):
        model = build(module, form=form)
        variables = initialized(model)
        x = images(NUM_ANCHORS)

        def loss(params, variables=variables, model=model, x=x):
            frozen = variables._replace(params=jax.lax.stop_gradient(params))
            anchors, _ = model.apply(frozen, "encode", x, train=True)
            (prediction, divergence), _ = model.apply(
                variables._replace(params=params),
                "reconstruct", x, anchors, jax.random.key(1), train=True,
            )  # fmt: skip
            return jnp.mean((prediction - x) ** 2) + 0.1 * divergence

        for path, leaf in jax.tree_util.tree_leaves_with_path(
            jax.jit(jax.grad(loss))(variables.params)
        ):
            assert jnp.isfinite(leaf).all(), path
            assert jnp.any(leaf != 0), (module, path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_codes_are_drawn_from_the_gaussian_that_the_encoder_tells(form):
    """With layers that tell N(1/2, 2^2) for every image; the decoder hands on what it is given."""
    model = VariationalAutoencoder(
        (8, 8, 1),
        channels=(4,),
        latent_dim=5,
        representation=FORMS[form],
        num_anchors=NUM_ANCHORS,
        rngs=nnx.Rngs(0),
    )
    telling_mean = model.to_latent if form == "absolute" else model.to_mean
    for layer, bias in ((telling_mean, 0.5), (model.to_log_variance, np.log(4.0))):
        layer.kernel[...] = jnp.zeros_like(layer.kernel[...])
        layer.bias[...] = jnp.full_like(layer.bias[...], bias)
    model.decoder = nnx.data(_HandOn())
    x, anchors = images(2000), None if form == "absolute" else model.encode(images(NUM_ANCHORS))
    codes, _ = model.reconstruct(x, anchors, jax.random.key(1), train=True)
    np.testing.assert_allclose(codes.mean(), 0.5, atol=0.1)
    np.testing.assert_allclose(codes.std(), 2.0, atol=0.1)
    assert np.unique(codes).size > 0.99 * codes.size
    quiet, _ = model.reconstruct(x, anchors, jax.random.key(1), train=False)
    np.testing.assert_allclose(quiet, 0.5, atol=1e-6)


class _HandOn(nnx.Module):
    def __call__(self, code, *, train):
        return code


@pytest.mark.slow
def test_the_divergence_is_that_of_a_gaussian():
    """Zero for a standard normal code, and the closed form for a shifted one."""
    model = build(VariationalAutoencoder, form="relative")
    variables = initialized(model)
    params = jax.tree.map(lambda leaf: leaf, variables.params)
    width = params["to_mean"]["bias"].shape[0]
    for name, bias in (("to_mean", 0.5), ("to_log_variance", np.log(4.0))):
        params[name] = {
            "kernel": jnp.zeros_like(params[name]["kernel"]),
            "bias": jnp.full(width, bias, jnp.float32),
        }
    variables = variables._replace(params=params)

    @jax.jit
    def divergence_of(variables):
        anchors, _ = model.apply(variables, "encode", images(NUM_ANCHORS, seed=1))
        (_, divergence), _ = model.apply(
            variables, "reconstruct", images(4), anchors, jax.random.key(1), train=True
        )
        return divergence

    divergence = divergence_of(variables)
    expected = width * 0.5 * (4.0 + 0.25 - 1 - np.log(4.0))
    np.testing.assert_allclose(divergence, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["absolute", "relative"])
def test_a_latent_dimension_of_zero_makes_the_features_the_latents(form):
    """Bent by the activation in the absolute form alone: GELU is nowhere below -0.17."""
    model = build(Autoencoder, form=form, latent_dim=0)
    latents, _ = model.apply(initialized(model), "encode", images(2))
    assert latents.shape == (2, 2 * 2 * 6)
    assert (float(latents.min()) > -0.18) == (form == "absolute")


def test_seeds_under_vmap_equal_seeds_alone():
    model = build(Autoencoder, form="relative")
    keys = jax.random.split(jax.random.key(0), 2)
    encode = jax.jit(lambda key, x: model.apply(model.init(key), "encode", x)[0])
    together = jax.jit(jax.vmap(encode, in_axes=(0, None)))(keys, images(3))
    for key, latents in zip(keys, together, strict=True):
        np.testing.assert_allclose(encode(key, images(3)), latents, rtol=1e-4, atol=1e-5)


def test_sizes_are_halved_upwards():
    assert feature_sizes((28, 28, 1), (1, 1, 1, 1)) == [(28, 28), (14, 14), (7, 7), (4, 4), (2, 2)]
    assert feature_sizes((7, 10, 2), (1, 1)) == [(7, 10), (4, 5), (2, 3)]


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="Use at most 3 channels"):
        build(Autoencoder, channels=(4, 4, 4, 4))
    with pytest.raises(ValueError, match="positive integers"):
        build(Autoencoder, channels=())
    with pytest.raises(ValueError, match="latent_dim must be at least 0"):
        build(Autoencoder, latent_dim=-1)
    with pytest.raises(ValueError, match="image_shape"):
        build(Autoencoder, image_shape=(8, 8))
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        Representation("x", ("cosin",))
    assert Representation("x", "cosine") == Representation("x", ("cosine",))
    with pytest.raises(ValueError, match="Known: concatenation"):
        Representation("x", ("cosine",), "average")
    with pytest.raises(ValueError, match="Unknown transform"):
        Representation("x", ("cosine",), absolute_transform="centred")
