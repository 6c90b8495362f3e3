"""The README's examples run, and its commands are the ones that CI runs."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_python_examples_run_one_after_another():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) >= 5
    scope = {}
    for block in blocks:
        exec(block, scope)
    assert scope["r"].shape == (1000, 100)
    assert scope["p"].shape == (4, 1000, 100)
    assert scope["y_hat"].shape == scope["y"].shape


def test_what_the_readme_names_exists():
    for path in re.findall(r"`((?:configs|relrep_jax|docs)/[\w/.]+\.\w+)`", README):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    for line in re.findall(r"^python train\.py.*$", README, flags=re.MULTILINE):
        for word in shlex.split(line):
            if word.startswith("--config="):
                assert (ROOT / word.removeprefix("--config=")).is_file(), word


def test_names_in_the_table_of_contents_exist():
    import relrep_jax as rr

    table = README.split("## What is in the box")[1].split("Which maps")[0]
    for module in (
        "similarities",
        "transforms",
        "anchors",
        "aggregation",
        "translation",
        "measures",
        "models",
    ):
        row = next(line for line in table.splitlines() if f"`rr.{module}`" in line)
        names = re.findall(r"`(\w+)`", row.split("|", 2)[2])
        assert names
        for name in names:
            assert hasattr(getattr(rr, module), name) or hasattr(rr, name), (module, name)


def test_ci_runs_the_test_command_of_the_readme():
    command = re.search(r"<!-- test command -->\n```sh\n(.*?)\n```", README).group(1)
    assert "pytest" in command
    assert '"not slow"' in command
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()
