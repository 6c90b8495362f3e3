"""Several encoders of the embedded digits: latents that need no file and no trained model."""

from collections.abc import Callable

import numpy as np
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter, rotate

from relrep_jax.data.images import load_images
from relrep_jax.data.latents import TEST_PART, TRAIN_PART, LabelledLatents

SIDE = 8


def _pixels(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    del train
    return images.reshape(len(images), -1)


def _frequencies(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Cosine transform of the square roots of grey levels."""
    del train
    return dctn(np.sqrt(images), axes=(1, 2), norm="ortho").reshape(len(images), -1)


def _gradients(images: np.ndarray, train: np.ndarray, bins: int = 6) -> np.ndarray:
    """Histograms of the orientations of gradients in cells of 2x2 pixels."""
    del train
    down, right = np.gradient(images, axis=(1, 2))
    strength = np.hypot(down, right)
    part = ((np.arctan2(down, right) % np.pi) / np.pi * bins).astype(int) % bins
    histogram = strength[..., None] * (part[..., None] == np.arange(bins))
    cells = histogram.reshape(len(images), SIDE // 2, 2, SIDE // 2, 2, bins).sum(axis=(2, 4))
    return np.sqrt(cells).reshape(len(images), -1)


def _whitened(images: np.ndarray, train: np.ndarray, width: int = 24) -> np.ndarray:
    """Whitened principal components, turned at random."""
    x = _pixels(images, train)
    mean = x[train].mean(axis=0)
    _, scales, axes = np.linalg.svd(x[train] - mean, full_matrices=False)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))
    white = (x - mean) @ axes[:width].T / scales[:width] * np.sqrt(len(train))
    return white @ turn


def _random_features(images: np.ndarray, train: np.ndarray, width: int = 128) -> np.ndarray:
    """Rectified random projections."""
    x = _pixels(images, train)
    weights = np.random.default_rng(1).standard_normal((x.shape[1], width))
    return np.maximum((x - x[train].mean(axis=0)) @ weights, 0.0)


VIEWS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pixels": _pixels,
    "frequencies": _frequencies,
    "gradients": _gradients,
    "whitened": _whitened,
    "random_features": _random_features,
}
"""Encoders `(images [n, 8, 8] in 0 .. 1, training rows) -> latents [n, d]` by name."""

LOOKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda images: images,
    "turned": lambda images: np.clip(rotate(images, 30, axes=(2, 1), reshape=False, order=1), 0, 1),
    "blurred": lambda images: gaussian_filter(images, (0, 0.8, 0.8)),
}
"""Ways to show the same digits `[n, 8, 8] -> [n, 8, 8]`: what languages are to a text."""


def digit_views(*views: str, looks: tuple[str, ...] = ("plain",)) -> LabelledLatents:
    """Latents of the embedded digits by encoders that have no axis in common.

    Args:
        *views: names of `VIEWS`; all of them if left out.
        looks: names of `LOOKS`. Of more than one, a space is called `view__look`.

    Returns:
        The latents, float32, training rows first.
    """
    digits = load_images("digits")
    images = np.concatenate([digits.x_train, digits.x_test]).reshape(-1, SIDE, SIDE)
    images = images.astype(np.float32) / digits.scale
    train = np.arange(len(digits.x_train))
    spaces = {
        view if len(looks) == 1 else f"{view}__{look}": np.asarray(
            VIEWS[view](LOOKS[look](images), train), np.float32
        )
        for view in views or VIEWS
        for look in looks
    }
    return LabelledLatents(
        name="the embedded digits",
        spaces=spaces,
        labels=np.concatenate([digits.y_train, digits.y_test]).astype(np.int32),
        split=np.where(np.arange(len(images)) < len(train), TRAIN_PART, TEST_PART).astype(np.int32),
        source="the digits of scikit-learn",
    )
