"""Reading an `.npz` file in the Keras layout, with every check that a stranger's file needs."""

import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from relrep_jax.data.base import DatasetError, ImageDataset, check_limit

KEYS = ("x_train", "y_train", "x_test", "y_test")
MAX_CLASSES = 2**16
_LAYOUT = (
    "Write it with np.savez(file, x_train=..., y_train=..., x_test=..., y_test=...): images "
    "[n, h, w] or [n, h, w, c], labels [n]."
)


def load_npz(
    path: str | os.PathLike, train_limit: int | None, test_limit: int | None
) -> ImageDataset:
    """The images and labels of an `.npz` file with `x_train`, `y_train`, `x_test`, `y_test`.

    `scale` is 1 where no value exceeds 1, else 255 where all values are whole numbers up to
    255, as images decoded from files are; anything else is refused rather than guessed.

    Raises:
        DatasetError: see `load_images`.
    """
    path = Path(path).expanduser()
    arrays = read_members(path, KEYS, _LAYOUT)
    x_train, x_test = (_check_images(path, key, arrays[key]) for key in ("x_train", "x_test"))
    y_train, y_test = (check_labels(path, key, arrays[key]) for key in ("y_train", "y_test"))
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        if len(x) != len(y):
            raise DatasetError(
                f"{path}: x_{part} has {len(x)} images but y_{part} has {len(y)} labels. "
                "Row i of both must be the same sample."
            )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DatasetError(
            f"{path}: training images are {x_train.shape[1:]} but test images are "
            f"{x_test.shape[1:]} (h, w, c). Bring them to one shape."
        )
    scale = _scale(path, {"x_train": x_train, "x_test": x_test})
    unseen = np.setdiff1d(y_test, y_train)
    if unseen.size:
        warnings.warn(
            f"{path}: {some(unseen)} in y_test never occur in y_train, so that no model "
            "trained on this file can predict them.",
            stacklevel=3,
        )
    n_train = check_limit(path.name, "train", train_limit, len(x_train))
    n_test = check_limit(path.name, "test", test_limit, len(x_test))
    return ImageDataset(
        name=path.stem,
        x_train=_first(x_train, n_train),
        y_train=_first(y_train, n_train),
        x_test=_first(x_test, n_test),
        y_test=_first(y_test, n_test),
        scale=scale,
        num_classes=int(max(y_train.max(), y_test.max())) + 1,
    )


def read_members(
    path: Path, keys: Sequence[str], layout: str, optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Arrays of an `.npz` file as they are stored, without ever unpickling.

    Args:
        path: the file.
        keys: what must be there.
        layout: how to write such a file, for the messages.
        optional: what may be there.

    Raises:
        DatasetError: no such file, a damaged one, a key that is missing or no plain array.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DatasetError(
                    f"{path} is not an .npz file, or it was cut short: it has no readable zip "
                    f"directory. Copy it again, or write it anew. {layout}"
                )
        with np.load(path, allow_pickle=False) as stored:
            missing = [key for key in keys if key not in stored]
            if missing:
                there = ", ".join(stored.files) or "nothing"
                raise DatasetError(
                    f"{path} lacks {', '.join(missing)}; there is: {there}. {layout}"
                )
            wanted = [*keys, *(key for key in optional if key in stored)]
            return {key: _member(path, stored, key, layout) for key in wanted}
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(
            f"No such file: {path} (from the folder {Path.cwd()}). Check the path. {layout}"
        ) from error
    except IsADirectoryError as error:
        raise DatasetError(f"{path} is a folder, not an .npz file.") from error
    except OSError as error:
        raise DatasetError(f"Cannot open {path}: {error}.") from error
    except Exception as error:  # damaged bytes raise what they like
        raise DatasetError(
            f"{path} is damaged: {error}. Copy it again, or write it anew. {layout}"
        ) from error


def _member(path: Path, stored: np.lib.npyio.NpzFile, key: str, layout: str) -> np.ndarray:
    try:
        array = stored[key]
    except MemoryError as error:
        raise DatasetError(
            f"{path}: {key} says that it is too large for this machine's memory ({error}). "
            "Store fewer rows, or write the file anew if it should not be."
        ) from error
    except Exception as error:  # damaged bytes raise what they like
        if isinstance(error, ValueError) and "allow_pickle" in str(error):
            raise DatasetError(
                f"{path}: {key} holds Python objects. These are stored as pickles, which can "
                "run any code when they are read, so they are refused. Store plain numbers: "
                f"np.stack(list({key})) has one shape and one dtype."
            ) from error
        raise DatasetError(
            f"{path}: {key} is damaged or cut short: {error}. Copy the file again, or write it "
            f"anew. {layout}"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path}: {key} is not a NumPy array. {layout}")
    return array


def _check_images(path: Path, key: str, x: np.ndarray) -> np.ndarray:
    """`x` as finite real images `[n, h, w, c]`, or an error that names the file and the key."""
    if x.dtype.kind not in "fiu":
        raise DatasetError(
            f"{path}: {key} must hold real numbers, got dtype {x.dtype}. Store uint8 images, or "
            "floats in [0, 1]."
        )
    # JAX knows neither foreign byte orders nor floats of more than 64 bits.
    x = x.astype(x.dtype.newbyteorder("=") if x.dtype.itemsize <= 8 else np.float64, copy=False)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4:
        raise DatasetError(
            f"{path}: {key} must have shape [n, h, w] or [n, h, w, c], got {x.shape}. "
            "Reshape flat images to their height and width."
        )
    if 0 in x.shape:
        raise DatasetError(f"{path}: {key} is empty: its shape is {x.shape}.")
    _, h, w, c = x.shape
    if h <= 4 < min(w, c):
        raise DatasetError(
            f"{path}: {key} has shape {x.shape}, which looks like channels first. Store it as "
            f"[n, h, w, c]: np.moveaxis({key}, 1, -1)."
        )
    if x.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2, 3)))
        if bad.size:
            raise DatasetError(
                f"{path}: {key} has NaN or infinite values in {bad.size} of {len(x)} images "
                f"(rows {some(bad)}). Remove or mend these rows first."
            )
    return x


def _scale(path: Path, parts: dict[str, np.ndarray]) -> float:
    """What to divide the images by, from the values of all parts together."""
    low = {key: x.min() for key, x in parts.items()}
    high = {key: x.max() for key, x in parts.items()}
    for key, value in low.items():
        if value < 0:
            raise DatasetError(
                f"{path}: {key} has negative values (lowest {value}); images must lie in [0, 1] or "
                f"hold whole numbers in 0 .. 255. If they are centred or standardised, rescale: "
                f"({key} - low) / (high - low) with one low and high for all parts."
            )
    top = max(high.values())
    if top <= 1:
        return 1.0
    for key, x in parts.items():
        whole = x.dtype.kind in "iu" or bool((x == np.floor(x)).all())
        if not whole and high[key] <= 1:
            bright = next(other for other in parts if high[other] == top)
            raise DatasetError(
                f"{path}: {key} lies in [0, 1], but {bright} has values up to {top}. All parts "
                "must have one scale: [0, 1], or whole numbers in 0 .. 255."
            )
        if not whole or high[key] > 255:
            raise DatasetError(
                f"{path}: {key} has values up to {high[key]}; images must lie in [0, 1] or hold "
                f"whole numbers in 0 .. 255. Divide every part by its largest possible value."
            )
    if top < 64:
        warnings.warn(
            f"{path}: no pixel is brighter than {top}. Images are taken to range over 0 .. 255 "
            "and will be divided by 255; if their range is smaller, store them as floats in "
            "[0, 1] instead.",
            stacklevel=4,
        )
    return 255.0


def check_labels(path: Path, key: str, y: np.ndarray) -> np.ndarray:
    """`y` as int32 class numbers `[n]`, or an error that names the file and the key."""
    if y.ndim == 2 and y.shape[1] == 1:  # as Keras stores CIFAR
        y = y[:, 0]
    if y.ndim != 1:
        hint = (
            f" One-hot labels become class numbers with {key}.argmax(axis=1)."
            if y.ndim == 2
            else ""
        )
        raise DatasetError(f"{path}: {key} must have shape [n] or [n, 1], got {y.shape}.{hint}")
    if y.size == 0:
        raise DatasetError(f"{path}: {key} is empty.")
    if y.dtype.kind not in "fiub":
        raise DatasetError(
            f"{path}: {key} must hold class numbers, got dtype {y.dtype}. "
            "np.unique(labels, return_inverse=True)[1] numbers classes by name."
        )
    if y.dtype.kind == "f":
        bad = np.flatnonzero(~(np.isfinite(y) & (y == np.floor(y))))
        if bad.size:
            raise DatasetError(
                f"{path}: {key} must hold whole numbers, but {bad.size} of {len(y)} are not "
                f"(rows {some(bad)}; the first is {y[bad[0]]})."
            )
    if y.min() < 0:
        bad = np.flatnonzero(y < 0)
        raise DatasetError(
            f"{path}: {key} has {bad.size} negative labels (rows {some(bad)}). Classes are "
            "numbered from 0; drop rows without a label."
        )
    if y.max() >= MAX_CLASSES:
        raise DatasetError(
            f"{path}: {key} has the label {y.max()}; labels are class numbers from 0, below "
            f"{MAX_CLASSES}. Renumber both parts together with np.unique(labels, "
            "return_inverse=True)[1]."
        )
    return y.astype(np.int32)


def _first(x: np.ndarray, count: int) -> np.ndarray:
    """The first rows as an array of their own, so that the rest can be freed."""
    return x if count == len(x) else x[:count].copy()


def some(values: np.ndarray) -> str:
    """The first few of `values`, for a message."""
    return ", ".join(map(str, values[:5].tolist())) + (", …" if len(values) > 5 else "")
