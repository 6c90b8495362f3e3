"""What makes a function of two spaces a measure: compiled once a shape, NaN for NaN."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, cast

import jax
import jax.numpy as jnp

from relrep_jax._sharding import automatic_jit
from relrep_jax.checks import check_matrix

Arguments = ParamSpec("Arguments")


def all_finite(*spaces: Any) -> jax.Array:
    """Whether no entry of the arrays is NaN or infinite, a boolean scalar."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(space)) for space in spaces]))


def measure(
    *static: str,
) -> Callable[[Callable[Arguments, jax.Array]], Callable[Arguments, jax.Array]]:
    """Decorator of functions `(x [n, d1], y [n, d2], ...) -> score`.

    The score of rows that are not finite is NaN: measures take for unlike what they cannot judge,
    and a diverged model would pass for one that is merely unlike. Called outside of `jit` the
    function is compiled at the first call with these shapes and options, not at every call.

    Args:
        static: names of options that are no arrays.
    """

    def decorate(function: Callable[Arguments, jax.Array]) -> Callable[Arguments, jax.Array]:
        @automatic_jit(*static)
        @wraps(function)
        def compiled(x, y, *options, **more):
            score = function(x, y, *options, **more)
            return jnp.where(all_finite(x, y), score, jnp.nan)

        @wraps(function)
        def measured(x, y, *options, **more):
            # What `jit` would refuse with a message of its own.
            check_matrix("x", x, columns="d1")
            check_matrix("y", y, columns="d2")
            return compiled(x, y, *options, **more)

        return cast(Callable[Arguments, jax.Array], measured)

    return decorate
