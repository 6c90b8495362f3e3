"""B4: zero-shot reconstruction with every subset of the four distances.

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.2: autoencoders whose decoder reads a product
of relative spaces, and every encoder with every decoder. The paper shows all four, three and single
distances; here are all 15 subsets, and the absolute form.

    python train.py --config=configs/product_of_invariances/zero_shot_reconstruction.py \
        --config.data.path=cifar10.npz

Without a file it runs on the embedded digits.
"""

from itertools import combinations

from relrep_jax.experiments.image_stitching import default_config, representation_config
from relrep_jax.projection import PAPER_SIMILARITIES


def get_config():
    config = default_config()
    config.translations = ("orthogonal", "ridge")
    del config.representations.relative_cosine
    del config.representations.product
    for size in (4, 3, 2, 1):
        for chosen in combinations(PAPER_SIMILARITIES, size):
            aggregation = "mlp_sum" if size > 1 else "concatenation"
            name = "product" if size == 4 else "_".join(chosen)
            config.representations[name] = representation_config(chosen, aggregation)
    return config
