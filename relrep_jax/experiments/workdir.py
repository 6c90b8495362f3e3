"""The directory that holds one run and nothing else."""

import json
import os
from pathlib import Path

from ml_collections import ConfigDict

from relrep_jax.experiments.config import ConfigError, differences, to_json
from relrep_jax.report.files import atomic_write_text


def claim_workdir(workdir: str | Path, config: ConfigDict) -> Path:
    """Make the directory for a run with `config`, or enter it where that run stopped.

    Returns:
        The directory; `config.json` lies in it.

    Raises:
        ConfigError: it cannot be made or written to, or it holds a run with another config.
    """
    workdir = Path(workdir).expanduser()
    text = to_json(config)
    config_file = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".writable-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
        if not config_file.exists():
            atomic_write_text(config_file, text)
            return workdir
        earlier = json.loads(config_file.read_text())
    except OSError as error:
        raise ConfigError(
            f"The workdir {workdir} cannot be written to: {error.strerror or error}. Choose "
            "another one with --workdir."
        ) from error
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{config_file} is not readable as JSON ({error}). Remove the workdir or choose "
            "another one with --workdir."
        ) from error
    changed = differences(earlier, json.loads(text))
    if changed:
        raise ConfigError(
            f"The workdir {workdir} holds a run with another config:\n  "
            + "\n  ".join(changed)
            + "\nGo on with that run by using its config, or choose another --workdir."
        )
    return workdir
