"""Images as models take them: uint8 with three channels."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from relrep_jax.encoders.base import EncoderError


def as_rgb(images: Sequence[Any] | np.ndarray) -> Iterator[np.ndarray]:
    """Each image as uint8 `[h, w, 3]`.

    Args:
        images: `[n, h, w, c]`, `[n, h, w]` or a list of `[h, w, c]` or `[h, w]`: uint8, or floats
            in `[0, 1]`; one channel or three.

    Raises:
        EncoderError: an image has another shape, dtype or range.
    """
    for number, image in enumerate(images):
        image = np.asarray(image)
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim != 3 or image.shape[-1] not in (1, 3) or 0 in image.shape:
            raise EncoderError(
                f"Images must be [h, w, 3], [h, w, 1] or [h, w], got shape {image.shape} (image "
                f"{number} of a batch). Channels come last; drop a fourth one."
            )
        if image.dtype.kind == "f":
            if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
                raise EncoderError(
                    f"Images of floats must lie in [0, 1], got values from {image.min():.3g} to "
                    f"{image.max():.3g} (image {number} of a batch)."
                )
            image = np.round(image * 255).astype(np.uint8)
        elif image.dtype != np.uint8:
            raise EncoderError(
                f"Images must be uint8 or floats in [0, 1], got dtype {image.dtype} (image "
                f"{number} of a batch)."
            )
        yield np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
