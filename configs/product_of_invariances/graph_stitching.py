"""B5: zero-shot stitching of graph convolutional networks, from seed to seed.

Cannistraci et al. 2024 (arXiv 2310.01211): node classifiers trained end to end on Cora, every
encoder with every head, and the stitching index.

    python train.py --config=configs/product_of_invariances/graph_stitching.py \
        --config.data.path=graph_cora.npz

Without a file it runs on the embedded digits, each joined to its nearest neighbours. For the split
that a file brings, `--config.data.split=file --config.anchors.among=all`.
"""

from relrep_jax.experiments.graph_stitching import default_config


def get_config():
    config = default_config()
    config.model.layer = "gcn"
    config.model.num_layers = 2
    config.seeds.count = 10
    config.translations = ("orthogonal", "ridge")
    return config
