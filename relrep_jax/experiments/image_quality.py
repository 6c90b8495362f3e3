"""How good reconstructed images are: the scores that papers report beside the squared error."""

from collections.abc import Callable

import dm_pix
import jax
import jax.numpy as jnp

from relrep_jax.stitching import squared_error

__all__ = ["IMAGE_METRICS", "ergas", "psnr", "ssim"]

WINDOW = 11
"""Side of the structural similarity's Gaussian window (Wang et al. 2004)."""
PIXEL_RATIO = 1 / 4
"""High to low resolution in ERGAS (Wald 2000), as torchmetrics, which the papers used, has it."""
GREY_LEVEL = 1 / 255
MOST_DECIBELS = 100.0


def psnr(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, `[n, h, w, c] x 2 -> [n]`; values span [0, 1].

    Of an image that is met to rounding 100, so that means over images stay finite.
    """
    return jnp.minimum(dm_pix.psnr(prediction, target), MOST_DECIBELS)


def ssim(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Structural similarity, `[n, h, w, c] x 2 -> [n]` in [-1, 1]; values span [0, 1].

    A Gaussian window of 11 pixels and deviation 1.5, or of the largest odd size that a smaller
    image takes.

    Reference: Wang, Bovik, Sheikh and Simoncelli 2004, "Image quality assessment".
    """
    side = min(WINDOW, *target.shape[1:3])
    return dm_pix.ssim(prediction, target, filter_size=side - (side + 1) % 2)


def ergas(prediction: jax.Array, target: jax.Array) -> jax.Array:
    r"""Relative dimensionless global error in synthesis, `[n, h, w, c] x 2 -> [n]`, 0 at best.

    .. math:: 100 \, r \sqrt{\tfrac{1}{c} \sum_k \mathrm{mse}_k / \mu_k^2}

    with the mean :math:`\mu_k` of channel k of the target, of one grey level (1 / 255) at least,
    and the ratio of resolutions :math:`r` = 1 / 4.

    Reference: Wald 2000, "Quality of high resolution synthesised images: is there a simple
    criterion?".
    """
    errors = jax.vmap(squared_error, in_axes=-1, out_axes=-1)(prediction, target)
    means = jnp.maximum(jnp.mean(target, axis=(1, 2)), GREY_LEVEL)
    return 100 * PIXEL_RATIO * jnp.sqrt(jnp.mean(errors / means**2, axis=-1))


IMAGE_METRICS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "psnr": psnr,
    "ssim": ssim,
    "ergas": ergas,
}
"""Scores `(prediction, target) -> [n]` by name."""
