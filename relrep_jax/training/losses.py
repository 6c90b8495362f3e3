"""Losses of the autoencoders and of the classifiers."""

import jax
import jax.numpy as jnp
import optax


def optimal_sigma_nll(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Gaussian negative log-likelihood with the variance that is best for the batch.

    `sum_pixels [((t - p) / sigma)^2 / 2 + log sigma]`, mean over samples, with
    `log sigma = log(mean((t - p)^2)) / 2` (the constant `log(2 pi) / 2` a pixel is left out).

    Args:
        prediction, target: `[n, ...]` of one shape.

    Returns:
        A scalar; below zero once sigma falls below `exp(-1/2)`.

    Reference: Rybkin et al. 2021 (arXiv 2006.13202), as used by Moschella et al. 2023.
    """
    squared = jnp.square(target - prediction)
    # A perfect batch would have sigma zero; 1e-6 is far below what any model here reaches.
    log_sigma = 0.5 * jnp.log(jnp.maximum(jnp.mean(squared), 1e-12))
    return jnp.sum(0.5 * squared * jnp.exp(-2 * log_sigma) + log_sigma) / target.shape[0]


def mean_squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """`mean((t - p)^2)` over everything: a scalar."""
    return jnp.mean(jnp.square(target - prediction))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean softmax cross entropy of logits `[n, classes]` and integer labels `[n]`, in nats."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


RECONSTRUCTION_LOSSES = {
    "optimal_sigma": optimal_sigma_nll,
    "mse": mean_squared_error,
}
