"""A8: image classifiers stitched zero-shot across pretrained encoders.

Moschella et al. 2023 (arXiv 2209.15430), section 5.2 and Table 6: 768 anchors, weighted F1, here
with 5 seeds. The learning rate is that of small data sets (the paper's is 1e-4).

    python train.py --config=configs/relative_representations/cross_architecture_vision.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.cross_architecture import default_config


def get_config():
    config = default_config()
    config.head.name = "mlp"
    config.published = "vision"
    return config
