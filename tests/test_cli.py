"""The command line: what it writes and prints, and that bad input ends with one message."""

import json
import os
import re
import subprocess
import sys
from functools import lru_cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest

import relrep_jax as rr
from relrep_jax.cli import COMMANDS, main
from relrep_jax.data import load_latents

N = 60


@lru_cache
def spaces():
    """Two noisy views of the same factors, and noise."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, 4))
    a = z @ rng.normal(size=(4, 6)) + 0.1 * rng.normal(size=(N, 6))
    b = z @ rng.normal(size=(4, 6)) + 0.1 * rng.normal(size=(N, 6))
    return a.astype(np.float32), b.astype(np.float16), rng.normal(size=(N, 3)).astype(np.float32)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder with latents."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    for name, array in zip(("a", "b", "noise"), spaces(), strict=True):
        np.save(f"{name}.npy", array)
    np.save("rows.npy", np.arange(40))
    np.save("anchors.npy", np.array([5, 1, 50, 20]))
    return tmp_path


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def refused(capsys, *argv, says=()):
    """The command ends with code 2 and one message, and writes nothing."""
    before = everything(".")
    capsys.readouterr()
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    for part in says:
        assert part in err, err
    assert everything(".") == before
    return err


def test_help_has_an_example_for_every_command(capsys):
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        out = capsys.readouterr().out
        assert "--force" in out
        assert re.search(rf"^  relrep {name} .*-o", out, re.MULTILINE), out
    for argv in (["--help"], []):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(f"    {name}" in out for name in COMMANDS)


def test_help_and_version_come_without_jax():
    code = (
        "import sys; from relrep_jax.cli import main; "
        "codes = [main(a) for a in (['--help'], ['compare', '--help'], ['--version'])]; "
        "assert codes == [0, 0, 0]; "
        "print([m for m in ('jax', 'numpy', 'matplotlib', 'rich') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] in ("[]", "['numpy']")
    assert f"relrep {rr.__version__}" in found.stdout


@pytest.mark.slow
def test_the_module_is_the_command(home):
    command = [sys.executable, "-m", "relrep_jax"]
    done = subprocess.run(
        [*command, "anchors", "a.npy", "--count", "8", "-o", "idx.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""  # no progress bar where there is no terminal
    assert done.stdout == "idx.npy: 8 of 60 rows by uniform\n"
    bad = subprocess.run([*command, "compare", "gone.npy"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr.startswith("relrep compare: No such file: gone.npy")
    assert bad.stderr.count("\n") == 1


def test_unknown_commands_and_arguments_are_refused(home, capsys):
    refused(capsys, "comapre", says=["Did you mean 'compare'", "translate"])
    refused(capsys, "compare", "a.npy", "b.npy", "--mesures", "rsa", says=["--mesures"])
    refused(capsys, "project", "a.npy", "-o", "r.npy", says=["--anchors", "required"])


BEYOND = ["-1", "4294967296", "99999999999999999999999", "one"]


@pytest.mark.parametrize("seed", BEYOND)
@pytest.mark.parametrize(
    "argv",
    [
        ["anchors", "a.npy", "--count", "3", "-o", "s.npy"],
        ["compare", "a.npy", "b.npy", "--measures", "mean_cosine", "-o", "out"],
        ["translate", "a.npy", "b.npy", "--train", "rows.npy", "--max-rows", "5", "-o", "t.npy"],
    ],
    ids=lambda argv: argv[0],
)
def test_seeds_out_of_range_are_refused_before_any_work(home, capsys, monkeypatch, argv, seed):
    for name in ("load_latents", "load_spaces"):
        monkeypatch.setattr(f"relrep_jax.data.latents.{name}", None)
    refused(capsys, *argv, "--seed", seed, says=["--seed", "0 .. 2**32 - 1", seed])


@pytest.mark.slow
def test_the_greatest_seed_is_taken(home):
    seed = ["--seed", "4294967295"]
    assert main(["anchors", "a.npy", "--count", "3", *seed, "-o", "s.npy"]) == 0
    argv = ["--measures", "mean_cosine", "--permutations", "19", "--max-rows", "9"]
    assert main(["compare", "a.npy", "b.npy", *argv, *seed]) == 0
    argv = ["--train", "rows.npy", "--max-rows", "5", "-o", "t.npy"]
    assert main(["translate", "a.npy", "b.npy", *argv, *seed]) == 0


@pytest.mark.parametrize("place", ["out[/z]", "out[b]x", "out:cat:"])
def test_places_are_printed_as_they_are(home, capsys, place):
    argv = ["--measures", "mean_cosine", "--permutations", "0", "-o", place]
    assert main(["compare", "a.npy", "b.npy", *argv]) == 0
    assert f"Tables, heat maps and report: {place}\n" in capsys.readouterr().out
    assert main(["anchors", "a.npy", "--count", "3", "-o", f"{place}.npy"]) == 0
    assert capsys.readouterr().out.startswith(f"{place}.npy: 3 of")
    assert Path(place, "report.md").exists()


# --- compare -----------------------------------------------------------------------------------


def compare(*argv):
    assert main(["compare", *argv]) == 0


@pytest.mark.slow
def test_compare_writes_tables_pictures_and_a_report(home, capsys):
    argv = ["a.npy", "b.npy", "noise.npy", "-o", "out", "--permutations", "19", "--seed", "3"]
    argv += ["--measures", "mutual_knn,cknna"]
    compare(*argv)
    assert everything("out") == ["measures.csv", "measures.json", "measures.png", "report.md"]
    rows = json.loads(Path("out/measures.json").read_text())
    assert [row["measure"] for row in rows] == ["mutual_knn"] * 3 + ["cknna"] * 3
    text = Path("out/measures.csv").read_text().splitlines()
    assert len(text) == 1 + len(rows)
    assert text[0] == ",".join(rows[0])
    a, b, _ = spaces()
    for row in rows[:2]:
        other = {"b": b, "noise": spaces()[2]}[row["second"]]
        alone = rr.permutation_test(
            row["measure"], a, other.astype(np.float32), jax.random.key(3), 19
        )
        assert row["score"] == pytest.approx(float(alone.score), abs=1e-5)
        assert row["p_value"] == pytest.approx(float(alone.p_value))
        assert row["calibrated"] == pytest.approx(float(alone.calibrated), abs=1e-4)
    assert rows[0]["p_value"] == pytest.approx(0.05)
    assert rows[1]["p_value"] > 0.05
    report = Path("out/report.md").read_text()
    assert f"relrep compare {' '.join(argv)}\n" in report
    assert "all 60 rows" in report
    assert Path("out/measures.png").read_bytes().startswith(b"\x89PNG")
    out, err = capsys.readouterr()
    assert err == ""
    assert "p 0.05" in out
    assert "all 60 rows" in out
    for name in ("Mutual kNN", "CKNNA", "noise"):
        assert name in out


def test_the_fewest_permutations_allowed_can_be_significant(home, capsys):
    compare("a.npy", "b.npy", "-o", "out", "--measures", "linear_cka", "--permutations", "19")
    (row,) = json.loads(Path("out/measures.json").read_text())
    assert row["p_value"] == 0.05


def test_compare_draws_rows_and_says_how_many(home, capsys):
    argv = ["a.npy", "b.npy", "--measures", "mean_cosine", "--permutations", "0"]
    compare(*argv, "--max-rows", "30", "-o", "some")
    assert "30 of 60 rows" in capsys.readouterr().out
    (row,) = json.loads(Path("some/measures.json").read_text())
    assert (row["rows"], row["p_value"], row["permutations"]) == (30, None, 0)
    rows = np.sort(np.random.default_rng(0).choice(60, 30, replace=False))
    a, b = (space[rows].astype(np.float32) for space in spaces()[:2])
    assert row["score"] == pytest.approx(float(rr.measures.mean_cosine(a, b)), abs=1e-6)
    compare(*argv, "--max-rows", "all")
    assert "all 60 rows" in capsys.readouterr().out


@pytest.mark.slow
def test_compare_has_default_measures(home):
    compare("a.npy", "b.npy", "--permutations", "0", "-o", "out")
    rows = json.loads(Path("out/measures.json").read_text())
    assert [row["measure"] for row in rows] == [
        "linear_cka",
        "rbf_cka",
        "rsa",
        "mutual_knn",
        "cknna",
    ]
    for row in rows:
        a, b = (space.astype(np.float32) for space in spaces()[:2])
        assert row["score"] == pytest.approx(float(rr.measures.get(row["measure"])(a, b)), abs=1e-5)


@pytest.mark.slow
def test_compare_takes_folders_and_every_measure_that_fits(home, capsys):
    Path("latents").mkdir()
    for name in ("a", "b", "noise"):
        os.replace(f"{name}.npy", f"latents/{name}.npy")
    np.save("latents/labels.npy", np.zeros(N, int))
    argv = ["compare", "latents", "--measures", "all", "--permutations", "0", "-o", "out"]
    assert main(argv) == 0
    rows = json.loads(Path("out/measures.json").read_text())
    pairs = {name: [] for name in rr.measures.MEASURES}
    for row in rows:
        pairs[row["measure"]].append((row["first"], row["second"]))
    assert pairs["mrr"] == [("a", "b")]
    assert pairs["svcca"] == [("a", "b"), ("a", "noise"), ("b", "noise")]
    assert "mrr for 2 pairs of different widths" in capsys.readouterr().out


def test_names_of_spaces_are_shown_as_they_are(home, capsys):
    names = ["$x^", "$y_{$", "a|b", "[red]"]
    for name in names:
        np.save(f"{name}.npy", spaces()[0])
    argv = ["--measures", "mean_cosine", "--permutations", "0", "-o", "out"]
    compare(*(f"{name}.npy" for name in names), *argv)
    out = capsys.readouterr().out
    assert all(name in out for name in names)
    assert everything("out") == ["measures.csv", "measures.json", "measures.png", "report.md"]
    table = Path("out/report.md").read_text().split("## Spaces")[1]
    assert "| a\\|b | 60 | 6 | float32 |" in table
    bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines() if "float32" in row}
    assert bars == {5}


def test_files_that_differ_in_their_ending_alone_are_called_by_it(home, capsys):
    Path("same").mkdir()
    np.save("same/a.npy", spaces()[0])
    np.savez("same/a.npz", x=spaces()[1])
    compare("same", "--measures", "mean_cosine", "--permutations", "0", "-o", "out")
    (row,) = json.loads(Path("out/measures.json").read_text())
    assert (row["first"], row["second"]) == ("a.npy", "a.npz")
    refused(capsys, "compare", "a.npy", "a.npy", says=["a.npy is named twice"])


def test_compare_refuses_what_cannot_be_compared(home, capsys):
    refused(capsys, "compare", "a.npy", says=["only a was given"])
    refused(capsys, "compare", "a.npy", "gone.npy", says=["No such file: gone.npy"])
    np.save("short.npy", spaces()[0][:9])
    refused(capsys, "compare", "a.npy", "short.npy", says=["a has 60", "short has 9"])
    broken = spaces()[0].copy()
    broken[7] = np.nan
    np.save("nan.npy", broken)
    refused(capsys, "compare", "a.npy", "nan.npy", says=["nan.npy", "rows 7"])
    np.save("object.npy", np.array([[None]]), allow_pickle=True)
    refused(capsys, "compare", "a.npy", "object.npy", says=["object.npy", "run any code"])
    pair = ("compare", "a.npy", "noise.npy")
    refused(capsys, *pair, "--measures", "linear_cca", says=["Did you mean 'linear_cka'", "mrr"])
    refused(capsys, *pair, "--measures", " ,", says=["at least one measure"])
    refused(capsys, *pair, "--measures", "mrr", says=["one width", "a (60, 6)", "noise (60, 3)"])
    refused(capsys, *pair, "--permutations", "-1", says=["--permutations must be at least 0"])
    refused(capsys, *pair, "--permutations", "18", says=["must be 0 or at least 19, got 18"])
    refused(capsys, *pair, "--max-rows", "few", says=["--max-rows", "'few'"])
    refused(capsys, *pair, "--alpha", "1", says=["--alpha"])
    refused(capsys, *pair, "--neighbours", "60", says=["only 60 rows", "--neighbours"])


def test_outputs_are_replaced_only_by_force(home, capsys, monkeypatch):
    argv = ["compare", "a.npy", "b.npy", "--measures", "mean_cosine", "--permutations", "0"]
    argv += ["-o", "out"]
    assert main(argv) == 0
    Path("out/notes.txt").write_text("mine")
    before = Path("out/measures.json").read_bytes()
    monkeypatch.setattr("relrep_jax.data.latents.load_spaces", None)  # refused before any work
    refused(capsys, *argv, says=["out exists", "--force"])
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert main([*argv, "--force", "--max-rows", "20"]) == 0
    assert Path("out/measures.json").read_bytes() != before
    assert Path("out/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "output, says",
    [
        ("n" * 245, "too long"),
        ("a.npy/out", "a.npy is not a folder"),
        pytest.param(
            "/proc/out/x",
            "/proc",
            marks=pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc"),
        ),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    home, capsys, monkeypatch, output, says
):
    monkeypatch.setattr("relrep_jax.data.latents.load_spaces", None)
    refused(capsys, "compare", "a.npy", "b.npy", "-o", output, says=["cannot be written", says])


def test_nothing_is_left_of_a_comparison_that_fails(home, capsys, monkeypatch):
    argv = ["compare", "a.npy", "b.npy", "--measures", "mean_cosine", "--permutations", "0"]

    def fail(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("relrep_jax.report.markdown.write_report", fail)
    refused(capsys, *argv, "-o", "out", says=["no space left"])


@pytest.mark.skipif(
    not Path(os.environ.get("RELREP_DATA_DIR", "/nowhere"), "latents", "trec").is_dir(),
    reason="set RELREP_DATA_DIR to a folder that holds latents/trec",
)
@pytest.mark.slow
def test_compare_of_real_encoders_finds_them_alike(tmp_path):
    folder = Path(os.environ["RELREP_DATA_DIR"], "latents", "trec")
    compare(str(folder), "-o", str(tmp_path / "out"), "--max-rows", "400", "--permutations", "99")
    rows = json.loads((tmp_path / "out" / "measures.json").read_text())
    assert len(rows) == 10 * 5
    assert all(row["p_value"] == pytest.approx(0.01) for row in rows)


# --- project -----------------------------------------------------------------------------------


def relative(similarity="cosine", **options):
    a = spaces()[0]
    return np.asarray(rr.relative_projection(a, a[[5, 1, 50, 20]], similarity, **options))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_project_writes_relative_spaces_block_by_block(home, capsys, monkeypatch, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    monkeypatch.setattr("relrep_jax.cli.project._BLOCK_ENTRIES", 1)  # blocks of 256 rows
    long = np.tile(spaces()[0], (10, 1))
    np.save("long.npy", long)
    argv = ["project", "long.npy", "--anchors", "anchors.npy", "--absolute-transform", "centering"]
    assert main([*argv, "-o", f"r{suffix}"]) == 0
    assert "[600, 4] float32" in capsys.readouterr().out
    expected = np.tile(relative(absolute_transform="centering"), (10, 1))
    np.testing.assert_allclose(load_latents(f"r{suffix}").array, expected, atol=1e-5)


@pytest.mark.slow
def test_project_writes_products(home):
    argv = ["project", "a.npy", "--anchors", "anchors.npy", "--similarity", "cosine,euclidean"]
    for name in ("p.npy", "p.npz"):
        assert main([*argv, "--relative-transform", "standard_scaling", "-o", name]) == 0
    expected = [
        relative(name, relative_transform="standard_scaling") for name in ("cosine", "euclidean")
    ]
    np.testing.assert_allclose(np.load("p.npy"), expected, atol=1e-5)
    for key, array in zip(("cosine", "euclidean"), expected, strict=True):
        np.testing.assert_allclose(load_latents(f"p.npz:{key}").array, array, atol=1e-5)


@pytest.mark.slow
def test_project_takes_vectors_statistics_and_narrow_types(home):
    np.save("vectors.npy", spaces()[0][[5, 1, 50, 20]])
    argv = ["project", "a.npy", "--anchor-vectors", "vectors.npy"]
    assert main([*argv, "--similarity", "mahalanobis", "-o", "m.npy", "--dtype", "float16"]) == 0
    mean, precision = rr.similarities.covariance_statistics(spaces()[0])
    expected = relative(partial(rr.similarities.mahalanobis, precision=precision))
    found = np.load("m.npy")
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    assert main([*argv, "--similarity", "whitened_inner", "-o", "w.npy"]) == 0
    whitened = partial(rr.similarities.whitened_inner, mean=mean, precision=precision)
    np.testing.assert_allclose(np.load("w.npy"), relative(whitened), atol=1e-4)


def test_project_refuses_what_does_not_fit(home, capsys):
    argv = ["project", "a.npy", "-o", "r.npy"]
    rows = [*argv, "--anchors", "anchors.npy"]
    refused(capsys, *rows, "--similarity", "cosnie", says=["Did you mean 'cosine'", "mahalanobis"])
    refused(capsys, *rows, "--absolute-transform", "centring", says=["Did you mean 'centering'"])
    refused(capsys, *argv, "--anchors", "gone.npy", says=["No such file: gone.npy"])
    np.save("far.npy", np.array([3, 60]))
    refused(capsys, *argv, "--anchors", "far.npy", says=["far.npy", "60", "0 to 59"])
    np.save("pairs.npy", np.zeros((3, 2), int))
    refused(capsys, *argv, "--anchors", "pairs.npy", says=["pairs.npy", "(3, 2)"])
    refused(capsys, *argv, "--anchor-vectors", "noise.npy", says=["same width", "(60, 3)"])
    refused(capsys, *rows[:2], "--anchors", "anchors.npy", "-o", "r.txt", says=[".npy or .npz"])
    np.save("huge.npy", spaces()[0] * 1e4)
    huge = ["project", "huge.npy", "--anchors", "anchors.npy", "--similarity", "inner"]
    refused(capsys, *huge, "--dtype", "float16", "-o", "h.npy", says=["row 0", "float32"])
    Path("r.npy").write_bytes(b"mine")
    refused(capsys, *rows, says=["r.npy exists", "--force"])
    assert Path("r.npy").read_bytes() == b"mine"
    assert main([*rows, "--force"]) == 0
    assert np.load("r.npy").shape == (60, 4)


# --- translate ---------------------------------------------------------------------------------


def test_translate_fits_on_training_rows_and_scores_the_others(home, capsys):
    argv = ["translate", "a.npy", "b.npy", "--train", "rows.npy"]
    assert main([*argv, "--method", "ridge", "--penalty", "0.5", "-o", "t.npy"]) == 0
    a, b = (space.astype(np.float32) for space in spaces()[:2])
    params = rr.translation.ridge.fit(a[:40], b[:40], penalty=0.5)
    expected = np.asarray(rr.translation.ridge.apply(params, a))
    np.testing.assert_allclose(np.load("t.npy"), expected, atol=1e-4)
    out = capsys.readouterr().out
    assert "ridge fitted on 40 rows" in out
    assert "On 20 rows that were not fitted on" in out
    error = np.linalg.norm(expected[40:] - b[40:]) / np.linalg.norm(b[40:] - b[40:].mean(0))
    assert re.search(rf"relative error +{error:.3f}", out)
    mrr = float(rr.measures.mrr(expected[40:], b[40:]))
    assert re.search(rf"MRR@10 +{mrr:.3f}", out)
    for name in ("mean cosine", "top-1 retrieval"):
        assert name in out


def test_translate_takes_pairs_between_files_of_different_length(home, capsys):
    order = np.random.default_rng(1).permutation(60)[:50]
    np.save("shuffled.npy", spaces()[1][order])
    np.save("pairs.npy", np.stack([order[:40], np.arange(40)], axis=1))
    np.save("rest.npy", np.stack([order[40:], np.arange(40, 50)], axis=1))
    argv = ["translate", "a.npy", "shuffled.npy", "--train", "pairs.npy"]
    assert main([*argv, "-o", "t.npy"]) == 0
    assert np.load("t.npy").shape == (60, 6)
    out = capsys.readouterr().out
    assert "40 pairs" in out
    assert "--test" in out
    assert main([*argv, "-o", "u.npy", "--test", "rest.npy", "--max-rows", "8"]) == 0
    assert "On 8 of 10 rows of --test" in capsys.readouterr().out
    refused(capsys, *argv[:-1], "rows.npy", "-o", "v.npy", says=["60 rows", "has 50", "pairs"])


def test_translate_refuses_what_does_not_fit(home, capsys):
    argv = ["translate", "a.npy", "b.npy", "--train", "rows.npy", "-o", "t.npy"]
    refused(capsys, *argv, "--method", "rigde", says=["Did you mean 'ridge'", "inverse_relative"])
    refused(capsys, *argv, "--rank", "3", says=["--rank", "low_rank and cca", "orthogonal"])
    refused(
        capsys,
        *argv,
        "--method",
        "low_rank",
        "--rank",
        "9",
        says=["a.npy", "rank", "between 1 and 6"],
    )
    refused(capsys, *argv, "--method", "cca", "--penalty", "1", says=["--penalty", "ridge"])
    refused(capsys, *argv, "--method", "ridge", "--penalty", "nan", says=["--penalty", "float32"])
    refused(capsys, *argv, "--test", "gone.npy", says=["gone.npy"])
    Path("t.npy").write_bytes(b"mine")
    refused(capsys, *argv, says=["t.npy exists"])
    assert Path("t.npy").read_bytes() == b"mine"


def test_translate_says_that_scores_take_two_rows(home, capsys):
    np.save("one.npy", np.array([50]))
    np.save("most.npy", np.arange(N - 1))
    np.save("all.npy", np.arange(N))
    argv = ["translate", "a.npy", "b.npy", "-o", "t.npy", "--force", "--train"]
    for more, says in (
        (["rows.npy", "--test", "one.npy"], "--test names one row; scores take two or more."),
        (["most.npy"], "One row is left to score the map on, and scores take two or more"),
        (["all.npy"], "No rows are left to score the map on"),
    ):
        assert main([*argv, *more]) == 0
        assert says in capsys.readouterr().out


@pytest.mark.parametrize("penalty", ["1e300", "1e39", "-1", "1e-50", "inf", "nan"])
def test_translate_refuses_penalties_beyond_float32(home, capsys, monkeypatch, penalty):
    monkeypatch.setattr("relrep_jax.data.latents.load_latents", None)  # before any work
    argv = ["translate", "a.npy", "b.npy", "--train", "rows.npy", "-o", "t.npy"]
    says = ["--penalty must be 0 or a number that float32 can hold"]
    refused(capsys, *argv, "--method", "ridge", "--penalty", penalty, says=says)


@pytest.mark.parametrize("penalty", ["3.4e38", "1.2e-38", "0"])
def test_translate_takes_every_penalty_of_float32(home, penalty):
    argv = ["translate", "a.npy", "b.npy", "--train", "rows.npy", "-o", "t.npy"]
    assert main([*argv, "--method", "ridge", "--penalty", penalty]) == 0
    assert np.isfinite(np.load("t.npy")).all()


# --- anchors -----------------------------------------------------------------------------------

METHODS = {
    "uniform": [],
    "stratified": ["--labels", "labels.npy"],
    "fps": ["--start", "7"],
    "kmeans": [],
    "greedy": [],
    "top": ["--top", "20"],
}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=() if name == "stratified" else pytest.mark.slow)
        for name in METHODS
    ],
)
def test_anchors_are_rows_of_the_latents(home, capsys, method):
    np.save("labels.npy", np.arange(N) % 4)
    np.save("among.npy", np.arange(0, 60, 2) + 1)
    argv = ["anchors", "a.npy", "--method", method, "--count", "8", *METHODS[method]]
    for extra in ([], ["--among", "among.npy"]):
        assert main([*argv, *extra, "-o", "idx.npy", "--force"]) == 0
        rows = np.load("idx.npy")
        assert rows.dtype == np.int64
        assert len(np.unique(rows)) == 8
        assert (rows % 2 == 1).all() or not extra
    assert f"8 of 30 rows by {method}" in capsys.readouterr().out
    assert main([*argv, "-o", "idx.txt"]) == 0
    assert main([*argv, "-o", "again.npy"]) == 0
    np.testing.assert_array_equal(np.loadtxt("idx.txt", dtype=int), np.load("again.npy"))
    if method == "stratified":
        assert np.bincount(np.load("again.npy") % 4).tolist() == [2, 2, 2, 2]
    if method == "fps":
        assert np.load("again.npy")[0] == 7
    if method == "top":
        assert np.load("again.npy").max() < 20


def test_anchors_refuse_what_does_not_fit(home, capsys):
    argv = ["anchors", "a.npy", "-o", "idx.npy"]
    refused(capsys, *argv, "--method", "kmens", says=["Did you mean 'kmeans'", "fps"])
    refused(capsys, *argv, "--count", "61", says=["--count for a.npy", "61", "60 samples"])
    refused(capsys, *argv, "--count", "0", says=["--count must be at least 1"])
    refused(capsys, *argv, "--method", "stratified", says=["needs --labels"])
    refused(capsys, *argv, "--method", "top", says=["needs --top"])
    refused(capsys, *argv, "--start", "3", says=["--start", "fps", "uniform"])
    fps = [*argv, "--count", "8", "--method", "fps"]
    refused(capsys, *fps, "--start", "60", says=["--start is 60"])
    np.save("twice.npy", np.array([3, 3, 4]))
    refused(capsys, *argv, "--among", "twice.npy", says=["twice.npy", "more than once"])
    np.save("labels.npy", np.zeros(9, int))
    labels = ["--method", "stratified", "--labels", "labels.npy", "--count", "4"]
    refused(capsys, *argv, *labels, says=["9 labels", "60 rows"])
    refused(capsys, *argv[:2], "-o", "idx.csv", says=[".npy or .txt"])
