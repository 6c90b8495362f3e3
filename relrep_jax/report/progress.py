"""A progress bar for long work."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["progress"]

SECONDS_BETWEEN_LINES = 30.0
"""Where there is no terminal: a log shows that the work goes on, and isn't filled by it."""


@contextlib.contextmanager
def progress(console: Console, what: str, total: float) -> Iterator[Callable[..., None]]:
    """A progress bar that goes when the work is done; where there is no terminal, a line at times.

    Args:
        console: where it is drawn.
        what: stands before the bar.
        total: how far there is to go.

    Yields:
        A function `(advance=1, what=None)` to call with each advance, and perhaps a new text.
    """
    if not console.is_terminal:
        yield _lines(console, what, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)

        def advance(advance: float = 1, what: str | None = None) -> None:
            bar.update(task, advance=advance, description=what)

        yield advance


def _lines(console: Console, what: str, total: float) -> Callable[..., None]:
    """`advance` of `progress` that prints how far it is, now and then."""
    started = printed = time.monotonic()
    done, text = 0.0, what

    def advance(advance: float = 1, what: str | None = None) -> None:
        nonlocal done, printed, text
        done += advance
        text = what or text
        now = time.monotonic()
        if now - printed >= SECONDS_BETWEEN_LINES and done < total:
            printed = now
            line = f"{text}: {100 * done / total:.0f} % after {now - started:.0f} s"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return advance
