"""A2: two word embeddings in one relative space, by choice of anchors.

Moschella et al. 2023 (arXiv 2209.15430), section 4.1 and Table 1: 300 anchors, 10 seeds, k = 10.

    python train.py --config=configs/relative_representations/word_embeddings.py \
        --config.data.path=words

The folder has two files of vectors, and perhaps vocabulary.txt with their words. Without files
it runs on two views of the embedded digits.
"""

from relrep_jax.experiments.word_embeddings import default_config


def get_config():
    return default_config()
