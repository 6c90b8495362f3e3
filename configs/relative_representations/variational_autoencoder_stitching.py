"""A5: zero-shot stitching of variational autoencoders, absolute against relative.

Moschella et al. 2023 (arXiv 2209.15430), Table 2: as `autoencoder_stitching.py`,
with a Kullback-Leibler term; what crosses is the mean code. Both forms have the optimal-sigma
likelihood and the whole divergence, as the paper's relative one; its absolute one has the mean
squared error and 0.025 times the divergence (`configs/variational_autoencoder_mnist.py`).

    python train.py --config=configs/relative_representations/variational_autoencoder_stitching.py \
        --config.data.path=mnist.npz --config.model.channels="(32, 64, 128, 256)" \
        --config.model.latent_dim=256 --config.anchors.count=500 --config.training.epochs=60

Relative forms take the flattened features for latents, as in the paper: with a bottleneck as narrow
as the absolute form's (`--config.model.relative_latent_dim=-1`) they cannot be stitched on MNIST.

Without a file it runs on the embedded digits.
"""

from relrep_jax.experiments.image_stitching import default_config


def get_config():
    config = default_config()
    del config.representations.product
    config.task = "variational_autoencoder"
    config.model.relative_latent_dim = 0
    config.seeds.count = 6
    config.translations = ("orthogonal", "ridge")
    config.evaluation.metrics = ("psnr", "ssim", "ergas")
    return config
