"""Space selection: tuning the attention of a stitched model to a new encoder, experiment B7.

Cannistraci et al. 2024 (arXiv 2310.01211), section 4.4: the head of one encoder, whose
self-attention weighs the relative spaces, is stitched to another encoder; then nothing, only its
classifier, or only the queries, keys and values of the attention are tuned on the new encoder.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report, similarities
from relrep_jax.aggregation import SelfAttention
from relrep_jax.experiments import latent_stitching as stitching
from relrep_jax.experiments import latents, products
from relrep_jax.experiments.config import ConfigError
from relrep_jax.projection import PAPER_SIMILARITIES
from relrep_jax.stitching import REPRESENTATIONS
from relrep_jax.stitching.heads import Head, IsTuned, count_tuned
from relrep_jax.stitching.latents import fit_heads
from relrep_jax.stitching.scores import score_logits
from relrep_jax.training.seeds import over_seeds, plan_seeds
from relrep_jax.transforms import Transform

ANCHORS = 256
METRIC = "accuracy"
COLUMNS = ("similarities", "tuned", "parameters", "seed", "encoder", "decoder", "metric", "value")


def is_nothing(path: tuple[str, ...]) -> bool:
    """Zero-shot."""
    del path
    return False


def is_classifier(path: tuple[str, ...]) -> bool:
    """All that comes after the aggregation."""
    return path[0] != "aggregate"


def is_attention(path: tuple[str, ...]) -> bool:
    """Queries, keys and values of the aggregation."""
    return path[:2] == ("aggregate", "attention") and path[2] in ("query", "key", "value")


TUNED: dict[str, IsTuned] = {
    "nothing": is_nothing,
    "classifier": is_classifier,
    "Q, K, V": is_attention,
}
"""What is tuned on the new encoder, by name."""
OWN = "own head of the new encoder"


def default_config() -> ConfigDict:
    """Every field of this experiment."""
    config = latents.latent_fields("space_selection")
    latents.anchor_fields(config)
    # Of latents before the distances: names of relrep_jax.transforms joined by +.
    config.anchors.absolute_transform = "centering"
    config.similarities = PAPER_SIMILARITIES
    latents.head_fields(config, "mlp", epochs=10)

    config.attention = ConfigDict()
    # Width of queries, keys and values. 0: as many as there are anchors, as in the paper's code.
    config.attention.features = 0

    config.tuning = ConfigDict()
    # Labelled training samples of the new encoder that the stitched head is tuned on. 0: all.
    config.tuning.samples = 0
    config.tuning.epochs = 5
    config.tuning.learning_rate = 1e-3
    # Whether heads on each distance alone are stitched and tuned beside those on the product.
    config.singles = True
    # Names of relrep_jax.stitching.REPRESENTATIONS that are shown beside, with nothing tuned.
    config.baselines = ("orthogonal", "ridge")
    return config


class Setting(NamedTuple):
    """What a head reads, and what of it was tuned.

    Attributes:
        similarities: of the product; none where a head reads latents through a translation.
        tuned: a name of `TUNED`, `OWN`, or the translation.
    """

    similarities: tuple[str, ...]
    tuned: str


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A config that was found good, with its data."""

    config: ConfigDict
    problem: latents.Problem
    head: Head
    tuner: Head
    baseline_head: Head
    num_anchors: int
    num_tuning: int
    subsets: tuple[tuple[str, ...], ...]
    transform: Transform | None


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    config, problem = latents.prepare_latents(
        config,
        default_config(),
        least={"anchors.count": 0, "attention.features": 0, "tuning.epochs": 1},
        smoke={"head": latents.SMOKE_HEAD, "tuning": {"epochs": 2}},
    )
    latents.check_names("config.similarities", config.similarities, similarities.SIMILARITIES)
    if config.baselines:
        latents.check_names("config.baselines", config.baselines, REPRESENTATIONS)
    if config.head.name == "logistic_regression":
        raise ConfigError("config.head.name must be mlp or deep_mlp: others have no attention.")
    if config.scale == "smoke":
        config.singles = False
    available = len(problem.train)
    if not 0 <= config.tuning.samples <= available:
        raise ConfigError(
            f"config.tuning.samples must lie in 0 .. {available}, the number of training samples, "
            f"got {config.tuning.samples}."
        )
    attention = partial(SelfAttention, num_features=config.attention.features or None)
    tuning = config.head.copy_and_resolve_references()
    tuning.update(epochs=config.tuning.epochs, learning_rate=config.tuning.learning_rate)
    return Job(
        config,
        problem,
        latents.make_head(config.head, aggregation=attention),
        latents.make_head(tuning, "tuning", aggregation=attention),
        latents.make_head(config.head),
        latents.num_anchors(config.anchors.count, config, problem, ANCHORS),
        config.tuning.samples or available,
        compared_products(config),
        latents.transform_of(config.anchors.absolute_transform),
    )


def compared_products(config: ConfigDict) -> tuple[tuple[str, ...], ...]:
    """All similarities together, then each alone where the config asks for them."""
    names = tuple(config.similarities)
    singles = tuple((name,) for name in names) if config.singles else ()
    return tuple(dict.fromkeys((names, *singles)))


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Train, stitch and tune every pair; write tables and figures.

    Returns:
        The report's path.
    """
    config, problem = job.config, job.problem
    spaces, seeds = problem.on_device(), latents.seeds_of(config)
    pairs = list(itertools.permutations(range(len(spaces)), 2))
    fit, tune = compile_fit(job), compile_tune(job, len(pairs))
    found: dict[Setting, list[dict[str, np.ndarray]]] = {}
    counts: dict[Setting, int] = {}
    total = len(seeds) * len(job.subsets) * len(TUNED)
    with report.progress(console, "stitching and tuning", total) as advance:
        for seed, subset in itertools.product(seeds, job.subsets):
            anchors = products.choose_anchors(problem, "uniform", job.num_anchors, seed)
            product = products.project(spaces, anchors, subset, job.transform)
            heads, own = fit(product, seed)
            one = jax.tree.map(lambda leaf: leaf[0], heads)
            rows = np.random.default_rng(seed).permutation(problem.train)[: job.num_tuning]
            for name, is_tuned in TUNED.items():
                setting = Setting(subset, name)
                found.setdefault(setting, []).append(tune(name, heads, product, rows, pairs, seed))
                counts[setting] = count_tuned(one, is_tuned)
                advance(what=f"{products.label(subset)}, {name}")
            setting = Setting(subset, OWN)
            of_pairs = {m: np.asarray(v)[[i for i, _ in pairs]] for m, v in own.items()}
            found.setdefault(setting, []).append(of_pairs)
            counts[setting] = count_tuned(one, lambda path: True)
    for outcome in latents.stitch_methods(
        problem, config.baselines, (job.num_anchors,), head=job.baseline_head, seeds=seeds,
        console=console,
    ):  # fmt: skip
        setting = Setting((), outcome.method)
        by_metric = {m: latents.over_pairs(getattr(outcome.result, m)) for m in own}
        found[setting] = [{m: v[run] for m, v in by_metric.items()} for run in range(len(seeds))]
        counts[setting] = 0
    scores = {
        setting: {metric: np.stack([run[metric] for run in runs]) for metric in runs[0]}
        for setting, runs in found.items()
    }
    full = job.subsets[0]
    shown = {s.tuned: by_metric for s, by_metric in scores.items() if s.similarities in (full, ())}
    numbers = {s.tuned: n for s, n in counts.items() if s.similarities in (full, ())}
    sheets = [score_sheet(shown, numbers, config.baselines), comparison_sheet(shown)]
    if len(job.subsets) > 1:
        sheets += singles_sheets(scores, job.subsets)
    return latents.write_findings(
        latents.Findings(
            title=f"Space selection: {problem.name}",
            intro=(
                "Stitched heads with self-attention over relative spaces, tuned on the new "
                "encoder, B7 of Cannistraci et al. 2024: "
                f"{', '.join(config.similarities)}, {job.num_anchors} anchors. A head is trained "
                f"on each encoder for {config.head.epochs} epochs, stitched to every other one, "
                f"and tuned for {config.tuning.epochs} epochs on {job.num_tuning} labelled "
                "training samples of the new encoder."
            ),
            sheets=sheets,
            tables={"scores": (COLUMNS, score_rows(problem, scores, counts, pairs, seeds))},
            figures=write_figures(workdir / "figures", problem, shown, pairs),
        ),
        problem,
        workdir,
        console,
        command,
    )


def compile_fit(job: Job) -> Callable[[Any, int], tuple[Any, Any]]:
    """`(product [e, s, n, m], seed) -> heads with a leading axis, their own scores [e]`."""
    problem = job.problem
    train, test = problem.train, problem.test

    @jax.jit
    def fit(product, labels, seed):
        key = jax.random.key(seed)
        heads = products.stack(
            fit_heads(key, product, labels, train, job.head, problem.num_classes)
        )

        def score(pair):
            logits = job.head.apply(pair[0], pair[1][:, test])
            return score_logits(logits, labels[test], problem.num_classes)

        return heads, jax.lax.map(score, (heads, product))

    labels = jnp.asarray(problem.labels)
    return lambda product, seed: fit(product, labels, jnp.uint32(seed))


def compile_tune(job: Job, num_pairs: int) -> Callable[..., Any]:
    """Tune the heads of all pairs in one program, and score them on the new encoders."""
    problem, test = job.problem, job.problem.test
    plan = plan_seeds(num_pairs)

    def program(name):
        def one(pair, heads, product, rows, labels, seed):
            space = product[pair[0]]
            params = jax.tree.map(lambda leaf: leaf[pair[1]], heads)
            if name != "nothing":
                key = jax.random.fold_in(jax.random.key(seed), pair[0])
                params = job.tuner.tune(key, params, space[:, rows], labels[rows], TUNED[name])
            logits = job.tuner.apply(params, space[:, test])
            return score_logits(logits, labels[test], problem.num_classes)

        return over_seeds(one, plan)

    programs = {name: program(name) for name in TUNED}

    def tune(name, heads, product, rows, pairs, seed) -> dict[str, np.ndarray]:
        labels = jnp.asarray(problem.labels)
        shared = (heads, product, jnp.asarray(rows), labels, jnp.uint32(seed))
        found = programs[name](plan.pad(jnp.asarray(pairs)), *plan.share(shared))
        return {metric: np.asarray(values) for metric, values in plan.unpad(found).items()}

    return tune


Scores = dict[str, dict[str, np.ndarray]]
"""Scores `[seeds, pairs]` by what was tuned and by metric."""


def score_rows(
    problem: latents.Problem,
    scores: dict[Setting, dict[str, np.ndarray]],
    counts: dict[Setting, int],
    pairs: Sequence[tuple[int, int]],
    seeds: Sequence[int],
) -> list[tuple]:
    """A row for each score (see `COLUMNS`)."""
    names = problem.names
    return [
        (
            "+".join(setting.similarities), setting.tuned, counts[setting], seed, names[i],
            names[j], metric, float(values[run, p]),
        )
        for setting, by_metric in scores.items()
        for metric, values in by_metric.items()
        for run, seed in enumerate(seeds)
        for p, (i, j) in enumerate(pairs)
    ]  # fmt: skip


def score_sheet(
    scores: Scores, counts: dict[str, int], baselines: Sequence[str] = ()
) -> report.Sheet:
    """Accuracy and how many numbers were tuned."""
    rows = [
        [
            name,
            f"{counts[name]:,}",
            report.percent(*latents.seed_summary(by_metric[METRIC])),
            report.percent(latents.mean_and_std(by_metric[METRIC].mean(axis=0))[1]),
        ]
        for name, by_metric in scores.items()
    ]
    seeds, pairs = scores[OWN][METRIC].shape
    below = (
        f" {', '.join(baselines)}: nothing tuned, latents of the new encoder read through this by "
        "a head without attention, with as many parallel samples as there are anchors."
        if baselines
        else ""
    )
    return report.Sheet(
        "Tuning stitched heads",
        ("Tuned", "Parameters", "Accuracy", "Std over pairs"),
        rows,
        f"Accuracy in percent, mean ± standard deviation over {seeds} seeds of the mean over "
        f"{pairs} ordered pairs of different encoders; beside it the standard deviation over "
        "pairs. Q, K, V: queries, keys and values of the attention. Own head: what the "
        "stitched pair replaces, trained from scratch on all labelled training samples of the new "
        f"encoder.{below}",
    )


def comparison_sheet(scores: Scores) -> report.Sheet:
    """Every way to tune with every other."""
    means = {name: by_metric[METRIC].mean(axis=0) for name, by_metric in scores.items()}
    rows = [
        (second, first, means[second], means[first])
        for first, second in itertools.combinations(means, 2)
    ]
    return latents.paired_sheet("Paired comparisons", rows)


def singles_sheets(
    scores: dict[Setting, dict[str, np.ndarray]], subsets: Sequence[tuple[str, ...]]
) -> list[report.Sheet]:
    """Heads on the product beside heads on each distance alone, and the paired comparison."""
    full, *singles = subsets
    accuracy = {setting: by_metric[METRIC] for setting, by_metric in scores.items()}
    table, against = [], []
    for name in (*TUNED, OWN):
        cells = [
            report.percent(*latents.seed_summary(accuracy[Setting(subset, name)]))
            for subset in subsets
        ]
        table.append([name, *cells])
        if name == OWN:
            continue  # The same score in every pair of its encoder: there are no pairs to test.
        product = accuracy[Setting(full, name)].mean(axis=0)
        alone = {subset[0]: accuracy[Setting(subset, name)].mean(axis=0) for subset in singles}
        for label, other in products.rivals_of_product(alone).items():
            test = report.paired_cells(report.paired_test(product, other))
            against.append([name, label, *test])
    seeds, pairs = accuracy[Setting(full, OWN)].shape
    return [
        report.Sheet(
            "Heads on one distance",
            ("Tuned", *(products.label(subset) for subset in subsets)),
            table,
            f"Accuracy in percent, mean ± standard deviation over {seeds} seeds of the mean over "
            f"{pairs} ordered pairs. Heads on one distance are the same heads on a single space, "
            "where attention has nothing to weigh: of its queries, keys and values the values "
            "alone have an effect.",
        ),
        report.Sheet(
            "The product against single distances",
            ("Tuned", "Product against", *report.PAIRED_HEADER),
            against,
            products.HINDSIGHT,
            num_left=2,
        ),
    ]


def write_figures(
    folder: Path,
    problem: latents.Problem,
    scores: Scores,
    pairs: Sequence[tuple[int, int]],
) -> list[tuple[str, Path]]:
    """Heat maps of every pair, by what was tuned."""
    letters = tuple(stitching.letters(problem.names))
    grids = []
    for name in TUNED:
        values = np.full((len(letters), len(letters)), np.nan)
        for p, (i, j) in enumerate(pairs):
            values[i, j] = scores[name][METRIC][:, p].mean()
            values[i, i] = scores[OWN][METRIC][:, p].mean()
        grids.append(report.Grid(name, METRIC, values, letters, letters))
    path = report.save(report.pair_grid(grids), folder / "pairs.png")
    key = ", ".join(f"{s} {name}" for s, name in zip(letters, problem.names, strict=True))
    caption = (
        "Accuracy by what was tuned, mean over seeds; on the diagonal the encoders' own heads. "
        f"{key}."
    )
    return [(caption, path)]
