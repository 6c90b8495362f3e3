"""Every example in a docstring runs and shows what it says."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path

import pytest

import relrep_jax

MODULES = sorted(
    {"relrep_jax"} | {m.name for m in pkgutil.walk_packages(relrep_jax.__path__, "relrep_jax.")}
)


FAST = ("relrep_jax", "relrep_jax.projection", "relrep_jax.anchors.sampling")


def has_examples(name):
    """Whether the module's file shows any; those without cost nothing."""
    return ">>> " in Path(importlib.util.find_spec(name).origin).read_text()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST or not has_examples(name) else pytest.mark.slow)
        for name in MODULES
    ],
)
def test_examples(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_there_are_examples_of_the_main_functions():
    from relrep_jax import projection, transforms
    from relrep_jax.anchors import sampling
    from relrep_jax.stitching import grid

    finder = doctest.DocTestFinder()
    for module in (sampling, projection, grid, transforms):
        assert sum(len(test.examples) for test in finder.find(module)) >= 2, module.__name__
