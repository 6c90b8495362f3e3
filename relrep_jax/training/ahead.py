"""Compiling what will run later, while something else runs."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

# A compiler uses one core for most of its time.
WORKERS = 2


class Ahead(Generic[T]):
    """Calls functions in the background, in their order.

    Use it as a context manager: leaving it calls no further function. Those at work are not
    stopped, but `is_wanted` tells them that nobody waits for them any more.

    Args:
        functions: by name, such as ones that compile; each is given `is_wanted`.
    """

    def __init__(self, functions: Mapping[str, Callable[[Callable[[], bool]], T]]):
        self._left = threading.Event()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="ahead")
        self._futures = {
            name: self._pool.submit(function, self.is_wanted)
            for name, function in functions.items()
        }

    def is_wanted(self) -> bool:
        """Whether the context was not left yet."""
        return not self._left.is_set()

    def take(self, name: str) -> T | None:
        """Wait for what the function of that name returns, or raise what it raises; once a name.

        None where there is no such function.
        """
        future = self._futures.pop(name, None)
        return None if future is None else future.result()

    def __enter__(self) -> "Ahead[T]":
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
