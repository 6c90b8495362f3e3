"""How alike are the latent spaces of models that differ in their seed alone? Experiments A1, B2.

Models with absolute latents are trained from several seeds. Their latents have nothing in common as
they are (A1: Moschella et al. 2023, arXiv 2209.15430, section 3: they are rotated and rescaled);
relative to the same anchors they agree, and how much depends on the distance (B2: Cannistraci et
al. 2024, arXiv 2310.01211, section 4.1). Maps that are fitted on the anchors are shown beside.
"""

import dataclasses
import itertools
import math
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from scipy.stats import rankdata

from relrep_jax import measures, report
from relrep_jax import similarities as pairwise
from relrep_jax import translation as translations
from relrep_jax.experiments import end_to_end, image_stitching
from relrep_jax.experiments.config import ConfigError, check_at_least, check_fields
from relrep_jax.experiments.latents import check_names
from relrep_jax.projection import PAPER_SIMILARITIES, relative_projection
from relrep_jax.report.comparison import PairScore, comparison_figure
from relrep_jax.training.logs import MetricsLog, TrainingProgress

ABSOLUTE = "absolute"
MEASURES = ("pearson", "spearman", "linear_cka", "cosine")
LABELS = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "linear_cka": "Linear CKA",
    "cosine": "Cosine",
}
COLUMNS = ("model", "space", "measure", "first_seed", "second_seed", "value")
SUMMARY_COLUMNS = ("model", "space", "measure", "mean", "std", "num_pairs")


def default_config() -> ConfigDict:
    """Every field of this experiment, with the values of a small job."""
    config = image_stitching.default_config()
    config.experiment = "seed_similarity"
    # The models are absolute, and what is compared is named below.
    del config.representations
    del config.task
    # Names of relrep_jax.translation: absolute latents are also compared after these maps from one
    # seed to the other, fitted on the anchors.
    config.translations = ()
    # autoencoder | variational_autoencoder | classifier: each is trained from all seeds.
    config.models = ("autoencoder",)
    # The relative spaces that are compared, beside the latents as they are.
    config.similarities = PAPER_SIMILARITIES
    return config


@dataclasses.dataclass(frozen=True)
class Job:
    """What `prepare` found to be fit to run: one job of training for each model."""

    config: ConfigDict
    models: dict[str, image_stitching.Job]


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, default_config(), free=("optimizer.options",))
    check_at_least(config, {"seeds.count": 2})
    if not config.models:
        raise ConfigError("config.models is empty: name at least one.")
    check_names("config.similarities", config.similarities, pairwise.SIMILARITIES)
    if config.translations:
        check_names("config.translations", config.translations, translations.TRANSLATIONS)
    return Job(
        config, {name: image_stitching.prepare(_training(config, name)) for name in config.models}
    )


def _training(config: ConfigDict, model: str) -> ConfigDict:
    """The config of `image_stitching` that trains one model with absolute latents."""
    training = image_stitching.default_config()
    for field in training:
        if field in config and field not in ("experiment", "translations"):
            training[field] = config[field]
    training.task = model
    training.representations = ConfigDict({ABSOLUTE: end_to_end.representation_config().to_dict()})
    if model == "classifier":
        training.training.loss = "cross_entropy"
    return training


def compare(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """The measures of two spaces `[n, m]` with the same axes."""
    a, b = (np.asarray(space, np.float64).ravel() for space in (first, second))
    return {
        "pearson": _correlation(a, b),
        "spearman": _correlation(rankdata(a), rankdata(b)),
        "linear_cka": float(measures.linear_cka(first, second)),
        "cosine": float(measures.mean_cosine(first, second)),
    }


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Train, compare every pair of seeds in every space, report; everything goes to `workdir`.

    Returns:
        The report's path.
    """
    config = job.config
    console.print(_headline(job), highlight=False)
    trained = _train(job, workdir, console)
    rows: list[tuple] = []
    figures = []
    for model, training in job.models.items():
        latents, anchors = trained[model]
        spaces = {ABSOLUTE: latents}
        for name in config.similarities:
            project = jax.jit(
                jax.vmap(lambda x, a, name=name: relative_projection(x, a, similarity=name))
            )
            spaces[name] = np.asarray(project(latents, anchors))
        spaces_of_pair = {name: partial(_untranslated, space) for name, space in spaces.items()}
        for name in config.translations:
            spaces_of_pair[f"{ABSOLUTE}_{name}"] = partial(translated, name, latents, anchors)
        pairs = list(itertools.combinations(range(len(training.seeds)), 2))
        with report.progress(console, model, len(pairs) * len(spaces_of_pair)) as advance:
            for name, two_spaces in spaces_of_pair.items():
                for i, j in pairs:
                    for measure, value in compare(*two_spaces(i, j)).items():
                        rows.append(
                            (model, name, measure, training.seeds[i], training.seeds[j], value)
                        )
                    advance(what=f"{model}, {name}")
        figures += _figures(job, training, model, spaces, rows, workdir)

    summary = summarize(rows)
    for name, columns, body in (
        ("similarity", COLUMNS, rows),
        ("summary", SUMMARY_COLUMNS, summary),
    ):
        report.write_csv(workdir / "tables" / f"{name}.csv", columns, body)
        report.write_json(workdir / "tables" / f"{name}.json", columns, body)
    compared = [*config.similarities, *(f"{ABSOLUTE}_{name}" for name in config.translations)]
    sheet = _sheet(job, summary)
    console.print(report.sheet_terminal(sheet))
    path = report.write_report(
        workdir / "report.md",
        title=_title(job),
        intro=f"{_headline(job).split(chr(10), 1)[1]}.",
        command=command or f"python train.py --workdir={shlex.quote(str(workdir))}",
        figures=figures,
        sections=[
            ("Results", report.sheet_markdown(sheet)),
            *((s.title, report.sheet_markdown(s)) for s in _comparisons(rows, compared)),
            *end_to_end.published_section(config, is_embedded=image_stitching.is_embedded(config)),
        ],
        versions=report.environment("flax", "optax", "scipy"),
    )
    console.print(f"Tables, figures and report: {workdir}", highlight=False, soft_wrap=True)
    return path


def _untranslated(space: np.ndarray, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    return space[i], space[j]


def translated(
    name: str, latents: np.ndarray, anchors: np.ndarray, i: int, j: int
) -> tuple[np.ndarray, np.ndarray]:
    """Two seeds' latents in the coordinates of the second.

    Args:
        name: of `relrep_jax.translation`.
        latents: `[seeds, n, d]`.
        anchors: `[seeds, m, d]`, what the map from seed `i` to seed `j` is fitted on.
        i, j: rows of both.

    Returns:
        Latents of seed `i` through the map, and those of seed `j`, `[n, d]` each, both less the
        mean of `anchors[j]`: a map that knows this mean alone would be alike to any latents far
        from the origin.
    """
    translator = translations.get(name)
    mapped = translator.apply(translator.fit(anchors[i], anchors[j]), latents[i])
    mean = anchors[j].mean(axis=0)
    return np.asarray(mapped) - mean, latents[j] - mean


def _train(job: Job, workdir: Path, console: Console) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Train every model from all seeds: latents `[seeds, n, d]` of test samples, and of anchors."""
    seeds = next(iter(job.models.values())).seeds
    totals = {name: training.config.training.epochs for name, training in job.models.items()}
    trained = {}
    with MetricsLog(workdir, seeds) as log, TrainingProgress(console, totals) as progress:
        for model, training in job.models.items():
            dataset, task = training.dataset, training.tasks[ABSOLUTE]
            data = training.plan.share({"image": dataset.x_train, "label": dataset.y_train})
            variables = image_stitching.train(training, model, task, data, workdir, log, progress)
            trained[model] = tuple(
                image_stitching.encode(training, task, variables, images)
                for images in (dataset.x_test, dataset.x_train[training.anchors])
            )
    return trained


def summarize(rows: list[tuple]) -> list[tuple]:
    """Mean and standard deviation over pairs of seeds (see `SUMMARY_COLUMNS`)."""
    groups: dict[tuple, list[float]] = {}
    for model, space, measure, _, _, value in rows:
        groups.setdefault((model, space, measure), []).append(value)
    return [
        (
            *group,
            float(np.mean(values)),
            float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
            len(values),
        )
        for group, values in groups.items()
    ]


def _dataset(job: Job) -> Any:
    return next(iter(job.models.values())).dataset


def _title(job: Job) -> str:
    return f"Latent spaces of different seeds on {_dataset(job).name}"


def _headline(job: Job) -> str:
    training = next(iter(job.models.values()))
    count = training.config.training.epochs
    return (
        f"{_title(job)}\n"
        f"{', '.join(name.replace('_', ' ') for name in job.models)}: {len(training.seeds)} seeds "
        f"each, {count} epochs on {len(training.dataset.x_train):,} images, latents of "
        f"{training.config.model.latent_dim or 'flattened'} dimensions, "
        f"{len(training.dataset.x_test):,} test images relative to {len(training.anchors)} anchors"
    )


def _sheet(job: Job, summary: list[tuple]) -> report.Sheet:
    found = {row[:3]: row[3:] for row in summary}
    pairs = summary[0][5]
    body = []
    for model, space in dict.fromkeys(row[:2] for row in summary):
        cells = [model.replace("_", " "), space]
        for measure in MEASURES:
            mean, std, _ = found[model, space, measure]
            cells.append(f"{mean:.3f}" + ("" if math.isnan(std) else f" ± {std:.3f}"))
        body.append(cells)
    name = end_to_end.dataset_title(
        _dataset(job).name, is_embedded=image_stitching.is_embedded(job.config)
    )
    return report.Sheet(
        f"Similarity of seeds, {name}",
        ("Model", "Space", *(LABELS[measure] for measure in MEASURES)),
        body,
        f"Mean ± standard deviation over {pairs} pairs of seeds. Pearson and Spearman over all "
        "entries of both spaces, cosine between the rows of the same sample; absolute: the latents "
        f"as they are{_through(job.config)}.",
        num_left=2,
    )


def _through(config: ConfigDict) -> str:
    if not config.translations:
        return ""
    names = ", ".join(f"{ABSOLUTE}_{name}" for name in config.translations)
    return (
        f"; {names}: latents of the earlier seed mapped onto those of the later one by a map that "
        "was fitted on the anchors, both less the mean of the later one's anchors"
    )


def _comparisons(rows: list[tuple], spaces: Sequence[str]) -> list[report.Sheet]:
    """Every other space against the first one, on the same pairs of seeds."""
    scores: dict[tuple, list[float]] = {}
    for model, space, measure, _, _, value in rows:
        scores.setdefault((model, space, measure), []).append(value)
    first, *others = spaces
    models = list(dict.fromkeys(row[0] for row in rows))
    if not others or len(rows) <= len(scores):
        return []
    body = []
    for model in models:
        for space in others:
            for measure in ("pearson", "linear_cka"):
                if (space, measure) == (f"{ABSOLUTE}_orthogonal", "linear_cka"):
                    continue  # Blind to such maps: it would be that of the latents as they are.
                pair = (np.array(scores[model, name, measure]) for name in (space, first))
                cells = report.paired_cells(report.paired_test(*pair))
                body.append([model.replace("_", " "), space, first, LABELS[measure], *cells])
    return [
        report.Sheet(
            "Paired comparisons",
            ("Model", "Space", "Against", "Measure", *report.PAIRED_HEADER),
            body,
            "Difference of the means in hundredths, tested over pairs of seeds, which share seeds "
            "and are not independent: the p-values are too small rather than too large.",
            num_left=4,
        )
    ]


def _figures(
    job: Job,
    training: image_stitching.Job,
    model: str,
    spaces: dict[str, np.ndarray],
    rows: list[tuple],
    workdir: Path,
) -> list[tuple[str, str]]:
    """Spaces of the first seeds in the plane, and heat maps over pairs of seeds."""
    labels = training.dataset.y_test[: spaces[ABSOLUTE].shape[1]]
    projected = {
        name: report.project_jointly(end_to_end.shown_spaces(space))
        for name, space in spaces.items()
    }
    named = model.replace("_", " ")
    shown = [
        (
            f"Latents of the {named} from several seeds, and the same latents relative to anchors: "
            "the principal plane of the first seed's space, the same for all seeds; colours are "
            "classes.",
            report.latent_spaces(
                projected,
                labels[: end_to_end.MAX_POINTS],
                seed_names=end_to_end.shown_seeds(training.seeds),
            ),
            f"{model}_spaces.png",
        )
    ]
    scores = [
        PairScore(space, f"seed {i}", f"seed {j}", value, None, None, None, 0, 0)
        for of, space, measure, i, j, value in rows
        # Without translations: those have a direction, and the figure has none.
        if (of, measure) == (model, "pearson") and space in spaces
    ]
    shown.append(
        (
            f"Pearson correlation between the spaces of every two seeds of the {named}.",
            comparison_figure(scores, [f"seed {seed}" for seed in training.seeds]),
            f"{model}_pearson.png",
        )
    )
    made = []
    for caption, figure, name in shown:
        report.save(figure, workdir / "figures" / name)
        made.append((caption, f"figures/{name}"))
    return made
