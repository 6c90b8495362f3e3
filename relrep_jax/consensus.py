"""The consensus relative space: what several encoders agree on about the same anchors.

A relative space of one encoder holds that encoder's own view of the anchors' geometry. Where a few
parallel samples are there for all encoders, their views can be averaged, and each encoder's latents
be taken to the average by ridge regression: `fit(anchors) -> params`, `apply(params, i, x)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve

from relrep_jax._linalg import as_float, dot, size_of, unit_rows
from relrep_jax._sharding import automatic_sharding
from relrep_jax.checks import check_corresponding, check_count, check_matrix, check_number

__all__ = [
    "Consensus",
    "apply",
    "fit",
    "match_and_fit",
    "mutual_matches",
]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Consensus:
    """One affine map per space into the consensus: `x -> (x - means[i]) @ maps[i] + targets[i]`.

    Attributes:
        means: one `[d_i]` a space.
        maps: one `[d_i, m]` a space.
        targets: one `[m]` a space, the mean of the consensus over the anchors it was fitted on.
    """

    means: tuple[jax.Array, ...]
    maps: tuple[jax.Array, ...]
    targets: tuple[jax.Array, ...]


@automatic_sharding
def fit(
    anchors: Sequence[jax.Array],
    *,
    relative_penalty: float = 0.3,
    weights: jax.Array | None = None,
) -> Consensus:
    """Average the encoders' relative spaces of the anchors; map each encoder to the average.

    With `G_i [m, m]` the centred cosines of encoder i's anchors with one another, the consensus of
    the anchors is `T = mean_i G_i`, and encoder i's map the ridge regression

        M_i = argmin |A_i M - T|^2 + penalty_i |M|^2,    penalty_i = relative_penalty mean |a|^2

    on centred rows. Averaging removes what only one encoder sees, and the penalty what a few
    anchors cannot determine. Unlike a translation, it fits nothing to a pair of encoders: any
    number of encoders meet in one space, and a head that was trained there reads all of them.

    Args:
        anchors: the same m samples as every encoder sees them, `[m, d_i]` each; two or more.
        relative_penalty: strength of the ridge in units of the mean squared length of the centred
            anchors; above 0. One below `4 m eps`, which rounding would drown, counts as that.
        weights: `[e, m]` of 0 and 1: which anchors each encoder has (partial correspondences). An
            anchor that an encoder lacks counts neither in its map nor in its part of the average,
            whatever stands in its row. All are there by default.

    Returns:
        A `Consensus` for `apply`.

    Raises:
        ValueError: fewer than two spaces, row counts that differ, a penalty that is not positive,
            weights of another shape or other than 0 and 1.

    Example:
        >>> import jax
        >>> from relrep_jax import consensus
        >>> x = jax.random.normal(jax.random.key(0), (50, 8))
        >>> params = consensus.fit([x[:20], 3.0 * x[:20, ::-1]])  # two views of 20 anchors
        >>> a, b = consensus.apply(params, 0, x), consensus.apply(params, 1, 3.0 * x[:, ::-1])
        >>> a.shape, bool(jax.numpy.allclose(a, b, atol=1e-4))
        ((50, 20), True)
    """
    check_corresponding("anchors", anchors)
    _check_penalty("relative_penalty", relative_penalty)
    spaces = [as_float(space) for space in anchors]
    shape = (len(spaces), spaces[0].shape[0])
    if not isinstance(weights, jax.core.Tracer | type(None)) and not np.isin(weights, (0, 1)).all():
        raise ValueError("weights must be 0 or 1: which anchors each encoder has.")
    weights = jnp.ones(shape, spaces[0].dtype) if weights is None else jnp.asarray(weights)
    if weights.shape != shape:
        raise ValueError(
            f"weights must have shape {list(shape)} for {shape[0]} spaces of {shape[1]} anchors, "
            f"got {list(weights.shape)}."
        )
    weights = weights.astype(spaces[0].dtype)
    # Not by multiplication: what stands in for a missing anchor is often NaN.
    spaces = [
        jnp.where(present[:, None] > 0, space, 0.0)
        for space, present in zip(spaces, weights, strict=True)
    ]

    return _solve(spaces, spaces, weights, weights, relative_penalty)


def _check_penalty(name: str, penalty: float) -> None:
    check_number(name, penalty, "be positive and finite", lambda value: value > 0)


def apply(params: Consensus, i: int, x: jax.Array) -> jax.Array:
    """Take rows of space `i` into the consensus relative space.

    Args:
        params: what `fit` returned.
        i: which of the fitted spaces `x` belongs to.
        x: rows of that space, `[k, d_i]`.

    Returns:
        Rows of the consensus relative space, `[k, m]`, a column an anchor, in the dtype of `x`.

    Raises:
        ValueError: there is no such space, or `x` has another width.
    """
    if not 0 <= i < len(params.maps):
        raise ValueError(f"There is no space {i}: {len(params.maps)} spaces were fitted.")
    check_matrix("x", x, columns="d_i")
    width = params.maps[i].shape[-2]
    if x.shape[1] != width:
        raise ValueError(
            f"x must have the width that space {i} was fitted on, got x {tuple(x.shape)} and a "
            f"map from width {width}."
        )
    x = jnp.asarray(x)
    out = dot(as_float(x) - params.means[i], params.maps[i]) + params.targets[i]
    return out.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else out.dtype)


@automatic_sharding
def mutual_matches(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which row of `y` is nearest to each row of `x`, and whether the choice is mutual.

    Nearness is the cosine; `x` and `y` must lie in one space, such as a consensus.

    Args:
        x: `[n, d]`.
        y: `[k, d]`.

    Returns:
        Indices into `y`, `[n]` int32, and a boolean `[n]`: True where that row's nearest row of
        `x` is the one that it was chosen for.

    Raises:
        ValueError: not matrices, empty, or of different widths.
    """
    check_matrix("x", x)
    check_matrix("y", y, rows="k")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            "x and y must lie in one space, but their widths differ: x "
            f"{tuple(x.shape)} and y {tuple(y.shape)}."
        )
    scores = dot(unit_rows(as_float(x)), unit_rows(as_float(y)).T)
    forth, back = jnp.argmax(scores, axis=1), jnp.argmax(scores, axis=0)
    return forth.astype(jnp.int32), back[forth] == jnp.arange(x.shape[0])


@automatic_sharding
def match_and_fit(
    anchors: Sequence[jax.Array],
    pools: Sequence[jax.Array],
    *,
    relative_penalty: float = 0.3,
    final_penalty: float = 0.1,
    rounds: int = 3,
) -> Consensus:
    """A consensus on the anchors and on further samples whose correspondence is found, not given.

    In each round every encoder's pool is matched, in the consensus so far, to the pool of the
    encoder that agrees best with the others; mutual nearest neighbours become anchors of the next
    fit. This helps where all encoders have encoded the *same* unlabelled samples, in any order,
    and where the consensus is good enough to recognise most of them; where the pools hold
    different samples, the matches are wrong and `fit` alone is better.

    Args:
        anchors: the known parallel samples, `[m, d_i]` each.
        pools: unlabelled samples of every encoder, `[k_i, d_i]`, in any order.
        relative_penalty: of the fits that matches are found with.
        final_penalty: of the last fit, which stands on more anchors and needs less.
        rounds: how often matches are found anew.

    Returns:
        A `Consensus` with `m + max k_i` columns at most: the anchors, and the rows of the hub's
        pool.

    Raises:
        ValueError: what `fit` raises, for `final_penalty`, too; pools that are not one for each
            space, or of other widths; no rounds.

    Reference: in the spirit of the pseudo-pairs of mini-vec2vec, arXiv 2510.02348.
    """
    check_corresponding("anchors", anchors)
    _check_penalty("final_penalty", final_penalty)
    check_count("rounds", rounds)
    if len(pools) != len(anchors):
        raise ValueError(f"There are {len(pools)} pools for {len(anchors)} spaces.")
    for i, (space, pool) in enumerate(zip(anchors, pools, strict=True)):
        check_matrix(f"pools[{i}]", pool)
        if pool.shape[1] != space.shape[1]:
            raise ValueError(
                f"pools[{i}] must have the width of anchors[{i}], got {tuple(pool.shape)} and "
                f"{tuple(space.shape)}."
            )
    size = max(pool.shape[0] for pool in pools)
    m, e = anchors[0].shape[0], len(anchors)
    anchors = [as_float(space) for space in anchors]
    pools = [as_float(pool) for pool in pools]
    params = fit(anchors, relative_penalty=relative_penalty)

    # Each encoder's agreement with the mean of all, on the known anchors.
    known = [unit_rows(apply(params, i, a) - params.targets[i]) for i, a in enumerate(anchors)]
    mean = sum(known) / e
    hub = jnp.argmax(jnp.stack([jnp.sum(mean * one) for one in known]))

    for _ in range(rounds):
        found = [unit_rows(_centred(apply(params, i, pool))) for i, pool in enumerate(pools)]
        of_hub = jnp.stack([_pad(one, size) for one in found])[hub]
        in_hub = jnp.arange(size) < jnp.asarray([pool.shape[0] for pool in pools])[hub]
        rows, weights = [], []
        for i, pool in enumerate(pools):
            to, mutual = mutual_matches(of_hub, found[i])
            to = jnp.where(hub == i, jnp.arange(size) % pool.shape[0], to)
            matched = in_hub & (mutual | (hub == i))
            rows.append(jnp.concatenate([anchors[i], pool[to]]))
            weights.append(jnp.concatenate([jnp.ones(m, bool), matched]))
        row_weights = jnp.stack(weights).astype(rows[0].dtype)
        # To find matches, similarities to the known anchors are enough, and far cheaper.
        params = _solve(rows, anchors, row_weights, jnp.ones((e, m)), relative_penalty)
    return _solve(rows, rows, row_weights, row_weights, final_penalty)


def _solve(
    rows: Sequence[jax.Array],
    columns: Sequence[jax.Array],
    row_weights: jax.Array,
    column_weights: jax.Array,
    relative_penalty: float | jax.Array,
) -> Consensus:
    """The consensus similarities of rows `[n, d_i]` to columns `[m, d_i]`, and maps to them."""
    total = 0.0
    for x, a, present, known in zip(rows, columns, row_weights, column_weights, strict=True):
        mean = _weighted_mean(a, known)
        unit_x, unit_a = (unit_rows(v - mean) for v in (x, a))
        total = total + dot(unit_x * present[:, None], (unit_a * known[:, None]).T)
    count = jnp.einsum("en,em->nm", row_weights, column_weights)
    consensus = total / jnp.maximum(count, 1.0)
    # A sample that a single encoder has is no matter of agreement.
    shared = jnp.sum(column_weights, axis=0) > 1
    consensus = consensus * shared
    row_weights = row_weights * (jnp.sum(row_weights, axis=0) > 1)

    means, maps, targets = [], [], []
    for x, weight in zip(rows, row_weights, strict=True):
        mean, target = _weighted_mean(x, weight), _weighted_mean(consensus, weight)
        kept = weight[:, None]
        maps.append(
            _ridge((x - mean) * kept, (consensus - target) * kept, weight, relative_penalty)
        )
        means.append(mean)
        targets.append(target)
    return Consensus(tuple(means), tuple(maps), tuple(targets))


def _centred(x: jax.Array) -> jax.Array:
    return x - jnp.mean(x, axis=0)


def _pad(x: jax.Array, rows: int) -> jax.Array:
    return jnp.pad(x, ((0, rows - x.shape[0]), (0, 0)))


def _weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    """The mean of the rows of weight 1, exact where they are all one row (see `mean_of`)."""
    weight = weight[:, None] / jnp.maximum(jnp.sum(weight), 1.0)
    rough = jnp.sum(x * weight, axis=0)
    return rough + jnp.sum((x - rough) * weight, axis=0)


def _ridge(rows: jax.Array, targets: jax.Array, weight: jax.Array, relative_penalty) -> jax.Array:
    """`argmin |rows M - targets|^2 + penalty |M|^2`; rows of weight 0 are zero on both sides."""
    m, d = rows.shape
    count = jnp.maximum(jnp.sum(weight), 1.0)
    largest = size_of(rows)
    rows = rows / largest
    size = jnp.sum(jnp.square(rows)) / count
    scale = jax.lax.rsqrt(jnp.where(size > 0, size, 1.0))
    # Unit mean length: the penalty is then a number between the eigenvalues, never above them.
    rows = rows * scale
    # Centred rows depend on one another; below this, rounding may make the sum indefinite.
    smallest = jnp.finfo(rows.dtype).eps * 4 * count
    relative_penalty = jnp.maximum(relative_penalty, smallest).astype(rows.dtype)
    if m <= d:
        gram = dot(rows, rows.T) + relative_penalty * jnp.eye(m, dtype=rows.dtype)
        matrix = dot(rows.T, cho_solve(cho_factor(gram), targets))
    else:
        gram = dot(rows.T, rows) + relative_penalty * jnp.eye(d, dtype=rows.dtype)
        matrix = cho_solve(cho_factor(gram), dot(rows.T, targets))
    return matrix * scale / largest
