"""The default job: a convolutional autoencoder on scikit-learn's handwritten digits, 8x8.

Five seeds; absolute latents, relative ones by cosine, and the product of four similarities.
One to two minutes on two CPU cores. All fields are explained in
`relrep_jax/experiments/image_stitching.py` and, those that other experiments have as well, in
`relrep_jax/experiments/end_to_end.py`.
"""

from relrep_jax.experiments.image_stitching import default_config


def get_config():
    return default_config()
