"""Loading graphs: the layout, the embedded graph, random splits, and every fault of a file."""

import jax
import numpy as np
import pytest

from relrep_jax.data import DatasetError, load_graph
from relrep_jax.data.graphs import normalize_rows, split_nodes


def path_graph():
    """0 -> 1 -> 2 -> 3, a self-loop at 2, a stored zero from 3 to 0; three features."""
    return {
        "adj_data": np.array([1.0, 2.0, 1.0, 1.0, 0.0], np.float32),
        "adj_indices": np.array([1, 2, 2, 3, 0], np.int32),
        "adj_indptr": np.array([0, 1, 2, 4, 5], np.int32),
        "adj_shape": np.array([4, 4]),
        "attr_data": np.array([1.0, 5.0, 2.0], np.float32),
        "attr_indices": np.array([0, 2, 1], np.int32),
        "attr_indptr": np.array([0, 2, 2, 3, 3], np.int32),
        "attr_shape": np.array([4, 3]),
        "labels": np.array([0, 1, 2, 0]),
    }


def write(folder, **changes):
    arrays = {**path_graph(), **changes}
    file = folder / "path.npz"
    np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
    return file


def pairs(graph):
    return sorted(map(tuple, graph.edges.T.tolist()))


def test_a_file_gives_its_graph(tmp_path):
    graph = load_graph(write(tmp_path))
    assert graph.name == "path"
    assert graph.num_nodes == 4
    assert graph.num_classes == 3
    assert not graph.has_split
    expected = [[1, 0, 5], [0, 0, 0], [0, 2, 0], [0, 0, 0]]
    np.testing.assert_array_equal(graph.features, expected)
    assert graph.features.dtype == np.float32
    assert pairs(graph) == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]


def test_directed_edges_go_from_row_to_column(tmp_path):
    assert pairs(load_graph(write(tmp_path), undirected=False)) == [(0, 1), (1, 2), (2, 3)]


def test_dense_features_and_a_split(tmp_path):
    dense = np.arange(8).reshape(4, 2)
    none = dict.fromkeys(("attr_data", "attr_indices", "attr_indptr", "attr_shape"))
    split = {"train_idx": np.array([3, 0]), "val_idx": np.array([1]), "test_idx": np.array([2])}
    graph = load_graph(write(tmp_path, attr_matrix=dense, **none, **split))
    np.testing.assert_array_equal(graph.features, dense)
    assert graph.has_split
    assert [part.tolist() for part in (graph.train, graph.val, graph.test)] == [[3, 0], [1], [2]]


def test_the_digits_are_joined_to_their_nearest_neighbours():
    graph = load_graph("digits")
    assert graph.features.shape == (1797, 64)
    assert graph.features.min() == 0
    assert graph.features.max() == 1
    found = set(pairs(graph))
    assert found == {(target, source) for source, target in found}
    x = graph.features[0].astype(np.float64)
    distances = np.linalg.norm(graph.features - x, axis=1)
    nearest = np.argsort(distances)[1:6]
    assert all((int(i), 0) in found for i in nearest)
    assert (graph.labels[graph.edges[0]] == graph.labels[graph.edges[1]]).mean() > 0.9


def test_random_splits_are_partitions_that_depend_on_the_key_alone():
    first = split_nodes(jax.random.key(0), 103, 0.1, 0.2)
    assert [len(part) for part in first] == [72, 10, 21]
    np.testing.assert_array_equal(np.sort(np.concatenate(first)), np.arange(103))
    again, other = (split_nodes(jax.random.key(seed), 103, 0.1, 0.2) for seed in (0, 1))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[2], other[2])
    with pytest.raises(ValueError, match="leave none of the 10 nodes"):
        split_nodes(jax.random.key(0), 10, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"val_fraction must lie in \[0, 1\), got 1"):
        split_nodes(jax.random.key(0), 10, 1, 0.5)


def test_normalised_rows_sum_to_one_and_zeros_stay():
    rows = normalize_rows(np.array([[1.0, -3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.25, -0.75], [0, 0]])


ARRAYS = path_graph()
FAULTS = {
    "missing": ({"labels": None, "adj_indptr": None}, "lacks adj_indptr, labels; there is: adj_"),
    "no features": ({"attr_shape": None}, "lacks attr_shape, or attr_matrix"),
    "objects": ({"labels": np.array([{}, 1, 2, 3], object)}, "labels holds Python objects.*pickle"),
    "not square": ({"adj_shape": np.array([4, 5])}, r"adj_shape must be \[n, n\], got \[4, 5\]"),
    "outside": ({"adj_indices": np.array([1, 2, 9, 3, -1])}, r"outside of 0 .. 3 \(9, -1\)"),
    "attribute outside": ({"attr_indices": np.array([0, 3, 1])}, r"attr_indices.* 0 .. 2 \(3\)"),
    "float indices": ({"adj_indices": np.ones(5)}, "adj_indices must be integers"),
    "short indptr": ({"adj_indptr": np.array([0, 1, 5])}, "adj_indptr must have 5 entries"),
    "falling indptr": ({"adj_indptr": np.array([0, 3, 2, 4, 5])}, "never fall"),
    "short data": ({"adj_data": np.ones(4)}, "adj_data has 4 entries, adj_indices 5"),
    "nan": ({"attr_data": np.array([1.0, np.nan, 2.0])}, r"NaN.*1 of 4 rows \(rows 0\)"),
    "too large": ({"attr_data": np.array([1.0, 1e300, 2.0])}, r"float32 cannot hold.*1 of 4 rows"),
    "edges of nan": ({"adj_data": np.full(5, np.nan)}, "adj_data has NaN in 5 entries"),
    "labels": ({"labels": np.array([0, 1])}, "4 nodes but there are 2 labels"),
    "negative labels": ({"labels": np.array([0, -1, 1, 1])}, "1 negative labels"),
    "features": ({"attr_shape": np.array([3, 3]), "attr_indptr": np.array([0, 2, 2, 3])},
                 r"\[3, 3\]; expected \[4, f\]"),
    "half a split": ({"train_idx": np.array([0])}, "lacks val_idx, test_idx"),
    "split outside": ({"train_idx": np.array([0]), "val_idx": np.array([1]),
                       "test_idx": np.array([4])}, r"test_idx.*outside of 0 .. 3 \(4\)"),
    "overlap": ({"train_idx": np.array([0]), "val_idx": np.array([1]),
                 "test_idx": np.array([1])}, r"1 nodes occur twice.*\(1\)"),
    "masks": ({f"{part}_idx": np.ones(4, bool) for part in ("train", "val", "test")},
              "np.flatnonzero"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_named_with_its_fault(fault, tmp_path):
    changes, message = FAULTS[fault]
    file = write(tmp_path, **changes)
    with pytest.raises(DatasetError, match=message) as caught:
        load_graph(file)
    assert str(file) in str(caught.value)


def test_what_is_no_npz_file(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        load_graph(tmp_path / "none.npz")
    with pytest.raises(DatasetError, match="is a folder"):
        load_graph(tmp_path)
    broken = write(tmp_path)
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(DatasetError, match="cut short"):
        load_graph(broken)
    with pytest.raises(ValueError, match="Did you mean 'digits'.*Or give the path"):
        load_graph("digit")
