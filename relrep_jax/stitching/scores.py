"""Scores of predicted classes."""

import jax
import jax.numpy as jnp


def accuracy(predicted: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """The part of predictions `[n]` that equal the labels `[n]`.

    Raises:
        ValueError: the shapes differ.
    """
    del num_classes
    predicted, labels = jnp.asarray(predicted), jnp.asarray(labels)
    if predicted.shape != labels.shape:
        raise ValueError(
            f"predicted and labels must have one shape, got {predicted.shape} and {labels.shape}."
        )
    return jnp.mean((predicted == labels).astype(jnp.float32))


def class_counts(predicted: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """`[n], [n] -> [n, 3 * c]`: of every class whether it is predicted, true, and both."""
    said = jax.nn.one_hot(predicted, num_classes)
    true = jax.nn.one_hot(labels, num_classes)
    return jnp.concatenate([said, true, said * true], axis=-1)


def f1_of_counts(counts: jax.Array) -> jax.Array:
    """Sums or means over samples `[..., 3 * c]` of `class_counts` to weighted F1 `[...]`."""
    said, true, both = jnp.split(counts, 3, axis=-1)
    size = said + true
    f1 = jnp.where(size > 0, 2 * both / jnp.where(size > 0, size, 1.0), 0.0)
    return jnp.sum(f1 * true, axis=-1) / jnp.sum(true, axis=-1)


def f1_weighted(predicted: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """F1 of every class, averaged by how many samples the class has.

    `2 tp / (2 tp + fp + fn)`; 0 for a class that is neither there nor predicted, as in
    scikit-learn's `f1_score(average="weighted")`.

    Args:
        predicted: `[n]` integers in `[0, num_classes)`.
        labels: `[n]` integers in `[0, num_classes)`.
        num_classes: how many classes there are.
    """
    return f1_of_counts(jnp.sum(class_counts(predicted, labels, num_classes), axis=0))


SCORES = {"accuracy": accuracy, "f1_weighted": f1_weighted}
"""Scores `(predicted [n], labels [n], num_classes) -> []` by name."""


def score_logits(logits: jax.Array, labels: jax.Array, num_classes: int) -> dict[str, jax.Array]:
    """Every score, by name, of the classes with the largest logits `[n, num_classes]`.

    NaN where a logit is not finite: its largest would be taken for the first class.
    """
    predicted = jnp.argmax(logits, axis=-1)
    is_sound = jnp.all(jnp.isfinite(logits))
    return {
        name: jnp.where(is_sound, score(predicted, labels, num_classes), jnp.nan)
        for name, score in SCORES.items()
    }
