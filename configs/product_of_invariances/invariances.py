"""B8: which distance is blind to which maps, measured.

Cannistraci et al. 2024 (arXiv 2310.01211), the table of invariances in the appendix.

    python train.py --config=configs/product_of_invariances/invariances.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.invariances import default_config


def get_config():
    return default_config()
