"""Pretrained models to stored latents: text, images, ONNX files and functions of your own.

What a model needs (PyTorch, transformers, timm, onnxruntime) is an extra of the package, loaded
when a model of its kind is.

>>> import numpy as np
>>> from relrep_jax import encoders
>>> lengths = lambda texts: np.array([[len(text), text.count(" ")] for text in texts], np.float32)
>>> encoders.encode(encoders.from_function("lengths", lengths), ["two words", "one more text"])
array([[ 9.,  1.],
       [13.,  2.]], dtype=float32)
"""

from relrep_jax.data.samples import ImageFiles, Samples, load_samples
from relrep_jax.encoders.base import Encoder, EncoderError, encode, from_function
from relrep_jax.encoders.onnx import load_onnx
from relrep_jax.encoders.registry import MODELS, Model
from relrep_jax.encoders.store import encode_to_store, fingerprint
from relrep_jax.encoders.text import load_text
from relrep_jax.encoders.vision import load_vision

__all__ = [
    "MODELS",
    "Encoder",
    "EncoderError",
    "ImageFiles",
    "Model",
    "Samples",
    "encode",
    "encode_to_store",
    "fingerprint",
    "from_function",
    "load_onnx",
    "load_samples",
    "load_text",
    "load_vision",
]
