"""Choosing anchors: distinct, reproducible, uniform, exact counts by class."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

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
