"""Is a score more than chance? Row permutations as the null."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from relrep_jax.checks import resolve
from relrep_jax.measures._blocks import check_pair
from relrep_jax.measures.registry import DISTANCES, MEASURES


class PermutationResult(NamedTuple):
    """What `permutation_test` found.

    Attributes:
        score: the measure of the spaces as given.
        p_value: `(1 + #{null at least as alike}) / (count + 1)`.
        calibrated: 0 where the score does not pass the threshold, 1 at the best score.
        threshold: the score to pass.
        null: the measure under each permutation, `[count]`.
    """

    score: jax.Array
    p_value: jax.Array
    calibrated: jax.Array
    threshold: jax.Array
    null: jax.Array


def permutation_test(
    measure: str | Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    y: jax.Array,
    key: jax.Array,
    count: int = 200,
    *,
    alpha: float = 0.05,
    distance: bool | None = None,
    best: float | None = None,
    batch_size: int | None = None,
) -> PermutationResult:
    """Test and calibrate a measure against permutations of the rows of `y`.

    `p = (1 + #{null_b >= s}) / (count + 1)`; the threshold `t` is the
    `ceil((1 - alpha) (count + 1))`-th smallest of the score and the null together, and the
    calibrated score `clip((s - t) / (best - t), 0, 1)`. For distances, all orders are turned
    round. What wide spaces and few rows give to any two spaces is thus taken away.

    Args:
        measure: a name of `MEASURES`, or a function `(x, y) -> score` that can be traced
            (`functools.partial` sets its options).
        x: `[n, d1]`.
        y: `[n, d2]`, the same samples.
        key: a `jax.random.key`.
        count: how many permutations.
        alpha: level of the threshold, in (0, 1).
        distance: whether a lower score means more alike; by default as the measure is known.
        best: the score of identical spaces; by default 1, or 0 for distances.
        batch_size: how many permutations are scored at once; by default one after another,
            which takes the least memory.

    Returns:
        A `PermutationResult`.

    Raises:
        ValueError: the row counts differ, the name is unknown, or an option is out of range.

    Reference:
        Gröger, Wen and Brbić, arXiv 2602.14486.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (50, 4))
    >>> result = permutation_test("linear_cka", x, 2.0 * x, jax.random.key(1), count=19)
    >>> round(float(result.p_value), 4), round(float(result.calibrated), 4)
    (0.05, 1.0)
    """
    check_pair(x, y)
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}.")
    function = resolve("measure", measure, MEASURES)
    if distance is None:
        distance = any(function is MEASURES[name] for name in DISTANCES)
    if best is None:
        best = 0.0 if distance else 1.0
    sign = -1.0 if distance else 1.0
    x, y = jnp.asarray(x), jnp.asarray(y)

    def permuted(one):
        return function(x, y[jax.random.permutation(one, y.shape[0])])

    score = function(x, y)
    null = lax.map(permuted, jax.random.split(key, count), batch_size=batch_size)
    alike, others = sign * score, sign * null
    p_value = (1 + jnp.sum(others >= alike)) / (count + 1)
    place = math.ceil((1 - alpha) * (count + 1) - 1e-9)
    threshold = jnp.sort(jnp.append(others, alike))[place - 1]
    room = sign * best - threshold
    calibrated = jnp.where(room > 0, (alike - threshold) / jnp.where(room > 0, room, 1.0), 0.0)
    return PermutationResult(score, p_value, jnp.clip(calibrated, 0.0, 1.0), sign * threshold, null)
