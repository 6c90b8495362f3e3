"""Images through `timm` or Hugging Face `transformers`."""

import inspect
import json
from pathlib import Path
from typing import Any

from relrep_jax.checks import lookup
from relrep_jax.encoders import transformers_models
from relrep_jax.encoders.base import Encoder, EncoderError, require
from relrep_jax.encoders.images import as_rgb
from relrep_jax.encoders.registry import find
from relrep_jax.encoders.torch_models import loading, pick_device, short_name, weights_hash

LIBRARIES = ("timm", "transformers")


def load_vision(
    model: str,
    *,
    library: str | None = None,
    checkpoint: str | None = None,
    pooling: str | None = None,
    layer: int = -1,
    device: str | None = None,
) -> Encoder:
    """A pretrained encoder of images, in evaluation mode and float32.

    Images are resized, cropped and normalised as the model was trained: by the data configuration
    of timm, or the image processor of transformers.

    Args:
        model: one of `MODELS`, a name in timm or on its hub, a name on the Hugging Face hub, or a
            folder that either library has written.
        library: `"timm"` or `"transformers"`. Default: that of `MODELS` or of the folder; of other
            names, transformers where they have an owner (`owner/name`, but not `timm/name`).
        checkpoint: a file of weights for a model of timm, instead of downloading any.
        pooling: `"cls"`, the state of the class token; `"mean"`, the mean over all positions (in
            timm the patches, in transformers all tokens); `"projected"`, what CLIP and its like
            compare with texts. Default: in timm the model's own pooling before its classifier; in
            transformers `"projected"` where the model has it, else `"cls"` where it has a class
            token, else `"mean"`.
        layer: whose states are pooled: -1 for the last; in transformers 0 for the embeddings, in
            timm 0 for the first block or stage.
        device: of PyTorch; default: the first GPU, or the CPU where there is none.

    Returns:
        The encoder, of arrays `[b, h, w, c]` or lists of `[h, w, c]`: uint8, or floats in
        `[0, 1]`, with one or three channels.

    Raises:
        EncoderError: a package is missing; the model cannot be loaded; no such layer or pooling.
    """
    known = find(model)
    if known and "images" not in known.kinds:
        raise EncoderError(f"The model {model!r} encodes texts, not images.")
    library = library or (known.library if known else _library(model))
    if library not in LIBRARIES:
        raise EncoderError(f"The library is one of {', '.join(LIBRARIES)}, got {library!r}.")
    name = known.checkpoint if known else model
    if library == "timm":
        return _load_timm(model, name, checkpoint, pooling, layer, device)
    if checkpoint is not None:
        raise EncoderError(
            "A file of weights goes with models of timm; transformers reads a folder, which is "
            "given as the model itself."
        )
    return _load_transformers(model, name, pooling, layer, device)


def _library(model: str) -> str:
    folder = Path(model).expanduser()
    if folder.is_dir():
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EncoderError(
                f"The folder {model} has no readable config.json ({error}). It must be written by "
                "save_pretrained of transformers, or by save_for_hf of timm."
            ) from error
        return "timm" if "architecture" in config else "transformers"
    local = model.startswith((".", "/", "~"))
    owned = "/" in model and not model.startswith("timm/")
    return "transformers" if owned or local else "timm"


# --- timm --------------------------------------------------------------------------------------


def _load_timm(
    model: str,
    name: str,
    checkpoint: str | None,
    pooling: str | None,
    layer: int,
    device: str | None,
) -> Encoder:
    torch = require("torch", "vision")
    timm = require("timm", "vision")
    image = require("PIL.Image", "vision")
    lookup("pooling", pooling or "mean", dict.fromkeys(("cls", "mean")))
    place = pick_device(torch, device)
    folder = Path(name).expanduser()
    if not folder.is_dir() and "/" not in name and not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0][:6]}*")[:3]
        hint = f" Did you mean one of {', '.join(near)}?" if near else ""
        raise EncoderError(
            f"timm has no model {name!r}.{hint} A folder is given with its path, such as ./{name}."
        )
    if checkpoint is not None and not Path(checkpoint).expanduser().is_file():
        raise EncoderError(f"No such file of weights: {checkpoint} (from {Path.cwd()}).")
    source = f"local-dir:{folder}" if folder.is_dir() else name
    if "/" in name and ":" not in source:
        source = f"hf-hub:{name}"
    with loading(checkpoint or name, "timm"):
        made = timm.create_model(
            source,
            pretrained=checkpoint is None,
            checkpoint_path="" if checkpoint is None else str(Path(checkpoint).expanduser()),
            num_classes=0,
        )
    made = made.eval().to(place)
    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(made), is_training=False
    )
    read = _timm_reader(made, model, pooling, layer)

    def function(images: Any) -> Any:
        pixels = torch.stack([transform(image.fromarray(one)) for one in as_rgb(images)])
        with torch.inference_mode():
            return read(pixels.to(place)).float().cpu().numpy()

    settings = {
        "library": "timm",
        "model": short_name(name),
        "weights": weights_hash(made.state_dict()),
        "pooling": pooling or "own",
        "layer": layer,
        "images": repr(transform),
    }
    return Encoder(short_name(model), function, settings, "images")


def _timm_reader(made: Any, model: str, pooling: str | None, layer: int) -> Any:
    """A function from pixels `[b, 3, h, w]` to latents `[b, d]`."""
    if pooling is None:
        if layer != -1:
            raise EncoderError(
                f"The own pooling of {model} is of the last layer. For layer {layer} choose the "
                "pooling mean, or cls where the model has a class token."
            )
        return made
    if not hasattr(made, "forward_intermediates"):
        raise EncoderError(f"timm gives no layers of {model}. Leave pooling and layer out.")
    options: dict[str, Any] = {"intermediates_only": True, "norm": layer == -1}
    if "return_prefix_tokens" in inspect.signature(made.forward_intermediates).parameters:
        options["return_prefix_tokens"] = True
    tokens = getattr(made, "num_prefix_tokens", 0) if len(options) == 3 else 0
    if pooling == "cls" and not tokens:
        raise EncoderError(f"{model} has no class token. Use the pooling mean, or its own.")
    total = len(made.feature_info)
    if not -total <= layer < total:
        raise EncoderError(
            f"{model} has the layers 0 to {total - 1}, or -1 (the last) to {-total}, got layer "
            f"{layer}."
        )

    def read(pixels: Any) -> Any:
        (found,) = made.forward_intermediates(pixels, indices=[layer % total], **options)
        grid, prefix = found if isinstance(found, tuple | list) else (found, None)
        return prefix[:, 0] if pooling == "cls" else grid.mean((2, 3))

    return read


# --- transformers ------------------------------------------------------------------------------


def _load_transformers(
    model: str, name: str, pooling: str | None, layer: int, device: str | None
) -> Encoder:
    torch = require("torch", "vision")
    transformers = require("transformers", "vision")
    require("PIL.Image", "vision")
    loaded = transformers_models.load(name, "images", "vision", device)
    weights = [key for key, _ in loaded.tower.named_parameters()]
    has_class_token = any("cls_token" in key or "class_embedding" in key for key in weights)
    if pooling is None and not loaded.two_towers and not has_class_token:
        pooling = "mean"
    pooling, layer = transformers_models.check_reading(loaded, name, pooling, layer)
    if pooling == "cls" and not has_class_token:
        raise EncoderError(f"{model} has no class token. Use the pooling mean.")
    folder = Path(name).expanduser()
    with loading(name, "transformers"):
        # Pillow's resizing, which the models were trained with, wherever torchvision is or is not.
        processor = transformers.AutoImageProcessor.from_pretrained(
            str(folder) if folder.exists() else name, backend="pil"
        )

    def function(images: Any) -> Any:
        inputs = processor(list(as_rgb(images)), return_tensors="pt").to(loaded.device)
        with torch.inference_mode():
            if pooling == "projected":
                return loaded.model.get_image_features(**inputs).pooler_output.cpu().numpy()
            outputs = loaded.tower(**inputs, output_hidden_states=True)
            states = transformers_models.read_layer(outputs, layer)
            if pooling == "cls":
                return states[:, 0].cpu().numpy()
            return states.mean(1 if states.ndim == 3 else (2, 3)).cpu().numpy()

    settings = {
        "library": "transformers",
        "model": short_name(model) if folder.exists() else name,
        "weights": loaded.weights,
        "pooling": pooling,
        "layer": layer,
        "images": json.dumps(processor.to_dict(), sort_keys=True, default=str),
    }
    return Encoder(short_name(model), function, settings, "images")
