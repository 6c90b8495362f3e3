"""Texts through Hugging Face `transformers`."""

import hashlib
from pathlib import Path
from typing import Any

from relrep_jax.encoders import transformers_models
from relrep_jax.encoders.base import Encoder, EncoderError, require
from relrep_jax.encoders.registry import find
from relrep_jax.encoders.torch_models import loading, short_name


def load_text(
    model: str,
    *,
    pooling: str | None = None,
    layer: int = -1,
    max_length: int | None = None,
    device: str | None = None,
) -> Encoder:
    """A pretrained encoder of texts, in evaluation mode and float32.

    Args:
        model: one of `MODELS`, a name on the Hugging Face hub, or a folder that
            `save_pretrained` has written.
        pooling: what a text's latent is: `"cls"`, the state of the first token; `"mean"`, the mean
            of the states of its tokens, padding left out; `"projected"`, what CLIP and its like
            compare with images. Default: `"projected"` where the model has it, else `"cls"`.
        layer: whose states are pooled: 0 for the embeddings, -1 for what the model hands on.
        max_length: tokens after which a text is cut; default: as many as the model can read.
        device: of PyTorch; default: the first GPU, or the CPU where there is none.

    Returns:
        The encoder, of `list[str]`.

    Raises:
        EncoderError: a package is missing; the model cannot be loaded; no such layer or pooling.

    Reference:
        Moschella et al. 2023, section 5.2, take the first token's state of the last layer.
    """
    known = find(model)
    checkpoint = known.checkpoint if known else model
    if known and "text" not in known.kinds:
        raise EncoderError(f"The model {model!r} encodes images, not texts.")
    torch = require("torch", "text")
    loaded = transformers_models.load(checkpoint, "text", "text", device)
    pooling, layer = transformers_models.check_reading(loaded, checkpoint, pooling, layer)
    if pooling == "cls" and (loaded.two_towers or _reads_from_left(loaded.config)):
        raise EncoderError(
            f"The model {model!r} reads from left to right: its first token has seen nothing of "
            f"the text. Use the pooling {'projected or ' if loaded.two_towers else ''}mean."
        )
    tokenizer = _load_tokenizer(checkpoint)
    room = _longest(loaded, tokenizer)
    if max_length is None:
        max_length = room
    elif max_length < 3 or (room is not None and max_length > room):
        most = "" if room is None else f" and at most {room}, which the model {model!r} can read"
        raise EncoderError(f"max_length must be at least 3{most}, got {max_length}.")

    def function(texts: list[str]) -> Any:
        inputs = tokenizer(
            list(texts),
            padding=True,
            truncation=max_length is not None,
            max_length=max_length,
            return_tensors="pt",
        ).to(loaded.device)
        with torch.inference_mode():
            if pooling == "projected":
                return loaded.model.get_text_features(**inputs).pooler_output.cpu().numpy()
            outputs = loaded.tower(**inputs, output_hidden_states=True)
            states = transformers_models.read_layer(outputs, layer)
            if pooling == "cls":
                return states[:, 0].cpu().numpy()
            mask = inputs["attention_mask"][..., None].to(states.dtype)
            return ((states * mask).sum(1) / mask.sum(1)).cpu().numpy()

    settings = {
        "library": "transformers",
        "model": known.checkpoint if known else short_name(model),
        "weights": loaded.weights,
        "tokenizer": _tokenizer_hash(tokenizer),
        "pooling": pooling,
        "layer": layer,
        "max_length": max_length,
    }
    return Encoder(short_name(model), function, settings, "text")


def _reads_from_left(config: Any) -> bool:
    heads = getattr(config, "architectures", None) or ()
    return bool(getattr(config, "is_decoder", False)) or any(
        name.endswith(("ForCausalLM", "LMHeadModel")) for name in heads
    )


def _load_tokenizer(checkpoint: str) -> Any:
    transformers = require("transformers", "text")
    folder = Path(checkpoint).expanduser()
    with loading(checkpoint, "transformers"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder) if folder.exists() else checkpoint
        )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise EncoderError(
                f"The tokeniser of {checkpoint!r} has no padding token, so that texts of different "
                "lengths cannot be encoded together. Set tokenizer.pad_token and save it."
            )
        tokenizer.pad_token = tokenizer.eos_token  # masked: which token it is makes no difference
    tokenizer.padding_side = "right"
    return tokenizer


def _longest(loaded: transformers_models.Loaded, tokenizer: Any) -> int | None:
    """How many tokens the model can read; None where nothing limits it."""
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 10**9 else []
    positions = getattr(loaded.config, "max_position_embeddings", None)
    if positions:
        # RoBERTa and its kin count positions from the one after the padding token's.
        embeddings = getattr(loaded.tower, "embeddings", None)
        table = getattr(embeddings, "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        limits.append(positions - (0 if padding is None else padding + 1))
    return min(limits, default=None)


def _tokenizer_hash(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = (
        backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    )
    return hashlib.sha256(content.encode()).hexdigest()
