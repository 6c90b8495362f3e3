"""optax optimisers and schedules by name."""

import optax

from relrep_jax.checks import lookup

OPTIMIZERS = {
    name: getattr(optax, name)
    for name in (
        "adabelief",
        "adadelta",
        "adafactor",
        "adagrad",
        "adam",
        "adamax",
        "adamw",
        "amsgrad",
        "lamb",
        "lion",
        "nadam",
        "nadamw",
        "radam",
        "rmsprop",
        "sgd",
    )
}

SCHEDULES = ("constant", "cosine")


def make_schedule(
    name: str, learning_rate: float, total_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """Learning rate by step: a linear warm-up from zero, then constant or a cosine to zero.

    Raises:
        ValueError: an unknown schedule, or a warm-up that is negative or longer than the run.
    """
    lookup("schedule", name, dict.fromkeys(SCHEDULES))
    if not 0 <= warmup_steps < max(total_steps, 1):
        raise ValueError(
            f"warmup_steps must be at least 0 and below the {total_steps} steps of the run, got "
            f"{warmup_steps}."
        )
    if name == "constant":
        after = optax.constant_schedule(learning_rate)
    else:
        after = optax.cosine_decay_schedule(learning_rate, max(total_steps - warmup_steps, 1))
    if not warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(
    name: str,
    learning_rate: float | optax.Schedule,
    clip_norm: float = 0.0,
    l2_penalty: float = 0.0,
    **options,
) -> optax.GradientTransformation:
    """An optax optimiser by name, with the global gradient norm clipped first.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: a number or an optax schedule.
        clip_norm: largest global norm of a gradient; 0 clips nothing.
        l2_penalty: this times the parameters is added to gradients, after the clipping: the
            "weight decay" of PyTorch's Adam, where optax's `adamw` decays beside the optimiser.
        **options: passed to the optimiser, such as `weight_decay` or `momentum`.

    Raises:
        ValueError: an unknown optimiser (the known ones are listed), or options that it lacks.
    """
    make = lookup("optimizer", name, OPTIMIZERS)
    try:
        optimizer = make(learning_rate, **options)
    except TypeError as error:
        raise ValueError(f"The optimizer {name!r} does not take these options: {error}.") from error
    before = []
    if clip_norm > 0:
        before.append(optax.clip_by_global_norm(clip_norm))
    if l2_penalty > 0:
        before.append(optax.add_decayed_weights(l2_penalty))
    return optax.chain(*before, optimizer) if before else optimizer
