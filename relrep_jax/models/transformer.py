"""A small transformer that classifies texts, absolute or relative."""

import jax
import jax.numpy as jnp
from flax import nnx

from relrep_jax.models.representation import Reader, Representation

PAD = 0
"""The token that fills texts up to one length; nothing attends to it."""


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """`x` with a part of its entries set to 0 and the others scaled up; `x` where key is None."""
    if key is None or rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


class Block(nnx.Module):
    """Self-attention and two dense layers, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, width: int, num_heads: int, dropout_rate: float, *, rngs: nnx.Rngs):
        self.dropout_rate = dropout_rate
        self.norm_attention = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads, width, decode=False, rngs=rngs)
        self.norm_dense = nnx.LayerNorm(width, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.contract = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array, key: jax.Array | None) -> jax.Array:
        """`[n, length, width]` to the same; `mask [n, 1, 1, length]` says which tokens are real."""
        keys = (None, None) if key is None else jax.random.split(key)
        attended = self.attention(self.norm_attention(x), mask=mask)
        x = x + dropout(attended, self.dropout_rate, keys[0])
        dense = self.contract(jax.nn.gelu(self.expand(self.norm_dense(x))))
        return x + dropout(dense, self.dropout_rate, keys[1])


class TextClassifier(nnx.Module):
    """A transformer encoder whose head reads an absolute or a relative space.

    `tokens -> encode -> latents -> represent -> space -> decode -> logits`. Latents are the mean
    over the tokens of a text, after a last LayerNorm.

    Args:
        vocabulary_size: how many tokens there are; token 0 is padding.
        max_length: tokens of a text.
        num_classes: the number of logits.
        width: of token vectors, and of the latents.
        num_layers: blocks of self-attention.
        num_heads: attention heads of each; divides the width.
        dropout_rate: of each block, while training.
        representation: what the head reads.
        num_anchors: the number m of anchors.

    Raises:
        ValueError: a width that the heads do not divide.
    """

    def __init__(
        self,
        vocabulary_size: int,
        max_length: int,
        *,
        num_classes: int,
        width: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        dropout_rate: float = 0.1,
        representation: Representation,
        num_anchors: int,
        rngs: nnx.Rngs,
    ):
        if width % num_heads:
            raise ValueError(f"num_heads ({num_heads}) must divide the width ({width}).")
        self.representation = representation
        self.embed = nnx.Embed(vocabulary_size, width, rngs=rngs)
        self.positions = nnx.Embed(max_length, width, rngs=rngs)
        self.blocks = nnx.List(
            [Block(width, num_heads, dropout_rate, rngs=rngs) for _ in range(num_layers)]
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.reader = Reader(representation, width, num_anchors, rngs=rngs)
        self.head = nnx.Linear(self.reader.out_features, num_classes, rngs=rngs)

    def encode(self, tokens: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Tokens `[n, length]` to latents `[n, width]`; with a key, entries are dropped."""
        is_real = tokens != PAD
        x = self.embed(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        for block, block_key in zip(self.blocks, keys, strict=True):
            x = block(x, is_real[:, None, None, :], block_key)
        weights = is_real.astype(x.dtype)
        weights = weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1)
        return jnp.einsum("nl,nlw->nw", weights, self.norm(x))

    def decode(self, space: jax.Array) -> jax.Array:
        """A space `[n, d]` or `[s, n, m]` to logits `[n, classes]`."""
        return self.head(self.reader(space))
