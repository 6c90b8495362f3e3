"""Latents on the disk: encoded once, gone on with after an interruption, and never mixed up.

While a store `NAME.npy` is under way its rows lie in `.NAME.parts/` beside it, a few batches a
file, with a record of what they are. At the end they become one file, and the record `NAME.json`.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relrep_jax import __version__
from relrep_jax._files import atomic_open, atomic_write_text
from relrep_jax.data.latents import BESIDE, LatentSpace, load_latents
from relrep_jax.encoders.base import Encoder, EncoderError, batches

_RECORD = "record.json"
DTYPES = ("float32", "float16")


def encode_to_store(
    encoder: Encoder,
    samples: Sequence[Any] | np.ndarray,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    dtype: str = "float32",
    save_every: float = 10.0,
    force: bool = False,
    advance: Callable[[int], None] | None = None,
) -> LatentSpace:
    """Encode samples into a file, from where an earlier call was stopped.

    Each piece is written whole or not at all, so that the process may be killed at any time: a
    second call encodes only what is missing. What is there already is used only if it comes from
    the same encoder, settings and samples, and in the end is the same to the bit if the batch size
    is the same too. A finished store is handed back as it is.

    Args:
        encoder: what encodes.
        samples: `n` texts, images `[n, h, w, c]`, or what has a length, slices and a method
            `fingerprint() -> str`.
        path: the file, `NAME.npy`; `NAME.json` beside it tells where it comes from.
        batch_size: how many samples to encode at a time. It may be another when going on.
        dtype: to store, float32 or float16.
        save_every: seconds of work that a kill may lose.
        force: replace what is there and cannot be gone on with.
        advance: called with the number of samples of each step, those of an earlier call first.

    Returns:
        The latents `[n, d]`, mapped into memory.

    Raises:
        EncoderError: something else is at `path`, or half of something else (the message says
            what differs); wrong arguments; and what `Encoder.encode` raises.
    """
    path = Path(path).expanduser()
    check_place(path)
    if dtype not in DTYPES:
        raise EncoderError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    wanted = record(encoder, samples, dtype)
    advance = advance or (lambda count: None)
    if not _is_new(path, wanted, force=force):
        advance(len(samples))
        return load_latents(path)
    parts = parts_folder(path)
    pieces, done = _pieces(parts)
    advance(done)
    rest = (_narrow(encoder, found, dtype) for found in batches(encoder, samples, batch_size, done))
    _write_pieces(parts, wanted, rest, done, save_every, advance)
    pieces, done = _pieces(parts)
    widths = sorted({piece.shape[1] for piece in pieces})
    if done != len(samples) or len(widths) > 1:
        raise EncoderError(
            f"{parts} holds {done} rows of widths {widths}; {len(samples)} of one width are "
            "wanted. Remove this folder and begin anew."
        )
    shape = (len(samples), widths[0])
    _join(path, pieces, shape, np.dtype(dtype))
    about = {**wanted, "shape": shape, "batch_size": batch_size, "relrep_jax": __version__}
    _write_record(path.with_suffix(".json"), about)
    del pieces
    shutil.rmtree(parts)
    return load_latents(path)


def record(encoder: Encoder, samples: Sequence[Any] | np.ndarray, dtype: str) -> dict[str, Any]:
    """What latents depend on, and its hash as `key`."""
    content = {
        "encoder": encoder.name,
        "settings": dict(encoder.settings),
        "data": {"samples": len(samples), "sha256": fingerprint(samples)},
        "dtype": dtype,
    }
    try:
        text = json.dumps(content, sort_keys=True)
    except TypeError as error:
        raise EncoderError(
            f"The settings of {encoder.name} must be what JSON can hold: {error}."
        ) from error
    return {**json.loads(text), "key": hashlib.sha256(text.encode()).hexdigest()}


def fingerprint(samples: Sequence[Any] | np.ndarray) -> str:
    """A SHA-256 hash of the samples, the same for the same samples in the same order.

    Args:
        samples: texts, an array, a list of arrays, or what has a method `fingerprint`.

    Returns:
        64 hexadecimal digits.

    Raises:
        EncoderError: the samples are something else.
    """
    own = getattr(samples, "fingerprint", None)
    if own is not None:
        return own()
    found = hashlib.sha256()
    if isinstance(samples, np.ndarray):
        _add_array(found, samples)
        return found.hexdigest()
    for sample in samples:
        if isinstance(sample, str):
            data = sample.encode("utf-8", "surrogatepass")
            found.update(b"text %d\n" % len(data) + data)
        elif isinstance(sample, np.ndarray):
            _add_array(found, sample)
        else:
            raise EncoderError(
                f"Samples are texts or arrays, got {type(sample).__name__}. Others need a "
                "method fingerprint() -> str of the sequence that holds them."
            )
    return found.hexdigest()


def parts_folder(path: Path) -> Path:
    """Where the rows of a store lie while it is under way."""
    return path.parent / f".{path.stem}.parts"


def check_place(path: Path) -> None:
    """Raise `EncoderError` where a store cannot lie at `path`."""
    if path.suffix != ".npy" or path.stem in BESIDE or path.name.startswith(".") or path.is_dir():
        raise EncoderError(
            f"Latents are stored in a file NAME.npy, not called {' or '.join(BESIDE)}, got {path}."
        )


def _is_new(path: Path, wanted: Mapping[str, Any], *, force: bool) -> bool:
    """Whether there is something left to do, after taking away what may be replaced."""
    parts = parts_folder(path)
    begun = _read(parts / _RECORD)
    if begun is not None:
        if begun.get("key") == wanted["key"]:
            return True
        if not force:
            raise EncoderError(
                f"{path} was begun in another way and is not finished: "
                f"{_differences(begun, wanted)}. Go on in the same "
                "way, choose another place, or begin anew (force=True; --force in the shell)."
            )
        shutil.rmtree(parts)
    beside = path.with_suffix(".json")
    there = _read(beside)
    if beside.exists() and not force and "key" not in (there or {}):
        raise EncoderError(
            f"{beside} exists and is no record of latents, which would replace it. Choose another "
            "place, or replace it (force=True; --force in the shell)."
        )
    if not path.exists() or force:
        return True
    if there is None:
        raise EncoderError(
            f"{path} exists, and no {path.stem}.json beside it tells where it comes from. Choose "
            "another place, or replace it (force=True; --force in the shell)."
        )
    if there.get("key") != wanted["key"]:
        raise EncoderError(
            f"{path} exists and comes from something else: {_differences(there, wanted)}. Choose "
            "another place, or replace it (force=True; --force in the shell)."
        )
    return False


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = _flat(there), _flat(wanted)
    # A record that was made by an older version has other fields than these.
    names = [name for name in new if name != "key" and old.get(name) != new[name]]
    names += [name for name in old if name.startswith("settings.") and name not in new]
    return "; ".join(
        f"{name} was {_brief(old.get(name))}, is now {_brief(new.get(name))}" for name in names
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:12]}…"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _pieces(parts: Path) -> tuple[list[np.ndarray], int]:
    """The pieces that follow each other from row 0 on, and how many rows they have."""
    if not (parts / _RECORD).exists():
        return [], 0
    pieces: list[np.ndarray] = []
    done = 0
    while (file := parts / f"{done:012d}.npy").exists():
        try:
            piece = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError):  # cut short after all, as by a full disk: encoded again
            break
        pieces.append(piece)
        done += len(piece)
    return pieces, done


def _write_pieces(
    parts: Path,
    wanted: Mapping[str, Any],
    rest: Iterator[np.ndarray],
    done: int,
    save_every: float,
    advance: Callable[[int], None],
) -> None:
    """Write the rows that are missing, several batches a file; nothing before there are some."""
    waiting: list[np.ndarray] = []

    def save() -> None:
        nonlocal done
        if not waiting:
            return
        if not (parts / _RECORD).exists():
            shutil.rmtree(parts, ignore_errors=True)
            _write_record(parts / _RECORD, wanted)
        rows = np.concatenate(waiting)
        with atomic_open(parts / f"{done:012d}.npy") as file:
            np.save(file, rows)
        done += len(rows)
        waiting.clear()

    saved = time.monotonic()
    try:
        for found in rest:
            waiting.append(found)
            if time.monotonic() - saved >= save_every:
                save()
                saved = time.monotonic()
            advance(len(found))
    finally:  # an error loses nothing, nor does an interruption
        save()


def _write_record(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _narrow(encoder: Encoder, found: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = found.astype(dtype)
    if not np.isfinite(narrow).all():
        raise EncoderError(
            f"{encoder.name} gives values up to {np.abs(found).max():.3g}, too large for {dtype}. "
            "Store float32."
        )
    return narrow


def _join(path: Path, pieces: list[np.ndarray], shape: tuple[int, int], dtype: np.dtype) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with atomic_open(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece).tobytes())


def _add_array(found: Any, array: np.ndarray) -> None:
    found.update(f"array {array.dtype.str} {array.shape}\n".encode())
    rows = array if array.ndim else array[None]
    step = max(1, 2**24 // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        found.update(np.ascontiguousarray(rows[start : start + step]).tobytes())
