"""`relrep stitch`: the tables that it writes, and its doors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from relrep_jax.cli import main
from relrep_jax.experiments import latent_stitching as job
from relrep_jax.experiments.latent_stitching import (
    METHODS,
    PAIR_COLUMNS,
    SUMMARY_COLUMNS,
    Outcome,
    letters,
    plan,
    summarize,
)
from relrep_jax.stitching import REPRESENTATIONS, LatentStitching

N, NAMES = 90, ("big", "small", "turned")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of three encoders of one clustered cause."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, N)
    cause = 3 * rng.standard_normal((3, 5))[labels] + rng.standard_normal((N, 5))
    folder = tmp_path / "latents"
    folder.mkdir()
    for name, width in zip(NAMES, (9, 6, 9), strict=True):
        frame, _ = np.linalg.qr(rng.standard_normal((width, 5)))
        np.save(folder / f"{name}.npy", (cause @ frame.T).astype(np.float16))
    np.save(folder / "labels.npy", labels)
    np.save(folder / "split.npy", np.where(np.arange(N) < 60, 0, 2))
    return tmp_path


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_writes_tables_pictures_and_a_report(home, capsys):
    argv = ["stitch", "latents", "-o", "out", "--methods", "absolute,centred_cosine,orthogonal"]
    argv += ["--parallel-samples", "20,all", "--seeds", "2"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "centred_cosine" in out
    assert "Stitched" in out

    pairs = read("out/pairs.csv")
    assert tuple(pairs[0]) == PAIR_COLUMNS
    # 2 methods x 2 budgets x 2 seeds x 9 pairs x 2 metrics; absolute where widths agree.
    assert len(pairs) == 2 * 2 * 2 * 9 * 2 + 2 * 5 * 2
    assert {row["parallel_samples"] for row in pairs} == {"0", "20", "60"}
    assert {row["metric"] for row in pairs} == {"accuracy", "f1_weighted"}
    assert {row["encoder"] for row in pairs} == {row["decoder"] for row in pairs} == set(NAMES)
    assert all(0 <= float(row["value"]) <= 1 for row in pairs)

    summary = read("out/summary.csv")
    assert tuple(summary[0]) == SUMMARY_COLUMNS
    for row in summary:
        values = [
            float(pair["value"])
            for pair in pairs
            if all(pair[k] == row[k] for k in ("method", "parallel_samples", "metric"))
            and pair["encoder"] != pair["decoder"]
        ]
        assert float(row["stitched_mean"]) == pytest.approx(np.mean(values))
        assert len(values) == int(row["num_seeds"]) * int(row["num_pairs"])
    stitched = {row["method"]: float(row["stitched_mean"]) for row in summary}
    assert stitched["centred_cosine"] > 0.9 > stitched["absolute"] + 0.2

    assert json.loads(Path("out/pairs.json").read_text())[0].keys() == set(PAIR_COLUMNS)
    report = Path("out/report.md").read_text()
    assert "relrep stitch latents -o out --methods" in report
    assert "| orthogonal | 20 |" in report
    figures = sorted(path.name for path in Path("out/figures").iterdir())
    assert figures == ["pairs_20.png", "pairs_60.png"]
    assert all(f"(figures/{name})" in report for name in figures)

    Path("out/mine.txt").write_text("kept")
    again = ["stitch", "latents", "-o", "out", "--methods", "centred_cosine", "--force"]
    assert main([*again, "--parallel-samples", "20", "--seeds", "1"]) == 0
    assert [path.name for path in Path("out/figures").iterdir()] == ["pairs_20.png"]
    assert Path("out/mine.txt").exists()


@pytest.mark.slow
def test_one_method_that_fails_costs_the_others_nothing(home, capsys, monkeypatch):
    real = job.stitch

    def fails(name, *args, **options):
        if name == "ridge":
            raise RuntimeError("out of memory")
        return real(name, *args, **options)

    monkeypatch.setattr(job, "stitch", fails)
    argv = ["stitch", "latents", "-o", "out", "--methods", "ridge,centred_cosine"]
    assert main([*argv, "--parallel-samples", "20", "--seeds", "1"]) == 1
    assert "ridge with 20 parallel samples: out of memory" in capsys.readouterr().err
    assert {row["method"] for row in read("out/summary.csv")} == {"centred_cosine"}
    assert "out of memory" in Path("out/report.md").read_text()


@pytest.mark.parametrize("place", ["out[/b]", "out[b]x", "out:cat:"])
def test_places_are_printed_as_they_are(home, capsys, monkeypatch, place):
    def scored(name, *args, **options):
        accuracy = np.full((1, 3, 3), 0.5)
        seeds, rows = np.arange(1), np.zeros((1, 5))
        result = LatentStitching(NAMES, accuracy, accuracy, seeds, rows, 5, (), np.arange(3))
        return Outcome(name, result)

    monkeypatch.setattr(job, "stitch", scored)
    (home / "latents").rename(home / "om[b]")
    argv = ["om[b]", "-o", place, "--methods", "absolute", "--seeds", "1"]
    assert main(["stitch", *argv]) == 0
    out = capsys.readouterr().out
    assert "om[b]: 60 training" in out
    assert f"Tables, heat maps and report: {place}\n" in out
    assert Path(place, "report.md").exists()


@pytest.mark.parametrize(
    "change, argv, says",
    [
        (None, ["--methods", "cosinus"], ["Unknown method 'cosinus'", "'cosine'"]),
        (None, ["--head", "forest"], ["Unknown head"]),
        (None, ["--head", "mlp,deep_mlp"], ["--head takes one", "logistic_regression", "mlp,deep"]),
        (None, ["--parallel-samples", "61"], ["1 .. 60"]),
        (None, ["--parallel-samples", "many"], ["'many'"]),
        (None, ["--seeds", "0"], ["--seeds"]),
        (None, ["--labels", "nowhere.npy"], ["nowhere.npy"]),
        ("labels", [], ["labels.npy"]),
        ("split", [], ["split.npy"]),
        ("few", [], ["at least two encoders"]),
        ("class", [], ["classes [7]", "training"]),
        ("rows", [], ["row counts differ"]),
        ("nan", [], ["turned", "NaN", "row"]),
        ("there", [], ["out", "--force"]),
    ],
)
def test_bad_input(home, capsys, change, argv, says):
    folder = home / "latents"
    if change in ("labels", "split"):
        (folder / f"{change}.npy").unlink()
    elif change == "few":
        (folder / "big.npy").unlink()
        (folder / "small.npy").unlink()
    elif change == "class":
        labels = np.load(folder / "labels.npy")
        labels[-1] = 7
        np.save(folder / "labels.npy", labels)
    elif change == "rows":
        np.save(folder / "big.npy", np.ones((N - 1, 3)))
    elif change == "nan":
        x = np.load(folder / "turned.npy")
        x[4, 2] = np.nan
        np.save(folder / "turned.npy", x)
    elif change == "there":
        (home / "out").mkdir()
    assert main(["stitch", "latents", "-o", "out", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    for part in says:
        assert part in err, err
    assert change == "there" or not (home / "out").exists()


@pytest.mark.slow
def test_labels_and_split_may_have_other_names_in_the_folder(home):
    for name in ("labels", "split"):
        (home / "latents" / f"{name}.npy").rename(home / "latents" / f"my_{name}.npy")
    argv = ["stitch", "latents", "-o", "out", "--methods", "absolute", "--seeds", "1"]
    # Without --parallel-samples: all, of the sixty that there are.
    assert (
        main([*argv, "--labels", "latents/my_labels.npy", "--split", "latents/my_split.npy"]) == 0
    )
    assert {row["encoder"] for row in read("out/pairs.csv")} == set(NAMES)


def test_the_directory_must_be_one(home, capsys):
    assert main(["stitch", "nowhere", "-o", "out"]) == 2
    assert "No such folder: nowhere" in capsys.readouterr().err


def test_summaries_say_what_they_are_means_of():
    accuracy = np.array([[[0.8, 0.6], [0.4, 1.0]], [[0.8, 0.8], [0.2, 1.0]]])
    result = LatentStitching(
        ("a", "b"), accuracy, accuracy, np.arange(2), np.zeros((2, 5)), 5, (), np.arange(3)
    )
    row = summarize(Outcome("x", result), "accuracy")
    assert row.non_stitched_mean == pytest.approx(0.9)
    assert row.non_stitched_std == pytest.approx(0.0)
    assert row.stitched_mean == pytest.approx(0.5)
    assert row.stitched_std == pytest.approx(0.0)
    assert row.stitched_std_over_pairs == pytest.approx(np.std([0.7, 0.3], ddof=1))
    # Head b reads a at 0.7 of its own 1.0, head a reads b at 0.3 of its own 0.8.
    assert row.stitching_index == pytest.approx((0.7 + 0.375) / 2)
    assert (row.num_seeds, row.num_pairs) == (2, 2)


def test_methods_without_parallel_samples_are_run_once():
    jobs = plan(["ridge", "absolute", "product"], [64, None])
    assert jobs == [
        ("absolute", None),
        ("ridge", 64),
        ("product", 64),
        ("ridge", None),
        ("product", None),
    ]
    assert set(METHODS) <= set(REPRESENTATIONS)


def test_letters():
    assert letters("abc") == ["A", "B", "C"]
    assert letters(range(28))[25:] == ["Z", "AA", "AB"]
