"""A4 and A7 with a transformer trained from scratch: absolute, relative and product forms.

Moschella et al. 2023 (arXiv 2209.15430), sections 4.3 and 5: do relative classifiers reach the
accuracy of absolute ones, and does a head read the encoder of another seed? The paper's text
encoders are pretrained ones: see `cross_architecture_text.py`.

    python train.py --config=configs/relative_representations/text_classification.py \
        --config.data.path=trec.tsv.gz --config.data.label_column=coarse

Without a file it runs on paragraphs of Python's own documentation.
"""

from relrep_jax.experiments.text_stitching import default_config


def get_config():
    config = default_config()
    config.translations = ("orthogonal", "ridge")
    config.published = (
        "Table 5 of the paper, TREC, weighted F1 in percent with pretrained encoders of different "
        "architectures: absolute 91.70 and 21.49 stitched, relative 88.08 and 75.89. Here the "
        "encoders are small, trained from scratch, and differ in their seed: not comparable."
    )
    return config
