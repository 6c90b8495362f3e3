"""Every experiment of both papers runs from its config, in small."""

import importlib.util
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(ROOT.glob("configs/*/*.py"))


def train(*arguments):
    spec = importlib.util.spec_from_file_location("train", ROOT / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(["train.py", *map(str, arguments)])


def test_there_are_configs_of_both_papers():
    assert {path.parent.name for path in CONFIGS} == {
        "product_of_invariances",
        "relative_representations",
    }


def test_a_small_run_says_what_it_cut(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("relrep_jax.experiments.word_embeddings.run", lambda *_, **__: None)
    config = ROOT / "configs" / "relative_representations" / "word_embeddings.py"
    given = ["--config.scale=smoke", "--config.seeds.count=3", "--config.anchors.count=20"]
    assert train(f"--config={config}", *given, f"--workdir={tmp_path / 'run'}") == 0
    said = capsys.readouterr().out
    assert "config.seeds.count: 3 -> 2" in said
    assert "anchors.count" not in said


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_smokes(path, tmp_path):
    workdir = tmp_path / "run"
    start = time.monotonic()
    assert train(f"--config={path}", "--config.scale=smoke", f"--workdir={workdir}") == 0
    print(f"{path.stem}: {time.monotonic() - start:.0f} s")
    report = (workdir / "report.md").read_text()
    assert "| " in report
    assert list((workdir / "tables").glob("*.csv"))
    # The smoke form runs on embedded data, beside which a paper's figures mean nothing.
    assert "## Published" not in report
