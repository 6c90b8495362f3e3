"""Anchors by chance: uniform, in turn from every class, among the most frequent samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from relrep_jax._sharding import automatic_sharding
from relrep_jax.anchors._checks import check_num_anchors


def uniform(key: jax.Array, num_samples: int, num_anchors: int) -> jax.Array:
    """Anchors drawn uniformly, without replacement.

    Args:
        key: a `jax.random.key`.
        num_samples: the number n of samples to choose from.
        num_anchors: the number m of anchors.

    Returns:
        `[m]` int32 indices in `[0, n)`, distinct, in random order.

    Raises:
        ValueError: `num_anchors` is below 1 or above `num_samples`.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 3.

    Example:
        >>> import jax
        >>> from relrep_jax import anchors
        >>> sets = jax.vmap(lambda key: anchors.uniform(key, 1000, 50))(
        ...     jax.random.split(jax.random.key(0), 8))
        >>> sets.shape
        (8, 50)
    """
    check_num_anchors(num_samples, num_anchors)
    return jax.random.permutation(key, num_samples)[:num_anchors].astype(jnp.int32)


@automatic_sharding
def stratified(key: jax.Array, labels: ArrayLike, num_anchors: int) -> jax.Array:
    """Anchors drawn in turn from every class, uniformly inside a class.

    Round-robin over the classes in random order: with m = q C + r each class gives q anchors and
    r of them, drawn at random, one more. A class that runs out is passed over.

    Args:
        key: a `jax.random.key`.
        labels: `[n]` integers, any values.
        num_anchors: the number m of anchors.

    Returns:
        `[m]` int32 indices in `[0, n)`, distinct. The classes alternate, so that every prefix
        is stratified, too.

    Raises:
        ValueError: labels that are not a vector of integers; `num_anchors` is below 1 or above n.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), `stratified_subset` in their experiments.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from relrep_jax import anchors
        >>> labels = jnp.arange(100) % 4
        >>> jnp.bincount(labels[anchors.stratified(jax.random.key(0), labels, 8)]).tolist()
        [2, 2, 2, 2]
    """
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels must be a vector [n] of integers, got shape {labels.shape} and dtype "
                f"{labels.dtype}."
            )
    if isinstance(labels, np.ndarray) and labels.size:
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(labels.dtype))
        if labels.min() < limits.min or labels.max() > limits.max:
            # JAX would wrap them round and make one class of several.
            labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    labels = jnp.asarray(labels)
    if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be a vector [n] of integers, got shape {labels.shape} and dtype "
            f"{labels.dtype}."
        )
    num_samples = labels.shape[0]
    check_num_anchors(num_samples, num_anchors)
    shuffle_key, class_key = jax.random.split(key)
    shuffled = jax.random.permutation(shuffle_key, num_samples)
    shuffled_labels = labels[shuffled]
    # A sample's round is the number of samples of its class that come before it.
    by_class = jnp.argsort(shuffled_labels, stable=True)
    sorted_labels = shuffled_labels[by_class]
    position = jnp.arange(num_samples)
    is_first = jnp.concatenate([jnp.array([True]), sorted_labels[1:] != sorted_labels[:-1]])
    class_start = jax.lax.cummax(jnp.where(is_first, position, 0))
    turn = jnp.zeros(num_samples, position.dtype).at[by_class].set(position - class_start)
    class_order = jax.vmap(lambda label: jax.random.bits(jax.random.fold_in(class_key, label)))(
        shuffled_labels
    )
    order = jnp.lexsort((class_order, turn))
    return shuffled[order[:num_anchors]].astype(jnp.int32)


def top_frequency(key: jax.Array, num_samples: int, num_anchors: int, top: int) -> jax.Array:
    """Anchors drawn uniformly among the first `top` samples, as words that are sorted by frequency.

    Args:
        key: a `jax.random.key`.
        num_samples: the number n of samples, the most frequent first.
        num_anchors: the number m of anchors.
        top: how many of the first samples may become anchors, `m <= top <= n`.

    Returns:
        `[m]` int32 indices in `[0, top)`, distinct, in random order.

    Raises:
        ValueError: `top` is below 1 or above n; `num_anchors` is below 1 or above `top`.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 4.1, `top_k` of their notebooks.

    Example:
        >>> import jax
        >>> from relrep_jax import anchors
        >>> bool((anchors.top_frequency(jax.random.key(0), 20000, 300, 1000) < 1000).all())
        True
    """
    if not 1 <= top <= num_samples:
        raise ValueError(
            f"top must lie between 1 and the number of samples, {num_samples}, got {top}."
        )
    if num_anchors > top:
        raise ValueError(
            f"num_anchors is {num_anchors}, but only the first {top} samples may be chosen, and "
            "anchors are distinct. Ask for fewer anchors or raise top."
        )
    return uniform(key, top, num_anchors)
