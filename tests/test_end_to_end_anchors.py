"""Numbers of anchors, end to end: the config's door and the scores by seed."""

import csv
import json

import numpy as np
import pytest
from rich.console import Console

from relrep_jax.experiments import end_to_end_anchors as experiment


def small(**changes):
    config = experiment.default_config()
    config.scale = "smoke"
    config.update_from_flattened_dict(changes)
    return config


def test_every_number_gets_a_job_and_representations_keep_their_order():
    job = experiment.prepare(small())
    assert list(job.runs) == [2, 4]
    for count, run in job.runs.items():
        assert len(run.data.anchors) == count
        assert list(run.models) == ["absolute", "relative_cosine", "product"]


def test_scores_by_seed_are_own_ones_or_means_over_other_encoders():
    grid = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.4], [0.5, 0.6, 0.7]])
    np.testing.assert_allclose(experiment.by_seed(grid, "non_stitched"), [0.9, 0.8, 0.7])
    np.testing.assert_allclose(experiment.by_seed(grid, "stitched"), [0.4, 0.35, 0.3])


def test_an_encoder_that_diverged_does_not_hide_the_others():
    grid = np.array([[np.nan] * 3, [np.nan, 0.8, 0.4], [np.nan, 0.6, 0.7]])
    np.testing.assert_allclose(experiment.by_seed(grid, "stitched"), [np.nan, 0.6, 0.4])


def test_one_number_of_anchors_is_enough():
    assert list(experiment.prepare(small(**{"anchors.counts": (8,)})).runs) == [8]
    job = experiment.prepare(small(translations=()))
    assert list(job.runs[2].models) == ["absolute", "relative_cosine", "product"]


def test_two_trainings_never_share_a_name():
    config = small()
    config.representations.relative_cosine_2 = config.representations.absolute
    with pytest.raises(ValueError, match="Two trainings would have the same name"):
        experiment.prepare(config)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"anchors.counts": ()}, "counts is empty"),
        ({"anchors.counts": (0, 0, 1), "scale": "full"}, "anchors.count must be at least 1"),
        ({"anchors.counts": (1, 99_999), "scale": "full"}, "only 1437 training nodes"),
        ({"translations": ("orthogonl",)}, "Did you mean 'orthogonal'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_it_starts(changes, says):
    with pytest.raises(ValueError, match=says):
        experiment.prepare(small(**changes))


@pytest.mark.slow
def test_absolute_latents_are_trained_once_and_mapped_by_every_number_of_anchors(tmp_path):
    config = small()
    job = experiment.prepare(config)
    experiment.run(job, tmp_path, Console(quiet=True))
    with (tmp_path / "tables" / "accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = {
        (name, count): {
            (row["encoder"], row["decoder"]): float(row["accuracy"])
            for row in rows
            if (row["representation"], row["anchors"]) == (name, count)
        }
        for name in ("absolute", "absolute_orthogonal", "relative_cosine", "product")
        for count in ("2", "4")
    }
    assert all(len(pairs) == len(job.runs[2].seeds) ** 2 for pairs in scores.values())
    assert scores["absolute", "2"] == scores["absolute", "4"]
    assert scores["absolute_orthogonal", "2"] != scores["absolute_orthogonal", "4"]
    for count in ("2", "4"):
        for seed in map(str, job.runs[2].seeds):
            own = scores["absolute", count][seed, seed]
            assert scores["absolute_orthogonal", count][seed, seed] == own
    logged = (tmp_path / "metrics.jsonl").read_text()
    trained = {json.loads(line)["representation"] for line in logged.splitlines()}
    assert trained == {
        "absolute", "relative_cosine_2", "relative_cosine_4", "product_2", "product_4",
    }  # fmt: skip
    text = (tmp_path / "report.md").read_text()
    assert "`absolute_orthogonal`: the latents" in text
    assert "| Anchors | absolute | relative_cosine | product |" in text
    assert "| Anchors | absolute | absolute_orthogonal | relative_cosine | product |" in text

    def heads(name, count):
        """Mean over the other encoders, by head."""
        found = scores[name, count]
        seeds = job.runs[2].seeds
        return np.array([np.mean([found[str(i), str(j)] for i in seeds if i != j]) for j in seeds])

    section = text.split("## Representations, stitched")[1].split("\n## ")[0]
    for name in ("absolute", "absolute_orthogonal", "product"):
        difference = heads(name, "2") - heads("relative_cosine", "2")
        won = f"{(difference > 0).sum()} of {len(difference)}"
        cells = f"| {name} | relative_cosine | 2 | {100 * difference.mean():+.1f} | {won} |"
        assert cells.replace("+0.0", "-0.0") in section.replace("+0.0", "-0.0")
    # What does not depend on the number of anchors has no steps.
    steps = text.split("## More anchors")[1].split("\n## ")[0]
    assert "| absolute |" not in steps
    assert "| absolute_orthogonal | non-stitched |" not in steps
    assert "| absolute_orthogonal | stitched | 2 → 4 |" in steps
