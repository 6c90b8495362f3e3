"""Reading latents from files: NumPy, safetensors and Parquet, with a stranger's file in mind.

Arrays stay as they are stored and, where the format lets them, on the disk: they are mapped into
memory and read when they are used. Nothing that could run code is ever opened.
"""

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from relrep_jax.checks import lookup, validate_latents
from relrep_jax.data.base import DatasetError, opening

BESIDE = ("labels", "split")
"""Files and arrays of these names belong to latents but are none."""

TRAIN_PART, DEV_PART, TEST_PART = 0, 1, 2
"""What the numbers of a split mean."""

SPLIT_NAMES = {
    "train": 0,
    "training": 0,
    "dev": 1,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "test": 2,
}

_CHECKED_BYTES = 2**26
_NUMPY = 'Write latents with np.save("name.npy", latents): numbers [n, d], row i is sample i.'
_PICKLE = (
    "Python objects are stored as pickles, which can run any code when they are read, so they are "
    "refused. Store plain numbers: np.save(path, np.stack(list(latents)).astype(np.float32))."
)
_AGAIN = "Copy it again, or write it anew."
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
}


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """One space of latents.

    Attributes:
        name: what to call it in tables: the file's name without its ending.
        array: `[n, d]`, finite, in the dtype it is stored in; perhaps mapped into memory.
    """

    name: str
    array: np.ndarray


def load_latents(path: str | os.PathLike[str]) -> LatentSpace:
    """The latents of one file, `[n, d]`.

    Args:
        path: a `.npy` file; or an `.npz`, `.safetensors` or `.parquet` file that holds a single
            matrix, or of which one is named by `file.npz:key`. In Parquet a matrix is a column of
            lists of numbers of one length. `.npy` and `.safetensors` are mapped into memory.

    Returns:
        The space.

    Raises:
        DatasetError: the file is missing, empty, damaged, of an unknown kind or holds Python
            objects; several matrices and none is named; not a finite real matrix; a package that
            reads it is not installed. The message names the file and says what to do.
    """
    file, key = split_key(path)
    arrays = _arrays(file)
    if key is None:
        chosen = _matrices(file, arrays)
        if len(chosen) > 1:
            raise DatasetError(
                f"{file} holds {len(chosen)} arrays: {_some(sorted(chosen))}. Name one: "
                f"{file}:{sorted(chosen)[0]}"
            )
        key = next(iter(chosen))
        name = file.stem
    else:
        _known_key(file, key, arrays)
        name = key
    return LatentSpace(name, _checked(_label(file, key), arrays[key]()))


LAYOUT = (
    "A folder of latents has a file for each encoder, such as .npy of shape [n, d], and labels.npy "
    "and split.npy where classifiers are stitched."
)


def load_folder(
    folder: str | os.PathLike[str], leave_out: Sequence[str | os.PathLike[str]] = ()
) -> dict[str, np.ndarray]:
    """The latents of every file in a folder, by name: every file is a space.

    Files called `labels.*` or `split.*`, hidden ones and those of other kinds are left out.

    Args:
        folder: the folder, whose files are as for `load_latents`; a file that holds several
            matrices gives one space each, `file:key`.
        leave_out: files in the folder that are no latents, such as labels by another name.

    Returns:
        Arrays `[n, d_i]` in the order of the files' names.

    Raises:
        DatasetError: no such files, row counts that differ, and what `load_latents` raises.
    """
    home = check_folder(folder)
    others = {split_key(path)[0].resolve() for path in leave_out}
    files = [file for file in _files(home) if file.resolve() not in others]
    return {space.name: space.array for space in load_spaces(files)}


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """The path of a folder of latents.

    Raises:
        DatasetError: there is nothing there, or a file.
    """
    home = Path(folder)
    if not home.exists():
        raise DatasetError(
            f"No such folder: {home} (from the folder {Path.cwd()}). Check the path. {LAYOUT}"
        )
    if not home.is_dir():
        raise DatasetError(f"{home} is a file, not a folder of latents. {LAYOUT}")
    return home


def load_spaces(paths: Sequence[str | os.PathLike[str]]) -> list[LatentSpace]:
    """The latents of several files and folders, the same samples in all of them.

    Args:
        paths: files as for `load_latents` and folders as for `load_folder`; of a file with
            several matrices all are taken.

    Returns:
        The spaces in order, with different names: where two files have one name, with their
        folders; where that is one still, as of `a.npy` and `a.npz`, with their endings instead.

    Raises:
        DatasetError: row counts that differ, a file that is named twice, and what `load_latents`
            and `load_folder` raise.
    """
    found: list[tuple[Path, str | None, np.ndarray]] = []
    for path in paths:
        file, key = split_key(path)
        if key is not None:
            found.append((file, key, load_latents(path).array))
            continue
        for part in _files(file) if file.is_dir() else [file]:
            arrays = _arrays(part)
            keys = list(_matrices(part, arrays))
            several = len(keys) > 1
            for one in keys:
                array = _checked(_label(part, one), arrays[one]())
                found.append((part, one if several else None, array))
    names = _names([(file, key) for file, key, _ in found])
    rows = {name: array.shape[0] for name, (_, _, array) in zip(names, found, strict=True)}
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise DatasetError(
            f"Row i of every file must be the same sample, but row counts differ: {counts}. "
            "Leave out what does not belong, or index the rows that correspond first."
        )
    return [LatentSpace(name, array) for name, (_, _, array) in zip(names, found, strict=True)]


def load_indices(path: str | os.PathLike[str], *rows: int) -> np.ndarray:
    """Row numbers `[p]`, or pairs of them `[p, 2]`, from a file.

    Args:
        path: a `.npy` file of integers; or `.txt` or `.csv` with one integer a line, or two.
        rows: how many rows there are to choose from: one number, or one for each column of pairs.

    Returns:
        int64, counted from 0.

    Raises:
        DatasetError: the file cannot be read, does not hold row numbers, or some are out of range.
    """
    file = Path(path).expanduser()
    suffix = file.suffix.lower()
    if suffix == ".npy":
        indices = np.asarray(_numpy(file))
    elif suffix in (".txt", ".csv"):
        indices = _integers(file)
    else:
        raise DatasetError(
            f"{file}: row numbers are read from .npy (integers [p] or pairs [p, 2]), .txt or .csv "
            "(one integer a line), not from this kind of file."
        )
    if indices.dtype == bool:
        raise DatasetError(
            f"{file} holds True and False, not row numbers. np.flatnonzero(mask) gives them."
        )
    if indices.dtype.kind not in "iu":
        raise DatasetError(
            f"{file} must hold row numbers, got dtype {indices.dtype}. Save them as integers: "
            "np.save(path, indices.astype(np.int64))."
        )
    if indices.ndim not in (1, 2) or (indices.ndim == 2 and indices.shape[1] != 2):
        raise DatasetError(
            f"{file} must hold row numbers [p] or pairs of them [p, 2], got shape {indices.shape}."
        )
    if indices.size == 0:
        raise DatasetError(f"{file} is empty: it holds no row number.")
    columns = [indices] if indices.ndim == 1 else [indices[:, 0], indices[:, 1]]
    for place, column in enumerate(columns):
        limits = rows[place : place + 1] if indices.ndim == 2 and len(rows) > 1 else rows
        if limits and (column.min() < 0 or column.max() >= min(limits)):
            bad = np.flatnonzero((column < 0) | (column >= min(limits)))
            where = f" in column {place}" if indices.ndim == 2 else ""
            raise DatasetError(
                f"{file}: {bad.size} row numbers{where} are out of range, the first is "
                f"{column[bad[0]]}; rows are counted from 0 to {min(limits) - 1}."
            )
    return indices.astype(np.int64)


def load_labels(path: str | os.PathLike[str], rows: int | None = None) -> np.ndarray:
    """Class numbers `[n]` from a file.

    Args:
        path: `.npy`, `file.npz:key`, `file.parquet:column`, or `.txt` or `.csv` with one label a
            line. Names of classes are numbered in alphabetical order.
        rows: how many there must be.

    Returns:
        int32 `[n]`.

    Raises:
        DatasetError: the file cannot be read, or does not hold one label for each row.
    """
    file, labels = _vector(path, "label")
    if labels.dtype.kind in "US":
        labels = np.unique(labels, return_inverse=True)[1]
    labels = _whole_numbers(file, "labels", labels)
    return _as_many(file, "labels", labels, rows)


def load_split(path: str | os.PathLike[str], rows: int | None = None) -> np.ndarray:
    """Which part each sample belongs to: 0 for training, 1 for development, 2 for test.

    Args:
        path: as for `load_labels`; numbers 0, 1 and 2, or the names train, dev and test.
        rows: how many there must be.

    Returns:
        int32 `[n]`.

    Raises:
        DatasetError: the file cannot be read, or holds something else.
    """
    file, split = _vector(path, "part")
    if split.dtype.kind in "US":
        try:
            split = np.array(
                [lookup("part", str(name).strip().lower(), SPLIT_NAMES) for name in split]
            )
        except ValueError as error:
            raise DatasetError(f"{file}: {error}") from error
    split = _whole_numbers(file, "split", split)
    strange = np.setdiff1d(split, [0, 1, 2])
    if strange.size:
        raise DatasetError(
            f"{file}: a split holds 0 (training), 1 (development) and 2 (test), got also "
            f"{_some(strange.tolist())}."
        )
    return _as_many(file, "parts", split, rows)


@dataclass(frozen=True, eq=False)
class LabelledLatents:
    """The same labelled samples seen by several encoders.

    Attributes:
        name: what to call them.
        spaces: latents `[n, d_i]` by encoder.
        labels: `[n]`.
        split: `[n]`: 0 train, 1 dev, 2 test.
        source: where they come from, for messages.
    """

    name: str
    spaces: dict[str, np.ndarray]
    labels: np.ndarray
    split: np.ndarray
    source: str


def load_labelled(
    folder: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    split: str | os.PathLike[str] | None = None,
) -> LabelledLatents:
    """A folder of latents (see `load_folder`) with their labels and split.

    Args:
        folder: the folder.
        labels: file of the labels; `labels.npy` in the folder if left out.
        split: file of the split; `split.npy` in the folder if left out.

    Raises:
        DatasetError: what `load_folder`, `load_labels` and `load_split` raise.
    """
    home = Path(folder).expanduser()
    labels, split = labels or home / "labels.npy", split or home / "split.npy"
    spaces = load_folder(home, leave_out=(labels, split))
    rows = len(next(iter(spaces.values())))
    return LabelledLatents(
        name=home.resolve().name,
        spaces=spaces,
        labels=load_labels(labels, rows),
        split=load_split(split, rows),
        source=f"latents: {folder}, labels: {labels}, split: {split}",
    )


# --- Finding arrays ----------------------------------------------------------------------------


def split_key(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """`file.npz:key` as file and key."""
    file = Path(path).expanduser()
    head, found, key = str(file).rpartition(":")
    if found and not file.exists() and Path(head).suffix.lower() in _READERS:
        return Path(head), key
    return file, None


def _label(file: Path, key: str) -> str:
    return f"{file}:{key}" if key else str(file)


def _names(found: list[tuple[Path, str | None]]) -> list[str]:
    """Different names, as short as that lets them be; with the files' endings only if need be."""
    most = max((len(file.parts) for file, _ in found), default=0)
    for part, depth in product(("stem", "name"), range(1, 2 + most)):
        names = [
            "/".join((*file.parts[-depth:-1], getattr(file, part))) + (f":{key}" if key else "")
            for file, key in found
        ]
        if len(set(names)) == len(names):
            return names
    twice = next(name for name in names if names.count(name) > 1)
    raise DatasetError(f"{twice} is named twice. Name every file once.")


def _files(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and file.suffix.lower() in _READERS
        and file.stem not in BESIDE
        and not file.name.startswith(".")
    )
    if not files:
        raise DatasetError(
            f"There are no latents in the folder {folder}: it has no file that ends in "
            f"{', '.join(_READERS)} besides labels and split. {_NUMPY}"
        )
    return files


def _arrays(file: Path) -> dict[str, Callable[[], np.ndarray]]:
    """What reads each array of a file, by key; that of a `.npy` file is the empty string."""
    if file.is_dir():
        raise DatasetError(f"{file} is a folder; one file of latents is wanted here.")
    if not file.exists():
        raise DatasetError(f"No such file: {file} (from the folder {Path.cwd()}). Check the path.")
    suffix = file.suffix.lower()
    if suffix not in _READERS:
        raise DatasetError(
            f"{file}: latents are read from {', '.join(_READERS)}, not from "
            f"{suffix or 'files without an ending'}. {_NUMPY}"
        )
    try:
        if file.stat().st_size == 0:
            raise DatasetError(f"{file} is empty: it has no bytes. {_AGAIN}")
        return _READERS[suffix](file)
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"Cannot open {file}: {error}.") from error


def _matrices(file: Path, arrays: dict[str, Any]) -> dict[str, Any]:
    chosen = {key: read for key, read in arrays.items() if key not in BESIDE}
    if not chosen:
        there = f"only {_some(sorted(arrays))}" if arrays else "no array"
        raise DatasetError(f"{file} holds {there}, no latents. {_NUMPY}")
    return chosen


def _known_key(file: Path, key: str, arrays: dict[str, Any]) -> None:
    try:
        lookup("array", key, arrays)
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error


def _checked(name: str, array: np.ndarray) -> np.ndarray:
    """`array` if it is a finite real matrix that float32 can hold."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    try:
        if array.ndim != 2 or 0 in array.shape or not _is_real(array.dtype):
            validate_latents(array, name)
        step = max(1, _CHECKED_BYTES // (4 * array.shape[1]))
        for start in range(0, array.shape[0], step):
            block = array[start : start + step]
            with np.errstate(over="ignore"):
                narrow = block.astype(np.float32)
            if not np.isfinite(narrow).all():
                validate_latents(array, name)
                bad = start + int(np.flatnonzero(~np.isfinite(narrow).all(axis=1))[0])
                raise DatasetError(
                    f"{name} has values in row {bad} that float32, in which everything is "
                    "computed, cannot hold. Scale the latents down."
                )
    except DatasetError:
        raise
    except ValueError as error:
        hint = " Latents have one row a sample and one column a feature."
        raise DatasetError(f"{error}{hint if array.ndim != 2 else ''}") from error
    return array


def _is_real(dtype: np.dtype) -> bool:
    return dtype.kind in "fiu" or dtype == ml_dtypes.bfloat16


# --- Kinds of files ----------------------------------------------------------------------------


def _numpy(file: Path) -> np.ndarray:
    """The array of a `.npy` file, mapped into memory."""
    with opening(file), file.open("rb") as stream:
        start = stream.read(6)
    if not start:
        raise DatasetError(f"{file} is empty: it has no bytes. {_AGAIN}")
    if start[:4] == b"PK\x03\x04":
        raise DatasetError(f"{file} is an .npz archive by its content. Rename it to end in .npz.")
    if start != b"\x93NUMPY":
        if start[:1] == b"\x80":
            raise DatasetError(f"{file} is a pickle, not an .npy file. {_PICKLE}")
        raise DatasetError(f"{file} is not an .npy file. {_NUMPY}")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged bytes raise what they like
        if "Python objects" in str(error) or "allow_pickle" in str(error):
            raise DatasetError(f"{file} holds Python objects. {_PICKLE}") from error
        if "empty file" in str(error):  # no rows or no columns cannot be mapped
            return np.load(file, allow_pickle=False)
        raise DatasetError(f"{file} is damaged or cut short: {error}. {_AGAIN}") from error


def _open_numpy(file: Path) -> dict[str, Callable[[], np.ndarray]]:
    array = _numpy(file)
    return {"": lambda: array}


def _open_npz(file: Path) -> dict[str, Callable[[], np.ndarray]]:
    if not zipfile.is_zipfile(file):
        raise DatasetError(
            f"{file} is not an .npz file, or it was cut short: it has no readable zip directory. "
            f"{_AGAIN}"
        )
    try:
        with np.load(file, allow_pickle=False) as stored:
            keys = list(stored.files)
    except Exception as error:  # damaged bytes raise what they like
        raise DatasetError(f"{file} is damaged: {error}. {_AGAIN}") from error
    return {key: partial(_npz_member, file, key) for key in keys}


def _npz_member(file: Path, key: str) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as stored:
            array = stored[key]
    except MemoryError as error:
        raise DatasetError(
            f"{file}:{key} is too large for this machine's memory ({error}). Save it as .npy, "
            "which is read from the disk as it is needed."
        ) from error
    except Exception as error:  # damaged bytes raise what they like
        if "allow_pickle" in str(error):
            raise DatasetError(f"{file}:{key} holds Python objects. {_PICKLE}") from error
        raise DatasetError(f"{file}:{key} is damaged or cut short: {error}. {_AGAIN}") from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{file}:{key} is not a NumPy array. {_NUMPY}")
    return array


def _open_safetensors(file: Path) -> dict[str, Callable[[], np.ndarray]]:
    safetensors = _import("safetensors", file)
    try:
        # The package checks the header against the file; then the arrays can be mapped.
        with safetensors.safe_open(str(file), framework="numpy"):
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except OSError:
        raise
    except Exception as error:  # its errors have no class in common
        raise DatasetError(
            f"{file} is not a safetensors file, or it was cut short: {error}. {_AGAIN}"
        ) from error
    header.pop("__metadata__", None)
    return {
        key: partial(_mapped, file, key, entry, 8 + length) for key, entry in sorted(header.items())
    }


def _mapped(file: Path, key: str, entry: dict[str, Any], start: int) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise DatasetError(
            f"{file}:{key} has dtype {entry['dtype']}; known: {', '.join(_DTYPES)}. Save it as "
            "one of these."
        )
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if 0 in shape or not shape:
        return np.empty(shape, dtype)
    offset = start + entry["data_offsets"][0]
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)


def _open_parquet(file: Path) -> dict[str, Callable[[], np.ndarray]]:
    parquet, arrow = _import("pyarrow.parquet", file), _import("pyarrow", file)
    try:
        schema = parquet.read_schema(file)
    except Exception as error:  # its errors have no class in common
        raise DatasetError(
            f"{file} is not a Parquet file, or it was cut short: {error}. {_AGAIN}"
        ) from error
    types = arrow.types
    lists = {
        field.name: partial(_parquet_column, file, field.name)
        for field in schema
        if types.is_list(field.type)
        or types.is_large_list(field.type)
        or types.is_fixed_size_list(field.type)
    }
    if not lists:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
        raise DatasetError(
            f"{file} has no column of lists, one vector a row; its columns are: {columns}. Store "
            "each sample's latent as one list of numbers."
        )
    return lists


def _parquet_column(file: Path, name: str) -> np.ndarray:
    """A column of lists of one length as a matrix."""
    arrow, parquet = _import("pyarrow", file), _import("pyarrow.parquet", file)
    where = f"{file}:{name}"
    try:
        column = parquet.read_table(file, columns=[name], memory_map=True).column(0)
        column = column.combine_chunks()
        if isinstance(column, arrow.ChunkedArray):
            column = arrow.concat_arrays(column.chunks)
    except Exception as error:
        raise DatasetError(f"{where} is damaged or cut short: {error}. {_AGAIN}") from error
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DatasetError(
            f"{where} has {column.null_count} rows without a value (null), the first is row {row}. "
            "Remove these rows from every file, or fill them."
        )
    if len(column) == 0:
        raise DatasetError(f"{where} is empty: it has no rows.")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    if (lengths != lengths[0]).any():
        row = int(np.flatnonzero(lengths != lengths[0])[0])
        raise DatasetError(
            f"{where} is ragged: row 0 has {lengths[0]} values, row {row} has {lengths[row]}. "
            "Every row needs as many: pool over tokens first, for instance."
        )
    values = column.flatten()
    kind = values.type
    if not (arrow.types.is_floating(kind) or arrow.types.is_integer(kind)):
        raise DatasetError(f"{where} holds lists of {kind}, not of numbers.")
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise DatasetError(
            f"{where} has {values.null_count} missing values (null), the first in row "
            f"{row // int(lengths[0])}. Remove or fill these rows."
        )
    return values.to_numpy(zero_copy_only=False).reshape(len(column), int(lengths[0]))


_READERS: dict[str, Callable[[Path], dict[str, Callable[[], np.ndarray]]]] = {
    ".npy": _open_numpy,
    ".npz": _open_npz,
    ".safetensors": _open_safetensors,
    ".parquet": _open_parquet,
}


def _import(name: str, file: Path) -> Any:
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        raise DatasetError(
            f"{file} needs the package {name.split('.')[0]} to be read, which is not installed: "
            'pip install "relrep_jax[files]".'
        ) from error


# --- Vectors -----------------------------------------------------------------------------------


def _lines(file: Path) -> list[str]:
    try:
        with opening(file):
            text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not a text file in UTF-8: {error}.") from error
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _integers(file: Path) -> np.ndarray:
    rows = []
    for number, line in enumerate(_lines(file), 1):
        try:
            rows.append([int(word) for word in line.replace(",", " ").split()])
        except ValueError:
            raise DatasetError(
                f"{file}: {line!r} (entry {number}) is not a row number. Write one integer a "
                "line, or two for pairs, without a heading."
            ) from None
    if len({len(row) for row in rows}) > 1:
        raise DatasetError(f"{file}: some lines have one number and some have more.")
    try:
        array = np.array(rows, np.int64)
    except OverflowError:
        raise DatasetError(f"{file} holds a number that is too large for a row number.") from None
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _vector(path: str | os.PathLike[str], what: str) -> tuple[Path, np.ndarray]:
    file, key = split_key(path)
    suffix = file.suffix.lower()
    if suffix in (".txt", ".csv"):
        words = _lines(file)
        try:
            return file, np.array([int(word) for word in words], np.int64)
        except OverflowError:
            raise DatasetError(f"{file} holds a number that is too large for a {what}.") from None
        except ValueError:
            return file, np.array(words)
    if suffix == ".npy":
        array = np.asarray(_numpy(file))
    elif suffix == ".npz":
        arrays = _arrays(file)
        key = key or ("split" if what == "part" else "labels")
        _known_key(file, key, arrays)
        array = arrays[key]()
    elif suffix == ".parquet" and key is not None:
        parquet = _import("pyarrow.parquet", file)
        try:
            column = parquet.read_table(file, columns=[key]).column(0)
        except Exception as error:  # its errors have no class in common
            raise DatasetError(f"{file}:{key} cannot be read: {error}.") from error
        if column.null_count:
            raise DatasetError(f"{file}:{key} has {column.null_count} rows without a value (null).")
        array = np.asarray(column.to_pylist())
    else:
        raise DatasetError(
            f"{file}: one {what} for each row is read from .npy, .npz, .txt, .csv (one a line) or "
            "file.parquet:column, not from this."
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or not array.size:
        raise DatasetError(
            f"{file} must hold one {what} for each row, [n], got shape {array.shape}."
        )
    return file, array


def _whole_numbers(file: Path, what: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise DatasetError(f"{file} must hold {what} as integers, got dtype {array.dtype}.")
    bad = np.flatnonzero(~(np.isfinite(array) & (array == np.floor(array))))
    if bad.size:
        raise DatasetError(
            f"{file} must hold whole numbers, but row {bad[0]} holds {array[bad[0]]}."
        )
    if abs(array.astype(np.float64)).max(initial=0) >= 2**31:
        raise DatasetError(f"{file} has numbers of 2^31 or more, too large for {what}.")
    return array.astype(np.int32)


def _as_many(file: Path, what: str, array: np.ndarray, rows: int | None) -> np.ndarray:
    if array.size == 0:
        raise DatasetError(f"{file} is empty.")
    if rows is not None and len(array) != rows:
        raise DatasetError(
            f"{file} has {len(array)} {what} but there are {rows} rows of latents. Row i of both "
            "must be the same sample."
        )
    return array


def _some(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values[:5])) + (", …" if len(values) > 5 else "")
