"""Files of latents, good and bad: every bad one is refused with its name and what to do."""

import builtins
import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from relrep_jax.data import (
    DatasetError,
    load_folder,
    load_indices,
    load_labels,
    load_latents,
    load_spaces,
    load_split,
)
from relrep_jax.data import latents as module

X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


def save_npy(path, array):
    np.save(path, array, allow_pickle=False)


def save_npz(path, array):
    np.savez(path, x=array)


def save_safetensors(path, array, **more):
    pytest.importorskip("safetensors.numpy").save_file({"x": array, **more}, path)


def arrow():
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    return pyarrow


def save_table(path, **columns):
    arrow().parquet.write_table(arrow().table(columns), path)


def save_parquet(path, array):
    kind = arrow().from_numpy_dtype(array.dtype)
    flat = arrow().array(array.ravel(), kind)
    save_table(path, x=arrow().FixedSizeListArray.from_arrays(flat, array.shape[1]))


SAVERS = {
    ".npy": save_npy,
    ".npz": save_npz,
    ".safetensors": save_safetensors,
    ".parquet": save_parquet,
}


def refused(function, *args, says):
    with pytest.raises(DatasetError) as caught:
        function(*args)
    for part in says:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
def test_latents_come_back_as_they_were_stored(tmp_path, suffix, dtype):
    path = tmp_path / f"encoder{suffix}"
    array = (4 * X).astype(dtype)
    SAVERS[suffix](path, array)
    space = load_latents(path)
    assert space.name == "encoder"
    assert space.array.dtype == dtype
    np.testing.assert_array_equal(space.array, array)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_large_files_are_mapped_not_read(tmp_path, suffix):
    SAVERS[suffix](tmp_path / f"a{suffix}", X)
    array = load_latents(tmp_path / f"a{suffix}").array
    assert isinstance(array, np.memmap) or isinstance(array.base, np.memmap)


def test_safetensors_hold_bfloat16(tmp_path):
    path = tmp_path / "a.safetensors"
    save_safetensors(path, X.astype(ml_dtypes.bfloat16))
    array = load_latents(path).array
    assert array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(array.astype(np.float32), X.astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("kind", ["list", "large_list"])
def test_parquet_columns_are_lists_of_any_kind_in_any_number_of_row_groups(tmp_path, kind):
    path = tmp_path / "a.parquet"
    kinds = {"list": arrow().list_, "large_list": arrow().large_list}
    column = arrow().array(X.tolist(), kinds[kind](arrow().float32()))
    table = arrow().table({"text": ["t"] * 12, "x": column, "y": column})
    arrow().parquet.write_table(table, path, row_group_size=5)
    np.testing.assert_array_equal(load_latents(f"{path}:y").array, X)
    assert load_latents(f"{path}:y").name == "y"
    refused(load_latents, path, says=[str(path), "2 arrays: x, y", f"{path}:x"])
    refused(load_latents, f"{path}:z", says=[str(path), "Unknown array 'z'", "x, y"])


def test_one_of_several_arrays_is_named(tmp_path):
    path = tmp_path / "both.npz"
    np.savez(path, vision=X, text=X[:, :3], labels=np.zeros(12))
    assert load_latents(f"{path}:text").array.shape == (12, 3)
    refused(load_latents, path, says=["2 arrays: text, vision", f"{path}:text"])
    refused(load_latents, f"{path}:txt", says=["Did you mean 'text'"])
    assert [space.name for space in load_spaces([path])] == ["both:vision", "both:text"]
    np.savez(tmp_path / "one.npz", x=X, labels=np.zeros(12))
    assert load_latents(tmp_path / "one.npz").array.shape == (12, 5)


def test_every_file_of_a_folder_is_a_space(tmp_path):
    save_npy(tmp_path / "b.npy", X)
    save_npz(tmp_path / "a.npz", X[:, :2])
    for name in ("labels.npy", "split.npy", ".hidden.npy"):
        save_npy(tmp_path / name, np.zeros(12, int))
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / "deeper").mkdir()
    found = load_folder(tmp_path)
    assert {name: array.shape for name, array in found.items()} == {"a": (12, 2), "b": (12, 5)}


def test_spaces_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for encoder in ("bert", "gpt"):
        (tmp_path / encoder).mkdir()
        save_npy(tmp_path / encoder / "train.npy", X)
    paths = [tmp_path / "bert", tmp_path / "gpt" / "train.npy"]
    assert [space.name for space in load_spaces(paths)] == ["bert/train", "gpt/train"]
    refused(load_spaces, [paths[1], paths[1]], says=["named twice"])


def test_row_counts_that_differ_are_listed(tmp_path):
    save_npy(tmp_path / "a.npy", X)
    save_npy(tmp_path / "b.npy", X[:7])
    refused(load_folder, tmp_path, says=["a has 12", "b has 7", "same sample"])


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(tmp_path, suffix, value):
    path = tmp_path / f"a{suffix}"
    bad = X.copy()
    bad[[3, 8], 1] = value
    SAVERS[suffix](path, bad)
    refused(load_latents, path, says=[str(path), "2 of 12 rows", "rows 3, 8"])


def test_rows_are_looked_at_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHECKED_BYTES", 5 * 4 * 5)
    bad = X.copy()
    bad[11, 4] = np.nan
    save_npy(tmp_path / "a.npy", bad)
    refused(load_latents, tmp_path / "a.npy", says=["1 of 12 rows", "rows 11"])
    save_npy(tmp_path / "b.npy", np.where(np.isnan(bad), 1e300, bad.astype(np.float64)))
    refused(load_latents, tmp_path / "b.npy", says=["row 11", "float32", "Scale"])


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(Path(os.environ["RELREP_TEST_TRAP"])),)


def object_npy(path):
    np.save(path, np.array([[Evil()]], object), allow_pickle=True)


def pickled_npy(path):
    path.write_bytes(pickle.dumps(Evil()))


def object_npz(path):
    np.savez(path, x=np.array([[Evil()]], object), allow_pickle=True)


@pytest.mark.parametrize(
    "name, save", [("a.npy", object_npy), ("a.npy", pickled_npy), ("a.npz", object_npz)]
)
def test_python_objects_are_refused_and_not_run(tmp_path, monkeypatch, name, save):
    monkeypatch.setenv("RELREP_TEST_TRAP", str(tmp_path / "trap"))
    save(tmp_path / name)
    target = tmp_path / name if name.endswith("npy") else f"{tmp_path / name}:x"
    refused(load_latents, target, says=[str(tmp_path / name), "run any code", "np.save"])
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_files_that_were_cut_short_are_refused(tmp_path, suffix, kept):
    path = tmp_path / f"a{suffix}"
    SAVERS[suffix](path, np.repeat(X, 40, axis=0))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    refused(load_latents, path, says=[str(path), "cut short", "Copy it again"])


@pytest.mark.parametrize("suffix", SAVERS)
def test_files_without_bytes_or_with_others_are_refused(tmp_path, suffix):
    if suffix in (".safetensors", ".parquet"):
        pytest.importorskip({".safetensors": "safetensors", ".parquet": "pyarrow"}[suffix])
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"")
    refused(load_latents, path, says=[str(path), "empty"])
    path.write_bytes(b"this is no array at all, but text")
    refused(load_latents, path, says=[str(path), "not"])
    refused(load_latents, tmp_path / f"gone{suffix}", says=[f"gone{suffix}", "No such file"])


def test_damage_inside_an_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    save_npz(path, X)
    data = bytearray(path.read_bytes())
    data[200:220] = bytes(20)
    path.write_bytes(data)
    refused(load_latents, path, says=[f"{path}:x", "damaged"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
    refused(load_latents, path, says=[str(path)])


@pytest.mark.parametrize(
    "array, says",
    [
        (X[0], ["[n, d]", "(5,)", "one row a sample"]),
        (X[None], ["[n, d]", "(1, 12, 5)"]),
        (np.zeros((0, 5)), ["empty", "(0, 5)"]),
        (X + 1j, ["real numbers", "complex"]),
        (X > 0, ["real numbers", "bool"]),
        (np.array([["a", "b"]]), ["real numbers", "<U1"]),
        (np.zeros((2, 2), "V3"), ["real numbers"]),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(tmp_path, array, says):
    np.save(tmp_path / "a.npy", array)
    refused(load_latents, tmp_path / "a.npy", says=[str(tmp_path / "a.npy"), *says])


def test_foreign_byte_orders_and_column_order_are_read(tmp_path):
    np.save(tmp_path / "a.npy", X.astype(">f4"))
    np.save(tmp_path / "b.npy", np.asfortranarray(X))
    a, b = (load_latents(tmp_path / name).array for name in ("a.npy", "b.npy"))
    assert a.dtype.isnative
    np.testing.assert_array_equal(a, X)
    np.testing.assert_array_equal(b, X)


def test_names_say_what_is_wrong_with_them(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"x")
    refused(load_latents, tmp_path / "a.pt", says=["a.pt", ".safetensors", "not from .pt"])
    refused(load_latents, tmp_path, says=["folder"])
    refused(load_folder, tmp_path, says=[str(tmp_path), "no latents"])
    refused(load_spaces, [tmp_path / "none"], says=["No such file"])
    buffer = io.BytesIO()
    np.savez(buffer, x=X)
    (tmp_path / "b.npy").write_bytes(buffer.getvalue())
    refused(load_latents, tmp_path / "b.npy", says=["b.npy", "Rename it"])
    np.savez(tmp_path / "c.npz", labels=np.zeros(3))
    refused(load_latents, tmp_path / "c.npz", says=["c.npz", "only labels"])


@pytest.mark.parametrize(
    "rows, says",
    [
        ([[1.0, 2.0], [1.0]], ["ragged", "row 0 has 2", "row 1 has 1"]),
        ([[1.0, 2.0], None], ["rows without a value", "row 1"]),
        ([[1.0, 2.0], [None, 1.0]], ["missing values", "row 1"]),
        ([["a"], ["b"]], ["lists of string"]),
        ([1.0, 2.0], ["no column of lists", "x (double)"]),
    ],
)
def test_parquet_columns_that_are_no_matrix_are_refused(tmp_path, rows, says):
    save_table(tmp_path / "a.parquet", x=rows)
    refused(load_latents, tmp_path / "a.parquet", says=[str(tmp_path / "a.parquet"), *says])


@pytest.mark.parametrize(
    "suffix, package", [(".safetensors", "safetensors"), (".parquet", "pyarrow")]
)
def test_packages_that_are_missing_are_named_with_their_extra(
    tmp_path, monkeypatch, suffix, package
):
    actual = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return actual(name, *args, **kwargs)

    (tmp_path / f"a{suffix}").write_bytes(b"x")
    monkeypatch.setattr(builtins, "__import__", without)
    refused(
        load_latents, tmp_path / f"a{suffix}", says=[package, 'pip install "relrep_jax[files]"']
    )


# --- indices, labels, splits -------------------------------------------------------------------


def test_row_numbers_come_from_numpy_and_text(tmp_path):
    np.save(tmp_path / "a.npy", np.array([3, 0, 2], np.uint8))
    (tmp_path / "a.txt").write_text("# rows\n3\n0\n\n2\n")
    (tmp_path / "p.csv").write_text("3,1\n0,5\n")
    for name in ("a.npy", "a.txt"):
        found = load_indices(tmp_path / name, 4)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, [3, 0, 2])
    np.testing.assert_array_equal(load_indices(tmp_path / "p.csv", 4, 6), [[3, 1], [0, 5]])
    refused(load_indices, tmp_path / "a.npy", 3, says=["a.npy", "first is 3", "0 to 2"])
    refused(load_indices, tmp_path / "a.npy", 9, 3, says=["0 to 2"])
    refused(load_indices, tmp_path / "p.csv", 4, 5, says=["column 1", "first is 5", "0 to 4"])


@pytest.mark.parametrize(
    "array, says",
    [
        (np.array([-1]), ["first is -1"]),
        (np.array([0.5]), ["row numbers", "float64"]),
        (np.array([True]), ["np.flatnonzero"]),
        (np.zeros((2, 3), int), ["(2, 3)", "[p, 2]"]),
        (np.zeros(0, int), ["empty"]),
    ],
)
def test_what_is_no_row_number_is_refused(tmp_path, array, says):
    np.save(tmp_path / "a.npy", array)
    refused(load_indices, tmp_path / "a.npy", 4, says=[str(tmp_path / "a.npy"), *says])


@pytest.mark.parametrize(
    "text, says", [("1\nx\n", ["'x'"]), ("1\n1 2\n", ["some have more"]), ("", ["empty"])]
)
def test_text_that_holds_no_row_numbers_is_refused(tmp_path, text, says):
    (tmp_path / "a.txt").write_text(text)
    refused(load_indices, tmp_path / "a.txt", 4, says=["a.txt", *says])
    refused(load_indices, tmp_path / "gone.txt", 4, says=["No such file"])
    refused(load_indices, tmp_path / "a.json", 4, says=["a.json", ".csv"])


def test_labels_are_numbers_or_names(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[2.0], [0.0], [2.0]]))
    np.save(tmp_path / "n.npy", np.array(["dog", "cat", "dog"]))
    (tmp_path / "a.txt").write_text("dog\ncat\ndog\n")
    np.savez(tmp_path / "a.npz", labels=[1, 0, 1], x=X[:3])
    save_table(tmp_path / "a.parquet", kind=["dog", "cat", "dog"])
    np.testing.assert_array_equal(load_labels(tmp_path / "a.npy", 3), [2, 0, 2])
    for name in ("n.npy", "a.txt", "a.npz", "a.parquet:kind"):
        found = load_labels(f"{tmp_path}/{name}", 3)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, [1, 0, 1])
    refused(load_labels, tmp_path / "a.npy", 4, says=["3 labels", "4 rows"])
    np.save(tmp_path / "b.npy", np.array([0.5, 1.0]))
    refused(load_labels, tmp_path / "b.npy", says=["row 0 holds 0.5"])
    np.save(tmp_path / "c.npy", X)
    refused(load_labels, tmp_path / "c.npy", says=["c.npy", "(12, 5)"])
    refused(load_labels, tmp_path / "a.json", says=["a.json"])


def test_splits_are_numbers_or_names(tmp_path):
    np.save(tmp_path / "a.npy", np.array([0, 1, 2], np.int8))
    (tmp_path / "a.txt").write_text("train\nval\ntest\n")
    for name in ("a.npy", "a.txt"):
        np.testing.assert_array_equal(load_split(tmp_path / name, 3), [0, 1, 2])
    (tmp_path / "b.txt").write_text("train\ntets\n")
    refused(load_split, tmp_path / "b.txt", says=["Did you mean 'test'"])
    np.save(tmp_path / "c.npy", np.array([0, 3]))
    refused(load_split, tmp_path / "c.npy", says=["c.npy", "got also 3"])


def test_the_real_latents_load():
    folder = os.environ.get("RELREP_DATA_DIR")
    if not folder or not Path(folder, "latents", "trec").is_dir():
        pytest.skip("set RELREP_DATA_DIR to a folder that holds latents/trec")
    found = load_folder(Path(folder, "latents", "trec"))
    assert len(found) == 5
    rows = {array.shape[0] for array in found.values()}
    assert len(rows) == 1
    assert all(re.search("v2|v3|q4", name) for name in found)
    assert len(load_labels(Path(folder, "latents", "trec", "labels.npy"), rows.pop())) > 0


def test_numbers_that_are_too_large_are_refused(tmp_path):
    file = tmp_path / "huge.csv"
    file.write_text("99999999999999999999\n1\n")
    for load in (load_indices, load_labels):
        with pytest.raises(DatasetError, match="too large"):
            load(file)
