"""One training step, and the compiled loop of steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from relrep_jax.models.functional import PureModel, Variables


class TrainState(NamedTuple):
    """Everything that one seed's training changes; stacked along a leading axis for many.

    Attributes:
        step: number of steps taken, int32.
        key: the seed's key; the shuffle and the noise of any step derive from it and the step.
        variables: parameters and running statistics.
        optimizer: the optimiser's state.
    """

    step: jax.Array
    key: jax.Array
    variables: Variables
    optimizer: optax.OptState


Loss = Callable[[Variables, Any, Any, jax.Array], tuple[jax.Array, tuple[Any, dict]]]
"""`(variables, batch, context, key) -> (loss, (stats, metrics))` for one seed."""


def init_state(
    model: PureModel, optimizer: optax.GradientTransformation, seed: jax.Array
) -> TrainState:
    """The state of one seed (a scalar integer) before its first step."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    variables = model.init(init_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=train_key,
        variables=variables,
        optimizer=optimizer.init(variables.params),
    )


def epoch_order(key: jax.Array, epoch: jax.Array, num_samples: int) -> jax.Array:
    """The order `[num_samples]` in which a seed sees the samples in an epoch."""
    return jax.random.permutation(
        jax.random.fold_in(jax.random.fold_in(key, 0), epoch), num_samples
    )


def train_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: Any,
    context: Any,
) -> tuple[TrainState, dict]:
    """One step of one seed.

    Args:
        loss: see `Loss`.
        optimizer: an optax optimiser.
        state: before the step.
        batch: pytree of arrays `[batch, ...]`.
        context: what the loss needs beside the batch, such as the anchors.

    Returns:
        The state after the step and its metrics, `loss` among them.
    """
    key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)

    def objective(params):
        return loss(Variables(params, state.variables.stats), batch, context, key)

    gradient = jax.value_and_grad(objective, has_aux=True)
    (value, (stats, metrics)), gradients = gradient(state.variables.params)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.variables.params)
    params = optax.apply_updates(state.variables.params, updates)
    state = TrainState(state.step + 1, state.key, Variables(params, stats), optimizer_state)
    return state, {"loss": value, **metrics}


def train_steps(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    data: Any,
    make_context: Callable[[Any], Any],
    *,
    batch_size: int | None,
    num_steps: int,
) -> tuple[TrainState, dict]:
    """`num_steps` steps of one seed inside one epoch, as a scan.

    Every sample is seen at most once an epoch; the samples that do not fill a last batch are left
    out, other ones in each epoch. The order depends on the seed's key and the step alone.

    Args:
        loss, optimizer, state: as in `train_step`.
        data: pytree of arrays `[num_samples, ...]` on the device.
        make_context: `data -> context`, evaluated once.
        batch_size: samples in a step; None takes all of `data` in every step, as it is: then its
            leaves may have any shapes, and a step is an epoch.
        num_steps: must not cross the end of the epoch that `state.step` is in.

    Returns:
        The state after the steps and the means of the metrics over the steps.

    Raises:
        ValueError: a batch of more samples than there are, or more steps than an epoch has.
    """
    context = make_context(data)
    if batch_size is None:

        def next_batch(step):
            return data
    else:
        num_samples = jax.tree.leaves(data)[0].shape[0]
        steps_per_epoch = num_samples // batch_size
        if not steps_per_epoch:
            raise ValueError(f"A batch of {batch_size} needs more than {num_samples} samples.")
        if num_steps > steps_per_epoch:
            raise ValueError(
                f"An epoch of {num_samples} samples in batches of {batch_size} has "
                f"{steps_per_epoch} steps, got num_steps={num_steps}: its order would be repeated. "
                "Call once an epoch."
            )
        order = epoch_order(state.key, state.step // steps_per_epoch, num_samples)

        def next_batch(step):
            start = (step % steps_per_epoch) * batch_size
            indices = jax.lax.dynamic_slice_in_dim(order, start, batch_size)
            return jax.tree.map(lambda leaf: leaf[indices], data)

    def body(state, _):
        return train_step(loss, optimizer, state, next_batch(state.step), context)

    state, metrics = jax.lax.scan(body, state, length=num_steps)
    return state, jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), metrics)
