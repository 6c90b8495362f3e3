"""B1: which class of maps links the spaces of two encoders?

Cannistraci et al. 2024 (arXiv 2310.01211), figure 1: linear CKA between spaces that are blind to
conformal, Euclidean, orthogonal and other maps, for every pair of encoders.

    python train.py --config=configs/product_of_invariances/transformation_classes.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.transformation_classes import default_config


def get_config():
    return default_config()
