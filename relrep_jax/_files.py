"""Writing files so that a reader sees the old one or the new one, never a half-written one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_open", "atomic_write_bytes", "atomic_write_text", "temporary_beside"]


def temporary_beside(path: Path) -> Path:
    """Where a file or folder is written before it moves to `path`: a name nobody else takes."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.tmp"


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a file for writing that appears under its name only once it is complete.

    The bytes go to a temporary file in the same folder (so that the final rename stays on one
    file system), which replaces `path` when the block ends. If the block raises, the temporary
    file is removed and whatever was at `path` stays as it was. Missing folders are made.

    Args:
        path: where the file goes.

    Yields:
        A binary file to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are readable by the owner alone, and os.replace would keep that.
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Writes bytes to a file in one step (see `atomic_open`).

    Args:
        path: where the file goes.
        data: its content.

    Returns:
        The path.
    """
    with atomic_open(path) as file:
        file.write(data)
    return Path(path)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes text to a file in one step, as UTF-8 and with line ends as given.

    Args:
        path: where the file goes.
        text: its content.

    Returns:
        The path.
    """
    return atomic_write_bytes(path, text.encode("utf-8"))
