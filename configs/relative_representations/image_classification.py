"""A4 on images: do relative classifiers reach the accuracy of absolute ones, end to end?

Moschella et al. 2023 (arXiv 2209.15430), Table 3: a classifier on ResNet-18 features of 224x224
images, 500 anchors stratified over the classes, Adam 1e-3, batch 128, 10 epochs, seeds 0 to 5. Here
a small convolutional network is trained on the pixels. 'Non-stitched' is what the paper's table
shows; stitched accuracies come for nothing.

    python train.py --config=configs/relative_representations/image_classification.py \
        --config.data.path=mnist.npz

Without a file it runs on the embedded digits.
"""

from relrep_jax.experiments.image_stitching import default_config


def get_config():
    config = default_config()
    del config.representations.product
    config.task = "classifier"
    config.training.loss = "cross_entropy"
    config.training.epochs = 10
    config.anchors.count = 500
    config.seeds.count = 6
    config.translations = ("orthogonal", "ridge")
    config.evaluation.metrics = ("f1_weighted",)
    config.published = (
        "Table 3 of the paper, weighted F1 in percent, absolute and relative: MNIST 97.95 and "
        "97.91, Fashion-MNIST 90.32 and 90.19, CIFAR-10 87.85 and 87.70, CIFAR-100 68.88 and "
        "66.72. Those are heads on frozen ResNet-18 features and all training images: not "
        "comparable in size, only in the difference between the two."
    )
    return config
