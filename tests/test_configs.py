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
