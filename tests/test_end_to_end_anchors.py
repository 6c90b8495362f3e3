"""Numbers of anchors, end to end: the config's door and the scores by seed."""

import numpy as np
import pytest

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
        assert list(run.models) == ["relative_cosine", "product"]


def test_scores_by_seed_are_own_ones_or_means_over_other_encoders():
    grid = np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.4], [0.5, 0.6, 0.7]])
    np.testing.assert_allclose(experiment.by_seed(grid, "non_stitched"), [0.9, 0.8, 0.7])
    np.testing.assert_allclose(experiment.by_seed(grid, "stitched"), [0.4, 0.35, 0.3])


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"anchors.counts": ()}, "counts is empty"),
        ({"anchors.counts": (0, 0, 1), "scale": "full"}, "anchors.count must be at least 1"),
        ({"anchors.counts": (1, 99_999), "scale": "full"}, "only 1437 training nodes"),
        ({"representations.product.similarities": ()}, "has no similarities"),
    ],
)
def test_what_cannot_be_run_is_refused_before_it_starts(changes, says):
    with pytest.raises(ValueError, match=says):
        experiment.prepare(small(**changes))
