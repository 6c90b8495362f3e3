"""Planetoid's pickles of a graph."""

import os
import pickle
from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse

from relrep_jax.data import load_graph

NUM_ALL, NUM_TRAIN, WIDTH, CLASSES = 8, 3, 6, 2
TEST = [10, 8, 11]  # 9 is missing, as some are in Citeseer


def write(folder, protocol=2, **changes):
    rng = np.random.default_rng(0)
    dense = (rng.random((12, WIDTH)) < 0.4).astype(np.float32)
    labels = rng.integers(0, CLASSES, 12)
    hot = np.eye(CLASSES, dtype=np.int32)[labels]
    graph = defaultdict(list, {node: [node + 1] for node in range(8)})
    graph[8] = [7, 10, 10]
    graph[11] = [0]
    parts = {
        "x": scipy.sparse.csr_matrix(dense[:NUM_TRAIN]),
        "allx": scipy.sparse.csr_matrix(dense[:NUM_ALL]),
        "tx": scipy.sparse.csr_matrix(dense[TEST]),
        "y": hot[:NUM_TRAIN],
        "ally": hot[:NUM_ALL],
        "ty": hot[TEST],
        "graph": graph,
    } | changes
    for part, value in parts.items():
        with open(folder / f"ind.toy.{part}", "wb") as file:
            pickle.dump(value, file, protocol=protocol)
    (folder / "ind.toy.test.index").write_text("".join(f"{node}\n" for node in TEST))
    return dense, labels


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("given", ["", "ind.toy", "ind.toy.allx"])
def test_a_graph_of_pickles(tmp_path, given, protocol):
    dense, labels = write(tmp_path, protocol)
    graph = load_graph(tmp_path / given)
    assert graph.name == "toy"
    dense[9], labels[9] = 0, 0
    np.testing.assert_array_equal(graph.features, dense)
    np.testing.assert_array_equal(graph.labels, labels)
    assert graph.num_classes == CLASSES
    np.testing.assert_array_equal(graph.train, [0, 1, 2])
    np.testing.assert_array_equal(graph.val, [3, 4, 5, 6, 7])
    np.testing.assert_array_equal(graph.test, [8, 10, 11])
    edges = {tuple(sorted(edge)) for edge in graph.edges.T.tolist()}
    assert edges == {*((node, node + 1) for node in range(8)), (8, 10), (0, 11)}
    assert graph.edges.shape[1] == 2 * len(edges)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, graph=Harmful())
    with pytest.raises(ValueError, match=r"ind.toy.graph .*asks for (posix|nt).mkdir"):
        load_graph(tmp_path)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"x": np.ones((3, WIDTH))}, "ind.toy.x is not a CSR matrix"),
        ({"y": np.ones(3)}, "ind.toy.y is not a matrix of one-hot labels"),
        ({"ally": np.ones((8, CLASSES))}, "ind.toy.ally must have one 1 in a row"),
        ({"ally": np.full((8, CLASSES), np.nan)}, "ind.toy.ally must have one 1 in a row"),
        ({"ally": np.eye(8)[:, :5]}, "have 2, 2, 5 classes"),
        ({"x": scipy.sparse.csr_matrix(np.ones((3, WIDTH)))}, "must be the first rows of .*allx"),
        ({"graph": {0: [1.7]}}, "ind.toy.graph is not a dictionary"),
        ({"tx": scipy.sparse.csr_matrix(np.ones((2, WIDTH)))}, "ind.toy.tx has the shape"),
        ({"graph": [1, 2]}, "ind.toy.graph is not a dictionary"),
        ({"graph": {99: [0]}}, r"nodes beyond 11: \[99\]"),
        ({"graph": {0: [99]}}, "adj_indices has 1 entries outside of 0 .. 11"),
    ],
)
def test_files_that_do_not_fit(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_graph(tmp_path)


def test_a_negative_column_is_refused(tmp_path):
    write(tmp_path)
    features = scipy.sparse.csr_matrix(np.ones((NUM_ALL, WIDTH), np.float32))
    features.indices[3] = -1
    with open(tmp_path / "ind.toy.allx", "wb") as file:
        pickle.dump(features, file)
    with pytest.raises(ValueError, match="allx is not a CSR matrix .*column indices begin with -1"):
        load_graph(tmp_path)


def test_missing_and_damaged_files(tmp_path):
    write(tmp_path)
    (tmp_path / "ind.toy.ally").unlink()
    with pytest.raises(ValueError, match="No such file: .*ind.toy.ally"):
        load_graph(tmp_path)
    (tmp_path / "ind.toy.ally").write_bytes(b"\x80\x02garbage")
    with pytest.raises(ValueError, match="ind.toy.ally cannot be read as Planetoid's"):
        load_graph(tmp_path)
    write(tmp_path)
    (tmp_path / "ind.toy.test.index").write_text("10\neight\n")
    with pytest.raises(ValueError, match="must have one node number a line"):
        load_graph(tmp_path)
    (tmp_path / "ind.toy.test.index").write_text("1\n2\n3\n")
    with pytest.raises(ValueError, match="must come after those of allx"):
        load_graph(tmp_path)
    (tmp_path / "ind.other.x").touch()
    with pytest.raises(ValueError, match="several graphs: ind.other, ind.toy. Name one"):
        load_graph(tmp_path)
