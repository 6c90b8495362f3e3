"""A3: similarity of relative spaces to the best model's as a proxy of accuracy, without labels.

Moschella et al. 2023 (arXiv 2209.15430), section 4.2: 300 anchors, and every combination of seeds,
epochs, depth, dropout, activations, optimiser, learning rate and kind of layer: 1,920 models, as
there, which are shallower and narrower here. Theirs are `--config.sweep.num_layers="(32, 64)"`,
`--config.model.num_layers=32` and `--config.model.hidden_features=300`.

    python train.py --config=configs/relative_representations/data_manifold.py \
        --config.data.path=graph_cora.npz

Without a file it runs on the embedded digits, each joined to its nearest neighbours.
"""

from relrep_jax.experiments.data_manifold import default_config


def get_config():
    return default_config()
