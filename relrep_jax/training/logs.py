"""What a run says while it trains: `metrics.jsonl`, TensorBoard events, a live line."""

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

_EVENTS_LOGGER = logging.getLogger("tensorboardX.x2num")


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a `metrics.jsonl`; a last line that was cut short is passed over."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


class MetricsLog:
    """Appends records to `workdir/metrics.jsonl` and scalars to TensorBoard events.

    A record is one epoch of one representation: `{"representation", "epoch", "step", "seconds",
    "<metric>": [one value a seed]}`. NaN is written as null.
    """

    def __init__(self, workdir: Path, seeds: Sequence[int]):
        # Imported here: it costs a third of a second that only training should pay.
        from tensorboardX import SummaryWriter

        self._path = workdir / "metrics.jsonl"
        self._seeds = seeds
        # Events cannot be taken back: those of an earlier run are written anew from the records.
        events = workdir / "tensorboard"
        shutil.rmtree(events, ignore_errors=True)
        self._events = SummaryWriter(str(events))

    def forget(self, representation: str, after_epoch: int) -> None:
        """Drop the records of epochs that a resumed run will take again; to be called before the
        first `write` of a representation."""
        kept = [
            record
            for record in read_metrics(self._path)
            if record["representation"] != representation or record["epoch"] <= after_epoch
        ]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        temporary.replace(self._path)
        for record in kept:
            if record["representation"] == representation:
                metrics = {k: v for k, v in record.items() if isinstance(v, list)}
                self._add_events(representation, record["step"], metrics)

    def _add_events(self, representation: str, step: int, metrics: dict[str, Any]) -> None:
        # It warns of every NaN; of a seed that diverged the user has been told once.
        level = _EVENTS_LOGGER.level
        _EVENTS_LOGGER.setLevel(logging.ERROR)
        try:
            for name, values in metrics.items():
                for seed, value in zip(self._seeds, values, strict=True):
                    value = math.nan if value is None else value
                    self._events.add_scalar(f"{representation}/{name}/seed_{seed}", value, step)
        finally:
            _EVENTS_LOGGER.setLevel(level)

    def write(
        self,
        representation: str,
        epoch: int,
        step: int,
        seconds: float,
        metrics: dict[str, np.ndarray],
    ) -> None:
        """Add an epoch: `metrics` maps names to one value a seed."""
        record: dict[str, Any] = {
            "representation": representation,
            "epoch": epoch,
            "step": step,
            "seconds": round(seconds, 4),
        }
        for name, values in metrics.items():
            record[name] = [float(v) if math.isfinite(v) else None for v in values]
        self._add_events(representation, step, metrics)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def curves(self, representation: str, metric: str = "loss") -> np.ndarray:
        """`[seeds, epochs]` of what was written, NaN where a seed had diverged."""
        rows = [
            [math.nan if value is None else value for value in record[metric]]
            for record in read_metrics(self._path)
            if record["representation"] == representation
        ]
        return np.array(rows, dtype=np.float64).T

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._events.close()


class TrainingProgress:
    """A live line on a terminal; elsewhere a plain line every few seconds.

    Args:
        console: where to write.
        totals: epochs by representation, for the time that is left.
    """

    _SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, console: Console, totals: dict[str, int]):
        self._console = console
        self._totals = totals
        self._done = dict.fromkeys(totals, 0)
        self._losses = dict.fromkeys(totals, "")
        self._last_line = 0.0
        self._start = time.monotonic()
        self._progress = Progress(
            TextColumn("[bold]epoch"),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            BarColumn(bar_width=10, table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            # On a narrow terminal the losses take two lines; the rest would be cut off otherwise.
            TextColumn(
                "left, {task.fields[losses]}", markup=False, table_column=Column(no_wrap=False)
            ),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=sum(totals.values()), losses="compiling")

    def advance(self, representation: str, epoch: int, loss: np.ndarray | None = None) -> None:
        """Say that `representation` has come to `epoch`, with the losses of its seeds."""
        self._done[representation] = epoch
        if loss is not None:
            finite = loss[np.isfinite(loss)]
            self._losses[representation] = f"{finite.mean():.4g}" if finite.size else "diverged"
        losses = ", ".join(f"{name} {loss}" for name, loss in self._losses.items() if loss)
        self._progress.update(
            self._task,
            completed=sum(self._done.values()),
            losses=f"loss: {losses}" if losses else "compiling",
        )
        now = time.monotonic()
        if not self._console.is_terminal and (
            now - self._last_line > self._SECONDS_BETWEEN_LINES
            or epoch == self._totals[representation]
        ):
            self._last_line = now
            self._console.print(
                f"[{now - self._start:6.1f} s] {representation}: epoch {epoch} of "
                f"{self._totals[representation]}, loss {self._losses[representation] or '–'}",
                highlight=False,
                markup=False,
            )

    def say(self, message: str) -> None:
        """Print a line that stays."""
        self._console.print(message, highlight=False, markup=False)

    def __enter__(self) -> "TrainingProgress":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
