"""Convolutional halves: images to latents, and back.

Reference: Moschella et al. 2023 (arXiv 2209.15430), appendix: each hidden dimension is a
convolution with kernel 3, stride 2 and padding 1, batch normalisation and GELU; the decoder
mirrors it with transposed convolutions whose kernels are sized to land on the encoder's sizes.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from relrep_jax.models.convolution import Conv, ConvTranspose

ImageShape = tuple[int, int, int]

gelu = partial(jax.nn.gelu, approximate=False)


def feature_sizes(image_shape: Sequence[int], channels: Sequence[int]) -> list[tuple[int, int]]:
    """The height and width of the input and after each stride-2 convolution.

    Args:
        image_shape: `(height, width, channels)` of the input.
        channels: hidden channels, one convolution each.

    Raises:
        ValueError: an image shape that is not of rank 3, no channels or one below 1, or more
            convolutions than the image has halvings in it.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be (height, width, channels), got {image_shape}.")
    if not channels or not all(isinstance(c, int) and c >= 1 for c in channels):
        raise ValueError(f"channels must be a list of positive integers, got {tuple(channels)}.")
    sizes = [(image_shape[0], image_shape[1])]
    for index in range(len(channels)):
        height, width = sizes[-1]
        if index == 0 and min(height, width) < 2:
            raise ValueError(
                f"Images of {height}x{width} are too small: a convolution halves them, so that "
                "height and width must be at least 2."
            )
        if min(height, width) < 2:
            raise ValueError(
                f"The channel list {tuple(channels)} halves a {image_shape[0]}x{image_shape[1]} "
                f"image {len(channels)} times, but after {index} the size is {height}x{width} "
                f"already. Use at most {index} channels for images of this size."
            )
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


class ConvEncoder(nnx.Module):
    """Images `[n, h, w, c]` to flat features `[n, out_features]`.

    Args:
        image_shape: `(height, width, channels)`.
        channels: hidden channels, one convolution each.
        last_activation: whether the last convolution is followed by the activation, too.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        channels: Sequence[int],
        *,
        last_activation: bool = True,
        rngs: nnx.Rngs,
    ):
        sizes = feature_sizes(image_shape, channels)
        widths = (image_shape[2], *channels)
        self.convolutions = nnx.List(
            [
                # The normalisation that follows would take a bias away again.
                Conv(
                    before,
                    after,
                    kernel_size=3,
                    strides=2,
                    padding=1,
                    use_bias=False,
                    rngs=rngs,
                )
                for before, after in zip(widths[:-1], widths[1:], strict=True)
            ]
        )
        self.norms = nnx.List([nnx.BatchNorm(c, momentum=0.9, rngs=rngs) for c in channels])
        self.last_activation = last_activation
        self.out_features = math.prod(sizes[-1]) * channels[-1]

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = images
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = norm(convolution(x), use_running_average=not train)
            if self.last_activation or i + 1 < len(self.convolutions):
                x = gelu(x)
        return x.reshape(x.shape[0], -1)


class ConvDecoder(nnx.Module):
    """Flat codes `[n, in_features]` to images `[n, h, w, c]` in (0, 1)."""

    def __init__(
        self, in_features: int, image_shape: ImageShape, channels: Sequence[int], *, rngs: nnx.Rngs
    ):
        sizes = feature_sizes(image_shape, channels)[::-1]
        widths = (*reversed(channels), channels[0])
        self.first_shape = (*sizes[0], channels[-1])
        self.expand = nnx.Linear(in_features, math.prod(self.first_shape), rngs=rngs)
        self.convolutions = nnx.List(
            [
                ConvTranspose(
                    before,
                    after,
                    # (in - 1) * stride - 2 * padding + kernel = out
                    kernel_size=tuple(
                        out - (size - 1) * 2 + 2 for size, out in zip(small, large, strict=True)
                    ),
                    strides=2,
                    padding=1,
                    use_bias=False,
                    rngs=rngs,
                )
                for before, after, small, large in zip(
                    widths[:-1], widths[1:], sizes[:-1], sizes[1:], strict=True
                )
            ]
        )
        self.norms = nnx.List([nnx.BatchNorm(c, momentum=0.9, rngs=rngs) for c in widths[1:]])
        self.last = Conv(widths[-1], image_shape[2], kernel_size=3, strides=1, padding=1, rngs=rngs)

    def __call__(self, codes: jax.Array, *, train: bool) -> jax.Array:
        x = gelu(self.expand(codes)).reshape(-1, *self.first_shape)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = gelu(norm(convolution(x), use_running_average=not train))
        return jax.nn.sigmoid(self.last(x))
