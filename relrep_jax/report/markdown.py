"""The report of a run: a Markdown file that a person reads first."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from relrep_jax._files import atomic_write_text
from relrep_jax.report.tables import Summary, describe, describe_excluded, markdown_table

__all__ = ["environment", "markdown_image", "write_report"]


def markdown_image(
    caption: str,
    image: str | os.PathLike[str],
    *,
    relative_to: str | os.PathLike[str] | None = None,
) -> str:
    """An image in Markdown, with its caption below.

    Args:
        caption: text below the image, which also stands where the image cannot be shown.
        image: path of the image.
        relative_to: folder of the Markdown file; the link is relative to it. If left out, the
            path is linked as it is given.

    Returns:
        The Markdown, without a final line end.
    """
    target = Path(image)
    if relative_to is not None and target.is_absolute():
        target = Path(os.path.relpath(target, Path(relative_to).absolute()))
    alternative = caption.replace("[", "(").replace("]", ")").replace("\n", " ")
    return f"![{alternative}]({quote(target.as_posix())})\n\n*{caption}*"


def environment(*packages: str) -> dict[str, str]:
    """Versions of Python, of this package and of others: what a report says at its end."""
    names = ("relrep_jax", "jax", "numpy", *packages)
    return {"Python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that was put on the path, not installed
        return getattr(import_module(name), "__version__", "unknown")


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    intro: str,
    command: str,
    summaries: Sequence[Summary] = (),
    figures: Sequence[tuple[str, str | os.PathLike[str]]] = (),
    sections: Sequence[tuple[str, str]] = (),
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Writes the report of a run as Markdown.

    From top to bottom: title, what was run, the command that runs it again, a notice of diverged
    seeds, the table of results, the figures, further sections, the environment. Parts without
    content are left out. The same arguments give the same bytes.

    Args:
        path: where the file goes; it is replaced in one step.
        title: heading of the report.
        intro: what was run, in Markdown.
        command: shell command that runs it again.
        summaries: rows of the results table (see `markdown_table`), of which the diverged seeds
            are read too.
        figures: captions and paths of images. Absolute paths are linked relative to the report,
            relative ones are taken to be so already, such as `figures/pairs.png`.
        sections: headings and Markdown texts of further sections.
        versions: names and versions of the environment (packages, Python, device).

    Returns:
        The path.

    Raises:
        ValueError: if the title or the command is empty.
    """
    if not title.strip():
        raise ValueError("a report needs a title, got an empty one")
    if not command.strip():
        raise ValueError("a report needs the command that runs it again, got an empty one")
    folder = Path(path).parent
    blocks = [f"# {title.strip()}", intro.strip()]
    blocks += ["To run it again:", f"```sh\n{command.strip()}\n```"]
    excluded = describe_excluded(summaries)
    if excluded:
        blocks.append(f"> **Diverged seeds.** {excluded}")
    if summaries:
        blocks += ["## Results", markdown_table(summaries).strip(), describe(summaries)]
    if figures:
        blocks.append("## Figures")
        blocks += [markdown_image(caption, image, relative_to=folder) for caption, image in figures]
    for heading, text in sections:
        blocks += [f"## {heading.strip()}", text.strip()]
    if versions:
        blocks += ["## Environment", "| | version |\n| :--- | :--- |\n" + _rows(versions)]
    return atomic_write_text(path, "\n\n".join(block for block in blocks if block) + "\n")


def _rows(versions: Mapping[str, str]) -> str:
    return "\n".join(f"| {name} | {version} |" for name, version in versions.items())
