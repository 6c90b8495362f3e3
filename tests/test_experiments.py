"""The main job, from the command line to its files; and every bad input at its door."""

import builtins
import csv
import dataclasses
import gc
import importlib.util
import itertools
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, f1_score
from tensorboardX.proto.event_pb2 import Event

from relrep_jax import report
from relrep_jax.experiments import config as config_room
from relrep_jax.experiments import end_to_end, image_stitching
from relrep_jax.experiments.flags import parse_arguments
from relrep_jax.experiments.image_quality import psnr, ssim
from relrep_jax.experiments.workdir import claim_workdir, hold_workdir
from relrep_jax.projection import PAPER_SIMILARITIES
from relrep_jax.stitching import squared_error, stitching_grid
from relrep_jax.training import trainer
from relrep_jax.training.logs import MetricsLog
from relrep_jax.training.loop import init_state

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "--config.seeds.count=3",
    "--config.training.epochs=2",
    "--config.model.channels=(4, 6)",
    "--config.model.latent_dim=8",
    "--config.anchors.count=12",
    "--config.data.train_limit=200",
    "--config.checkpoint.every=1",
]
REPRESENTATIONS = ["absolute", "relative_cosine", "product"]


def load_train():
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(*arguments):
    return load_train().main(["train.py", *map(str, arguments)])


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "small"
    assert train(*SMALL, f"--workdir={workdir}") == 0
    return workdir


def test_the_pair_table_has_a_row_for_every_pair(finished):
    table = rows(finished / "tables" / "stitching.csv")
    assert list(table[0]) == ["representation", "encoder", "decoder", "metric", "value"]
    pairs = {(r["representation"], int(r["encoder"]), int(r["decoder"])) for r in table}
    assert len(table) == len(pairs) == 3 * 9
    assert {pair[0] for pair in pairs} == set(REPRESENTATIONS)
    assert {r["metric"] for r in table} == {"mse"}
    assert all(0 < float(r["value"]) < 1 for r in table)


def test_the_summary_is_that_of_the_pairs(finished):
    summary = rows(finished / "tables" / "summary.csv")
    assert list(summary[0]) == [
        "representation", "metric", "non_stitched_mean", "non_stitched_std", "stitched_mean",
        "stitched_std", "stitching_index",
    ]  # fmt: skip
    assert [r["representation"] for r in summary] == REPRESENTATIONS
    pairs = rows(finished / "tables" / "stitching.csv")
    for row in summary:
        mine = [r for r in pairs if r["representation"] == row["representation"]]
        own = [float(r["value"]) for r in mine if r["encoder"] == r["decoder"]]
        other = [float(r["value"]) for r in mine if r["encoder"] != r["decoder"]]
        assert float(row["non_stitched_mean"]) == pytest.approx(np.mean(own))
        assert float(row["stitched_mean"]) == pytest.approx(np.mean(other))
        assert float(row["stitching_index"]) == pytest.approx(np.mean(own) / np.mean(other))


def test_a_run_leaves_what_a_reader_looks_for(finished):
    for name in (
        "config.json", "metrics.jsonl", "report.md",
        "figures/reconstructions.png", "figures/latent_spaces.png", "figures/pair_grid.png",
        "figures/learning_curves.png", "tables/stitching.json", "tables/summary.json",
    ):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    assert list((finished / "tensorboard").iterdir())
    report = (finished / "report.md").read_text()
    assert "| relative_cosine |" in report.replace("**", "")
    assert "(figures/pair_grid.png)" in report
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(r["representation"], r["epoch"]) for r in records] == [
        (name, epoch) for name in REPRESENTATIONS for epoch in (1, 2)
    ]
    assert all(len(r["loss"]) == 3 for r in records)


@pytest.mark.slow
def test_a_finished_run_is_reported_again_without_training(finished, capsys):
    before = (finished / "tables" / "stitching.csv").read_bytes()
    metrics = (finished / "metrics.jsonl").read_bytes()
    (finished / "report.md").unlink()
    (finished / "tables" / "stitching.csv").unlink()
    assert train(*SMALL, f"--workdir={finished}") == 0
    assert (finished / "tables" / "stitching.csv").read_bytes() == before
    assert (finished / "metrics.jsonl").read_bytes() == metrics
    assert (finished / "report.md").exists()
    assert "relative_cosine" in capsys.readouterr().out
    # Nor does a lost log lose what was trained.
    (finished / "metrics.jsonl").unlink()
    assert train(*SMALL, f"--workdir={finished}") == 0
    assert (finished / "tables" / "stitching.csv").read_bytes() == before
    (finished / "metrics.jsonl").write_bytes(metrics)


def test_a_workdir_with_another_config_is_refused(finished, capsys):
    assert train(*SMALL, f"--workdir={finished}", "--config.training.epochs=3") == 2
    message = capsys.readouterr().err
    assert "config.training.epochs: 2 -> 3" in message
    assert "--workdir" in message


@pytest.mark.slow
def test_the_grid_of_a_run_is_what_its_models_give_one_by_one(finished):
    """An independent road to one cell: restore, encode, represent and decode without any vmap."""
    from ml_collections import ConfigDict

    from relrep_jax.training.checkpoints import Checkpoints
    from relrep_jax.training.loop import init_state

    config = ConfigDict(json.loads((finished / "config.json").read_text()))
    for fields in config.representations.values():
        fields.similarities = tuple(fields.similarities)
    job = image_stitching.prepare(config)
    dataset = job.dataset
    images = dataset.x_test.astype(np.float32) / dataset.scale
    anchors = dataset.x_train[job.anchors].astype(np.float32) / dataset.scale
    table = rows(finished / "tables" / "stitching.csv")
    for name, task in job.tasks.items():
        optimizer = image_stitching._make_optimizer(config, len(dataset.x_train))
        init = jax.vmap(lambda s, t=task, o=optimizer: init_state(t.model, o, s))
        like = jax.eval_shape(init, jnp.zeros(3, jnp.uint32))
        with Checkpoints(finished / "checkpoints" / name) as saved:
            variables = saved.restore(2, like).variables
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], variables) for i in (0, 1))
        model = task.model
        latents = model.apply(first, "encode", images)[0]
        anchor_latents = model.apply(first, "encode", anchors)[0]
        if name == "absolute":
            space = latents
        else:
            cosine = (
                latents
                @ anchor_latents.T
                / (
                    np.linalg.norm(latents, axis=1)[:, None]
                    * np.linalg.norm(anchor_latents, axis=1)
                )
            )
            difference = np.asarray(latents)[:, None] - np.asarray(anchor_latents)[None]
            space = [cosine]
            if name == "product":
                space += [
                    np.linalg.norm(difference, axis=-1),
                    np.abs(difference).sum(-1),
                    np.abs(difference).max(-1),
                ]
            space = jnp.stack([jnp.asarray(part) for part in space])
        prediction = model.apply(second, "decode", space)[0]
        value = float(np.mean((np.asarray(prediction, np.float64) - images) ** 2))
        cell = next(
            r for r in table
            if (r["representation"], r["encoder"], r["decoder"]) == (name, "0", "1")
        )  # fmt: skip
        assert float(cell["value"]) == pytest.approx(value, rel=1e-4)


RECONSTRUCTION = ROOT / "configs" / "product_of_invariances" / "zero_shot_reconstruction.py"
BAD = {
    "unknown field": (["--config.model.latent_dm=3"], "Did you mean config.model.latent_dim"),
    "wrong type": (["--config.model.latent_dim=wide"], "latent_dim"),
    "negative width": (["--config.model.latent_dim=-1"], "model.latent_dim must be at least 0"),
    "unknown similarity": (
        ["--config.representations.product.similarities=('cosin',)"],
        "Unknown similarity 'cosin'. Did you mean 'cosine'? Known: angular",
    ),
    "unknown data set": (["--config.data.name=mnst"], "Did you mean 'mnist'"),
    "unprepared data set": (
        ["--config.data.name=mnist", "--config.data.data_dir={tmp}"],
        "download_and_prepare",
    ),
    "unknown optimizer": (["--config.optimizer.name=adan"], "Did you mean 'adam'"),
    "unknown aggregation": (
        ["--config.representations.product.aggregation=mean"],
        "Known: concatenation, mlp_self_attention, mlp_sum, self_attention, sum, weighted_average",
    ),
    "seeds beyond 32 bits": (["--config.seeds.first=5000000000"], "must be below 2**32"),
    "an anchor seed beyond 32 bits": (
        ["--config.anchors.seed=99999999999999999999999"],
        "config.anchors.seed must be from 0 to 2**32 - 1",
    ),
    "an infinite learning rate": (
        ["--config.optimizer.learning_rate=inf"],
        "config.optimizer.learning_rate must be a finite number of 32 bits, got inf",
    ),
    "a weight of NaN": (
        ["--config.training.kl_weight=nan"],
        "must be a finite number of 32 bits, got nan",
    ),
    "a fraction of a channel": (
        ["--config.model.channels=(32.5, 64)"],
        "every entry of config.model.channels must be a whole number, such as 32, got 32.5",
    ),
    "channels of letters": (["--config.model.channels=('a',)"], "must be a whole number"),
    "no channels": (["--config.model.channels=(0,)"], "channels must be a list of positive"),
    "unknown option": (
        ["--config.optimizer.options.b3=0.5"],
        "The optimizer 'adam' does not take these options",
    ),
    "an option of the wrong kind": (
        ["--config.optimizer.options.b1=high"],
        "cannot work with config.optimizer.options {'b1': 'high'}",
    ),
    "a config that needs an argument": (["--config={tmp}/asks.py", "--help"], "asks.py cannot be"),
    "unknown model to keep": (["--config.checkpoint.keep=first"], "Known: best, last"),
    "nothing held out": (
        ["--config.checkpoint.keep=best", "--config.data.val_fraction=0"],
        "data.val_fraction must leave samples for validation",
    ),
    "all held out": (
        ["--config.checkpoint.keep=best", "--config.data.val_fraction=1"],
        "got 1.0 of 1500 training samples",
    ),
    "unknown metric": (["--config.evaluation.metrics=('pnsr',)"], "Did you mean 'psnr'"),
    "metric of a classifier": (
        [
            "--config.task=classifier",
            "--config.training.loss=cross_entropy",
            "--config.evaluation.metrics=('psnr',)",
        ],
        "a classifier makes none",
    ),
    "unknown metric of a classifier": (
        [
            "--config.task=classifier",
            "--config.training.loss=cross_entropy",
            "--config.evaluation.metrics=('f1_wieghted',)",
        ],
        "Did you mean 'f1_weighted'",
    ),
    "unknown task": (["--config.task=gan"], "Known: autoencoder, classifier"),
    "unknown loss": (["--config.training.loss=l1"], "Known: mse, optimal_sigma"),
    "loss of another task": (
        ["--config.task=classifier"],
        "set --config.training.loss=cross_entropy",
    ),
    "loss of classes": (
        ["--config.training.loss=cross_entropy"],
        "set it to one of: mse, optimal_sigma",
    ),
    "config without get_config": (["--config={tmp}/empty.py"], "it must define get_config()"),
    "config after its fields": (
        ["--config.seeds.count=2", "--config={tmp}/asks.py"],
        "--config=FILE comes before",
    ),
    "config without a value": (["--config="], "--config has no value"),
    "unknown strategy": (["--config.seeds.axis=pmap"], "Known: auto, map, vmap"),
    "unknown anchor choice": (["--config.anchors.choice=random"], "Known: stratified, uniform"),
    "unknown experiment": (["--config.experiment=x"], "image_stitching"),
    "too many anchors": (["--config.anchors.count=1501"], "only 1500 training samples"),
    "no seeds": (["--config.seeds.count=0"], "config.seeds.count must be at least 1, got 0"),
    "no epochs": (["--config.training.epochs=0"], "training.epochs"),
    "large batch": (["--config.training.batch_size=1501"], "only 1500 training samples"),
    "learning rate": (["--config.optimizer.learning_rate=-1."], "must be above 0"),
    "small images": (
        ["--config.model.channels=(4, 4, 4, 4)"],
        "Use at most 3 channels for images of this size",
    ),
    "missing file": (["--config.data.path={tmp}/none.npz"], "No such file"),
    "missing config": (["--config={tmp}/none.py"], "There is no config file"),
    "broken config": (["--config={tmp}/broken.py"], "broken.py cannot be read: SyntaxError"),
    "config without a field": (
        ["--config={tmp}/short.py"],
        "lacks the field config.seeds; a group of axis, count, first",
    ),
    "config with its own field": (["--config={tmp}/odd.py"], "Unknown config field config.sedes"),
    "config that refuses its argument": (
        [f"--config={RECONSTRUCTION}:single"],
        "must be one of every, single_and_all, all",
    ),
    "unknown group": (["--config.sedes.count=3"], "Did you mean config.seeds.count"),
    "unknown representation": (
        ["--config.representations.prod.aggregation=sum"],
        "Did you mean config.representations.product.aggregation",
    ),
    "field of a number": (["--config.model.latent_dim.x=3"], "Unknown config field config.model"),
    "entry of a list": (["--config.model.channels[0]=16"], "Did you mean config.model.channels?"),
    "option that is a field": (
        ["--config.optimizer.options.learning_rate=3"],
        "set config.optimizer.learning_rate instead",
    ),
    "negative divergence": (["--config.training.kl_weight=-1."], "kl_weight must be at least 0"),
    "config that is none": (["--config={tmp}/none_of_it.py"], "must return an ml_collections"),
    "unknown flag": (["--wrkdir=x"], "Did you mean: workdir"),
    "stray word": (["epochs=3"], "Unknown argument 'epochs=3'"),
    "two configs": (["--config=a.py", "--config=b.py"], "one config a run, got --config=a.py and"),
    "a number beyond 32 bits": (["--config.optimizer.learning_rate=1e39"], "finite number of 32"),
    "an option without a value": (["--config.optimizer.options.b1"], "b1 has no value"),
    "an option after a space": (
        ["--config.optimizer.options.b3", "0.5"],
        "unexpected keyword argument 'b3'",
    ),
    "no relative dimension": (
        [f"--config={ROOT}/configs/classifier.py", "--config.model.relative_latent_dim=0"],
        "config.model.relative_latent_dim must be at least 1 for a classifier",
    ),
    "stray config file": (["configs/classifier.py"], "named with --config=configs/classifier.py"),
    "field without its config": (["--epochs=3"], "Did you mean --config.training.epochs=VALUE?"),
    "group without its config": (["--seeds=3"], "or --config.seeds.count=VALUE or"),
    "value for a group": (
        ["--config.representations=absolute"],
        "config.representations is a group of fields. Set one of them, such as "
        "--config.representations.absolute.",
    ),
    "unknown flag beside a whole group": (
        ["--config.seeds={{'count': 3}}", "--wrkdir=x"],
        "Did you mean: workdir",
    ),
    "field of another group": (
        ["--config.similarities=cosine"],
        "Did you mean config.representations.product.similarities?",
    ),
    "unknown name in a list": (
        ["--config.representations.product.similarities=cosine,euclid"],
        "Unknown similarity 'euclid'",
    ),
    "workdir in a file": (["--workdir={tmp}/odd.py/run"], "cannot be written to"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_code_2_and_a_message(case, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    (tmp_path / "empty.py").write_text("size = 3\n")
    start = "from relrep_jax.experiments.image_stitching import default_config\n"
    (tmp_path / "short.py").write_text(
        start + "def get_config():\n    c = default_config()\n    del c.seeds\n    return c\n"
    )
    (tmp_path / "asks.py").write_text("def get_config(size):\n    return size\n")
    (tmp_path / "odd.py").write_text(
        start + "def get_config():\n    c = default_config()\n    c.sedes = 3\n    return c\n"
    )
    (tmp_path / "none_of_it.py").write_text("def get_config():\n    return {'seeds': 3}\n")
    arguments, expected = BAD[case]
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    if not any("workdir" in argument for argument in arguments):
        arguments.append(f"--workdir={tmp_path / 'run'}")
    assert train(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("train.py: ")
    assert expected in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert not (tmp_path / "run").exists()


WRONG_TYPES = {
    "seeds.count": ("'5'", "a whole number, such as 5, got '5'"),
    "seeds.first": ("0.5", "a whole number"),
    "training.epochs": ("2.5", "a whole number"),
    "training.batch_size": ("None", "a whole number"),
    "optimizer.learning_rate": ("'1e-3'", "a number, such as 0.001"),
    "model.channels": ("32", "a list, such as"),
    "translations": ("None", "a list"),
    "data.path": ("3", "a text"),
    "optimizer.options": ("None", "a group of fields"),
    "representations.product.similarities": ("(lambda x, a: x @ a.T,)", "config.json cannot"),
}


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_values_of_another_type_in_a_config_file_are_refused(field, tmp_path, capsys):
    """The command line converts values or refuses them; a file of the user's own may hold any."""
    value, expected = WRONG_TYPES[field]
    (tmp_path / "own.py").write_text(
        "from ml_collections import ConfigDict\n"
        "from relrep_jax.experiments.image_stitching import default_config\n"
        "def get_config():\n"
        "    fields = default_config().to_dict()\n"
        f"    *groups, last = {field.split('.')}\n"
        "    group = fields\n"
        "    for name in groups:\n"
        "        group = group[name]\n"
        f"    group[last] = {value}\n"
        "    return ConfigDict(fields)\n"
    )
    assert train(f"--config={tmp_path / 'own.py'}", f"--workdir={tmp_path / 'run'}") == 2
    message = capsys.readouterr().err
    assert f"config.{field} " in message
    assert expected in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints",
        "metrics.jsonl",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("tensorboard", "figures", "tables", "report.md", "data.json")
        ),
    ],
)
def test_a_folder_of_something_else_is_no_workdir(name, tmp_path, capsys):
    if "." in name:
        (tmp_path / name).write_text("mine")
    else:
        (tmp_path / name).mkdir()
    assert train(f"--workdir={tmp_path}") == 2
    assert f"has {name} but no config.json" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_directory_whose_claim_was_interrupted_is_claimed_again(tmp_path):
    config = image_stitching.default_config()
    workdir = claim_workdir(tmp_path / "run", config)
    (workdir / "config.json").unlink()
    assert claim_workdir(workdir, config) == workdir


def test_the_folder_of_the_data_is_no_workdir(tmp_path):
    config = image_stitching.default_config()
    config.data.path = str(tmp_path)
    with pytest.raises(
        config_room.ConfigError, match=r"is the folder that config\.data\.path names"
    ):
        claim_workdir(tmp_path, config)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_there_keeps_what_it_holds(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    with hold_workdir(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "mine"


@pytest.mark.parametrize("file", ["config.json", "data.json"])
@pytest.mark.parametrize("content", [b"[1]", b"null", b"{", b"\xff"])
def test_a_workdir_whose_files_are_damaged_is_refused(file, content, tmp_path):
    config = image_stitching.default_config()
    workdir = claim_workdir(tmp_path / "run", config)
    (workdir / file).write_bytes(content)
    with pytest.raises(config_room.ConfigError, match=rf"{file} is not readable as JSON"):
        claim_workdir(workdir, config)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"y_test": None}, "y_test"),
        ({"x_train": np.zeros((4, 8))}, "x_train"),
        ({"x_train": np.full((4, 8, 8), np.nan)}, "NaN"),
    ],
    ids=["lacks a key", "wrong rank", "nan"],
)
def test_bad_files_end_with_code_2_and_their_name(arrays, expected, tmp_path, capsys):
    good = {
        "x_train": np.zeros((4, 8, 8)), "y_train": np.arange(4) % 2,
        "x_test": np.zeros((2, 8, 8)), "y_test": np.arange(2),
    }  # fmt: skip
    content = {name: array for name, array in (good | arrays).items() if array is not None}
    np.savez(tmp_path / "images.npz", **content)
    assert (
        train(f"--config.data.path={tmp_path / 'images.npz'}", f"--workdir={tmp_path / 'w'}") == 2
    )
    message = capsys.readouterr().err
    assert "images.npz" in message
    assert expected in message


def test_help_shows_how_to_begin(capsys):
    assert train("--help") == 0
    help_text = capsys.readouterr().out
    assert "--config.seeds.count=16" in help_text
    assert "--config.model.latent_dim=64" in help_text


def test_the_folder_of_a_run_has_the_name_of_what_was_asked_for():
    default = ROOT / "configs" / "default.py"
    for argument, name in (("", ""), (":all", "_all")):
        arguments = ["train.py", f"--config={RECONSTRUCTION}{argument}"]
        assert parse_arguments(arguments, default).workdir == Path(
            f"runs/zero_shot_reconstruction{name}"
        )


def test_reconstruction_has_the_subsets_that_are_asked_for():
    def names(*subsets):
        return list(runpy.run_path(str(RECONSTRUCTION))["get_config"](*subsets).representations)

    assert len(names()) == 16
    assert names("single_and_all") == ["absolute", "product", *PAPER_SIMILARITIES]
    assert names("all") == ["absolute", "product"]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_config_is_complete(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config_room.check_fields(
        config, image_stitching.default_config(), free=("representations", "optimizer.options")
    )
    if config.data.name == "digits":
        image_stitching.prepare(config)


def test_differences_name_every_field_that_changed():
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    new = {"a": {"b": 2, "c": [1, 2]}, "e": 4}
    assert config_room.differences(old, new) == [
        "config.a.b: 1 -> 2",
        "config.d: 3 -> (absent)",
        "config.e: (absent) -> 4",
    ]


def test_a_stitching_grid_scores_every_space_with_every_decoder():
    spaces = jnp.arange(6.0).reshape(3, 2, 1)
    decoders = jnp.array([1.0, 10.0])
    grid = stitching_grid(
        lambda decoder, space: decoder * space,
        lambda prediction, target: jnp.sum(prediction) + target,
        spaces, decoders, 0.5,
    )  # fmt: skip
    expected = np.outer([1, 5, 9], [1, 10]) + 0.5
    np.testing.assert_allclose(grid, expected)


@pytest.mark.slow
def test_a_seed_that_diverges_is_named_and_leaves_the_others_untouched(
    finished, tmp_path, capsys, monkeypatch
):
    def poisoned(model, optimizer, seed):
        state = init_state(model, optimizer, seed)
        params = jax.tree.map(
            lambda leaf: jnp.where(seed == 1, jnp.nan, leaf), state.variables.params
        )
        return state._replace(variables=state.variables._replace(params=params))

    monkeypatch.setattr(trainer, "init_state", poisoned)
    run = tmp_path / "run"
    capsys.readouterr()
    assert train(*SMALL, f"--workdir={run}") == 0
    captured = capsys.readouterr()
    said = " ".join(captured.out.split())
    for name in REPRESENTATIONS:
        message = f"{name}: seed 1 diverged in epoch 1 (its loss is nan); the other seeds go on."
        assert said.count(message) == 1
    assert said.count("diverged in epoch") == 3
    assert "NaN or Inf" not in captured.err
    report = (run / "report.md").read_text()
    assert "Diverged seeds" in report
    assert "absolute: seed 1" in report
    written = (run / "tables" / "stitching.csv").read_bytes()
    table, clean = (rows(path / "tables" / "stitching.csv") for path in (run, finished))
    assert len(table) == len(clean)
    for found, expected in zip(table, clean, strict=True):
        if "1" in (found["encoder"], found["decoder"]):
            assert np.isnan(float(found["value"]))
        else:
            assert found == expected

    # Going on, it is not said again.
    shutil.rmtree(run / "checkpoints" / "absolute" / "2")
    assert train(*SMALL, f"--workdir={run}") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "absolute: going on from epoch 1." in said
    assert "diverged in epoch" not in said
    assert (run / "tables" / "stitching.csv").read_bytes() == written


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_good(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    written = (run / "tables" / "stitching.csv").read_bytes()
    newest = run / "checkpoints" / "product" / "2"
    for file in newest.rglob("*"):
        if file.is_file() and file.name != "_CHECKPOINT_METADATA":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert train(*SMALL, f"--workdir={run}") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"train.py: The checkpoint {newest} cannot be read")
    assert "goes on from epoch 1." in error
    assert len(error) < 1000
    shutil.rmtree(newest)
    assert train(*SMALL, f"--workdir={run}") == 0
    assert (run / "tables" / "stitching.csv").read_bytes() == written


def test_a_small_run_of_a_file_that_has_less_than_it_takes_at_most(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (600, 8, 8), np.uint8)
    labels = np.arange(600) % 10
    path = tmp_path / "images.npz"
    parts = {"x_test": images[:200], "y_test": labels[:200]}
    np.savez(path, x_train=images, y_train=labels, **parts)
    config = image_stitching.default_config()
    config.data.path, config.scale = str(path), "smoke"
    dataset = image_stitching.prepare(config).dataset
    assert len(dataset.x_train) == len(dataset.y_train) == 512
    assert len(dataset.x_test) == len(dataset.y_test) == 200
    config.data.test_limit = 201  # what was asked for is wanted
    with pytest.raises(config_room.ConfigError, match="test_limit must lie in 1 .. 200"):
        image_stitching.prepare(config)


@pytest.mark.slow
def test_a_model_that_does_not_fit_into_memory_ends_with_a_message(tmp_path, capfd):
    run = tmp_path / "run"
    assert train(*SMALL, "--config.model.latent_dim=100000000000", f"--workdir={run}") == 2
    assert "does not fit into memory" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_any_number_of_channels_are_trained_stitched_and_shown(channels, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 4
    images = rng.integers(0, 256, (64, 9, 12, channels), np.uint8)
    path = tmp_path / "images.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:32], y_test=labels[:32])
    run = tmp_path / "run"
    small = [argument for argument in SMALL if "train_limit" not in argument]
    options = ["--config.training.batch_size=16", f"--config.data.path={path}"]
    assert train(*small, *options, f"--workdir={run}") == 0
    assert (run / "figures" / "reconstructions.png").is_file()
    assert f"Of {channels} channels the first" in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("absolute", "mse"),
        pytest.param("absolute", "optimal_sigma", marks=pytest.mark.slow),
        pytest.param("relative_cosine", "optimal_sigma", marks=pytest.mark.slow),
        pytest.param("product", "mse", marks=pytest.mark.slow),
    ],
)
def test_the_loss_of_a_variational_autoencoder(name, objective):
    """Reconstruction and weighted divergence, which here is known: all codes are N(mean, s^2)."""
    weight, mean, log_variance = 0.3, 0.5, np.log(4.0)
    config = image_stitching.default_config()
    config.task, config.training.loss = "variational_autoencoder", objective
    config.training.kl_weight = weight
    config.model.channels, config.model.latent_dim, config.anchors.count = (4,), 6, 10
    job = image_stitching.prepare(config)
    task = job.tasks[name]
    variables = jax.jit(task.model.init)(jax.random.key(0))
    params = dict(variables.params)
    layers = {"to_latent" if name == "absolute" else "to_mean": mean}
    for layer, bias in (layers | {"to_log_variance": log_variance}).items():
        width = params[layer]["bias"].shape[0]
        kernel = jnp.zeros_like(params[layer]["kernel"])
        params[layer] = {"kernel": kernel, "bias": jnp.full(width, bias, jnp.float32)}
    variables = variables._replace(params=params)
    batch = {"image": job.dataset.x_train[:20], "label": job.dataset.y_train[:20]}
    value, (_, metrics) = jax.jit(task.loss)(
        variables, batch, job.dataset.x_train[job.anchors], jax.random.key(1)
    )
    divergence = width * (4.0 + mean**2 - 1 - log_variance) / 2
    pixels, mse = np.prod(job.dataset.image_shape), float(metrics["mse"])
    reconstruction = mse if objective == "mse" else pixels * (1 + np.log(mse)) / 2
    np.testing.assert_allclose(metrics["kl"], divergence, rtol=1e-4)
    np.testing.assert_allclose(value, reconstruction + weight * divergence, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, relative, width",
    [("autoencoder", -1, 6), ("autoencoder", 0, 4 * 4 * 4), ("classifier", 5, 5)],
)
def test_relative_forms_may_have_latents_of_their_own_width(task, relative, width):
    config = image_stitching.default_config()
    config.task = task
    config.training.loss = "cross_entropy" if task == "classifier" else "mse"
    config.model.channels, config.model.latent_dim, config.anchors.count = (4,), 6, 20
    config.model.relative_latent_dim = relative
    widths = {}
    for name, made in image_stitching.prepare(config).tasks.items():
        variables = jax.eval_shape(made.model.init, jax.random.key(0))
        images = jax.ShapeDtypeStruct((3, 8, 8, 1), np.float32)
        widths[name] = jax.eval_shape(made.encode_anchors, variables, images).shape[1]
    assert widths == {"absolute": 6, "relative_cosine": width, "product": width}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["relative_cosine", "product"])
def test_anchors_are_encoded_in_every_step_as_the_batch_is_without_a_gradient(name):
    """The loss is that with anchors of the same parameters, in training mode, as constants."""
    config = image_stitching.default_config()
    config.training.loss = "mse"
    config.model.channels, config.model.latent_dim, config.anchors.count = (4,), 6, 20
    job = image_stitching.prepare(config)
    task, dataset = job.tasks[name], job.dataset
    variables, key = jax.jit(task.model.init)(jax.random.key(0)), jax.random.key(1)
    stored = dataset.x_train[job.anchors]
    batch = {"image": dataset.x_train[:16], "label": dataset.y_train[:16]}
    images, anchor_images = batch["image"] / dataset.scale, stored / dataset.scale

    def loss(params):
        value, (stats, _) = task.loss(variables._replace(params=params), batch, stored, key)
        return value, stats

    def expected(params, encode):
        now = variables._replace(params=params)
        anchors = encode(now)
        (prediction, _), stats = task.model.apply(
            now, "reconstruct", images, anchors, key, train=True
        )
        return jnp.mean(squared_error(prediction, images)), stats

    def encode(now, train=True):
        return task.model.apply(now, "encode", anchor_images, train=train)[0]

    constant = jax.jit(encode)(variables)
    both = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables.params)
    wanted = jax.jit(jax.value_and_grad(lambda p: expected(p, lambda now: constant), has_aux=True))(
        variables.params
    )
    chex.assert_trees_all_close(both, wanted, rtol=1e-4, atol=1e-6)
    # What it is not: with a gradient through the anchors, or with anchors as in evaluation.
    through = jax.jit(jax.grad(lambda p: expected(p, encode)[0]))(variables.params)
    evaluated = jax.jit(lambda now: encode(now, train=False))(variables)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(both[1], through, rtol=1e-2, atol=1e-5)
    assert not np.allclose(evaluated, constant, rtol=1e-2)


@pytest.mark.slow
def test_a_classifier_that_diverged_has_no_accuracies_and_others_are_read_through_maps():
    """An independent road to a cell that is mapped: ridge regression in float64."""
    config = image_stitching.default_config()
    del config.representations.relative_cosine
    del config.representations.product
    config.task, config.training.loss = "classifier", "cross_entropy"
    config.model.channels, config.model.latent_dim, config.anchors.count = (4,), 6, 20
    config.seeds.count, config.translations = 3, ("ridge",)
    # Two batches, the second of which reaches back.
    config.evaluation.batch_size = 200
    job = image_stitching.prepare(config)
    task, dataset = job.tasks["absolute"], job.dataset
    seeds = jax.jit(jax.vmap(task.model.init))(jax.random.split(jax.random.key(0), 3))
    broken = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), seeds)
    found, _ = image_stitching.evaluate(job, "absolute", task, broken)
    assert list(found) == ["absolute", "absolute_ridge"]
    grids = {row: scores["accuracy"] for row, scores in found.items()}
    for grid in grids.values():
        assert np.isnan(grid[1]).all()
        assert np.isnan(grid[:, 1]).all()
        assert np.isfinite(grid[::2, ::2]).all()
        np.testing.assert_array_equal(np.diag(grid), np.diag(grids["absolute"]))

    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], seeds) for i in (0, 2))
    encode = jax.jit(lambda v, x: task.model.apply(v, "encode", x / dataset.scale)[0])
    anchors = dataset.x_train[job.anchors].astype(np.float32)
    ridge = Ridge(alpha=1.0).fit(*(np.asarray(encode(v, anchors), float) for v in (first, second)))
    test = np.asarray(encode(first, dataset.x_test.astype(np.float32)), float)
    logits = task.decode(second, jnp.asarray(ridge.predict(test), jnp.float32))
    expected = np.mean(np.argmax(np.asarray(logits), axis=1) == dataset.y_test)
    assert grids["absolute_ridge"][0, 2] == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("strategy", ["map", pytest.param("vmap", marks=pytest.mark.slow)])
def test_stitching_encodes_once_for_each_encoder_and_decodes_once_for_each_pair(strategy):
    config = image_stitching.default_config()
    del config.representations.relative_cosine
    del config.representations.product
    config.model.channels, config.model.latent_dim, config.anchors.count = (4,), 6, 20
    config.seeds.count, config.seeds.axis = 3, strategy
    job = image_stitching.prepare(config)
    task = job.tasks["absolute"]
    job.config.evaluation.batch_size = len(job.dataset.x_test)
    calls = {"encode": 0, "decode": 0}

    def counted(name):
        def call(*arguments):
            def count(_):
                calls[name] += 1

            # Of what depends on all arguments, and is called for each of what they are mapped over.
            first = [jax.tree.leaves(a)[0].ravel()[0] for a in arguments if a is not None]
            jax.debug.callback(count, sum(first))
            return getattr(task, name)(*arguments)

        return call

    seeds = jax.jit(jax.vmap(task.model.init))(jax.random.split(jax.random.key(0), 3))
    watched = task._replace(encode=counted("encode"), decode=counted("decode"))
    image_stitching.evaluate(job, "absolute", watched, seeds)
    jax.effects_barrier()
    pictures = 2  # one of an encoder's own decoder, one of a stranger's
    slots = job.plan.num_slots  # seeds, rounded up to a multiple of the devices
    assert calls == {"encode": slots, "decode": 3 * slots + pictures}


@pytest.mark.slow
def test_further_scores_of_reconstructions_are_those_of_each_pair():
    config = image_stitching.default_config()
    config.model.channels, config.model.latent_dim, config.anchors.count = (4,), 6, 20
    config.seeds.count = 2
    # Two batches, the second of which reaches back.
    config.evaluation.batch_size, config.evaluation.metrics = 200, ("ssim", "psnr")
    job = image_stitching.prepare(config)
    task = job.tasks["product"]
    seeds = jax.jit(jax.vmap(task.model.init))(jax.random.split(jax.random.key(0), 2))
    scores = image_stitching.evaluate(job, "product", task, seeds)[0]["product"]
    assert list(scores) == ["mse", "ssim", "psnr"]

    @jax.jit
    def reconstruct(encoder, decoder):
        anchors = task.encode_anchors(encoder, job.dataset.x_train[job.anchors])
        return task.decode(decoder, task.encode(encoder, anchors, job.dataset.x_test))

    made = reconstruct(*(jax.tree.map(lambda leaf, i=i: leaf[i], seeds) for i in (0, 1)))
    images = job.dataset.x_test.astype(np.float32) / job.dataset.scale
    assert scores["ssim"][0, 1] == pytest.approx(float(ssim(made, images).mean()), rel=1e-4)
    assert scores["psnr"][0, 1] == pytest.approx(float(psnr(made, images).mean()), rel=1e-4)
    error = np.mean((np.asarray(made, np.float64) - images) ** 2)
    assert scores["mse"][0, 1] == pytest.approx(error, rel=1e-4)


@pytest.mark.slow
def test_weighted_f1_of_a_classifier_is_that_of_scikit_learn():
    config = image_stitching.default_config()
    config.task, config.training.loss = "classifier", "cross_entropy"
    config.model.channels, config.model.latent_dim, config.anchors.count = (4,), 6, 20
    config.seeds.count = 2
    # Two batches, the second of which reaches back.
    config.evaluation.batch_size, config.evaluation.metrics = 200, ("f1_weighted",)
    del config.representations.product
    job = image_stitching.prepare(config)
    task = job.tasks["relative_cosine"]
    seeds = jax.jit(jax.vmap(task.model.init))(jax.random.split(jax.random.key(0), 2))
    scores = image_stitching.evaluate(job, "relative_cosine", task, seeds)[0]["relative_cosine"]
    assert list(scores) == ["accuracy", "f1_weighted"]

    @jax.jit
    def classify(encoder, decoder):
        anchors = task.encode_anchors(encoder, job.dataset.x_train[job.anchors])
        logits = task.decode(decoder, task.encode(encoder, anchors, job.dataset.x_test))
        return logits.argmax(axis=-1)

    said = classify(*(jax.tree.map(lambda leaf, i=i: leaf[i], seeds) for i in (1, 0)))
    truth = job.dataset.y_test
    # Nearby logits may be ordered otherwise in a batch of another size.
    assert scores["accuracy"][1, 0] == pytest.approx(accuracy_score(truth, said), abs=0.004)
    expected = f1_score(truth, said, average="weighted")
    assert scores["f1_weighted"][1, 0] == pytest.approx(expected, abs=0.004)
    assert abs(scores["f1_weighted"][1, 0] - scores["accuracy"][1, 0]) > 0.01


@pytest.mark.slow
def test_further_scores_have_a_table_of_their_own(tmp_path, capsys):
    metrics = "--config.evaluation.metrics=('psnr', 'ergas')"
    assert train(*SMALL, metrics, f"--workdir={tmp_path / 'run'}") == 0
    assert "Further scores" in capsys.readouterr().out
    report = (tmp_path / "run" / "report.md").read_text()
    results, further = report.split("## Results")[1].split("## Further scores")
    assert "MSE" in results.split("##")[0]
    assert "PSNR" not in results.split("##")[0]
    assert "PSNR (dB)" in further.split("##")[0]
    assert "ERGAS" in further.split("##")[0]
    summary = rows(tmp_path / "run" / "tables" / "summary.csv")
    assert [r["metric"] for r in summary] == ["mse"] * 3 + ["psnr"] * 3 + ["ergas"] * 3
    assert len(rows(tmp_path / "run" / "tables" / "stitching.csv")) == 3 * 3 * 9
    compared = rows(tmp_path / "run" / "tables" / "comparisons.csv")
    assert {r["metric"] for r in compared} == {"mse"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["autoencoder", "classifier"])
def test_the_best_model_on_held_out_images_is_stitched(task, tmp_path, capsys, own_scores):
    """Scored on the images that it was chosen by, it has the best of the scores on record."""
    loss = "optimal_sigma" if task == "autoencoder" else "cross_entropy"
    flags = [
        "train.py", *SMALL, "--config.checkpoint.keep=best", "--config.training.epochs=4",
        "--config.optimizer.learning_rate=0.03", f"--config.task={task}",
        f"--config.training.loss={loss}", "--config.evaluation.batch_size=15",
    ]  # fmt: skip
    config, _ = parse_arguments(flags, ROOT / "configs" / "default.py")
    with config.unlocked():
        del config.representations.product
    job = image_stitching.prepare(config)
    assert (len(job.dataset.x_train), len(job.validation["label"])) == (180, 20)
    both = np.concatenate([job.dataset.x_train, job.validation["image"]])
    plain, _ = parse_arguments(["train.py", *SMALL], ROOT / "configs" / "default.py")
    whole = image_stitching.prepare(plain).dataset.x_train
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(whole, axis=0))
    image_stitching.run(job, tmp_path, Console(width=200))
    said = capsys.readouterr().out
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # The same models, scored as if the held-out images were the test split.
    judged = dataclasses.replace(
        job,
        dataset=dataclasses.replace(
            job.dataset, x_test=job.validation["image"], y_test=job.validation["label"]
        ),
    )
    found = image_stitching.run(judged, tmp_path, Console())
    sign = -1 if task == "autoencoder" else 1
    for summary in found:
        scores = np.array(
            [r["validation"] for r in records if r["representation"] == summary.representation]
        )
        assert scores.shape == (4, 3)
        expected = sign * scores.max(axis=0)
        values = own_scores(tmp_path, summary.representation)
        np.testing.assert_allclose(values, expected, rtol=1e-4)
        kept = ", ".join(map(str, 1 + scores.argmax(axis=0)))
        assert f"{summary.representation}: kept of each seed the model after epoch {kept}." in said
    assert "180 training, 20 validation and" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("named", "files"),
    [
        ("ind.cora", ("ind.cora.x", "ind.cora.graph")),
        ("ind.cora.x", ("ind.cora.x", "ind.cora.graph")),
        ("latents.npz:key", ("latents.npz",)),
        ("", ("a.npy",)),
    ],
)
def test_other_data_is_noticed_however_it_is_named(named, files, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for file in files:
        (folder / file).write_bytes(b"these")
    config = image_stitching.default_config()
    config.data.path = str(folder / named)
    workdir = claim_workdir(tmp_path / "run", config)
    (folder / files[-1]).write_bytes(b"those")
    with pytest.raises(config_room.ConfigError, match="other data"):
        claim_workdir(workdir, config)


def test_options_of_an_optimizer_are_set_from_the_command_line():
    flags = ["train.py", "--config.optimizer.options.b1=0.5", "--config.seeds.count=2"]
    config, _ = parse_arguments(flags, ROOT / "configs" / "default.py")
    assert config.optimizer.options.to_dict() == {"b1": 0.5}
    assert config.seeds.count == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("orthogonal,ridge", ("orthogonal", "ridge")),
        ("orthogonal, ridge", ("orthogonal", "ridge")),
        ("('orthogonal','ridge')", ("orthogonal", "ridge")),
        ("ridge", ("ridge",)),
        ("()", ()),
        ("", ()),
    ],
)
def test_lists_are_given_by_commas(given, expected):
    flags = ["train.py", f"--config.translations={given}"]
    config, _ = parse_arguments(flags, ROOT / "configs" / "default.py")
    assert tuple(config.translations) == expected


def test_a_workdir_is_not_for_other_data_of_the_same_name(tmp_path):
    config = image_stitching.default_config()
    config.data.path = str(tmp_path / "images.npz")
    (tmp_path / "images.npz").write_bytes(b"these")
    workdir = claim_workdir(tmp_path / "run", config)
    assert claim_workdir(workdir, config) == workdir
    (tmp_path / "images.npz").write_bytes(b"those")
    with pytest.raises(config_room.ConfigError, match=r"other data: what config\.data\.path names"):
        claim_workdir(workdir, config)


def test_a_workdir_is_for_one_process_at_a_time(tmp_path, capsys):
    with hold_workdir(tmp_path):
        assert train(*SMALL, f"--workdir={tmp_path}") == 2
        assert "Another process is at work in the workdir" in capsys.readouterr().err
    with hold_workdir(tmp_path):
        pass


def test_events_have_every_epoch_once_after_a_resume(tmp_path):
    losses = {"loss": np.array([1.0, np.nan])}
    with MetricsLog(tmp_path, (3, 4)) as log:
        log.forget("absolute", 0)
        for epoch in (1, 2, 3):
            log.write("absolute", epoch, 10 * epoch, 0.1, losses)
    with MetricsLog(tmp_path, (3, 4)) as log:
        log.forget("absolute", 2)
        log.write("absolute", 3, 30, 0.1, losses)
    assert log.curves("absolute").shape == (2, 3)
    found = []
    for path in (tmp_path / "tensorboard").iterdir():
        content = path.read_bytes()
        while content:  # TFRecords: length, its checksum, the event, its checksum
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step) for value in event.summary.value]
            content = content[16 + length :]
    expected = [(f"absolute/loss/seed_{s}", 10 * e) for e in (1, 2, 3) for s in (3, 4)]
    assert sorted(found) == sorted(expected)


def test_a_report_of_seeds_that_all_diverged_names_them(tmp_path):
    config = image_stitching.default_config()
    del config.representations.relative_cosine
    del config.representations.product
    config.seeds.count, config.seeds.first = 2, 10
    grid = report.Grid("absolute", "mse", np.full((2, 2), np.nan), ("10", "11"), ("10", "11"))
    titles, draw = [], report.latent_spaces

    def latent_spaces(*arguments, seed_names, **options):
        titles.extend(seed_names)
        return draw(*arguments, seed_names=seed_names, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(end_to_end.report, "latent_spaces", latent_spaces)
        end_to_end.write_results(
            tmp_path,
            [grid],
            [report.summarize(grid)],
            config=config,
            title="Nothing",
            intro="Nothing.",
            spaces={"absolute": end_to_end.shown_spaces(np.full((2, 6, 3), np.nan))},
            labels=np.arange(6),
            curves={"absolute": np.full((2, 4), np.nan)},
        )
    assert titles == ["seed 10", "seed 11"]
    assert "Left out because training diverged" in (tmp_path / "report.md").read_text()


def test_a_seed_that_diverged_keeps_its_place_in_the_figure_of_spaces():
    spaces = np.arange(3 * 8 * 4, dtype=float).reshape(3, 8, 4) % 7
    spaces[0] = np.nan
    shown = end_to_end.shown_spaces(spaces)
    assert np.isnan(shown[0]).all()
    np.testing.assert_array_equal(shown[1:], spaces[1:])


def run_train(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, ROOT / "train.py", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def test_an_interrupt_while_modules_are_loaded_ends_with_a_line(capsys, monkeypatch):
    load = builtins.__import__

    def interrupted(name, *arguments, **options):
        if name == "relrep_jax.training.seeds":
            raise KeyboardInterrupt
        return load(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert ended.value.code == 130
    assert capsys.readouterr().err == "train.py: stopped.\n"


def test_an_interrupt_inside_the_garbage_collector_is_not_lost():
    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), signal.SIGINT)

    def collect_and_wait():
        # Not before: loading the program may collect garbage, too.
        gc.callbacks.append(callback)
        gc.collect()
        time.sleep(30)

    # Where the tests run in the background of a shell, the signal is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with load_train()._interrupts_come_through(), pytest.raises(KeyboardInterrupt):
            collect_and_wait()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_the_program_exits_with_2_and_no_traceback(tmp_path):
    process = run_train("--config.seeds.count=0", f"--workdir={tmp_path / 'run'}")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_killed_or_interrupted_run_ends_with_the_same_numbers(tmp_path):
    small = [a for a in SMALL if "epochs" not in a] + ["--config.training.epochs=8"]
    whole = run_train(*small, f"--workdir={tmp_path / 'whole'}")
    whole.communicate(timeout=600)
    assert whole.returncode == 0
    killed = 0
    workdir = tmp_path / "killed"
    # From before the first epoch, when programs compile, to after the last, when pairs are scored.
    for epochs_before_the_kill, how in (
        (0, signal.SIGKILL),
        (1, signal.SIGKILL),
        (5, signal.SIGKILL),
        (11, signal.SIGINT),
        (18, signal.SIGKILL),
        (24, signal.SIGKILL),
    ):
        process = run_train(*small, f"--workdir={workdir}")
        metrics = workdir / "metrics.jsonl"
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            epochs = metrics.read_text().count("\n") if metrics.exists() else 0
            if (workdir / "config.json").exists() and epochs >= epochs_before_the_kill:
                os.kill(process.pid, how)
                killed += 1
                break
            time.sleep(0.01)
        output, _ = process.communicate(timeout=60)
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert f"stopped; what is done is in {workdir}" in output
            assert "Traceback" not in output
    last = run_train(*small, f"--workdir={workdir}")
    last.communicate(timeout=600)
    assert last.returncode == 0
    assert killed == 6
    for name in ("stitching.csv", "summary.csv"):
        expected = (tmp_path / "whole" / "tables" / name).read_bytes()
        assert (workdir / "tables" / name).read_bytes() == expected
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "whole", workdir)
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_single_seed_has_nothing_to_be_stitched_with(tmp_path, capsys):
    assert train(*SMALL[1:], "--config.seeds.count=1", f"--workdir={tmp_path}") == 0
    assert "1 seed x 3 representations" in " ".join(capsys.readouterr().out.split())
    summary = rows(tmp_path / "tables" / "summary.csv")
    assert all(np.isfinite(float(row["non_stitched_mean"])) for row in summary)
    assert {row["stitched_mean"] for row in summary} == {"nan"}
    assert len(rows(tmp_path / "tables" / "stitching.csv")) == 3
    report = (tmp_path / "report.md").read_text()
    assert "with their own decoder" in report
    assert "another seed" not in report


@pytest.mark.slow
@pytest.mark.parametrize("config", ["default", "classifier"])
def test_stitching_works_on_digits_where_it_should(config, tmp_path):
    """The papers' claim on real data: absolute spaces cannot be stitched, relative ones can."""
    process = run_train(f"--config={ROOT / 'configs' / config}.py", f"--workdir={tmp_path / 'run'}")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    summary = {r["representation"]: r for r in rows(tmp_path / "run" / "tables" / "summary.csv")}
    own = {name: float(r["non_stitched_mean"]) for name, r in summary.items()}
    stitched = {name: float(r["stitched_mean"]) for name, r in summary.items()}
    for name in ("relative_cosine", "product"):
        if config == "classifier":
            assert stitched[name] > stitched["absolute"] + 0.3
        else:
            assert stitched["absolute"] > 10 * own["absolute"]
            assert stitched[name] < 3 * own[name]
            assert stitched[name] < stitched["absolute"] / 5


@pytest.mark.slow
@pytest.mark.parametrize("task", ["autoencoder", "variational_autoencoder"])
def test_real_mnist_from_a_file(task, tmp_path):
    folder = os.environ.get("RELREP_DATA_DIR", "")
    if not (Path(folder) / "mnist_20k_3k.npz").is_file():
        pytest.skip("set RELREP_DATA_DIR to a folder with mnist_20k_3k.npz")
    process = run_train(
        f"--config={ROOT / 'configs' / task}_mnist.py", f"--workdir={tmp_path / 'run'}",
        f"--config.data.path={Path(folder) / 'mnist_20k_3k.npz'}",
        "--config.data.train_limit=1000", "--config.data.test_limit=200",
        "--config.model.channels=(8, 16)", "--config.model.latent_dim=32",
        "--config.anchors.count=50", "--config.seeds.count=2", "--config.training.epochs=3",
    )  # fmt: skip
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    table = rows(tmp_path / "run" / "tables" / "stitching.csv")
    names = {"absolute", "absolute_orthogonal", "absolute_ridge", "relative_cosine", "product"}
    metrics = {"mse", "psnr", "ssim", "ergas"}
    expected = set(itertools.product(names, metrics))
    assert {(r["representation"], r["metric"]) for r in table} == expected
    assert len(table) == len(expected) * 4
    assert all(np.isfinite(float(r["value"])) for r in table)
