"""The place where two models meet: absolute, relative, or a product of relative spaces.

`represent` is the encoder's side: it has no parameters, and what it gives may cross to another
model. `Reader` is the decoder's side: it has parameters, and stays with its decoder.
"""

import dataclasses

import jax
from flax import nnx

from relrep_jax import aggregation, similarities, transforms
from relrep_jax.projection import product_projection


@dataclasses.dataclass(frozen=True)
class Representation:
    """How a model's latents are re-expressed before its decoder or head reads them.

    Attributes:
        name: what tables and files call it.
        similarities: names of similarities or functions, one relative space each, or a single
            one; empty means absolute.
        aggregation: name of the aggregation that reads the product (`relrep_jax.aggregation`).
        absolute_transform: name of a transform of the latents, fitted on the anchors, or None.

    Raises:
        ValueError: an unknown similarity, aggregation or transform.
    """

    name: str
    similarities: tuple[str, ...] = ()
    aggregation: str = "concatenation"
    absolute_transform: str | None = None

    def __post_init__(self):
        one = isinstance(self.similarities, str) or callable(self.similarities)
        given = (self.similarities,) if one else tuple(self.similarities)
        object.__setattr__(self, "similarities", given)
        for similarity in self.similarities:
            similarities.get(similarity)
        aggregation.get(self.aggregation)
        if self.absolute_transform is not None:
            transforms.get(self.absolute_transform)

    @property
    def is_absolute(self) -> bool:
        return not self.similarities


def represent(
    representation: Representation, latents: jax.Array, anchor_latents: jax.Array | None
) -> jax.Array:
    """What crosses from an encoder to a decoder.

    Args:
        representation: which form.
        latents: `[n, d]`.
        anchor_latents: `[m, d]` from the same encoder; not looked at where the form is absolute.

    Returns:
        The latents `[n, d]` where the form is absolute, else the product `[s, n, m]`.
    """
    if representation.is_absolute:
        return latents
    return product_projection(
        latents,
        anchor_latents,
        representation.similarities,
        absolute_transform=representation.absolute_transform,
    )


class Reader(nnx.Module):
    """The decoder's first layer: `[n, d]` as it is, or a product `[s, n, m]` aggregated.

    Args:
        representation: which form.
        latent_dim: the width d of the latents.
        num_anchors: the number m of anchors.
    """

    def __init__(
        self, representation: Representation, latent_dim: int, num_anchors: int, *, rngs: nnx.Rngs
    ):
        if representation.is_absolute:
            self.aggregate = None
            self.out_features = latent_dim
        else:
            module = aggregation.get(representation.aggregation)
            self.aggregate = module(len(representation.similarities), num_anchors, rngs=rngs)
            self.out_features = self.aggregate.out_features

    def __call__(self, space: jax.Array) -> jax.Array:
        return space if self.aggregate is None else self.aggregate(space)
