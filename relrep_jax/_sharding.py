"""Functions that do not say how their work is spread work on arrays whose spread is explicit."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, auto_axes

F = TypeVar("F", bound=Callable[..., Any])


def automatic_sharding(function: F) -> F:
    """Decorator: the compiler spreads the work over devices, and the results lie on all of them.

    Arrays on a mesh of explicit axes, the default of `jax.make_mesh`, carry their sharding in their
    type, and operations that need all rows at once (a slice, a decomposition) refuse them. Here the
    axes are automatic inside; no other call is touched.
    """

    @wraps(function)
    def spread(*args: Any, **options: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, options))
        is_array = [isinstance(leaf, jax.Array) for leaf in leaves]
        arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
        spread_out = next(filter(_explicit_mesh, arrays), None)
        if spread_out is None:
            return function(*args, **options)
        mesh = _explicit_mesh(spread_out)

        def inside(*arrays: jax.Array) -> Any:
            rest = iter(arrays)
            filled = [
                next(rest) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)
            ]
            args, options = jax.tree.unflatten(tree, filled)
            return function(*args, **options)

        automatic = auto_axes(
            inside, axes=_explicit_axes(mesh), out_sharding=NamedSharding(mesh, PartitionSpec())
        )
        if isinstance(spread_out, jax.core.Tracer):
            return automatic(*arrays)
        # Operations that run one by one need to know the devices.
        with jax.set_mesh(spread_out.sharding.mesh):
            return automatic(*arrays)

    return spread


def _explicit_axes(mesh: AbstractMesh) -> tuple[str, ...]:
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def _explicit_mesh(x: jax.Array) -> AbstractMesh | None:
    mesh = jax.typeof(x).sharding.mesh
    return mesh if _explicit_axes(mesh) else None
