"""Products of invariances for zero-shot classification: experiments B3 and B6.

Cannistraci et al. 2024 (arXiv 2310.01211), sections 4.2 and 4.3: relative spaces by several
distances are aggregated and read by a classifier that is trained on one encoder and used with
another. Here are all subsets of the distances, all aggregations, choices and numbers of anchors,
and what they cost.
"""

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import aggregation, report, similarities
from relrep_jax.experiments import latent_stitching as stitching
from relrep_jax.experiments import latents, products
from relrep_jax.experiments.anchor_choices import CHOICES
from relrep_jax.experiments.config import ConfigError
from relrep_jax.projection import PAPER_SIMILARITIES
from relrep_jax.stitching import REPRESENTATIONS
from relrep_jax.stitching.heads import Head
from relrep_jax.transforms import Transform

PAPER_ANCHORS = 1280
METRIC = "accuracy"
COLUMNS = (
    "choice", "anchors", "aggregation", "similarities", "seed", "encoder", "decoder", "metric",
    "value",
)  # fmt: skip


def default_config() -> ConfigDict:
    """Every field of this experiment, as for B3."""
    config = latents.latent_fields("product_classification")
    config.anchors = ConfigDict()
    # How many; several are compared. 0: 1,280, or all training samples where there are fewer.
    config.anchors.counts = (0,)
    # uniform | farthest_point | kmeans; several are compared.
    config.anchors.choices = ("uniform",)
    # Of latents before the distances: names of relrep_jax.transforms joined by +, fitted on the
    # anchors. Centring alone leaves each distance the invariances that it has.
    config.anchors.absolute_transform = "centering"
    # Names of relrep_jax.similarities.SIMILARITIES.
    config.similarities = PAPER_SIMILARITIES
    # Of the similarities: every | single_and_all | all
    config.subsets = "every"
    # Names of relrep_jax.aggregation.AGGREGATIONS, trained with the head; several are compared.
    config.aggregations = ("mlp_sum",)
    latents.head_fields(config, "mlp", epochs=10)
    # Names of relrep_jax.stitching.REPRESENTATIONS that are shown beside, with the same head.
    config.baselines = ("absolute", "orthogonal", "ridge")
    return config


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one row of a table is about; with `names` in the order of the config."""

    choice: str
    anchors: int
    aggregation: str
    names: tuple[str, ...]

    @property
    def label(self) -> str:
        return products.label(self.names)


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Scores of a setting by metric, `[seeds, encoders, decoders]` each, and seconds a head."""

    setting: Setting
    scores: dict[str, np.ndarray]
    seconds: float

    @property
    def own(self) -> np.ndarray:
        """`[seeds, encoders]`"""
        return np.diagonal(self.scores[METRIC], axis1=1, axis2=2)

    @property
    def stitched(self) -> np.ndarray:
        """`[seeds, pairs]`"""
        return latents.over_pairs(self.scores[METRIC])

    @property
    def pairs(self) -> np.ndarray:
        """Means over seeds, `[pairs]`."""
        return self.stitched.mean(axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A config that was found good, with its data."""

    config: ConfigDict
    problem: latents.Problem
    heads: dict[str, Head]
    baseline_head: Head
    counts: tuple[int, ...]
    subsets: tuple[tuple[int, ...], ...]
    transform: Transform | None


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    config, problem = latents.prepare_latents(
        config, default_config(), least={}, smoke={"head": latents.SMOKE_HEAD}
    )
    latents.check_names("config.similarities", config.similarities, similarities.SIMILARITIES)
    latents.check_names("config.anchors.choices", config.anchors.choices, CHOICES)
    latents.check_names("config.aggregations", config.aggregations, aggregation.AGGREGATIONS)
    if config.baselines:
        latents.check_names("config.baselines", config.baselines, REPRESENTATIONS)
    if not config.anchors.counts:
        raise ConfigError("config.anchors.counts is empty: name at least one number.")
    subsets = products.subsets_of(len(config.similarities), config.subsets, "config.subsets")
    if config.scale == "smoke":
        config.anchors.choices = config.anchors.choices[:2]
        config.aggregations = config.aggregations[:2]
        config.baselines = ()
    counts = [
        latents.num_anchors(given, config, problem, PAPER_ANCHORS)
        for given in config.anchors.counts
    ]
    return Job(
        config,
        problem,
        {name: latents.make_head(config.head, aggregation=name) for name in config.aggregations},
        latents.make_head(config.head),
        tuple(sorted(set(counts))),
        tuple(subsets),
        latents.transform_of(config.anchors.absolute_transform),
    )


def score_settings(job: Job, console: Console) -> tuple[list[Result], list[tuple[str, float]]]:
    """Train and score everything.

    Returns:
        A result for each setting; and for each similarity the seconds in which one encoder's
        latents are projected, with the largest number of anchors.
    """
    config, problem = job.config, job.problem
    names, spaces = tuple(config.similarities), problem.on_device()
    seeds = latents.seeds_of(config)
    by_size = {
        size: [subset for subset in job.subsets if len(subset) == size]
        for size in sorted({len(subset) for subset in job.subsets})
    }
    scorers = {
        (name, size): products.compile_scorer(problem, head, len(members))
        for name, head in job.heads.items()
        for size, members in by_size.items()
    }
    found: dict[Setting, list[dict[str, np.ndarray]]] = {}
    seconds: dict[Setting, list[float]] = {}
    total = len(config.anchors.choices) * len(job.counts) * len(seeds) * len(scorers)
    with report.progress(console, "training heads", total) as advance:
        for choice, count, seed in itertools.product(config.anchors.choices, job.counts, seeds):
            anchors = products.choose_anchors(problem, choice, count, seed)
            projected = products.project(spaces, anchors, names, job.transform)
            jax.block_until_ready(projected)
            for (name, size), scorer in scorers.items():
                members = by_size[size]
                start = time.perf_counter()
                scores = scorer(projected, members, seed)
                passed = time.perf_counter() - start
                for i, subset in enumerate(members):
                    setting = Setting(choice, count, name, tuple(names[k] for k in subset))
                    found.setdefault(setting, []).append({m: v[i] for m, v in scores.items()})
                    seconds.setdefault(setting, []).append(passed / len(members) / len(spaces))
                advance()
    results = [
        Result(
            setting,
            {metric: np.stack([one[metric] for one in runs]) for metric in runs[0]},
            # The first seed's time is the compiler's.
            float(np.mean(seconds[setting][1:] or seconds[setting])),
        )
        for setting, runs in found.items()
    ]
    return results, _projection_seconds(job, spaces)


def _projection_seconds(job: Job, spaces: tuple[jax.Array, ...]) -> list[tuple[str, float]]:
    anchors = jnp.asarray(job.problem.train[: job.counts[-1]])
    rows = []
    for name in job.config.similarities:
        jax.block_until_ready(products.project(spaces, anchors, (name,), job.transform))
        start = time.perf_counter()
        jax.block_until_ready(products.project(spaces, anchors, (name,), job.transform))
        rows.append((name, (time.perf_counter() - start) / len(spaces)))
    return rows


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Score every subset, aggregation and choice of anchors; write tables and figures.

    Returns:
        The report's path.
    """
    config, problem = job.config, job.problem
    results, projection = score_settings(job, console)
    baselines = []
    if config.baselines:
        baselines = latents.stitch_methods(
            problem, config.baselines, (job.counts[-1],), head=job.baseline_head,
            seeds=latents.seeds_of(config), console=console,
        )  # fmt: skip
    sheets = [result_sheet(results, baselines)]
    if len(config.similarities) > 1 and (len(job.subsets) > 1 or baselines):
        sheets.append(product_sheet(results, tuple(config.similarities), baselines))
    if len(config.aggregations) > 1:
        sheets.append(aggregation_sheet(results))
    sheets.append(cost_sheet(results, projection))
    return latents.write_findings(
        latents.Findings(
            title=f"Products of invariances: {problem.name}",
            intro=(
                "Zero-shot classification with products of relative spaces, B3 and B6 of "
                f"Cannistraci et al. 2024. One head ({config.head.name.replace('_', ' ')}) on "
                f"each encoder, trained for {config.head.epochs} epochs together with its "
                f"aggregation; "
                f"anchors: {', '.join(map(str, job.counts))}; absolute transform: "
                f"{config.anchors.absolute_transform or 'none'}."
            ),
            sheets=sheets,
            tables={
                "scores": (COLUMNS, score_rows(problem, results, latents.seeds_of(config))),
                **{f"baseline_{k}": table for k, table in stitching.tables(baselines).items()},
            },
            figures=write_figures(workdir / "figures", problem, results),
        ),
        problem,
        workdir,
        console,
        command,
    )


def score_rows(
    problem: latents.Problem, results: Sequence[Result], seeds: Sequence[int]
) -> list[tuple]:
    """A row for each score (see `COLUMNS`)."""
    return [
        (
            result.setting.choice, result.setting.anchors, result.setting.aggregation,
            "+".join(result.setting.names), seed, encoder, decoder, metric,
            float(values[run, i, j]),
        )
        for result in results
        for metric, values in result.scores.items()
        for run, seed in enumerate(seeds)
        for i, encoder in enumerate(problem.names)
        for j, decoder in enumerate(problem.names)
    ]  # fmt: skip


def _varying(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Fields of settings that differ between results, with their headings."""
    fields = [("choice", "Choice"), ("anchors", "Anchors"), ("aggregation", "Aggregation")]
    return [
        (field, heading)
        for field, heading in fields
        if len({getattr(result.setting, field) for result in results}) > 1
    ]


def result_sheet(results: Sequence[Result], baselines: Sequence[stitching.Outcome]) -> report.Sheet:
    """A row for each setting and for each baseline."""
    varying = _varying(results)
    rows = []
    for result in results:
        rows.append([
            result.setting.label,
            *(str(getattr(result.setting, field)) for field, _ in varying),
            report.percent(*latents.seed_summary(result.own)),
            report.percent(*latents.seed_summary(result.stitched)),
            report.percent(latents.mean_and_std(result.pairs)[1]),
            str(len(result.pairs)),
        ])  # fmt: skip
    for outcome in baselines:
        stitched = outcome.result.stitched(METRIC)
        rows.append([
            outcome.method,
            *("" for _ in varying),
            report.percent(*latents.seed_summary(outcome.result.non_stitched(METRIC))),
            report.percent(*latents.seed_summary(stitched)),
            report.percent(latents.mean_and_std(stitched.mean(axis=0))[1] if stitched.size else 0),
            str(stitched.shape[1]),
        ])  # fmt: skip
    best = latents.best_of([result.pairs.mean() for result in results])
    below = (
        " Below: baselines with as many parallel samples as the most anchors (absolute: pairs of "
        "one width only)."
        if baselines
        else ""
    )
    return report.Sheet(
        "Zero-shot accuracy",
        (
            "Distances", *(heading for _, heading in varying), "Own head", "Stitched",
            "Std over pairs", "Pairs",
        ),
        rows,
        f"In percent, mean ± standard deviation over {len(results[0].own)} seeds of the mean over "
        "encoders with their own heads, or over ordered pairs of different encoders; beside it the "
        f"standard deviation over pairs. Bold: the best distances.{below}",
        frozenset({(best, 2 + len(varying))}),
        num_left=1 + len(varying),
    )  # fmt: skip


def product_sheet(
    results: Sequence[Result],
    names: tuple[str, ...],
    baselines: Sequence[stitching.Outcome] = (),
) -> report.Sheet:
    """The product of all distances against what else there is, over pairs, in every setting.

    Single distances and the best subset, where they were scored, and baselines that know as many
    parallel samples as there are anchors.
    """
    rows = []
    varying = _varying(results)
    for key in dict.fromkeys(dataclasses.replace(r.setting, names=()) for r in results):
        mine = {
            r.setting.names: r for r in results if dataclasses.replace(r.setting, names=()) == key
        }
        product = mine[names].pairs
        singles = {name: mine[(name,)].pairs for name in names if (name,) in mine}
        against = products.rivals_of_product(singles) if singles else {}
        best = max(mine.values(), key=lambda result: result.pairs.mean())
        if 1 < len(best.setting.names) < len(names):
            against[f"best subset ({best.setting.label})"] = best.pairs
        for outcome in baselines:
            if outcome.parallel_samples in (0, key.anchors):
                against[outcome.method] = latents.pair_means(outcome, METRIC)
        where = [str(getattr(key, field)) for field, _ in varying]
        for label, scores in against.items():
            cells = report.paired_cells(report.paired_test(product, scores))
            rows.append([*where, f"{mine[names].setting.label}", label, *cells])
    note = (
        products.HINDSIGHT if len({r.setting.names for r in results}) > 1 else products.OVER_PAIRS
    )
    fitted = " Baselines are fitted on samples that are drawn uniformly." if baselines else ""
    return report.Sheet(
        "The product against "
        + ("single distances" if note == products.HINDSIGHT else "baselines"),
        (*(heading for _, heading in varying), "Product", "Against", *report.PAIRED_HEADER),
        rows,
        note + fitted,
        num_left=2 + len(varying),
    )


def aggregation_sheet(results: Sequence[Result]) -> report.Sheet:
    """Aggregations of the product of all distances, each against the best one."""
    full = max(len(result.setting.names) for result in results)
    chosen = [result for result in results if len(result.setting.names) == full]
    rows = []
    groups = dict.fromkeys((result.setting.choice, result.setting.anchors) for result in chosen)
    for group in groups:
        mine = [r for r in chosen if (r.setting.choice, r.setting.anchors) == group]
        best = max(mine, key=lambda result: result.pairs.mean())
        for result in mine:
            test = report.paired_test(result.pairs, best.pairs)
            rows.append([
                *map(str, group),
                result.setting.aggregation,
                report.percent(*latents.seed_summary(result.stitched)),
                *(report.paired_cells(test) if result is not best else ["best", "", "", ""]),
            ])  # fmt: skip
    return report.Sheet(
        "Aggregations",
        ("Choice", "Anchors", "Aggregation", "Stitched", *report.PAIRED_HEADER),
        rows,
        "Accuracy of the product of all distances in percent, mean ± standard deviation over seeds "
        "of the mean over ordered pairs; the difference to the best aggregation is tested over "
        "pairs.",
        num_left=3,
    )


def cost_sheet(results: Sequence[Result], projection: Sequence[tuple[str, float]]) -> report.Sheet:
    """Seconds to project one encoder's latents, and to train and score one head."""
    rows = [[f"project: {products.label([name])}", "", "", f"{s:.3f}"] for name, s in projection]
    groups: dict[tuple[str, int, int], list[float]] = {}
    for result in results:
        setting = result.setting
        key = (setting.aggregation, len(setting.names), setting.anchors)
        groups.setdefault(key, []).append(result.seconds)
    for (name, size, anchors), values in groups.items():
        rows.append([f"head: {name}", str(size), str(anchors), f"{np.mean(values):.3f}"])
    return report.Sheet(
        "Cost",
        ("Step", "Distances", "Anchors", "Seconds"),
        rows,
        f"Wall time on {jax.device_count()} x {jax.devices()[0].device_kind}, without compilation "
        "where there are two seeds or more, of one encoder: to project all of its samples, or to "
        "train a head with its aggregation and score it on every encoder. Heads of all devices run "
        "at once.",
    )


def write_figures(
    folder: Path, problem: latents.Problem, results: Sequence[Result]
) -> list[tuple[str, Path]]:
    """Intervals of all settings, heat maps of the single distances and their product."""
    varying = [field for field, _ in _varying(results)]
    ordered = sorted(results, key=lambda result: -result.pairs.mean())
    values = {
        ", ".join([r.setting.label, *(str(getattr(r.setting, field)) for field in varying)]): (
            latents.seed_summary(r.stitched)
        )
        for r in ordered
    }
    path = report.save(report.intervals(values, "stitched accuracy"), folder / "subsets.png")
    figures = [("Stitched accuracy; whiskers: standard deviation over seeds.", path)]
    first = dataclasses.replace(results[0].setting, names=())
    sizes = {1, max(len(result.setting.names) for result in results)}
    shown = [
        result
        for result in results
        if dataclasses.replace(result.setting, names=()) == first
        and len(result.setting.names) in sizes
    ]
    letters = tuple(stitching.letters(problem.names))
    grids = [
        report.Grid(
            result.setting.label, METRIC, result.scores[METRIC].mean(axis=0), letters, letters
        )
        for result in shown
    ]
    key = ", ".join(f"{s} {name}" for s, name in zip(letters, problem.names, strict=True))
    path = report.save(report.pair_grid(grids), folder / "pairs.png")
    figures.append((f"Accuracy, mean over seeds. {key}.", path))
    return figures
