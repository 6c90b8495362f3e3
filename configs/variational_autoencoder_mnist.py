"""Zero-shot stitching of variational autoencoders on MNIST: experiment A5.

As autoencoder_mnist, with the loss that the paper's absolute VAE has: mean squared error plus
0.025 times the Kullback-Leibler divergence. (Its relative VAE takes the optimal-sigma likelihood
plus the whole divergence: --config.training.loss=optimal_sigma --config.training.kl_weight=1.)
"""

from relrep_jax.experiments.image_stitching import default_config


def get_config():
    config = default_config()
    config.task = "variational_autoencoder"
    config.data.name = "mnist"
    config.model.channels = (32, 64, 128, 256)
    config.model.latent_dim = 256
    config.model.relative_latent_dim = 0
    config.anchors.count = 500
    config.seeds.count = 6
    config.translations = ("orthogonal", "ridge")
    config.evaluation.metrics = ("psnr", "ssim", "ergas")
    config.training.epochs = 60
    config.training.loss = "mse"
    config.training.kl_weight = 0.025
    config.checkpoint.every = 1
    return config
