"""Several finished runs on one page."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from relrep_jax._files import atomic_write_text

__all__ = ["find_reports", "gather"]

REPORT = "report.md"
"""What a finished run is known by."""

_HEADING = re.compile(r"#{1,5} ")
_IMAGE = re.compile(r"(!\[[^\]]*\]\()([^)]+)(\))")


def find_reports(
    folders: Sequence[str | os.PathLike[str]], leave_out: Path | None = None
) -> list[Path]:
    """The reports of finished runs.

    Args:
        folders: workdirs of runs, or folders of such, searched to any depth.
        leave_out: a file that is no report, such as the page that they will be gathered on.

    Returns:
        The path of each report once: in the order of `folders`, inside a folder by name.

    Raises:
        ValueError: a folder that is missing, is a file, or holds no finished run.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            kind = "is a file" if folder.exists() else "does not exist"
            raise ValueError(
                f"{folder} {kind}; name the workdir of a run, or a folder of workdirs."
            )
        here = folder / REPORT
        reports = sorted(folder.rglob(REPORT))
        if leave_out is not None:
            reports = [one for one in reports if one.resolve() != leave_out.resolve()]
        # What lies below a run belongs to it.
        reports = [here] if here in reports else reports
        if not reports:
            raise ValueError(
                f"{folder} holds no finished run: there is no {REPORT} in it. A run writes it at "
                "its end; start a stopped one again with the same --workdir."
            )
        found.update((report.resolve(), None) for report in reports)
    return list(found)


def gather(
    path: str | os.PathLike[str], reports: Sequence[Path], *, title: str = "Experiments"
) -> Path:
    """Write one page with all reports, and a list of them at its top.

    Args:
        path: of the page. Pictures are linked where they lie, relative to it.
        reports: Markdown files, as `find_reports` gives them.
        title: of the page.

    Returns:
        The path.

    Raises:
        ValueError: no reports.
    """
    if not reports:
        raise ValueError("there are no reports to gather")
    page = Path(path).absolute()
    titles, parts = [], []
    for number, report in enumerate(reports, 1):
        heading, body = _read(report, page.parent)
        titles.append(f"{number}. [{heading}](#run-{number})")
        where = quote(Path(os.path.relpath(report, page.parent)).as_posix())
        parts.append(
            f'<a id="run-{number}"></a>\n\n## {heading}\n\nFrom [{where}]({where}).\n\n{body}'
        )
    text = "\n\n".join([f"# {title}", "\n".join(titles), *parts])
    return atomic_write_text(path, text + "\n")


def _read(report: Path, folder: Path) -> tuple[str, str]:
    """Title and text of a report, its headings one level lower, its pictures seen from `folder`."""
    try:
        lines = report.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{report} is not a text file in UTF-8: {error}.") from error
    title, is_code, body = report.parent.name, False, []

    def moved(match: re.Match[str]) -> str:
        target = unquote(match[2])
        if "://" in target:
            return match[0]
        target = os.path.relpath(report.parent / target, folder)
        return f"{match[1]}{quote(Path(target).as_posix())}{match[3]}"

    for line in lines:
        is_code ^= line.startswith("```")
        if is_code:
            body.append(line)
        elif line.startswith("# ") and not any(body):
            title = line[2:].strip()
        elif _HEADING.match(line):
            body.append("#" + line)
        else:
            body.append(_IMAGE.sub(moved, line))
    return title, "\n".join(body).strip()
