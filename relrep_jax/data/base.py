"""What every loader of images hands back, and the error that every loader raises."""

import contextlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class DatasetError(ValueError):
    """A data set is missing, damaged or not in the expected layout; the message says what to do."""


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A training and a test part of labelled images, in the dtype they are stored in.

    Attributes:
        name: what to call the data set in tables.
        x_train: `[n, h, w, c]` images.
        y_train: `[n]` int32 class numbers in `0 .. num_classes - 1`.
        x_test: `[k, h, w, c]` images.
        y_test: `[k]` int32 class numbers.
        scale: what to divide images by so that they lie in `[0, 1]`.
        num_classes: the number of classes.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    scale: float
    num_classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(h, w, c)`."""
        h, w, c = self.x_train.shape[1:]
        return h, w, c


@contextlib.contextmanager
def opening(path: Path, hint: str = "") -> Iterator[None]:
    """Turn what the system says of a file that cannot be opened into a `DatasetError`.

    Args:
        path: the file.
        hint: how to write such a file, at the end of the message.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(
            f"No such file: {path} (from the folder {Path.cwd()}). Check the path. {hint}".rstrip()
        ) from error
    except IsADirectoryError as error:
        raise DatasetError(f"{path} is a folder; a file is wanted here.") from error
    except OSError as error:
        raise DatasetError(f"Cannot open {path}: {error}.") from error


def check_limit(name: str, part: str, limit: int | None, size: int) -> int:
    """How many rows to keep of `size`: all where `limit` is None.

    Raises:
        DatasetError: `limit` is not a whole number, is below 1 or is above `size`.
    """
    if limit is None:
        return size
    try:
        limit = operator.index(limit)
    except TypeError:
        raise DatasetError(f"{part}_limit must be a whole number or None, got {limit!r}.") from None
    if not 1 <= limit <= size:
        raise DatasetError(
            f"{part}_limit must lie in 1 .. {size}, the size of the {part} part of {name}, "
            f"got {limit}. Leave it out (None) to take every row."
        )
    return limit
