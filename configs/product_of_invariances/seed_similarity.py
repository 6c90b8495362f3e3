"""B2: how alike are the latent spaces of different seeds, by the distance that relates them?

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.1: models trained from scratch with several
seeds, compared through relative spaces by cosine, Euclidean, L1 and L-infinity distance; beside
them latents through an orthogonal map that is fitted on the anchors.

    python train.py --config=configs/product_of_invariances/seed_similarity.py \
        --config.data.path=mnist.npz

Without a file it runs on the embedded digits.
"""

from relrep_jax.experiments.seed_similarity import default_config


def get_config():
    config = default_config()
    config.models = ("autoencoder", "variational_autoencoder", "classifier")
    config.translations = ("orthogonal",)
    config.published = (
        "The paper's table could not be obtained; its reviews speak of Pearson correlations above "
        "0.94 in one panel and above 0.8 in another for cosine."
    )
    return config
