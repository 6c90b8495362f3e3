"""Convolutional autoencoder and variational autoencoder, absolute or relative."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from relrep_jax.models.convolutional import (
    ConvDecoder,
    ConvEncoder,
    ImageShape,
    gelu,
)
from relrep_jax.models.representation import Reader, Representation, represent


class Autoencoder(nnx.Module):
    """Convolutional autoencoder whose decoder reads an absolute or a relative space.

    `images -> encode -> latents -> represent -> space -> decode -> images`. Only the space
    crosses from one model's encoder to another's decoder.

    Args:
        image_shape: `(height, width, channels)`.
        channels: hidden channels of the encoder, a stride-2 convolution each.
        latent_dim: width d of the latents; 0 makes the flattened features the latents, which
            is what the paper's relative models do.
        representation: what the decoder reads.
        num_anchors: the number m of anchors.

    Raises:
        ValueError: the channel list does not fit the image size; negative latent dimension.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 4 and appendix.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        *,
        channels: Sequence[int] = (32, 64, 128, 256),
        latent_dim: int = 256,
        representation: Representation,
        num_anchors: int,
        rngs: nnx.Rngs,
    ):
        if latent_dim < 0:
            raise ValueError(f"latent_dim must be at least 0, got {latent_dim}.")
        self.representation = representation
        # A relative layer reads directions and distances: it gets the latents unbent.
        self.encoder = ConvEncoder(
            image_shape,
            channels,
            last_activation=bool(latent_dim) or representation.is_absolute,
            rngs=rngs,
        )
        features = self.encoder.out_features
        self.to_latent = nnx.Linear(features, latent_dim, rngs=rngs) if latent_dim else None
        self.latent_dim = latent_dim or features
        self.reader = Reader(representation, self.latent_dim, num_anchors, rngs=rngs)
        self.decoder = ConvDecoder(self.reader.out_features, image_shape, channels, rngs=rngs)

    def _latents(self, features: jax.Array) -> jax.Array:
        if self.to_latent is None:
            return features
        latents = self.to_latent(features)
        return gelu(latents) if self.representation.is_absolute else latents

    def encode(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[n, h, w, c]` to latents `[n, d]`."""
        return self._latents(self.encoder(images, train=train))

    def decode(self, space: jax.Array, *, train: bool = False) -> jax.Array:
        """A space `[n, d]` or `[s, n, m]` to images `[n, h, w, c]`."""
        return self.decoder(self.reader(space), train=train)

    def reconstruct(
        self, images: jax.Array, anchor_latents: jax.Array | None, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Images `[n, h, w, c]` to their reconstructions, and a divergence of zero.

        The signature is `VariationalAutoencoder`'s, so that one loss serves both.
        """
        del key
        latents = self.encode(images, train=train)
        space = represent(self.representation, latents, anchor_latents)
        return self.decode(space, train=train), jnp.zeros((), jnp.float32)


class VariationalAutoencoder(Autoencoder):
    """Convolutional variational autoencoder, absolute or relative.

    In the absolute form the encoder gives mean and log-variance, and the mean crosses between
    models. In the relative forms the space crosses and the decoder's side makes mean and
    log-variance of it, as in the paper. Arguments and errors as for `Autoencoder`.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 4 and appendix.
    """

    def __init__(self, image_shape: ImageShape, *, rngs: nnx.Rngs, **arguments):
        super().__init__(image_shape, rngs=rngs, **arguments)
        width = self.reader.out_features
        if self.representation.is_absolute:
            self.to_mean = None
            self.to_log_variance = nnx.Linear(self.encoder.out_features, width, rngs=rngs)
        else:
            self.to_mean = nnx.Linear(width, width, rngs=rngs)
            self.to_log_variance = nnx.Linear(width, width, rngs=rngs)

    def _latents(self, features: jax.Array) -> jax.Array:
        return features if self.to_latent is None else self.to_latent(features)

    def decode(self, space: jax.Array, *, train: bool = False) -> jax.Array:
        """A space `[n, d]` or `[s, n, m]` to images `[n, h, w, c]`, through the mean."""
        code = self.reader(space)
        return self.decoder(code if self.to_mean is None else self.to_mean(code), train=train)

    def reconstruct(
        self, images: jax.Array, anchor_latents: jax.Array | None, key: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Images `[n, h, w, c]` to their reconstructions from sampled codes (from the mean where
        `train` is false), and the mean over samples of the Kullback-Leibler divergence of the
        code from a standard normal variable, in nats."""
        features = self.encoder(images, train=train)
        code = self.reader(represent(self.representation, self._latents(features), anchor_latents))
        if self.to_mean is None:
            mean, log_variance = code, self.to_log_variance(features)
        else:
            mean, log_variance = self.to_mean(code), self.to_log_variance(code)
        divergence = 0.5 * jnp.sum(
            jnp.exp(log_variance) + jnp.square(mean) - 1.0 - log_variance, axis=-1
        )
        if train:
            noise = jax.random.normal(key, mean.shape, mean.dtype)
            code = mean + jnp.exp(0.5 * log_variance) * noise
        else:
            code = mean
        return self.decoder(code, train=train), jnp.mean(divergence)
