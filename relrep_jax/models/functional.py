"""NNX modules as pure functions: built once, split at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx


class Variables(NamedTuple):
    """A model's arrays, as nested dicts.

    Attributes:
        params: what the optimiser changes.
        stats: what the forward pass changes (running statistics of batch normalisation).
    """

    params: Any
    stats: Any


class PureModel(NamedTuple):
    """A module as two pure functions, ready for `jit`, `vmap`, `scan` and `grad`.

    Attributes:
        init: `key -> Variables`.
        apply: `(variables, method, *args, **kwargs) -> (result, stats)`, where `method` names a
            method of the module and `stats` are the running statistics after the call.
    """

    init: Callable[[jax.Array], Variables]
    apply: Callable[..., tuple[Any, Any]]


def functional(build: Callable[[nnx.Rngs], nnx.Module]) -> PureModel:
    """Turn `build`, which makes a module from `nnx.Rngs`, into pure functions.

    The module may hold parameters and batch statistics; chance in the forward pass comes as a
    key argument of its methods, never from streams inside.

    Args:
        build: makes the module; called once for its structure, and inside `init`.

    Returns:
        The pure functions `init` and `apply`.

    Raises:
        What `build` raises, such as a `ValueError` for sizes that do not fit.

    Example:
        >>> import jax
        >>> from flax import nnx
        >>> from relrep_jax.models.functional import functional
        >>> model = functional(lambda rngs: nnx.Linear(4, 2, rngs=rngs))
        >>> seeds = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 3))
        >>> seeds.params["kernel"].shape
        (3, 4, 2)
    """
    graph, _, _ = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))), nnx.Param, nnx.BatchStat)

    def init(key: jax.Array) -> Variables:
        _, params, stats = nnx.split(build(nnx.Rngs(key)), nnx.Param, nnx.BatchStat)
        return Variables(nnx.to_pure_dict(params), nnx.to_pure_dict(stats))

    def apply(variables: Variables, method: str, *args, **kwargs) -> tuple[Any, Any]:
        module = nnx.merge(graph, nnx.State(variables.params), nnx.State(variables.stats))
        result = getattr(module, method)(*args, **kwargs)
        return result, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    return PureModel(init, apply)
