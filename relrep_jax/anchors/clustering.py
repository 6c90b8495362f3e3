"""k-means, the samples next to its centroids, and prototypes: means of the same samples in spaces.

A prototype is an anchor that is the mean of many samples. Which samples is decided once; every
space then averages its own encodings of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from relrep_jax._linalg import as_float, dot, size_of, unit_rows
from relrep_jax._sharding import automatic_sharding
from relrep_jax.anchors._checks import check_num_anchors, matched_rows
from relrep_jax.checks import check_count, check_matrix, lookup
from relrep_jax.similarities import pairwise
from relrep_jax.transforms import standard_scaling

# Samples whose distances to all centroids are held at a time.
BLOCK_ROWS = 4096

INITS = {"k-means++": None, "random": None}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KMeansResult:
    """Clusters of samples.

    Attributes:
        centroids: `[k, d]`, means of the members; of length 1 where clusters are spherical.
        assignments: `[n]` int32, the cluster of every sample.
        inertia: `[]`, the sum of squared distances of the samples to their centroids.
    """

    centroids: Array
    assignments: Array
    inertia: Array


def cluster(
    key: Array,
    x: ArrayLike,
    num_clusters: int,
    *,
    steps: int = 50,
    restarts: int = 1,
    init: Literal["k-means++", "random"] = "k-means++",
    spherical: bool = False,
) -> KMeansResult:
    """k-means: `num_clusters` centroids with a small sum of squared distances to the samples.

    Lloyd's algorithm for a fixed number of steps, after which nothing changes in most data. A
    cluster that loses all members starts anew at one of the samples that are farthest from their
    centroids. Distances are held for a block of samples at a time.

    Args:
        key: a `jax.random.key`.
        x: latents `[n, d]`.
        num_clusters: the number k of clusters.
        steps: how often assignments and means follow each other.
        restarts: how many initialisations to try; that of the least inertia is kept.
        init: "k-means++" draws first centroids far from each other, the best of a few draws each
            time; "random" draws samples.
        spherical: rows and centroids are scaled to length 1, so that clusters are cones.

    Returns:
        A `KMeansResult`. The centroids are float32 at least.

    Raises:
        ValueError: not a matrix; `num_clusters` is below 1 or above n; `steps` or `restarts` is
            below 1; an unknown `init`.

    Reference: Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii,
        "k-means++: the advantages of careful seeding", 2007; Dhillon and Modha, "Concept
        decompositions for large sparse text data using clustering", 2001.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> x = jnp.array([[0.0], [1.0], [10.0], [11.0]])
        >>> print(anchors.cluster(jax.random.key(0), x, 2).centroids.sort(axis=0).ravel())
        [ 0.5 10.5]
    """
    check_matrix("x", x)
    x = jnp.asarray(x)
    check_count("num_clusters", num_clusters)
    if num_clusters > x.shape[0]:
        raise ValueError(
            f"num_clusters is {num_clusters}, but there are only {x.shape[0]} samples. Ask for "
            "fewer clusters or give more samples."
        )
    lookup("init", init, INITS)
    check_count("steps", steps)
    check_count("restarts", restarts)
    return _cluster(key, x, num_clusters, steps, restarts, init, spherical)


@automatic_sharding
@partial(jax.jit, static_argnames=("num_clusters", "steps", "restarts", "init", "spherical"))
def _cluster(key, x, num_clusters, steps, restarts, init, spherical) -> KMeansResult:
    x = as_float(x)
    if spherical:
        x = unit_rows(x)
    # Distances are differences of large numbers far from the origin.
    centre = jnp.zeros_like(x[0]) if spherical else jnp.mean(x, axis=0)
    centred = x - centre
    size = jnp.ones_like(x[0, 0]) if spherical else size_of(centred)
    centred = centred / size
    start = {"k-means++": _plus_plus, "random": _random}[init]

    def once(key):
        centroids = start(key, centred, num_clusters)

        def step(_, centroids):
            assignments, squares = _assign(centred, centroids)
            sums, counts = _sums(centred, assignments, num_clusters)
            return _normalised(_refill(centred, sums, counts, squares), spherical)

        centroids = lax.fori_loop(0, steps, step, centroids)
        assignments, squares = _assign(centred, centroids)
        return KMeansResult(centroids, assignments, jnp.sum(squares))

    if restarts == 1:
        best = once(key)
    else:
        results = lax.map(once, jax.random.split(key, restarts))
        # Chosen by what neither overflows nor underflows.
        least = jnp.argmin(results.inertia)
        best = jax.tree.map(lambda v: v[least], results)
    centroids, inertia = best.centroids * size + centre, best.inertia * size * size
    return KMeansResult(centroids, best.assignments, inertia)


def _normalised(centroids: Array, spherical: bool) -> Array:
    return unit_rows(centroids) if spherical else centroids


def _random(key: Array, x: Array, num_clusters: int) -> Array:
    return x[jax.random.permutation(key, x.shape[0])[:num_clusters]]


def _plus_plus(key: Array, x: Array, num_clusters: int) -> Array:
    """Samples drawn by their squared distance to those before them: the best of a few each time."""
    n, norms = x.shape[0], jnp.sum(x * x, axis=1)
    tries = 2 + int(np.log(num_clusters))
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (), 0, n)

    def squares_to(rows):
        squares = norms[:, None] - 2 * dot(x, x[rows].T) + norms[rows]
        return jnp.maximum(squares, 0)

    def step(nearest, key):
        # Inverse of the cumulative distribution; where all is zero, any sample.
        cumulative = jnp.cumsum(nearest)
        draws = jax.random.uniform(key, (tries,), x.dtype) * cumulative[-1]
        rows = jnp.minimum(jnp.searchsorted(cumulative, draws, side="right"), n - 1)
        squares = jnp.minimum(nearest[:, None], squares_to(rows))
        best = jnp.argmin(jnp.sum(squares, axis=0))
        return squares[:, best], rows[best]

    nearest = squares_to(first[None])[:, 0]
    _, rows = lax.scan(step, nearest, jax.random.split(key, num_clusters)[1:])
    return x[jnp.concatenate([first[None], rows])]


def _assign(x: Array, centroids: Array) -> tuple[Array, Array]:
    """The nearest centroid of every sample, and the squared distance to it."""

    def nearest(block):
        # Without cancellation: clusters may lie far apart beside their width.
        distances = pairwise.euclidean(block, centroids)
        best = jnp.argmin(distances, axis=1).astype(jnp.int32)
        return best, jnp.square(jnp.min(distances, axis=1))

    return _in_blocks(nearest, x)


def _in_blocks(function, *arrays: Array):
    """`function` of blocks of rows; the last block overlaps the one before it."""
    n = arrays[0].shape[0]
    if n <= BLOCK_ROWS:
        return function(*arrays)
    starts = jnp.minimum(jnp.arange(0, n, BLOCK_ROWS), n - BLOCK_ROWS)
    blocks = lax.map(
        lambda start: function(*(lax.dynamic_slice_in_dim(v, start, BLOCK_ROWS) for v in arrays)),
        starts,
    )
    rows = starts[:, None] + jnp.arange(BLOCK_ROWS)
    return jax.tree.map(lambda v: jnp.zeros((n, *v.shape[2:]), v.dtype).at[rows].set(v), blocks)


@automatic_sharding
def _sums(x: Array, assignments: Array, num_clusters: int) -> tuple[Array, Array]:
    """Sums and numbers of the members of every cluster."""
    sums = jax.ops.segment_sum(x, assignments, num_clusters)
    counts = jax.ops.segment_sum(jnp.ones_like(x[:, 0]), assignments, num_clusters)
    return sums, counts


def _refill(x: Array, sums: Array, counts: Array, squares: Array) -> Array:
    """Means; an empty cluster moves to the farthest sample that no other empty one has taken."""
    empty = counts == 0
    means = sums / jnp.maximum(counts, 1)[:, None]

    def refilled():
        farthest = lax.top_k(squares, counts.shape[0])[1]
        return jnp.where(empty[:, None], x[farthest[jnp.cumsum(empty) - 1]], means)

    return lax.cond(jnp.any(empty), refilled, lambda: means)


def kmeans(
    key: Array,
    x: ArrayLike,
    num_anchors: int,
    *,
    steps: int = 50,
    restarts: int = 1,
    init: Literal["k-means++", "random"] = "k-means++",
    spherical: bool = False,
) -> Array:
    """Anchors that are the samples next to the centroids of k-means.

    Centroids take their samples in turn, those with a sample near to them first; one whose sample
    is taken gets the next nearest that is not.

    Args:
        key: a `jax.random.key`.
        x: latents `[n, d]`.
        num_anchors: the number m of anchors and of clusters.
        steps, restarts, init, spherical: as `cluster` has them.

    Returns:
        `[m]` int32 indices in `[0, n)`, distinct; anchor j belongs to centroid j of `cluster` with
        the same arguments.

    Raises:
        ValueError: not a matrix; `num_anchors` is below 1 or above n; and as `cluster`.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 4.1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> x = jnp.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
        >>> print(anchors.kmeans(jax.random.key(0), x, 2).sort())
        [1 4]
    """
    check_matrix("x", x)
    x = jnp.asarray(x)
    check_num_anchors(x.shape[0], num_anchors)
    result = cluster(
        key, x, num_anchors, steps=steps, restarts=restarts, init=init, spherical=spherical
    )
    return _next_to(x, result.centroids, spherical)


@automatic_sharding
@partial(jax.jit, static_argnames="spherical")
def _next_to(x: Array, centroids: Array, spherical: bool, free: Array | None = None) -> Array:
    """Distinct samples near to centroids, those of them that are free `[n]`."""
    x = as_float(x)
    if spherical:
        x = unit_rows(x)
    centre = jnp.mean(centroids, axis=0)
    x, centroids = x - centre, centroids - centre
    size = size_of(x)
    x, centroids = x / size, centroids / size
    m = centroids.shape[0]

    def nearest(available):
        """The nearest sample of every centroid among those available."""

        def block(rows, available):
            squares = jnp.square(pairwise.euclidean(rows, centroids))
            squares = jnp.where(available[:, None], squares, jnp.inf)
            best = jnp.argmin(squares, axis=0)
            return best, jnp.take_along_axis(squares, best[None], axis=0)[0]

        n = x.shape[0]
        if n <= BLOCK_ROWS:
            return block(x, available)
        starts = jnp.minimum(jnp.arange(0, n, BLOCK_ROWS), n - BLOCK_ROWS)
        best, squares = lax.map(
            lambda start: block(
                *(lax.dynamic_slice_in_dim(v, start, BLOCK_ROWS) for v in (x, available))
            ),
            starts,
        )
        which = jnp.argmin(squares, axis=0)
        return (best + starts[:, None])[which, jnp.arange(m)], jnp.min(squares, axis=0)

    def step(state):
        available, chosen = state
        rows, squares = nearest(available)
        squares = jnp.where(chosen < 0, squares, jnp.inf)
        # A sample goes to the nearest of the centroids that ask for it.
        bids = jnp.full_like(x[:, 0], jnp.inf).at[rows].min(squares)
        wins = (chosen < 0) & (squares <= bids[rows])
        first = jnp.full(x.shape[0], m).at[rows].min(jnp.where(wins, jnp.arange(m), m))
        wins = wins & (first[rows] == jnp.arange(m))
        # At least one always wins, so that this ends, whatever numbers there are.
        some = jnp.argmax(chosen < 0)
        wins = jnp.where(jnp.any(wins), wins, jnp.arange(m) == some)
        chosen = jnp.where(wins, rows.astype(jnp.int32), chosen)
        available = available.at[jnp.where(wins, rows, x.shape[0])].set(False, mode="drop")
        return available, chosen

    start = (
        jnp.ones_like(x[:, 0], bool) if free is None else free,
        jnp.full_like(centroids[:, 0], -1, jnp.int32),
    )
    chosen = lax.while_loop(lambda state: jnp.any(state[1] < 0), step, start)[1]
    return chosen.astype(jnp.int32)


def memberships(
    key: Array,
    spaces: Sequence[ArrayLike],
    num_anchors: int,
    *,
    rows: Sequence[ArrayLike] | None = None,
    by: int | Literal["joint"] = 0,
    standardize: bool = True,
    **options: Any,
) -> Array:
    """Clusters of samples that several spaces share, one for every prototype.

    k-means in the space number `by`, or in all of them side by side: each standardised, scaled to
    a mean squared length of 1, so that wide spaces count no more than narrow ones, and
    concatenated.

    Args:
        key: a `jax.random.key`.
        spaces: latents `[n_i, d_i]` of corresponding samples.
        num_anchors: the number m of prototypes.
        rows: for partial correspondences, an index array `[p]` for each space: row `rows[i][k]` of
            space i is the same sample for all i. None where row k of every space is sample k.
        by: index of the space to cluster in, or "joint".
        standardize: for "joint", whether features are standardised first, or rows scaled to
            length 1 instead.
        **options: those of `cluster`.

    Returns:
        `[p]` int32 (`[n]` without `rows`), the cluster of every pair of samples.

    Raises:
        ValueError: spaces of other row counts without `rows`; `rows` of other lengths, out of
            range or not one a space; an unknown `by`; and as `cluster`.

    Reference: the parallel prototypes of arXiv 2605.30596.
    """
    matched = matched_rows(spaces, rows)
    check_num_anchors(matched[0].shape[0], num_anchors)
    if by == "joint":
        views = []
        for x in map(as_float, matched):
            standardized = standard_scaling.apply(standard_scaling.fit(x), x)
            x = standardized if standardize else unit_rows(x)
            length = jnp.sqrt(jnp.mean(jnp.sum(x * x, axis=1)))
            views.append(x / jnp.where(length > 0, length, 1))
        x = jnp.concatenate(views, axis=1)
    elif isinstance(by, int) and 0 <= by < len(matched):
        x = matched[by]
    else:
        raise ValueError(
            f"by must be the index of one of the {len(matched)} spaces, 0 to {len(matched) - 1}, "
            f'or "joint", got {by!r}.'
        )
    return cluster(key, x, num_anchors, **options).assignments


def prototypes_of(x: ArrayLike, assignments: ArrayLike, num_anchors: int) -> Array:
    """Means of the members of every cluster.

    `a_j = sum_(i: c_i = j) x_i / #{i: c_i = j}`.

    Args:
        x: latents `[n, d]`, of any space that holds the clustered samples.
        assignments: `[n]` integers in `[0, m)`; samples with others count nowhere.
        num_anchors: the number m of clusters.

    Returns:
        `[m, d]` in the dtype of `x` (float32 for integers); zeros for a cluster without members.

    Raises:
        ValueError: not a matrix, or assignments that are not `[n]` integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> print(anchors.prototypes_of(jnp.array([[0.0], [2.0], [5.0]]), jnp.array([0, 0, 1]), 2))
        [[1.]
         [5.]]
    """
    check_matrix("x", x)
    x, assignments = jnp.asarray(x), jnp.asarray(assignments)
    if assignments.shape != x.shape[:1] or not jnp.issubdtype(assignments.dtype, jnp.integer):
        raise ValueError(
            f"assignments must be integers of shape [{x.shape[0]}], one for each row of x "
            f"{x.shape}, got shape {assignments.shape} and dtype {assignments.dtype}."
        )
    check_count("num_anchors", num_anchors)
    inside = (assignments >= 0) & (assignments < num_anchors)
    sums, counts = _sums(as_float(x), jnp.where(inside, assignments, num_anchors), num_anchors)
    means = sums / jnp.maximum(counts, 1)[:, None]
    return means.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else means.dtype)


def prototypes(
    key: Array,
    spaces: Sequence[ArrayLike],
    num_anchors: int,
    *,
    rows: Sequence[ArrayLike] | None = None,
    by: int | Literal["joint"] = 0,
    standardize: bool = True,
    **options: Any,
) -> list[Array]:
    """Anchors that are means of many samples, of the same samples in every space.

    The clusters are found once (see `memberships`), in the first space unless told otherwise, so
    that only one model has to be at hand when they are; `by="joint"` heeds all spaces.

    Args:
        key: a `jax.random.key`.
        spaces: latents `[n_i, d_i]` of corresponding samples.
        num_anchors: the number m of prototypes.
        rows: for partial correspondences, an index array `[p]` for each space: row `rows[i][k]` of
            space i is the same sample for all i. None where row k of every space is sample k.
        by: index of the space to cluster in, or "joint".
        standardize: for "joint", whether features are standardised first, or rows scaled to
            length 1 instead.
        **options: those of `cluster`.

    Returns:
        A list of prototypes `[m, d_i]`, one array for each space. They take all the corresponding
        samples: compare with other anchors at equal `count_parallel_samples`.

    Raises:
        ValueError: as `memberships`.

    Reference: the parallel prototypes of arXiv 2605.30596.

    Example:
        >>> import jax
        >>> from relrep_jax import anchors
        >>> x = jax.random.normal(jax.random.key(0), (200, 8))
        >>> [a.shape for a in anchors.prototypes(jax.random.key(1), [x, x[:, :5]], 10)]
        [(10, 8), (10, 5)]
    """
    assignments = memberships(
        key, spaces, num_anchors, rows=rows, by=by, standardize=standardize, **options
    )
    matched = matched_rows(spaces, rows)
    return [prototypes_of(x, assignments, num_anchors) for x in matched]
