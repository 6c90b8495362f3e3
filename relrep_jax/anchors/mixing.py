"""Anchors that are convex mixtures of samples: weights that one space learns and others share."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax._linalg import as_float, centre, dot, size_of
from relrep_jax._sharding import automatic_sharding
from relrep_jax.anchors._checks import check_candidates, check_indices
from relrep_jax.anchors.clustering import cluster
from relrep_jax.checks import check_count, check_matrix, check_number
from relrep_jax.similarities import pairwise

# How much of a mixture's weight is outside of its cluster at first.
LEAK = 0.05


def _check_terms(coverage, diversity, clustering, entropy) -> tuple:
    terms = {
        "coverage": coverage,
        "diversity": diversity,
        "clustering": clustering,
        "entropy": entropy,
    }
    for name, value in terms.items():
        check_number(name, value, "be at least 0", lambda value: value >= 0)
    return tuple(terms.values())


@automatic_sharding
def mixture_loss(
    weights: ArrayLike,
    x: ArrayLike,
    *,
    coverage: float = 1.0,
    diversity: float = 0.05,
    clustering: float = 0.1,
    entropy: float = 0.1,
) -> Array:
    """What `learn_mixtures` minimises.

    With the anchors `a = W x`, distances in units of the spread of the samples (the root of their
    mean squared distance from the mean), and the entropy `H`,

        coverage   mean_i min_j |x_i - a_j|
      - diversity  mean_(j != k) |a_j - a_k|
      + clustering mean_j sum_i W_ji |x_i - a_j|
      - entropy    mean_j H(W_j) / log n.

    Args:
        weights: `W [m, n]`, rows that sum to 1.
        x: latents `[n, d]`.
        coverage, diversity, clustering, entropy: the weights of the terms, at least 0. Coverage
            puts an anchor near to every sample, diversity anchors far from each other, clustering
            an anchor's samples near to it; entropy makes mixtures of many samples.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: not matrices, or `weights` not `[m, n]` for `x [n, d]`; negative weights of
            terms.

    Reference: Svendsen et al. 2026 (arXiv 2605.30596), whose terms these are in other units.
    """
    _check_weights(weights, x)
    terms = _check_terms(coverage, diversity, clustering, entropy)
    weights, x = as_float(weights), as_float(x)
    dtype = jnp.promote_types(weights.dtype, x.dtype)
    return _loss(weights.astype(dtype), _rescaled(x.astype(dtype)), terms)


def _rescaled(x: Array) -> Array:
    x = centre(x)[0]
    return x / _spread(x)


def _spread(x: Array) -> Array:
    """The root mean square of the lengths of rows, 1 where that is 0."""
    size = size_of(x)
    spread = jnp.sqrt(jnp.mean(jnp.sum(jnp.square(x / size), axis=1))) * size
    return jnp.where(spread > 0, spread, 1)


def _loss(weights: Array, x: Array, terms: tuple[float, ...]) -> Array:
    coverage, diversity, clustering, entropy = terms
    m, n = weights.shape
    anchors = dot(weights, x)
    distances = pairwise.euclidean(x, anchors)
    between = jnp.sum(pairwise.euclidean(anchors, anchors)) / max(m * (m - 1), 1)
    within = jnp.mean(jnp.sum(weights * distances.T, axis=1))
    surprise = jnp.sum(
        jnp.where(weights > 0, -weights * jnp.log(jnp.where(weights > 0, weights, 1)), 0)
    )
    width = surprise / (m * math.log(n)) if n > 1 else 0.0
    nearest = jnp.mean(jnp.min(distances, axis=1))
    return coverage * nearest - diversity * between + clustering * within - entropy * width


@automatic_sharding
def learn_mixtures(
    key: Array,
    x: ArrayLike,
    num_anchors: int,
    *,
    temperature: float = 0.2,
    steps: int = 200,
    learning_rate: float = 0.02,
    coverage: float = 1.0,
    diversity: float = 0.05,
    clustering: float = 0.1,
    entropy: float = 0.1,
    candidates: ArrayLike | None = None,
) -> Array:
    """Anchors learned as convex mixtures of samples, `a = softmax(Q / temperature) x`.

    `Q` begins at the clusters of k-means and descends `mixture_loss` by Adam. Only the weights
    are returned: in every other space of the same samples they give the corresponding anchors, by
    `apply_mixtures`. For partial correspondences learn from the rows that correspond,
    `learn_mixtures(key, x[rows_of_x], m)`, and apply with `rows=rows_of_y`.

    Args:
        key: a `jax.random.key`.
        x: latents `[n, d]`.
        num_anchors: the number m of anchors.
        temperature: above 0.
        steps: how many steps of Adam.
        learning_rate: their size.
        coverage, diversity, clustering, entropy: the weights of the terms of `mixture_loss`.
        candidates: indices `[c]`, distinct, of the samples that are mixed and covered; None for
            all. Memory and time are those of several arrays `[m, c]`, and c is the number of
            parallel samples that the anchors take: give a few thousand of many.

    Returns:
        Weights `[m, n]`, at least 0, whose rows sum to 1; 0 for those that are not candidates.

    Raises:
        ValueError: not a matrix; `num_anchors` is below 1 or above the number of candidates;
            `candidates` is not a vector of indices; `temperature` is not above 0; `steps` or the
            weights of terms are negative.

    Reference: Svendsen et al. 2026 (arXiv 2605.30596).

    Example:
        >>> import jax
        >>> from relrep_jax import anchors
        >>> x = jax.random.normal(jax.random.key(0), (100, 8))
        >>> weights = anchors.learn_mixtures(jax.random.key(1), x, 5, steps=20)
        >>> weights.shape, anchors.apply_mixtures(weights, x[:, :3]).shape
        ((5, 100), (5, 3))
    """
    check_matrix("x", x)
    x = jnp.asarray(x)
    candidates = check_candidates(candidates, x.shape[0], num_anchors)
    check_number("temperature", temperature, "be above 0", lambda value: value > 0)
    check_count("steps", steps, 0)
    terms = _check_terms(coverage, diversity, clustering, entropy)
    weights = _learn(key, x[candidates], num_anchors, temperature, steps, learning_rate, terms)
    return jnp.zeros((num_anchors, x.shape[0]), weights.dtype).at[:, candidates].set(weights)


@partial(jax.jit, static_argnames="num_anchors")
def _learn(key, x, num_anchors, temperature, steps, learning_rate, terms) -> Array:
    x = _rescaled(as_float(x))
    assignments = cluster(key, x, num_anchors, steps=25).assignments
    members = jax.nn.one_hot(assignments, num_anchors, dtype=x.dtype).T
    sizes = jnp.sum(members, axis=1, keepdims=True)
    inside = members / jnp.maximum(sizes, 1)
    logits = temperature * jnp.log((1 - LEAK) * inside + LEAK / x.shape[0])
    weights_of = lambda logits: jax.nn.softmax(logits / temperature, axis=1)  # noqa: E731
    return weights_of(
        _minimise(lambda logits: _loss(weights_of(logits), x, terms), logits, steps, learning_rate)
    )


def _minimise(
    loss: Callable[[Array], Array], params: Array, steps: int, learning_rate: float
) -> Array:
    """The parameters after so many steps of Adam."""
    optimizer = optax.adam(learning_rate)

    def step(_, state):
        params, memory = state
        updates, memory = optimizer.update(jax.grad(loss)(params), memory, params)
        return optax.apply_updates(params, updates), memory

    # A loop rather than a scan, so that another number of steps is no other program.
    return lax.fori_loop(0, steps, step, (params, optimizer.init(params)))[0]


def centroid_mixtures(
    x: ArrayLike,
    centroids: ArrayLike,
    *,
    num_closest: int = 100,
    divergence: float = 0.1,
    steps: int = 200,
    learning_rate: float = 0.01,
) -> Array:
    """Convex mixtures of the samples around given points, such as the centroids of k-means.

    For each centroid c, over the `num_closest` samples nearest to it, minimises
    `|sum_i w_i x_i - c|^2 + divergence KL(w | uniform)` by Adam, with lengths in units of the
    spread of the samples.

    Args:
        x: latents `[n, d]`.
        centroids: points `[m, d]` of the same space.
        num_closest: how many samples a mixture may take; all if there are fewer.
        divergence: what keeps the weights even, at least 0.
        steps: how many steps of Adam.
        learning_rate: their size.

    Returns:
        Weights `[m, n]`, at least 0, whose rows sum to 1, with `num_closest` entries above 0 each.

    Raises:
        ValueError: not matrices of one width, `num_closest` is below 1, `steps` or
            `divergence` below 0.

    Reference: Svendsen et al. 2026 (arXiv 2605.30596), the variant by k-means.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> x = jnp.arange(5.0)[:, None]
        >>> weights = anchors.centroid_mixtures(x, jnp.array([[1.0]]), num_closest=3)
        >>> print(anchors.apply_mixtures(weights, x).round(3))
        [[1.]]
    """
    check_matrix("x", x)
    check_matrix("centroids", centroids)
    x, centroids = as_float(x), as_float(centroids)
    if x.shape[1] != centroids.shape[1]:
        raise ValueError(
            "x and centroids must have the same width, got x "
            f"{x.shape} and centroids {centroids.shape}."
        )
    check_count("num_closest", num_closest)
    check_count("steps", steps, 0)
    check_number("divergence", divergence, "be at least 0", lambda value: value >= 0)
    num_closest = min(num_closest, x.shape[0])
    return _around(x, centroids, num_closest, divergence, steps, learning_rate)


@automatic_sharding
@partial(jax.jit, static_argnames="num_closest")
def _around(x, centroids, num_closest, divergence, steps, learning_rate) -> Array:
    n = x.shape[0]
    x, mean = centre(x)
    scale = _spread(x)
    x, centroids = x / scale, (centroids - mean) / scale
    rows = _nearest(x, centroids, num_closest)

    def one(rows, centroid):
        samples = x[rows] - centroid

        def loss(logits):
            log_weights = jax.nn.log_softmax(logits)
            weights = jnp.exp(log_weights)
            kl = jnp.sum(weights * log_weights) + jnp.log(num_closest)
            return jnp.sum(jnp.square(dot(weights, samples))) + divergence * kl

        logits = _minimise(loss, jnp.zeros(num_closest, x.dtype), steps, learning_rate)
        return jnp.zeros(n, x.dtype).at[rows].set(jax.nn.softmax(logits))

    # The samples around several centroids at a time, not those around all.
    return lax.map(lambda pair: one(*pair), (rows, centroids), batch_size=min(64, len(centroids)))


def _nearest(x: Array, points: Array, count: int) -> Array:
    """Indices `[m, count]` of the samples nearest to each point."""
    norms = jnp.sum(x * x, axis=1)

    def of(points):
        return lax.top_k(2 * dot(points, x.T) - norms, count)[1]

    block = 64
    return lax.map(of, points[:, None], batch_size=min(block, points.shape[0]))[:, 0]


@automatic_sharding
def apply_mixtures(weights: ArrayLike, y: ArrayLike, rows: ArrayLike | None = None) -> Array:
    """The anchors that mixtures are in a space: `W y`.

    Args:
        weights: `W [m, n]`, rows that sum to 1.
        y: latents `[n, d]` of the same samples in any space, or of others with `rows`.
        rows: indices `[n]`: sample i is row `rows[i]` of y. None where it is row i.

    Returns:
        Anchors `[m, d]`, in the dtype of `y` (float32 for integers).

    Raises:
        ValueError: not matrices, or not as many weights as samples.
    """
    check_matrix("y", y)
    y = jnp.asarray(y)
    if rows is not None:
        check_indices("rows", rows, y.shape[0], "rows of y")
        y = y[jnp.asarray(rows)]
    _check_weights(weights, y, "y")
    # About the mean, which a mixture keeps, so that large offsets cost no digits.
    centred, mean = centre(as_float(y))
    weights = as_float(weights)
    out = dot(weights, centred) + jnp.sum(weights, axis=1, keepdims=True) * mean
    return out.astype(y.dtype if jnp.issubdtype(y.dtype, jnp.floating) else out.dtype)


def _check_weights(weights: ArrayLike, x: ArrayLike, name: str = "x") -> None:
    check_matrix("weights", weights, columns="n")
    check_matrix(name, x)
    if jnp.shape(weights)[1] != jnp.shape(x)[0]:
        raise ValueError(
            f"weights must have a column for each row of {name}, got weights "
            f"{jnp.shape(weights)} and {name} {jnp.shape(x)}. Say with rows which rows of a "
            "space the columns stand for."
        )
