"""The directory that holds one run and nothing else."""

import contextlib
import errno
import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from relrep_jax._files import atomic_write_text
from relrep_jax.data.latents import split_key
from relrep_jax.data.planetoid import find_planetoid
from relrep_jax.experiments.config import ConfigError, differences, flatten, to_json


def claim_workdir(workdir: str | Path, config: ConfigDict) -> Path:
    """Make the directory for a run with `config`, or enter it where that run stopped.

    Returns:
        The directory; `config.json` lies in it.

    Raises:
        ConfigError: it cannot be made or written to, or it holds a run with another config, or one
            with other data under the same name.
    """
    workdir = Path(workdir).expanduser()
    text = to_json(config)
    for name, value in _paths(config).items():
        if Path(value).expanduser().is_dir() and workdir.resolve() == Path(value).resolve():
            raise ConfigError(
                f"The workdir {workdir} is the folder that config.{name} names, whose files are "
                "data. Choose another --workdir."
            )
    config_file = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".writable-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
        if not config_file.exists():
            fingerprints = json.dumps(_fingerprints(config), indent=2) + "\n"
            there = [name for name in RUN_FILES if (workdir / name).exists()]
            data = workdir / DATA_FILE
            # A run that was killed while it claimed its directory has left this one file.
            if data.exists() and data.read_bytes() != fingerprints.encode():
                there.append(DATA_FILE)
            if there:
                raise ConfigError(
                    f"The workdir {workdir} has {', '.join(there)} but no config.json: it belongs "
                    "to something else, which a run would overwrite. Choose another --workdir."
                )
            atomic_write_text(data, fingerprints)
            atomic_write_text(config_file, text)
            return workdir
        earlier = _read_object(config_file)
        data = workdir / DATA_FILE
        known = _read_object(data) if data.exists() else {}
    except OSError as error:
        raise ConfigError(
            f"The workdir {workdir} cannot be written to: {error.strerror or error}. Choose "
            "another one with --workdir."
        ) from error
    changed = differences(earlier, json.loads(text))
    if changed:
        raise ConfigError(
            f"The workdir {workdir} holds a run with another config:\n  "
            + "\n  ".join(changed)
            + "\nGo on with that run by using its config, or choose another --workdir."
        )
    now = _fingerprints(config)
    other = [name for name in known if known[name] != now.get(name)]
    if other:
        raise ConfigError(
            f"The workdir {workdir} holds a run on other data: what config.{other[0]} names has "
            "changed since. Bring the earlier file back, or choose another --workdir."
        )
    return workdir


def _read_object(file: Path) -> dict[str, Any]:
    """The object that a JSON file of a run holds."""
    try:
        found = json.loads(file.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}, not an object")
    except ValueError as error:  # JSON or UTF-8
        raise ConfigError(
            f"{file} is not readable as JSON ({error}). Remove the workdir or choose another one "
            "with --workdir."
        ) from error
    return found


@contextlib.contextmanager
def hold_workdir(workdir: Path) -> Iterator[None]:
    """A context in which no other process runs in the directory.

    The hold ends with the process, however that ends. Where files cannot be locked (Windows, some
    network drives) nothing is held.

    Args:
        workdir: from `claim_workdir`.

    Raises:
        ConfigError: another process is at work in it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (workdir / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise ConfigError(
                    f"Another process is at work in the workdir {workdir}. Wait until it ends, or "
                    "choose another --workdir."
                ) from error
        yield


RUN_FILES = ("checkpoints", "figures", "metrics.jsonl", "report.md", "tables", "tensorboard")
"""What a run writes over or goes on with, where it stands in its directory."""
DATA_FILE = "data.json"
"""The fingerprints of a run's data, beside its `config.json`."""


def _files_of(path: Path) -> list[Path]:
    """The files that a path stands for: those of a folder, `folder/ind.NAME`, `file.npz:key`."""
    if path.is_dir():
        return sorted(file for file in path.glob("*") if file.is_file())
    planetoid = find_planetoid(path)
    if planetoid is not None:
        return sorted(planetoid.parent.glob(glob.escape(planetoid.name) + ".*"))
    file, _ = split_key(path)
    return [file] if file.is_file() else []


def _paths(config: ConfigDict) -> dict[str, str]:
    """The fields of `config.data` that may name files and folders, by their dotted names."""
    return {
        name: value
        for name, value in flatten(config).items()
        if name.startswith("data.")
        and name not in ("data.name", "data.data_dir")
        and isinstance(value, str)
        and value
    }


def _fingerprints(config: ConfigDict) -> dict[str, str]:
    """SHA-256 of the files that fields of `config.data` name; a folder's are taken together."""
    found = {}
    for name, value in _paths(config).items():
        files = _files_of(Path(value).expanduser())
        if not files:
            continue
        total = hashlib.sha256()
        for file in files:
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
        found[name] = total.hexdigest()
    return found
