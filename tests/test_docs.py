"""The pages under docs/ run, and print what they say."""

import re
import shlex
from pathlib import Path

import pytest

from relrep_jax.experiments import get_experiment
from relrep_jax.experiments.config import check_fields
from relrep_jax.experiments.flags import parse_arguments

DOCS = Path(__file__).resolve().parents[1] / "docs"
NUMBER = re.compile(r"-?\d+\.\d+")


GALLERY = (DOCS / "experiments.md").read_text()
SECTIONS = re.findall(r"^## ([AB]\d+): (.*?)(?=^<a id|\Z)", GALLERY, flags=re.DOTALL | re.MULTILINE)


def test_the_gallery_has_every_experiment():
    names = [name for name, _ in SECTIONS]
    assert names == [f"A{i}" for i in range(1, 11)] + [f"B{i}" for i in range(1, 9)]


@pytest.mark.parametrize("name, text", SECTIONS, ids=lambda part: part if len(part) < 4 else "")
def test_a_section_of_the_gallery_is_whole(name, text):
    commands = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command.replace("\\\n", " "))[1:]
        assert program == "train.py"
        arguments = [a.replace("--config=", f"--config={DOCS.parent}/") for a in arguments]
        # Fields that there are not end here.
        config, _ = parse_arguments(["train.py", *arguments], DOCS / "none.py")
        check_fields(
            config, get_experiment(config).default_config(), ("representations", "optimizer")
        )
    assert re.search(r"^\| :?-", text, flags=re.MULTILINE), "no table"
    assert re.search(r"^Took \d+ s", text, flags=re.MULTILINE), "no time"
    assert "**Verdict: " in text
    images = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert images
    for image in images:
        assert (DOCS / image).is_file(), image


@pytest.mark.slow
@pytest.mark.parametrize("page", ["stitching_latents.md"])
def test_a_page_prints_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text()
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, flags=re.DOTALL)
    assert sum(kind == "text" for kind, _ in blocks) >= 3
    scope = {}
    capsys.readouterr()
    for kind, block in blocks:
        if kind == "python":
            exec(block, scope)
            continue
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed).split() == NUMBER.sub("#", block).split()
        numbers = [[float(n) for n in NUMBER.findall(one)] for one in (printed, block)]
        # Other machines round differently, and training amplifies it.
        assert numbers[0] == pytest.approx(numbers[1], abs=0.05)
    for image in re.findall(r"\]\(images/(\w+\.png)\)", text):
        assert (tmp_path / image).stat().st_size > 10_000
        assert (DOCS / "images" / image).is_file()
