"""The pages under docs/ run, and print what they say."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
NUMBER = re.compile(r"-?\d+\.\d+")


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
