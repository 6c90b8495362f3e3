"""Grids of scores: every encoder's space with every decoder."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from relrep_jax._linalg import as_float

Decode = Callable[[Any, jax.Array], jax.Array]
"""`(decoder, space) -> prediction`: a decoder is any pytree of arrays."""
Score = Callable[[jax.Array, Any], jax.Array]
"""`(prediction, targets) -> score`, of any shape."""


def stitching_column(
    decode: Decode, score: Score, spaces: jax.Array, decoder: Any, targets: Any
) -> jax.Array:
    """One decoder with the spaces of every encoder.

    Args:
        decode: `(decoder, space) -> prediction`.
        score: `(prediction, targets) -> score [...]`.
        spaces: `[e, n, d]` or products `[e, s, n, m]`, one an encoder.
        decoder: pytree of one decoder's arrays.
        targets: what the predictions are scored against, the same for every encoder.

    Returns:
        Scores `[e, ...]`.

    Raises:
        What `decode` and `score` raise where shapes do not fit.
    """
    return jax.vmap(lambda space: score(decode(decoder, space), targets))(spaces)


def stitching_grid(
    decode: Decode, score: Score, spaces: jax.Array, decoders: Any, targets: Any
) -> jax.Array:
    """Every encoder's space with every decoder: zero-shot stitching.

    `grid[i, j] = score(decode(decoder_j, space_i), targets)`. Each encoder has encoded the samples
    once; nothing is trained or fitted. The diagonal is the unstitched models.

    Args:
        decode: `(decoder, space) -> prediction`, a pure function.
        score: `(prediction, targets) -> score [...]`.
        spaces: `[e, n, d]` or products `[e, s, n, m]`, one an encoder.
        decoders: pytree of arrays with a leading axis of d decoders.
        targets: what the predictions are scored against.

    Returns:
        Scores `[e, d, ...]`: encoders along the rows, decoders along the columns.

    Raises:
        ValueError: the arrays of `decoders` differ in their leading axis.
        What `decode` and `score` raise where shapes do not fit.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 4.2 and 4.3.

    Example:
        >>> import jax, jax.numpy as jnp, relrep_jax as rr
        >>> spaces = jax.random.normal(jax.random.key(0), (3, 10, 4))
        >>> heads = jax.random.normal(jax.random.key(1), (2, 4, 5))
        >>> decode = lambda head, space: space @ head
        >>> score = lambda logits, labels: jnp.mean(jnp.argmax(logits, -1) == labels)
        >>> rr.stitching_grid(decode, score, spaces, heads, jnp.zeros(10, int)).shape
        (3, 2)
    """
    return jax.vmap(
        lambda decoder: stitching_column(decode, score, spaces, decoder, targets), out_axes=1
    )(decoders)


def stitching_index(
    grid: ArrayLike, *, higher_is_better: bool = True, where: ArrayLike | None = None
) -> jax.Array:
    """What stitching leaves of a score: 1 for all of it.

    The mean over pairs of the stitched score divided by the score of the same decoder with its own
    encoder; the other way round for errors. (Tables of trained models divide the two means, which
    is the same where all decoders do as well with their own encoders.)

    Args:
        grid: scores `[e, e]` of encoder i with decoder j, their own on the diagonal.
        higher_is_better: False for errors.
        where: which pairs count, `[e, e]`; all if left out. The diagonal never does.

    Returns:
        A scalar; NaN where no pair counts, or where one of them or its decoder's own score is not
        finite or is zero where it divides.

    Raises:
        ValueError: not a square matrix, or `where` has another shape.

    Reference: Cannistraci et al. 2024 (arXiv 2310.01211), section 4.2.

    Example:
        >>> import jax.numpy as jnp, relrep_jax as rr
        >>> print(rr.stitching.stitching_index(jnp.array([[0.8, 0.5], [0.4, 1.0]])))
        0.5
    """
    grid = jnp.asarray(grid)
    if grid.ndim != 2 or grid.shape[0] != grid.shape[1]:
        raise ValueError(f"grid must be a square matrix [e, e], got shape {grid.shape}.")
    if where is not None and jnp.shape(where) != grid.shape:
        raise ValueError(
            f"where must have the shape of grid, {grid.shape}, got {jnp.shape(where)}."
        )
    over, under = (grid, jnp.diag(grid)) if higher_is_better else (jnp.diag(grid), grid)
    under = jnp.broadcast_to(under, grid.shape)
    ratios = jnp.where(under == 0, jnp.nan, over / jnp.where(under == 0, 1, under))
    pairs = ~jnp.eye(grid.shape[0], dtype=bool)
    if where is not None:
        pairs &= jnp.asarray(where, bool)
    return jnp.sum(jnp.where(pairs, ratios, 0)) / jnp.where(pairs.any(), pairs.sum(), jnp.nan)


def squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error of each sample: `[n, ...], [n, ...] -> [n]`, float32 at least.

    Raises:
        ValueError: the shapes differ.
    """
    prediction, target = as_float(prediction), as_float(target)
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape, got {prediction.shape} and {target.shape}."
        )
    axes = tuple(range(1, target.ndim))
    return jnp.mean(jnp.square(prediction - target), axis=axes)


def is_correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether each sample's largest logit is its label's: `[n, c], [n] -> [n]` of 0 and 1.

    NaN for a sample with a NaN among its logits, whose largest would be taken for the first class.

    Raises:
        ValueError: there is not one label for each row of logits.
    """
    logits, labels = as_float(logits), jnp.asarray(labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"There must be a label for each row of logits, got logits {logits.shape} and labels "
            f"{labels.shape}."
        )
    is_right = (jnp.argmax(logits, axis=-1) == labels).astype(logits.dtype)
    return jnp.where(jnp.any(jnp.isnan(logits), axis=-1), jnp.nan, is_right)
