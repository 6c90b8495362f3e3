"""Zero-shot stitching of classifiers, trained end to end on the embedded digits.

A plain convolutional network whose head reads absolute latents, relative ones or a product of
four similarities. `--config.data.name=mnist`, `fashion_mnist`, `cifar10` or `cifar100` for more.
"""

from relrep_jax.experiments.image_stitching import default_config


def get_config():
    config = default_config()
    config.task = "classifier"
    config.training.loss = "cross_entropy"
    config.training.epochs = 15
    return config
