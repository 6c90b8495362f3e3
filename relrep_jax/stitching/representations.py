"""How one encoder's latents are made readable for the head of another.

A `Representation` looks at the latents of all encoders and at the rows that are known to
correspond, and gives `Views`: what each head is trained on, and what it reads of another encoder.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp

from relrep_jax import anchors as _anchors
from relrep_jax import consensus as _consensus
from relrep_jax import similarities as _similarities
from relrep_jax import transforms as _transforms
from relrep_jax import translation as _translation
from relrep_jax._linalg import as_float, centre, size_of
from relrep_jax.checks import check_count, check_number, lookup
from relrep_jax.measures.cka import default_bandwidth
from relrep_jax.projection import (
    PAPER_SIMILARITIES,
    Similarity,
    product_projection,
    relative_projection,
)
from relrep_jax.transforms import TransformLike

UNIT_ROWS = _transforms.chain("centering", "l2_normalization")
"""Rows of length 1 about the anchors' mean: distances then do not see the scale of a space."""


class Views(NamedTuple):
    """What heads read.

    Attributes:
        own: for each encoder the space `[n, r_i]` (or product `[s, n, m]`) that its head is
            trained on.
        crossed: `(encoder, decoder) -> array` like `own[decoder]`, what the decoder's head reads
            of that encoder, or None where nothing can be read.
    """

    own: Sequence[jax.Array]
    crossed: Callable[[int, int], jax.Array | None]


class Representation(NamedTuple):
    """A way to make latents comparable.

    Attributes:
        view: `(key, spaces, rows, train) -> Views`, traceable: `spaces` are the latents of all
            encoders, `[n, d_i]` each; `rows [e, p]` the rows of each encoder that are known to
            correspond (the parallel samples); `train [t]` the training rows, whose correspondence
            it must not use.
        is_random: whether it depends on the key.
        uses_parallel_samples: whether it looks at `rows` at all.
        keeps_latents: whether heads are trained on the latents as they are, so that they are the
            same for all such representations.
    """

    view: Callable[[jax.Array, Sequence[jax.Array], jax.Array, jax.Array], Views]
    is_random: bool = False
    uses_parallel_samples: bool = True
    keeps_latents: bool = False


def _common(spaces: Sequence[jax.Array]) -> Views:
    """Views of spaces that all heads can read."""
    return Views(spaces, lambda encoder, decoder: spaces[encoder])


def _take(spaces: Sequence[jax.Array], rows: jax.Array) -> list[jax.Array]:
    return [space[picked] for space, picked in zip(spaces, rows, strict=True)]


def _from_anchors(
    project: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> Representation:
    """A space for each encoder alone: `project(latents, parallel samples, training latents)`."""

    def view(key, spaces, rows, train):
        del key
        pairs = zip(spaces, _take(spaces, rows), strict=True)
        return _common([project(space, anchors, space[train]) for space, anchors in pairs])

    return Representation(view)


def absolute() -> Representation:
    """The latents as they are: what cannot be stitched. Pairs of different widths are left out."""

    def view(key, spaces, rows, train):
        del key, rows, train

        def crossed(encoder, decoder):
            same = spaces[encoder].shape[1] == spaces[decoder].shape[1]
            return spaces[encoder] if same else None

        return Views(spaces, crossed)

    return Representation(view, uses_parallel_samples=False, keeps_latents=True)


def relative(
    similarity: Similarity = "cosine",
    absolute_transform: TransformLike = "centering",
    relative_transform: TransformLike = None,
) -> Representation:
    """Similarities to the parallel samples as anchors; see `relrep_jax.relative_projection`."""
    _similarities.get(similarity)
    return _from_anchors(
        lambda space, anchors, train: relative_projection(
            space, anchors, similarity, absolute_transform, relative_transform
        )
    )


def product(
    similarities: Sequence[Similarity] = PAPER_SIMILARITIES,
    absolute_transform: TransformLike | Sequence[TransformLike] = UNIT_ROWS,
    relative_transform: TransformLike | Sequence[TransformLike] = None,
) -> Representation:
    """Several similarities to the parallel samples; the head's aggregation makes them one space."""
    for similarity in similarities:
        _similarities.get(similarity)
    return _from_anchors(
        lambda space, anchors, train: product_projection(
            space, anchors, similarities, absolute_transform, relative_transform
        )
    )


POOLINGS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "concatenation": lambda parts: jnp.moveaxis(parts, 0, 1).reshape(parts.shape[1], -1),
    "sum": lambda parts: jnp.sum(parts, axis=0),
    "mean": lambda parts: jnp.mean(parts, axis=0),
    "max": lambda parts: jnp.max(parts, axis=0),
}
"""How relative spaces `[k, n, m]` of subspaces become one, by name."""


def subspaces(
    num_subspaces: int,
    pooling: str = "concatenation",
    similarity: Similarity = "cosine",
    absolute_transform: TransformLike = "centering",
    relative_transform: TransformLike = None,
) -> Representation:
    """Similarities to the parallel samples in each of several subspaces, pooled.

    The features are cut into contiguous subspaces of equal size; where the number does not divide
    the width, the first ones have one feature more.

    Args:
        num_subspaces: how many; no more than the narrowest encoder has features.
        pooling: a name of `POOLINGS`.
        similarity, absolute_transform, relative_transform: as in `relative`, of each subspace.

    Reference: the multi-head relative projection in the code of Moschella et al. 2023
    (arXiv 2209.15430).
    """
    check_count("num_subspaces", num_subspaces)
    pool = lookup("pooling", pooling, POOLINGS)

    def project(space, anchors, train):
        del train
        if space.shape[1] < num_subspaces:
            raise ValueError(
                f"{num_subspaces} subspaces need as many features, got {space.shape[1]}."
            )
        pairs = zip(
            jnp.array_split(space, num_subspaces, axis=1),
            jnp.array_split(anchors, num_subspaces, axis=1),
            strict=True,
        )
        parts = [
            relative_projection(
                part, its_anchors, similarity, absolute_transform, relative_transform
            )
            for part, its_anchors in pairs
        ]
        return pool(jnp.stack(parts))

    return _from_anchors(project)


def prototypes(
    num_anchors: int = 256,
    similarity: Similarity = "cosine",
    absolute_transform: TransformLike = "centering",
) -> Representation:
    """Similarities to k-means prototypes: means of the same parallel samples in every space.

    Args:
        num_anchors: how many prototypes; no more than half as many as there are parallel samples
            are made, so that they are means at all.
        similarity, absolute_transform: as in `relative`.
    """
    check_count("num_anchors", num_anchors)

    def view(key, spaces, rows, train):
        del train
        count = max(1, min(num_anchors, rows.shape[1] // 2))
        made = _anchors.prototypes(key, _take(spaces, rows), count)
        return _common(
            [
                relative_projection(space, anchors, similarity, absolute_transform)
                for space, anchors in zip(spaces, made, strict=True)
            ]
        )

    return Representation(view, is_random=True)


def whitened_inner(shrinkage: float | str = 0.9) -> Representation:
    """Whitened inner products with the parallel samples as anchors.

    Mean and covariance are those of each encoder's own training latents: they take no
    correspondence, and there are more of them.
    """

    def project(space, anchors, train):
        size = size_of(train)
        statistics = _similarities.covariance_statistics(train / size, shrinkage)
        return _similarities.whitened_inner(space / size, anchors / size, *statistics)

    return _from_anchors(project)


def translated(method: str = "orthogonal", **options) -> Representation:
    """Each encoder's latents translated into the decoder's space, by a map for every pair.

    Args:
        method: a name of `relrep_jax.translation.TRANSLATIONS`.
        **options: of its `fit`.
    """
    translator = _translation.get(method)

    def fit(source, target):
        return translator.fit(source, target, **options)

    return _translated(fit, translator.apply)


def ridge(relative_penalty: float = 0.3) -> Representation:
    """Ridge translation whose penalty is given in units of the mean squared length of the rows."""
    check_number("relative_penalty", relative_penalty, "not be negative", lambda value: value >= 0)

    def fit(source, target):
        rows, _ = centre(as_float(source))
        size = size_of(rows)
        square = jnp.mean(jnp.sum(jnp.square(rows / size), axis=1))
        scaled = _translation.ridge.fit(source / size, target, penalty=relative_penalty * square)
        return _translation.AffineMap(
            scaled.source_mean * size, scaled.matrix / size, scaled.target_mean
        )

    return _translated(fit, _translation.ridge.apply)


def _translated(fit: Callable, apply: Callable) -> Representation:
    def view(key, spaces, rows, train):
        del key, train
        parallel = _take(spaces, rows)

        def crossed(encoder, decoder):
            if encoder == decoder:
                return spaces[decoder]
            return apply(fit(parallel[encoder], parallel[decoder]), spaces[encoder])

        return Views(spaces, crossed)

    return Representation(view, keeps_latents=True)


def consensus(relative_penalty: float = 0.3) -> Representation:
    """Ridge regression of each encoder onto the relative space that all agree on.

    See `relrep_jax.consensus.fit`.
    """
    check_number("relative_penalty", relative_penalty, "be positive", lambda value: value > 0)

    def view(key, spaces, rows, train):
        del key, train
        params = _consensus.fit(_take(spaces, rows), relative_penalty=relative_penalty)
        return _common([_consensus.apply(params, i, space) for i, space in enumerate(spaces)])

    return Representation(view)


def matched_consensus(
    relative_penalty: float = 0.3, final_penalty: float = 0.1, rounds: int = 3
) -> Representation:
    """A consensus on the parallel samples and on training samples matched without labels.

    The training rows of every encoder are shuffled, each encoder's by itself, and then matched by
    `relrep_jax.consensus.match_and_fit`: this supposes that all encoders have encoded the same
    unlabelled samples, in whatever order, which other methods do not. Where all training rows
    are parallel there is nothing left to match.
    """
    everything_known = consensus(final_penalty)

    def view(key, spaces, rows, train):
        if rows.shape[1] >= train.shape[0]:
            return everything_known.view(key, spaces, rows, train)
        # Which rows are known is data, so that the pools keep all training rows: a known one
        # that is matched again counts twice, and tells nothing that was not known.
        keys = jax.random.split(key, len(spaces))
        pools = [
            space[jax.random.permutation(one, train)]
            for one, space in zip(keys, spaces, strict=True)
        ]
        params = _consensus.match_and_fit(
            _take(spaces, rows),
            pools,
            relative_penalty=relative_penalty,
            final_penalty=final_penalty,
            rounds=rounds,
        )
        return _common([_consensus.apply(params, i, space) for i, space in enumerate(spaces)])

    return Representation(view, is_random=True)


def mahalanobis(shrinkage: float | str = 0.9) -> Representation:
    """Mahalanobis distances to the parallel samples; statistics as in `whitened_inner`."""

    def project(space, anchors, train):
        size = size_of(train)  # a precision has the inverse square of the latents' units
        _, precision = _similarities.covariance_statistics(train / size, shrinkage)
        return _similarities.mahalanobis(space / size, anchors / size, precision)

    return _from_anchors(project)


def rbf() -> Representation:
    """Radial basis functions of the parallel samples, as wide as their median distance (or, where
    more than half of these coincide, their root mean square distance)."""

    return _from_anchors(
        lambda space, anchors, train: _similarities.rbf(space, anchors, default_bandwidth(anchors))
    )


def generalized_procrustes(iterations: int = 50) -> Representation:
    """All encoders rotated onto their mean by the parallel samples."""
    translator = _translation.generalized_procrustes

    def view(key, spaces, rows, train):
        del key, train
        params = translator.fit(_take(spaces, rows), iterations=iterations)
        return _common([translator.apply(params, i, space) for i, space in enumerate(spaces)])

    return Representation(view)


REPRESENTATIONS: dict[str, Callable[..., Representation]] = {
    "absolute": absolute,
    "cosine": lambda: relative("cosine", None),
    "centred_cosine": relative,
    "inner": lambda: relative("inner", "centering"),
    "angular": lambda: relative("angular", "centering"),
    "rbf": rbf,
    "mahalanobis": mahalanobis,
    "euclidean": lambda: relative("euclidean", UNIT_ROWS),
    "manhattan": lambda: relative("manhattan", UNIT_ROWS),
    "chebyshev": lambda: relative("chebyshev", UNIT_ROWS),
    "product": product,
    "prototypes": prototypes,
    "whitened_inner": whitened_inner,
    "orthogonal": translated,
    "linear": lambda: translated("linear"),
    "affine": lambda: translated("affine"),
    "ridge": ridge,
    "low_rank": lambda: translated("low_rank"),
    "cca": lambda: translated("cca"),
    "inverse_relative": lambda: translated("inverse_relative"),
    "generalized_procrustes": generalized_procrustes,
    "consensus": consensus,
    "matched_consensus": matched_consensus,
}
"""Makers of representations by name, with the options that they have by default."""


def get(representation: str | Representation) -> Representation:
    """The representation of that name, or the representation itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if isinstance(representation, Representation):
        return representation
    return _made(lookup("representation", representation, REPRESENTATIONS))


@lru_cache
def _made(make: Callable[[], Representation]) -> Representation:
    """The same object each time, so that what is compiled for it serves again."""
    return make()
