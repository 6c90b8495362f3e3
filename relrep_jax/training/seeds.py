"""The seed axis: how one compiled program runs many seeds.

Every array of a run has a leading seed axis. It is split over the devices of a mesh with the
single axis `seed`; inside a device the seeds run side by side (`vmap`) or one after another
(`map`). On a CPU the latter is the faster one, with as many XLA host devices as there are cores;
accelerators want `vmap`.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from threadpoolctl import threadpool_limits

from relrep_jax.checks import lookup

STRATEGIES = ("auto", "map", "vmap")


def use_host_devices(count: int | None = None) -> None:
    """Make XLA show `count` CPU devices (as many as this process may use cores by default).

    Call it before anything else touches JAX; afterwards the number is fixed and the call does
    nothing. Has no influence on GPUs and TPUs.
    """
    if count is None:
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        count = count or os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        return
    if count > 1:
        # Decompositions are LAPACK's, from an OpenBLAS with threads of its own. Called by two
        # devices at once those wait for one another: an SVD takes hundreds of times as long.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for libraries loaded later
        threadpool_limits(1, user_api="blas")


def one_blas_thread(devices: Sequence[jax.Device]) -> AbstractContextManager:
    """A context in which decompositions on several CPU devices at once do not stand in each
    other's way; see `use_host_devices`, which says so for a whole process."""
    if len(devices) < 2 or devices[0].platform != "cpu":
        return nullcontext()
    import scipy.linalg  # noqa: F401  (JAX loads it at its first decomposition: too late)

    return threadpool_limits(1, user_api="blas")


class SeedPlan(NamedTuple):
    """Where and how the seed axis runs.

    Attributes:
        num_seeds: seeds that were asked for.
        num_slots: the same, rounded up to a multiple of the devices.
        strategy: `vmap` or `map`, inside each device.
        mesh: devices along the axis `seed`.
    """

    num_seeds: int
    num_slots: int
    strategy: str
    mesh: Mesh

    @property
    def per_seed(self) -> NamedSharding:
        """Sharding of arrays with a leading seed axis."""
        return NamedSharding(self.mesh, PartitionSpec("seed"))

    @property
    def shared(self) -> NamedSharding:
        """Sharding of arrays that all seeds read."""
        return NamedSharding(self.mesh, PartitionSpec())

    def slots(self, seeds: Sequence[int]) -> np.ndarray:
        """Seed numbers, the last one repeated until every device has as many: `[num_slots]`."""
        missing = self.num_slots - self.num_seeds
        return np.pad(np.asarray(seeds, np.uint32), (0, missing), mode="edge")

    def pad(self, tree: Any) -> Any:
        """Repeat the last seed until every device has as many; place the arrays."""
        missing = self.num_slots - self.num_seeds
        if missing:
            tree = _repeat_last(tree, missing)
        return jax.device_put(tree, self.per_seed)

    def unpad(self, tree: Any) -> Any:
        """Drop what `pad` added."""
        return take_seeds(tree, self.num_seeds)

    def share(self, tree: Any) -> Any:
        """Place arrays that all seeds read on every device."""
        return jax.device_put(tree, self.shared)


# Each of these is compiled once for a whole tree, not once for every shape in it.


@partial(jax.jit, static_argnums=1)
def _repeat_last(tree: Any, times: int) -> Any:
    return jax.tree.map(
        lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], times, axis=0)]), tree
    )


@partial(jax.jit, static_argnums=1)
def take_seeds(tree: Any, count: int) -> Any:
    """The first `count` seeds of a tree with a leading seed axis."""
    return jax.tree.map(lambda leaf: leaf[:count], tree)


@partial(jax.jit, static_argnums=1)
def take_seed(tree: Any, index: int) -> Any:
    """One seed of a tree with a leading seed axis, without that axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def plan_seeds(
    num_seeds: int, strategy: str = "auto", devices: Sequence[jax.Device] | None = None
) -> SeedPlan:
    """Decide how `num_seeds` seeds run.

    Args:
        num_seeds: at least 1.
        strategy: `vmap`, `map`, or `auto`: `map` on CPUs, `vmap` on accelerators.
        devices: all local ones by default.

    Raises:
        ValueError: no seeds, or an unknown strategy.
    """
    if num_seeds < 1:
        raise ValueError(f"At least one seed is needed, got {num_seeds}.")
    lookup("seed strategy", strategy, dict.fromkeys(STRATEGIES))
    devices = list(jax.local_devices() if devices is None else devices)
    if strategy == "auto":
        strategy = "map" if devices[0].platform == "cpu" else "vmap"
    count = min(len(devices), num_seeds)
    num_slots = -(-num_seeds // count) * count
    return SeedPlan(num_seeds, num_slots, strategy, Mesh(np.array(devices[:count]), ("seed",)))


def over_seeds(
    function: Callable[..., Any], plan: SeedPlan, *, compiler_options: dict[str, Any] | None = None
) -> Callable[..., Any]:
    """Compile `function(seed_tree, *shared)` for all seeds at once.

    Args:
        function: a pure function of one seed's arrays and of arrays that all seeds share.
        plan: where and how.
        compiler_options: of `jax.jit`.

    Returns:
        A jitted function of the same arguments, the first and the result with a leading seed
        axis of `plan.num_slots`.
    """

    def on_device(seed_tree, *shared):
        def one_seed(seed):
            return function(seed, *shared)

        if plan.strategy == "map":
            return jax.lax.map(one_seed, seed_tree)
        return jax.vmap(one_seed)(seed_tree)

    return jax.jit(_on_mesh(on_device, plan), compiler_options=compiler_options)


def update_seeds(
    function: Callable[..., tuple[Any, Any]], plan: SeedPlan
) -> Callable[..., tuple[Any, Any]]:
    """Compile `function(state, *shared) -> (state, extra)` for all seeds at once, in place.

    The new states are written over the old ones: there is memory for one of each, and nothing is
    copied but one seed at a time.

    Args:
        function: pure, of one seed's state and of arrays that all seeds share; the new state has
            the structure, shapes and dtypes of the old one.
        plan: where and how.

    Returns:
        A jitted function of the same arguments, the states and `extra` with a leading seed axis of
        `plan.num_slots`. The states that it was given cannot be used again.
    """

    def on_device(states, *shared):
        if plan.strategy == "vmap":
            return jax.vmap(lambda state: function(state, *shared))(states)

        def seed(index, tree):
            return jax.tree.map(
                lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree
            )

        def put(index, tree, values):
            return jax.tree.map(
                lambda leaf, value: jax.lax.dynamic_update_index_in_dim(leaf, value, index, 0),
                tree,
                values,
            )

        # `lax.map` would read from one set of states and write into another. The state that a step
        # starts from is a part of the carry: were it read from among the others inside the
        # function, XLA would copy them all to keep it.
        def body(index, carry):
            state, states, extras = carry
            state, extra = function(state, *shared)
            states, extras = put(index, states, state), put(index, extras, extra)
            return seed(index + 1, states), states, extras

        num_seeds = jax.tree.leaves(states)[0].shape[0]
        first = seed(0, states)
        _, extra = jax.eval_shape(function, first, *shared)
        extras = jax.tree.map(lambda leaf: jnp.zeros((num_seeds, *leaf.shape), leaf.dtype), extra)
        return jax.lax.fori_loop(0, num_seeds, body, (first, states, extras))[1:]

    return jax.jit(_on_mesh(on_device, plan), donate_argnums=0)


def _on_mesh(function: Callable[..., Any], plan: SeedPlan) -> Callable[..., Any]:
    """`function(seed_tree, *shared)`, each device with the seeds that lie there."""
    per_seed, replicated = PartitionSpec("seed"), PartitionSpec()

    def run(seed_tree, *shared):
        return jax.shard_map(
            function,
            mesh=plan.mesh,
            in_specs=(per_seed,) + (replicated,) * len(shared),
            out_specs=per_seed,
            # Seeds never talk to one another, and custom derivative rules carry no such types.
            check_vma=False,
        )(seed_tree, *shared)

    return run
