"""Classifier heads on frozen spaces.

`fit(key, space, labels, num_classes) -> params`, `apply(params, space) -> logits`. A head reads a
space `[n, r]` or, through an aggregation, a product `[s, n, m]`. Its parameters are a pytree, and
fitting is pure, so that `jit`, `vmap` and `lax.map` train many heads in one program.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from relrep_jax import aggregation as _aggregation
from relrep_jax import transforms
from relrep_jax._linalg import as_float, dot
from relrep_jax.checks import check_count, check_number, lookup
from relrep_jax.models.functional import functional
from relrep_jax.training.loop import TrainState, init_state, train_steps

Params = Any
Aggregation = str | Callable[..., nnx.Module]
IsTuned = Callable[[tuple[str, ...]], bool]
"""Whether the parameter at a path of names, such as `("out", "kernel")`, is tuned."""


class Head(NamedTuple):
    """A trainable classifier on a frozen space.

    Attributes:
        fit: `(key, space [n, ...], labels [n], num_classes) -> params`.
        apply: `(params, space) -> logits [n, num_classes]`.
        is_random: whether `fit` depends on its key.
        tune: `(key, params, space, labels, is_tuned) -> params`: go on from parameters that were
            fitted elsewhere, with those alone whose path of names `is_tuned` accepts. None where
            that cannot be.
    """

    fit: Callable[[jax.Array, jax.Array, jax.Array, int], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    is_random: bool
    tune: Callable[[jax.Array, Params, jax.Array, jax.Array, IsTuned], Params] | None = None


def _flatten(aggregation: str | None) -> Callable[[jax.Array], jax.Array]:
    """Products to one space, without parameters."""
    normalize = transforms.layer_normalization.apply

    def flatten(space: jax.Array) -> jax.Array:
        if space.ndim == 2:
            return space
        normalized = jax.vmap(lambda one: normalize((), one))(space)
        if aggregation == "sum":
            return jnp.sum(normalized, axis=0)
        return jnp.moveaxis(normalized, 0, 1).reshape(space.shape[1], -1)

    return flatten


def logistic_regression(
    C: float = 0.01,
    *,
    aggregation: str = "concatenation",
    tolerance: float = 1e-4,
    max_steps: int = 500,
) -> Head:
    """Multinomial logistic regression on standardised features, by L-BFGS.

    `min_W,b  C sum_i nll_i + |W|^2 / 2`, the objective of scikit-learn's `LogisticRegression(C)`
    after a `StandardScaler`; the intercept is not penalised. It is convex, so that the head does
    not depend on a key.

    Args:
        C: inverse strength of the penalty.
        aggregation: how a product becomes one space: `concatenation` or `sum` of its spaces, each
            normalised over its anchors.
        tolerance: largest entry of the gradient (of the objective divided by `C n`) at which the
            iteration ends; the default is that of scikit-learn.
        max_steps: the most steps it takes.

    Raises:
        ValueError: `C` is not positive, `tolerance` negative or `max_steps` below 1; or the
            aggregation is one that has to be learned.
    """
    check_number("C", C, "be positive", lambda value: value > 0)
    check_number("tolerance", tolerance, "not be negative", lambda value: value >= 0)
    check_count("max_steps", max_steps)
    if aggregation not in ("concatenation", "sum"):
        lookup("aggregation", aggregation, _aggregation.AGGREGATIONS)
        raise ValueError(
            f"The aggregation {aggregation!r} is learned, and logistic regression learns none: "
            "take 'concatenation' or 'sum', or a head such as 'mlp'."
        )
    flatten = _flatten(aggregation)

    def fit(key, space, labels, num_classes):
        del key
        x = as_float(flatten(space))
        scaler = transforms.fit("standard_scaling", x)
        x = scaler(x)

        def objective(weights):
            logits = dot(x, weights["kernel"]) + weights["bias"]
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses) + jnp.sum(jnp.square(weights["kernel"])) / (2 * C * len(labels))

        optimizer = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=15))
        value_and_grad = optax.value_and_grad_from_state(objective)

        def unfinished(carry):
            step, _, _, size = carry
            return (step < max_steps) & (size > tolerance)

        def advance(carry):
            step, weights, state, _ = carry
            value, gradient = value_and_grad(weights, state=state)
            updates, state = optimizer.update(
                gradient, state, weights, value=value, grad=gradient, value_fn=objective
            )
            size = optax.tree.norm(gradient, ord=jnp.inf)
            return step + 1, optax.apply_updates(weights, updates), state, size

        zeros = {
            "kernel": jnp.zeros((x.shape[1], num_classes), x.dtype),
            "bias": jnp.zeros((num_classes,), x.dtype),
        }
        start = (0, zeros, optimizer.init(zeros), jnp.asarray(jnp.inf, x.dtype))
        _, weights, _, _ = jax.lax.while_loop(unfinished, advance, start)
        return {"scaler": scaler, **weights}

    def apply(params, space):
        x = params["scaler"](as_float(flatten(space)))
        return dot(x, params["kernel"]) + params["bias"]

    return Head(fit, apply, is_random=False)


def _instance_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Every feature brought to mean 0 and variance 1 over the batch at hand, `[n, h]`."""
    centred = x - jnp.mean(x, axis=0)
    return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=0) + epsilon)


def _identity(x: jax.Array) -> jax.Array:
    return x


class _MLP(nnx.Module):
    """LayerNorm, then Linear, activation and instance normalisation in turn, then Linear."""

    def __init__(self, shape, hidden, num_classes, activation, last, aggregation, *, rngs):
        if len(shape) == 3:
            self.aggregate = _aggregation.get(aggregation)(shape[0], shape[2], rngs=rngs)
            width = self.aggregate.out_features
        else:
            self.aggregate, width = _identity, shape[-1]
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
        widths = (width, *(h or width for h in hidden))
        self.layers = nnx.List(
            nnx.Linear(a, b, rngs=rngs) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.out = nnx.Linear(widths[-1], num_classes, rngs=rngs)
        self.activation = activation
        self.last = last

    def __call__(self, space: jax.Array) -> jax.Array:
        x = self.norm(self.aggregate(space))
        for layer in self.layers:
            x = _instance_norm(self.activation(layer(x)))
        return self.last(self.out(x))


def _mlp(
    hidden, activation, last, learning_rate, epochs, batch_size, aggregation: Aggregation
) -> Head:
    _aggregation.get(aggregation)
    check_count("epochs", epochs)
    check_count("batch_size", batch_size, 2)
    check_number("learning_rate", learning_rate, "be positive", lambda value: value > 0)

    def model_of(space, num_classes):
        # Only the number of spaces and of features is read from the shape.
        return functional(
            lambda rngs: _MLP(
                space.shape, hidden, num_classes, activation, last, aggregation, rngs=rngs
            )
        )

    def train(model, optimizer, state, space, labels):
        # Samples first, as the training loop wants them.
        data = {"space": space if space.ndim == 2 else jnp.moveaxis(space, 1, 0), "label": labels}

        def loss(variables, batch, context, key):
            del context, key
            x = batch["space"] if space.ndim == 2 else jnp.moveaxis(batch["space"], 0, 1)
            logits, stats = model.apply(variables, "__call__", x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            return jnp.mean(losses), (stats, {})

        size = min(batch_size, len(labels))
        steps = len(labels) // size

        def epoch(state, _):
            state, _ = train_steps(
                loss, optimizer, state, data, lambda data: None, batch_size=size, num_steps=steps
            )
            return state, None

        state, _ = jax.lax.scan(epoch, state, length=epochs)
        return state.variables

    def fit(key, space, labels, num_classes):
        space = as_float(space)
        model = model_of(space, num_classes)
        optimizer = optax.adam(learning_rate)
        state = init_state(model, optimizer, jax.random.bits(key))
        return train(model, optimizer, state, space, labels)

    def tune(key, params, space, labels, is_tuned):
        space = as_float(space)
        parts = {True: optax.adam(learning_rate), False: optax.set_to_zero()}
        optimizer = optax.partition(parts, mask_of(params.params, is_tuned))
        state = TrainState(jnp.zeros((), jnp.int32), key, params, optimizer.init(params.params))
        return train(model_of(space, classes_of(params)), optimizer, state, space, labels)

    def apply(params, space):
        space = as_float(space)
        return model_of(space, classes_of(params)).apply(params, "__call__", space)[0]

    def classes_of(params):
        return params.params["out"]["bias"].shape[-1]

    return Head(fit, apply, is_random=True, tune=tune)


def mask_of(params: Params, is_tuned: IsTuned) -> Any:
    """`is_tuned` of every leaf, as a tree like `params` (nested dicts)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool(is_tuned(tuple(str(entry.key) for entry in path))), params
    )


def count_tuned(params: Params, is_tuned: IsTuned) -> int:
    """How many numbers `is_tuned` lets a head's tuning change."""
    mask = jax.tree.leaves(mask_of(params.params, is_tuned))
    sizes = (leaf.size for leaf in jax.tree.leaves(params.params))
    return sum(size for size, tuned in zip(sizes, mask, strict=True) if tuned)


def mlp(
    *,
    learning_rate: float = 1e-3,
    epochs: int = 10,
    batch_size: int = 32,
    aggregation: Aggregation = "mlp_sum",
) -> Head:
    """The head of the cross-architecture vision experiment, with one hidden layer.

    LayerNorm, Linear(r, r), tanh, instance normalisation, Linear. The instance normalisation takes
    its statistics over the batch that it is given, at test time too, as in the paper's code: it
    needs more than one sample, and scores depend on which samples are scored together.

    Args:
        learning_rate: of Adam. The paper's is 1e-4, for data sets a hundred times larger.
        epochs, batch_size: of the training.
        aggregation: how a product becomes one space; learned together with the head.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 5.2, CIFAR-100.
    """
    return _mlp((None,), jnp.tanh, _identity, learning_rate, epochs, batch_size, aggregation)


def deep_mlp(
    *,
    learning_rate: float = 1e-3,
    epochs: int = 5,
    batch_size: int = 32,
    aggregation: Aggregation = "mlp_sum",
) -> Head:
    """The head of the text experiments, with two hidden layers.

    LayerNorm, twice Linear(r, r), SiLU, instance normalisation, then Linear and ReLU. See `mlp`
    for what the instance normalisation implies.

    Args:
        learning_rate: of Adam. The paper's is 1e-4 on TREC.
        epochs, batch_size: of the training.
        aggregation: how a product becomes one space; learned together with the head.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 5.2, text.
    """
    return _mlp(
        (None, None), jax.nn.silu, jax.nn.relu, learning_rate, epochs, batch_size, aggregation
    )


HEADS: dict[str, Callable[..., Head]] = {
    "logistic_regression": logistic_regression,
    "mlp": mlp,
    "deep_mlp": deep_mlp,
}
"""Makers of heads by name."""


def get(head: str | Head) -> Head:
    """The head of that name with its default options, or the head itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    return head if isinstance(head, Head) else _made(lookup("head", head, HEADS))


@lru_cache
def _made(make: Callable[[], Head]) -> Head:
    """The same object each time, so that what is compiled for it serves again."""
    return make()
