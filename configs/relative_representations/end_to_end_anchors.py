"""A9, end to end: how many anchors does a relative graph network need?

Moschella et al. 2023 (arXiv 2209.15430), the analysis of anchors in the appendix: on Cora, 1 to 49
anchors. The half with frozen encoders is `number_of_anchors.py`.

    python train.py --config=configs/relative_representations/end_to_end_anchors.py \
        --config.data.path=graph_cora.npz

Without a file it runs on the embedded digits, each joined to its nearest neighbours.
"""

from relrep_jax.experiments.end_to_end_anchors import default_config


def get_config():
    return default_config()
