"""Where samples come from: images and graphs by name or from files; files of latents."""

from typing import Any

from relrep_jax.data.base import DatasetError, ImageDataset
from relrep_jax.data.graphs import GraphDataset, load_graph
from relrep_jax.data.images import load_images
from relrep_jax.data.latents import (
    LabelledLatents,
    LatentSpace,
    load_folder,
    load_indices,
    load_labelled,
    load_labels,
    load_latents,
    load_spaces,
    load_split,
)

__all__ = [
    "DatasetError",
    "Digits",
    "GraphDataset",
    "ImageDataset",
    "LabelledLatents",
    "LatentSpace",
    "load_folder",
    "load_graph",
    "load_images",
    "load_indices",
    "load_labelled",
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
