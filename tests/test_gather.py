"""Finished runs on one page, from Python and from the command line."""

from pathlib import Path

import pytest

from relrep_jax import report
from relrep_jax.cli import main
from relrep_jax.report.gather import find_reports, gather


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two finished runs and an unfinished one."""
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        folder = Path("runs") / name
        (folder / "figures").mkdir(parents=True)
        (folder / "figures" / "a b.png").write_bytes(b"picture")
        report.write_report(
            folder / "report.md",
            title=f"The {name} run",
            intro="What was run.",
            command="python train.py  # a comment",
            figures=[("A picture (of [something]).", "figures/a b.png")],
            sections=[("Numbers", "| a |\n| ---: |\n| 1 |")],
        )
    (Path("runs") / "third").mkdir()
    return tmp_path


def test_the_page_has_every_run_with_its_tables_and_pictures(runs, capsys):
    assert main(["report", "runs", "-o", "pages/all.md", "--title", "Two runs"]) == 0
    assert "2 runs" in capsys.readouterr().out
    text = Path("pages/all.md").read_text()
    assert text.startswith("# Two runs\n")
    assert text.index("## The first run") < text.index("## The second run")
    assert "### Numbers" in text
    assert "\npython train.py  # a comment\n" in text
    assert text.count("| ---: |") == 2
    assert "(../runs/second/figures/a%20b.png)" in text
    for number in (1, 2):
        assert f"(#run-{number})" in text
        assert f'<a id="run-{number}"></a>' in text


def test_a_run_named_twice_is_shown_once(runs):
    assert len(find_reports(["runs/second", "runs", "runs/first"])) == 2
    assert find_reports(["runs/second", "runs"])[0].parent.name == "second"


def test_the_page_itself_is_no_run(runs):
    for _ in range(2):
        assert main(["report", "runs", "-o", "runs/report.md", "--force"]) == 0
    assert Path("runs/report.md").read_text().count("## The first run") == 1


@pytest.mark.parametrize(
    "argv, says",
    [
        (["runs/third"], "holds no finished run"),
        (["gone"], "does not exist"),
        (["runs/first/report.md"], "is a file"),
        (["runs", "-o", "page.html"], "ends in .md"),
    ],
)
def test_what_cannot_be_gathered_is_refused(runs, capsys, argv, says):
    assert main(["report", *argv, *([] if "-o" in argv else ["-o", "page.md"])]) == 2
    assert says in capsys.readouterr().err
    assert not Path("page.md").exists()


def test_nothing_to_gather(tmp_path):
    with pytest.raises(ValueError, match="no reports"):
        gather(tmp_path / "page.md", [])
