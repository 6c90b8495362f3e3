"""Which epoch's model is kept of each seed: the one that does best on validation data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from relrep_jax.models.functional import Variables


class Selection(NamedTuple):
    """What models are judged by.

    Attributes:
        score: `(variables, data) -> []` of one seed's model; the higher the better.
        data: pytree of arrays that all seeds share, placed with `SeedPlan.share`.
    """

    score: Callable[[Variables, Any], jax.Array]
    data: Any


class Best(NamedTuple):
    """The best model of a seed so far; stacked along a leading axis for many.

    Attributes:
        score: of this model, float32.
        epoch: after which it was, from 1; 0 before the first epoch.
        variables: the model.
    """

    score: jax.Array
    epoch: jax.Array
    variables: Variables


def start(variables: Variables) -> Best:
    """Nothing is known yet of one seed's model."""
    # Copies: the training may reuse the memory of the originals.
    copies = jax.tree.map(jnp.copy, variables)
    return Best(jnp.full((), -jnp.inf, jnp.float32), jnp.zeros((), jnp.int32), copies)


def update(
    score_of: Callable[[Variables, Any], jax.Array],
    seed: tuple[Variables, Best],
    epoch: jax.Array,
    data: Any,
) -> tuple[Best, jax.Array]:
    """Judge one seed's model after an epoch.

    Args:
        score_of: `score` of a `Selection`.
        seed: its model now, and the best one before.
        epoch: its number, from 1.
        data: see `Selection`.

    Returns:
        The better of both, the earlier one if they are equal; and the score of the model now.
        A score of NaN is never better, save that the first model is always taken.
    """
    variables, best = seed
    score = jnp.asarray(score_of(variables, data), jnp.float32)
    now = Best(
        jnp.where(jnp.isnan(score), -jnp.inf, score), jnp.asarray(epoch, jnp.int32), variables
    )
    is_better = (now.score > best.score) | (best.epoch == 0)
    return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), now, best), score
