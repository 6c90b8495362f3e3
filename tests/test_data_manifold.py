"""Similarity as a proxy of accuracy: models side by side equal models alone; the correlations."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from relrep_jax.experiments import data_manifold
from relrep_jax.experiments import node_classification as nodes
from relrep_jax.training.loop import init_state, train_step
from relrep_jax.training.optimizers import make_optimizer
from relrep_jax.training.seeds import plan_seeds


def small(**changes):
    config = data_manifold.default_config()
    config.scale = "smoke"
    config.model.hidden_features = config.model.latent_dim = 8
    config.anchors.count = 10
    config.sweep.layers = ("gcnii",)
    config.sweep.optimizers = ("adam",)
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.slow
def test_a_model_among_many_is_the_model_trained_alone():
    """An independent road: one Python loop over steps, hyperparameters as plain numbers."""
    job = data_manifold.prepare(small())
    group, options = job.groups[0], nodes.options_of(job.config)
    points = [data_manifold.Point(0, 0.1, 0.02), data_manifold.Point(3, 0.5, 0.01)]
    accuracy, spaces = data_manifold.train_points(
        group, points, (3,), job.data, options, plan_seeds(2, "vmap")
    )
    assert accuracy.shape == (2, 1)
    assert spaces.shape == (2, 1, 1797, 10)
    data = jax.tree.map(jnp.asarray, job.data)
    point = points[1]
    mine = options._replace(dropout=point.dropout)
    optimizer = make_optimizer("adam", point.learning_rate)
    loss = nodes.make_loss(group.model, data_manifold.ABSOLUTE, mine)
    step = jax.jit(lambda state: train_step(loss, optimizer, state, data, None)[0])
    state = jax.jit(lambda seed: init_state(group.model, optimizer, seed))(point.seed)
    for _ in range(3):
        state = step(state)
    encode = jax.jit(lambda v: group.model.apply(v, "encode", data.features, data.adjacency)[0])
    latents = np.asarray(encode(state.variables))
    unit = latents / np.linalg.norm(latents, axis=1, keepdims=True)
    expected = unit @ unit[job.data.anchors].T
    np.testing.assert_allclose(spaces[1, 0], expected, rtol=1e-2, atol=2e-3)


@pytest.mark.slow
def test_every_combination_is_a_model():
    config = small(scale="full")
    config.sweep.layers = ("gcnii", "gin")
    job = data_manifold.prepare(config)
    assert job.num_models == 2 * 2 * 2 * 2 * 1 * 5 * 2 * 2 * 3
    assert len({group.fields for group in job.groups}) == len(job.groups)


def test_correlations_are_scipy_s_without_diverged_models():
    rng = np.random.default_rng(0)
    accuracy = rng.random(20)
    similarity = accuracy + 0.1 * rng.random(20)
    similarity[3] = np.nan
    rows = [
        ("gcnii", 4, "relu", "relu", "adam", 0.01, 0.1, i % 2, 10, a, s)
        for i, (a, s) in enumerate(zip(accuracy, similarity, strict=True))
    ]
    rest = ("gin", 4, "relu", "relu", "adam", 0.01, 0.1, 2, 10)
    rows += [(*rest, 0.5, np.nan), (*rest, 0.1, 0.2)]
    table = data_manifold.correlations(rows)
    everything, gcnii, gin, learnt, *by_seed = table
    assert [row[:3] for row in by_seed] == [("seed 0", 10, 0), ("seed 1", 9, 1), ("seed 2", 1, 1)]
    expected = (
        stats.pearsonr(accuracy[::2], similarity[::2]),
        stats.spearmanr(accuracy[::2], similarity[::2]),
    )
    assert by_seed[0][3::2] == pytest.approx([one.statistic for one in expected])
    shown = data_manifold._markdown(table[:6])
    mean = np.mean([row[3] for row in by_seed[:2]])
    std = abs(by_seed[0][3] - by_seed[1][3]) / 2**0.5
    assert f"2 seeds: Pearson {mean:.3f} ± {std:.3f}" in shown
    assert everything[:3] == ("all", 20, 2)
    keep = np.arange(20) != 3
    expected = stats.pearsonr(accuracy[keep], similarity[keep])
    assert gcnii[3:5] == pytest.approx((expected.statistic, expected.pvalue))
    assert gin[:3] == ("gin", 1, 1)
    assert np.isnan(gin[3:]).all()
    keep &= accuracy > 0.5
    expected = stats.pearsonr(accuracy[keep], similarity[keep])
    assert learnt[:2] == ("accuracy above 0.5", keep.sum())
    assert learnt[3:5] == pytest.approx((expected.statistic, expected.pvalue))


@pytest.mark.slow
def test_a_model_that_diverges_is_counted_as_such(tmp_path):
    """Not as one whose every node is of the first class and which is like nothing."""
    config = small(**{"sweep.learning_rates": (0.01, 1e30), "sweep.epochs": (3,)})
    config.sweep.optimizers = ("sgd",)
    job = data_manifold.prepare(config)
    table = data_manifold.run(job, tmp_path, Console(quiet=True))
    assert table[0][1:3] == (job.num_models // 2, job.num_models // 2)


@pytest.mark.slow
def test_a_reference_that_diverges_ends_with_a_message(tmp_path):
    job = data_manifold.prepare(small(**{"reference.learning_rate": 1e30}))
    with pytest.raises(ValueError, match="lower config.reference.learning_rate"):
        data_manifold.run(job, tmp_path, Console(quiet=True))


BAD = {
    "unknown layer": ({"sweep.layers": ("gat",)}, "Known: gcn, gcnii, gin"),
    "nothing": ({"sweep.layers": ()}, "config.sweep.layers is empty"),
    "all dropped": ({"sweep.dropouts": (0.1, 1.0)}, r"dropouts has 1.0: it must lie in \[0, 1\)"),
    "no learning": ({"sweep.learning_rates": (0.0,)}, "learning_rates has 0.0"),
    "no reference": ({"reference.learning_rate": 0.0}, "reference.learning_rate must be above 0"),
    "no nodes": ({"data.val_fraction": 0.0}, "val_fraction leaves no validation nodes"),
    "unknown optimizer": ({"sweep.optimizers": ("adan",)}, "Did you mean 'adam'"),
    "letters": ({"sweep.learning_rates": ("a",)}, "learning_rates must be a number"),
    "half an epoch": ({"sweep.epochs": (10.5,)}, "sweep.epochs must be a whole number"),
    "a value twice": ({"sweep.layers": ("gcn", "gcn")}, "sweep.layers has a value twice"),
    "a large seed": ({"data.split_seed": 2**40}, "split_seed must be from 0 to"),
    "unknown scale": ({"scale": "huge"}, "full, smoke"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_config_ends_before_training_with_a_message(fault):
    changes, message = BAD[fault]
    with pytest.raises(ValueError, match=message):
        data_manifold.prepare(small(**changes))


@pytest.mark.slow
def test_more_accurate_models_are_more_like_the_reference(tmp_path):
    config = small(**{"model.hidden_features": 32, "model.latent_dim": 32, "anchors.count": 32})
    job = data_manifold.prepare(config)
    table = data_manifold.run(job, tmp_path, Console(quiet=True))
    name, count, diverged, pearson, p, *_ = table[0]
    assert (name, count + diverged) == ("all", job.num_models)
    assert pearson > 0.5
    assert p < 0.01
    with (tmp_path / "tables" / "models.csv").open() as file:
        assert len(list(csv.DictReader(file))) == job.num_models
    assert (tmp_path / "figures" / "similarity.png").stat().st_size > 0
    assert "Pearson" in (tmp_path / "report.md").read_text()


def test_tables_show_no_p_value_of_zero():
    table = data_manifold._markdown([("all", 1680, 240, 0.93, 0.0, 0.81, 1e-12)])
    assert "| 0.930 | < 1e-300 | 0.810 | 1.0e-12 |" in table
