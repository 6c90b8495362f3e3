"""A10: relative projections of subspaces, and quantised similarities.

The code of Moschella et al. 2023 (arXiv 2209.15430); neither is in the paper.

    python train.py --config=configs/relative_representations/subspaces.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.subspaces import default_config


def get_config():
    return default_config()
