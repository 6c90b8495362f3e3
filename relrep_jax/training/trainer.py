"""Training many seeds of one model: compiled calls, checkpoints, and what is said of each epoch."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from relrep_jax.models.functional import PureModel
from relrep_jax.training import selection
from relrep_jax.training.checkpoints import Checkpoints
from relrep_jax.training.loop import Loss, TrainState, init_state, train_steps
from relrep_jax.training.seeds import SeedPlan, over_seeds, update_seeds


class Epoch(NamedTuple):
    """What a training says at the end of an epoch.

    Attributes:
        number: epochs done, from 1.
        step: steps done.
        seconds: wall time of the epoch; the first one holds what was not compiled before it.
        metrics: name to `[seeds]`, means over the steps of the epoch; with a selection also
            `validation`, the score of the model after it.
    """

    number: int
    step: int
    seconds: float
    metrics: dict[str, np.ndarray]


def calls_per_epoch(steps_per_epoch: int, log_every: int) -> list[int]:
    """How many steps each compiled call of an epoch takes: all, or `log_every` at a time."""
    if not log_every or log_every >= steps_per_epoch:
        return [steps_per_epoch]
    whole, rest = divmod(steps_per_epoch, log_every)
    return [log_every] * whole + ([rest] if rest else [])


def _steps_per_epoch(data: Any, batch_size: int) -> int:
    num_samples = jax.tree.leaves(data)[0].shape[0]
    if not 1 <= batch_size <= num_samples:
        raise ValueError(
            f"batch_size must lie in 1 .. {num_samples}, the number of training samples, got "
            f"{batch_size}."
        )
    return num_samples // batch_size


class Program(NamedTuple):
    """The jitted functions that a training calls.

    Attributes:
        init: `seeds [slots] -> (state, best)`.
        steps: by their number, `(state, data) -> (state, metrics)`.
        judge: `((variables, best), epoch, data) -> (best, score)`; None without a selection.
    """

    init: Callable[..., Any]
    steps: dict[int, Callable[..., Any]]
    judge: Callable[..., Any] | None


def make_program(
    model: PureModel,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    plan: SeedPlan,
    batch_size: int | None,
    make_context: Callable[[Any], Any] = lambda data: None,
    log_every: int = 0,
    select: selection.Selection | None = None,
) -> Program:
    """The functions that `train` calls if it is given the same arguments; nothing is compiled."""
    steps = {
        num_steps: update_seeds(
            partial(_steps, loss, optimizer, make_context, batch_size, num_steps), plan
        )
        for num_steps in set(_calls(data, batch_size, log_every))
    }
    judge = over_seeds(partial(selection.update, select.score), plan) if select else None

    def first(seed):
        state = init_state(model, optimizer, seed)
        return state, selection.start(state.variables) if select else None

    # It runs once: compiling it well would take longer than running it badly.
    init = over_seeds(first, plan, compiler_options={"xla_backend_optimization_level": 0})
    return Program(init, steps, judge)


def compile_program(
    program: Program,
    data: Any,
    *,
    seeds: Sequence[int],
    plan: SeedPlan,
    select: selection.Selection | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Program:
    """Compile what `train` will call, so that it need not.

    Args:
        program: of `make_program`.
        data, seeds, plan, select: those of the training.
        is_wanted: asked before each compilation; the rest is left out where it says no.

    Returns:
        The same program.
    """
    slots = plan.slots(seeds)
    calls = [(program.init, (slots,))]
    state, best = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=plan.per_seed, weak_type=leaf.weak_type
        ),
        jax.eval_shape(program.init, slots),
    )
    calls += [(steps, (state, data)) for steps in program.steps.values()]
    if select:
        calls.append((program.judge, ((state.variables, best), jnp.int32(0), select.data)))
    for function, arguments in calls:
        if is_wanted():
            function.lower(*arguments).compile()
    return program


def _calls(data: Any, batch_size: int | None, log_every: int) -> list[int]:
    return calls_per_epoch(
        1 if batch_size is None else _steps_per_epoch(data, batch_size), log_every
    )


def train(
    model: PureModel,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    seeds: Sequence[int],
    plan: SeedPlan,
    epochs: int,
    batch_size: int | None,
    make_context: Callable[[Any], Any] = lambda data: None,
    log_every: int = 0,
    checkpoint_directory: Path | None = None,
    checkpoint_every: int = 1,
    select: selection.Selection | None = None,
    program: Program | None = None,
    on_resume: Callable[[int], None] = lambda epoch: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> TrainState:
    """Train all seeds; go on from the newest checkpoint where there is one.

    A run that was stopped at any moment and is called again with the same arguments takes the
    same steps as one that was never stopped.

    Args:
        model, loss, optimizer: of one seed.
        data: pytree of arrays `[num_samples, ...]`, placed with `plan.share`.
        seeds: the seed numbers.
        plan: how the seed axis runs (`plan_seeds(len(seeds))`).
        epochs: how many in all.
        batch_size: samples in a step, at most `num_samples`; None takes all of `data` in every
            step, as it is: then its leaves may have any shapes, and a step is an epoch.
        make_context: `data -> context` of the loss, such as the anchors' images.
        log_every: steps in one compiled call; 0 means an epoch.
        checkpoint_directory: where checkpoints lie; None writes none.
        checkpoint_every: epochs between checkpoints; the last epoch always has one.
        select: what models are judged by at the end of every epoch; None keeps the last ones.
        program: of `make_program` with the same arguments, where it was compiled before.
        on_resume: told the epoch that training goes on from, 0 at a fresh start.
        on_epoch: told of every epoch at its end.

    Returns:
        The state with a leading axis of `len(seeds)` on every leaf; with a selection, its
        variables are those of each seed's best epoch.

    Raises:
        ValueError: a batch larger than the data; a `program` of other arguments.
    """
    calls = _calls(data, batch_size, log_every)
    steps_per_epoch = sum(calls)
    program = program or make_program(
        model,
        loss,
        optimizer,
        data,
        plan=plan,
        batch_size=batch_size,
        make_context=make_context,
        log_every=log_every,
        select=select,
    )
    init, run, judge = program
    if set(run) != set(calls) or (judge is None) != (select is None):
        raise ValueError(
            "The program was made for another batch_size, log_every or select than training has. "
            "Give make_program and train the same ones."
        )
    slots = plan.slots(seeds)

    with Checkpoints(checkpoint_directory) if checkpoint_directory else _NoCheckpoints() as saved:
        done = saved.latest() or 0
        on_resume(done)
        if done:
            like = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((plan.num_seeds, *leaf.shape[1:]), leaf.dtype),
                jax.eval_shape(init, slots),
            )
            found = saved.restore(done, like if select else like[0])
            found = found if select else (found, None)
            state, best = plan.pad(found) if done < epochs else found
        else:
            state, best = init(slots)
        for epoch in range(done + 1, epochs + 1):
            start = time.monotonic()
            parts = []
            for num_steps in calls:
                state, metrics = run[num_steps](state, data)
                parts.append(metrics)
            means = {
                name: np.average(
                    [np.asarray(part[name])[: plan.num_seeds] for part in parts],
                    axis=0,
                    weights=calls,
                )
                for name in parts[0]
            }
            if judge:
                best, score = judge((state.variables, best), jnp.int32(epoch), select.data)
                means["validation"] = np.asarray(score)[: plan.num_seeds]
            # Before the checkpoint: what a killed run has said too much is taken back on resuming,
            # what it has not said would be missing.
            on_epoch(Epoch(epoch, epoch * steps_per_epoch, time.monotonic() - start, means))
            if epoch == epochs or epoch % checkpoint_every == 0:
                kept = plan.unpad((state, best))
                saved.save(epoch, kept if select else kept[0])
                del kept  # it would take memory during the next epoch
    state, best = plan.unpad((state, best))
    return state._replace(variables=best.variables) if select else state


def _steps(loss, optimizer, make_context, batch_size, num_steps, state, data):
    return train_steps(
        loss, optimizer, state, data, make_context, batch_size=batch_size, num_steps=num_steps
    )


class _NoCheckpoints:
    """Stands in for `Checkpoints` where nothing is to be written."""

    def latest(self) -> None:
        return None

    def save(self, epoch: int, state: Any) -> None:
        pass

    def __enter__(self) -> "_NoCheckpoints":
        return self

    def __exit__(self, *error: object) -> None:
        pass
