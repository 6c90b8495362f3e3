"""A5: zero-shot stitching of autoencoders, from seed to seed.

Moschella et al. 2023 (arXiv 2209.15430), Table 2: channels 32, 64, 128, 256, 500
anchors, Adam 1e-3, batch 128, gradients clipped at norm 10, 60 epochs, six seeds. That is
`configs/autoencoder_mnist.py`; this is the same for the embedded digits or any file, with the
paper's two representations.

    python train.py --config=configs/relative_representations/autoencoder_stitching.py \
        --config.data.path=mnist.npz --config.model.channels="(32, 64, 128, 256)" \
        --config.model.latent_dim=256 --config.anchors.count=500 --config.training.epochs=60

Variational ones: `variational_autoencoder_stitching.py`.
"""

from relrep_jax.experiments.image_stitching import default_config


def get_config():
    config = default_config()
    del config.representations.product
    config.seeds.count = 6
    config.translations = ("orthogonal", "ridge")
    config.evaluation.metrics = ("psnr", "ssim", "ergas")
    return config
