"""Where samples come from: digits, prepared tfds data sets, `.npz` files; files of latents."""

from typing import Any

from relrep_jax.data.base import DatasetError, ImageDataset
from relrep_jax.data.images import load_images
from relrep_jax.data.latents import (
    LatentSpace,
    load_folder,
    load_indices,
    load_labels,
    load_latents,
    load_spaces,
    load_split,
)

__all__ = [
    "DatasetError",
    "Digits",
    "ImageDataset",
    "LatentSpace",
    "load_folder",
    "load_images",
    "load_indices",
    "load_labels",
    "load_latents",
    "load_spaces",
    "load_split",
]


def __getattr__(name: str) -> Any:
    """`Digits` on first use: its base class is tfds's, which is not loaded before."""
    if name == "Digits":
        from relrep_jax.data.digits import Digits

        return Digits
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
