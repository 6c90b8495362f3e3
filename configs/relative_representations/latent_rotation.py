"""A1: latents of different seeds are rotations of one another, their relative spaces agree.

Moschella et al. 2023 (arXiv 2209.15430), figures 1 and 4: autoencoders with a bottleneck of two
dimensions, trained from several seeds; here variational ones, whose latents lie about the origin.
See `figures/variational_autoencoder_spaces.png` of the run.

    python train.py --config=configs/relative_representations/latent_rotation.py \
        --config.data.path=mnist.npz

Without a file it runs on the embedded digits.
"""

from relrep_jax.experiments.seed_similarity import default_config


def get_config():
    config = default_config()
    config.models = ("variational_autoencoder",)
    config.model.latent_dim = 2
    config.training.epochs = 60
    config.anchors.count = 50
    config.similarities = ("cosine", "euclidean")
    config.translations = ("orthogonal",)
    config.published = (
        "The paper shows pictures. A notebook of its code has, for latents and their rotation by "
        "one random isometry, a mean cosine of 0.018 between absolute and of 1.0 between relative "
        "vectors; here the maps are those between seeds, which are rotations only in part."
    )
    return config
