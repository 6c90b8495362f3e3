"""A9: accuracy against the number of anchors, with frozen encoders.

Moschella et al. 2023 (arXiv 2209.15430), the analysis of anchors in the appendix.

    python train.py --config=configs/relative_representations/number_of_anchors.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.number_of_anchors import default_config


def get_config():
    return default_config()
