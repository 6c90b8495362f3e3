"""Seeds compared: the measures, the config's door, and a run to its files."""

import csv

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ortho_group, pearsonr, spearmanr

from relrep_jax.experiments import get_experiment, seed_similarity
from relrep_jax.projection import relative_projection


def small(**changes):
    config = seed_similarity.default_config()
    config.data.train_limit = 128
    config.data.test_limit = 64
    config.model.channels = (8,)
    config.model.latent_dim = 4
    config.anchors.count = 20
    config.seeds.count = 3
    config.training.epochs = 1
    config.training.batch_size = 64
    config.update_from_flattened_dict(changes)
    return config


def test_measures_agree_with_scipy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 5)).astype(np.float32)
    y = (x + rng.standard_normal((30, 5))).astype(np.float32)
    found = seed_similarity.compare(x, y)
    assert found["pearson"] == pytest.approx(pearsonr(x.ravel(), y.ravel())[0], abs=1e-6)
    assert found["spearman"] == pytest.approx(spearmanr(x.ravel(), y.ravel())[0], abs=1e-6)


@pytest.mark.slow
def test_relative_spaces_of_a_rotation_are_alike_and_latents_are_not():
    x = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    y = (x @ ortho_group.rvs(6, random_state=1)).astype(np.float32)
    absolute = seed_similarity.compare(x, y)
    relative = seed_similarity.compare(
        *(np.asarray(relative_projection(space, space[:10])) for space in (x, y))
    )
    assert abs(absolute["pearson"]) < 0.5
    for measure, value in relative.items():
        assert value == pytest.approx(1, abs=1e-4), measure


@pytest.mark.slow
def test_latents_through_a_map_agree_as_far_as_the_anchors_know_it():
    rng = np.random.default_rng(0)
    turn = ortho_group.rvs(6, random_state=1)
    latents, anchors = rng.standard_normal((50, 6)), rng.standard_normal((20, 6))
    both = np.stack([latents, latents @ turn + 5]), np.stack([anchors, anchors @ turn + 5])
    first, second = seed_similarity.translated("orthogonal", *map(np.float32, both), 0, 1)
    np.testing.assert_allclose(first, second, atol=1e-4)
    # Anchors that do not belong together tell the mean of the other space and nothing else.
    wrong = both[1].copy()
    wrong[0] = rng.permutation(wrong[0])
    first, second = seed_similarity.translated(
        "orthogonal", np.float32(both[0]), np.float32(wrong), 0, 1
    )
    assert abs(seed_similarity.compare(first, second)["pearson"]) < 0.4


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"seeds.count": 1}, "seeds.count must be at least 2"),
        ({"similarities": ()}, "similarities is empty"),
        ({"models": ()}, "models is empty"),
        ({"translations": ("ridge", "ridge")}, "names something twice"),
        ({"similarities": ("cosinus",)}, "cosinus"),
        ({"translations": ("orthogonl",)}, "Did you mean 'orthogonal'"),
        ({"models": ("autoencodre",)}, "autoencoder"),
        ({"anchors.count": 129}, "anchors.count is 129"),
    ],
)
def test_what_cannot_be_run_is_refused_before_it_starts(changes, says):
    with pytest.raises(ValueError, match=says):
        seed_similarity.prepare(small(**changes))


@pytest.mark.slow
def test_a_run_leaves_tables_figures_and_a_report(tmp_path):
    config = small(models=("autoencoder", "classifier"), translations=("orthogonal",))
    seed_similarity.run(get_experiment(config).prepare(config), tmp_path, Console(quiet=True))
    with (tmp_path / "tables" / "similarity.csv").open() as file:
        rows = list(csv.DictReader(file))
    # 2 models x (5 spaces and a map) x 3 pairs x 4 measures
    assert len(rows) == 2 * 6 * 3 * 4
    cosine = {
        (row["model"], row["space"]): float(row["value"])
        for row in rows
        if row["measure"] == "linear_cka"
    }
    assert all(0 <= value <= 1 for value in cosine.values())
    text = (tmp_path / "report.md").read_text()
    assert "fitted on the anchors" in text
    for model in ("autoencoder", "classifier"):
        for name in ("spaces", "pearson"):
            assert f"figures/{model}_{name}.png" in text
            assert (tmp_path / "figures" / f"{model}_{name}.png").stat().st_size > 0
