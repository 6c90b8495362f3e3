"""Graph convolutions over sparse adjacency, and a node classifier made of them.

A graph is `Adjacency`: a list of edges and their weights, whose length is static. Edges of weight 0
change nothing, so that lists of different lengths can be padded to one. Nothing here is dense in
the number of nodes. Features that are mostly zeros, such as bags of words, may be a `BCOO` matrix.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.sparse import BCOO

from relrep_jax.checks import check_count, check_matrix, lookup
from relrep_jax.models.representation import Reader, Representation

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "identity": lambda x: x,
}


class Adjacency(NamedTuple):
    """A sparse matrix `[n, n]` with `weights[i]` at row `edges[1, i]`, column `edges[0, i]`.

    Attributes:
        edges: `[2, e]` integers: sources, then targets. Entries of the same place add up.
        weights: `[e]` floats; 0 for padded edges, whose ends may be any nodes.
    """

    edges: jax.Array
    weights: jax.Array


def _check_edges(edges: jax.Array, weights: jax.Array) -> None:
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise ValueError(
            f"edges must have shape [2, e] (sources, then targets), got {tuple(edges.shape)}."
        )
    if not jnp.issubdtype(edges.dtype, jnp.integer):
        raise ValueError(f"edges must be integers, the numbers of nodes, got {edges.dtype}.")
    if weights.shape != edges.shape[1:]:
        raise ValueError(
            f"weights must have shape [{edges.shape[1]}], one for each edge, got "
            f"{tuple(weights.shape)}."
        )


def propagate(adjacency: Adjacency, x: jax.Array) -> jax.Array:
    """What every node gets from its neighbours: `y[t] = sum of weight * x[s] over edges (s, t)`.

    Args:
        adjacency: of n nodes.
        x: `[n, d]`.

    Returns:
        `[n, d]` in x's dtype; zeros for a node without edges.
    """
    sources, targets = adjacency.edges
    dtype = jnp.promote_types(adjacency.weights.dtype, x.dtype)
    messages = adjacency.weights[:, None].astype(dtype) * x[sources].astype(dtype)
    return jax.ops.segment_sum(messages, targets, x.shape[0]).astype(x.dtype)


def sparse_product(matrix: BCOO, kernel: jax.Array) -> jax.Array:
    """The product of a sparse matrix `[n, f]` and a dense one `[f, d]`, as sums over entries.

    Args:
        matrix: sparse in both of its axes.
        kernel: `[f, d]`.

    Returns:
        `[n, d]` in the kernel's dtype.

    Raises:
        ValueError: the matrix has dense or batch axes.
    """
    if matrix.n_sparse != 2 or matrix.ndim != 2:
        raise ValueError(
            f"The matrix must be sparse in both of its two axes, got the shape {matrix.shape} with "
            f"{matrix.n_batch} batch, {matrix.n_sparse} sparse and {matrix.n_dense} dense axes."
        )
    rows, columns = matrix.indices.T
    parts = matrix.data[:, None].astype(kernel.dtype) * kernel[columns]
    return jax.ops.segment_sum(
        parts, rows, matrix.shape[0], indices_are_sorted=matrix.indices_sorted
    )


def normalized_adjacency(
    edges: jax.Array,
    num_nodes: int,
    weights: jax.Array | None = None,
    *,
    self_loops: bool = True,
) -> Adjacency:
    """The symmetrically normalised adjacency `D^-1/2 A D^-1/2`, D being the sums of A's rows.

    Args:
        edges: `[2, e]`, both directions of every undirected edge.
        num_nodes: the number n of nodes.
        weights: `[e]`, ones if left out; 0 marks padded edges.
        self_loops: first give every node that has no edge to itself one of weight 1, which makes
            the list n edges longer.

    Returns:
        The normalised adjacency; an isolated node without a self-loop has no weights at all.

    Raises:
        ValueError: edges that are not `[2, e]` integers, weights of another length.

    Reference: Kipf & Welling 2017 (arXiv 1609.02907), equation 2.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from relrep_jax.models.graph import normalized_adjacency, propagate
        >>> path = jnp.array([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2
        >>> adjacency = normalized_adjacency(path, 3, self_loops=False)
        >>> np.round(np.asarray(propagate(adjacency, jnp.ones((3, 1))), np.float64).T, 2)
        array([[0.71, 1.41, 0.71]])
    """
    edges = jnp.asarray(edges)
    weights = jnp.ones(edges.shape[1:], jnp.float32) if weights is None else jnp.asarray(weights)
    _check_edges(edges, weights)
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        weights = weights.astype(jnp.float32)
    if self_loops:
        is_loop = ((edges[0] == edges[1]) & (weights != 0)).astype(weights.dtype)
        has_loop = jax.ops.segment_sum(is_loop, edges[1], num_nodes) > 0
        nodes = jnp.arange(num_nodes, dtype=edges.dtype)
        edges = jnp.concatenate([edges, jnp.stack([nodes, nodes])], axis=1)
        weights = jnp.concatenate([weights, jnp.where(has_loop, 0, 1).astype(weights.dtype)])
    degrees = jax.ops.segment_sum(weights, edges[1], num_nodes)
    connected = degrees > 0
    scale = jnp.where(connected, jax.lax.rsqrt(jnp.where(connected, degrees, 1)), 0)
    return Adjacency(edges, scale[edges[0]] * weights * scale[edges[1]])


class GCNConv(nnx.Module):
    """Graph convolution `A x W + b`, A being the normalised adjacency with self-loops.

    Args:
        in_features, out_features: widths of x and of the result.

    Reference: Kipf & Welling 2017 (arXiv 1609.02907).
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.glorot_uniform()
        self.linear = nnx.Linear(
            in_features, out_features, use_bias=False, kernel_init=init, rngs=rngs
        )
        self.bias = nnx.Param(jnp.zeros(out_features, jnp.float32))

    def __call__(self, x: jax.Array, adjacency: Adjacency) -> jax.Array:
        """`[n, in]` to `[n, out]`."""
        return propagate(adjacency, self.linear(x)) + self.bias[...].astype(x.dtype)


class GCN2Conv(nnx.Module):
    """Graph convolution with initial residual and identity mapping, which stays deep (GCNII).

    With `p = (1 - alpha) A x`, `r = alpha x_0` and `beta` the strength of the mapping:
    `(1 - beta) (p + r) + beta (p + r) W` with shared weights, else
    `(1 - beta) (p + r) + beta (p W_1 + r W_2)`.

    Args:
        features: width of x, of x_0 and of the result.
        shared_weights: one matrix for both parts, or one for each.

    Reference: Chen et al. 2020 (arXiv 2007.02133), equation 5, where `beta = log(theta / l + 1)`
    in layer l = 1, 2, ... (`identity_strength`).
    """

    def __init__(self, features: int, *, shared_weights: bool = True, rngs: nnx.Rngs):
        init = jax.nn.initializers.glorot_uniform()
        linear = partial(
            nnx.Linear, features, features, use_bias=False, kernel_init=init, rngs=rngs
        )
        self.linear = linear()
        self.initial_linear = None if shared_weights else linear()

    def __call__(
        self,
        x: jax.Array,
        initial: jax.Array,
        adjacency: Adjacency,
        *,
        alpha: float | jax.Array = 0.1,
        beta: float | jax.Array = 0.5,
    ) -> jax.Array:
        """`[n, d]` and the first layer's input `[n, d]` to `[n, d]`."""
        alpha, beta = (jnp.asarray(value, x.dtype) for value in (alpha, beta))
        propagated, residual = (1 - alpha) * propagate(adjacency, x), alpha * initial
        both = propagated + residual
        if self.initial_linear is None:
            mapped = self.linear(both)
        else:
            mapped = self.linear(propagated) + self.initial_linear(residual)
        return (1 - beta) * both + beta * mapped


def identity_strength(theta: float | jax.Array, layer: int | jax.Array) -> jax.Array:
    """GCNII's `beta = log(theta / layer + 1)`, layers being numbered from 1."""
    return jnp.log1p(jnp.asarray(theta) / layer)


class GINConv(nnx.Module):
    """Graph isomorphism layer `W_2 relu(W_1 ((1 + epsilon) x + A x) + b_1) + b_2`.

    A is the adjacency as it is, a sum over neighbours; epsilon is learned and begins at 0.

    Args:
        in_features, out_features: widths of x and of the result.

    Reference: Xu et al. 2019 (arXiv 1810.00826), equation 4.1.
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.epsilon = nnx.Param(jnp.zeros((), jnp.float32))
        self.first = nnx.Linear(in_features, out_features, rngs=rngs)
        self.second = nnx.Linear(out_features, out_features, rngs=rngs)

    def __call__(self, x: jax.Array, adjacency: Adjacency) -> jax.Array:
        """`[n, in]` to `[n, out]`."""
        own = (1 + self.epsilon[...].astype(x.dtype)) * x
        return self.second(jax.nn.relu(self.first(own + propagate(adjacency, x))))


class GraphOptions(NamedTuple):
    """Numbers of a `GraphClassifier` that no shape depends on: arrays of them can be vmapped.

    Attributes:
        dropout: part of the features that is dropped before every layer in training.
        alpha: weight of the initial residual of "gcnii".
        theta: strength of the mapping of "gcnii".
    """

    dropout: float | jax.Array = 0.5
    alpha: float | jax.Array = 0.1
    theta: float | jax.Array = 0.5


DEFAULT_OPTIONS = GraphOptions()
LAYERS = ("gcn", "gcnii", "gin")


def drop(key: jax.Array, x: jax.Array | BCOO, rate: float | jax.Array) -> jax.Array | BCOO:
    """Dropout: each entry is 0 with probability `rate`, else divided by `1 - rate`.

    Args:
        key: a key.
        x: of any shape. Of a sparse matrix only the stored entries are drawn for: the others are
            0 anyway.
        rate: in [0, 1), exact to 1 in 65,536; may be traced.
    """
    if isinstance(x, BCOO):
        return BCOO(
            (drop(key, x.data, rate), x.indices),
            shape=x.shape,
            indices_sorted=x.indices_sorted,
            unique_indices=x.unique_indices,
        )
    # Two 16-bit numbers of each 32-bit one: on a CPU the random bits are half of a layer's time.
    words = jax.random.bits(key, (-(-x.size // 2),), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).ravel()[: x.size].reshape(x.shape)
    rate = jnp.asarray(rate, jnp.float32)
    threshold = jnp.round(rate * 2**16).astype(jnp.uint32)
    scale = (1 / (1 - rate)).astype(x.dtype)
    return jnp.where(halves.astype(jnp.uint32) >= threshold, x * scale, jnp.zeros((), x.dtype))


class GraphClassifier(nnx.Module):
    """Classifier of a graph's nodes whose head reads an absolute or a relative space.

    `features -> encode -> latents -> represent -> space -> decode -> logits`, the encoder being
    a linear layer with an activation, `num_layers` equal graph convolutions with an activation
    each, and a linear layer. Anchors are nodes: their latents are rows of the latents. The layers
    are one set of stacked parameters under a scan, so that 64 compile as fast as 2.

    Args:
        num_features: width of the nodes' features.
        num_classes: the number of logits.
        layer: "gcn", "gcnii" or "gin".
        num_layers: how many convolutions.
        hidden_features: their width.
        latent_dim: width d of the latents.
        hidden_activation, layer_activation: names in `ACTIVATIONS`, after the first linear layer
            and after each convolution.
        shared_weights: see `GCN2Conv`.
        representation: what the head reads.
        num_anchors: the number m of anchors.

    Raises:
        ValueError: sizes below 1; an unknown layer or activation.

    Reference: Moschella et al. 2023 (arXiv 2209.15430), section 4.2 and Table 3.
    """

    def __init__(
        self,
        num_features: int,
        *,
        num_classes: int,
        layer: str = "gcnii",
        num_layers: int = 32,
        hidden_features: int = 300,
        latent_dim: int = 300,
        hidden_activation: str = "relu",
        layer_activation: str = "relu",
        shared_weights: bool = True,
        representation: Representation,
        num_anchors: int,
        rngs: nnx.Rngs,
    ):
        for name, size in (
            ("num_features", num_features),
            ("num_classes", num_classes),
            ("num_layers", num_layers),
            ("hidden_features", hidden_features),
            ("latent_dim", latent_dim),
        ):
            check_count(name, size)
        lookup("graph layer", layer, dict.fromkeys(LAYERS))
        self.hidden_activation = lookup("activation", hidden_activation, ACTIVATIONS)
        self.layer_activation = lookup("activation", layer_activation, ACTIVATIONS)
        self.layer, self.num_layers = layer, num_layers

        def build(key: jax.Array) -> nnx.Module:
            if layer == "gcnii":
                return GCN2Conv(hidden_features, shared_weights=shared_weights, rngs=nnx.Rngs(key))
            module = GCNConv if layer == "gcn" else GINConv
            return module(hidden_features, hidden_features, rngs=nnx.Rngs(key))

        self.to_hidden = nnx.Linear(num_features, hidden_features, rngs=rngs)
        self.layers = nnx.vmap(build)(jax.random.split(rngs.params(), num_layers))
        self.to_latent = nnx.Linear(hidden_features, latent_dim, rngs=rngs)
        self.reader = Reader(representation, latent_dim, num_anchors, rngs=rngs)
        self.head = nnx.Linear(self.reader.out_features, num_classes, rngs=rngs)

    def encode(
        self,
        features: jax.Array | BCOO,
        adjacency: Adjacency,
        options: GraphOptions = DEFAULT_OPTIONS,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Features of all nodes to their latents.

        Args:
            features: `[n, f]`; a `BCOO` matrix of them is faster where hardly any is not 0, such
                as bags of words.
            adjacency: of the n nodes: the normalised one for "gcn" and "gcnii", any for "gin".
            options: numbers or traced scalars.
            key: makes the dropout of a training step; None drops nothing.

        Returns:
            `[n, d]`.
        """
        check_matrix("features", features, columns="f")
        _check_edges(*adjacency)
        graph, stacked = nnx.split(self.layers)

        def maybe_drop(number: int | jax.Array, x: jax.Array) -> jax.Array:
            if key is None:
                return x
            return drop(jax.random.fold_in(key, number), x, options.dropout)

        def step(x: jax.Array, scanned) -> tuple[jax.Array, None]:
            state, number = scanned
            layer = nnx.merge(graph, state)
            dropped = maybe_drop(number, x)
            if self.layer == "gcnii":
                beta = identity_strength(options.theta, number)
                y = layer(dropped, initial, adjacency, alpha=options.alpha, beta=beta)
            else:
                y = layer(dropped, adjacency)
            return self.layer_activation(y), None

        initial = self.hidden_activation(self._widen(maybe_drop(0, features)))
        numbers = jnp.arange(1, self.num_layers + 1)
        x, _ = jax.lax.scan(step, initial, (stacked, numbers))
        return self.to_latent(maybe_drop(self.num_layers + 1, x))

    def _widen(self, features: jax.Array | BCOO) -> jax.Array:
        if not isinstance(features, BCOO):
            return self.to_hidden(features)
        first = self.to_hidden
        return sparse_product(features, first.kernel[...]) + first.bias[...]

    def decode(self, space: jax.Array) -> jax.Array:
        """A space `[n, d]` or `[s, n, m]` to logits `[n, classes]`."""
        return self.head(self.reader(space))
