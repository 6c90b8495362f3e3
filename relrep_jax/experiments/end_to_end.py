"""What experiments share that train models from many seeds and stitch every pair of them.

Such an experiment brings models, data and scores; here are the fields of its config that say how
to train, the training itself, and its tables, figures and report.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from relrep_jax import report
from relrep_jax import translation as translations
from relrep_jax.checks import lookup
from relrep_jax.experiments.config import ConfigError, check_fields
from relrep_jax.models import PureModel, Representation, Variables
from relrep_jax.stitching import Decode, Score, is_correct, stitching_column
from relrep_jax.training.logs import MetricsLog, TrainingProgress
from relrep_jax.training.loop import Loss
from relrep_jax.training.optimizers import make_optimizer, make_schedule
from relrep_jax.training.seeds import SeedPlan, over_seeds
from relrep_jax.training.trainer import Epoch, train

FREE_FIELDS = ("representations", "optimizer.options")
"""Groups of fields in which a user may add others."""
MINIMUM = {
    "seeds.count": 1,
    "seeds.first": 0,
    "anchors.count": 1,
    "anchors.seed": 0,
    "training.epochs": 1,
    "checkpoint.every": 1,
    "optimizer.clip_norm": 0,
    "optimizer.l2_penalty": 0,
}
"""What the numbers of the shared fields must reach."""
MAX_SPACES = 5
MAX_POINTS = 1000
FURTHER_SCORES = "Further scores"
"""Heading of the table of all metrics but the leading one."""

_Scored = TypeVar("_Scored", report.Grid, report.Summary)


def representation_config(
    similarities: tuple[str, ...] = (),
    aggregation: str = "concatenation",
    absolute_transform: str = "",
) -> ConfigDict:
    """One entry of `config.representations`.

    Args:
        similarities: names of similarities; none means the absolute form.
        aggregation: how the decoder reads their product. A single space and `concatenation` is
            the paper's relative layer: the similarities, then a LayerNorm.
        absolute_transform: a transform of the latents fitted on the anchors, such as `centering`.
    """
    config = ConfigDict()
    config.similarities = similarities
    config.aggregation = aggregation
    config.absolute_transform = absolute_transform
    return config


def add_shared_fields(config: ConfigDict) -> None:
    """Add what all these have: scale, representations, seeds, optimiser, checkpoints."""
    # full | smoke: cut to what takes less than a minute, to see it run.
    config.scale = "full"
    # What the paper found, for reports on other than embedded data.
    config.published = ""

    # Names of relrep_jax.translation, such as ("orthogonal", "ridge"): through these maps, fitted
    # on the anchors, decoders of absolute latents read other encoders as well.
    config.translations = ()

    # Representations with which reports compare every other, beside the first one and the one that
    # is stitched best: names as in tables.
    config.compare_with = ()

    # What the decoder reads. No similarities: the latents themselves.
    config.representations = ConfigDict(sort_keys=False)
    config.representations.absolute = representation_config()
    config.representations.relative_cosine = representation_config(("cosine",))
    config.representations.product = representation_config(
        ("cosine", "euclidean", "manhattan", "chebyshev"), aggregation="mlp_sum"
    )

    config.seeds = ConfigDict()
    config.seeds.count = 5
    config.seeds.first = 0
    # auto | vmap | map: how the seed axis runs on a device (the same up to rounding).
    config.seeds.axis = "auto"

    config.optimizer = ConfigDict()
    # Any of relrep_jax.training.optimizers.OPTIMIZERS, with its options.
    config.optimizer.name = "adam"
    config.optimizer.options = ConfigDict()
    config.optimizer.learning_rate = 1e-3
    # constant | cosine, after a linear warm-up
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 0
    # Largest global norm of a gradient; 0: no clipping.
    config.optimizer.clip_norm = 10.0
    # This times the parameters is added to gradients: an L2 penalty of half of it.
    config.optimizer.l2_penalty = 0.0

    config.checkpoint = ConfigDict()
    # Epochs between checkpoints; there is always one at the end.
    config.checkpoint.every = 10
    # last | best: which model of each seed is stitched, that of the last epoch, or that of the
    # epoch after which it did best, with its own decoder, on samples that are held out for this.
    config.checkpoint.keep = "last"


def read_as(config: ConfigDict, name: str) -> dict[str, str]:
    """The rows that a representation has in tables, with the translation of each: one row that
    is not translated, and for absolute latents one for each of `config.translations`.

    Raises:
        ConfigError, ValueError: an unknown translation, or one whose row has the name of a
            representation.
    """
    rows = {name: ""}
    if not config.representations[name].similarities:
        for translation in config.translations:
            translations.get(translation)
            row = f"{name}_{translation}"
            if row in config.representations:
                raise ConfigError(
                    f"The representation {row!r} has the name of {name!r} read through the "
                    f"translation {translation!r}: call it otherwise."
                )
            rows[row] = translation
    return rows


def read_representations(config: ConfigDict) -> dict[str, Representation]:
    """The representations that a config names.

    Raises:
        ConfigError, ValueError: none, a name that would not do, a field or value that is unknown.
    """
    for name, fields in config.representations.items():
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(
                f"The representation name {name!r} would not do as a file name: use letters, "
                "digits, - and _."
            )
        reference = ConfigDict({"representations": {name: representation_config().to_dict()}})
        given = ConfigDict({"representations": {name: fields}})
        check_fields(given, reference)
    if not config.representations:
        raise ConfigError("config.representations is empty: name at least one.")
    rows = [row for name in config.representations for row in read_as(config, name)]
    if config.translations and len(rows) == len(config.representations):
        raise ConfigError(
            "config.translations are maps of absolute latents, and every one of "
            "config.representations has similarities: add one without, or leave them out."
        )
    for name in config.compare_with:
        lookup("representation in config.compare_with", name, dict.fromkeys(rows))
    return {
        name: Representation(
            name,
            tuple(fields.similarities),
            fields.aggregation,
            fields.absolute_transform or None,
        )
        for name, fields in config.representations.items()
    }


def seed_numbers(config: ConfigDict) -> tuple[int, ...]:
    """The seeds that a config names."""
    return tuple(range(config.seeds.first, config.seeds.first + config.seeds.count))


def keeps_best(config: ConfigDict) -> bool:
    """Whether models are judged on validation samples after every epoch (`checkpoint.keep`).

    Raises:
        ValueError: neither `last` nor `best`.
    """
    return lookup("model to keep", config.checkpoint.keep, {"last": False, "best": True})


def hold_out(config: ConfigDict, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of a training part, at random but always alike, if models are judged.

    Args:
        config: of an experiment, with `data.val_fraction`.
        num_samples: of the training part.

    Returns:
        Rows to train on and rows for validation, ascending; none of the latter where the last
        model is kept.

    Raises:
        ConfigError, ValueError: a fraction that leaves no rows on one of the sides.
    """
    if not keeps_best(config):
        return np.arange(num_samples), np.arange(0)
    fraction = config.data.val_fraction
    count = round(fraction * num_samples) if 0 < fraction < 1 else 0
    if not 0 < count < num_samples:
        raise ConfigError(
            "config.data.val_fraction must leave samples for validation and for training, since "
            f"config.checkpoint.keep is best: got {fraction} of {num_samples} training samples."
        )
    rows = np.random.default_rng(0).permutation(num_samples)
    return np.sort(rows[count:]), np.sort(rows[:count])


def read_optimizer(config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """The optimiser that a config names, for a training of so many steps.

    Raises:
        ConfigError, ValueError: an unknown name or option, a number out of range.
    """
    fields = config.optimizer
    if not fields.learning_rate > 0:
        raise ConfigError(
            f"config.optimizer.learning_rate must be above 0, got {fields.learning_rate}."
        )
    for name in ("name", "learning_rate", "clip_norm", "l2_penalty"):
        if name in fields.options:
            raise ConfigError(
                f"config.optimizer.options.{name} is a field of its own: set "
                f"config.optimizer.{name} instead."
            )
    schedule = make_schedule(
        fields.schedule, fields.learning_rate, total_steps, fields.warmup_steps
    )
    optimizer = make_optimizer(
        fields.name, schedule, fields.clip_norm, fields.l2_penalty, **fields.options
    )
    weights = {"kernel": jax.ShapeDtypeStruct((2, 2), np.float32)}
    try:
        jax.eval_shape(lambda w: optimizer.update(w, optimizer.init(w), w), weights)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The optimiser {fields.name!r} cannot work with config.optimizer.options "
            f"{dict(fields.options)}: {error}"
        ) from error
    return optimizer


def train_seeds(
    name: str,
    model: PureModel,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    config: ConfigDict,
    seeds: Sequence[int],
    plan: SeedPlan,
    workdir: Path,
    log: MetricsLog,
    progress: TrainingProgress,
    **options: Any,
) -> Variables:
    """Train one representation from all seeds, or go on where it stopped; say how it goes.

    Args:
        name: of the representation.
        model, loss, optimizer, data, seeds, plan: see `relrep_jax.training.trainer.train`.
        config: of the experiment, with `training.epochs` and `checkpoint.every`.
        workdir: where checkpoints go.
        log, progress: told of every epoch.
        **options: `batch_size`, `make_context`, `log_every`, `select` and `program` of `train`.

    Returns:
        The trained models, with a leading seed axis.
    """
    diverged: set[int] = set()

    def on_resume(epoch: int) -> None:
        log.forget(name, epoch)
        losses = log.curves(name)
        if losses.size:
            diverged.update(np.asarray(seeds)[np.isnan(losses[:, -1])].tolist())
        progress.advance(name, epoch)
        if epoch:
            progress.say(f"{name}: going on from epoch {epoch}.")

    def on_epoch(epoch: Epoch) -> None:
        log.write(name, epoch.number, epoch.step, epoch.seconds, epoch.metrics)
        progress.advance(name, epoch.number, epoch.metrics["loss"])
        for seed, value in zip(seeds, epoch.metrics["loss"], strict=True):
            if not np.isfinite(value) and seed not in diverged:
                diverged.add(seed)
                progress.say(
                    f"{name}: seed {seed} diverged in epoch {epoch.number} (its loss is {value}); "
                    "the other seeds go on."
                )

    state = train(
        model,
        loss,
        optimizer,
        data,
        seeds=seeds,
        plan=plan,
        epochs=config.training.epochs,
        checkpoint_directory=workdir / "checkpoints" / name,
        checkpoint_every=config.checkpoint.every,
        on_resume=on_resume,
        on_epoch=on_epoch,
        **options,
    )
    if keeps_best(config):
        judged = np.nan_to_num(log.curves(name, "validation"), nan=-np.inf)
        # A log that was cut short does not tell.
        if judged.shape[-1] == config.training.epochs:
            kept = ", ".join(str(epoch) for epoch in 1 + judged.argmax(axis=1))
            progress.say(f"{name}: kept of each seed the model after epoch {kept}.")
    return state.variables


def stitching_columns(decode: Decode, score: Score, plan: SeedPlan) -> Callable[..., Any]:
    """Compile `(decoders, spaces, targets) -> scores`, decoders spread over seeds.

    Scores are `[decoders, encoders, ...]`; spaces `[encoders, ...]` and targets are shared.
    """
    return over_seeds(
        lambda decoder, spaces, targets: stitching_column(decode, score, spaces, decoder, targets),
        plan,
    )


def translation_maps(translation: str, plan: SeedPlan, anchors: Any) -> Any:
    """Maps from every encoder's latents to every decoder's, fitted on the anchors.

    Args:
        translation: a name of `relrep_jax.translation`.
        plan: of the seeds.
        anchors: `[seeds, m, d]`, the latents of the anchors by all models.

    Returns:
        The maps' parameters with leading axes of decoders (padded) and encoders.
    """
    fit = translations.get(translation).fit

    @jax.jit
    def fit_all(anchors):
        # One after another on one device: batched decompositions on several CPU devices at once
        # wait for one another for ever (each for threads that the others hold; jaxlib 0.10).
        def to(target):
            return jax.lax.map(lambda source: fit(source, target), anchors)

        return jax.lax.map(to, anchors)

    return plan.pad(fit_all(jax.device_put(anchors, _decomposition_device(plan))))


def _decomposition_device(plan: SeedPlan) -> jax.Device:
    """Where small matrices are decomposed: on the CPU, which accelerators are slower at."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to use the accelerator alone
        return plan.mesh.devices.flat[0]


def translated_columns(
    decode: Decode, score: Score, plan: SeedPlan, translation: str
) -> Callable[..., Any]:
    """`stitching_columns` through maps: `((decoders, maps), spaces, targets) -> scores`."""
    apply = translations.get(translation).apply

    def read(decoder: Any, space: Any) -> jax.Array:
        latents, params = space
        return decode(decoder, apply(params, latents))

    def column(pair: Any, spaces: Any, targets: Any) -> jax.Array:
        decoder, maps = pair
        return stitching_column(read, score, (spaces, maps), decoder, targets)

    return over_seeds(column, plan)


class RowScorer(NamedTuple):
    """What scores one row of the tables: decoders, and how they read every encoder's spaces.

    Attributes:
        columns: `(decoders, spaces, targets) -> scores [decoders, encoders, ...]`, compiled.
        decoders: with a leading seed axis that is padded.
    """

    columns: Callable[..., Any]
    decoders: Any


def make_row_scorers(
    rows: Mapping[str, str],
    decode: Decode,
    score: Score,
    plan: SeedPlan,
    variables: Variables,
    anchors: Any,
) -> dict[str, RowScorer]:
    """The scorers of one representation's rows.

    Args:
        rows: names with their translations (`read_as`).
        decode, score: see `relrep_jax.stitching.stitching_grid`.
        plan: of the seeds.
        variables: the decoders, with a leading seed axis that is padded.
        anchors: `[seeds, m, d]`, the latents of the anchors; needed for translations alone.
    """
    return {
        row: RowScorer(
            translated_columns(decode, score, plan, translation),
            (variables, translation_maps(translation, plan, anchors)),
        )
        if translation
        else RowScorer(stitching_columns(decode, score, plan), variables)
        for row, translation in rows.items()
    }


def accuracy_grids(
    model: PureModel,
    plan: SeedPlan,
    variables: Variables,
    spaces: Any,
    anchors: Any,
    labels: np.ndarray,
    rows: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """Accuracy of every encoder with every head, `[encoders, decoders]`, by row of the tables.

    Args:
        model: whose `decode` gives logits.
        plan: of the seeds.
        variables: the heads, with a leading seed axis that is padded.
        spaces: `[seeds, n, d]` or `[seeds, s, n, m]`, what crosses from each encoder.
        anchors: `[seeds, m, d]`, the latents of the anchors; needed for translations alone.
        labels: `[n]`.
        rows: names with their translations (`read_as`).

    Returns:
        The accuracies; NaN for an encoder that diverged, and for its head: NaN logits would be
        scored as the first class.
    """

    def decode(decoder: Variables, space: jax.Array) -> jax.Array:
        return model.apply(decoder, "decode", space)[0]

    shared = plan.share(spaces), plan.share(labels)
    grids = {}
    for row, scorer in make_row_scorers(rows, decode, is_correct, plan, variables, anchors).items():
        scores = plan.unpad(scorer.columns(scorer.decoders, *shared))
        grids[row] = np.asarray(scores, np.float64).mean(axis=-1).T
    return finished_grids(grids, is_alive(spaces))


def is_alive(spaces: Any) -> np.ndarray:
    """`[seeds]`, which encoders have not diverged, of `[seeds, n, d]` or `[seeds, s, n, m]`."""
    return np.isfinite(np.asarray(spaces)).all(axis=tuple(range(1, spaces.ndim)))


def finished_grids(grids: dict[str, np.ndarray], alive: np.ndarray) -> dict[str, np.ndarray]:
    """Grids of the rows of one representation (`read_as`), as they are reported.

    Args:
        grids: scores `[encoders, decoders]`.
        alive: `[seeds]`. A seed that diverged has no scores, neither as encoder nor as decoder:
            NaN logits would be scored as the first class.

    Returns:
        The grids, all with the diagonal of the first: a model's own latents are not translated.
    """
    own = np.diag(next(iter(grids.values())))
    is_own = np.eye(len(own), dtype=bool)
    both = alive[:, None] & alive
    return {row: np.where(both, np.where(is_own, own, grid), np.nan) for row, grid in grids.items()}


def shown_spaces(spaces: np.ndarray) -> list[np.ndarray]:
    """Of spaces `[seeds, n, d]` or `[seeds, s, n, m]` what figures show: the first few seeds,
    diverged ones with their NaN, a thousand rows, a product's spaces side by side."""
    return [_flatten_space(space)[:MAX_POINTS] for space in spaces[:MAX_SPACES]]


def shown_seeds(seeds: Sequence[int]) -> list[str]:
    """What figures call the seeds of `shown_spaces`."""
    return [f"seed {seed}" for seed in seeds[:MAX_SPACES]]


def _flatten_space(space: np.ndarray) -> np.ndarray:
    """`[n, d]` as it is; a product `[s, n, m]` as `[n, s * m]`, each space at unit spread."""
    if space.ndim == 2:
        return space
    space = space - space.mean(axis=(1, 2), keepdims=True)
    spread = space.std(axis=(1, 2), keepdims=True)
    space = space / np.where(spread == 0, 1.0, spread)
    return np.moveaxis(space, 0, 1).reshape(space.shape[1], -1)


def translations_section(rows: Sequence[str]) -> list[tuple[str, str]]:
    """What a report says of rows that are read through a translation; nothing without them."""
    if not rows:
        return []
    text = (
        f"{', '.join(f'`{row}`' for row in rows)}: the latents of the row's representation as they "
        "are, mapped from the encoder's space to the decoder's by a translation that was fitted on "
        "the anchors of both. Not stitched they are not mapped, so that these scores are the "
        "representation's own."
    )
    return [("Translations", text)]


def write_results(
    workdir: Path,
    grids: list[report.Grid],
    summaries: list[report.Summary],
    *,
    config: ConfigDict,
    title: str,
    intro: str,
    spaces: dict[str, list[np.ndarray]],
    labels: np.ndarray,
    curves: dict[str, np.ndarray],
    command: str = "",
    figures: Callable[[], Sequence[tuple[str, str, Figure]]] = tuple,
    sections: Sequence[tuple[str, str]] = (),
) -> None:
    """Write tables, figures and the report to `workdir`.

    Args:
        workdir: where they go.
        grids, summaries: one a row of the tables and a metric, those of the leading metric first;
            figures and comparisons show that one alone.
        config: of the experiment.
        title, intro, command: of the report.
        spaces: representation to what `shown_spaces` gives.
        labels: classes of the rows of `spaces`; further ones are left out.
        curves: representation to training losses `[seeds, epochs]`.
        figures: makes further ones, name, caption and figure of each, which come first; called once
            the tables are written.
        sections: heading and text of further sections of the report.
    """
    tables = workdir / "tables"
    report.write_stitching_csv(tables / "stitching.csv", grids)
    report.write_stitching_json(tables / "stitching.json", grids)
    report.write_summary_csv(tables / "summary.csv", summaries)
    report.write_summary_json(tables / "summary.json", summaries)
    summaries, further = split_by_metric(summaries)
    grids, _ = split_by_metric(grids)
    projected = {name: report.project_jointly(parts) for name, parts in spaces.items()}
    shared = [
        (
            "latent_spaces",
            "What crosses from encoder to decoder, seed by seed: the principal plane of the first "
            "seed's space, the same for all seeds; colours are classes.",
            report.latent_spaces(
                projected, labels[:MAX_POINTS], seed_names=shown_seeds(seed_numbers(config))
            ),
        ),
        (
            "pair_grid",
            "Every encoder with every decoder; the diagonal is not stitched.",
            report.pair_grid(grids),
        ),
    ]
    # A log that was deleted has no curves; what was trained is stitched all the same.
    curves = {name: curve for name, curve in curves.items() if curve.size}
    if curves:
        shared.append(
            (
                "learning_curves",
                "Training loss by epoch: mean and range over seeds.",
                report.learning_curves(curves, ylabel="training loss"),
            )
        )
    shown = []
    for name, caption, figure in (*figures(), *shared):
        report.save(figure, workdir / "figures" / f"{name}.png")
        shown.append((caption, f"figures/{name}.png"))
    sections = list(sections)
    read = [row for name in config.representations for row in read_as(config, name)]
    translated_rows = [row for row in read if row not in config.representations]
    sections[:0] = translations_section(translated_rows)
    if further:
        sections.insert(0, (FURTHER_SCORES, report.markdown_table(further).strip()))
    several = len(grids[0].encoders) > 1
    compared = report.compare_grids(grids, config.compare_with) if several else []
    if compared:
        columns = report.PAIRED_GRID_COLUMNS
        report.write_csv(tables / "comparisons.csv", columns, compared)
        report.write_json(tables / "comparisons.json", columns, compared)
        sheet = report.paired_grids_sheet(compared)
        sections.insert(0, (sheet.title, report.sheet_markdown(sheet)))
    files = (
        "Files",
        "`tables/stitching.csv` has one row for each pair of encoder and decoder, "
        "`tables/summary.csv` the table above, "
        f"{'`tables/comparisons.csv` the paired comparisons, ' if compared else ''}"
        "`metrics.jsonl` the losses of every epoch "
        "and seed, `checkpoints/` the trained models, `config.json` the configuration.",
    )
    report.write_report(
        workdir / "report.md",
        title=title,
        intro=intro,
        command=command or f"python train.py --workdir={shlex.quote(str(workdir))}",
        summaries=summaries,
        figures=shown,
        sections=[*sections, files],
        versions=report.environment("flax", "optax"),
    )


def split_by_metric(rows: list[_Scored]) -> tuple[list[_Scored], list[_Scored]]:
    """Grids or summaries of the first one's metric, and those of all others."""
    leading = [row for row in rows if row.metric == rows[0].metric]
    return leading, [row for row in rows if row.metric != rows[0].metric]


def dataset_title(name: str, *, is_embedded: bool) -> str:
    """What headings call a data set: they say where it stands in for a paper's."""
    return f"{name} (embedded)" if is_embedded else name


def published_section(config: ConfigDict, *, is_embedded: bool) -> list[tuple[str, str]]:
    """The report's section with what the paper found, where the data are like the paper's."""
    return [("Published", config.published)] if config.published and not is_embedded else []


def describe_samples(train: int, validation: int, test: int) -> str:
    """`900 training, 100 validation and 500 test`."""
    held_out = f", {validation:,} validation" if validation else ""
    return f"{train:,} training{held_out} and {test:,} test"


def describe_plan(plan: SeedPlan, num_representations: int) -> str:
    """`5 seeds x 3 representations, map over seeds on 2 cpu devices`."""

    def number(count: int, what: str) -> str:
        return f"{count} {what}{'' if count == 1 else 's'}"

    return (
        f"{number(plan.num_seeds, 'seed')} x {number(num_representations, 'representation')}, "
        f"{plan.strategy} over seeds on "
        f"{number(plan.mesh.size, plan.mesh.devices.flat[0].platform + ' device')}"
    )
