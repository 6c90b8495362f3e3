"""Convolutional classifier, absolute or relative."""

from collections.abc import Sequence

import jax
from flax import nnx

from relrep_jax.checks import check_count
from relrep_jax.models.convolutional import ConvEncoder, ImageShape
from relrep_jax.models.representation import Reader, Representation


class Classifier(nnx.Module):
    """A plain convolutional network whose head reads an absolute or a relative space.

    `images -> encode -> latents -> represent -> space -> decode -> logits`.

    Args:
        image_shape: `(height, width, channels)`.
        num_classes: the number of logits.
        channels: hidden channels of the encoder, a stride-2 convolution each.
        latent_dim: width d of the latents.
        representation: what the head reads.
        num_anchors: the number m of anchors.

    Raises:
        ValueError: the channel list does not fit the image size; a latent dimension below 1.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        num_classes: int,
        channels: Sequence[int] = (32, 64),
        latent_dim: int = 128,
        representation: Representation,
        num_anchors: int,
        rngs: nnx.Rngs,
    ):
        check_count("latent_dim", latent_dim)
        self.representation = representation
        self.encoder = ConvEncoder(image_shape, channels, rngs=rngs)
        self.to_latent = nnx.Linear(self.encoder.out_features, latent_dim, rngs=rngs)
        self.reader = Reader(representation, latent_dim, num_anchors, rngs=rngs)
        self.head = nnx.Linear(self.reader.out_features, num_classes, rngs=rngs)

    def encode(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[n, h, w, c]` to latents `[n, d]` in (-1, 1)."""
        return jax.nn.tanh(self.to_latent(self.encoder(images, train=train)))

    def decode(self, space: jax.Array, *, train: bool = False) -> jax.Array:
        """A space `[n, d]` or `[s, n, m]` to logits `[n, classes]`."""
        del train
        return self.head(self.reader(space))
