"""What a model is trained for: its loss on images, and the score that stitching is judged by."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from relrep_jax.checks import lookup
from relrep_jax.data import ImageDataset
from relrep_jax.experiments.config import ConfigError
from relrep_jax.experiments.image_quality import IMAGE_METRICS
from relrep_jax.models import Autoencoder, Classifier, VariationalAutoencoder
from relrep_jax.models.functional import PureModel, Variables, functional
from relrep_jax.models.representation import Representation, represent
from relrep_jax.stitching import is_correct, squared_error
from relrep_jax.stitching.scores import class_counts, f1_of_counts
from relrep_jax.training.loop import Loss
from relrep_jax.training.losses import RECONSTRUCTION_LOSSES, cross_entropy


class Task(NamedTuple):
    """One kind of model on one data set, for one representation.

    `data` and `batch` are `{"image": [n, h, w, c] as stored, "label": [n]}`; an encoder or
    decoder is a model's `Variables`.

    Attributes:
        model: the model as pure functions.
        metrics: what the scores are called in tables, the leading one first.
        loss: training loss of one seed; its context is the anchors' images.
        encode_anchors: `(variables, anchor images) -> [m, d]`.
        encode: `(variables, anchor latents, images) -> space`, which crosses between models.
        decode: `(variables, space) -> prediction`.
        score: `(prediction, batch) -> [n, k]`, the leading metric first.
        summarize: `means over samples [..., k] -> metrics [...] by name`.
    """

    model: PureModel
    metrics: tuple[str, ...]
    loss: Loss
    encode_anchors: Callable[[Variables, jax.Array], jax.Array]
    encode: Callable[[Variables, jax.Array, jax.Array], jax.Array]
    decode: Callable[[Variables, jax.Array], jax.Array]
    score: Callable[[jax.Array, Any], jax.Array]
    summarize: Callable[[np.ndarray], dict[str, np.ndarray]]


def _to_unit(images: jax.Array, scale: float) -> jax.Array:
    return images.astype(jnp.float32) / scale


def _latent_dim(config: ConfigDict, representation: Representation) -> int:
    fields = config.model
    if representation.is_absolute or fields.relative_latent_dim < 0:
        return fields.latent_dim
    return fields.relative_latent_dim


def _make_task(
    build: Callable[[nnx.Rngs], nnx.Module],
    representation: Representation,
    scale: float,
    loss_of: Callable[..., tuple[jax.Array, tuple[Any, dict]]],
    metrics: tuple[str, ...],
    score: Callable[[jax.Array, Any], jax.Array],
    summarize: Callable[[np.ndarray], dict[str, np.ndarray]],
) -> Task:
    model = functional(build)

    def encode_anchors(variables: Variables, images: jax.Array) -> jax.Array:
        return model.apply(variables, "encode", _to_unit(images, scale))[0]

    def encode(variables: Variables, anchors: jax.Array, images: jax.Array) -> jax.Array:
        latents, _ = model.apply(variables, "encode", _to_unit(images, scale))
        return represent(representation, latents, anchors)

    def decode(variables: Variables, space: jax.Array) -> jax.Array:
        return model.apply(variables, "decode", space)[0]

    def loss(variables: Variables, batch: Any, anchor_images: jax.Array, key: jax.Array):
        anchors = None
        if not representation.is_absolute:
            # Anchors are encoded anew in every step, in the mode of the batch, but no gradient
            # passes through them, and their statistics are not the ones that are remembered.
            frozen = jax.tree.map(jax.lax.stop_gradient, variables)
            anchors, _ = model.apply(frozen, "encode", _to_unit(anchor_images, scale), train=True)
        return loss_of(model, variables, batch, anchors, key)

    return Task(model, metrics, loss, encode_anchors, encode, decode, score, summarize)


def _reconstruction(
    module: type[Autoencoder],
    config: ConfigDict,
    dataset: ImageDataset,
    representation: Representation,
) -> Task:
    scale = dataset.scale
    if config.training.loss == "cross_entropy":
        raise ConfigError(
            "config.training.loss is 'cross_entropy', a loss of classes. For reconstructions set "
            f"it to one of: {', '.join(sorted(RECONSTRUCTION_LOSSES))}."
        )
    objective = lookup("loss", config.training.loss, RECONSTRUCTION_LOSSES)
    divergence_weight = config.training.kl_weight

    def build(rngs: nnx.Rngs) -> Autoencoder:
        return module(
            dataset.image_shape,
            channels=tuple(config.model.channels),
            latent_dim=_latent_dim(config, representation),
            representation=representation,
            num_anchors=config.anchors.count,
            rngs=rngs,
        )

    def loss_of(model, variables, batch, anchors, key):
        images = _to_unit(batch["image"], scale)
        (prediction, divergence), stats = model.apply(
            variables, "reconstruct", images, anchors, key, train=True
        )
        value = objective(prediction, images) + divergence_weight * divergence
        metrics = {"mse": jnp.mean(squared_error(prediction, images))}
        if module is VariationalAutoencoder:
            metrics["kl"] = divergence
        return value, (stats, metrics)

    further = {name: lookup("metric", name, IMAGE_METRICS) for name in config.evaluation.metrics}
    measures = {"mse": squared_error, **further}

    def score(prediction, batch):
        images = _to_unit(batch["image"], scale)
        return jnp.stack([measure(prediction, images) for measure in measures.values()], axis=-1)

    def summarize(means):
        return {name: means[..., k] for k, name in enumerate(measures)}

    return _make_task(build, representation, scale, loss_of, tuple(measures), score, summarize)


def autoencoder(config: ConfigDict, dataset: ImageDataset, representation: Representation) -> Task:
    """Convolutional autoencoder, scored by the mean squared error of its reconstructions."""
    return _reconstruction(Autoencoder, config, dataset, representation)


def variational_autoencoder(
    config: ConfigDict, dataset: ImageDataset, representation: Representation
) -> Task:
    """Convolutional variational autoencoder, scored as the autoencoder, through the mean code."""
    return _reconstruction(VariationalAutoencoder, config, dataset, representation)


CLASS_METRICS: dict[str, Callable[[jax.Array], jax.Array]] = {"f1_weighted": f1_of_counts}
"""What a classifier may be scored by beside accuracy: of means of `class_counts`."""


def classifier(config: ConfigDict, dataset: ImageDataset, representation: Representation) -> Task:
    """Convolutional classifier, scored by accuracy and, where asked for, weighted F1."""
    if config.training.loss in RECONSTRUCTION_LOSSES:
        raise ConfigError(
            f"config.training.loss is {config.training.loss!r}, a loss of reconstructions. For a "
            "classifier set --config.training.loss=cross_entropy."
        )
    lookup("loss", config.training.loss, {"cross_entropy": cross_entropy})
    of_images = [name for name in config.evaluation.metrics if name in IMAGE_METRICS]
    if of_images:
        raise ConfigError(
            f"config.evaluation.metrics: {of_images[0]} is of reconstructed images, and a "
            f"classifier makes none. Known: {', '.join(CLASS_METRICS)}."
        )
    for name in config.evaluation.metrics:
        lookup("metric", name, CLASS_METRICS)
    further = dict.fromkeys(config.evaluation.metrics)
    if config.model.relative_latent_dim == 0:
        raise ConfigError(
            "config.model.relative_latent_dim must be at least 1 for a classifier, or below 0 to "
            "be as config.model.latent_dim, got 0."
        )

    def build(rngs: nnx.Rngs) -> Classifier:
        return Classifier(
            dataset.image_shape,
            num_classes=dataset.num_classes,
            channels=tuple(config.model.channels),
            latent_dim=_latent_dim(config, representation),
            representation=representation,
            num_anchors=config.anchors.count,
            rngs=rngs,
        )

    def loss_of(model, variables, batch, anchors, key):
        del key
        latents, stats = model.apply(
            variables, "encode", _to_unit(batch["image"], dataset.scale), train=True
        )
        space = represent(representation, latents, anchors)
        logits, _ = model.apply(variables, "decode", space, train=True)
        accuracy = jnp.mean(is_correct(logits, batch["label"]))
        return cross_entropy(logits, batch["label"]), (stats, {"accuracy": accuracy})

    def score(prediction, batch):
        correct = is_correct(prediction, batch["label"])[:, None]
        if not further:
            return correct
        said = jnp.argmax(prediction, axis=-1)
        counts = class_counts(said, batch["label"], prediction.shape[-1])
        # What is NaN has no largest logit.
        return jnp.concatenate([correct, jnp.where(jnp.isnan(correct), jnp.nan, counts)], axis=-1)

    def summarize(means):
        scores = {name: np.asarray(CLASS_METRICS[name](means[..., 1:])) for name in further}
        return {"accuracy": means[..., 0], **scores}

    metrics = ("accuracy", *further)
    return _make_task(build, representation, dataset.scale, loss_of, metrics, score, summarize)


TASKS: dict[str, Callable[[ConfigDict, ImageDataset, Representation], Task]] = {
    "autoencoder": autoencoder,
    "variational_autoencoder": variational_autoencoder,
    "classifier": classifier,
}


def count_parameters(task: Task) -> int:
    """Trained numbers in one seed's model; builds the model abstractly, so it is cheap."""
    shapes = jax.eval_shape(task.model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
