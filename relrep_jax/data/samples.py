"""Texts and images from files, with their labels and split where these are there."""

import contextlib
import csv
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relrep_jax.checks import lookup
from relrep_jax.data.base import DatasetError, opening
from relrep_jax.data.latents import SPLIT_NAMES
from relrep_jax.data.npz import load_npz

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


class _TabSeparated(csv.excel_tab):
    quoting = csv.QUOTE_NONE  # a quotation mark in a text is one, and may stand alone


_TABLES = {".tsv": _TabSeparated, ".csv": csv.excel}
_COLUMNS = {"text": ("text", "sentence"), "label": ("label", "labels"), "split": ("split",)}
_FILES = (
    "Samples are read from .txt (a text a line), .tsv and .csv (with a heading; also .gz), .npz "
    "(images: x_train, y_train, x_test, y_test) or a folder of image files"
)


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples in order, and what is known of each.

    Attributes:
        kind: `"text"` or `"images"`.
        values: `n` texts; images `[n, h, w, c]` uint8; or `ImageFiles`.
        labels: int32 `[n]` class numbers, or None.
        classes: the names of the classes by number; empty where they are numbers from the start.
        split: int32 `[n]`: 0 for training, 1 for development, 2 for test; or None.
    """

    kind: str
    values: Any
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    split: np.ndarray | None = None


class ImageFiles:
    """Images in files, decoded when they are sliced."""

    def __init__(self, paths: list[Path]) -> None:
        from PIL import Image

        self.paths = paths
        for path in paths:
            with _decoding(path), Image.open(path) as image:
                if image.mode == "F":
                    raise DatasetError(
                        f"{path} holds floating-point numbers, of which no one knows which is "
                        "white. Store it with 8 or 16 bits."
                    )
                image.verify()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: slice) -> list[np.ndarray]:
        """uint8 `[h, w, 3]` for each, turned as the camera was held, on white where transparent."""
        from PIL import Image

        found = []
        for path in self.paths[rows]:
            with _decoding(path), Image.open(path) as image:
                found.append(_rgb(image))
        return found

    def fingerprint(self) -> str:
        """A SHA-256 hash of the files' bytes, in order."""
        found = hashlib.sha256()
        for path in self.paths:
            with opening(path), path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()


def _rgb(image: Any) -> np.ndarray:
    """uint8 `[h, w, 3]` of an image of Pillow's."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # one channel of 16 bits, which Pillow would cut off at 255
        grey = np.asarray(image).astype(np.float64)
        bits = 16 if image.mode != "I" or grey.max() > 255 else 8
        if grey.min() < 0 or grey.max() >= 2**bits:
            raise ValueError(f"its values, {grey.min():.0f} to {grey.max():.0f}, exceed 16 bits")
        grey = np.round(grey * (255 / (2**bits - 1))).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        yield
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes raise what they like
        raise DatasetError(
            f"{path} is no image that can be read: {error}. Copy it again, or take it out of the "
            "folder."
        ) from error


def load_samples(
    path: str | os.PathLike[str],
    *,
    column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
) -> Samples:
    """The samples of a file or folder.

    Args:
        path: `.txt`, one text a line; `.tsv` or `.csv` with a heading, perhaps compressed
            (`.tsv.gz`), in `.tsv` without quoting; `.npz` in the Keras layout; or a folder of image
            files, in the order of their names, where folders inside it are classes.
        column: of texts; default: `text` or `sentence`, or the only one.
        label_column: default: `label` or `labels`, if there is one.
        split_column: of `train`, `dev` and `test`, or 0, 1 and 2; default: `split`, if there is
            one.

    Returns:
        The samples.

    Raises:
        DatasetError: the file is missing, damaged or of an unknown kind; no such column; empty
            texts; images that cannot be read. The message names the file and says what to do.
    """
    file = Path(path).expanduser()
    name = file.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix in _TABLES and not file.is_dir():
        return _table(file, _TABLES[suffix], column, label_column, split_column)
    for option, given in (
        ("a column of texts", column),
        ("a column of labels", label_column),
        ("a column of parts", split_column),
    ):
        if given is not None:
            raise DatasetError(f"{file} has no columns, so {option} ({given!r}) cannot be chosen.")
    if file.is_dir():
        return _image_folder(file)
    if suffix == ".txt":
        texts = _read_text(file).split("\n")
        texts = [line.removesuffix("\r") for line in (texts[:-1] if texts[-1] == "" else texts)]
        return Samples("text", _full(file, texts, 1))
    if suffix == ".npz":
        return _npz(file)
    if not file.exists():
        with opening(file, _FILES + "."):
            file.open("rb").close()
    raise DatasetError(f"{_FILES}, not from {file}.")


def _read_text(file: Path) -> str:
    try:
        with opening(file, _FILES + "."):
            data = file.read_bytes()
            if file.suffix.lower() == ".gz":
                data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (EOFError, zlib.error) as error:
        raise DatasetError(f"{file} is damaged or cut short: {error}. Copy it again.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not a text file in UTF-8: {error}.") from error


def _full(file: Path, texts: list[str], first_line: int) -> list[str]:
    """The texts, if there are any and none is blank."""
    if not texts:
        raise DatasetError(f"{file} is empty: it holds no text.")
    blank = [number for number, text in enumerate(texts, first_line) if not text.strip()]
    if blank:
        raise DatasetError(
            f"{file} has {len(blank)} empty texts, the first is entry {blank[0]}. Remove these "
            "rows, from labels too."
        )
    return texts


def _table(
    file: Path,
    dialect: type[csv.Dialect],
    column: str | None,
    label_column: str | None,
    split_column: str | None,
) -> Samples:
    text = _read_text(file)
    limit = csv.field_size_limit(max(1, len(text)))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), dialect, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{file} is not a table: {error}.") from error
    finally:
        csv.field_size_limit(limit)
    if not rows or not rows[0]:
        raise DatasetError(f"{file} is empty: it has no heading.")
    heading, rows = rows[0], [row for row in rows[1:] if row]
    for number, row in enumerate(rows, 1):
        if len(row) != len(heading):
            raise DatasetError(
                f"{file}: the heading has {len(heading)} columns but entry {number} below it has "
                f"{len(row)}."
            )
    at = {
        what: _place(file, heading, what, given)
        for what, given in (("text", column), ("label", label_column), ("split", split_column))
    }
    if at["text"] is None:
        raise DatasetError(
            f"{file} has the columns {', '.join(heading)}. Name the one of texts (column, "
            f"--column), such as {_likely_text(heading)}."
        )
    columns = {
        what: None if place is None else [row[place] for row in rows] for what, place in at.items()
    }
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    if columns["label"] is not None:
        words = [word.strip() for word in columns["label"]]
        blank = [number for number, word in enumerate(words, 1) if not word]
        if blank:
            raise DatasetError(
                f"{file} has {len(blank)} empty labels, the first is that of entry {blank[0]}. "
                "Fill these in, or remove the rows."
            )
        labels, classes = _classes(words)
    split = None if columns["split"] is None else _split(file, columns["split"])
    return Samples("text", _full(file, columns["text"] or [], 1), labels, classes, split)


def _likely_text(heading: list[str]) -> str:
    """A column that may well hold texts."""
    other = {"id", "index", *_COLUMNS["label"], *_COLUMNS["split"]}
    return next((name for name in heading if name.strip().lower() not in other), heading[0])


def columns_of(path: str | os.PathLike[str]) -> list[str]:
    """The heading of a table that `load_samples` can read."""
    file = Path(path).expanduser()
    dialect = _TABLES[Path(file.name.lower().removesuffix(".gz")).suffix]
    return next(csv.reader(io.StringIO(_read_text(file), newline=""), dialect))


def _place(file: Path, heading: list[str], what: str, given: str | None) -> int | None:
    """Which column to take, if any."""
    if given is not None:
        try:
            lookup("column", given, dict.fromkeys(heading))
        except ValueError as error:
            raise DatasetError(f"{file}: {error}") from error
        return heading.index(given)
    if what == "text" and len(heading) == 1:
        return 0
    return next((heading.index(name) for name in _COLUMNS[what] if name in heading), None)


def _classes(words: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class numbers, and the names of classes in alphabetical order unless they are numbers."""
    try:
        numbers = [int(word) for word in words]
        # Words such as 01 and 1 are different names, though one number.
        if list(map(str, numbers)) != list(words):
            raise ValueError
        return np.array(numbers, np.int32), ()
    except (ValueError, OverflowError):
        names, labels = np.unique(np.array(words), return_inverse=True)
        return labels.astype(np.int32), tuple(names.tolist())


def _split(file: Path, words: list[str]) -> np.ndarray:
    known = SPLIT_NAMES | {"0": 0, "1": 1, "2": 2}
    try:
        numbers = {word: lookup("part", word.strip().lower(), known) for word in set(words)}
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error
    return np.array([numbers[word] for word in words], np.int32)


def _npz(file: Path) -> Samples:
    data = load_npz(file, None, None)
    images = np.concatenate([data.x_train, data.x_test])
    if images.shape[-1] not in (1, 3):
        raise DatasetError(
            f"{file}: images must have one channel or three, got shape {images.shape} [n, h, w, c]."
        )
    if images.dtype != np.uint8 or data.scale == 1:
        images = np.round(images * (255 / data.scale)).astype(np.uint8)
    return Samples(
        "images",
        images,
        np.concatenate([data.y_train, data.y_test]),
        (),
        np.repeat(np.array([0, 2], np.int32), [len(data.x_train), len(data.x_test)]),
    )


def _image_folder(folder: Path) -> Samples:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise DatasetError(
            f"There are no images in the folder {folder}: it has no file that ends in "
            f"{', '.join(IMAGES)}."
        )
    if any(path.parent == folder for path in paths):
        return Samples("images", ImageFiles(paths))
    labels, classes = _classes([path.relative_to(folder).parts[0] for path in paths])
    return Samples("images", ImageFiles(paths), labels, classes)
