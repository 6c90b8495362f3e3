"""Tests run on two XLA host devices, so that whatever is spread over devices really is.

Most of their time is the compiler's. Unless `RELREP_TEST_OPTIMIZED` is set, XLA leaves out its
expensive optimisations (continuous integration runs everything in both ways), and compiled
programs are shared between the tests of a run, and between its processes, through a
cache that is removed at its end.
"""

import os
import shutil
import tempfile

import jax

from relrep_jax.training.seeds import use_host_devices

_CACHE = "RELREP_TEST_COMPILATION_CACHE"

use_host_devices(2)
jax.config.update("jax_disable_most_optimizations", not os.environ.get("RELREP_TEST_OPTIMIZED"))


def pytest_configure(config):
    if _CACHE not in os.environ:
        os.environ[_CACHE] = tempfile.mkdtemp(prefix="relrep-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_CACHE), ignore_errors=True))
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
