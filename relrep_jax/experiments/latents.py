"""What the experiments on frozen latents have in common: data, heads, and how findings are written.

Data are a folder of latents, one file an encoder, or, without a folder, several encoders of the
embedded digits.
"""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report, transforms
from relrep_jax.checks import lookup
from relrep_jax.data.latents import LabelledLatents, load_labelled
from relrep_jax.data.views import digit_views
from relrep_jax.experiments import latent_stitching
from relrep_jax.experiments.config import (
    ConfigError,
    check_at_least,
    check_fields,
    cut_to_scale,
)
from relrep_jax.stitching import representations
from relrep_jax.stitching.heads import HEADS, Head
from relrep_jax.stitching.latents import TEST, TRAIN, check_labelled

SMOKE_SAMPLES = {TRAIN: 160, TEST: 80}
SMOKE_ENCODERS = 3
SMOKE_HEAD = {"epochs": 5, "batch_size": 16}


def latent_fields(experiment: str) -> ConfigDict:
    """The fields that every experiment on latents has."""
    config = ConfigDict()
    config.experiment = experiment
    # full | smoke: 160 training and 80 test samples of three encoders, 2 seeds, few anchors.
    config.scale = "full"

    config.data = ConfigDict()
    # A folder with one file of latents [n, d] for each encoder, labels.npy and split.npy (0 train,
    # 1 dev, 2 test). Empty: several encoders of the embedded digits.
    config.data.path = ""
    # Files with other names, if not empty.
    config.data.labels = ""
    config.data.split = ""
    # Only these encoders, if not empty.
    config.data.encoders = ()

    config.seeds = ConfigDict()
    config.seeds.count = 5
    config.seeds.first = 0
    return config


def anchor_fields(config: ConfigDict) -> None:
    """Adds how many anchors there are."""
    config.anchors = ConfigDict()
    # Parallel samples that are anchors. 0: this experiment's own number (the paper's, where it is
    # known), or all training samples where there are fewer.
    config.anchors.count = 0


def head_fields(config: ConfigDict, name: str, epochs: int, learning_rate: float = 1e-3) -> None:
    """Adds which classifier is trained, and how."""
    config.head = ConfigDict()
    # logistic_regression (which has no further fields) | mlp | deep_mlp
    config.head.name = name
    config.head.learning_rate = learning_rate
    config.head.epochs = epochs
    config.head.batch_size = 64


def make_head(fields: ConfigDict, group: str = "head", **options: Any) -> Head:
    """The head of these fields, which messages call `config.<group>`.

    Raises:
        ValueError: an unknown head or values out of range.
    """
    make = lookup("head", fields.name, HEADS)
    if fields.name == "logistic_regression":
        return make(**options)
    if not fields.learning_rate > 0:
        raise ConfigError(
            f"config.{group}.learning_rate must be above 0, got {fields.learning_rate}."
        )
    return make(
        learning_rate=fields.learning_rate,
        epochs=fields.epochs,
        batch_size=fields.batch_size,
        **options,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Encoders, and what is to be predicted from their latents.

    Attributes:
        name: of the data.
        spaces: latents `[n, d_i]` by encoder, float32.
        labels: `[n]` in `[0, num_classes)`.
        split: `[n]`: 0 train, 1 dev, 2 test.
        is_embedded: whether these are the embedded digits.
    """

    name: str
    spaces: Mapping[str, np.ndarray]
    labels: np.ndarray
    split: np.ndarray
    is_embedded: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.spaces)

    @property
    def train(self) -> np.ndarray:
        return np.flatnonzero(self.split == TRAIN)

    @property
    def test(self) -> np.ndarray:
        return np.flatnonzero(self.split == TEST)

    @property
    def num_classes(self) -> int:
        return int(self.labels.max()) + 1

    def describe(self) -> str:
        """How much there is of what."""
        return (
            f"{len(self.spaces)} encoders of {self.name} ({', '.join(self.spaces)}): "
            f"{len(self.train):,} training and {len(self.test):,} test samples, "
            f"{self.num_classes} classes"
        )

    def on_device(self) -> tuple[jax.Array, ...]:
        """The latents, as arrays on the device."""
        return tuple(jnp.asarray(space) for space in self.spaces.values())


def prepare_latents(
    config: ConfigDict,
    reference: ConfigDict,
    *,
    least: Mapping[str, float],
    smoke: Mapping[str, Mapping[str, int]] | None = None,
    embedded: Callable[[], LabelledLatents] = digit_views,
) -> tuple[ConfigDict, Problem]:
    """Check a config's fields and read its data.

    Args:
        config: what a user brought.
        reference: every field.
        least: smallest values by dotted name.
        smoke: largest values at the scale `smoke`.
        embedded: the data where the config names no folder.

    Returns:
        The config at its scale, and the data.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, reference)
    config = cut_to_scale(config, {"seeds": {"count": 2}, **(smoke or {})})
    check_at_least(config, {"seeds.count": 1, "seeds.first": 0, **least})
    if config.data.path:
        latents = load_labelled(config.data.path, config.data.labels, config.data.split)
    else:
        if config.data.labels or config.data.split:
            raise ConfigError("config.data.labels and .split go with a folder in config.data.path.")
        latents = embedded()
    if config.data.encoders:
        chosen = {name: lookup("encoder", name, latents.spaces) for name in config.data.encoders}
        latents = dataclasses.replace(latents, spaces=chosen)
    spaces, labels, split = check_labelled(latents)
    labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    rows = np.arange(len(labels))
    if config.scale == "smoke":
        spaces = dict(list(spaces.items())[:SMOKE_ENCODERS])
        rows = np.sort(
            np.concatenate([_balanced(labels, split == p, n) for p, n in SMOKE_SAMPLES.items()])
        )
    problem = Problem(
        latents.name,
        # Half precision is for storing: 16 bits do not suffice to solve anything.
        {name: np.asarray(space[rows], np.float32) for name, space in spaces.items()},
        labels[rows],
        split[rows],
        not config.data.path,
    )
    return config, problem


def _balanced(labels: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    """Rows of the mask, one of every class in turn, `count` of them or all."""
    rows = np.flatnonzero(mask)
    turn = np.zeros(len(rows), int)
    for label in np.unique(labels[rows]):
        of_class = labels[rows] == label
        turn[of_class] = np.arange(of_class.sum())
    return rows[np.argsort(turn, kind="stable")[:count]]


SMOKE_ANCHORS = 40


def num_anchors(given: int, config: ConfigDict, problem: Problem, default: int) -> int:
    """How many anchors there are.

    Args:
        given: the number in the config.
        config: whose scale counts.
        problem: whose training samples they are.
        default: the experiment's own number, where the given one is 0.

    Raises:
        ConfigError: more than there are training samples.
    """
    available = len(problem.train)
    count = given or min(default, available)
    if config.scale == "smoke":
        count = min(count, SMOKE_ANCHORS)
    check_anchors("the number of anchors in config.anchors", count, problem)
    return count


def check_anchors(field: str, count: int, problem: Problem) -> None:
    """Raise `ConfigError` unless so many anchors can be drawn from the training samples."""
    available = len(problem.train)
    if not 1 <= count <= available:
        raise ConfigError(
            f"{field} must lie in 1 .. {available}, the number of training samples of "
            f"{problem.name}, got {count}."
        )


def describe_anchors(count: int, problem: Problem) -> str:
    """How many anchors there are, and how they were chosen, for a report."""
    if count == len(problem.train):
        return f"all {count} training samples as parallel anchors"
    return f"{count} parallel anchors, drawn anew for every seed"


def seeds_of(config: ConfigDict) -> range:
    """The seed numbers of a config."""
    return range(config.seeds.first, config.seeds.first + config.seeds.count)


def check_names(field: str, names: Sequence[str], known: Mapping[str, Any]) -> None:
    """Raise unless there is a name, every one is known, and none stands twice."""
    if not names:
        raise ConfigError(f"{field} is empty: name at least one of {', '.join(known)}.")
    for name in names:
        lookup(field, name, known)
    if len(set(names)) < len(names):
        raise ConfigError(f"{field} names something twice: {', '.join(names)}.")


def transform_of(names: str) -> transforms.Transform | None:
    """The transform that `names` names: several are joined by `+`, an empty text is none."""
    return transforms.chain(*names.split("+")) if names else None


def over_pairs(scores: np.ndarray) -> np.ndarray:
    """Of scores `[seeds, encoders, decoders]` those of different encoders, `[seeds, pairs]`."""
    return scores[:, ~np.eye(scores.shape[-1], dtype=bool)]


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of all finite values; NaN where there are too few."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if values.size else float("nan")
    return mean, float(np.std(values, ddof=1)) if values.size > 1 else float("nan")


def seed_summary(scores: np.ndarray) -> tuple[float, float]:
    """Mean of scores `[seeds, pairs]`, and the standard deviation over seeds of the mean.

    Pairs that have no score for any seed cannot be stitched, and are left out. One that has none
    for some seeds has a head that diverged: then both are NaN, so that it shows.
    """
    if not scores.size or np.isnan(scores).all():
        return float("nan"), float("nan")
    means = scores[:, ~np.isnan(scores).all(axis=0)].mean(axis=1)
    return (float("nan"),) * 2 if np.isnan(means).any() else mean_and_std(means)


def best_of(means: Sequence[float]) -> int:
    """Where the highest mean is; NaN is never the highest, unless there is nothing else."""
    means = np.asarray(means, np.float64)
    return int(np.argmax(np.where(np.isnan(means), -np.inf, means)))


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an experiment found, ready to be written.

    Attributes:
        title: of the report.
        intro: what was done.
        sheets: tables for people, in order.
        tables: columns and rows for machines, by file name.
        figures: captions and paths of pictures.
        sections: headings and texts of further sections.
        published: what the paper found, which is shown with other people's data only.
    """

    title: str
    intro: str
    sheets: Sequence[report.Sheet]
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]
    figures: Sequence[tuple[str, Path]] = ()
    sections: Sequence[tuple[str, str]] = ()
    published: report.Sheet | None = None


def write_findings(
    findings: Findings, problem: Problem, workdir: Path, console: Console, command: str
) -> Path:
    """Write tables and report; print the tables.

    Returns:
        The report's path.
    """
    for name, (columns, rows) in findings.tables.items():
        report.write_csv(workdir / "tables" / f"{name}.csv", columns, rows)
        report.write_json(workdir / "tables" / f"{name}.json", columns, rows)
    sheets = list(findings.sheets)
    if problem.is_embedded:
        sheets = [
            dataclasses.replace(sheet, title=f"{sheet.title} (embedded digits)") for sheet in sheets
        ]
    elif findings.published is not None:
        sheets.append(findings.published)
    sections = [(sheet.title, report.sheet_markdown(sheet)) for sheet in sheets]
    sections += findings.sections
    pictures = [
        report.markdown_image(caption, image.absolute(), relative_to=workdir)
        for caption, image in findings.figures
    ]
    if pictures:
        sections.append(("Figures", "\n\n".join(pictures)))
    path = report.write_report(
        workdir / "report.md",
        title=findings.title,
        intro=f"{findings.intro}\n\n{problem.describe()}.",
        command=command or f"python train.py --workdir={shlex.quote(str(workdir))}",
        sections=sections,
        versions={
            **report.environment("flax", "optax", "scipy"),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        },
    )
    for sheet in sheets:
        console.print(report.sheet_terminal(sheet))
    console.print(f"Tables, figures and report: {workdir}", highlight=False, soft_wrap=True)
    return path


def stitch_methods(
    problem: Problem,
    methods: Sequence[str],
    budgets: Sequence[int],
    *,
    head: Head,
    seeds: Sequence[int],
    console: Console,
) -> list[latent_stitching.Outcome]:
    """Every method at every budget of parallel samples, with a progress bar.

    Methods that keep latents as they are share their heads.
    """
    jobs = latent_stitching.plan(methods, budgets)
    outcomes, trained = [], None
    with report.progress(console, "stitching", len(jobs)) as advance:
        for method, budget in jobs:
            keeps_latents = representations.get(method).keeps_latents
            outcomes.append(
                latent_stitching.stitch(
                    method, problem.spaces, problem.labels, problem.split, budget,
                    seeds=seeds, head=head, heads=trained if keeps_latents else None,
                )
            )  # fmt: skip
            if keeps_latents:
                trained = outcomes[-1].result
            advance(what=method)
    return outcomes


def pair_means(outcome: latent_stitching.Outcome, metric: str) -> np.ndarray:
    """Mean over seeds of every pair of different encoders, `[pairs]`; NaN where none can be."""
    return over_pairs(getattr(outcome.result, metric)).mean(axis=0)


def paired_sheet(
    title: str, rows: Sequence[tuple[str, str, np.ndarray, np.ndarray]]
) -> report.Sheet:
    """Two methods a row, compared over pairs of encoders.

    Args:
        title: of the table.
        rows: names of both and their scores `[pairs]`, means over seeds.
    """
    return report.Sheet(
        title,
        ("Method", "Compared with", *report.PAIRED_HEADER),
        [
            [first, second, *report.paired_cells(report.paired_test(one, other))]
            for first, second, one, other in rows
        ],
        "Difference in percentage points of the means over seeds, tested over ordered pairs of "
        "different encoders that both methods can stitch. Pairs share encoders and are not "
        "independent, so that the p-values are too small rather than too large.",
        num_left=2,
    )
