"""Graphs with features and labels on their nodes, by name or from a file."""

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np

from relrep_jax.checks import lookup
from relrep_jax.data.base import DatasetError
from relrep_jax.data.npz import check_labels, read_members, some
from relrep_jax.data.planetoid import find_planetoid, read_planetoid

NEIGHBOURS = 5
"""How many nearest neighbours an image of the embedded digits is joined to."""

PARTS = ("train", "val", "test")
_CSR = {
    part: tuple(f"{part}_{key}" for key in ("data", "indices", "indptr", "shape"))
    for part in ("adj", "attr")
}
_LAYOUT = (
    "The layout is gnn-benchmark's: the adjacency as a CSR matrix (adj_data, adj_indices, "
    "adj_indptr, adj_shape), the features as one (attr_data, attr_indices, attr_indptr, "
    "attr_shape) or dense (attr_matrix), labels [n], and perhaps train_idx, val_idx, test_idx. "
    "Write it with np.savez(file, adj_data=A.data, ..., labels=labels)."
)


@dataclasses.dataclass(frozen=True, eq=False)
class GraphDataset:
    """A graph of n nodes with features and labels.

    Attributes:
        name: what to call the data set in tables.
        features: `[n, f]` float32.
        edges: `[2, e]` int32: sources, then targets; both directions of undirected edges, each
            once, and no self-loops.
        labels: `[n]` int32 class numbers in `0 .. num_classes - 1`.
        num_classes: the number of classes.
        train, val, test: int32 numbers of nodes, or None where the data set has no split.
    """

    name: str
    features: np.ndarray
    edges: np.ndarray
    labels: np.ndarray
    num_classes: int
    train: np.ndarray | None = None
    val: np.ndarray | None = None
    test: np.ndarray | None = None

    @property
    def num_nodes(self) -> int:
        """How many nodes there are."""
        return len(self.labels)

    @property
    def has_split(self) -> bool:
        """Whether the file says which nodes are for training, validation and test."""
        return self.train is not None


def load_graph(
    name_or_path: str | os.PathLike = "digits", *, undirected: bool = True
) -> GraphDataset:
    """A graph with features and labels on its nodes.

    Args:
        name_or_path: `digits` (embedded: scikit-learn's 1797 digits, each joined to its five
            nearest neighbours), or an `.npz` file in gnn-benchmark's layout: CSR arrays
            `adj_data, adj_indices, adj_indptr, adj_shape` and `attr_*` (or a dense
            `attr_matrix`), `labels`, and perhaps `train_idx, val_idx, test_idx`. An edge is
            where the adjacency is not zero; its values are not looked at. Or Planetoid's files:
            `folder/ind.NAME`, or a folder that holds one graph's; of these pickles nothing but
            arrays is read.
        undirected: take every edge in both directions.

    Raises:
        ValueError: an unknown name.
        DatasetError: (a `ValueError`) every fault of a file; the message names it and the cause.

    Example:
        >>> graph = load_graph("digits")
        >>> graph.features.shape, graph.num_classes, graph.edges.shape[0]
        ((1797, 64), 10, 2)
    """
    text = os.fspath(name_or_path)
    path = Path(text).expanduser()
    if prefix := find_planetoid(path):
        return _from_arrays(prefix, read_planetoid(prefix), undirected)
    if path.suffix == ".npz" or path.exists() or len(path.parts) > 1:
        return _load_npz(path, undirected)
    try:
        load = lookup("graph", text, LOADERS)
    except ValueError as error:
        raise ValueError(f"{error} Or give the path of an .npz file.") from None
    return load(undirected)


def normalize_rows(features: np.ndarray) -> np.ndarray:
    """Features `[n, f]` with the absolute values of every row summing to 1; zeros stay zeros."""
    sums = np.abs(features).sum(axis=1, keepdims=True)
    return features / np.where(sums == 0, 1, sums)


def split_nodes(
    key: jax.Array, num_nodes: int, val_fraction: float, test_fraction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random split of the nodes into training, validation and test nodes.

    Args:
        key: a key.
        num_nodes: n.
        val_fraction, test_fraction: of n, rounded; the rest are for training.

    Returns:
        Three ascending int32 arrays of nodes, which are disjoint and together all of them.

    Raises:
        ValueError: fractions outside of [0, 1), or nothing left for training.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {fraction}.")
    num_val, num_test = round(val_fraction * num_nodes), round(test_fraction * num_nodes)
    if num_val + num_test >= num_nodes:
        raise ValueError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} leave none of the "
            f"{num_nodes} nodes for training."
        )
    order = np.asarray(jax.random.permutation(key, num_nodes), np.int32)
    parts = np.split(order, [num_nodes - num_val - num_test, num_nodes - num_test])
    train, val, test = (np.sort(part) for part in parts)
    return train, val, test


def _clean(edges: np.ndarray, num_nodes: int, undirected: bool) -> np.ndarray:
    """Each edge once, by target then source, without self-loops."""
    sources, targets = edges.astype(np.int64)
    if undirected:
        sources, targets = np.concatenate([sources, targets]), np.concatenate([targets, sources])
    different = sources != targets
    places = np.unique(targets[different] * num_nodes + sources[different])
    return np.stack([places % num_nodes, places // num_nodes]).astype(np.int32)


def _digits(undirected: bool) -> GraphDataset:
    from sklearn.datasets import load_digits
    from sklearn.neighbors import kneighbors_graph

    digits = load_digits()
    nearest = kneighbors_graph(digits.data, NEIGHBOURS).tocoo()
    # A node hears its neighbours: the edges go from them to it.
    edges = _clean(np.stack([nearest.col, nearest.row]), len(digits.data), undirected)
    features = (digits.data / 16).astype(np.float32)
    return GraphDataset("digits", features, edges, digits.target.astype(np.int32), 10)


LOADERS = {"digits": _digits}
"""`undirected -> GraphDataset` by name."""


def _load_npz(path: Path, undirected: bool) -> GraphDataset:
    splits = tuple(f"{part}_idx" for part in PARTS)
    stored = read_members(
        path, (*_CSR["adj"], "labels"), _LAYOUT, (*_CSR["attr"], "attr_matrix", *splits)
    )
    return _from_arrays(path, stored, undirected)


def _from_arrays(path: Path, stored: dict[str, np.ndarray], undirected: bool) -> GraphDataset:
    """The graph of arrays in gnn-benchmark's layout, which are checked; `path` is for messages."""
    rows, columns, values, (num_nodes, width) = _read_csr(path, "adj", stored)
    if num_nodes != width:
        raise DatasetError(f"{path}: adj_shape must be [n, n], got [{num_nodes}, {width}].")
    if num_nodes == 0:
        raise DatasetError(f"{path}: the graph has no nodes.")
    keep = values != 0
    # Row i of the adjacency lists where i's edges go.
    edges = _clean(np.stack([rows[keep], columns[keep]]), num_nodes, undirected)
    if "attr_matrix" in stored:
        features = stored["attr_matrix"]
        if features.ndim != 2 or features.dtype.kind not in "fiub":
            raise DatasetError(
                f"{path}: attr_matrix must be real numbers [n, f], got {features.dtype} "
                f"{list(features.shape)}."
            )
    else:
        missing = [key for key in _CSR["attr"] if key not in stored]
        if missing:
            raise DatasetError(f"{path} lacks {', '.join(missing)}, or attr_matrix. {_LAYOUT}")
        features = _dense(path, *_read_csr(path, "attr", stored))
    if len(features) != num_nodes or features.shape[1] == 0:
        raise DatasetError(
            f"{path}: the adjacency has {num_nodes} nodes but the features have the shape "
            f"{list(features.shape)}; expected [{num_nodes}, f]."
        )
    with np.errstate(over="ignore"):
        features = np.asarray(features, np.float32)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if bad.size:
        raise DatasetError(
            f"{path}: the features have NaN or infinite values, or such as float32 cannot hold, in "
            f"{bad.size} of {num_nodes} rows (rows {some(bad)}). Remove or mend these nodes first."
        )
    labels = check_labels(path, "labels", stored["labels"])
    if len(labels) != num_nodes:
        raise DatasetError(
            f"{path}: the adjacency has {num_nodes} nodes but there are {len(labels)} labels."
        )
    return GraphDataset(
        path.name.removeprefix("ind.").removesuffix(".npz"),
        features,
        edges,
        labels,
        int(labels.max()) + 1,
        **_read_split(path, stored, num_nodes),
    )


def _read_csr(
    path: Path, part: str, stored: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Rows, columns and values of a CSR matrix's entries, and its shape."""
    data, indices, indptr, shape = (
        stored[f"{part}_{key}"] for key in ("data", "indices", "indptr", "shape")
    )
    for key, array in (("indices", indices), ("indptr", indptr), ("shape", shape)):
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise DatasetError(
                f"{path}: {part}_{key} must be integers [k], got {array.dtype} {list(array.shape)}."
            )
    if data.ndim != 1 or data.dtype.kind not in "fiub":
        raise DatasetError(
            f"{path}: {part}_data must be real numbers [k], got {data.dtype} {list(data.shape)}."
        )
    if part == "adj" and data.dtype.kind == "f" and np.isnan(data).any():
        raise DatasetError(f"{path}: {part}_data has NaN in {int(np.isnan(data).sum())} entries.")
    if shape.shape != (2,) or shape.min() < 0:
        raise DatasetError(f"{path}: {part}_shape must be two sizes, got {shape.tolist()}.")
    height, width = map(int, shape)
    if len(indptr) != height + 1:
        raise DatasetError(
            f"{path}: {part}_indptr must have {height + 1} entries, one more than {part}_shape "
            f"has rows, got {len(indptr)}."
        )
    indptr = indptr.astype(np.int64)
    counts = np.diff(indptr)
    if indptr[0] != 0 or (counts < 0).any():
        raise DatasetError(f"{path}: {part}_indptr must begin with 0 and never fall.")
    if not len(data) == len(indices) == indptr[-1]:
        raise DatasetError(
            f"{path}: {part}_data has {len(data)} entries, {part}_indices {len(indices)}, and "
            f"{part}_indptr ends with {indptr[-1]}; all three must be equal."
        )
    outside = np.flatnonzero((indices < 0) | (indices >= width))
    if outside.size:
        raise DatasetError(
            f"{path}: {part}_indices has {outside.size} entries outside of 0 .. {width - 1} "
            f"({some(indices[outside])})."
        )
    return np.repeat(np.arange(height), counts), indices, data, (height, width)


def _dense(path, rows, columns, values, shape) -> np.ndarray:
    try:
        dense = np.zeros(shape, np.float32)
    except (MemoryError, ValueError) as error:
        raise DatasetError(
            f"{path}: features of shape {list(shape)} do not fit in memory as a dense array "
            f"({error})."
        ) from error
    with np.errstate(over="ignore"):  # what is infinite then is found later
        np.add.at(dense, (rows, columns), values)
    return dense


def _read_split(path: Path, stored: dict[str, np.ndarray], num_nodes: int) -> dict:
    found = [part for part in PARTS if f"{part}_idx" in stored]
    if not found:
        return {}
    if len(found) < len(PARTS):
        missing = ", ".join(f"{part}_idx" for part in PARTS if part not in found)
        raise DatasetError(
            f"{path} has {', '.join(f'{part}_idx' for part in found)} but lacks {missing}. Give "
            "all three, or none for a random split."
        )
    split = {}
    for part in PARTS:
        nodes = stored[f"{part}_idx"]
        if nodes.ndim != 1 or nodes.dtype.kind not in "iu" or nodes.size == 0:
            raise DatasetError(
                f"{path}: {part}_idx must be a list of node numbers, got {nodes.dtype} "
                f"{list(nodes.shape)}. np.flatnonzero(mask) makes one of a mask."
            )
        outside = np.flatnonzero((nodes < 0) | (nodes >= num_nodes))
        if outside.size:
            raise DatasetError(
                f"{path}: {part}_idx has {outside.size} entries outside of 0 .. {num_nodes - 1} "
                f"({some(nodes[outside])})."
            )
        split[part] = nodes.astype(np.int32)
    everything = np.concatenate(list(split.values()))
    nodes, counts = np.unique(everything, return_counts=True)
    if (counts > 1).any():
        raise DatasetError(
            f"{path}: {(counts > 1).sum()} nodes occur twice in train_idx, val_idx and test_idx "
            f"({some(nodes[counts > 1])}). A node belongs to one part."
        )
    return split
