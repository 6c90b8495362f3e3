"""B3: zero-shot classification with every product of four distances.

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.2: 1,280 anchors, or as many as there are
training samples, and MLP+Sum, their best aggregation. All 15 subsets of the distances, 5 seeds.

    python train.py --config=configs/product_of_invariances/product_classification.py \
        --config.data.path=latents/cifar10

Without a folder of latents it runs on several encoders of the embedded digits. On a CPU 1,280
anchors take hours; `--config.anchors.counts="(256,)"` takes minutes.
"""

from relrep_jax.experiments.product_classification import default_config


def get_config():
    return default_config()
