"""Planetoid's files of a graph: pickles, of which nothing but arrays is read."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray, numeric

from relrep_jax.data.base import DatasetError, opening

PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph")
NUM_VALIDATION = 500
"""The nodes after the training nodes are for validation, as everybody does it."""

_LAYOUT = (
    "The layout is that of github.com/kimiyoung/planetoid: beside one another ind.NAME.x, .tx, "
    ".allx, .y, .ty, .ally, .graph and .test.index."
)


class _Stored:
    """Stands in for an object of a class that is not loaded: what its pickle says of it."""


_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
    ("collections", "defaultdict"): lambda *_: {},
    **{(module, "list"): list for module in ("builtins", "__builtin__")},
    **{(module, "object"): object for module in ("builtins", "__builtin__")},
    **{(module, "csr_matrix"): _Stored for module in ("scipy.sparse.csr", "scipy.sparse._csr")},
    **{
        (module, name): getattr(multiarray, name)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("_reconstruct", "scalar")
    },
    **{
        (module, "_frombuffer"): numeric._frombuffer
        for module in ("numpy.core.numeric", "numpy._core.numeric")
    },
    **{
        (module, "_reconstructor"): lambda cls, base, state: cls()
        for module in ("copyreg", "copy_reg")
    },
}


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays, lists and dictionaries, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is no array and could run any code"
            )
        return _ALLOWED[module, name]


def find_planetoid(path: Path) -> Path | None:
    """`folder/ind.NAME` of a path in this layout, or None.

    Args:
        path: a folder with the files of one graph, one of the files, or `folder/ind.NAME`.

    Raises:
        DatasetError: a folder with the files of several graphs.
    """
    if path.name.startswith("ind.") and len(path.name) > len("ind."):
        return path.with_name(".".join(path.name.split(".")[:2]))
    if not path.is_dir():
        return None
    found = sorted({".".join(file.name.split(".")[:2]) for file in path.glob("ind.*.*")})
    if len(found) > 1:
        raise DatasetError(
            f"{path} holds several graphs: {', '.join(found)}. Name one: {path / found[0]}"
        )
    return path / found[0] if found else None


def read_planetoid(prefix: Path) -> dict[str, np.ndarray]:
    """The arrays of a graph, in gnn-benchmark's layout.

    Nodes that the test index leaves out have no features and no edges, and the first class, as
    other readers have it. The split is Planetoid's: the nodes of `x` for training, the next 500
    for validation, those of the test index for testing.

    Args:
        prefix: `folder/ind.NAME`.

    Raises:
        DatasetError: a file is missing, is no such pickle, or does not fit the others.
    """
    stored = {part: _load(Path(f"{prefix}.{part}")) for part in PARTS}
    x, tx, allx = (_csr(prefix, part, stored[part]) for part in ("x", "tx", "allx"))
    hot = [_one_hot(prefix, part, stored[part]) for part in ("y", "ty", "ally")]
    if len({one.shape[1] for one in hot}) > 1:
        raise DatasetError(
            f"{prefix}.y, .ty and .ally have {', '.join(str(one.shape[1]) for one in hot)} "
            f"classes; these must be as many. {_LAYOUT}"
        )
    y, ty, ally = (one.argmax(axis=1).astype(np.int32) for one in hot)
    test = _test_index(Path(f"{prefix}.test.index"))
    for (name, features), labels in zip(
        (("x", x), ("tx", tx), ("allx", allx)), (y, ty, ally), strict=True
    ):
        if len(features) != len(labels) or features.shape[1] != allx.shape[1]:
            raise DatasetError(
                f"{prefix}.{name} has the shape {list(features.shape)}, but there are "
                f"{len(labels)} labels of it and {allx.shape[1]} features. {_LAYOUT}"
            )
    if len(x) > len(allx) or not np.array_equal(x, allx[: len(x)]):
        raise DatasetError(f"{prefix}.x must be the first rows of {prefix}.allx. {_LAYOUT}")
    if len(test) != len(tx) or len(test) == 0 or test.min() < len(allx):
        raise DatasetError(
            f"{prefix}.test.index has {len(test)} nodes, tx {len(tx)} rows and allx {len(allx)}: "
            f"the test nodes must come after those of allx. {_LAYOUT}"
        )
    num_nodes = int(test.max()) + 1
    if num_nodes > 2 * (len(allx) + len(tx)):
        raise DatasetError(
            f"{prefix}.test.index names node {num_nodes - 1}, far beyond the others."
        )
    features = np.zeros((num_nodes, allx.shape[1]), np.float32)
    labels = np.zeros(num_nodes, np.int32)
    features[: len(allx)], labels[: len(allx)] = allx, ally
    features[test], labels[test] = tx, ty
    counts, neighbours = _neighbours(prefix, stored["graph"], num_nodes)
    validation = np.arange(len(y), min(len(y) + NUM_VALIDATION, len(allx)))
    return {
        "adj_data": np.ones(len(neighbours), np.float32),
        "adj_indices": neighbours,
        "adj_indptr": np.concatenate([[0], np.cumsum(counts)]),
        "adj_shape": np.array([num_nodes, num_nodes]),
        "attr_matrix": features,
        "labels": labels,
        "train_idx": np.arange(len(y)),
        "val_idx": validation,
        "test_idx": np.sort(test),
    }


def _load(file: Path) -> Any:
    with opening(file, _LAYOUT), open(file, "rb") as stream:
        try:
            return _ArraysOnly(stream, encoding="latin1").load()
        except OSError:
            raise
        except Exception as error:  # a damaged pickle can fail in any way
            raise DatasetError(f"{file} cannot be read as Planetoid's: {error}.") from error


def _csr(prefix: Path, part: str, stored: Any) -> np.ndarray:
    """A stored CSR matrix, dense."""
    fields = getattr(stored, "__dict__", {})
    try:
        height, width = fields.get("_shape", fields.get("shape"))
        data, indices, indptr = (np.asarray(fields[k]) for k in ("data", "indices", "indptr"))
        dense = np.zeros((height, width), np.float32)
        if len(indices) and indices.min() < 0:
            raise ValueError(f"its column indices begin with {indices.min()}")
        np.add.at(dense, (np.repeat(np.arange(height), np.diff(indptr)), indices), data)
    except (TypeError, KeyError, ValueError, IndexError, MemoryError) as error:
        raise DatasetError(
            f"{prefix}.{part} is not a CSR matrix of features ({error}). {_LAYOUT}"
        ) from error
    return dense


def _one_hot(prefix: Path, part: str, stored: Any) -> np.ndarray:
    if not isinstance(stored, np.ndarray) or stored.ndim != 2 or stored.dtype.kind not in "fiub":
        raise DatasetError(f"{prefix}.{part} is not a matrix of one-hot labels. {_LAYOUT}")
    # A row of zeros is a node without a label, of which some data sets have a few.
    if not np.isin(stored, (0, 1)).all() or (stored.sum(axis=1) > 1).any():
        raise DatasetError(
            f"{prefix}.{part} must have one 1 in a row and else zeros, the class of a node. "
            f"{_LAYOUT}"
        )
    return stored


def _test_index(file: Path) -> np.ndarray:
    with opening(file, _LAYOUT):
        lines = file.read_text(encoding="ascii", errors="replace").split()
    try:
        return np.array([int(line) for line in lines], np.int64)
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{file} must have one node number a line: {error}.") from error


def _neighbours(prefix: Path, graph: Any, num_nodes: int) -> tuple[list[int], np.ndarray]:
    """How many neighbours every node has, and all of them."""
    try:
        outside = [node for node in graph if not 0 <= node < num_nodes]
        if outside:
            raise DatasetError(f"{prefix}.graph has nodes beyond {num_nodes - 1}: {outside[:5]}.")
        lists = [np.asarray(graph.get(node, [])) for node in range(num_nodes)]
        if any(one.size and one.dtype.kind not in "iu" for one in lists):
            raise TypeError
        lists = [one.astype(np.int64) for one in lists]
    except DatasetError:
        raise
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{prefix}.graph is not a dictionary from nodes to their neighbours. {_LAYOUT}"
        ) from error
    return [len(one) for one in lists], np.concatenate(lists)
