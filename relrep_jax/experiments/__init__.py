"""Experiments: what to train, what to stitch, which table and picture come out.

An experiment is a module with `default_config()`, `prepare(config) -> job`, which finds every fault
before anything long begins, and `run(job, workdir, console, command)`.
"""

from types import ModuleType

from ml_collections import ConfigDict

from relrep_jax.checks import lookup
from relrep_jax.experiments import (
    cross_architecture,
    cross_lingual,
    data_manifold,
    end_to_end_anchors,
    graph_stitching,
    image_stitching,
    invariances,
    number_of_anchors,
    product_classification,
    seed_similarity,
    space_selection,
    subspaces,
    text_stitching,
    transformation_classes,
    word_embeddings,
)
from relrep_jax.experiments.config import ConfigError

EXPERIMENTS: dict[str, ModuleType] = {
    "cross_architecture": cross_architecture,
    "cross_lingual": cross_lingual,
    "data_manifold": data_manifold,
    "end_to_end_anchors": end_to_end_anchors,
    "graph_stitching": graph_stitching,
    "image_stitching": image_stitching,
    "invariances": invariances,
    "number_of_anchors": number_of_anchors,
    "product_classification": product_classification,
    "seed_similarity": seed_similarity,
    "space_selection": space_selection,
    "subspaces": subspaces,
    "text_stitching": text_stitching,
    "transformation_classes": transformation_classes,
    "word_embeddings": word_embeddings,
}


def get_experiment(config: ConfigDict) -> ModuleType:
    """The experiment that a config names.

    Raises:
        ConfigError: the config does not say, or is none.
        ValueError: an unknown experiment.
    """
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"get_config must return an ml_collections.ConfigDict, got {type(config).__name__}."
        )
    if "experiment" not in config:
        raise ConfigError("The config lacks the field config.experiment.")
    return lookup("experiment", config.experiment, EXPERIMENTS)
