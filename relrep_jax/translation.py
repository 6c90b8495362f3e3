"""Direct maps from one space to another: the baselines of relative representations.

Every translator has one shape: `fit(x, y, ...)` takes corresponding rows of two spaces and
returns a pytree of parameters; `apply(params, x)` takes new rows of the first space to the
second. Both are pure, so `jax.jit` and `jax.vmap` (over pairs of spaces, over seeds) apply.
Partial correspondences are a matter of indexing: `fit(x[rows_of_x], y[rows_of_y])`.

The arithmetic is float32 at least, whatever the inputs; `apply` answers in the dtype of its
input. The least squares are solved by QR and SVD, never through a Gram matrix: at a condition
number `c` of the (centred) source the predictions agree with a float64 solution to about
`1e-6 c` of the size of the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from relrep_jax._linalg import (
    as_float,
    centre,
    default_rcond,
    dot,
    least_squares,
    overlap,
    polar,
    size_of,
    svd,
    thin_svd,
    unit_rows,
)
from relrep_jax._sharding import automatic_jit
from relrep_jax.checks import check_corresponding, check_count, check_matrix, check_number, lookup

__all__ = [
    "TRANSLATIONS",
    "AffineMap",
    "ConsensusTranslator",
    "InverseRelativeMap",
    "ProcrustesConsensus",
    "Translator",
    "affine",
    "apply_affine",
    "apply_generalized_procrustes",
    "apply_inverse_relative",
    "cca",
    "decode_relative",
    "fit_affine",
    "fit_cca",
    "fit_generalized_procrustes",
    "fit_inverse_relative",
    "fit_linear",
    "fit_low_rank",
    "fit_orthogonal",
    "fit_ridge",
    "generalized_procrustes",
    "get",
    "inverse_relative",
    "linear",
    "low_rank",
    "orthogonal",
    "restore_generalized_procrustes",
    "ridge",
    "translate_generalized_procrustes",
]


class Translator(NamedTuple):
    """A pair of functions: `fit(x, y, ...) -> params` and `apply(params, x) -> y`."""

    fit: Callable[..., Any]
    apply: Callable[..., jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AffineMap:
    """The map `x -> (x - source_mean) @ matrix + target_mean`.

    Attributes:
        source_mean: `[d1]`.
        matrix: `[d1, d2]`.
        target_mean: `[d2]`.
    """

    source_mean: jax.Array
    matrix: jax.Array
    target_mean: jax.Array


def _check_pair(x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> None:
    first, second = names
    check_matrix(first, x, columns="d1")
    check_matrix(second, y, columns="d2")
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"{first} and {second} must hold corresponding rows, got {first} {tuple(x.shape)} and "
            f"{second} {tuple(y.shape)}. Index the rows that correspond first: "
            "fit(x[rows_of_x], y[rows_of_y])."
        )


def _check_width(x: Any, width: int) -> None:
    check_matrix("x", x, columns="d1")
    if x.shape[1] != width:
        raise ValueError(
            f"x must have the width that the map was fitted on, got x {tuple(x.shape)} and a map "
            f"from width {width}."
        )


def _check_rank(rank: int | None, x: Any, y: Any) -> int:
    most = min(x.shape[1], y.shape[1])
    if rank is None:
        return most
    if not isinstance(rank, int | np.integer) or not 1 <= rank <= most:
        raise ValueError(
            f"rank must be a whole number between 1 and {most}, got {rank} for x "
            f"{tuple(x.shape)} and y {tuple(y.shape)}."
        )
    return rank


def apply_affine(params: AffineMap, x: ArrayLike) -> jax.Array:
    """Take rows of the source space to the target space: `(x - mu_x) M + mu_y`.

    Args:
        params: what a `fit` of this module returned.
        x: rows of the source space, `[k, d1]`.

    Returns:
        Rows of the target space, `[k, d2]`, in the dtype of `x` (float32 for integers).

    Raises:
        ValueError: `x` has another width than the fitted source.
    """
    _check_width(x, params.matrix.shape[-2])
    x = jnp.asarray(x)
    out = dot(as_float(x) - params.source_mean, params.matrix) + params.target_mean
    return out.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else out.dtype)


@automatic_jit("scaling")
def fit_orthogonal(x: ArrayLike, y: ArrayLike, *, scaling: bool = True) -> AffineMap:
    """Orthogonal Procrustes: a rotation or reflection, a shift and, if wanted, one scale.

    `R = U V^T` with `U S V^T` the SVD of `X^T Y` (both centred), `s = tr(S) / ||X||^2`, and
    `y = s (x - mu_x) R + mu_y`. Spaces of different widths are treated as if the narrower one
    were padded with zeros: `R [d1, d2]` then has orthonormal rows or columns.

    Args:
        x: source rows, `[n, d1]`.
        y: corresponding target rows, `[n, d2]`.
        scaling: whether one scale is fitted as well; otherwise it is 1.

    Returns:
        An `AffineMap` for `apply`.

    Raises:
        ValueError: the row counts differ.

    Reference:
        Schönemann (1966); as a translator, Maiorano et al., arXiv 2311.00664.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> y = 3.0 * x[:, ::-1] + 1.0
    >>> params = orthogonal.fit(x, y)
    >>> bool(jnp.allclose(orthogonal.apply(params, x), y, atol=1e-5))
    True
    """
    _check_pair(x, y)
    x, source_mean = centre(as_float(x))
    y, target_mean = centre(as_float(y))
    x_size, y_size = size_of(x), size_of(y)
    x, y = x / x_size, y / y_size
    cross = dot(x.T, y)
    matrix = polar(cross)
    if scaling:
        size = jnp.sum(x * x)
        stretch = jnp.sum(lax.stop_gradient(matrix) * cross)  # the sum of its singular values
        stretch = jnp.where(size > 0, stretch / jnp.where(size > 0, size, 1.0), 0.0)
        matrix = matrix * (stretch * y_size / x_size)
    return AffineMap(source_mean, matrix, target_mean)


@automatic_jit("rcond")
def fit_linear(x: ArrayLike, y: ArrayLike, *, rcond: float | None = None) -> AffineMap:
    """Least squares without bias: `W = argmin ||X W - Y||`, of least norm where many do it.

    Args:
        x: source rows, `[n, d1]`.
        y: corresponding target rows, `[n, d2]`.
        rcond: singular values of `x` below this fraction of the largest one count as zero;
            by default `eps * max(10, min(n, d1))`.

    Returns:
        An `AffineMap` for `apply`, with zero means.

    Raises:
        ValueError: the row counts differ.

    Reference:
        Maiorano et al., arXiv 2311.00664 (`linear`).
    """
    _check_pair(x, y)
    x, y = as_float(x), as_float(y)
    matrix = least_squares(x, y, default_rcond(x) if rcond is None else rcond)
    return AffineMap(jnp.zeros_like(x[0]), matrix, jnp.zeros_like(y[0]))


@automatic_jit("rcond")
def fit_affine(x: ArrayLike, y: ArrayLike, *, rcond: float | None = None) -> AffineMap:
    """Least squares with bias: `W, b = argmin ||X W + b - Y||`, `W` of least norm.

    Args:
        x: source rows, `[n, d1]`.
        y: corresponding target rows, `[n, d2]`.
        rcond: as in `linear.fit`, for the centred source.

    Returns:
        An `AffineMap` for `apply`.

    Raises:
        ValueError: the row counts differ.

    Reference:
        Maiorano et al., arXiv 2311.00664 (`affine`, there by gradient descent).
    """
    _check_pair(x, y)
    x, source_mean = centre(as_float(x))
    y, target_mean = centre(as_float(y))
    matrix = least_squares(x, y, default_rcond(x) if rcond is None else rcond)
    return AffineMap(source_mean, matrix, target_mean)


def fit_ridge(x: ArrayLike, y: ArrayLike, *, penalty: float | jax.Array = 1.0) -> AffineMap:
    """Ridge regression with a bias that is not penalised.

    `W = argmin ||X W - Y||^2 + penalty ||W||^2 = (X^T X + penalty I)^-1 X^T Y` on centred
    rows: the penalty stands beside the *sum* over rows, unscaled by `n`, as in scikit-learn's
    `Ridge(alpha=penalty)`. It is solved as the least squares of the rows with
    `sqrt(penalty) I` below them, which keeps the condition number unsquared.

    Args:
        x: source rows, `[n, d1]`.
        y: corresponding target rows, `[n, d2]`.
        penalty: not negative; may be traced, for instance to `vmap` over a path of penalties.

    Returns:
        An `AffineMap` for `apply`.

    Raises:
        ValueError: the row counts differ, or the penalty is a negative number.

    Reference:
        Hoerl and Kennard (1970).
    """
    _check_pair(x, y)
    check_number("penalty", penalty, "be a finite number, not negative", lambda value: value >= 0)
    return _fit_ridge(x, y, penalty)


@automatic_jit()
def _fit_ridge(x: jax.Array, y: jax.Array, penalty: float | jax.Array) -> AffineMap:
    x, source_mean = centre(as_float(x))
    y, target_mean = centre(as_float(y))
    d1, d2 = x.shape[1], y.shape[1]
    root = jnp.sqrt(jnp.asarray(penalty, x.dtype))
    rows = jnp.concatenate([x, root * jnp.eye(d1, dtype=x.dtype)])
    targets = jnp.concatenate([y, jnp.zeros((d1, d2), y.dtype)])
    return AffineMap(source_mean, least_squares(rows, targets, default_rcond(rows)), target_mean)


@automatic_jit("rank")
def fit_low_rank(x: ArrayLike, y: ArrayLike, *, rank: int | None = None) -> AffineMap:
    """Reduced-rank regression: the affine least squares among matrices of rank `rank`.

    `W_r = W V_r V_r^T`, with `W` the least squares of the centred rows and `V_r` the leading
    right singular vectors of the fitted values `X W`.

    Args:
        x: source rows, `[n, d1]`.
        y: corresponding target rows, `[n, d2]`.
        rank: between 1 and `min(d1, d2)`, the default, which is `affine`.

    Returns:
        An `AffineMap` for `apply`. Its gradients are finite, and right where the singular values on
        both sides of the cut differ.

    Raises:
        ValueError: the row counts differ or the rank is out of range.

    Reference:
        Izenman (1975), with identity weights.
    """
    _check_pair(x, y)
    rank = _check_rank(rank, x, y)
    x, source_mean = centre(as_float(x))
    y, target_mean = centre(as_float(y))
    factors, rcond = thin_svd(x), default_rcond(x)
    fitted = jnp.where((factors.s > rcond * factors.s[0])[:, None], factors.coordinates(y), 0.0)
    _, _, directions = svd(fitted)
    kept = directions[:rank]
    matrix = dot(dot(least_squares(x, y, rcond), kept.T), kept)
    return AffineMap(source_mean, matrix, target_mean)


@automatic_jit("rank")
def fit_cca(x: ArrayLike, y: ArrayLike, *, rank: int | None = None) -> AffineMap:
    """Canonical-correlation map: whiten, identify the leading canonical variates, unwhiten.

    With `X = U_x S_x V_x^T`, `Y = U_y S_y V_y^T` (centred) and `U_x^T U_y = P C Q^T`,
    `M = V_x S_x^+ P_r Q_r^T S_y V_y^T`. The variates are identified, not regressed on each
    other, so that the spread of the target is kept.

    Args:
        x: source rows, `[n, d1]`.
        y: corresponding target rows, `[n, d2]`.
        rank: how many canonical variates to keep, between 1 and `min(d1, d2)`, the default.
            With few rows the trailing ones are noise: take fewer.

    Returns:
        An `AffineMap` for `apply`. Its gradients are finite, and right where the correlations on
        both sides of the cut differ.

    Raises:
        ValueError: the row counts differ or the rank is out of range.

    Reference:
        Hotelling (1936).
    """
    _check_pair(x, y)
    rank = _check_rank(rank, x, y)
    x, source_mean = centre(as_float(x))
    y, target_mean = centre(as_float(y))
    factors_x, factors_y = thin_svd(x), thin_svd(y)
    sx, sy = factors_x.s, factors_y.s
    cut_x, cut_y = default_rcond(x) * sx[0], default_rcond(y) * sy[0]
    cross = overlap(factors_x, factors_y) * ((sx > cut_x)[:, None] & (sy > cut_y))
    p, correlations, qt = svd(cross)
    # Variates without correlation are paired at random by the SVD: leave them out.
    real = (correlations > default_rcond(x)) & (jnp.arange(correlations.size) < rank)
    pairing = dot(p * real, qt)
    # `V_x S_x^+ ...` as a least-squares solution, whose derivative is right for equal `S_x` too.
    paired = factors_x.combine(dot(pairing, factors_y.coordinates(y)))
    return AffineMap(source_mean, least_squares(x, paired, default_rcond(x)), target_mean)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InverseRelativeMap:
    """The map `x -> scale * unit(x - source_mean) @ matrix + target_mean`.

    Attributes:
        source_mean: mean of the source anchors, `[d1]`.
        matrix: `A_X^T pinv(A_Y^T)`, `[d1, d2]`.
        target_mean: mean of the target anchors, `[d2]`.
        scale: mean length of the centred target anchors, `[]`.
    """

    source_mean: jax.Array
    matrix: jax.Array
    target_mean: jax.Array
    scale: jax.Array


@automatic_jit("rcond")
def fit_inverse_relative(
    x_anchors: ArrayLike, y_anchors: ArrayLike, *, rcond: float | None = None
) -> InverseRelativeMap:
    """Inverse relative projection: encode by the source's anchors, decode by the target's.

    With anchors centred and L2-normalised in each space, a relative vector is
    `r = unit(x - mu_x) A_X^T`, and its absolute one `unit(x) A_X^T pinv(A_Y^T)`, scaled by the
    mean length of the centred target anchors and shifted by their mean. Where the two spaces are
    in different hands, send relative vectors, and read them with `decode_relative`, which needs
    the target's anchors alone.

    Args:
        x_anchors: anchors in the source space, `[m, d1]`.
        y_anchors: the same anchors in the target space, `[m, d2]`.
        rcond: singular values of the target anchors below this fraction of the largest one
            count as zero; by default `eps * max(10, min(m, d2))`.

    Returns:
        An `InverseRelativeMap` for `apply`.

    Raises:
        ValueError: the anchor counts differ.

    Reference:
        Maiorano et al., arXiv 2406.15057.
    """
    _check_pair(x_anchors, y_anchors, ("x_anchors", "y_anchors"))
    x, source_mean = centre(as_float(x_anchors))
    y, target_mean, scale = _centred_units(y_anchors)
    matrix = least_squares(y, unit_rows(x), default_rcond(y) if rcond is None else rcond).T
    return InverseRelativeMap(source_mean, matrix, target_mean, scale)


def _centred_units(anchors: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Centred anchors of length 1, their mean, and their mean length before."""
    centred, mean = centre(as_float(anchors))
    size = size_of(centred)
    squared = jnp.sum((centred / size) ** 2, axis=1)
    lengths = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    return unit_rows(centred), mean, lengths.mean() * size


@partial(jax.jit, static_argnames="rcond")
def decode_relative(
    relative: jax.Array, anchors: jax.Array, *, rcond: float | None = None
) -> jax.Array:
    """Relative vectors back to latents of the space that these anchors are of.

    `r pinv(A^T)` with the anchors centred and L2-normalised, scaled by their mean length and
    shifted by their mean. With relative vectors of the same space it gives back the direction of
    every latent about the anchors' mean, where the anchors span the space; with those of another
    space it is inverse relative projection, which needs nothing of that space but `r`.

    Args:
        relative: cosines of centred latents to the corresponding anchors, in any space, `[n, m]`:
            `relative_projection(x, x_anchors, "cosine", "centering")`.
        anchors: the anchors in the space to go to, `[m, d]`.
        rcond: as for `fit_inverse_relative`.

    Returns:
        Latents `[n, d]`, in the dtype of `relative`.

    Raises:
        ValueError: not matrices, or not one column for each anchor.

    Reference:
        Maiorano et al., arXiv 2406.15057.

    Example:
        >>> import jax, jax.numpy as jnp, relrep_jax as rr
        >>> x = jax.random.normal(jax.random.key(0), (100, 4))
        >>> r = rr.relative_projection(3.0 * x[:, ::-1], 3.0 * x[:20, ::-1], "cosine", "centering")
        >>> y = rr.translation.decode_relative(r, x[:20])
        >>> centred = x - x[:20].mean(0)
        >>> bool(jnp.all(rr.similarities.cosine(y - x[:20].mean(0), centred).diagonal() > 0.999))
        True
    """
    check_matrix("relative", relative, columns="m")
    check_matrix("anchors", anchors, rows="m")
    if relative.shape[1] != anchors.shape[0]:
        raise ValueError(
            "relative must have one column for each anchor, got relative "
            f"{tuple(relative.shape)} and anchors {tuple(anchors.shape)}."
        )
    y, mean, scale = _centred_units(anchors)
    identity = jnp.eye(y.shape[0], dtype=y.dtype)
    inverse = least_squares(y, identity, default_rcond(y) if rcond is None else rcond).T
    out = scale * dot(as_float(relative), inverse) + mean
    return out.astype(relative.dtype if jnp.issubdtype(relative.dtype, jnp.floating) else out.dtype)


def apply_inverse_relative(params: InverseRelativeMap, x: ArrayLike) -> jax.Array:
    """Take rows of the source space to the target space; see `inverse_relative.fit`.

    Args:
        params: what `inverse_relative.fit` returned.
        x: rows of the source space, `[k, d1]`.

    Returns:
        Rows of the target space, `[k, d2]`, in the dtype of `x`. The length of a row about the
        source's mean is lost by the normalisation.

    Raises:
        ValueError: `x` has another width than the fitted anchors.
    """
    _check_width(x, params.matrix.shape[-2])
    x = jnp.asarray(x)
    units = unit_rows(as_float(x) - params.source_mean)
    out = params.scale * dot(units, params.matrix) + params.target_mean
    return out.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else out.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProcrustesConsensus:
    """One map per space, `x -> (x - means[i]) / scales[i] @ maps[i]`, and what they agree on.

    Attributes:
        means: one `[d_i]` a space.
        scales: one `[]` a space.
        maps: one `[d_i, D]` with orthonormal rows a space, `D` the largest width.
        consensus: the mean of the mapped spaces, `[n, D]`.
    """

    means: tuple[jax.Array, ...]
    scales: tuple[jax.Array, ...]
    maps: tuple[jax.Array, ...]
    consensus: jax.Array


@automatic_jit("scaling", "iterations")
def fit_generalized_procrustes(
    spaces: Sequence[jax.Array], *, scaling: bool = True, iterations: int = 50
) -> ProcrustesConsensus:
    """Generalised Procrustes analysis: more than two spaces, rotated onto their consensus.

    Minimises `sum_i ||X_i R_i - mean_j X_j R_j||^2` over orthogonal `R_i`, the spaces centred
    and padded with zeros to the largest width, by turns: each `R_i` from the SVD of `X_i^T U`,
    then `U` anew. It starts at the first space of the largest width, so that the answer is
    deterministic.

    Args:
        spaces: corresponding rows of every space, `[n, d_i]` each; two or more.
        scaling: whether each space is first brought to a root mean square length of 1, so
            that none outweighs the others; undone when one goes back to it.
        iterations: how many turns.

    Returns:
        A `ProcrustesConsensus` for `apply` (into the consensus), `restore` (out of it) and
        `translate` (from one space to another).

    Raises:
        ValueError: fewer than two spaces, row counts that differ, or no iterations.

    Reference:
        Gower (1975); for latent spaces, arXiv 2602.06205.
    """
    check_corresponding("spaces", spaces)
    check_count("iterations", iterations)

    widths = [space.shape[1] for space in spaces]
    width = max(widths)
    centred, means = zip(*(centre(as_float(space)) for space in spaces), strict=True)
    scales = []
    for c in centred:
        largest = size_of(c)
        size = jnp.mean(jnp.sum((c / largest) ** 2, axis=1))
        root = jnp.sqrt(jnp.where(size > 0, size, 1.0)) * largest
        scales.append(root if scaling else jnp.ones_like(root))
    # Without scales of their own all share one, so that products stay in range.
    common = jnp.ones_like(scales[0])
    if not scaling:
        common = jnp.max(jnp.stack([size_of(c) for c in centred]))
    stacked = jnp.stack(
        [
            jnp.pad(c / s / common, ((0, 0), (0, width - c.shape[1])))
            for c, s in zip(centred, scales, strict=True)
        ]
    )

    def mapped(rotations):
        return jnp.mean(jax.vmap(dot)(stacked, rotations), axis=0)

    def turn(_, rotations):
        consensus = mapped(rotations)
        return jax.vmap(lambda space: polar(dot(space.T, consensus)))(stacked)

    start = stacked[widths.index(width)]
    rotations = jax.vmap(lambda space: polar(dot(space.T, start)))(stacked)
    rotations = lax.fori_loop(0, iterations, turn, rotations)
    maps = tuple(rotations[i, :d] for i, d in enumerate(widths))
    return ProcrustesConsensus(means, tuple(scales), maps, mapped(rotations) * common)


def _check_index(params: ProcrustesConsensus, i: int) -> None:
    if not 0 <= i < len(params.maps):
        raise ValueError(f"There is no space {i}: {len(params.maps)} spaces were fitted.")


def apply_generalized_procrustes(params: ProcrustesConsensus, i: int, x: ArrayLike) -> jax.Array:
    """Take rows of space `i` into the consensus.

    Args:
        params: what `generalized_procrustes.fit` returned.
        i: which of the fitted spaces `x` belongs to.
        x: rows of that space, `[k, d_i]`.

    Returns:
        Rows of the consensus, `[k, D]`, in the dtype of `x`.

    Raises:
        ValueError: there is no such space, or `x` has another width.
    """
    _check_index(params, i)
    _check_width(x, params.maps[i].shape[-2])
    x = jnp.asarray(x)
    out = dot((as_float(x) - params.means[i]) / params.scales[i], params.maps[i])
    return out.astype(x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else out.dtype)


def restore_generalized_procrustes(params: ProcrustesConsensus, i: int, z: ArrayLike) -> jax.Array:
    """Take rows of the consensus `[k, D]` back to space `i`, `[k, d_i]`."""
    _check_index(params, i)
    _check_width(z, params.maps[i].shape[-1])
    z = jnp.asarray(z)
    out = dot(as_float(z), params.maps[i].T) * params.scales[i] + params.means[i]
    return out.astype(z.dtype if jnp.issubdtype(z.dtype, jnp.floating) else out.dtype)


def translate_generalized_procrustes(
    params: ProcrustesConsensus, source: int, target: int, x: ArrayLike
) -> jax.Array:
    """Take rows of space `source` `[k, d_i]` to space `target` `[k, d_j]`, by the consensus."""
    z = apply_generalized_procrustes(params, source, x)
    return restore_generalized_procrustes(params, target, z)


class ConsensusTranslator(NamedTuple):
    """`fit(spaces)`, `apply(params, i, x)`, `restore(params, i, z)` and `translate`."""

    fit: Callable[..., ProcrustesConsensus]
    apply: Callable[..., jax.Array]
    restore: Callable[..., jax.Array]
    translate: Callable[..., jax.Array]


orthogonal = Translator(fit_orthogonal, apply_affine)
linear = Translator(fit_linear, apply_affine)
affine = Translator(fit_affine, apply_affine)
ridge = Translator(fit_ridge, apply_affine)
low_rank = Translator(fit_low_rank, apply_affine)
cca = Translator(fit_cca, apply_affine)
inverse_relative = Translator(fit_inverse_relative, apply_inverse_relative)
generalized_procrustes = ConsensusTranslator(
    fit_generalized_procrustes,
    apply_generalized_procrustes,
    restore_generalized_procrustes,
    translate_generalized_procrustes,
)

TRANSLATIONS: dict[str, Translator] = {
    "orthogonal": orthogonal,
    "linear": linear,
    "affine": affine,
    "ridge": ridge,
    "low_rank": low_rank,
    "cca": cca,
    "inverse_relative": inverse_relative,
}
"""Translators between two spaces by name (`generalized_procrustes` takes more than two)."""


def get(name: str) -> Translator:
    """The translator called `name`.

    Args:
        name: one of `TRANSLATIONS`.

    Returns:
        The `Translator`.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    return lookup("translation", name, TRANSLATIONS)
