"""Compiling what will run later, while something else runs."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

# Compilers use one core for most of their time.
WORKERS = 2


class Ahead(Generic[T]):
    """Calls functions in the background, in their order; a name's value waits for its function.

    Use it as a context manager: leaving it calls no further function.

    Args:
        functions: by name, such as ones that compile.
    """

    def __init__(self, functions: Mapping[str, Callable[[], T]]):
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="ahead")
        self._futures = {name: self._pool.submit(function) for name, function in functions.items()}

    def get(self, name: str) -> T | None:
        """What the function of that name returned, or raises what it raised; None where there is no
        such function."""
        future = self._futures.get(name)
        return None if future is None else future.result()

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
