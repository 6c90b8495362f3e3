"""Choices of anchors, for experiments that compare them."""

from collections.abc import Callable

import jax

from relrep_jax import anchors


def _uniform(key: jax.Array, x: jax.Array, count: int) -> jax.Array:
    return anchors.uniform(key, x.shape[0], count)


def _farthest(key: jax.Array, x: jax.Array, count: int) -> jax.Array:
    start = jax.random.randint(key, (), 0, x.shape[0])
    return anchors.farthest_point(x, count, start, metric="cosine")


CHOICES: dict[str, Callable[[jax.Array, jax.Array, int], jax.Array]] = {
    "uniform": _uniform,
    "farthest_point": _farthest,
    "kmeans": anchors.kmeans,
}
"""Choices `(key, x [n, d], count) -> rows [count]` by name."""
