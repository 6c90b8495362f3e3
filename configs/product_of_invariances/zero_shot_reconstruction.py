"""B4: zero-shot reconstruction with every subset of the four distances.

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.2: autoencoders whose decoder reads a product
of relative spaces, and every encoder with every decoder. The paper shows all four, three and single
distances; here are all 15 subsets, and the absolute form.

    python train.py --config=configs/product_of_invariances/zero_shot_reconstruction.py \
        --config.data.path=cifar10.npz

Without a file it runs on the embedded digits. `zero_shot_reconstruction.py:single_and_all` has the
product and the single distances alone.
"""

from relrep_jax.experiments.image_stitching import default_config, representation_config
from relrep_jax.experiments.products import subsets_of
from relrep_jax.projection import PAPER_SIMILARITIES


def get_config(subsets="every"):
    config = default_config()
    config.translations = ("orthogonal", "ridge")
    config.compare_with = ("product",)
    del config.representations.relative_cosine
    del config.representations.product
    found = subsets_of(len(PAPER_SIMILARITIES), subsets, "What follows the colon in --config")
    for members in sorted(found, key=lambda members: -len(members)):
        chosen = tuple(PAPER_SIMILARITIES[k] for k in members)
        name = "product" if chosen == PAPER_SIMILARITIES else "_".join(chosen)
        aggregation = "mlp_sum" if len(chosen) > 1 else "concatenation"
        config.representations[name] = representation_config(chosen, aggregation)
    return config
