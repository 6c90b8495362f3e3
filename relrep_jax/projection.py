"""Relative projections: latents `[n, d]` and anchors `[m, d]` to relative spaces."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.typing import ArrayLike

from relrep_jax import similarities as _similarities
from relrep_jax import transforms as _transforms
from relrep_jax.checks import check_same_width, is_at_least
from relrep_jax.transforms import TransformLike

Similarity = str | Callable[[jax.Array, jax.Array], jax.Array]

PAPER_SIMILARITIES = ("cosine", "euclidean", "manhattan", "chebyshev")
"""The four similarities whose product arXiv 2310.01211 studies."""

# From this many n*m*d on, a CPU is faster with one set of anchors after another than with a
# vmapped product, whose operands and result it has to transpose.
LARGE = 2**24


def relative_projection(
    latents: ArrayLike,
    anchors: ArrayLike,
    similarity: Similarity = "cosine",
    absolute_transform: TransformLike = None,
    relative_transform: TransformLike = None,
) -> jax.Array:
    """Re-express latents by their similarities to anchors.

    `r(x) = g((sim(f(x), f(a_1)), ..., sim(f(x), f(a_m))))` with the absolute transform `f` and
    the relative transform `g`. For anchor sets or seeds as leading axes use `jax.vmap`; for rows
    that are sharded over devices, call it inside `jax.shard_map` with the anchors replicated:
    under `jit` alone XLA may gather all rows on every device.

    Args:
        latents: `[n, d]`.
        anchors: `[m, d]`, encoded by the encoder that made the latents.
        similarity: a name of `relrep_jax.similarities.SIMILARITIES`, or any function
            `([n, d], [m, d]) -> [n, m]`.
        absolute_transform: applied to latents and anchors before the similarity: a name or a
            `Transform` (fitted on the anchors), a `FittedTransform`, or a function of one array.
        relative_transform: the same for the relative space; where it has to be fitted, that is
            done on the relative space of the anchors themselves, `[m, m]`.

    Returns:
        The relative space `[n, m]`: of a similarity by name in the floating dtype to which latents
        and anchors promote, of a function in what it gives. Distances are distances: they are not
        negated, and nothing is normalised unless a transform says so.

    Raises:
        ValueError: latents and anchors are not matrices of one width, or are empty; unknown
            similarity or transform; a similarity whose result is not `[n, m]`, a transform whose
            result has not as many rows as it was given.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 3.

    Example:
        >>> import jax, relrep_jax as rr
        >>> z = jax.random.normal(jax.random.key(0), (100, 16))
        >>> anchors = rr.anchors.uniform(jax.random.key(1), 100, 10)
        >>> rr.relative_projection(z, z[anchors]).shape
        (100, 10)
    """
    check_same_width(latents, anchors)
    latents, anchors = jnp.asarray(latents), jnp.asarray(anchors)
    if jnp.issubdtype(latents.dtype, jnp.floating) and latents.dtype.itemsize < 4:
        # A transform may leave the range of 16 bits, though the similarities lie well inside.
        projected = relative_projection(
            latents.astype(jnp.float32),
            anchors.astype(jnp.float32),
            similarity,
            absolute_transform,
            relative_transform,
        )
        return projected.astype(jnp.result_type(latents.dtype, anchors.dtype))
    how = (similarity, absolute_transform, relative_transform)
    is_large = is_at_least(latents.size * anchors.shape[0], LARGE)
    # A function may hold arrays of the caller, which cannot pass through what follows.
    if is_large and all(part is None or isinstance(part, str) for part in how):
        return _project_large(*how, latents, anchors)
    return _project(*how, latents, anchors)


def _project(
    similarity: Similarity,
    absolute_transform: TransformLike,
    relative_transform: TransformLike,
    latents: jax.Array,
    anchors: jax.Array,
) -> jax.Array:
    measure = _similarities.get(similarity)
    absolute = _transforms.resolve(absolute_transform, anchors)
    num_samples, num_anchors = latents.shape[0], anchors.shape[0]
    latents, anchors = absolute(latents), absolute(anchors)
    for name, given, count in (
        ("latents", latents, num_samples),
        ("anchors", anchors, num_anchors),
    ):
        _check_transformed("absolute_transform", absolute_transform, name, given, count)
    relative = measure(latents, anchors)
    expected = (latents.shape[0], anchors.shape[0])
    shape = getattr(relative, "shape", None)
    if shape != expected:
        gave = type(relative).__name__ if shape is None else f"shape {shape}"
        raise ValueError(
            f"The similarity {similarity!r} gave {gave} for latents "
            f"{latents.shape} and anchors {anchors.shape}; expected {expected}."
        )
    if isinstance(relative_transform, str | _transforms.Transform):
        relative_transform = _transforms.fit(relative_transform, measure(anchors, anchors))
    relative = _transforms.resolve(relative_transform, relative)(relative)
    _check_transformed(
        "relative_transform", relative_transform, "the relative space", relative, num_samples
    )
    return relative


def _check_transformed(argument: str, transform: Any, what: str, given: Any, count: int) -> None:
    shape = getattr(given, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != count:
        raise ValueError(
            f"The {argument} {transform!r} made {shape or type(given).__name__} of {what} with "
            f"{count} rows; it must give a matrix with as many."
        )


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _project_large(
    similarity: str,
    absolute_transform: str | None,
    relative_transform: str | None,
    latents: jax.Array,
    anchors: jax.Array,
) -> jax.Array:
    """`_project`, which `vmap` on CPU runs for one seed or anchor set after another."""
    project = partial(_project, similarity, absolute_transform, relative_transform)

    @custom_vmap
    def one(latents, anchors):
        return project(latents, anchors)

    @one.def_vmap
    def many(axis_size, is_mapped, *inputs):
        def in_turn(*inputs):
            mapped = [part for part, is_one in zip(inputs, is_mapped, strict=True) if is_one]

            def step(parts):
                rest = iter(parts)
                return one(
                    *(
                        next(rest) if is_one else whole
                        for whole, is_one in zip(inputs, is_mapped, strict=True)
                    )
                )

            return lax.map(step, mapped)

        at_once = jax.vmap(project, [0 if is_one else None for is_one in is_mapped])
        return lax.platform_dependent(*inputs, cpu=in_turn, default=at_once), True

    return one(latents, anchors)


@_project_large.defjvp
def _project_large_jvp(similarity, absolute_transform, relative_transform, primals, tangents):
    # A function with a batching rule of its own has no reverse mode.
    project = partial(_project, similarity, absolute_transform, relative_transform)
    return jax.jvp(project, primals, tangents)


def product_projection(
    latents: ArrayLike,
    anchors: ArrayLike,
    similarities: Sequence[Similarity] = PAPER_SIMILARITIES,
    absolute_transform: TransformLike | Sequence[TransformLike] = None,
    relative_transform: TransformLike | Sequence[TransformLike] = None,
) -> jax.Array:
    """A product of invariances: one relative space for each similarity.

    `[r_1(x), ..., r_s(x)]`, each blind to another class of maps. The modules of
    `relrep_jax.aggregation` turn the product into one space.

    Args:
        latents: `[n, d]`.
        anchors: `[m, d]`.
        similarities: names or functions, as in `relative_projection`; a single one is allowed.
        absolute_transform: as in `relative_projection`; a list or tuple gives one a similarity.
        relative_transform: likewise.

    Returns:
        The product `[s, n, m]`, slices in the order of `similarities`.

    Raises:
        ValueError: no similarities, or a set of them, which has no order; a list of transforms of
            another length; and what `relative_projection` raises.

    Reference: Cannistraci et al. 2024 (arXiv 2310.01211), section 3.

    Example:
        >>> import jax, relrep_jax as rr
        >>> z = jax.random.normal(jax.random.key(0), (100, 16))
        >>> rr.product_projection(z, z[:10], similarities=("cosine", "euclidean")).shape
        (2, 100, 10)
    """
    if isinstance(similarities, str) or callable(similarities):
        similarities = (similarities,)
    if isinstance(similarities, set | frozenset):
        raise ValueError(
            "similarities must be in order, such as a tuple: the slices of the product are in "
            "theirs, and a set has none."
        )
    similarities = tuple(similarities)
    if not similarities:
        raise ValueError("similarities is empty: name at least one, such as ('cosine',).")

    def one_each(name: str, transform) -> Sequence[TransformLike]:
        # A Transform is itself a tuple (of functions), but never a list of transforms.
        if isinstance(transform, _transforms.Transform) or not isinstance(transform, list | tuple):
            return (transform,) * len(similarities)
        if len(transform) != len(similarities):
            raise ValueError(
                f"{name} names {len(transform)} transforms for {len(similarities)} similarities; "
                "give one, or as many as there are similarities."
            )
        return transform

    return jnp.stack(
        [
            relative_projection(latents, anchors, similarity, absolute, relative)
            for similarity, absolute, relative in zip(
                similarities,
                one_each("absolute_transform", absolute_transform),
                one_each("relative_transform", relative_transform),
                strict=True,
            )
        ]
    )
