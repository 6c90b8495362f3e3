"""Images from the embedded digits, from prepared tfds data sets and from files."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from relrep_jax.data import DatasetError, ImageDataset, load_images
from relrep_jax.data import prepared as prepared_module


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    load_images("digits", data_dir=folder)
    return folder


def run_python(code, *args, **env):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


# The embedded digits


def test_digits_are_those_of_scikit_learn_in_their_order(digits_dir):
    data = load_images("digits", data_dir=digits_dir)
    source = load_digits()
    images = np.concatenate([data.x_train, data.x_test])
    labels = np.concatenate([data.y_train, data.y_test])
    assert len(data.x_train) == 1500
    assert data.x_train.dtype == np.uint8
    assert data.y_train.dtype == np.int32
    np.testing.assert_array_equal(images[..., 0], source.images)
    np.testing.assert_array_equal(labels, source.target)
    assert (data.image_shape, data.scale, data.num_classes) == ((8, 8, 1), 16.0, 10)
    assert (data.x_train / data.scale).max() == 1


def test_both_parts_of_the_digits_hold_every_class_about_equally(digits_dir):
    data = load_images(data_dir=digits_dir)
    for labels in (data.y_train, data.y_test, data.y_train[:300]):
        counts = np.bincount(labels, minlength=10)
        assert counts.min() > 0.85 * len(labels) / 10
        assert counts.max() < 1.15 * len(labels) / 10


def test_stored_rows_carry_their_index_and_are_found_by_name(digits_dir):
    import tensorflow_datasets as tfds

    import relrep_jax.data as data_module

    assert data_module.Digits.name == "digits8x8"
    rows = tfds.data_source("digits8x8", split="test", data_dir=digits_dir)
    by_index = {row["index"]: row for row in rows.__getitems__(list(range(len(rows))))}
    assert sorted(by_index) == list(range(1500, 1797))
    assert [row["index"] for row in rows] != sorted(by_index)  # so sorting is needed
    source = load_digits()
    for index, row in by_index.items():
        np.testing.assert_array_equal(row["image"][..., 0], source.images[index])
        assert row["label"] == source.target[index]


def test_the_builder_survives_pickling(digits_dir):
    from relrep_jax.data import Digits

    builder = pickle.loads(pickle.dumps(Digits(data_dir=digits_dir)))
    assert len(builder.as_data_source("train")) == 1500


def test_limits_take_the_first_rows(digits_dir):
    whole = load_images(data_dir=digits_dir)
    part = load_images(data_dir=digits_dir, train_limit=13, test_limit=np.int64(297))
    np.testing.assert_array_equal(part.x_train, whole.x_train[:13])
    np.testing.assert_array_equal(part.y_train, whole.y_train[:13])
    np.testing.assert_array_equal(part.x_test, whole.x_test)


@pytest.mark.parametrize(
    "limits, message",
    [
        ({"train_limit": 0}, r"train_limit must lie in 1 \.\. 1500.*got 0"),
        ({"train_limit": -1}, "got -1"),
        ({"train_limit": 1501}, "got 1501"),
        ({"test_limit": 298}, r"test_limit must lie in 1 \.\. 297"),
        ({"test_limit": 2.5}, "test_limit must be a whole number or None, got 2.5"),
    ],
)
def test_limits_out_of_range_are_refused(digits_dir, limits, message):
    with pytest.raises(DatasetError, match=message):
        load_images(data_dir=digits_dir, **limits)


def test_digits_need_neither_tensorflow_nor_a_network_and_make_no_noise(tmp_path):
    code = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from absl import logging
logging.set_verbosity(logging.INFO)
logging.use_absl_handler()
from relrep_jax.data import load_images
data = load_images()  # prepares
load_images()  # reads what is there
assert "tensorflow" not in sys.modules
assert logging.get_verbosity() == logging.INFO
assert len(data.x_train) == 1500
"""
    done = run_python(code, TFDS_DATA_DIR=str(tmp_path / "new"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "new" / "digits8x8" / "1.0.0" / "dataset_info.json").is_file()
    assert os.listdir(tmp_path / "new" / "digits8x8") == ["1.0.0"]


def test_importing_the_package_loads_nothing_heavy():
    code = """
import sys, relrep_jax.data
for name in ("tensorflow_datasets", "sklearn", "tensorflow"):
    assert name not in sys.modules, name
"""
    assert run_python(code).returncode == 0


@pytest.mark.slow
def test_two_processes_may_prepare_at_once(tmp_path):
    # Both seed Python's generator alike, as training scripts do, and start together.
    code = """
import random, sys, time, pathlib
import sklearn.datasets, relrep_jax.data.digits
from relrep_jax.data import load_images
random.seed(0)
folder, mine = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / mine).touch()
while not (folder / "go").exists():
    time.sleep(0.001)
data = load_images("digits", data_dir=folder / "data")
print(len(data.x_train), len(data.x_test), int(data.x_train.sum()))
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    while not all((tmp_path / str(i)).exists() for i in range(2)):
        assert all(run.poll() is None for run in runs)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    answers = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], answers
    total = int(load_digits().images[:1500].sum())
    assert [out.split() for out, _ in answers] == [["1500", "297", str(total)]] * 2
    assert os.listdir(tmp_path / "data" / "digits8x8") == ["1.0.0"]


def test_a_process_that_comes_second_uses_what_the_first_wrote(tmp_path, digits_dir, monkeypatch):
    final, plain_rename = tmp_path / "digits8x8" / "1.0.0", os.rename

    def rename(source, target):
        if Path(target) == final:  # the first process arrives just before this one
            shutil.copytree(digits_dir / "digits8x8" / "1.0.0", final)
        plain_rename(source, target)

    monkeypatch.setattr(prepared_module.os, "rename", rename)
    assert prepared_module.prepare_digits(tmp_path) == final
    assert os.listdir(final.parent) == ["1.0.0"]


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match=r"Cannot write .*digits8x8.*data_dir=.*TFDS_DATA_DIR"):
        load_images("digits", data_dir=tmp_path / "file")


def test_a_damaged_copy_of_the_digits_is_named(tmp_path, digits_dir):
    shutil.copytree(digits_dir / "digits8x8", tmp_path / "digits8x8")
    (shard,) = (tmp_path / "digits8x8" / "1.0.0").glob("*train*")
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(DatasetError, match=r"Cannot read .*1\.0\.0.*delete that folder"):
        load_images("digits", data_dir=tmp_path)


# Data sets that tfds prepared


def encode_png(image):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, format="png")
    return buffer.getvalue()


def prepare_official(root, dataset, shape, num_classes, file_format):
    """Write a small data set as tfds writes the official one of this name, with PNG images."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    sizes = {"train": 20, "test": 5}
    images = {s: rng.integers(0, 256, (n, *shape), dtype=np.uint8) for s, n in sizes.items()}
    labels = {s: rng.integers(0, num_classes, n) for s, n in sizes.items()}

    def features(image):
        columns = {"image": image, "label": tfds.features.ClassLabel(num_classes=num_classes)}
        if dataset == "cifar100":
            columns["coarse_label"] = tfds.features.ClassLabel(num_classes=20)
        return tfds.features.FeaturesDict(columns)

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset
        VERSION = tfds.core.Version("3.0.1")
        code_path = None

        def _info(self):  # Text holds the same bytes as Image, which only TensorFlow can write
            return tfds.core.DatasetInfo(builder=self, features=features(tfds.features.Text()))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in sizes}

        def _generate_examples(self, split):
            for i, (image, label) in enumerate(zip(images[split], labels[split], strict=True)):
                row = {"image": encode_png(image), "label": int(label)}
                if dataset == "cifar100":
                    row["coarse_label"] = 7
                yield i, row

    builder = Small(data_dir=root, file_format=file_format)
    with prepared_module.quiet():
        builder.download_and_prepare()
    features(tfds.features.Image(shape=shape)).save_config(builder.data_dir)
    return images, labels


@pytest.mark.parametrize(
    "name, shape, classes, file_format",
    [
        ("mnist", (28, 28, 1), 10, "array_record"),
        ("fashion_mnist", (28, 28, 1), 10, "parquet"),
        ("cifar10", (32, 32, 3), 10, "array_record"),
        ("cifar100", (32, 32, 3), 100, "array_record"),
    ],
)
def test_official_data_sets_are_read_in_stored_order(tmp_path, name, shape, classes, file_format):
    import tensorflow_datasets as tfds

    images, labels = prepare_official(tmp_path, name, shape, classes, file_format)
    data = load_images(name, data_dir=tmp_path, test_limit=3)
    assert (data.name, data.image_shape, data.scale) == (name, shape, 255.0)
    assert data.num_classes == classes
    assert (data.x_train.dtype, data.y_train.dtype) == (np.uint8, np.int32)
    stored = tfds.builder_from_directory(str(tmp_path / name / "3.0.1")).as_data_source("train")
    np.testing.assert_array_equal(data.x_train, np.stack([row["image"] for row in stored]))
    read, written = (
        {(image.tobytes(), int(label)) for image, label in zip(x, y, strict=True)}
        for x, y in ((data.x_train, data.y_train), (images["train"], labels["train"]))
    )
    assert read == written
    assert data.x_test.shape == (3, *shape)
    assert "tensorflow" not in sys.modules


def test_the_newest_readable_version_is_taken(tmp_path):
    prepare_official(tmp_path, "mnist", (28, 28, 1), 10, "array_record")
    old = tmp_path / "mnist" / "3.0.1"
    for version, stored in (("10.0.0", "tfrecord"), ("2.9.0", "array_record")):
        new = shutil.copytree(old, tmp_path / "mnist" / version)
        info = json.loads((new / "dataset_info.json").read_text())
        (new / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": stored}))
    (tmp_path / "mnist" / "3.0.1_backup").mkdir()
    assert prepared_module._find_prepared("mnist", tmp_path) == old


def test_a_data_set_that_is_not_prepared_says_how(tmp_path):
    with pytest.raises(DatasetError) as caught:
        load_images("mnist", data_dir=tmp_path / "it's here")
    message = str(caught.value)
    assert str(tmp_path / "it's here" / "mnist" / "<version>" / "dataset_info.json") in message
    assert "path=" in message
    assert "x_train" in message
    (line,) = (line for line in message.splitlines() if "python -c" in line)
    printed = subprocess.run(
        ["bash", "-c", line.replace("python -c", "printf %s")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    compile(printed, "hint", "exec")  # as the shell hands it on, quotes in the path and all
    assert 'tfds.builder("mnist", ' in printed
    assert 'file_format="array_record"' in printed


def test_a_data_set_in_tfrecord_format_is_refused_with_advice(tmp_path):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "features.json").write_text("{}")
    (folder / "dataset_info.json").write_text('{"name": "cifar10", "version": "3.0.2"}')
    with pytest.raises(DatasetError, match=r"3\.0\.2 \(tfrecord\), which only TensorFlow can read"):
        load_images("cifar10", data_dir=tmp_path)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(DatasetError, match="Cannot read .*delete that folder"):
        load_images("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    "name, message",
    [
        ("digit", "Did you mean 'digits'.*Known: cifar10, cifar100, digits, fashion_mnist, mnist"),
        ("mine.npz", "path='mine.npz'"),
        (None, "Give a path, or a name"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        load_images(name)


# Files


def arrays(**changes):
    """A small file's arrays: 6 training and 3 test images of 4x5 grey levels in 0 .. 255."""
    rng = np.random.default_rng(0)
    parts = {
        "x_train": rng.integers(0, 256, (6, 4, 5), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "x_test": rng.integers(0, 256, (3, 4, 5), dtype=np.uint8),
        "y_test": np.array([2, 1, 0]),
    }
    parts["x_train"][0, 0, 0] = 255
    parts.update(changes)
    return {key: value for key, value in parts.items() if value is not None}


def write(path, **changes):
    np.savez(path, **arrays(**changes))
    return path


def test_a_file_gets_a_channel_axis_and_keeps_its_dtype_and_order(tmp_path):
    path = write(tmp_path / "mine.npz")
    data = load_images(path=str(path), train_limit=4)
    expected = arrays()
    assert isinstance(data, ImageDataset)
    assert (data.name, data.image_shape, data.scale) == ("mine", (4, 5, 1), 255.0)
    assert data.num_classes == 3
    assert data.x_train.dtype == np.uint8
    assert (data.y_train.dtype, data.y_test.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(data.x_train[..., 0], expected["x_train"][:4])
    np.testing.assert_array_equal(data.y_train, expected["y_train"][:4])
    np.testing.assert_array_equal(data.x_test[..., 0], expected["x_test"])


def test_colour_images_and_column_labels_as_keras_stores_them(tmp_path):
    colour = np.full((6, 4, 4, 3), 200, np.uint8)
    path = write(
        tmp_path / "c.npz", x_train=colour, x_test=colour[:3], y_train=np.arange(6)[:, None]
    )
    data = load_images(path=path)
    assert data.image_shape == (4, 4, 3)
    np.testing.assert_array_equal(data.y_train, np.arange(6))


@pytest.mark.parametrize(
    "make, scale",
    [
        (lambda x: x, 255.0),
        (lambda x: x.astype(np.float32), 255.0),
        (lambda x: x.astype(np.int64), 255.0),
        (lambda x: (x / 255).astype(np.float32), 1.0),
        (lambda x: (x / 255).astype(np.float16), 1.0),
        (lambda x: x // 128, 1.0),
        (lambda x: x.astype(">f4"), 255.0),
        (lambda x: x.astype(">u2"), 255.0),
        (lambda x: x.astype(np.longdouble), 255.0),
    ],
    ids=[
        "uint8",
        "float 0..255",
        "int64",
        "float32",
        "float16",
        "black and white",
        "other byte order",
        "whole numbers in other byte order",
        "long double",
    ],
)
def test_scale_brings_images_into_the_unit_interval(tmp_path, make, scale):
    parts = {key: make(arrays()[key]) for key in ("x_train", "x_test")}
    data = load_images(path=write(tmp_path / "s.npz", **parts))
    assert data.scale == scale
    stored = parts["x_train"].dtype
    assert data.x_train.dtype == (stored.newbyteorder("=") if stored.itemsize <= 8 else np.float64)
    np.testing.assert_array_equal(data.x_train[..., 0], parts["x_train"])
    assert jax.device_put(data.x_train).shape == data.x_train.shape
    assert (data.x_train / data.scale).max() == 1


def test_dark_images_are_kept_with_a_warning(tmp_path):
    parts = {key: arrays()[key] // 16 for key in ("x_train", "x_test")}
    with pytest.warns(UserWarning, match="no pixel is brighter than 15"):
        assert load_images(path=write(tmp_path / "d.npz", **parts)).scale == 255.0


def test_whole_float_labels_are_accepted(tmp_path):
    path = write(tmp_path / "f.npz", y_train=np.array([0.0, 1, 2, 0, 1, 2]))
    np.testing.assert_array_equal(load_images(path=path).y_train, [0, 1, 2, 0, 1, 2])


def test_labels_of_the_test_part_alone_are_kept_with_a_warning(tmp_path):
    path = write(tmp_path / "u.npz", y_test=np.array([0, 4, 1]))
    with pytest.warns(UserWarning, match="4 in y_test never occur in y_train"):
        data = load_images(path=path)
    assert data.num_classes == 5


def pixels(value, dtype=np.float32, count=6):
    x = np.full((count, 4, 5), 0.5, dtype)
    x[2:, 1, 1] = value
    return x


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x_test": None, "y_test": None}, "lacks x_test, y_test; there is: x_train, y_train"),
        ({"x_train": np.zeros((6, 20))}, r"x_train must have shape .*got \(6, 20\).*Reshape"),
        ({"x_train": np.zeros((6, 1, 4, 5, 1))}, r"got \(6, 1, 4, 5, 1\)"),
        ({"x_test": np.zeros((3, 4, 8, 12))}, r"channels first"),
        (
            {"x_train": pixels(200).round(), "x_test": pixels(0.5, count=3)},
            r"x_test lies in \[0, 1\], but x_train has values up to 200",
        ),
        ({"x_test": np.zeros((3, 3, 8, 8))}, r"channels first.*np.moveaxis\(x_test, 1, -1\)"),
        ({"x_test": np.zeros((0, 4, 5)), "y_test": np.zeros(0, int)}, r"x_test is empty"),
        ({"y_test": np.zeros(0, int)}, "y_test is empty"),
        ({"y_train": np.zeros(5, int)}, "x_train has 6 images but y_train has 5 labels"),
        ({"y_test": np.zeros(4, int)}, "x_test has 3 images but y_test has 4 labels"),
        ({"x_test": np.zeros((3, 5, 4))}, r"images are \(4, 5, 1\) but test .*\(5, 4, 1\)"),
        ({"x_train": np.array([None, {}])}, "x_train holds Python objects.*any code"),
        ({"y_train": np.array([0, "a", 1, 2, 0, 1], object)}, "y_train holds Python objects"),
        ({"x_train": np.full((6, 4, 5), "a")}, "x_train must hold real numbers, got dtype <U1"),
        ({"x_train": np.zeros((6, 4, 5), complex)}, "got dtype complex128"),
        ({"x_train": np.zeros((6, 4, 5), bool)}, "got dtype bool. Store uint8"),
        ({"x_train": pixels(np.nan)}, r"x_train has NaN or infinite values in 4 of 6 .*2, 3, 4, 5"),
        ({"x_test": pixels(np.inf, count=3)}, r"x_test has NaN or infinite values in 1 of 3 .*2\)"),
        ({"x_train": pixels(-0.5)}, r"x_train has negative values \(lowest -0\.5\).*rescale"),
        ({"x_train": pixels(-1, np.int16)}, r"x_train has negative values \(lowest -1\)"),
        ({"x_train": pixels(1.5)}, "x_train has values up to 1.5; .*Divide"),
        ({"x_train": pixels(256, np.uint16)}, "x_train has values up to 256; .*Divide"),
        ({"x_train": pixels(300.0).round()}, "x_train has values up to 300.0; .*Divide"),
        ({"y_train": np.eye(6)}, r"y_train must have shape .*got \(6, 6\).*argmax"),
        ({"y_train": np.array(3)}, r"y_train must have shape .*got \(\)"),
        ({"y_train": np.array(list("abcabc"))}, "y_train must hold class numbers, got dtype <U1"),
        ({"y_train": np.array([0, 1, 0.5, 1, 2, 0])}, r"1 of 6 are not \(rows 2; .* 0\.5\)"),
        ({"y_train": np.array([0, 1, np.nan, 1, 2, 0])}, r"1 of 6 are not \(rows 2; .*nan\)"),
        ({"y_test": np.array([0, -1, -1])}, r"y_test has 2 negative labels \(rows 1, 2\)"),
        ({"y_test": np.array([0, 1, 2**40])}, "y_test has the label 1099511627776; .*Renumber"),
    ],
)
def test_faulty_arrays_are_refused(tmp_path, changes, message):
    path = write(tmp_path / "faulty.npz", **changes)
    with pytest.raises(DatasetError, match=message) as caught:
        load_images(path=path)
    assert str(path) in str(caught.value)


def truncated(path):
    write(path)
    path.write_bytes(path.read_bytes()[:-300])


def flipped(path):
    """One bit of the images' bytes differs: the zip's checksum sees it."""
    data = bytearray(write(path).read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


def headless(path):
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            archive.writestr(f"{key}.npy", b"\x93NUMPY\x01\x00")


def with_shape(path, shape):
    """Arrays of no bytes whose headers promise this shape."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': %s}" % shape
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            archive.writestr(f"{key}.npy", content)


def without_npy(path):
    with zipfile.ZipFile(path, "w") as archive:
        for key in arrays():
            archive.writestr(key, b"text")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "No such file: .*Check the path"),
        (lambda path: path.mkdir(), "is a folder, not an .npz file"),
        (lambda path: path.write_bytes(b""), "is not an .npz file, or it was cut short"),
        (lambda path: path.write_text("x,y\n1,2\n"), "is not an .npz file"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "is not an .npz file"),
        (lambda path: path.write_bytes(pickle.dumps(arrays())), "is not an .npz file"),
        (lambda path: np.savez(path), "lacks x_train, .*there is: nothing"),
        (truncated, "is not an .npz file, or it was cut short"),
        (flipped, "x_train is damaged or cut short: Bad CRC"),
        (headless, "x_train is damaged or cut short"),
        (lambda path: with_shape(path, b"(3, ["), "x_train is damaged or cut short"),
        (lambda path: with_shape(path, b"(%d,)" % 2**60), "x_train .*memory"),
        (without_npy, "x_train is not a NumPy array"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, make, message):
    path = tmp_path / "odd.npz"
    make(path)
    with pytest.raises(DatasetError, match=message) as caught:
        load_images(path=path)
    assert str(path) in str(caught.value)


def test_limits_beyond_a_file_are_refused(tmp_path):
    path = write(tmp_path / "mine.npz")
    with pytest.raises(DatasetError, match=r"test_limit must lie in 1 \.\. 3.*mine\.npz.*got 4"):
        load_images(path=path, test_limit=4)


@pytest.mark.parametrize(
    "file, shape, sizes",
    [
        ("mnist_20k_3k.npz", (28, 28, 1), (20000, 3000)),
        ("cifar10_5k_2k.npz", (32, 32, 3), (5000, 2000)),
    ],
)
def test_real_images_from_a_file(file, shape, sizes):
    folder = os.environ.get("RELREP_DATA_DIR")
    if not folder or not (Path(folder) / file).is_file():
        pytest.skip(f"set RELREP_DATA_DIR to a folder that holds {file}")
    data = load_images(path=Path(folder) / file)
    assert (data.image_shape, data.scale, data.num_classes) == (shape, 255.0, 10)
    assert (len(data.x_train), len(data.y_test)) == sizes
    assert set(np.unique(data.y_test)) == set(range(10))
    means = np.stack([data.x_train[data.y_train == k].mean(axis=0) for k in range(10)])
    images, means = data.x_test.reshape(sizes[1], -1).astype(float), means.reshape(10, -1)
    nearest = ((means**2).sum(axis=1) - 2 * images @ means.T).argmin(axis=1)
    accuracy = (nearest == data.y_test).mean()
    assert accuracy > 0.2  # images and labels belong together: chance is 0.1
