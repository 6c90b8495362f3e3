"""Experiment A2: two embeddings of the same words, relative to the same anchors."""

import csv
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from relrep_jax.experiments import get_experiment, word_embeddings


def small(**anchors):
    config = word_embeddings.default_config()
    config.data.limit = 150
    config.anchors.count = 20
    config.anchors.choices = ("uniform", "top_40")
    config.seeds.count = 2
    config.neighbours = 5
    config.anchors.update(anchors)
    return config


@pytest.mark.slow
def test_relative_spaces_find_what_absolute_ones_cannot(tmp_path):
    config = small()
    assert get_experiment(config) is word_embeddings
    report = word_embeddings.run(
        word_embeddings.prepare(config), tmp_path, Console(quiet=True), "python train.py"
    )
    with open(tmp_path / "tables" / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(r["anchors"], r["source"], r["metric"]): float(r["mean"]) for r in rows}
    assert len(found) == 5 * 2 * 3
    for source in ("pixels", "frequencies"):
        for choice in ("uniform", "top_40"):
            assert found[choice, source, "mrr"] > 0.5 > 0.1 > found["absolute", source, "mrr"]
            assert found[choice, source, "cosine"] > 0.7
        assert found["ridge", source, "mrr"] > 0.3
    # A map the other way is fitted the other way.
    assert found["ridge", "pixels", "mrr"] != found["ridge", "frequencies", "mrr"]
    text = report.read_text()
    assert "no words" in text
    assert "Published" not in text
    assert "pixels → frequencies: MRR@5" in text
    assert "| top_40 | uniform | mrr |" in text
    assert "| ridge | uniform | mrr |" in text
    assert "nearest to each of a 0, a 1, a 4, a 7 in pixels" in text
    assert (tmp_path / word_embeddings.CLUSTERS).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["uniform", "farthest_point", "kmeans", "top_30"])
def test_every_choice_gives_distinct_anchors(choice):
    import jax

    x = jax.random.normal(jax.random.key(0), (60, 5))
    indices = np.asarray(word_embeddings._choose(choice, jax.random.key(1), x, 20))
    assert len(set(indices.tolist())) == 20
    if choice == "top_30":
        assert indices.max() < 30


def test_files(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.standard_normal((50, 4)).astype(np.float16))
    np.save(tmp_path / "b.npy", rng.standard_normal((50, 6)).astype(np.float16))
    config = small()
    config.data.source, config.data.target = str(tmp_path / "a.npy"), str(tmp_path / "b.npy")
    config.data.limit = 45
    job = word_embeddings.prepare(config)
    assert job.names == ("a", "b")
    assert [space.shape for space in job.spaces] == [(45, 4), (45, 6)]
    assert not job.is_embedded

    np.save(tmp_path / "b.npy", np.ones((49, 6)))
    with pytest.raises(ValueError, match="a has 50 rows and b has 49"):
        word_embeddings.prepare(config)
    config.data.target = ""
    with pytest.raises(ValueError, match="Set both"):
        word_embeddings.prepare(config)


def test_a_folder_of_two_files(tmp_path):
    rng = np.random.default_rng(0)
    for name, width in (("a", 4), ("b", 6)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((50, width)))
    (tmp_path / "vocabulary.txt").write_text("".join(f"w{i}\n" for i in range(49)) + "water\n")
    config = small()
    config.data.limit = 0
    config.data.path = str(tmp_path)
    job = word_embeddings.prepare(config)
    assert job.names == ("a", "b")
    assert job.clusters == {"water": 49}
    config.data.source = config.data.target = str(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="Set config.data.path, or"):
        word_embeddings.prepare(config)
    config.data.source = config.data.target = ""
    np.save(tmp_path / "c.npy", np.ones((50, 3)))
    with pytest.raises(ValueError, match=r"holds 3 files of vectors \(a, b, c\)"):
        word_embeddings.prepare(config)
    config.data.path, config.data.vocabulary = "", "words.txt"
    with pytest.raises(ValueError, match="name their files too"):
        word_embeddings.prepare(config)


def test_few_digits():
    config = small(count=2, choices=("uniform",))
    config.data.limit, config.neighbours = 4, 2
    assert list(word_embeddings.prepare(config).clusters) == ["a 0", "a 1"]


@pytest.mark.slow
def test_neighbourhoods():
    angles = np.deg2rad([0, 5, 10, 44, 90, 85, 180])
    space = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, 8)[:, None]
    members, owners = word_embeddings.neighbourhoods(space, (0, 4), 4)
    # 44 degrees is among the four nearest of both, and nearer to the first.
    assert dict(zip(members.tolist(), owners.tolist(), strict=True)) == {
        0: 0, 1: 0, 2: 0, 3: 0, 4: 1, 5: 1,
    }  # fmt: skip


@pytest.mark.slow
def test_the_words_of_the_figure(tmp_path):
    rng = np.random.default_rng(0)
    for name, width in (("a", 4), ("b", 6)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((50, width)))
    config = small()
    config.data.source, config.data.target = str(tmp_path / "a.npy"), str(tmp_path / "b.npy")
    config.data.limit = 45
    config.clusters.size = 5
    assert not word_embeddings.prepare(config).clusters

    vocabulary = tmp_path / "words.txt"
    config.data.vocabulary = str(vocabulary)
    with pytest.raises(ValueError, match="No such file"):
        word_embeddings.prepare(config)
    vocabulary.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        word_embeddings.prepare(config)
    vocabulary.write_text("school\nwater\n")
    with pytest.raises(ValueError, match="has 2 lines, but there are 50 vectors"):
        word_embeddings.prepare(config)
    # Ends of lines to splitlines, but parts of words; and a blank word.
    words = ["#", "", "a\x85b", "foo\u2028", "water", *(f"w{i}" for i in range(44)), "martial"]
    vocabulary.write_text("\n".join(words), encoding="utf-8")
    job = word_embeddings.prepare(config)
    # The last line is beyond the limit.
    assert job.clusters == {"water": 4}
    report = word_embeddings.run(job, tmp_path / "run", Console(quiet=True))
    assert "Not among the words: school, ferrari, martial." in report.read_text()
    config.clusters.size = 1
    word_embeddings.run(job, tmp_path / "one", Console(quiet=True))
    config.clusters.words = ("ferrari",)
    with pytest.raises(ValueError, match="None of config.clusters.words .* such as '#', ''"):
        word_embeddings.prepare(config)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"anchors.count": 0}, "at least 1"),
        ({"anchors.count": 151}, "only 150 samples"),
        ({"anchors.choices": ()}, "empty"),
        ({"anchors.choices": ("kmean",)}, "Did you mean 'kmeans'"),
        ({"anchors.choices": ("top_10",)}, "top_10 must lie between"),
        ({"neighbours": 150}, "below 150"),
        ({"translations": ("rige",)}, "Did you mean 'ridge'"),
        ({"seeds.count": 0}, "at least 1"),
    ],
)
def test_bad_config(change, message):
    config = small()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError, match=message):
        word_embeddings.prepare(config)


def test_the_config_of_the_paper():
    import runpy

    path = Path(__file__).parents[1] / "configs" / "relative_representations" / "word_embeddings.py"
    config = runpy.run_path(str(path))["get_config"]()
    word_embeddings.prepare(config)
    assert (config.anchors.count, config.seeds.count, config.neighbours) == (300, 10, 10)


def test_the_default_can_run():
    word_embeddings.prepare(word_embeddings.default_config())
