"""B6: which aggregation of a product of four distances?

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.3: concatenation, Sum, MLP+Sum, weighted
average and self-attention, on the same products.

    python train.py --config=configs/product_of_invariances/aggregation_functions.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits.
"""

from relrep_jax.experiments.product_classification import default_config


def get_config():
    config = default_config()
    config.subsets = "all"
    config.aggregations = (
        "mlp_sum",
        "self_attention",
        "mlp_self_attention",
        "concatenation",
        "sum",
        "weighted_average",
    )
    config.anchors.counts = (256,)
    return config
