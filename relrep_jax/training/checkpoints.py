"""Checkpoints of a run, by orbax: written in the background, whole or not at all."""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

_LOGGER = logging.getLogger("absl")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message says which one and what to do."""


class Checkpoints:
    """The checkpoints of one training in one directory, the newest two kept.

    Use it as a context manager: leaving it waits for what is still being written.

    Args:
        directory: made when missing.
    """

    def __init__(self, directory: str | Path):
        self._directory = Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True),
        )

    def latest(self) -> int | None:
        """The epoch of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, epoch: int, state: Any) -> None:
        """Write `state`, a pytree of arrays, in the background."""
        # Of arrays that several devices have orbax takes a part from each, by a program that is
        # compiled for every shape: seconds where there are many.
        state = jax.device_put(state, _one_device())
        self._manager.save(epoch, args=ocp.args.StandardSave(state))

    def restore(self, epoch: int, like: Any) -> Any:
        """The state of that epoch.

        Args:
            epoch: what `latest` says.
            like: a pytree of arrays or `jax.ShapeDtypeStruct`s of the same structure.

        Raises:
            CheckpointError: it is damaged, or holds other shapes or another structure.
        """
        # On one device, whatever the devices were when the checkpoint was written.
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=_one_device()), like
        )
        try:
            return self._manager.restore(epoch, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # damaged files raise what they like
            older = [step for step in self._manager.all_steps() if step < epoch]
            then = f"from epoch {max(older)}" if older else "from the start"
            raise CheckpointError(
                f"The checkpoint {self._directory / str(epoch)} cannot be read; files of it may be "
                f"missing or damaged ({type(error).__name__}: {_beginning(error)}). Put them back, "
                f"or remove that folder: the same command then goes on {then}."
            ) from error

    def __enter__(self) -> "Checkpoints":
        # orbax tells of every save, and raises the errors that it logs: one traceback is enough.
        self._log_level = _LOGGER.level
        _LOGGER.setLevel(logging.CRITICAL)
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._manager.wait_until_finished()
            self._manager.close()
        finally:
            _LOGGER.setLevel(self._log_level)


def _one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _beginning(error: Exception, length: int = 120) -> str:
    """The first of what an error says, which may be kilobytes."""
    text = " ".join(str(error).split())
    return text if len(text) <= length else text[:length] + "…"
