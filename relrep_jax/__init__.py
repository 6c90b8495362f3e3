"""Relative representations and products of invariances in JAX.

>>> import jax, relrep_jax as rr
>>> z = jax.random.normal(jax.random.key(0), (1000, 64))
>>> anchors = rr.anchors.uniform(jax.random.key(1), 1000, 100)
>>> rr.relative_projection(z, z[anchors]).shape
(1000, 100)
>>> rr.product_projection(z, z[anchors]).shape
(4, 1000, 100)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relrep_jax import (
        aggregation,
        anchors,
        consensus,
        measures,
        models,
        similarities,
        transforms,
        translation,
    )
    from relrep_jax.checks import validate_latents
    from relrep_jax.measures import permutation_test
    from relrep_jax.projection import product_projection, relative_projection
    from relrep_jax.stitching import stitch_latents, stitching_column, stitching_grid

__version__ = "0.1.0"

__all__ = [
    "aggregation",
    "anchors",
    "consensus",
    "measures",
    "models",
    "permutation_test",
    "product_projection",
    "relative_projection",
    "similarities",
    "stitch_latents",
    "stitching_column",
    "stitching_grid",
    "transforms",
    "translation",
    "validate_latents",
]

_MODULES = (
    "aggregation",
    "anchors",
    "checks",
    "consensus",
    "measures",
    "models",
    "projection",
    "similarities",
    "stitching",
    "transforms",
    "translation",
)
_HOMES = {
    "permutation_test": "measures",
    "product_projection": "projection",
    "relative_projection": "projection",
    "stitch_latents": "stitching",
    "stitching_column": "stitching",
    "stitching_grid": "stitching",
    "validate_latents": "checks",
}


if not TYPE_CHECKING:  # A name that is not there is an error to type checkers.

    def __getattr__(name: str) -> Any:
        """What the package offers, loaded on first use: `relrep --help` waits for nothing."""
        if name in _MODULES:
            return import_module(f"relrep_jax.{name}")
        if name in _HOMES:
            return getattr(import_module(f"relrep_jax.{_HOMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*_MODULES, *__all__, *(name for name in globals() if name.startswith("__"))})
