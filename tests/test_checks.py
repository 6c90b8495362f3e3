"""Checks at the doors, and what importing the package costs."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relrep_jax as rr
from relrep_jax import checks


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, jnp.bfloat16])
def test_finite_latents_pass(dtype):
    rr.validate_latents(np.ones((3, 2)).astype(dtype))


def test_large_float64_is_finite():
    rr.validate_latents(np.full((2, 2), 1e300))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_rows_are_named(value):
    x = np.ones((10, 2), np.float32)
    x[[3, 7]] = value
    with pytest.raises(ValueError, match=r"bert\.npy has NaN or infinite values in 2 of 10.*3, 7"):
        rr.validate_latents(x, "bert.npy")
    with pytest.raises(ValueError, match="in 1 of 10"):
        rr.validate_latents(
            jnp.asarray(np.where(np.arange(10)[:, None] == 3, value, 1.0), jnp.bfloat16)
        )


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.ones(3), r"must have shape \[n, d\], got \(3,\)"),
        (np.ones((2, 3, 4)), "jax.vmap"),
        (np.ones((0, 3)), "is empty"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.array([[1j]]), "real numbers"),
    ],
)
def test_what_is_not_a_matrix_of_real_numbers_is_refused(latents, message):
    with pytest.raises(ValueError, match=message):
        rr.validate_latents(latents)


X = jnp.ones((6, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: rr.anchors.cluster(key, X, 2.0), "num_clusters must be a whole number"),
        (lambda key: rr.anchors.cluster(key, X, 0), "num_clusters must be at least 1, got 0"),
        (lambda key: rr.anchors.cluster(key, X, 7), "only 6 samples"),
        (lambda key: rr.anchors.cluster(key, X, 2, steps=2.5), "steps must be a whole number"),
        (lambda key: rr.anchors.cluster(key, X, 2, restarts="2"), "restarts must be a whole"),
        (lambda key: rr.anchors.uniform(key, 6, jnp.array([2])), r"got an array \(1,\)"),
        (lambda key: rr.transforms.zero_padding(4.0), "width must be a whole number, got 4.0"),
        (
            lambda key: rr.translation.generalized_procrustes.fit([X, X], iterations=None),
            "iterations must be a whole number",
        ),
        (
            lambda key: rr.permutation_test("linear_cka", X, X, key, count=2.5),
            "count must be a whole number, got 2.5",
        ),
    ],
)
def test_counts_are_whole_numbers(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))


def test_lookup_names_the_nearest_and_lists_the_known():
    known = {"cosine": 1, "euclidean": 2}
    assert checks.lookup("similarity", "cosine", known) == 1
    with pytest.raises(ValueError, match="Unknown similarity 'cosnie'. Did you mean 'cosine'"):
        checks.lookup("similarity", "cosnie", known)
    with pytest.raises(ValueError, match="Known: cosine, euclidean"):
        checks.lookup("similarity", "zzz", known)


def test_the_package_offers_what_it_names_on_first_use():
    import relrep_jax as rr

    for name in rr.__all__:
        assert getattr(rr, name) is not None
        assert name in dir(rr)
    assert rr.permutation_test is rr.measures.permutation_test
    with pytest.raises(AttributeError, match="has no attribute 'permutation_tset'"):
        _ = rr.permutation_tset


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, relrep_jax as rr; before = 'jax' in sys.modules; "
        "[getattr(rr, name) for name in rr.__all__]; print(before, [m for m in ("
        "'tensorflow_datasets', 'tensorflow', 'matplotlib', 'orbax', 'torch', "
        "'sklearn', 'scipy.stats', 'tensorboardX', 'ml_collections') if m in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "False []"
