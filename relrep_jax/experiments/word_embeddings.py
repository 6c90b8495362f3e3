"""Two word embeddings in one relative space: experiment A2.

Moschella et al. 2023 (arXiv 2209.15430), section 4.1 and Table 1: two spaces of vectors of the same
words, made by different methods on different texts, have nothing in common as they are; relative to
the same anchor words, a word finds its counterpart and its neighbours in the other space.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relrep_jax import anchors as anchor_choice
from relrep_jax import measures, report, transforms, translation
from relrep_jax.checks import lookup
from relrep_jax.data.base import DatasetError, opening
from relrep_jax.data.latents import TRAIN_PART, load_folder, load_latents
from relrep_jax.data.views import digit_views
from relrep_jax.experiments.anchor_choices import CHOICES
from relrep_jax.experiments.config import ConfigError, check_at_least, check_fields, cut_to_scale
from relrep_jax.projection import relative_projection
from relrep_jax.similarities import cosine

CLUSTERS = "figures/neighbourhoods.png"
METRICS = ("jaccard", "mrr", "cosine")
COLUMNS = ("anchors", "seed", "source", "target", "metric", "value")
SUMMARY_COLUMNS = ("anchors", "source", "target", "metric", "mean", "std", "num_seeds")

PUBLISHED = (
    "Published, for fastText and word2vec with k = 10 and other words, so that figures are not "
    "comparable: relative spaces Jaccard 0.34–0.39, MRR 0.94–0.98, cosine 0.86; absolute ones "
    "0.00, 0.00 and 0.01."
)


SMOKE = {"seeds": {"count": 2}, "anchors": {"count": 50}}
"""The largest values at the scale `smoke`."""


def default_config() -> ConfigDict:
    """Every field of this experiment."""
    config = ConfigDict()
    config.experiment = "word_embeddings"
    # full | smoke: at most 2 seeds and 50 anchors, to see it run.
    config.scale = "full"

    config.data = ConfigDict()
    # A folder with two files of vectors [words, d], row i the same word in both, most frequent
    # first, and perhaps vocabulary.txt. Without any file: two views of the embedded digits
    # (pixels and frequencies), which are no words.
    config.data.path = ""
    # Or the two files themselves.
    config.data.source = ""
    config.data.target = ""
    # A text file with the words, row i on line i, to show some in a figure; empty: that of the
    # folder, if it has one.
    config.data.vocabulary = ""
    # Only the first so many words; 0: all.
    config.data.limit = 0

    config.anchors = ConfigDict()
    config.anchors.count = 300
    # uniform | farthest_point | kmeans | top_N: uniform among the N most frequent words, such as
    # top_5000 and top_10000 of the paper where there are as many.
    config.anchors.choices = ("uniform", "farthest_point", "kmeans", "top_1000")
    # A transform of both spaces fitted on the anchors, such as centering; empty: none.
    config.anchors.absolute_transform = ""

    # Names of relrep_jax.translation that are shown beside: maps from one space to the other,
    # fitted on the first choice's anchors.
    config.translations = ("orthogonal", "ridge")

    config.seeds = ConfigDict()
    config.seeds.count = 10
    config.seeds.first = 0

    # How many neighbours Jaccard@k and MRR@k look at.
    config.neighbours = 10

    config.clusters = ConfigDict()
    # The figure shows so many neighbours of each of these words; unknown words are left out.
    config.clusters.words = ("school", "ferrari", "water", "martial")
    config.clusters.size = 200
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What `prepare` found to be fit to run."""

    config: ConfigDict
    names: tuple[str, str]
    spaces: tuple[np.ndarray, np.ndarray]
    is_embedded: bool
    clusters: dict[str, int]
    """Rows of the words whose neighbours are shown."""


def prepare(config: ConfigDict) -> Job:
    """Read the data and find every fault of the config.

    Raises:
        ConfigError: a field that is unknown or out of range.
        ValueError: files that cannot be read or do not fit together.
    """
    check_fields(config, default_config())
    config = cut_to_scale(config, SMOKE)
    check_at_least(
        config,
        {
            "anchors.count": 1,
            "seeds.count": 1,
            "neighbours": 1,
            "clusters.size": 1,
            "data.limit": 0,
            "seeds.first": 0,
        },
    )
    for name in config.translations:
        lookup("translation", name, translation.TRANSLATIONS)
    if bool(config.data.source) != bool(config.data.target):
        raise ConfigError("Set both config.data.source and config.data.target, or none of them.")
    if config.data.path and config.data.source:
        raise ConfigError("Set config.data.path, or config.data.source and config.data.target.")
    is_embedded = not (config.data.path or config.data.source)
    if is_embedded and config.data.vocabulary:
        raise ConfigError("config.data.vocabulary has the words of vectors: name their files too.")
    if config.data.path:
        found = load_folder(config.data.path)
        if len(found) != 2:
            raise ConfigError(
                f"config.data.path: {config.data.path} holds {len(found)} files of vectors "
                f"({', '.join(found)}). Name two with config.data.source and config.data.target."
            )
        names, spaces = tuple(found), tuple(found.values())
    elif config.data.source:
        source, target = load_latents(config.data.source), load_latents(config.data.target)
        names, spaces = (source.name, target.name), (source.array, target.array)
    else:
        digits = digit_views("pixels", "frequencies")
        names = tuple(digits.spaces)
        train = digits.split == TRAIN_PART
        spaces = tuple(space[train] for space in digits.spaces.values())
    if len(spaces[0]) != len(spaces[1]):
        raise ConfigError(
            f"Row i must be the same word in both files, but {names[0]} has {len(spaces[0])} rows "
            f"and {names[1]} has {len(spaces[1])}."
        )
    num_rows = len(spaces[0])
    limit = config.data.limit or num_rows
    spaces = tuple(np.asarray(space[:limit], np.float32) for space in spaces)
    words = len(spaces[0])
    anchor_choice.check_num_anchors(words, config.anchors.count)
    if config.neighbours >= words:
        raise ConfigError(f"config.neighbours must be below {words}, the number of words.")
    if config.anchors.absolute_transform:
        transforms.get(config.anchors.absolute_transform)
    if not config.anchors.choices:
        raise ConfigError("config.anchors.choices is empty: name at least one, such as 'uniform'.")
    for choice in config.anchors.choices:
        top = _top(choice)
        if top and not config.anchors.count <= top <= words:
            raise ConfigError(
                f"{choice} must lie between config.anchors.count ({config.anchors.count}) and the "
                f"number of words ({words})."
            )
        if not top:
            lookup("choice of anchors", choice, CHOICES)
    vocabulary = config.data.vocabulary
    if config.data.path and not vocabulary:
        beside = Path(config.data.path) / "vocabulary.txt"
        vocabulary = str(beside) if beside.exists() else ""
    if is_embedded:
        classes = digits.labels[train][:words].tolist()
        clusters = {
            f"a {digit}": classes.index(digit) for digit in (0, 1, 4, 7) if digit in classes
        }
    elif vocabulary:
        clusters = _rows_of_words(config, Path(vocabulary), num_rows, words)
    else:
        clusters = {}
    return Job(config, names, spaces, is_embedded, clusters)


def _rows_of_words(config: ConfigDict, file: Path, num_rows: int, count: int) -> dict[str, int]:
    """The words of the figure that are among the first `count` of `num_rows`, with their rows.

    Raises:
        ConfigError: the file has more or fewer lines than there are rows, or none of the words.
        DatasetError: the file cannot be read as text.
    """
    try:
        with opening(file):
            text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not a text file in UTF-8: {error}.") from error
    # Not splitlines: words may hold the rarer characters that it takes for ends of lines.
    vocabulary = text.removesuffix("\n").replace("\r\n", "\n").removesuffix("\r").split("\n")
    if len(vocabulary) != num_rows:
        raise ConfigError(
            f"config.data.vocabulary: {file} has {len(vocabulary)} lines, but there are "
            f"{num_rows} vectors: line i is the word of row i."
        )
    vocabulary = vocabulary[:count]
    rows = {word: row for row, word in reversed(list(enumerate(vocabulary)))}
    found = {word: rows[word] for word in config.clusters.words if word in rows}
    if not found:
        raise ConfigError(
            f"None of config.clusters.words {tuple(config.clusters.words)} is in {file}, whose "
            f"words are such as {', '.join(repr(word) for word in vocabulary[:3])}."
        )
    return found


def _top(choice: str) -> int:
    """N of `top_N`, or 0 for anything else."""
    head, _, number = choice.partition("_")
    return int(number) if head == "top" and number.isdecimal() else 0


def _choose(choice: str, key: jax.Array, x: jax.Array, count: int) -> jax.Array:
    if top := _top(choice):
        return anchor_choice.top_frequency(key, x.shape[0], count, top)
    return CHOICES[choice](key, x, count)


def _translate(name: str, x: jax.Array, y: jax.Array, indices: jax.Array) -> jax.Array:
    """All rows of `x` in the space of `y`, by a map that was fitted on some."""
    translator = translation.get(name)
    return translator.apply(translator.fit(x[indices], y[indices]), x)


def score(source: jax.Array, target: jax.Array, k: int) -> dict[str, jax.Array]:
    """The three metrics of two spaces `[n, m]` with the same axes."""
    return {
        "jaccard": measures.jaccard(source, target, k),
        "mrr": measures.mrr(source, target, k),
        "cosine": measures.mean_cosine(source, target),
    }


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Score all choices of anchors; write tables, a figure and the report.

    Returns:
        The report's path.
    """
    config, k = job.config, job.config.neighbours
    spaces = jax.device_put(job.spaces)
    seeds = range(config.seeds.first, config.seeds.first + config.seeds.count)
    rows: list[tuple] = []

    @jax.jit
    def relative(space, indices):
        transform = config.anchors.absolute_transform or None
        return relative_projection(space, space[indices], "cosine", transform)

    scored = jax.jit(score, static_argnums=2)

    def add(choice: str, seed: int | str, first: jax.Array, second: jax.Array) -> None:
        for names, pair in ((job.names, (first, second)), (job.names[::-1], (second, first))):
            for metric, value in scored(*pair, k).items():
                rows.append((choice, seed, *names, metric, float(value)))

    def add_translations(seed: int, indices: jax.Array) -> None:
        for name in config.translations:
            map_all = jax.jit(partial(_translate, name))
            for i, j in ((0, 1), (1, 0)):
                mapped = map_all(spaces[i], spaces[j], indices)
                for metric, value in scored(mapped, spaces[j], k).items():
                    rows.append((name, seed, job.names[i], job.names[j], metric, float(value)))

    width = min(space.shape[1] for space in spaces)
    jobs = 1 + (len(config.anchors.choices) + bool(config.translations)) * len(seeds)
    with report.progress(console, "absolute", jobs) as advance:
        # Of different widths, only the features that both have can be compared at all.
        add("absolute", 0, *(space[:, :width] for space in spaces))
        advance()
        for choice in config.anchors.choices:
            choose = jax.jit(
                lambda key, x, choice=choice: _choose(choice, key, x, config.anchors.count)
            )
            for seed in seeds:
                indices = choose(jax.random.key(seed), spaces[0])
                add(choice, seed, *(relative(space, indices) for space in spaces))
                advance(what=choice)

        choice = config.anchors.choices[0]
        for seed in seeds if config.translations else ():
            indices = _choose(choice, jax.random.key(seed), spaces[0], config.anchors.count)
            add_translations(seed, indices)
            advance(what="translations")

    if job.clusters:
        indices = _choose(choice, jax.random.key(seeds[0]), spaces[0], config.anchors.count)
        _draw_clusters(job, [relative(space, indices) for space in spaces], workdir)
    summary = summarize(rows)
    report.write_csv(workdir / "tables" / "scores.csv", COLUMNS, rows)
    report.write_json(workdir / "tables" / "scores.json", COLUMNS, rows)
    report.write_csv(workdir / "tables" / "summary.csv", SUMMARY_COLUMNS, summary)
    console.print(terminal_table(job, summary))
    sheet = comparison_sheet(rows, [*config.anchors.choices, *config.translations])
    path = _write_report(job, workdir, summary, sheet, command)
    console.print(f"Tables and report: {workdir}", highlight=False)
    return path


def neighbourhoods(space: jax.Array, rows: Sequence[int], size: int) -> tuple[jax.Array, jax.Array]:
    """The rows most similar to some rows, by cosine; a row near to several belongs to the nearest.

    Args:
        space: latents `[n, d]`.
        rows: `[k]` rows whose neighbours are asked for.
        size: how many neighbours of each, itself included.

    Returns:
        Rows `[j]` with `j <= k * size`, ascending, and the position in `rows` of each, `[j]`.
    """
    near = cosine(space[jnp.asarray(rows)], space)
    size = min(size, space.shape[0])
    members = jnp.unique(jax.lax.top_k(near, size)[1])
    return members, near[:, members].argmax(axis=0)


def _draw_clusters(job: Job, relative: list[jax.Array], workdir: Path) -> None:
    """The same words in both absolute and both relative spaces, in the first one's principal plane.

    Of absolute spaces, as in the tables, as many of the first features as both have.
    """
    source = jnp.asarray(job.spaces[0])
    members, owners = neighbourhoods(source, [*job.clusters.values()], job.config.clusters.size)
    members, owners = np.asarray(members), np.asarray(owners)
    width = min(space.shape[1] for space in job.spaces)
    rows = {
        "absolute": [np.asarray(space)[members, :width] for space in job.spaces],
        "relative": [np.asarray(space)[members] for space in relative],
    }
    # To one size: how far words of one embedding lie from one another says nothing here.
    shown = {
        name: [plane / (plane.std() or 1.0) for plane in report.project_jointly(pair)]
        for name, pair in rows.items()
    }
    names = [word for i, word in enumerate(job.clusters) if i in owners]
    figure = report.latent_spaces(shown, owners, names, seed_names=job.names)
    report.save(figure, workdir / CLUSTERS)


def _clusters_caption(job: Job) -> str:
    config = job.config
    what = "samples" if job.is_embedded else "words"
    left_out = (
        [] if job.is_embedded else [w for w in config.clusters.words if w not in job.clusters]
    )
    widths = sorted(space.shape[1] for space in job.spaces)
    size = min(config.clusters.size, len(job.spaces[0]))
    return (
        f"The {size} {what} nearest to each of {', '.join(job.clusters)} in "
        f"{job.names[0]}, and the same {what} in {job.names[1]}: as they are and relative to "
        f"{config.anchors.count} {config.anchors.choices[0]} anchors, by the principal axes of "
        "the first space"
        f"{f' (absolute: of its first {widths[0]} features)' if widths[0] < widths[1] else ''}, "
        "brought to one size."
        + (f" Not among the words: {', '.join(left_out)}." if left_out else "")
    )


def summarize(rows: list[tuple]) -> list[tuple]:
    """Mean and standard deviation over seeds (see `SUMMARY_COLUMNS`)."""
    groups: dict[tuple, list[float]] = {}
    for choice, _, source, target, metric, value in rows:
        groups.setdefault((choice, source, target, metric), []).append(value)
    return [
        (
            *group,
            float(np.mean(values)),
            float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
            len(values),
        )
        for group, values in groups.items()
    ]


def _cells(job: Job, summary: list[tuple]) -> tuple[list[str], list[list[str]]]:
    """A row for each choice, three columns for each direction: the layout of Table 1."""
    k = job.config.neighbours
    directions = [job.names, job.names[::-1]]
    header = ["Anchors"]
    for source, target in directions:
        header += [
            f"{source} → {target}: {name}" for name in (f"Jaccard@{k}", f"MRR@{k}", "cosine")
        ]
    found = {row[:4]: row[4:6] for row in summary}
    choices = list(dict.fromkeys(row[0] for row in summary))
    body = []
    for choice in choices:
        cells = [choice]
        for source, target in directions:
            for metric in METRICS:
                mean, std = found[choice, source, target, metric]
                cells.append(f"{mean:.3f}" + ("" if math.isnan(std) else f" ± {std:.3f}"))
        body.append(cells)
    return header, body


def _caption(job: Job) -> str:
    config = job.config
    transform = config.anchors.absolute_transform
    what = "embedded digits seen as pixels and as frequencies, no words" if job.is_embedded else ""
    return (
        f"{len(job.spaces[0]):,} {'samples' if job.is_embedded else 'words'}"
        f"{f' ({what})' if what else ''}, {config.anchors.count} anchors, cosine"
        f"{f' after {transform}' if transform else ''}, mean ± standard deviation over "
        f"{config.seeds.count} seeds. absolute: the first "
        f"{min(space.shape[1] for space in job.spaces)} features of both as they are."
        + (
            f" {', '.join(config.translations)}: the words of one space mapped to the other, "
            f"fitted on the {config.anchors.choices[0]} anchors."
            if config.translations
            else ""
        )
    )


def terminal_table(job: Job, summary: list[tuple]) -> Table:
    """The table for the terminal."""
    header, body = _cells(job, summary)
    title = "Relative spaces" + (" (embedded)" if job.is_embedded else "")
    table = Table(title=title, caption=_caption(job), title_style="bold")
    size = len(METRICS)
    for i, name in enumerate(["Anchors", *(cell.split(": ")[1] for cell in header[1 : 1 + size])]):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for start in (1, 1 + size):
        table.add_row(Text(header[start].split(": ")[0], style="bold"))
        for cells in body:
            table.add_row(f"  {cells[0]}", *cells[start : start + size])
        table.add_section()
    return table


def comparison_sheet(rows: list[tuple], choices: Sequence[str]) -> report.Sheet | None:
    """Every choice of anchors against the first, seed by seed and in both directions."""
    scores: dict[tuple, list[float]] = {}
    for choice, _, _, _, metric, value in rows:
        scores.setdefault((choice, metric), []).append(value)
    first, *others = choices
    if not others or len(scores[first, METRICS[0]]) < 4:
        return None
    body = []
    for choice in others:
        for metric in METRICS:
            test = report.paired_test(*(np.array(scores[c, metric]) for c in (choice, first)))
            body.append([choice, first, metric, *report.paired_cells(test)])
    return report.Sheet(
        "Paired comparisons",
        ("Anchors", "Against", "Metric", *report.PAIRED_HEADER),
        body,
        "Difference of the means in hundredths, tested over seeds and directions.",
        num_left=3,
    )


def _write_report(
    job: Job, workdir: Path, summary: list[tuple], sheet: report.Sheet | None, command: str
) -> Path:
    header, body = _cells(job, summary)
    lines = [header, [":---", *["---:"] * (len(header) - 1)], *body]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    sections = [("Results", f"{table}\n{_caption(job)}")]
    if sheet:
        sections.append((sheet.title, report.sheet_markdown(sheet)))
    if not job.is_embedded:
        sections.append(("Published", PUBLISHED))
    return report.write_report(
        workdir / "report.md",
        title=f"Relative spaces of {job.names[0]} and {job.names[1]}"
        + (" (embedded)" if job.is_embedded else ""),
        intro=(
            "Does a word find its counterpart (MRR) and its counterpart's neighbours (Jaccard) in "
            "the other space? A2 of Moschella et al. 2023."
        ),
        command=command or f"python train.py --workdir={workdir}",
        sections=sections,
        figures=[(_clusters_caption(job), CLUSTERS)] if job.clusters else [],
        versions=report.environment(),
    )
