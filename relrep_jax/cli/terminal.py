"""What the commands show: a progress bar on stderr, tables on stdout."""

import contextlib
import os
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr; nothing where that is not a terminal.

    Args:
        what: stands before the bar.
        total: how far there is to go.

    Yields:
        A function to call with each advance.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    disable = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=disable) as bar:
        task = bar.add_task(what, total=total)
        yield lambda advance: bar.update(task, advance=advance)


def console():
    """The console of stdout, with room for tables where it is not a terminal."""
    from rich.console import Console

    made = Console(highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made = Console(highlight=False, width=120)
    return made


def choices(kind: str, text: str, known) -> list[str]:
    """Names of a comma-separated list, each of them known and once.

    Raises:
        ValueError: an unknown name (the message has the known and the nearest one), or none.
    """
    from relrep_jax.checks import lookup

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ValueError(f"Name at least one {kind}. Known: {', '.join(sorted(known))}.")
    for name in names:
        lookup(kind, name, known)
    return names


def whole_number(option: str, text: str, least: int) -> int:
    """The number that `text` is; a `ValueError` where it is none, or below `least`."""
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{option} must be a whole number, got {text!r}.") from None
    if number < least:
        raise ValueError(f"{option} must be at least {least}, got {number}.")
    return number
