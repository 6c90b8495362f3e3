"""The papers' pretrained models by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """Where a model comes from.

    Attributes:
        library: `"transformers"` or `"timm"`.
        checkpoint: its name there.
        kinds: the samples it encodes.
        note: what to know before using it.
    """

    library: str
    checkpoint: str
    kinds: tuple[str, ...]
    note: str = ""


def _text(checkpoint: str, note: str = "") -> Model:
    return Model("transformers", checkpoint, ("text",), note)


def _timm(checkpoint: str) -> Model:
    return Model("timm", checkpoint, ("images",))


MODELS: dict[str, Model] = {
    "bert-base-cased": _text("google-bert/bert-base-cased"),
    "bert-base-uncased": _text("google-bert/bert-base-uncased"),
    "electra-base-discriminator": _text("google/electra-base-discriminator"),
    "roberta-base": _text("FacebookAI/roberta-base"),
    "albert-base-v2": _text("albert/albert-base-v2"),
    "xlm-roberta-base": _text("FacebookAI/xlm-roberta-base"),
    "rexnet_100": _timm("rexnet_100"),
    "vit_base_patch16_224": _timm("vit_base_patch16_224"),
    "vit_base_patch16_384": _timm("vit_base_patch16_384"),
    # timm has renamed it.
    "vit_base_resnet50_384": _timm("vit_base_r50_s16_384"),
    "vit_small_patch16_224": _timm("vit_small_patch16_224"),
    "clip-vit-base-patch32": Model(
        "transformers", "openai/clip-vit-base-patch32", ("text", "images")
    ),
    "roberta-base-bne": _text("PlanTL-GOB-ES/roberta-base-bne", "Spanish"),
    "roberta-base-french": _text("ClassCat/roberta-base-french", "French"),
    "roberta-base-japanese": _text(
        "nlp-waseda/roberta-base-japanese",
        "Japanese, in words that a segmenter (Juman++) has put spaces between",
    ),
}
"""Those of Cannistraci et al. 2024 as far as they could be learned, twelve (CLIP counts twice, once
for texts and once for images; `vit_base_patch16_384` is in another reading of their list), and
those of Moschella et al. 2023: four of English text and four of one language each."""
_BY_CHECKPOINT = {model.checkpoint: model for model in MODELS.values()}


def find(name: str) -> Model | None:
    """The model of that name or checkpoint, if it is one of the papers'."""
    return MODELS.get(name) or _BY_CHECKPOINT.get(name)
