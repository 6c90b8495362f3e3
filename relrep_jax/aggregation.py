"""Aggregations: Flax (NNX) modules that turn a product `[s, n, m]` into one space `[n, out]`.

Every module first applies a LayerNorm of its own to each space, which makes spaces of different
ranges comparable and adds scale invariance, as long as a row's variance over the anchors is far
above the LayerNorm's epsilon of 1e-5 (see `transforms.layer_normalization`) and its square is in
the range of the dtype: below about 1e19 in float32. Parameters of
different spaces are never shared, but for the projections of attention, to which the spaces are
tokens. A product of integers is read as float32. A learned aggregation
belongs to the decoder that was trained with it: in stitching only the parameter-free product
crosses between models.

All modules are built as `Module(num_spaces, num_anchors, *, rngs)` and say how wide their output
is in `out_features`. Reference: Cannistraci et al. 2024 (arXiv 2310.01211), section 3 and 4.3.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from relrep_jax.checks import check_count, resolve

__all__ = [
    "AGGREGATIONS",
    "Concatenation",
    "MLPSelfAttention",
    "MLPSum",
    "SelfAttention",
    "SpaceNorm",
    "Sum",
    "WeightedAverage",
    "get",
]


class SpaceNorm(nnx.Module):
    """A LayerNorm over the anchors, with scale and bias of its own for every space.

    `[s, n, m] -> [s, n, m]`.
    """

    def __init__(self, num_spaces: int, num_anchors: int, *, rngs: nnx.Rngs):
        check_count("num_spaces", num_spaces)
        check_count("num_anchors", num_anchors)
        self.shape = (num_spaces, num_anchors)
        # Distances have a mean far above their spread: the fast variance would cancel.
        self.normalize = nnx.LayerNorm(
            num_anchors,
            epsilon=1e-5,
            use_scale=False,
            use_bias=False,
            use_fast_variance=False,
            rngs=rngs,
        )
        self.scale = nnx.Param(jnp.ones((num_spaces, 1, num_anchors), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_spaces, 1, num_anchors), jnp.float32))

    def __call__(self, product: jax.Array) -> jax.Array:
        num_spaces, num_anchors = self.shape
        if product.ndim != 3 or (product.shape[0], product.shape[2]) != self.shape:
            raise ValueError(
                f"This aggregation was built for a product [{num_spaces}, n, {num_anchors}], "
                f"got {product.shape}."
            )
        if not jnp.issubdtype(product.dtype, jnp.floating):
            product = product.astype(jnp.float32)
        scale, bias = (p[...].astype(product.dtype) for p in (self.scale, self.bias))
        return self.normalize(product) * scale + bias


class Concatenation(nnx.Module):
    """Normalised spaces side by side: `[s, n, m] -> [n, s * m]`."""

    def __init__(self, num_spaces: int, num_anchors: int, *, rngs: nnx.Rngs):
        self.norm = SpaceNorm(num_spaces, num_anchors, rngs=rngs)
        self.out_features = num_spaces * num_anchors

    def __call__(self, product: jax.Array) -> jax.Array:
        normalized = self.norm(product)
        return jnp.moveaxis(normalized, 0, 1).reshape(product.shape[1], self.out_features)


class Sum(nnx.Module):
    """Sum of the normalised spaces: `[s, n, m] -> [n, m]`."""

    def __init__(self, num_spaces: int, num_anchors: int, *, rngs: nnx.Rngs):
        self.norm = SpaceNorm(num_spaces, num_anchors, rngs=rngs)
        self.out_features = num_anchors

    def __call__(self, product: jax.Array) -> jax.Array:
        return jnp.sum(self.norm(product), axis=0)


class _SpaceMLP(nnx.Module):
    """`tanh(W_i LayerNorm_i(space_i) + b_i)`: `[s, n, m] -> [s, n, m]`."""

    def __init__(self, num_spaces: int, num_anchors: int, *, rngs: nnx.Rngs):
        self.norm = SpaceNorm(num_spaces, num_anchors, rngs=rngs)
        init = jax.nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        shape = (num_spaces, num_anchors, num_anchors)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_spaces, 1, num_anchors), jnp.float32))

    def __call__(self, product: jax.Array) -> jax.Array:
        spaces = self.norm(product)
        kernel, bias = (p[...].astype(spaces.dtype) for p in (self.kernel, self.bias))
        return jnp.tanh(jnp.einsum("snm,smk->snk", spaces, kernel) + bias)


class MLPSum(_SpaceMLP):
    """Sum of `tanh(W_i LayerNorm_i(space_i) + b_i)`: `[s, n, m] -> [n, m]`. The papers' best."""

    def __init__(self, num_spaces: int, num_anchors: int, *, rngs: nnx.Rngs):
        super().__init__(num_spaces, num_anchors, rngs=rngs)
        self.out_features = num_anchors

    def __call__(self, product: jax.Array) -> jax.Array:
        return jnp.sum(super().__call__(product), axis=0)


class WeightedAverage(nnx.Module):
    """Average of the normalised spaces with learned softmax weights: `[s, n, m] -> [n, m]`."""

    def __init__(self, num_spaces: int, num_anchors: int, *, rngs: nnx.Rngs):
        self.norm = SpaceNorm(num_spaces, num_anchors, rngs=rngs)
        self.logits = nnx.Param(jnp.zeros((num_spaces,), jnp.float32))
        self.out_features = num_anchors

    def __call__(self, product: jax.Array) -> jax.Array:
        spaces = self.norm(product)
        weights = jax.nn.softmax(self.logits[...]).astype(spaces.dtype)
        return jnp.einsum("s,snm->nm", weights, spaces)


class SelfAttention(nnx.Module):
    """Self-attention over a sample's spaces as tokens, then their sum: `[s, n, m] -> [n, m]`.

    Args:
        num_heads: attention heads; must divide `num_anchors`. The paper uses one.
        num_features: width of queries, keys and values; `num_anchors` if left out, as in the
            paper. Must be a multiple of `num_heads`, too.
    """

    def __init__(
        self,
        num_spaces: int,
        num_anchors: int,
        *,
        num_heads: int = 1,
        num_features: int | None = None,
        rngs: nnx.Rngs,
    ):
        if num_heads < 1 or num_anchors % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide num_anchors {num_anchors}.")
        if num_features is not None and (num_features < 1 or num_features % num_heads):
            raise ValueError(f"num_features {num_features} is no multiple of {num_heads} heads.")
        self.embed = SpaceNorm(num_spaces, num_anchors, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads,
            num_anchors,
            qkv_features=num_features,
            decode=False,
            keep_rngs=False,
            rngs=rngs,
        )
        self.out_features = num_anchors

    def __call__(self, product: jax.Array) -> jax.Array:
        tokens = jnp.moveaxis(self.embed(product), 0, 1)
        return jnp.sum(self.attention(tokens), axis=1).astype(tokens.dtype)


class MLPSelfAttention(SelfAttention):
    """Self-attention over `tanh(W_i LayerNorm_i(space_i) + b_i)` as tokens, then their sum.

    `[s, n, m] -> [n, m]`. Arguments as for `SelfAttention`.

    Reference: Cannistraci et al. 2024 (arXiv 2310.01211), appendix.
    """

    def __init__(self, num_spaces: int, num_anchors: int, *, rngs: nnx.Rngs, **options):
        super().__init__(num_spaces, num_anchors, rngs=rngs, **options)
        self.embed = _SpaceMLP(num_spaces, num_anchors, rngs=rngs)


AGGREGATIONS: dict[str, type[nnx.Module]] = {
    "concatenation": Concatenation,
    "sum": Sum,
    "mlp_sum": MLPSum,
    "mlp_self_attention": MLPSelfAttention,
    "weighted_average": WeightedAverage,
    "self_attention": SelfAttention,
}


def get(name: str | Callable[..., nnx.Module]) -> Callable[..., nnx.Module]:
    """The aggregation of that name, or the module class itself (or what makes a module like it).

    Args:
        name: one of `AGGREGATIONS`, or what is called as these are.

    Returns:
        What makes the module: `(num_spaces, num_anchors, *, rngs)`.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    return resolve("aggregation", name, AGGREGATIONS)
