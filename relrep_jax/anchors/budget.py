"""How many parallel samples a choice of anchors takes."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def count_parallel_samples(
    *,
    indices: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    assignments: ArrayLike | None = None,
) -> Array:
    """The number of distinct samples that have to be known in both spaces.

    Anchors should be compared at equal numbers of these, not of anchors: m prototypes of 100
    samples each take 100 m correspondences. Give one of the three.

    Args:
        indices: `[m]` anchors that are samples; what counts is how many are different.
        weights: `[m, n]` mixtures; the samples with a weight above 0 in any of them.
        assignments: `[n]` clusters of prototypes; the samples with one, which is at least 0.

    Returns:
        The number, int32.

    Raises:
        ValueError: not exactly one of the three, or of another rank.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> print(anchors.count_parallel_samples(indices=[3, 5, 3]))
        2
        >>> weights = jnp.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
        >>> print(anchors.count_parallel_samples(weights=weights))
        2
    """
    given = {"indices": indices, "weights": weights, "assignments": assignments}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        raise ValueError(
            "Give exactly one of indices, weights and assignments, got "
            f"{', '.join(given) or 'none'}."
        )
    ((name, value),) = given.items()
    value = jnp.asarray(value)
    rank, shape = (2, "[m, n]") if name == "weights" else (1, "[m]")
    if value.ndim != rank or value.size == 0:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}.")
    if name == "indices":
        ordered = jnp.sort(value)
        return 1 + jnp.sum(ordered[1:] != ordered[:-1], dtype=jnp.int32)
    used = jnp.any(value > 0, axis=0) if name == "weights" else value >= 0
    return jnp.sum(used, dtype=jnp.int32)
