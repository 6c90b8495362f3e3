"""Models in ONNX files, of texts or of images."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relrep_jax.data.base import opening
from relrep_jax.encoders.base import Encoder, EncoderError, require
from relrep_jax.encoders.images import as_rgb

_TOKENS = ("input_ids", "attention_mask", "token_type_ids")


def load_onnx(
    path: str,
    *,
    output: str | None = None,
    pooling: str | None = None,
    max_length: int | None = None,
    image_mean: Sequence[float] = (0.0, 0.0, 0.0),
    image_std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Encoder:
    """An encoder in an ONNX file, run by onnxruntime on the CPU.

    A model that takes `input_ids` is one of texts, whose tokeniser is the `tokenizer.json` in the
    file's folder or the one above. Any other model has one input of images: `[b, 3, h, w]` or
    `[b, h, w, 3]`; images are resized to `h, w` and become `(x / 255 - mean) / std`.

    Args:
        path: the `.onnx` file.
        output: which of its outputs to take; default: the first.
        pooling: what becomes of an output `[b, t, d]`: `"cls"`, its first token, or `"mean"`, the
            mean of its tokens, padding left out. Default: `"cls"`. Outputs `[b, d]` stay as they
            are, and of `[b, d, h, w]` the mean over positions is taken.
        max_length: tokens after which a text is cut; default: as the tokeniser's file says.
        image_mean: of every channel, for images in `[0, 1]`.
        image_std: of every channel.

    Returns:
        The encoder.

    Raises:
        EncoderError: a package is missing; the file, its tokeniser or its inputs are not as above.
        DatasetError: there is no such file.
    """
    runtime = require("onnxruntime", "onnx")
    file = Path(path).expanduser()
    with opening(file), file.open("rb") as stream:
        weights = hashlib.file_digest(stream, "sha256").hexdigest()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of onnxruntime have no class in common
        raise EncoderError(f"{file} is no ONNX model that can be run: {error}.") from error
    inputs = {one.name: one for one in session.get_inputs()}
    outputs = [one.name for one in session.get_outputs()]
    if output is not None and output not in outputs:
        raise EncoderError(f"{file} has no output {output!r}. Known: {', '.join(outputs)}.")
    if pooling not in (None, "cls", "mean"):
        raise EncoderError(f"The pooling of an ONNX model is cls or mean, got {pooling!r}.")
    output = output or outputs[0]
    settings: dict[str, Any] = {
        "library": "onnxruntime",
        "model": file.stem,
        "weights": weights,
        "output": output,
        "pooling": pooling or "cls",
    }
    if "input_ids" in inputs:
        prepare, about = _text_input(file, inputs, max_length)
        kind = "text"
    else:
        prepare, about = _image_input(file, inputs, image_mean, image_std)
        kind = "images"

    def function(batch: Any) -> np.ndarray:
        fed, mask = prepare(batch)
        (found,) = session.run([output], fed)
        return _pooled(file, np.asarray(found), mask, pooling)

    return Encoder(file.stem, function, {**settings, **about}, kind)


def _pooled(
    file: Path, found: np.ndarray, mask: np.ndarray | None, pooling: str | None
) -> np.ndarray:
    if found.ndim == 4:
        return found.mean((2, 3))
    if found.ndim != 3:
        return found
    if pooling != "mean":
        return found[:, 0]
    if mask is None:
        return found.mean(1)
    if mask.shape != found.shape[:2]:
        raise EncoderError(
            f"{file}: the output has shape {found.shape} for tokens {mask.shape}; it cannot be "
            "pooled over tokens. Choose another output."
        )
    weight = mask[..., None].astype(found.dtype)
    return (found * weight).sum(1) / weight.sum(1)


def _text_input(file: Path, inputs: dict[str, Any], max_length: int | None) -> tuple[Any, dict]:
    unknown = sorted(set(inputs) - set(_TOKENS))
    if unknown:
        raise EncoderError(
            f"{file} takes {', '.join(unknown)} besides tokens; known inputs of a model of texts: "
            f"{', '.join(_TOKENS)}."
        )
    tokenizers = require("tokenizers", "onnx")
    places = [file.parent / "tokenizer.json", file.parent.parent / "tokenizer.json"]
    place = next((one for one in places if one.is_file()), None)
    if place is None:
        raise EncoderError(
            f"{file} needs its tokeniser: put tokenizer.json into the folder {file.parent}."
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(place))
    except Exception as error:  # the package raises plain exceptions
        raise EncoderError(f"{place} is no tokeniser: {error}.") from error
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    _pad_to_longest(place, tokenizer)

    def prepare(texts: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        tokens = tokenizer.encode_batch(list(texts))
        mask = np.array([one.attention_mask for one in tokens])
        found: dict[str, Any] = {
            "input_ids": [one.ids for one in tokens],
            "attention_mask": mask,
            "token_type_ids": [one.type_ids for one in tokens],
        }
        fed: dict[str, np.ndarray] = {
            name: np.array(found[name], _dtype(file, one)) for name, one in inputs.items()
        }
        return fed, mask

    sha = hashlib.sha256(place.read_bytes()).hexdigest()
    return prepare, {"tokenizer": sha, "max_length": max_length}


def _pad_to_longest(place: Path, tokenizer: Any) -> None:
    """Pad a batch on the right to its longest text, whatever length the file asks for."""
    padding = tokenizer.padding
    if padding is None:
        tokens = ("[PAD]", "<pad>", "<|endoftext|>")
        token = next((one for one in tokens if tokenizer.token_to_id(one) is not None), None)
        if token is None:
            raise EncoderError(f"{place} has no padding token, which batches need.")
        padding = {"pad_token": token, "pad_id": tokenizer.token_to_id(token), "pad_type_id": 0}
    kept = {key: padding[key] for key in ("pad_token", "pad_id", "pad_type_id")}
    tokenizer.enable_padding(**kept, direction="right", length=None)


def _image_input(
    file: Path, inputs: dict[str, Any], mean: Sequence[float], std: Sequence[float]
) -> tuple[Any, dict]:
    pillow = require("PIL.Image", "onnx")
    shapes = ", ".join(f"{name} {one.shape}" for name, one in inputs.items())
    only = next(iter(inputs.values()))
    shape = list(only.shape)
    fits = len(inputs) == 1 and len(shape) == 4 and 3 in (shape[1], shape[3])
    first = fits and shape[1] == 3
    sides = shape[2:] if first else shape[1:3]
    if not fits or not all(isinstance(side, int) for side in sides):
        raise EncoderError(
            f"{file} must take input_ids, or one input of images [b, 3, h, w] or [b, h, w, 3] "
            f"with a height and a width; its inputs are: {shapes}."
        )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise EncoderError(
            f"Mean and standard deviation of images are three numbers each, the latter positive, "
            f"got {list(mean)} and {list(std)}."
        )
    height, width = sides
    centre, spread = np.array(mean, np.float32), np.array(std, np.float32)

    def prepare(images: Any) -> tuple[dict[str, np.ndarray], None]:
        resized = [
            pillow.fromarray(image).resize((width, height), pillow.Resampling.BICUBIC)
            for image in as_rgb(images)
        ]
        pixels = (np.stack(resized).astype(np.float32) / 255 - centre) / spread
        pixels = np.moveaxis(pixels, -1, 1) if first else pixels
        return {only.name: pixels.astype(_dtype(file, only))}, None

    return prepare, {"image_mean": list(mean), "image_std": list(std)}


def _dtype(file: Path, wanted: Any) -> type:
    known = {
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
    }
    if wanted.type not in known:
        raise EncoderError(f"{file}: the input {wanted.name} is of type {wanted.type}.")
    return known[wanted.type]
