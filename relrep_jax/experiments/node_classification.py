"""What experiments on graphs share: data, split, anchors, model and loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO
from ml_collections import ConfigDict

from relrep_jax import anchors as anchor_choice
from relrep_jax.checks import lookup
from relrep_jax.data import GraphDataset, load_graph
from relrep_jax.data.graphs import normalize_rows, split_nodes
from relrep_jax.experiments.config import ConfigError, check_at_least
from relrep_jax.models import (
    Adjacency,
    GraphClassifier,
    GraphOptions,
    PureModel,
    Representation,
    Variables,
    functional,
    normalized_adjacency,
    represent,
)
from relrep_jax.stitching import is_correct
from relrep_jax.training.loop import Loss
from relrep_jax.training.losses import cross_entropy

MINIMUM = {
    "anchors.count": 1,
    "anchors.seed": 0,
    "data.split_seed": 0,
    "model.num_layers": 1,
    "model.hidden_features": 1,
    "model.latent_dim": 1,
    "training.epochs": 1,
}
"""What the numbers of the fields below must reach."""


class NodeData(NamedTuple):
    """A graph as arrays, which all seeds share.

    Attributes:
        features: `[n, f]`, sparse where most entries are zeros.
        adjacency: of the n nodes, normalised unless the layers want it as it is.
        labels: `[n]`.
        anchors: `[m]` nodes.
        train, val, test: nodes.
    """

    features: Any
    adjacency: Adjacency
    labels: Any
    anchors: Any
    train: Any
    val: Any
    test: Any


def add_graph_fields(config: ConfigDict) -> None:
    """Add the fields that say which graph, which split, which anchors and which model."""
    config.data = ConfigDict()
    # digits (embedded): handwritten digits joined to their nearest neighbours
    config.data.name = "digits"
    # A .npz in gnn-benchmark's layout, instead of a name.
    config.data.path = ""
    # random | file: the split that the file brings.
    config.data.split = "random"
    config.data.split_seed = 0
    # Of all nodes, in a random split; the rest are for training.
    config.data.val_fraction = 0.1
    config.data.test_fraction = 0.1
    # Divide each node's features by their sum.
    config.data.normalize_features = False

    config.model = ConfigDict()
    # gcn | gcnii | gin
    config.model.layer = "gcn"
    config.model.num_layers = 2
    config.model.hidden_features = 64
    config.model.latent_dim = 64
    # relu | tanh | elu | gelu | identity: after the first linear layer, after each convolution.
    config.model.hidden_activation = "relu"
    config.model.layer_activation = "relu"
    # Give every node an edge to itself before the adjacency is normalised.
    config.model.self_loops = True
    config.model.dropout = 0.5
    # Initial residual, strength and sharing of the identity mapping: gcnii alone.
    config.model.alpha = 0.1
    config.model.theta = 0.5
    config.model.shared_weights = True

    config.anchors = ConfigDict()
    config.anchors.count = 128
    # train | all: which nodes may be anchors. Their labels are not looked at.
    config.anchors.among = "train"
    # uniform | stratified (by class, among training nodes)
    config.anchors.choice = "uniform"
    # The same anchors for all seeds: they are what the seeds have in common.
    config.anchors.seed = 0

    config.training = ConfigDict()
    # Every epoch is one step on all training nodes.
    config.training.epochs = 200


def prepare_graph(config: ConfigDict) -> tuple[GraphDataset, NodeData]:
    """Check these fields; load the graph, split it and choose anchors.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_at_least(config, MINIMUM)
    for name, low, high in (("dropout", 0, 1), ("alpha", 0, 1)):
        if not low <= config.model[name] < high:
            raise ConfigError(
                f"config.model.{name} must lie in [{low}, {high}), got {config.model[name]}."
            )
    if not config.model.theta >= 0:
        raise ConfigError(f"config.model.theta must be at least 0, got {config.model.theta}.")
    lookup("split", config.data.split, dict.fromkeys(("random", "file")))
    among = lookup("set of anchors", config.anchors.among, {"train": 0, "all": 1})
    choice = lookup("anchor choice", config.anchors.choice, {"uniform": 0, "stratified": 1})
    if among and choice:
        raise ConfigError(
            "config.anchors.choice = stratified looks at labels, which only training nodes have: "
            "set config.anchors.among to train."
        )
    dataset = load_graph(config.data.path or config.data.name)
    if config.data.split == "file":
        if not dataset.has_split:
            raise ConfigError(f"{dataset.name} brings no split: set config.data.split to random.")
        train, val, test = dataset.train, dataset.val, dataset.test
    else:
        train, val, test = split_nodes(
            jax.random.key(config.data.split_seed),
            dataset.num_nodes,
            config.data.val_fraction,
            config.data.test_fraction,
        )
    nodes = np.arange(dataset.num_nodes, dtype=np.int32) if among else train
    if config.anchors.count > len(nodes):
        what = "nodes" if among else "training nodes"
        hint = "" if among else " Set config.anchors.among to all, or ask for fewer."
        raise ConfigError(
            f"config.anchors.count is {config.anchors.count}, but {dataset.name} has only "
            f"{len(nodes)} {what}, and anchors are distinct.{hint}"
        )
    key = jax.random.key(config.anchors.seed)
    if choice:
        choose = jax.jit(anchor_choice.stratified, static_argnums=2)
        chosen = choose(key, dataset.labels[nodes], config.anchors.count)
    else:
        chosen = anchor_choice.uniform(key, len(nodes), config.anchors.count)
    features = dataset.features
    if config.data.normalize_features:
        features = normalize_rows(features)
    return dataset, NodeData(
        stored_features(features),
        adjacency_for(config.model.layer, dataset, config.model.self_loops),
        dataset.labels,
        nodes[np.asarray(chosen)],
        train,
        val,
        test,
    )


SPARSE_BELOW = 0.02
"""Features of which so few are not 0 are stored sparse."""


def stored_features(features: np.ndarray) -> np.ndarray | BCOO:
    """Features `[n, f]` as they are: or sparse where that is faster (measured on CPU, 64 features
    wide: 10 times at 1.3 % that are not 0, half as fast at 9 %)."""
    if np.count_nonzero(features) > SPARSE_BELOW * features.size:
        return features
    places = np.nonzero(features)
    return BCOO(
        (features[places], np.stack(places, axis=1).astype(np.int32)),
        shape=features.shape,
        indices_sorted=True,
        unique_indices=True,
    )


def adjacency_for(layer: str, dataset: GraphDataset, self_loops: bool) -> Adjacency:
    """The adjacency that a kind of layers reads: GIN sums over neighbours, others average."""
    if layer == "gin":
        return Adjacency(dataset.edges, np.ones(dataset.edges.shape[1], np.float32))
    found = normalized_adjacency(
        jnp.asarray(dataset.edges), dataset.num_nodes, self_loops=self_loops
    )
    return jax.tree.map(np.asarray, found)


def build_model(
    config: ConfigDict, dataset: GraphDataset, representation: Representation, **changes: Any
) -> PureModel:
    """The classifier that `config.model` describes, with some of its arguments changed."""
    fields = config.model
    arguments = {
        name: fields[name]
        for name in (
            "layer",
            "num_layers",
            "hidden_features",
            "latent_dim",
            "hidden_activation",
            "layer_activation",
            "shared_weights",
        )
    } | changes
    return functional(
        lambda rngs: GraphClassifier(
            dataset.features.shape[1],
            num_classes=dataset.num_classes,
            representation=representation,
            num_anchors=config.anchors.count,
            rngs=rngs,
            **arguments,
        )
    )


def options_of(config: ConfigDict) -> GraphOptions:
    """The numbers of `config.model` that no shape depends on."""
    return GraphOptions(config.model.dropout, config.model.alpha, config.model.theta)


def make_loss(model: PureModel, representation: Representation, options: GraphOptions) -> Loss:
    """Cross entropy of the training nodes; a batch is `NodeData`.

    Anchors are encoded anew in every step. No gradient passes through them, and nothing of them is
    dropped: noise in both a node and an anchor hides how alike they are, and nothing is learned.
    """

    def loss(variables: Variables, batch: NodeData, context: Any, key: jax.Array):
        del context
        latents, _ = model.apply(variables, "encode", batch.features, batch.adjacency, options, key)
        anchors = None
        if not representation.is_absolute:
            whole, _ = model.apply(variables, "encode", batch.features, batch.adjacency, options)
            anchors = jax.lax.stop_gradient(whole[batch.anchors])
        space = represent(representation, latents[batch.train], anchors)
        logits, stats = model.apply(variables, "decode", space)
        labels = batch.labels[batch.train]
        return cross_entropy(logits, labels), (
            stats,
            {"accuracy": jnp.mean(is_correct(logits, labels))},
        )

    return loss


def make_encode(
    model: PureModel, representation: Representation, options: GraphOptions
) -> Callable[[Variables, NodeData, Any], jax.Array]:
    """`(variables, data, nodes) -> space` of some nodes, without dropout."""

    def encode(variables: Variables, data: NodeData, nodes: Any) -> jax.Array:
        latents, _ = model.apply(variables, "encode", data.features, data.adjacency, options)
        return represent(representation, latents[nodes], latents[data.anchors])

    return encode
