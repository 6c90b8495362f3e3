"""A6: text classifiers stitched zero-shot across languages, and across encoders.

Moschella et al. 2023 (arXiv 2209.15430), section 5.2 and Table 4: parallel sentences as anchors
(768, or as many as there are training samples), 5 seeds, weighted F1. The learning rate and the
epochs are those of small data sets.

    python train.py --config=configs/relative_representations/cross_lingual.py \
        --config.data.path=latents/sib200

Files of latents are called ENCODER__LANGUAGE.npy. Without a folder it runs on two encoders of the
embedded digits, plain, turned and blurred, which stand for languages.
"""

from relrep_jax.experiments.cross_lingual import default_config


def get_config():
    return default_config()
