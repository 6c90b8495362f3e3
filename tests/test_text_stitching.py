"""Texts as tokens, the transformer, and their experiment from the config's door to its files."""

import csv
import dataclasses
import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from relrep_jax.data import DatasetError
from relrep_jax.data.texts import PAD, UNKNOWN, load_texts
from relrep_jax.experiments import get_experiment, text_stitching
from relrep_jax.models import Representation, functional
from relrep_jax.models.transformer import TextClassifier


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eighty texts in two classes that one word tells apart, with a development part."""
    rng = np.random.default_rng(0)
    lines = ["split\tlabel\ttext"]
    for row in range(80):
        part = ("train", "train", "dev", "test")[row % 4]
        kind = ("fruit", "animal")[row // 4 % 2]
        word = {"fruit": "apple", "animal": "horse"}[kind]
        filler = rng.choice(["the", "a", "one", "that"], 3).tolist()
        lines.append(f"{part}\t{kind}\t{' '.join(filler[:2])} {word} {filler[2]} ?")
    file = tmp_path_factory.mktemp("texts") / "things.tsv.gz"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    return file


def small(table, **changes):
    config = text_stitching.default_config()
    config.data.path = str(table)
    del config.representations.product
    config.model.max_length = 8
    config.model.width = 16
    config.model.num_layers = 1
    config.anchors.count = 10
    config.seeds.count = 2
    config.training.epochs = 2
    config.training.batch_size = 10
    config.update_from_flattened_dict(changes)
    return config


def test_texts_become_tokens_of_known_words(table):
    data = load_texts(table, max_length=4)
    assert data.x_train.shape == (40, 4)
    assert data.x_test.shape == (20, 4)
    assert data.num_classes == 2
    assert {"apple", "horse", "the"} <= set(data.vocabulary)
    assert data.x_train.max() < data.vocabulary_size
    # Class 0 is the first in alphabetical order.
    horse = data.vocabulary.index("horse") + 2
    np.testing.assert_array_equal((data.x_train == horse).any(axis=1), data.y_train == 0)


def test_short_texts_are_filled_up_and_rare_words_unknown(table):
    data = load_texts(table, max_length=8, max_words=3)
    assert (data.x_train[:, 5:] == PAD).all()
    assert (data.x_train[:, :5] != PAD).all()
    assert len(data.vocabulary) == 3
    assert (data.x_train == UNKNOWN).any()


def test_the_embedded_texts_have_all_classes_in_both_parts():
    data = load_texts()
    assert data.is_embedded
    assert len(data.x_train) > 300
    assert np.bincount(data.y_train).min() > 10
    assert np.bincount(data.y_test).min() > 2


@pytest.mark.parametrize(
    "heading, body, says",
    [
        ("label\ttext", "a\tsome words", "no column 'split'"),
        ("split\ttext", "train\tsome words", "no column 'label'"),
        ("split\tlabel\ttext", "train\ta\tsome words", "no training or no test rows"),
        (
            "split\tlabel\ttext",
            "train\ta\tone\ntrain\tb\tsix\ntest\ta\ttwo",
            "No word occurs in two",
        ),
        ("split\tlabel\ttext", "train\ta\tone\ntest\ta\ttwo", "are of one class"),
        (
            "split\tlabel\ttext",
            "train\ta\tone\ntrain\tb\tsix\ntest\tc\ttwo",
            "1 of the classes of test texts have no training texts",
        ),
        (
            "split\tlabel\ttext",
            "train\ta\tone\ntrain\t \tsix\ntest\ta\ttwo",
            "1 empty labels, the first is that of entry 2",
        ),
    ],
)
def test_texts_that_do_not_do_are_refused(tmp_path, heading, body, says):
    file = tmp_path / "texts.tsv"
    file.write_text(f"{heading}\n{body}\n")
    with pytest.raises(DatasetError, match=says):
        load_texts(file)


@pytest.mark.parametrize("name", ["images.npz", "folder", "lines.txt"])
def test_other_files_than_tables_of_texts_are_refused(tmp_path, name):
    with pytest.raises(DatasetError, match=r"read from \.tsv or \.csv .* text, label and split"):
        load_texts(tmp_path / name)


def build(representation=None, **changes):
    arguments = {"num_classes": 3, "width": 16, "num_heads": 2, "num_anchors": 5} | changes
    return functional(
        lambda rngs: TextClassifier(
            20, 6, representation=representation or Representation("absolute"), rngs=rngs,
            **arguments,
        )
    )  # fmt: skip


@pytest.mark.slow
def test_padding_changes_nothing():
    model = build()
    variables = jax.jit(model.init)(jax.random.key(0))
    tokens = jnp.array([[3, 7, 9, 0, 0, 0]])
    encode = jax.jit(lambda tokens: model.apply(variables, "encode", tokens)[0])
    whole, short = encode(tokens), encode(tokens[:, :3])
    np.testing.assert_allclose(whole, short, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_empty_text_has_finite_latents_and_gradients():
    model = build()
    variables = jax.jit(model.init)(jax.random.key(0))

    def total(params):
        latents, _ = model.apply(
            variables._replace(params=params), "encode", jnp.zeros((2, 6), jnp.int32)
        )
        return jnp.sum(latents**2)

    assert all(
        np.isfinite(leaf).all()
        for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(variables.params))
    )


@pytest.mark.slow
def test_dropout_draws_by_key_and_is_off_without_one():
    model = build(dropout_rate=0.5)
    variables = jax.jit(model.init)(jax.random.key(0))
    tokens = jnp.arange(1, 7)[None]

    @jax.jit
    def latents(key=None):
        return model.apply(variables, "encode", tokens, key)[0]

    np.testing.assert_array_equal(latents(), latents())
    np.testing.assert_array_equal(latents(jax.random.key(1)), latents(jax.random.key(1)))
    assert not np.allclose(latents(jax.random.key(1)), latents(jax.random.key(2)))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="num_heads"):
        build(width=15)


REFUSED = {
    "unknown field": ({"model.widht": 3}, "widht"),
    "too many anchors": ({"anchors.count": 41}, "anchors.count is 41.*only 40"),
    "too large a batch": ({"training.batch_size": 41}, "batch_size is 41.*only 40"),
    "no words": ({"data.max_words": 0}, "max_words must be at least 1"),
    "dropout": ({"model.dropout": 1.0}, "dropout must lie"),
    "heads": ({"model.num_heads": 3}, "must divide"),
    "missing file": ({"data.path": "gone.tsv"}, "No such file.*config.data.path"),
    "no labels": ({"data.path": "{tmp}/bare.tsv"}, "there are text, kind.*data.label_column"),
    "no split": (
        {"data.path": "{tmp}/bare.tsv", "data.label_column": "kind"},
        "no column 'split'.*there are text, kind",
    ),
    "no texts": ({"data.path": "{tmp}/odd.tsv"}, "such as words.*config.data.column"),
    "scale": ({"scale": "tiny"}, "full, smoke"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_before_it_starts(table, case, tmp_path):
    (tmp_path / "bare.tsv").write_text("text\tkind\none\ta\n")
    (tmp_path / "odd.tsv").write_text("split\tlabel\twords\ntest\ta\tone\n")
    changes, says = REFUSED[case]
    changes = {
        field: value.format(tmp=tmp_path) if isinstance(value, str) else value
        for field, value in changes.items()
    }
    config = small(table)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
        for field, value in changes.items():
            group, _, name = field.rpartition(".")
            (config[group] if group else config)[name] = value
    with pytest.raises(ValueError, match=says):
        text_stitching.prepare(config)


@pytest.mark.slow
def test_the_best_model_on_held_out_texts_is_stitched(table, tmp_path, own_scores):
    changes = {"checkpoint.keep": "best", "data.val_fraction": 0.25, "training.batch_size": 10}
    config = small(table, **changes, **{"optimizer.learning_rate": 0.05, "anchors.count": 10})
    job = text_stitching.prepare(config)
    assert (len(job.dataset.x_train), len(job.validation["label"])) == (30, 10)
    held_out = dataclasses.replace(
        job.dataset, x_test=job.validation["tokens"], y_test=job.validation["label"]
    )
    text_stitching.run(dataclasses.replace(job, dataset=held_out), tmp_path, Console(quiet=True))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in job.models:
        scores = np.array([r["validation"] for r in records if r["representation"] == name])
        np.testing.assert_allclose(own_scores(tmp_path, name), scores.max(axis=0), rtol=1e-6)
    assert "30 training, 10 validation and" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_a_run_learns_and_leaves_its_files(table, tmp_path):
    config = small(table, **{"training.epochs": 40, "optimizer.learning_rate": 5e-3})
    job = get_experiment(config).prepare(config)
    summaries = text_stitching.run(job, tmp_path, Console(quiet=True))
    found = {summary.representation: summary for summary in summaries}
    assert all(summary.non_stitched_mean > 0.9 for summary in summaries)
    assert found["relative_cosine"].stitched_mean > 0.9 > 0.5 > found["absolute"].stitched_mean
    with (tmp_path / "tables" / "stitching.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 2 * 2
    assert "40 training and 20 test texts of 2 classes" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_latents_have_the_dtype_of_the_parameters_in_64_bit_mode():
    with jax.enable_x64(True):
        model = build()
        variables = model.init(jax.random.key(0))
        latents, _ = model.apply(variables, "encode", jnp.ones((2, 5), jnp.int32))
        assert latents.dtype == jnp.float32
