"""For functions that leave it to the compiler how their work is spread over devices."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import jax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, auto_axes

F = TypeVar("F", bound=Callable[..., Any])
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def automatic_sharding(function: F) -> F:
    """Decorator: arrays on a mesh of explicit axes are taken, and every device holds the results.

    Arrays on such a mesh, the default of `jax.make_mesh`, carry their sharding in their type, and
    operations that need all rows at once (a slice, a decomposition) refuse them. Inside, the axes
    are automatic. Calls without such arrays are left alone.
    """

    @wraps(function)
    def with_automatic_axes(*args: Any, **options: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, options))
        is_array = [isinstance(leaf, jax.Array) for leaf in leaves]
        arrays = [leaf for leaf, array in zip(leaves, is_array, strict=True) if array]
        explicit = next(filter(_explicit_mesh, arrays), None)
        if explicit is None:
            return function(*args, **options)
        mesh = _explicit_mesh(explicit)

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
        if not isinstance(explicit, jax.core.Tracer):
            # Operations that run one by one take no arrays of other devices.
            everywhere = NamedSharding(explicit.sharding.mesh, PartitionSpec())
            arrays = [
                x
                if isinstance(x, jax.core.Tracer) or _explicit_mesh(x)
                else jax.device_put(x, everywhere)
                for x in arrays
            ]
        return automatic(*arrays)

    return cast(F, with_automatic_axes)


def automatic_jit(
    *static: str,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorator: `jax.jit` with these static arguments, and `automatic_sharding`.

    To type checkers and editors the function keeps its arguments, which `jax.jit` hides.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        return automatic_sharding(jax.jit(function, static_argnames=static))

    return decorate


def _explicit_axes(mesh: AbstractMesh) -> tuple[str, ...]:
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def _explicit_mesh(x: jax.Array) -> AbstractMesh | None:
    mesh = jax.typeof(x).sharding.mesh
    return mesh if _explicit_axes(mesh) else None
