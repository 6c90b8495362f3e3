"""B7: tuning the attention or the classifier of stitched heads on the new encoder.

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.4. Queries, keys and values are as wide as
there are anchors, as in the paper's code, and hold more parameters than the classifier then; with
`--config.attention.features=16` they hold fewer.

    python train.py --config=configs/product_of_invariances/space_selection.py \
        --config.data.path=latents/trec

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.space_selection import default_config


def get_config():
    return default_config()
