"""Stitching of graph networks: the config's door, the loss, the grid, and the job to its files."""

import csv
import dataclasses
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from rich.console import Console
from sklearn.linear_model import Ridge

from relrep_jax.experiments import get_experiment, graph_stitching
from relrep_jax.experiments import node_classification as nodes

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = [
    ROOT / "configs" / "relative_representations" / "graph_classification.py",
    ROOT / "configs" / "product_of_invariances" / "graph_stitching.py",
]


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(*arguments):
    return load(ROOT / "train.py", "train").main(["train.py", *map(str, arguments)])


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory):
    """Sixty nodes in two classes, joined within their class, with features that tell little."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    dense = (rng.random((60, 60)) < 0.15) & (labels[:, None] == labels)
    features = rng.standard_normal((60, 6)) + 0.5 * labels[:, None]
    rows, columns = np.nonzero(dense)
    file = tmp_path_factory.mktemp("graph") / "blocks.npz"
    np.savez(
        file, adj_data=np.ones(len(rows)), adj_indices=columns,
        adj_indptr=np.concatenate([[0], np.cumsum(dense.sum(axis=1))]),
        adj_shape=np.array([60, 60]), attr_matrix=features, labels=labels,
    )  # fmt: skip
    return file


def small(graph_file, **changes):
    config = graph_stitching.default_config()
    del config.representations.product
    config.data.path = str(graph_file)
    config.data.test_fraction = 0.3
    config.model.hidden_features = config.model.latent_dim = 8
    config.anchors.count = 10
    config.seeds.count = 2
    config.training.epochs = 3
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_complete_and_runs_on_the_embedded_graph(path):
    config = load(path, "config").get_config()
    assert get_experiment(config) is graph_stitching
    job = graph_stitching.prepare(config)
    assert job.dataset.name == "digits"
    assert np.isin(job.data.anchors, job.data.train).all()
    assert not np.intersect1d(job.data.train, job.data.test).size


@pytest.mark.slow
def test_smoke_cuts_what_takes_time_and_leaves_the_config_alone(graph_file):
    config = small(graph_file, scale="smoke")
    config.training.epochs = 500
    job = graph_stitching.prepare(config)
    assert job.config.training.epochs == 10
    assert job.config.anchors.count == 10
    assert config.training.epochs == 500
    assert list(job.models) == ["absolute", "relative_cosine"]


BAD = {
    "unknown scale": ({"scale": "tiny"}, "scale must be one of full, smoke, got 'tiny'"),
    "unknown layer": ({"model.layer": "gcn2"}, "Did you mean 'gcn'"),
    "unknown activation": ({"model.layer_activation": "swish"}, "Known: elu, gelu, identity"),
    "unknown split": ({"data.split": "files"}, "Did you mean 'file'"),
    "no split": ({"data.split": "file"}, "blocks brings no split"),
    "no file": ({"data.path": "none.npz"}, "No such file"),
    "no test nodes": ({"data.test_fraction": 0.0}, "test_fraction leaves no test nodes"),
    "too many anchors": ({"anchors.count": 37}, "only 36 training nodes.*anchors.among to all"),
    "labels of others": (
        {"anchors.among": "all", "anchors.choice": "stratified"},
        "set config.anchors.among to train",
    ),
    "all dropped": ({"model.dropout": 1.0}, r"model.dropout must lie in \[0, 1\), got 1.0"),
    "negative theta": ({"model.theta": -1.0}, "model.theta must be at least 0"),
    "no layers": ({"model.num_layers": 0}, "model.num_layers must be at least 1, got 0"),
    "unknown translation": ({"translations": ("orthogonl",)}, "Did you mean 'orthogonal'"),
    "no learning": ({"optimizer.learning_rate": 0.0}, "learning_rate must be above 0"),
}


def test_translations_need_absolute_latents_and_a_name_of_their_own(graph_file):
    config = small(graph_file, translations=("ridge",))
    config.representations.absolute_ridge = config.representations.relative_cosine
    with pytest.raises(ValueError, match="'absolute_ridge' has the name of 'absolute' read"):
        graph_stitching.prepare(config)
    config = small(graph_file, translations=("ridge",))
    del config.representations.absolute
    with pytest.raises(ValueError, match="add one without"):
        graph_stitching.prepare(config)


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_config_ends_before_training_with_a_message(fault, graph_file):
    changes, message = BAD[fault]
    with pytest.raises(ValueError, match=message):
        graph_stitching.prepare(small(graph_file, **changes))


@pytest.mark.slow
def test_the_best_model_on_validation_nodes_is_stitched(graph_file, tmp_path, own_scores):
    changes = {"checkpoint.keep": "best", "data.val_fraction": 0.2, "training.epochs": 12}
    config = small(graph_file, **changes, **{"optimizer.learning_rate": 0.1})
    job = graph_stitching.prepare(config)
    judged = dataclasses.replace(job, data=job.data._replace(test=job.data.val))
    graph_stitching.run(judged, tmp_path, Console(quiet=True))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in job.models:
        scores = np.array([r["validation"] for r in records if r["representation"] == name])
        assert scores.shape == (12, 2)
        np.testing.assert_allclose(own_scores(tmp_path, name), scores.max(axis=0), rtol=1e-6)
    config.data.val_fraction = 0.0
    with pytest.raises(ValueError, match="val_fraction leaves no validation nodes"):
        graph_stitching.prepare(config)


def test_the_command_ends_with_code_2(tmp_path, capsys):
    config = f"--config={CONFIGS[1]}"
    assert train(config, "--config.anchors.count=9999", f"--workdir={tmp_path / 'run'}") == 2
    assert "only 1437 training nodes" in capsys.readouterr().err
    assert train(config, "--config.modle.layer=gin", f"--workdir={tmp_path / 'run'}") == 2
    assert not (tmp_path / "run").exists()


def test_anchors_may_be_any_nodes_or_one_class_after_another(graph_file):
    _, data = nodes.prepare_graph(
        small(graph_file, **{"anchors.among": "all", "anchors.count": 60})
    )
    np.testing.assert_array_equal(np.sort(data.anchors), np.arange(60))
    _, data = nodes.prepare_graph(small(graph_file, **{"anchors.choice": "stratified"}))
    assert np.bincount(data.labels[data.anchors]).tolist() == [5, 5]


@pytest.mark.slow
def test_no_gradient_passes_through_the_anchors(graph_file):
    """Where no edge leads from an anchor to a training node, its features have no gradient."""
    job = graph_stitching.prepare(small(graph_file))
    name = "relative_cosine"
    model = job.models[name]
    loss = nodes.make_loss(model, job.representations[name], nodes.options_of(job.config))
    edges, weights = job.data.adjacency
    loops = (edges[0] == edges[1]) * weights
    data = job.data._replace(
        adjacency=job.data.adjacency._replace(weights=loops), anchors=job.data.test[:10]
    )

    @jax.jit
    @jax.grad
    def gradient(features):
        batch = data._replace(features=features)
        return loss(model.init(jax.random.key(0)), batch, None, jax.random.key(1))[0]

    found = np.asarray(gradient(jnp.asarray(data.features)))
    assert np.isfinite(found).all()
    assert (found[data.anchors] == 0).all()
    assert (np.abs(found[data.train]).sum(axis=1) > 0).any()


@pytest.mark.slow
def test_the_grid_is_what_the_models_give_one_by_one_and_a_diverged_seed_has_no_accuracy(
    graph_file,
):
    """An independent road to the cells: no seed axis, cosine in NumPy."""
    job = graph_stitching.prepare(small(graph_file, **{"seeds.count": 3}))
    name, data = "relative_cosine", job.data
    model = job.models[name]
    seeds = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(0), 3))
    broken = jax.tree.map(lambda leaf: leaf.at[2].set(jnp.nan), seeds)
    found, spaces = graph_stitching.evaluate(job, name, broken)
    assert list(found) == [name]
    values = found[name]
    assert [np.isnan(space).all() for space in spaces] == [False, False, True]
    assert np.isnan(values[2]).all()
    assert np.isnan(values[:, 2]).all()
    encode = jax.jit(lambda v: model.apply(v, "encode", data.features, data.adjacency)[0])
    decode = jax.jit(lambda v, space: model.apply(v, "decode", space)[0])
    for encoder, decoder in np.ndindex(2, 2):
        first, second = (jax.tree.map(lambda x, i=i: x[i], seeds) for i in (encoder, decoder))
        latents = np.asarray(encode(first))
        unit = latents / np.linalg.norm(latents, axis=1, keepdims=True)
        cosine = unit[data.test] @ unit[data.anchors].T
        logits = decode(second, cosine[None])
        expected = np.mean(np.argmax(logits, axis=1) == data.labels[data.test])
        assert values[encoder, decoder] == pytest.approx(expected)


@pytest.mark.slow
def test_absolute_latents_are_read_through_maps_fitted_on_the_anchors(graph_file):
    """An independent road to the cells: ridge regression in float64."""
    config = small(graph_file, **{"seeds.count": 3, "translations": ("orthogonal", "ridge")})
    job = graph_stitching.prepare(config)
    name, data = "absolute", job.data
    model = job.models[name]
    seeds = jax.jit(jax.vmap(model.init))(jax.random.split(jax.random.key(0), 3))
    found, _ = graph_stitching.evaluate(job, name, seeds)
    assert list(found) == ["absolute", "absolute_orthogonal", "absolute_ridge"]
    for grid in found.values():
        np.testing.assert_array_equal(np.diag(grid), np.diag(found["absolute"]))
    encode = jax.jit(lambda v: model.apply(v, "encode", data.features, data.adjacency)[0])
    decode = jax.jit(lambda v, space: model.apply(v, "decode", space)[0])
    for encoder, decoder in ((0, 1), (1, 0), (2, 0)):
        first, second = (jax.tree.map(lambda x, i=i: x[i], seeds) for i in (encoder, decoder))
        source, target = (np.asarray(encode(v), np.float64) for v in (first, second))
        a, b = source[data.anchors], target[data.anchors]
        ridge = Ridge(alpha=1.0).fit(a, b)
        mapped = ridge.predict(source[data.test])
        logits = decode(second, mapped.astype(np.float32))
        expected = np.mean(np.argmax(logits, axis=1) == data.labels[data.test])
        assert found["absolute_ridge"][encoder, decoder] == pytest.approx(expected)


@pytest.fixture(scope="module")
def finished(graph_file, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    job = graph_stitching.prepare(small(graph_file))
    summaries = graph_stitching.run(job, workdir, Console(quiet=True), "python train.py")
    return job, workdir, summaries


@pytest.mark.slow
def test_a_run_leaves_tables_figures_and_a_report(finished):
    _, workdir, summaries = finished
    assert [summary.representation for summary in summaries] == ["absolute", "relative_cosine"]
    figures = [f"figures/{name}.png" for name in ("pair_grid", "learning_curves", "latent_spaces")]
    for name in ("tables/summary.csv", "tables/stitching.json", "metrics.jsonl", *figures):
        assert (workdir / name).stat().st_size > 0, name
    text = (workdir / "report.md").read_text()
    assert "36 training, 6 validation and 18 test nodes" in text
    assert "Stitching index" in text
    assert "## Paired comparisons" in text
    with open(workdir / "tables/comparisons.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    own = {s.representation: s.non_stitched_mean for s in summaries}
    assert [r["cells"] for r in rows[:2]] == ["non-stitched", "stitched"]
    assert (rows[0]["representation"], rows[0]["against"]) == ("relative_cosine", "absolute")
    difference = own["relative_cosine"] - own["absolute"]
    assert float(rows[0]["difference"]) == pytest.approx(difference)


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped_to_the_same_grid(finished, graph_file, tmp_path):
    job, workdir, _ = finished
    part = graph_stitching.prepare(small(graph_file, **{"training.epochs": 1}))
    console = Console(quiet=True)
    graph_stitching.run(part, tmp_path, console)
    graph_stitching.run(job, tmp_path, console)
    grids = [(folder / "tables" / "stitching.csv").read_text() for folder in (workdir, tmp_path)]
    assert grids[0] == grids[1]


@pytest.mark.slow
def test_relative_graph_networks_can_be_stitched_and_absolute_ones_cannot(tmp_path):
    run = [f"--config={CONFIGS[1]}", "--config.seeds.count=2", f"--workdir={tmp_path / 'run'}"]
    assert train(*run) == 0
    with (tmp_path / "run" / "tables" / "summary.csv").open() as file:
        found = {row["representation"]: row for row in csv.DictReader(file)}
    stitched = {name: float(row["stitched_mean"]) for name, row in found.items()}
    assert all(float(row["non_stitched_mean"]) > 0.9 for row in found.values())
    assert stitched["absolute"] < 0.5
    assert float(found["relative_cosine"]["stitching_index"]) > 0.7
    # The product varies most from seed to seed.
    assert stitched["product"] > stitched["absolute"] + 0.3


def test_features_that_are_mostly_zeros_are_stored_as_their_entries():
    dense = np.ones((4, 3), np.float32)
    assert nodes.stored_features(dense) is dense
    words = np.zeros((5, 20), np.float32)
    words[1, 3], words[4, 0] = 2, 1
    words = np.pad(words, ((0, 0), (0, 20)))
    stored = nodes.stored_features(words)
    assert isinstance(stored, BCOO)
    assert stored.nse == 2
    np.testing.assert_array_equal(stored.todense(), words)
