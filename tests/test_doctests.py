"""Every example in a docstring runs and shows what it says."""

import doctest
import importlib
import pkgutil

import pytest

import relrep_jax

MODULES = sorted(
    {"relrep_jax"} | {m.name for m in pkgutil.walk_packages(relrep_jax.__path__, "relrep_jax.")}
)


SLOW = ("anchors.", "consensus", "graph", "measures.", "stitching.", "translation")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if any(part in name for part in SLOW) else ())
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
