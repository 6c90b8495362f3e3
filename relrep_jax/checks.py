"""Checks at the doors: static facts for traced functions, values for loaders."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def check_matrix(name: str, x: Any, *, rows: str = "n", columns: str = "d") -> None:
    """Raise `ValueError` unless `x` is real, of rank 2, with at least one row and one column."""
    shape = getattr(x, "shape", None)
    if shape is None:
        raise ValueError(
            f"{name} must be an array of shape [{rows}, {columns}], got {type(x).__name__}."
        )
    if len(shape) != 2:
        hint = " Map over leading axes with jax.vmap." if len(shape) > 2 else ""
        raise ValueError(f"{name} must have shape [{rows}, {columns}], got {tuple(shape)}.{hint}")
    dtype = getattr(x, "dtype", None)
    kind = getattr(dtype, "kind", "f")
    if kind == "c":
        raise ValueError(
            f"{name} must hold real numbers, got dtype {dtype}. Put real and imaginary parts "
            "side by side first."
        )
    if kind in "OSUMm" or str(dtype).startswith("key<"):
        raise ValueError(f"{name} must hold real numbers, got dtype {dtype}.")
    if shape[0] == 0 or shape[1] == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(shape)}.")


def check_same_width(x: Any, anchors: Any, names: tuple[str, str] = ("latents", "anchors")) -> None:
    """Raise `ValueError` unless `x [n, d]` and `anchors [m, d]` are matrices of one width."""
    first, second = names
    try:
        check_matrix(first, x)
        check_matrix(second, anchors, rows="m")
    except ValueError as error:
        shapes = [getattr(each, "shape", None) for each in (x, anchors)]
        if None in shapes:
            raise
        both = f" and {second} ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(f"{error} Got {first} {both}.") from None
    if x.shape[1] != anchors.shape[1]:
        raise ValueError(
            f"{first} and {second} must have the same width, got {first} "
            f"{tuple(x.shape)} and {second} {tuple(anchors.shape)}."
        )


def is_at_least(size: Any, limit: int) -> bool:
    """Whether a size of an array is known to reach a limit: that of a dimension which
    `jax.export` leaves open is not."""
    return isinstance(size, int) and size >= limit


def check_number(name: str, value: Any, wanted: str, is_good: Callable[[Any], bool]) -> None:
    """Raise `ValueError` unless a number is finite and good; arrays of JAX, which may be traced,
    are not looked at.

    Args:
        name: of the argument.
        value: of Python or NumPy, or an array of JAX.
        wanted: the end of "`name` must ...".
        is_good: whether a finite number will do.
    """
    if isinstance(value, int | float | np.generic) and not (np.isfinite(value) and is_good(value)):
        raise ValueError(f"{name} must {wanted}, got {value}.")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise `ValueError` unless this is a whole number of Python or NumPy, `least` or above."""
    is_array = hasattr(value, "shape") and not isinstance(value, np.generic)
    if is_array or not hasattr(type(value), "__index__"):
        shape = getattr(value, "shape", ())
        what = f"an array {tuple(shape)}" if shape else repr(value)
        raise ValueError(f"{name} must be a whole number, got {what}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def check_corresponding(name: str, spaces: Any) -> None:
    """Raise `ValueError` unless these are two or more matrices with as many rows each."""
    if not isinstance(spaces, list | tuple) or len(spaces) < 2:
        if isinstance(spaces, list | tuple):
            got = f"{len(spaces)}"
        elif hasattr(spaces, "shape"):
            got = f"one array {tuple(spaces.shape)}"
        else:
            got = type(spaces).__name__
        raise ValueError(f"{name} must be a list of two or more arrays [n, d_i], got {got}.")
    for i, space in enumerate(spaces):
        check_matrix(f"{name}[{i}]", space)
    if len({space.shape[0] for space in spaces}) > 1:
        shapes = ", ".join(str(tuple(space.shape)) for space in spaces)
        raise ValueError(f"{name} must hold corresponding rows, got shapes {shapes}.")


def lookup(kind: str, name: str, known: Mapping[str, T]) -> T:
    """`known[name]`, or a `ValueError` that lists the known names and the nearest one."""
    if isinstance(name, str) and name in known:
        return known[name]
    nearest = get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(sorted(known))}.")


def resolve(kind: str, choice: str | Callable, known: Mapping[str, Callable]) -> Callable:
    """The function that `choice` names, or `choice` itself where it is a function."""
    return choice if callable(choice) else lookup(kind, choice, known)


def validate_latents(latents: Any, name: str = "latents") -> None:
    """Check on the host that `latents` is a finite, numeric, non-empty `[n, d]` array.

    Args:
        latents: the array to look at; it is copied to the host.
        name: what to call it in messages, such as a file's name.

    Raises:
        ValueError: wrong rank, no rows, not numbers, or rows that are NaN or infinite
            (the message names the first of them).
    """
    latents = np.asarray(latents)
    check_matrix(name, latents)
    if latents.dtype.kind not in "fiu" and latents.dtype.name != "bfloat16":
        raise ValueError(f"{name} must hold real numbers, got dtype {latents.dtype}.")
    if latents.dtype.name == "bfloat16":
        latents = latents.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(latents).all(axis=1))
    if bad.size:
        rows = ", ".join(map(str, bad[:5])) + (", …" if bad.size > 5 else "")
        raise ValueError(
            f"{name} has NaN or infinite values in {bad.size} of {len(latents)} rows "
            f"(rows {rows}). Remove or mend these rows first."
        )
