"""Tests run on two XLA host devices, so that whatever is spread over devices really is.

Most of their time is the compiler's. Unless `RELREP_TEST_OPTIMIZED` is set, XLA leaves out its
expensive optimisations (continuous integration runs everything in both ways), and compiled
programs are shared between the tests of a run, and between its processes, through a
cache that is removed at its end.
"""

import csv
import gc
import os
import shutil
import tempfile
import time
from pathlib import Path

import jax
import pytest

from relrep_jax.training.seeds import use_host_devices

_CACHE = "RELREP_TEST_COMPILATION_CACHE"

# Every compiled program holds pieces of the address space. Linux allows a process 65,530 of them,
# and a compiler that is refused one crashes.
_MAX_MEMORY_MAPS = 30_000
_MEMORY_MAPS = Path("/proc/self/maps")
# Seconds between two looks at that file, which is long, and between two collections of garbage,
# which take up to an eighth of the time where Python decides on them: JAX keeps many objects, few
# of them garbage.
_LOOK_EVERY, _COLLECT_EVERY = 2, 30

use_host_devices(2)
jax.config.update("jax_disable_most_optimizations", not os.environ.get("RELREP_TEST_OPTIMIZED"))


def pytest_configure(config):
    if _CACHE not in os.environ:
        os.environ[_CACHE] = tempfile.mkdtemp(prefix="relrep-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_CACHE), ignore_errors=True))
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module")
def full_precision():
    """GPUs round the factors of models' products to 10 bits, unless told otherwise. Not for tests
    of the core, which asks for full precision itself."""
    with jax.default_matmul_precision("highest"):
        yield


def pytest_sessionstart(session):
    gc.freeze()
    gc.disable()
    session.looked = session.collected = time.monotonic()


def pytest_runtest_teardown(item):
    session, now = item.session, time.monotonic()
    is_full = False
    if now - session.looked > _LOOK_EVERY and _MEMORY_MAPS.exists():
        session.looked = now
        with _MEMORY_MAPS.open() as file:
            is_full = sum(1 for _ in file) > _MAX_MEMORY_MAPS
    if is_full:
        jax.clear_caches()
    if is_full or now - session.collected > _COLLECT_EVERY:
        session.collected = now
        gc.collect()


@pytest.fixture
def own_scores():
    """`(workdir, representation) -> scores` of a run's models with their own decoders, by seed."""

    def read(workdir, representation):
        with (workdir / "tables" / "stitching.csv").open(newline="") as file:
            return [
                float(row["value"])
                for row in csv.DictReader(file)
                if row["representation"] == representation and row["encoder"] == row["decoder"]
            ]

    return read
