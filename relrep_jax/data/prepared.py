"""Reading data sets that tfds has prepared, without TensorFlow and without a network."""

import contextlib
import io
import json
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from relrep_jax.data.base import DatasetError, ImageDataset, check_limit

OFFICIAL_CLASSES = {"mnist": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
READABLE_FORMATS = ("array_record", "parquet")
_CHUNK = 4096


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep tfds's progress bars, its printed notice and absl's log lines off the terminal."""
    import tensorflow_datasets as tfds
    from absl import logging
    from tensorflow_datasets.core.utils import tqdm_utils

    bars, verbosity = getattr(tqdm_utils, "_active", True), logging.get_verbosity()
    tfds.display_progress_bar(False)
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.display_progress_bar(bars)
        logging.set_verbosity(verbosity)


def data_root(data_dir: str | os.PathLike | None) -> Path:
    """`data_dir`, or tfds's own default (`TFDS_DATA_DIR`, else `~/tensorflow_datasets`)."""
    if data_dir is None:
        from tensorflow_datasets.core import constants

        data_dir = constants.DATA_DIR
    return Path(data_dir).expanduser().absolute()


def prepare_digits(data_dir: str | os.PathLike | None = None) -> Path:
    """Prepare the embedded digits unless they are there; return the folder that holds them.

    They are written in a folder of this process's own and moved into place at the end, so
    that of several processes that do this at once one wins, the others use what it wrote,
    and nobody sees a half-written data set.

    Raises:
        DatasetError: the data directory cannot be written to.
    """
    root = data_root(data_dir)
    with quiet():
        import tensorflow_datasets as tfds

        from relrep_jax.data.digits import Digits

        target = root / Digits.name / str(Digits.VERSION)
        if _is_prepared(target):
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="incomplete.", dir=target.parent) as own:
                builder = Digits(data_dir=own)
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
                try:
                    os.rename(builder.data_dir, target)
                except OSError:
                    if not _is_prepared(target):  # not merely that another process was first
                        raise
        except OSError as error:
            raise DatasetError(
                f"Cannot write the embedded digits to {target}: {error}. Give a writable "
                "directory with data_dir=..., or set the environment variable TFDS_DATA_DIR to one."
            ) from error
    return target


def load_digits(
    data_dir: str | os.PathLike | None, train_limit: int | None, test_limit: int | None
) -> ImageDataset:
    """The embedded digits in scikit-learn's order, prepared on first use."""
    folder = prepare_digits(data_dir)
    x_train, y_train = _read_split("digits", folder, "train", train_limit, order="index")
    x_test, y_test = _read_split("digits", folder, "test", test_limit, order="index")
    return ImageDataset("digits", x_train, y_train, x_test, y_test, scale=16.0, num_classes=10)


def load_official(
    name: str,
    data_dir: str | os.PathLike | None,
    train_limit: int | None,
    test_limit: int | None,
) -> ImageDataset:
    """One of tfds's own image data sets, read in stored order from where it was prepared."""
    folder = _find_prepared(name, data_root(data_dir))
    x_train, y_train = _read_split(name, folder, "train", train_limit)
    x_test, y_test = _read_split(name, folder, "test", test_limit)
    return ImageDataset(
        name, x_train, y_train, x_test, y_test, scale=255.0, num_classes=OFFICIAL_CLASSES[name]
    )


def _is_prepared(folder: Path) -> bool:
    try:
        return all((folder / file).is_file() for file in ("dataset_info.json", "features.json"))
    except OSError:  # it may not be looked into
        return False


def _find_prepared(name: str, root: Path) -> Path:
    """The folder of the newest version of `name` under `root` that can be read."""
    versions = {}
    for folder in (root / name).glob("*/"):
        numbers = folder.name.split(".")
        if all(map(str.isdecimal, numbers)) and _is_prepared(folder):
            versions[tuple(map(int, numbers))] = folder
    found = []
    for _, folder in sorted(versions.items(), reverse=True):
        stored = _stored_formats(folder)
        if not stored.isdisjoint(READABLE_FORMATS):
            return folder
        found.append(f"{folder} ({', '.join(sorted(stored))})")
    if found:
        raise DatasetError(
            f"{name} is prepared in {'; '.join(found)}, which only TensorFlow can read. "
            + how_to_prepare(name, root.parent / f"{root.name}_array_record")
        )
    raise DatasetError(
        f"{name} is not prepared: looked for {root / name / '<version>' / 'dataset_info.json'} "
        "and found none. " + how_to_prepare(name, root)
    )


def how_to_prepare(name: str, root: Path) -> str:
    """What to type to get `name` into `root` in a format that is read without TensorFlow."""
    code = (
        f'import tensorflow_datasets as tfds; tfds.builder("{name}", '
        f'data_dir={json.dumps(str(root), ensure_ascii=False)}, file_format="array_record")'
        ".download_and_prepare()"
    )
    return (
        "Nothing is downloaded from here. On a machine with internet and "
        "`pip install tensorflow tensorflow-datasets`, run\n\n"
        f"    python -c {shlex.quote(code)}\n\n"
        f"bring the folder {root / name} here, and load with data_dir={str(root)!r}. Or pass "
        "path= with an .npz file in the Keras layout (x_train, y_train, x_test, y_test)."
    )


def _stored_formats(folder: Path) -> set[str]:
    """The file formats that a prepared folder holds, tfrecord where it does not say."""
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        return {info.get("fileFormat") or "tfrecord", *info.get("alternativeFileFormats", [])}
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"Cannot read the data set prepared in {folder}: {type(error).__name__}: {error}. "
        "It may be damaged or a partial copy: delete that folder and prepare it again."
    )


def _read_split(
    name: str, folder: Path, split: str, limit: int | None, *, order: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The images and int32 labels of a split, in stored order or sorted by the feature `order`."""
    import tensorflow_datasets as tfds

    try:
        with quiet():
            source = tfds.builder_from_directory(str(folder)).as_data_source(split)
            size = len(source)
            keep = check_limit(name, split, limit, size)
            rows = size if order else keep  # to sort, all of them are needed
            images, labels, places = _read_rows(source, rows, order)
    except DatasetError:
        raise
    except Exception as error:
        raise _damaged(folder, error) from error
    if order:
        kept = np.argsort(places, kind="stable")[:keep]
        images, labels = images[kept], labels[kept]
    return images, labels


def _read_rows(
    source: Any, rows: int, order: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = np.empty(rows, np.int32)
    places = np.arange(rows)
    images = None
    for start in range(0, rows, _CHUNK):
        batch = source.__getitems__(list(range(start, min(start + _CHUNK, rows))))
        if images is None:
            first = batch[0]["image"]
            images = np.empty((rows, *first.shape), first.dtype)
        for i, row in enumerate(batch, start):
            images[i] = row["image"]
            labels[i] = row["label"]
            if order:
                places[i] = row[order]
    if images is None:
        raise ValueError("the split has no rows")
    return images, labels, places
