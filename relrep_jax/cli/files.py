"""Outputs of the commands: never by accident, whole or not at all."""

import argparse
import contextlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from relrep_jax._files import atomic_open, temporary_beside

ARRAY_KINDS = (".npy", ".npz", ".safetensors")

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
}


def add_output(parser: argparse.ArgumentParser, what: str, **options: Any) -> None:
    """The arguments `-o` and `--force`."""
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help=what, **options)
    parser.add_argument("--force", action="store_true", help="replace what is there")


def refuse_to_overwrite(paths: Sequence[Path], *, force: bool) -> None:
    """Raise `ValueError` where an output exists and is not to be replaced, or cannot be written.

    Args:
        paths: files and folders that will be written.
        force: whether they may be replaced.
    """
    for path in paths:
        if (path.exists() or path.is_symlink()) and not force:
            raise ValueError(f"{path} exists. Choose another place, or replace it with --force.")
        home = path.absolute().parent
        while not home.exists():
            home = home.parent
        if not home.is_dir():
            raise ValueError(f"{path} cannot be written: {home} is not a folder.")
        try:
            # Rights do not tell: file systems may be read-only or full, names too long.
            probe = temporary_beside(home / path.name)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"{path} cannot be written: {error.strerror} in {home}. Choose another place."
            ) from error


def check_kind(path: Path, kinds: Sequence[str]) -> None:
    """Raise `ValueError` unless a file's name ends in one of `kinds`."""
    if path.suffix.lower() not in kinds or path.is_dir():
        raise ValueError(f"The output is a file that ends in {' or '.join(kinds)}, got {path}.")


@contextlib.contextmanager
def whole_folder(folder: Path, stale: Sequence[str] = ()) -> Iterator[Path]:
    """A folder to write to, whose files move to `folder` once all of them are complete.

    Args:
        folder: where everything ends up.
        stale: patterns of files of an earlier run that go, if they are not replaced.
    """
    folder = folder.absolute()
    temporary = temporary_beside(folder)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if not folder.exists():
            os.replace(temporary, folder)
            return
        for pattern in stale:
            for file in folder.glob(pattern):
                file.unlink()
        for file in sorted(temporary.rglob("*")):
            target = folder / file.relative_to(temporary)
            if file.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(file, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Blocks(NamedTuple):
    """An array that comes in blocks of rows, so that it is never whole in memory.

    Attributes:
        shape: of the array.
        dtype: of the array.
        blocks: its rows, in order; read once.
    """

    shape: tuple[int, ...]
    dtype: Any
    blocks: Iterable[Any]


def write_arrays(path: Path, arrays: Mapping[str, Blocks]) -> None:
    """Write arrays to a file in one step, block by block.

    Args:
        path: ends in `.npy`, `.npz` or `.safetensors`. A `.npy` file holds one array, or several
            of one shape stacked: `[s, n, m]`.
        arrays: by key, which `.npy` does without.
    """
    writers = {".npy": _write_npy, ".npz": _write_npz, ".safetensors": _write_safetensors}
    with atomic_open(path) as file:
        writers[path.suffix.lower()](file, arrays)


def _npy_header(file: Any, shape: tuple[int, ...], dtype: Any) -> None:
    import numpy as np

    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": tuple(map(int, shape)),
    }
    np.lib.format.write_array_header_1_0(file, header)


def _write_blocks(file: Any, array: Blocks) -> None:
    import numpy as np

    for block in array.blocks:
        file.write(np.ascontiguousarray(np.asarray(block, array.dtype)).tobytes())


def _write_npy(file: BinaryIO, arrays: Mapping[str, Blocks]) -> None:
    several = list(arrays.values())
    shape = several[0].shape if len(several) == 1 else (len(several), *several[0].shape)
    _npy_header(file, shape, several[0].dtype)
    for array in several:
        _write_blocks(file, array)


def _write_npz(file: BinaryIO, arrays: Mapping[str, Blocks]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for key, array in arrays.items():
            # The same bytes for the same input: no time stamp.
            member = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w", force_zip64=True) as part:
                _npy_header(part, array.shape, array.dtype)
                _write_blocks(part, array)


def _write_safetensors(file: BinaryIO, arrays: Mapping[str, Blocks]) -> None:
    import numpy as np

    header, end = {}, 0
    for key, array in arrays.items():
        start, end = end, end + int(np.prod(array.shape)) * np.dtype(array.dtype).itemsize
        header[key] = {
            "dtype": _NAMES[np.dtype(array.dtype).name],
            "shape": list(map(int, array.shape)),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        _write_blocks(file, array)
