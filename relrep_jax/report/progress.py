"""A progress bar for long work."""

import contextlib
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


@contextlib.contextmanager
def progress(console: Console, what: str, total: float) -> Iterator[Callable[..., None]]:
    """A progress bar that goes when the work is done; nothing where there is no terminal.

    Args:
        console: where it is drawn.
        what: stands before the bar.
        total: how far there is to go.

    Yields:
        A function `(advance=1, what=None)` to call with each advance, and perhaps a new text.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    disable = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as bar:
        task = bar.add_task(what, total=total)

        def advance(advance: float = 1, what: str | None = None) -> None:
            bar.update(task, advance=advance, description=what)

        yield advance
