"""B3, which anchors: how single distances and their product depend on number and choice.

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.2, whose reviewers asked for it.

    python train.py --config=configs/product_of_invariances/anchor_sensitivity.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.product_classification import default_config


def get_config():
    config = default_config()
    config.subsets = "single_and_all"
    config.anchors.counts = (64, 256)
    config.anchors.choices = ("uniform", "farthest_point", "kmeans")
    config.baselines = ()
    return config
