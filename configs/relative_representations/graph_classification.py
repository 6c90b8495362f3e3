"""A4 on graphs: do relative classifiers reach the accuracy of absolute ones, end to end?

Moschella et al. 2023 (arXiv 2209.15430), Table 3: 32 (or 64) GCNII layers of 300 features, 300
anchors among the training nodes, 500 epochs of Adam, 10 seeds. Three things differ: the learning
rate is a quarter of the paper's 0.02, features are not divided by their sums
(`--config.data.normalize_features=True`), and the relative layer ends in a learned LayerNorm where
the paper's ends in an L2 normalisation. With the first two as in the paper, some relative seeds
here end by giving every node one class.

    python train.py --config=configs/relative_representations/graph_classification.py \
        --config.data.path=graph_cora.npz

Without a file it runs on the embedded digits, each joined to its nearest neighbours. All of it
takes hours on a CPU; `--config.scale=smoke` takes less than a minute. Accuracies are of test nodes
(a tenth of all) after the last epoch or, with `--config.checkpoint.keep=best`, after the one that
is best on validation nodes; the paper's are those of validation nodes at their best epoch.
"""

from relrep_jax.experiments.graph_stitching import default_config


def get_config():
    config = default_config()
    config.translations = ("orthogonal", "ridge")
    del config.representations.product
    config.model.layer = "gcnii"
    config.model.num_layers = 32
    config.model.hidden_features = 300
    config.model.latent_dim = 300
    config.model.self_loops = False
    config.anchors.count = 300
    config.training.epochs = 500
    config.seeds.count = 10
    config.optimizer.learning_rate = 0.005
    config.optimizer.clip_norm = 0.0
    return config
