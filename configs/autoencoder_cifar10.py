"""Zero-shot autoencoder stitching on CIFAR-10: the protocol of experiment A5.

Moschella et al. 2023 (arXiv 2209.15430), Table 2: channels 32, 64, 128, 256, 500 anchors
stratified over the classes, Adam 1e-3, batch 128, gradients clipped at norm 10, 60 epochs, six
seeds. The paper's relative models take the flattened features for latents; here all three
representations share the 256-dimensional bottleneck (`--config.model.relative_latent_dim=0` is as
theirs). Their best checkpoint by validation error is here the last one.

Needs CIFAR-10 prepared by tfds, or a file: --config.data.path=FILE.npz (Keras layout).
"""

from relrep_jax.experiments.image_stitching import default_config


def get_config():
    config = default_config()
    config.data.name = "cifar10"
    config.model.channels = (32, 64, 128, 256)
    config.model.latent_dim = 256
    config.anchors.count = 500
    config.seeds.count = 6
    config.translations = ("orthogonal", "ridge")
    config.evaluation.metrics = ("psnr", "ssim", "ergas")
    config.training.epochs = 60
    config.checkpoint.every = 1
    return config
