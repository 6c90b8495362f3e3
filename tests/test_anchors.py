"""Choosing anchors: distinct, reproducible, as float64 would, and the same in every space."""

import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from relrep_jax import anchors


class VariantsTest(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_indices_are_distinct_int32_and_in_range(self):
        labels = jnp.arange(50) % 7
        for chosen in (
            self.variant(lambda key: anchors.uniform(key, 50, 20))(jax.random.key(3)),
            self.variant(lambda key: anchors.stratified(key, labels, 20))(jax.random.key(3)),
        ):
            assert chosen.shape == (20,)
            assert chosen.dtype == jnp.int32
            assert len(set(chosen.tolist())) == 20
            assert set(chosen.tolist()) <= set(range(50))


def test_the_key_decides():
    draw = lambda seed: anchors.uniform(jax.random.key(seed), 100, 10).tolist()  # noqa: E731
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_uniform_takes_every_sample_equally_often():
    sets = jax.vmap(lambda key: anchors.uniform(key, 20, 5))(
        jax.random.split(jax.random.key(0), 2000)
    )
    counts = np.bincount(np.asarray(sets).ravel(), minlength=20)
    assert stats.chisquare(counts).pvalue > 1e-4


# One shape and few counts, so that hypothesis does not wait for the compiler.
stratified = jax.jit(anchors.stratified, static_argnums=2)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from([-3, 0, 2, 7, 100]), min_size=24, max_size=24),
    num_anchors=st.sampled_from([1, 4, 11, 23, 24]),
    seed=st.integers(0, 1000),
)
def test_stratified_counts_are_those_of_a_round_robin(labels, num_anchors, seed):
    labels = np.array(labels)
    chosen = np.asarray(stratified(jax.random.key(seed), labels, num_anchors))
    assert len(set(chosen.tolist())) == num_anchors
    counts = np.array([np.sum(labels[chosen] == value) for value in np.unique(labels)])
    sizes = np.array([np.sum(labels == value) for value in np.unique(labels)])
    # Round-robin: no class gets two more than another that still had samples to give.
    assert np.all(counts <= sizes)
    exhausted = counts == sizes
    if not exhausted.all():
        assert counts.max() - counts[~exhausted].min() <= 1


def test_every_prefix_is_stratified_and_the_remainder_goes_to_random_classes():
    labels = np.arange(60) % 4
    extra = set()
    for seed in range(20):
        chosen = np.asarray(stratified(jax.random.key(seed), labels, 9))
        for length in range(1, 10):
            counts = np.bincount(labels[chosen[:length]], minlength=4)
            assert counts.max() - counts.min() <= 1
        extra.add(int(np.argmax(np.bincount(labels[chosen], minlength=4))))
    assert extra == {0, 1, 2, 3}


@pytest.mark.slow
def test_anchor_sets_are_drawn_side_by_side():
    keys = jax.random.split(jax.random.key(0), 4)
    labels = jnp.arange(30) % 3
    together = jax.vmap(lambda key: anchors.stratified(key, labels, 6))(keys)
    for key, row in zip(keys, together, strict=True):
        np.testing.assert_array_equal(stratified(key, labels, 6), row)


@pytest.mark.parametrize(
    "choose",
    [
        lambda count: anchors.uniform(jax.random.key(0), 10, count),
        lambda count: anchors.stratified(jax.random.key(0), np.arange(10) % 2, count),
    ],
)
def test_impossible_counts_are_refused(choose):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        choose(0)
    with pytest.raises(ValueError, match="is 11, but there are only 10 samples"):
        choose(11)


def test_labels_must_be_a_vector_of_integers():
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        anchors.stratified(jax.random.key(0), np.zeros((2, 2), int), 1)
    with pytest.raises(ValueError, match="float32"):
        anchors.stratified(jax.random.key(0), np.zeros(4, np.float32), 1)


def test_top_frequency_draws_among_the_first():
    sets = jax.vmap(lambda key: anchors.top_frequency(key, 100, 5, 10))(
        jax.random.split(jax.random.key(0), 1000)
    )
    counts = np.bincount(np.asarray(sets).ravel())
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-4
    with pytest.raises(ValueError, match="only the first 4 samples"):
        anchors.top_frequency(jax.random.key(0), 100, 5, 4)
    with pytest.raises(ValueError, match="number of samples, 100, got 101"):
        anchors.top_frequency(jax.random.key(0), 100, 5, 101)


# --- farthest points ---------------------------------------------------------------------------


def farthest_reference(x, num_anchors, start, metric="euclidean"):
    """Greedy farthest-point sampling in float64, the first of equals."""
    x = np.asarray(x).astype(np.float64)
    if metric == "cosine":
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        x = x / np.where(norm > 0, norm, 1)
    nearest, chosen = np.full(len(x), np.inf), [start]
    while len(chosen) < num_anchors:
        nearest = np.minimum(nearest, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
        nearest[chosen] = -1
        chosen.append(int(np.argmax(nearest)))
    return chosen


def spread(kind, n=1500, d=24):
    """Data that are hard for float32 in one way or another."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n, d))
    clusters = rng.normal(size=(20, d))[rng.integers(0, 20, n)]
    return {
        "normal": noise,
        "far from the origin": noise + 1000,
        "tight clusters": 1000 * clusters + noise,
        "outliers": noise * np.where(np.arange(n) % 500 == 7, 1e4, 1)[:, None],
        "duplicates": noise[rng.integers(0, n // 10, n)],
        "a grid": rng.integers(0, 3, (n, d)),
        "huge": noise * 1e30,
        "tiny": noise * 1e-25,
        "zeros": noise * 0,
    }[kind].astype(np.float32)


@pytest.mark.parametrize(
    "kind",
    [
        "far from the origin",
        "duplicates",
        "tiny",
        "zeros",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("normal", "tight clusters", "outliers", "a grid", "huge")
        ),
    ],
)
def test_farthest_points_are_those_of_float64(kind):
    x = spread(kind)
    chosen = anchors.farthest_point(x, 160, start=3)
    assert chosen.dtype == jnp.int32
    assert chosen.tolist() == farthest_reference(x, 160, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        "far from the origin",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tight clusters", "outliers")),
    ],
)
def test_farthest_points_by_angle_are_those_of_float64(kind):
    x = spread(kind)
    chosen = anchors.farthest_point(x, 160, start=3, metric="cosine")
    assert chosen.tolist() == farthest_reference(x, 160, 3, "cosine")


@pytest.mark.slow
def test_farthest_digits_are_those_of_float64_from_every_start():
    x = load_digits().data
    starts = [0, 17, 900]
    together = anchors.farthest_point(x, 100, start=starts)
    for start, chosen in zip(starts, together, strict=True):
        assert chosen.tolist() == farthest_reference(x, 100, start)
    # Pixels are whole numbers, so that half precision holds the same data.
    half = anchors.farthest_point(x.astype(np.float16), 100, start=17)
    assert half.tolist() == together[1].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_many_farthest_points_of_many_features_are_those_of_float64(metric):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 20)) @ rng.normal(size=(20, 512)) + rng.normal(size=(6000, 512))
    x = x.astype(np.float16)
    chosen = anchors.farthest_point(x, 300, metric=metric)
    assert chosen.tolist() == farthest_reference(x, 300, 0, metric)


farthest = jax.jit(anchors.farthest_point, static_argnums=1)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e-3, 3e4, 30001.0]), min_size=24, max_size=24
    ),
    start=st.integers(0, 11),
)
def test_any_few_points_give_the_indices_of_float64(values, start):
    x = np.array(values, np.float32).reshape(12, 2)
    assert farthest(x, 12, start).tolist() == farthest_reference(x, 12, start)


@pytest.mark.slow
def test_farthest_points_map_over_spaces_and_a_prefix_is_the_choice_of_fewer():
    x = jnp.stack([spread("normal", 60, 4), spread("duplicates", 60, 4)]).astype(jnp.float16)
    together = jax.vmap(lambda x: anchors.farthest_point(x, 20, start=[0, 7]))(x)
    assert together.shape == (2, 2, 20)
    for z, chosen in zip(x, together, strict=True):
        assert chosen[0].tolist() == farthest_reference(z, 20, 0)
        assert chosen[1].tolist() == farthest_reference(z, 20, 7)
    assert anchors.farthest_point(x[0], 6, start=7).tolist() == together[0, 1, :6].tolist()


@pytest.mark.slow
def test_numbers_that_are_none_still_give_distinct_anchors():
    x = spread("normal", 60, 4)
    x[[5, 30]] = np.nan
    assert len(set(anchors.farthest_point(x, 20).tolist())) == 20


def test_farthest_point_says_what_is_wrong():
    x = spread("normal", 10, 2)
    with pytest.raises(ValueError, match=r"start must lie in \[0, 10\) for 10 samples, got 10"):
        anchors.farthest_point(x, 3, start=10)
    with pytest.raises(ValueError, match="start must be integers, got dtype float"):
        anchors.farthest_point(x, 3, start=0.5)
    with pytest.raises(ValueError, match=r"vector \[s\] of indices, got shape \(1, 2\)"):
        anchors.farthest_point(x, 3, start=np.zeros((1, 2), int))
    with pytest.raises(ValueError, match="Unknown metric 'cosin'. Did you mean 'cosine'"):
        anchors.farthest_point(x, 3, metric="cosin")
    with pytest.raises(ValueError, match="only 10 samples"):
        anchors.farthest_point(x, 11)


# --- facility location -------------------------------------------------------------------------


def greedy_reference(x, num_anchors, candidates):
    distances = cdist(x.astype(np.float64), x.astype(np.float64))[candidates]
    nearest, chosen = None, []
    for _ in range(num_anchors):
        gains = -distances if nearest is None else np.maximum(nearest - distances, 0)
        gains = gains.sum(axis=1)
        gains[chosen] = -np.inf
        chosen.append(int(np.argmax(gains)))
        best = distances[chosen[-1]]
        nearest = best if nearest is None else np.minimum(nearest, best)
    return np.asarray(candidates)[chosen].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("candidates", [None, np.arange(5, 300, 3)])
def test_greedy_is_the_greedy_of_float64(candidates):
    x = spread("normal", 300, 8) + 3
    expected = greedy_reference(x, 40, np.arange(300) if candidates is None else candidates)
    assert anchors.greedy(x, 40, candidates=candidates).tolist() == expected
    assert anchors.greedy(x, 1, candidates=candidates).tolist() == expected[:1]


@pytest.mark.slow
def test_greedy_stays_distinct_among_duplicates_and_maps_over_spaces():
    x = jnp.stack([spread("zeros", 20, 2), spread("normal", 20, 2)])
    together = jax.vmap(lambda x: anchors.greedy(x, 20))(x)
    assert together[0].tolist() == list(range(20))
    assert sorted(together[1].tolist()) == list(range(20))
    assert together[1].tolist()[:10] == anchors.greedy(x[1], 10).tolist()
    with pytest.raises(ValueError, match=r"candidates must lie in \[0, 20\)"):
        anchors.greedy(x[0], 2, candidates=[3, 20, 4])


# --- clusters and prototypes -------------------------------------------------------------------


def inertia(x, result):
    centroids = np.asarray(result.centroids, np.float64)
    return float(np.sum((x.astype(np.float64) - centroids[np.asarray(result.assignments)]) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "far clusters"])
def test_clusters_are_as_tight_as_those_of_scikit_learn(name):
    rng = np.random.default_rng(0)
    x = {
        "digits": load_digits().data,
        "far clusters": 10 * rng.normal(size=(25, 8))[rng.integers(0, 25, 1500)]
        + rng.normal(size=(1500, 8))
        + 500,
    }[name].astype(np.float32)
    result = anchors.cluster(jax.random.key(0), x, 25)
    theirs = KMeans(25, n_init=3, random_state=0).fit(x.astype(np.float64)).inertia_
    assert inertia(x, result) <= 1.05 * theirs
    np.testing.assert_allclose(result.inertia, inertia(x, result), rtol=1e-3)
    # Every sample is in the cluster of its nearest centroid.
    distances = cdist(x, result.centroids)
    own = distances[np.arange(len(x)), np.asarray(result.assignments)]
    np.testing.assert_allclose(own, distances.min(axis=1), rtol=1e-3)


@pytest.mark.slow
def test_restarts_keep_the_best_and_no_cluster_stays_empty():
    x = spread("duplicates", 300, 2)
    once = anchors.cluster(jax.random.key(1), x, 25, init="random")
    often = anchors.cluster(jax.random.key(1), x, 25, init="random", restarts=4)
    assert float(often.inertia) <= float(once.inertia) * 1.1
    # Random samples of duplicates begin as equal centroids, of which all but one are empty.
    assert len(np.unique(once.assignments)) == 25


@pytest.mark.slow
def test_spherical_clusters_heed_directions_alone():
    rng = np.random.default_rng(0)
    directions = ortho_group.rvs(6, random_state=0)
    labels = rng.integers(0, 6, 300)
    x = (
        directions[labels]
        * rng.uniform(0.01, 100, (300, 1))
        * (1 + 0.01 * rng.normal(size=(300, 6)))
    )
    result = anchors.cluster(jax.random.key(0), x, 6, spherical=True)
    pairs = set(zip(labels.tolist(), result.assignments.tolist(), strict=True))
    assert len(pairs) == 6
    np.testing.assert_allclose(np.linalg.norm(result.centroids, axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_kmeans_anchors_are_next_to_the_centroids_and_distinct():
    # More samples than are looked at at a time.
    x = spread("normal", 5000, 3)
    result = anchors.cluster(jax.random.key(3), x, 20, steps=10)
    chosen = np.asarray(anchors.kmeans(jax.random.key(3), x, 20, steps=10))
    distances = cdist(result.centroids, x)
    np.testing.assert_array_equal(chosen, distances.argmin(axis=1))
    np.testing.assert_array_equal(result.assignments, distances.argmin(axis=0))
    # One point many times: all centroids have the same nearest sample.
    assert sorted(anchors.kmeans(jax.random.key(0), np.zeros((12, 3)), 12).tolist()) == list(
        range(12)
    )


@pytest.mark.slow
def test_clusterings_run_side_by_side():
    x = spread("normal", 80, 3)
    keys = jax.random.split(jax.random.key(0), 3)
    together = jax.vmap(lambda key: anchors.kmeans(key, x, 9, steps=10))(keys)
    for key, chosen in zip(keys, together, strict=True):
        np.testing.assert_array_equal(chosen, anchors.kmeans(key, x, 9, steps=10))
        assert len(set(chosen.tolist())) == 9


def two_spaces(n=240, seed=0):
    """A space, a rotation of it in which other samples have joined, and which rows correspond."""
    rng = np.random.default_rng(seed)
    x = (3 * rng.normal(size=(8, 6))[rng.integers(0, 8, n)] + rng.normal(size=(n, 6))).astype(
        np.float32
    )
    rotation = ortho_group.rvs(6, random_state=1).astype(np.float32)
    order = rng.permutation(n + 30)[:n]
    y = rng.normal(size=(n + 30, 6)).astype(np.float32)
    y[order] = x @ rotation
    return x, y, rotation, order


@pytest.mark.slow
@pytest.mark.parametrize("by", [0, 1, "joint"])
def test_prototypes_of_a_rotated_space_are_rotated_prototypes(by):
    x, y, rotation, order = two_spaces()
    rows = [np.arange(len(x)), order]
    first, second = anchors.prototypes(jax.random.key(0), [x, y], 8, rows=rows, by=by)
    np.testing.assert_allclose(first @ rotation, second, atol=1e-4)
    memberships = np.asarray(anchors.memberships(jax.random.key(0), [x, y], 8, rows=rows, by=by))
    expected = [x[memberships == j].mean(axis=0) for j in range(8)]
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_prototypes_of_one_space_are_its_centroids_and_keep_its_dtype():
    x, *_ = two_spaces()
    (first,) = anchors.prototypes(jax.random.key(0), [x], 8)
    centroids = anchors.cluster(jax.random.key(0), x, 8).centroids
    np.testing.assert_allclose(first, centroids, atol=1e-4)
    half = anchors.prototypes_of(jnp.asarray(x, jnp.bfloat16), jnp.arange(len(x)) % 3 - 1, 2)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        np.asarray(half, np.float32), [x[1::3].mean(axis=0), x[2::3].mean(axis=0)], atol=0.03
    )


@pytest.mark.slow
def test_joint_clusters_see_what_no_space_sees_alone():
    sides = np.array([[-1], [1]])
    labels = np.arange(200) % 4
    noise = np.random.default_rng(0).normal(size=(2, 200, 1)) * 0.1
    x, y = sides[labels // 2] + noise[0], 1000 * (sides[labels % 2] + noise[1])
    memberships = anchors.memberships(jax.random.key(0), [x, y], 4, by="joint", restarts=5)
    assert len(set(zip(labels.tolist(), memberships.tolist(), strict=True))) == 4
    unit = anchors.memberships(
        jax.random.key(0), [x, y], 4, by="joint", standardize=False, restarts=5
    )
    assert len(set(zip(labels.tolist(), unit.tolist(), strict=True))) == 4


def test_prototypes_say_what_is_wrong():
    x, y, _, order = two_spaces()
    prototypes = lambda spaces, **options: anchors.prototypes(  # noqa: E731
        jax.random.key(0), spaces, 8, **options
    )
    with pytest.raises(ValueError, match=r"same samples, got \[240, 270\] rows. Say with rows"):
        prototypes([x, y])
    with pytest.raises(ValueError, match=r"rows\[1\] must lie in \[0, 270\).*got 270"):
        prototypes([x, y], rows=[[0, 1], [0, 270]])
    with pytest.raises(ValueError, match=r"one shape \[p\].*\(2,\), \(3,\)"):
        prototypes([x, y], rows=[[0, 1], [0, 1, 2]])
    with pytest.raises(ValueError, match="each of the 2 spaces, got 1"):
        prototypes([x, y], rows=[order])
    with pytest.raises(ValueError, match='one of the 2 spaces, 0 to 1, or "joint", got 2'):
        prototypes([x, x], by=2)
    with pytest.raises(ValueError, match="only 2 samples"):
        prototypes([x, y], rows=[[0, 1], [0, 1]])
    with pytest.raises(ValueError, match="Unknown init 'kmeans'"):
        prototypes([x], init="kmeans")
    with pytest.raises(ValueError, match="list of latents"):
        prototypes(x)


# --- mixtures ----------------------------------------------------------------------------------


def coverage(x, points):
    return cdist(x, points).min(axis=1).mean()


@pytest.mark.slow
def test_learned_mixtures_are_convex_cover_well_and_lower_the_loss():
    x = load_digits().data[:600].astype(np.float32)
    key = jax.random.key(0)
    before, after = (anchors.learn_mixtures(key, x, 15, steps=steps) for steps in (0, 100))
    for weights in (before, after):
        assert (np.asarray(weights) >= 0).all()
        np.testing.assert_allclose(np.sum(weights, axis=1), 1, rtol=1e-5)
    assert anchors.mixture_loss(after, x) < anchors.mixture_loss(before, x) - 0.01
    chance = np.mean(
        [coverage(x, x[anchors.uniform(jax.random.key(seed), 600, 15)]) for seed in range(5)]
    )
    assert coverage(x, anchors.apply_mixtures(after, x)) < 0.9 * chance


@pytest.mark.slow
def test_terms_do_what_they_are_named_after():
    x, *_ = two_spaces()
    learn = lambda **terms: anchors.learn_mixtures(  # noqa: E731
        jax.random.key(0), x, 6, steps=60, **terms
    )
    points = lambda weights: np.asarray(anchors.apply_mixtures(weights, x))  # noqa: E731
    width = lambda weights: float(np.exp(stats.entropy(weights, axis=1)).mean())  # noqa: E731
    base = learn()
    assert cdist(points(learn(diversity=1.0)), points(learn(diversity=1.0))).mean() > (
        cdist(points(base), points(base)).mean()
    )
    assert width(learn(entropy=1.0)) > width(base) > width(learn(clustering=1.0, entropy=0.0))


def test_mixtures_of_a_rotated_space_are_rotated_mixtures():
    x, y, rotation, order = two_spaces()
    weights = np.random.default_rng(0).dirichlet(np.full(240, 0.1), 8)
    expected = np.asarray(anchors.apply_mixtures(weights, x)) @ rotation
    np.testing.assert_allclose(anchors.apply_mixtures(weights, y, rows=order), expected, atol=1e-4)
    np.testing.assert_allclose(
        anchors.apply_mixtures(weights, y[order] + 1000), expected + 1000, rtol=1e-6
    )


@pytest.mark.slow
def test_only_candidates_are_mixed_and_keys_map():
    x, *_ = two_spaces()
    candidates = jnp.arange(0, 240, 5)
    learn = lambda key: anchors.learn_mixtures(  # noqa: E731
        key, x, 4, steps=5, candidates=candidates
    )
    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(learn)(keys)
    np.testing.assert_allclose(together[1], learn(keys[1]), atol=1e-4)
    assert int(anchors.count_parallel_samples(weights=together[0])) == 48
    assert np.flatnonzero(together[0].sum(axis=0)).tolist() == candidates.tolist()


def test_centroid_mixtures_take_the_closest_and_come_nearer_than_their_mean():
    x, *_ = two_spaces()
    centroids = anchors.cluster(jax.random.key(0), x, 8).centroids + 0.5
    weights = np.asarray(anchors.centroid_mixtures(x, centroids, num_closest=12))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    closest = np.argsort(cdist(centroids, x), axis=1)[:, :12]
    for row, expected in zip(weights, closest, strict=True):
        assert set(np.flatnonzero(row)) == set(expected)
    error = lambda weights: np.linalg.norm(weights @ x - centroids, axis=1).mean()  # noqa: E731
    assert error(weights) < 0.9 * error((weights > 0) / 12)
    even = anchors.centroid_mixtures(x, centroids, num_closest=12, divergence=1e3)
    np.testing.assert_allclose(even, (weights > 0) / 12, atol=2e-3)


def test_mixtures_say_what_is_wrong():
    x, y, *_ = two_spaces()
    key = jax.random.key(0)
    weights = jnp.full((3, 240), 1 / 240)
    with pytest.raises(ValueError, match=r"weights \(3, 240\) and y \(270, 6\). Say with rows"):
        anchors.apply_mixtures(weights, y)
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 270\).*got -1"):
        anchors.apply_mixtures(weights, y, rows=[-1, 2])
    with pytest.raises(ValueError, match="only 2 samples"):
        anchors.learn_mixtures(key, x, 3, candidates=[4, 5])
    with pytest.raises(ValueError, match="temperature must be above 0"):
        anchors.learn_mixtures(key, x, 3, temperature=0)
    with pytest.raises(ValueError, match="same width"):
        anchors.centroid_mixtures(x, np.zeros((2, 5)))


# --- bootstrapping -----------------------------------------------------------------------------


def half_known(noise, num_seeds, n=240, d=12):
    """Two spaces of the same samples, the second rotated, noisy and in another order."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, d))[rng.integers(0, 20, n)] + 0.7 * rng.normal(size=(n, d))
    order = rng.permutation(n)
    rotated = (x + noise * rng.normal(size=x.shape)) @ ortho_group.rvs(d, random_state=1)
    place = np.argsort(order)
    known = rng.choice(n, num_seeds, replace=False)
    seeds = np.stack([known, place[known]], axis=1)
    return x.astype(np.float32), rotated[order].astype(np.float32), seeds, place


@pytest.mark.slow
def test_ten_seeds_find_most_of_fifty_anchors():
    pytest.importorskip("ott")
    x, y, seeds, place = half_known(0.4, 10)
    right = {}
    for steps in (0, 40):
        result = anchors.bootstrap(jax.random.key(0), x, y, seeds, 50, steps=steps)
        pairs = np.asarray(result.pairs)
        np.testing.assert_array_equal(pairs[:10], seeds)
        assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == 50
        right[steps] = np.mean(place[pairs[:, 0]] == pairs[:, 1])
    assert right[40] > 0.9
    assert right[40] > right[0] + 0.1
    assert result.anchors.shape == (50, 12)
    assert result.costs[1] < 0.8 * result.costs[0]


@pytest.mark.slow
def test_bootstrapping_from_part_of_the_samples_and_with_nothing_to_find():
    pytest.importorskip("ott")
    x, y, seeds, place = half_known(0.1, 10)
    some = anchors.bootstrap(
        jax.random.key(0),
        x,
        y[: len(y) - 40],
        seeds[seeds[:, 1] < 200],
        20,
        num_samples=100,
        steps=5,
    )
    assert some.pairs[:, 1].max() < 200
    all_known = anchors.bootstrap(jax.random.key(0), x, y, seeds, 10)
    np.testing.assert_array_equal(all_known.pairs, seeds)


def test_bootstrapping_says_what_is_wrong(monkeypatch):
    x, y, seeds, _ = half_known(0.1, 10)
    bootstrap = lambda seeds, count=20: anchors.bootstrap(  # noqa: E731
        jax.random.key(0), x, y, seeds, count
    )
    with pytest.raises(ValueError, match=r"pairs \[k, 2\].*got shape \(10,\)"):
        bootstrap(seeds[:, 0])
    with pytest.raises(ValueError, match=r"seeds\[:, 1\] must lie in \[0, 240\)"):
        bootstrap([[0, 240]])
    with pytest.raises(ValueError, match=r"seeds\[:, 0\] holds a row of x twice"):
        bootstrap([[0, 1], [0, 2]])
    with pytest.raises(ValueError, match="number of seeds, 10, and that of samples, 240, got 9"):
        bootstrap(seeds, 9)
    monkeypatch.setitem(sys.modules, "ott", None)
    monkeypatch.setitem(sys.modules, "ott.geometry", None)
    with pytest.raises(ImportError, match=r'pip install "relrep_jax\[ot\]"'):
        bootstrap(seeds)


# --- budgets -----------------------------------------------------------------------------------


def test_parallel_samples_are_counted_once():
    count = anchors.count_parallel_samples
    assert int(jax.jit(lambda i: count(indices=i))(jnp.array([4, 1, 4, 0]))) == 3
    assert int(count(weights=jnp.array([[0.5, 0, 0.5, 0], [0, 0, 1, 0]]))) == 2
    assert int(count(assignments=jnp.array([0, -1, 3, 3]))) == 3
    with pytest.raises(ValueError, match="exactly one.*got none"):
        count()
    with pytest.raises(ValueError, match="exactly one.*got indices, weights"):
        count(indices=jnp.arange(3), weights=jnp.eye(3))
    with pytest.raises(ValueError, match=r"weights must have shape \[m, n\]"):
        count(weights=jnp.arange(3))


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-80, 80])
def test_kmeans_is_blind_to_powers_of_two(exponent):
    key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), (64, 5))
    scaled = jnp.ldexp(x, exponent)
    np.testing.assert_array_equal(anchors.kmeans(key, scaled, 6), anchors.kmeans(key, x, 6))
    found, expected = anchors.cluster(key, scaled, 6), anchors.cluster(key, x, 6)
    np.testing.assert_allclose(
        jnp.ldexp(found.centroids, -exponent), expected.centroids, rtol=1e-6, atol=1e-6
    )


@pytest.mark.slow
def test_greedy_stays_distinct_where_samples_are_not_finite():
    x = jax.random.normal(jax.random.key(0), (30, 3))
    expected = anchors.greedy(jnp.delete(x, 20, axis=0), 5)
    expected = expected + (expected >= 20)
    for bad in (jnp.nan, jnp.inf):
        some = x.at[20].set(bad)
        np.testing.assert_array_equal(anchors.greedy(some, 5), expected)
        assert sorted(anchors.greedy(some, 30).tolist()) == list(range(30))
        assert anchors.greedy(some, 30)[-1] == 20


def test_a_candidate_that_stands_twice_is_refused():
    x = jax.random.normal(jax.random.key(0), (30, 3))
    with pytest.raises(ValueError, match="candidates must be distinct, got 1 twice"):
        anchors.greedy(x, 3, candidates=[1, 2, 1, 4])
    with pytest.raises(ValueError, match="candidates must be distinct"):
        anchors.learn_mixtures(jax.random.key(0), x, 2, candidates=[1, 1, 2])


@pytest.mark.parametrize("wrong", ["num_samples", "num_anchors"])
def test_numbers_of_samples_are_not_the_samples(wrong):
    arguments = {"num_samples": 10, "num_anchors": 3, wrong: jnp.ones((10, 2))}
    with pytest.raises(
        ValueError, match=rf"{wrong} must be a whole number, got an array \(10, 2\)"
    ):
        anchors.uniform(jax.random.key(0), **arguments)


@pytest.mark.parametrize("wrong", ["10", None, np.float32(10), 10.0])
def test_numbers_of_samples_are_whole_numbers(wrong):
    with pytest.raises(ValueError, match="num_samples must be a whole number"):
        anchors.uniform(jax.random.key(0), wrong, 2)
    assert anchors.uniform(jax.random.key(0), np.int64(10), np.int32(2)).shape == (2,)


def test_labels_in_a_list():
    labels = [2**40, 0, 2**40, 0]
    found = np.asarray(anchors.stratified(jax.random.key(0), labels, 2))
    assert {labels[i] for i in found} == {0, 2**40}
    with pytest.raises(ValueError, match="labels must be a vector"):
        anchors.stratified(jax.random.key(0), ["a", "b"], 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"epsilon": float("nan")}, "epsilon must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0"),
        ({"sinkhorn_steps": 0}, "sinkhorn_steps must be at least 1"),
    ],
)
def test_bootstrapping_refuses_what_would_invent_correspondences(options, said):
    x = np.random.default_rng(0).standard_normal((20, 3))
    with pytest.raises(ValueError, match=said):
        anchors.bootstrap(jax.random.key(0), x, x, np.array([[0, 0], [1, 1]]), 4, **options)


def test_weights_of_terms_are_not_negative():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((20, 3)), jnp.float32)
    with pytest.raises(ValueError, match="coverage must be at least 0"):
        anchors.learn_mixtures(jax.random.key(0), x, 4, coverage=-1.0)
    with pytest.raises(ValueError, match="divergence must be at least 0"):
        anchors.centroid_mixtures(x, x[:3], divergence=-5.0)


@pytest.mark.slow
def test_classes_beyond_32_bits_stay_apart():
    labels = np.array([0, 2**32, 2**33, -(2**40)] * 25)
    chosen = labels[np.asarray(anchors.stratified(jax.random.key(0), labels, 8))]
    assert [int((chosen == label).sum()) for label in np.unique(labels)] == [2, 2, 2, 2]
    for wrong in (np.int64(2**40), np.full((3, 2), 2**40)):
        with pytest.raises(ValueError, match="labels must be a vector"):
            anchors.stratified(jax.random.key(0), wrong, 1)


# --- ranges ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1e3, 1e5])
def test_clusters_that_lie_far_apart_keep_their_digits(offset):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(50, 4)) + side * offset for side in (1, -1)])
    x = x.astype(np.float32)
    found = anchors.cluster(jax.random.key(0), x, 10, steps=20)
    squares = cdist(x.astype(np.float64), np.asarray(found.centroids, np.float64)) ** 2
    own = np.take_along_axis(squares, np.asarray(found.assignments)[:, None], 1)[:, 0]
    np.testing.assert_allclose(own, squares.min(axis=1), rtol=1e-3, atol=1e-12 * offset**2)
    assert float(found.inertia) == pytest.approx(own.sum(), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("power", [60, -70])
def test_scales_do_not_change_what_is_chosen(power):
    x = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    scaled, key = x * np.float32(2.0**power), jax.random.key(0)
    for choose in (
        lambda x: anchors.kmeans(key, x, 8, restarts=4, steps=10),
        lambda x: anchors.greedy(x, 6),
        lambda x: anchors.mixture_loss(jnp.ones((2, 100)) / 100, x),
    ):
        np.testing.assert_array_equal(choose(scaled), choose(x))


def test_greedy_anchors_are_distinct_where_sums_of_distances_overflow():
    x = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    np.testing.assert_array_equal(anchors.greedy(x * 2.0**121, 6), anchors.greedy(x, 6))
