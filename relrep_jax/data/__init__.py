"""Where samples come from: the embedded digits, prepared tfds data sets, `.npz` files."""

from typing import Any

from relrep_jax.data.base import DatasetError, ImageDataset
from relrep_jax.data.images import load_images

__all__ = ["DatasetError", "Digits", "ImageDataset", "load_images"]


def __getattr__(name: str) -> Any:
    """`Digits` on first use: its base class is tfds's, which is not loaded before."""
    if name == "Digits":
        from relrep_jax.data.digits import Digits

        return Digits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
