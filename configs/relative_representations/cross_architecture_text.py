"""A7: text classifiers stitched zero-shot across pretrained encoders.

Moschella et al. 2023 (arXiv 2209.15430), section 5.2 and Table 5: 768 anchors, 5 seeds, weighted
F1. The learning rate and the epochs are those of small data sets (the paper's are 1e-4 and 5).

    python train.py --config=configs/relative_representations/cross_architecture_text.py \
        --config.data.path=latents/trec

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.cross_architecture import default_config


def get_config():
    return default_config()
