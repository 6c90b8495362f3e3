"""Encoders, decoders and heads, with the convolution that they are made of."""

from relrep_jax.models.autoencoder import Autoencoder, VariationalAutoencoder
from relrep_jax.models.classifier import Classifier
from relrep_jax.models.functional import PureModel, Variables, functional
from relrep_jax.models.graph import Adjacency, GraphClassifier, GraphOptions, normalized_adjacency
from relrep_jax.models.representation import Reader, Representation, represent

__all__ = [
    "Adjacency",
    "Autoencoder",
    "Classifier",
    "GraphClassifier",
    "GraphOptions",
    "PureModel",
    "Reader",
    "Representation",
    "Variables",
    "VariationalAutoencoder",
    "functional",
    "normalized_adjacency",
    "represent",
]
