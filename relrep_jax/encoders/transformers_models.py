"""Loading models of Hugging Face `transformers`, and reading a layer of them."""

from pathlib import Path
from typing import Any, NamedTuple

from relrep_jax.encoders.base import EncoderError, require
from relrep_jax.encoders.torch_models import loading, pick_device, weights_hash

POOLINGS = ("cls", "mean", "projected")


class Loaded(NamedTuple):
    """A model in evaluation mode.

    Attributes:
        model: the whole model.
        tower: the part that encodes the samples; the model itself unless it has two towers.
        config: of the tower.
        device: that it is on.
        weights: their hash.
        two_towers: whether it is a model of texts and images, such as CLIP.
    """

    model: Any
    tower: Any
    config: Any
    device: Any
    weights: str
    two_towers: bool


def load(model: str, kind: str, extra: str, device: str | None) -> Loaded:
    """A model from a folder or the hub, in float32.

    Raises:
        EncoderError: it cannot be loaded, lacks weights, or has no tower of that kind.
    """
    torch = require("torch", extra)
    transformers = require("transformers", extra)
    place = pick_device(torch, device)
    with loading(model, "transformers"):
        made, info = transformers.AutoModel.from_pretrained(
            str(Path(model).expanduser()) if Path(model).expanduser().exists() else model,
            dtype=torch.float32,
            output_loading_info=True,
        )
    # A head that pools is not read here, and many checkpoints come without one.
    missing = {name for name in info["missing_keys"] if "pooler." not in name}
    if missing:
        raise EncoderError(
            f"The model {model!r} lacks weights, {len(missing)} in all: "
            f"{', '.join(sorted(missing)[:3])}. They would be random. It needs a checkpoint of "
            f"{type(made).__name__}."
        )
    made = made.eval().to(place)
    unread = {name for name in made.state_dict() if "pooler." in name}
    two_towers = hasattr(made.config, "text_config") and hasattr(made.config, "vision_config")
    if two_towers:
        tower = made.text_model if kind == "text" else made.vision_model
    else:
        tower = made.get_encoder() if made.config.is_encoder_decoder else made
        _check_kind(model, kind, tower)
    return Loaded(
        made,
        tower,
        tower.config,
        place,
        weights_hash(made.state_dict(), unread),
        two_towers,
    )


def _check_kind(model: str, kind: str, tower: Any) -> None:
    takes = getattr(tower, "main_input_name", "input_ids")
    wanted = "input_ids" if kind == "text" else "pixel_values"
    if takes != wanted:
        other = "images" if kind == "text" else "texts"
        raise EncoderError(
            f"The model {model!r} ({type(tower).__name__}) encodes {other}, not "
            f"{'texts' if kind == 'text' else 'images'}."
        )


def check_reading(loaded: Loaded, model: str, pooling: str | None, layer: int) -> tuple[str, int]:
    """Pooling and layer that a model can be read with, counted from 0 for the embeddings.

    Raises:
        EncoderError: the model has no such layer or pooling.
    """
    if pooling is None:
        pooling = "projected" if loaded.two_towers else "cls"
    if pooling not in POOLINGS:
        raise EncoderError(f"Unknown pooling {pooling!r}. Known: {', '.join(POOLINGS)}.")
    # Where there are stages instead, as in convolutional networks, these are the layers.
    stages = len(getattr(loaded.config, "depths", ())) or None
    last = getattr(loaded.config, "num_hidden_layers", stages)
    if last is None and layer != -1:
        raise EncoderError(f"The model {model!r} does not tell its layers: use layer -1, the last.")
    if last is not None:
        if not -last - 1 <= layer <= last:
            raise EncoderError(
                f"The model {model!r} has the layers 0 (embeddings) to {last}, or -1 (the last) to "
                f"{-last - 1}, got layer {layer}."
            )
        layer %= last + 1
    if pooling == "projected" and not loaded.two_towers:
        raise EncoderError(
            f"The model {model!r} has no projection; only models of texts and images, such as "
            "CLIP, do. Use the pooling cls or mean."
        )
    if pooling == "projected" and layer not in (-1, last):
        raise EncoderError("A projection is of the last layer. Use the pooling cls or mean.")
    return pooling, layer


def read_layer(outputs: Any, layer: int) -> Any:
    """The states of a layer: `[b, t, d]`, or `[b, d, h, w]` where it is convolutional.

    The last one is what the model hands on, after a final normalisation if it has one.
    """
    states = outputs.hidden_states
    return outputs.last_hidden_state if layer in (-1, len(states) - 1) else states[layer]
