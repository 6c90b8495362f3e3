"""What the commands show: a progress bar on stderr, tables on stdout."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager


def progress(what: str, total: float) -> AbstractContextManager[Callable[..., None]]:
    """`relrep_jax.report.progress` on stderr."""
    from rich.console import Console

    from relrep_jax import report

    return report.progress(Console(stderr=True), what, total)


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
