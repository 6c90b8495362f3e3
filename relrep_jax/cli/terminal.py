"""What the commands show: a progress bar on stderr, tables on stdout."""

import argparse
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_SEEDS = 2**32
"""How many seeds there are: NumPy and JAX have more, but JAX makes equal keys of some of them."""


def progress(what: str, total: float) -> AbstractContextManager[Callable[..., None]]:
    """`relrep_jax.report.progress` on stderr."""
    from rich.console import Console

    from relrep_jax import report

    return report.progress(Console(stderr=True), what, total)


def console() -> "Console":
    """The console of stdout, with room for tables where it is not a terminal.

    It prints texts as they are: names and paths may have square brackets and colons in them.
    """
    from rich.console import Console

    make = partial(Console, highlight=False, markup=False, emoji=False)
    made = make()
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made = make(width=120)
    return made


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    """The argument `--seed`, a number in 0 .. 2**32 - 1; the parser refuses all else."""
    parser.add_argument("--seed", metavar="SEED", type=_seed, default=0, help=what)


def _seed(text: str) -> int:
    """The seed that `text` is; an `ArgumentTypeError` where it is none."""
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed < _SEEDS:
        raise argparse.ArgumentTypeError(f"must be a whole number in 0 .. 2**32 - 1, got {text!r}")
    return seed


def choices(kind: str, text: str, known: Mapping[str, Any]) -> list[str]:
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
