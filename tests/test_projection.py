"""Relative projections: shapes, invariances of the whole pipeline, vmap, grad, errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

import relrep_jax as rr

NAMES = ("cosine", "inner", "euclidean", "manhattan", "chebyshev", "angular")
D = 7


def points(seed, n=12, d=D):
    return np.random.default_rng(seed).normal(0.5, 1.0, (n, d)).astype(np.float32)


def maps(seed):
    """One random map of each class, as functions of float64 arrays."""
    rng = np.random.default_rng(seed)
    rotation = ortho_group.rvs(D, random_state=seed)
    shift = rng.normal(0, 3.0, D)
    diagonal = np.exp(rng.normal(0, 0.7, D))
    signed = np.eye(D)[rng.permutation(D)] * rng.choice([-1, 1], D)
    return {
        "orthogonal": lambda x: x @ rotation,
        "scaling": lambda x: x * 3.7,
        "translation": lambda x: x + shift,
        "signed_permutation": lambda x: x @ signed,
        "diagonal": lambda x: x * diagonal,
    }


# (similarity, absolute transform, relative transform) -> the maps that change nothing;
# every other map of `maps` must change something.
INVARIANCES = {
    ("cosine", None, None): {"orthogonal", "scaling", "signed_permutation"},
    ("angular", None, None): {"orthogonal", "scaling", "signed_permutation"},
    ("inner", None, None): {"orthogonal", "signed_permutation"},
    ("cosine", "centering", None): {"orthogonal", "scaling", "translation", "signed_permutation"},
    ("cosine", "standard_scaling", None): {
        "scaling", "translation", "signed_permutation", "diagonal",
    },
    ("euclidean", None, None): {"orthogonal", "translation", "signed_permutation"},
    ("manhattan", None, None): {"translation", "signed_permutation"},
    ("chebyshev", None, None): {"translation", "signed_permutation"},
    ("euclidean", None, "layer_normalization"): {
        "orthogonal", "scaling", "translation", "signed_permutation",
    },
    ("manhattan", None, "layer_normalization"): {"scaling", "translation", "signed_permutation"},
    ("chebyshev", None, "layer_normalization"): {"scaling", "translation", "signed_permutation"},
    ("euclidean", None, "l2_normalization"): {
        "orthogonal", "scaling", "translation", "signed_permutation",
    },
}  # fmt: skip
FAST = [
    ("cosine", None, None),
    ("cosine", "centering", None),
    ("euclidean", None, "layer_normalization"),
    ("chebyshev", None, None),
]


@pytest.mark.parametrize(
    "pipeline",
    [
        pytest.param(p, id="-".join(map(str, p)), marks=[] if p in FAST else pytest.mark.slow)
        for p in INVARIANCES
    ],
)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_a_pipeline_is_blind_to_and_what_it_sees(pipeline, seed):
    similarity, absolute, relative = pipeline
    x = points(seed).astype(np.float64)

    def project(x):
        x = np.float32(x)
        return np.asarray(rr.relative_projection(x, x[:5], similarity, absolute, relative))

    before = project(x)
    scale = np.abs(before).max()
    for name, change in maps(seed).items():
        difference = np.abs(project(change(x)) - before).max() / scale
        if name in INVARIANCES[pipeline]:
            assert difference < 1e-4, name
        else:
            assert difference > 1e-3, name


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_a_product_is_its_relative_spaces_in_order(self):
        x = points(0)
        product = self.variant(lambda x, a: rr.product_projection(x, a, NAMES))(x, x[:5])
        assert product.shape == (len(NAMES), 12, 5)
        for name, space in zip(NAMES, product, strict=True):
            np.testing.assert_allclose(
                space, rr.relative_projection(x, x[:5], name), rtol=1e-5, atol=1e-5
            )


def test_the_default_product_is_the_papers():
    x = points(0)
    papers = ("cosine", "euclidean", "manhattan", "chebyshev")
    np.testing.assert_array_equal(
        rr.product_projection(x, x[:5]), rr.product_projection(x, x[:5], papers)
    )


def test_transforms_may_differ_by_similarity():
    x = points(0)
    product = rr.product_projection(
        x, x[:5], ("cosine", "euclidean"), ("centering", None), (None, "l2_normalization")
    )
    np.testing.assert_allclose(
        product[0], rr.relative_projection(x, x[:5], "cosine", "centering"), rtol=1e-6
    )
    np.testing.assert_allclose(
        product[1],
        rr.relative_projection(x, x[:5], "euclidean", None, "l2_normalization"),
        rtol=1e-6,
    )


def test_a_transform_can_be_fitted_elsewhere_or_be_a_function():
    x, elsewhere = points(0), points(1)
    fitted = rr.transforms.fit("centering", elsewhere)
    expected = rr.relative_projection(x - elsewhere.mean(0), x[:5] - elsewhere.mean(0))
    np.testing.assert_allclose(
        rr.relative_projection(x, x[:5], absolute_transform=fitted), expected, atol=1e-5
    )
    np.testing.assert_allclose(
        rr.relative_projection(x, x[:5], absolute_transform=lambda z: z - elsewhere.mean(0)),
        expected,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        rr.relative_projection(x, x[:5], absolute_transform=rr.transforms.centering),
        rr.relative_projection(x, x[:5], absolute_transform="centering"),
    )


def test_a_relative_transform_is_fitted_on_the_anchors_own_space():
    x = points(0)
    relative = np.asarray(rr.relative_projection(x, x[:5], "euclidean"))
    result = rr.relative_projection(x, x[:5], "euclidean", relative_transform="centering")
    np.testing.assert_allclose(result, relative - relative[:5].mean(axis=0), atol=1e-5)


def test_own_similarities_are_welcome_wherever_a_name_is():
    x = points(0)
    own = lambda x, a: 2 * jnp.matmul(x, a.T, precision="highest")  # noqa: E731
    np.testing.assert_allclose(
        rr.relative_projection(x, x[:5], own), 2 * x @ x[:5].T, rtol=1e-5, atol=1e-5
    )
    assert rr.product_projection(x, x[:5], ("cosine", own)).shape == (2, 12, 5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "cosine" else pytest.mark.slow) for name in NAMES],
)
def test_vmap_over_anchor_sets_over_seeds_and_over_both(name):
    z = jnp.stack([points(seed) for seed in range(3)])
    sets = jnp.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    project = lambda z, a: rr.relative_projection(z, a, name)  # noqa: E731
    one = [[project(seed, seed[chosen]) for chosen in sets] for seed in z]

    over_sets = jax.vmap(project, in_axes=(None, 0))(z[0], z[0][sets])
    np.testing.assert_allclose(over_sets, jnp.stack(one[0]), rtol=1e-5, atol=1e-5)
    over_seeds = jax.vmap(project, in_axes=(0, 0))(z, z[:, sets[0]])
    np.testing.assert_allclose(over_seeds, jnp.stack([o[0] for o in one]), rtol=1e-5, atol=1e-5)
    both = jax.vmap(jax.vmap(project, in_axes=(None, 0)))(z, z[:, sets])
    np.testing.assert_allclose(both, jnp.stack([jnp.stack(o) for o in one]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("transform", [None, "centering"])
@pytest.mark.parametrize("name", ["cosine", "euclidean"])
def test_vmap_of_large_problems_agrees_with_a_loop(name, transform, monkeypatch):
    """From a size on, what `vmap` maps over is run one after another on CPU."""
    monkeypatch.setattr("relrep_jax.projection.LARGE", 1)
    z = np.stack([points(seed, 20) for seed in range(2)])
    sets = np.random.default_rng(0).integers(0, 20, (3, 4))

    def project(latents, anchors):
        return rr.relative_projection(latents, anchors, name, transform, "l2_normalization")

    both = jax.jit(jax.vmap(jax.vmap(project, in_axes=(None, 0))))(z, z[:, sets])
    assert both.shape == (2, 3, 20, 4)
    for seed in range(2):
        np.testing.assert_allclose(
            jax.vmap(project, in_axes=(0, None))(z, z[0, sets[0]])[seed],
            project(z[seed], z[0, sets[0]]),
            atol=1e-5,
        )
        for number, rows in enumerate(sets):
            alone = project(z[seed], z[seed, rows])
            np.testing.assert_allclose(both[seed, number], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("by_product", [False, True])
def test_gradients_of_large_problems_pass_through_vmap(by_product, monkeypatch):
    z, sets = points(0, 20), np.random.default_rng(0).integers(0, 20, (3, 4))

    def total(latents, anchors):
        spaces = jax.vmap(rr.relative_projection, in_axes=(None, 0))(latents, anchors)
        return jnp.sum(spaces**2)

    expected = jax.jit(jax.grad(total, argnums=(0, 1)))(z, z[sets])
    monkeypatch.setattr("relrep_jax.projection.LARGE", 1)
    if by_product:
        monkeypatch.setattr("relrep_jax.similarities.pairwise.MATMUL_SIZE", 1)
    found = jax.jit(jax.grad(total, argnums=(0, 1)))(z, z[sets])
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
    if by_product:
        return
    slope = jax.jit(jax.vmap(jax.grad(lambda a: jnp.sum(rr.relative_projection(z, a) ** 2))))
    chex.assert_trees_all_close(slope(z[sets]), expected[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("absolute", [None, "centering", "standard_scaling", "l2_normalization"])
def test_gradients_are_finite_where_a_sample_is_an_anchor_and_where_a_vector_is_zero(
    name, absolute
):
    x = jnp.asarray(points(0)).at[2].set(0.0)

    def total(x, a):
        return jnp.sum(jnp.sin(rr.relative_projection(x, a, name, absolute)))

    for gradient in jax.grad(total, argnums=(0, 1))(x, x[:5]):
        assert jnp.isfinite(gradient).all()
        assert jnp.any(gradient != 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_in_bfloat16_out(name):
    x = jnp.asarray(points(0), jnp.bfloat16)
    result = rr.relative_projection(x, x[:5], name, "centering")
    assert result.dtype == jnp.bfloat16
    exact = rr.relative_projection(
        x.astype(jnp.float32), x[:5].astype(jnp.float32), name, "centering"
    )
    np.testing.assert_allclose(np.float32(result), exact, rtol=0.03, atol=0.1)


def test_sharded_latents_give_what_whole_ones_do():
    mesh = jax.make_mesh((len(jax.devices()),), ("data",))
    x = points(0, n=16 * len(jax.devices()))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    sharded = jax.jit(rr.product_projection)(jax.device_put(x, rows), x[:5])
    np.testing.assert_allclose(sharded, rr.product_projection(x, x[:5]), rtol=1e-5, atol=1e-5)


class ErrorsTest(chex.TestCase):
    def test_widths_that_differ_are_both_stated(self):
        with pytest.raises(ValueError, match=r"\(4, 3\) and anchors \(2, 5\)"):
            rr.relative_projection(np.ones((4, 3)), np.ones((2, 5)))

    def test_wrong_ranks_and_empty_arrays(self):
        with pytest.raises(
            ValueError, match=r"latents must have shape \[n, d\], got \(3,\)"
        ) as error:
            rr.relative_projection(np.ones(3), np.ones((2, 3)))
        assert str(error.value).endswith("Got latents (3,) and anchors (2, 3).")
        with pytest.raises(ValueError, match=r"anchors must have shape \[m, d\].*jax\.vmap"):
            rr.relative_projection(np.ones((4, 3)), np.ones((1, 2, 3)))
        with pytest.raises(ValueError, match=r"anchors is empty.*\(4, 3\) and anchors \(0, 3\)"):
            rr.product_projection(np.ones((4, 3)), np.ones((0, 3)))

    def test_complex_latents(self):
        with pytest.raises(ValueError, match="anchors must hold real numbers, got dtype complex64"):
            rr.relative_projection(np.ones((4, 3)), np.ones((2, 3), np.complex64))

    def test_unknown_names(self):
        with pytest.raises(ValueError, match=r"Unknown similarity \['cosine'\]"):
            rr.relative_projection(np.ones((4, 3)), np.ones((2, 3)), ["cosine"])
        with pytest.raises(ValueError, match="Did you mean 'cosine'"):
            rr.relative_projection(np.ones((4, 3)), np.ones((2, 3)), "cosin")
        with pytest.raises(ValueError, match="centering"):
            rr.relative_projection(np.ones((4, 3)), np.ones((2, 3)), absolute_transform="centre")

    def test_a_similarity_of_the_wrong_shape(self):
        with pytest.raises(ValueError, match=r"expected \(4, 2\)"):
            rr.relative_projection(np.ones((4, 3)), np.ones((2, 3)), lambda x, a: a @ x.T)

    def test_a_similarity_that_gives_no_array(self):
        for own in (lambda x, a: None, lambda x, a: [[1.0, 2.0]] * 4):
            with pytest.raises(ValueError, match=r"gave (NoneType|list) .* expected \(4, 2\)"):
                rr.relative_projection(np.ones((4, 3)), np.ones((2, 3)), own)

    def test_no_similarities_and_too_few_transforms(self):
        with pytest.raises(ValueError, match="similarities is empty"):
            rr.product_projection(np.ones((4, 3)), np.ones((2, 3)), ())
        with pytest.raises(ValueError, match="1 transforms for 2 similarities"):
            rr.product_projection(
                np.ones((4, 3)), np.ones((2, 3)), ("cosine", "inner"), ("centering",)
            )

    def test_a_single_similarity_needs_no_tuple(self):
        assert rr.product_projection(np.ones((4, 3)), np.ones((2, 3)), "cosine").shape == (1, 4, 2)


@pytest.mark.slow
def test_half_precision_does_not_overflow_on_the_way():
    x = (jax.random.uniform(jax.random.key(0), (30, 8), minval=-1) * 6e4).astype(jnp.float16)
    half = rr.relative_projection(x, x[:5], "cosine", absolute_transform="centering")
    full = rr.relative_projection(
        x.astype(jnp.float32), x[:5].astype(jnp.float32), "cosine", absolute_transform="centering"
    )
    assert half.dtype == jnp.float16
    np.testing.assert_allclose(half, full, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"absolute_transform": lambda x: x[:2]},
            r"absolute_transform .* made \(2, 4\) of",
        ),
        ({"absolute_transform": lambda x: x.mean(1)}, r"made \(6,\) of latents with 6 rows"),
        ({"relative_transform": lambda r: r[:2]}, r"relative_transform .* made \(2, 3\) of the"),
        ({"relative_transform": lambda r: r.sum()}, "relative_transform .* made "),
    ],
)
def test_transforms_keep_the_rows(options, said):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)
    with pytest.raises(ValueError, match=said):
        rr.relative_projection(x, x[:3], **options)


def test_a_product_has_an_order():
    with pytest.raises(ValueError, match="a set has none|in order"):
        rr.product_projection(jnp.ones((3, 2)), jnp.ones((2, 2)), {"cosine", "inner"})
