"""Train small transformers on texts from many seeds, then stitch every encoder to every head.

End-to-end text classification with absolute and relative latents, as experiment A4 of Moschella et
al. 2023 (arXiv 2209.15430) does it for images and graphs, and the stitching of their section 5 with
encoders trained from scratch in place of pretrained ones.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import anchors as anchor_choice
from relrep_jax import report
from relrep_jax.data.base import DatasetError
from relrep_jax.data.texts import TextDataset, load_texts
from relrep_jax.experiments import end_to_end
from relrep_jax.experiments.config import ConfigError, check_at_least, check_fields, cut_to_scale
from relrep_jax.models import PureModel, Representation, Variables, functional, represent
from relrep_jax.models.transformer import TextClassifier
from relrep_jax.stitching import is_correct
from relrep_jax.training.logs import MetricsLog, TrainingProgress
from relrep_jax.training.loop import Loss
from relrep_jax.training.losses import cross_entropy
from relrep_jax.training.seeds import SeedPlan, over_seeds, plan_seeds
from relrep_jax.training.selection import Selection

DATA_FIELDS = (
    "Texts are chosen with config.data.path, a .tsv or .csv, its columns with config.data.column "
    "and config.data.label_column."
)

SMOKE = {
    "seeds": {"count": 2},
    "training": {"epochs": 2},
    "anchors": {"count": 32},
    "model": {"width": 32, "num_layers": 1, "max_length": 16},
}
"""The largest values at the scale `smoke`."""


def default_config() -> ConfigDict:
    """Every field of this experiment, with the values of a small job."""
    config = ConfigDict()
    config.experiment = "text_stitching"

    config.data = ConfigDict()
    # A .tsv or .csv (or .gz) with columns of texts, labels and the split; empty: paragraphs of
    # Python's own documentation, whose class is the chapter.
    config.data.path = ""
    # Names of the columns, where the heading does not tell.
    config.data.column = ""
    config.data.label_column = ""
    # The most frequent words that are known.
    config.data.max_words = 10_000
    # Of the training texts, held out where checkpoint.keep is best.
    config.data.val_fraction = 0.1

    config.model = ConfigDict()
    # Tokens that are read of a text.
    config.model.max_length = 32
    # Of token vectors and of the latents.
    config.model.width = 64
    config.model.num_layers = 2
    config.model.num_heads = 4
    config.model.dropout = 0.1

    end_to_end.add_shared_fields(config)

    config.anchors = ConfigDict()
    config.anchors.count = 128
    # The same anchors for all seeds: they are what the seeds have in common.
    config.anchors.seed = 0

    config.training = ConfigDict()
    config.training.epochs = 20
    config.training.batch_size = 64
    return config


@dataclasses.dataclass(frozen=True)
class Job:
    """A config that was found good, with everything that it names.

    `validation` are training texts held out to judge models, of which there may be none."""

    config: ConfigDict
    dataset: TextDataset
    validation: dict[str, np.ndarray]
    anchors: np.ndarray
    seeds: tuple[int, ...]
    plan: SeedPlan
    optimizer: optax.GradientTransformation
    models: dict[str, PureModel]
    representations: dict[str, Representation]


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its texts, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, default_config(), free=end_to_end.FREE_FIELDS)
    representations = end_to_end.read_representations(config)
    config = cut_to_scale(config, SMOKE)
    check_at_least(
        config,
        {
            **end_to_end.MINIMUM,
            "data.max_words": 1,
            "model.max_length": 1,
            "model.width": 1,
            "model.num_layers": 1,
            "model.num_heads": 1,
            "training.batch_size": 1,
        },
    )
    if not 0 <= config.model.dropout < 1:
        raise ConfigError(f"config.model.dropout must lie in [0, 1), got {config.model.dropout}.")
    plan = plan_seeds(config.seeds.count, config.seeds.axis)
    try:
        dataset = load_texts(
            config.data.path,
            column=config.data.column or None,
            label_column=config.data.label_column or None,
            max_length=config.model.max_length,
            max_words=config.data.max_words,
        )
    except DatasetError as error:
        raise ConfigError(f"{error} ({DATA_FIELDS})") from error
    rows, held_out = end_to_end.hold_out(config, len(dataset.x_train))
    validation = {"tokens": dataset.x_train[held_out], "label": dataset.y_train[held_out]}
    dataset = dataclasses.replace(
        dataset, x_train=dataset.x_train[rows], y_train=dataset.y_train[rows]
    )
    num_samples = len(rows)
    for field, count in (
        ("training.batch_size", config.training.batch_size),
        ("anchors.count", config.anchors.count),
    ):
        if count > num_samples:
            raise ConfigError(
                f"config.{field} is {count}, but {dataset.name} has only {num_samples} training "
                "texts."
            )
    choose = jax.jit(anchor_choice.stratified, static_argnums=2)
    anchors = choose(jax.random.key(config.anchors.seed), dataset.y_train, config.anchors.count)
    steps = config.training.epochs * (num_samples // config.training.batch_size)
    models = {
        name: _build_model(config, dataset, representation)
        for name, representation in representations.items()
    }
    return Job(
        config,
        dataset,
        validation,
        np.asarray(anchors),
        end_to_end.seed_numbers(config),
        plan,
        end_to_end.read_optimizer(config, steps),
        models,
        representations,
    )


def _build_model(
    config: ConfigDict, dataset: TextDataset, representation: Representation
) -> PureModel:
    fields = config.model
    return functional(
        lambda rngs: TextClassifier(
            dataset.vocabulary_size,
            fields.max_length,
            num_classes=dataset.num_classes,
            width=fields.width,
            num_layers=fields.num_layers,
            num_heads=fields.num_heads,
            dropout_rate=fields.dropout,
            representation=representation,
            num_anchors=config.anchors.count,
            rngs=rngs,
        )
    )


def make_loss(model: PureModel, representation: Representation) -> Loss:
    """Cross entropy of a batch `{"tokens", "label"}`; the context is the anchors' tokens.

    Anchors are encoded anew in every step, without dropout; no gradient passes through them.
    """

    def loss(variables: Variables, batch: dict, anchor_tokens: jax.Array, key: jax.Array):
        latents, _ = model.apply(variables, "encode", batch["tokens"], key)
        anchors = None
        if not representation.is_absolute:
            frozen = jax.tree.map(jax.lax.stop_gradient, variables)
            anchors, _ = model.apply(frozen, "encode", anchor_tokens)
        space = represent(representation, latents, anchors)
        logits, stats = model.apply(variables, "decode", space)
        accuracy = jnp.mean(is_correct(logits, batch["label"]))
        return cross_entropy(logits, batch["label"]), (stats, {"accuracy": accuracy})

    return loss


def run(job: Job, workdir: Path, console: Console, command: str = "") -> list[report.Summary]:
    """Train, stitch, report; everything goes to `workdir`.

    Args:
        job: from `prepare`.
        workdir: from `claim_workdir`; a run that was interrupted there goes on.
        console: where progress and the table are printed.
        command: what a reader types to run it again.

    Returns:
        The rows of the table.
    """
    config, dataset = job.config, job.dataset
    anchors = jnp.asarray(job.anchors)
    data = job.plan.share({"tokens": dataset.x_train, "label": dataset.y_train})
    console.print(f"{_title(job)}\n{_headline(job)}", highlight=False)
    grids, spaces, curves = [], {}, {}
    totals = dict.fromkeys(job.models, config.training.epochs)
    with MetricsLog(workdir, job.seeds) as log, TrainingProgress(console, totals) as progress:
        for name, model in job.models.items():
            variables = end_to_end.train_seeds(
                name,
                model,
                make_loss(model, job.representations[name]),
                job.optimizer,
                data,
                config=config,
                seeds=job.seeds,
                plan=job.plan,
                workdir=workdir,
                log=log,
                progress=progress,
                batch_size=config.training.batch_size,
                make_context=lambda data: data["tokens"][anchors],
                select=_selection(job, name) if end_to_end.keeps_best(config) else None,
            )
            found, spaces[name] = evaluate(job, name, variables)
            labels = tuple(map(str, job.seeds))
            grids += [report.Grid(row, "accuracy", x, labels, labels) for row, x in found.items()]
            curves[name] = log.curves(name)
    summaries = [report.summarize(grid) for grid in grids]
    end_to_end.write_results(
        workdir,
        grids,
        summaries,
        config=config,
        title=_title(job),
        intro=f"{_headline(job)}.",
        command=command,
        spaces=spaces,
        labels=dataset.y_test,
        curves=curves,
        sections=end_to_end.published_section(config, is_embedded=dataset.is_embedded),
    )
    console.print(report.terminal_table(summaries, title=_title(job)))
    console.print(f"Report: {workdir / 'report.md'}", highlight=False)
    return summaries


def evaluate(
    job: Job, name: str, variables: Variables
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Every encoder with every head on the test texts.

    Args:
        job: what was trained.
        name: of the representation.
        variables: the models, with a leading seed axis.

    Returns:
        Accuracies `[encoders, decoders]` by row of the tables; and what the figures show of the
        spaces.
    """
    plan, model = job.plan, job.models[name]
    encode = _make_encode(model, job.representations[name])

    variables = plan.pad(variables)
    tokens = plan.share((job.dataset.x_test, job.dataset.x_train[job.anchors]))
    spaces, anchors = plan.unpad(over_seeds(encode, plan)(variables, *tokens))
    rows = end_to_end.read_as(job.config, name)
    labels = job.dataset.y_test
    grids = end_to_end.accuracy_grids(model, plan, variables, spaces, anchors, labels, rows)
    return grids, end_to_end.shown_spaces(np.asarray(spaces))


def _make_encode(model: PureModel, representation: Representation) -> Callable[..., Any]:
    """`(variables, tokens, anchors' tokens) -> (space, anchors' latents)`, without dropout."""

    def encode(variables: Variables, tokens: jax.Array, anchor_tokens: jax.Array):
        latents, _ = model.apply(variables, "encode", tokens)
        anchors, _ = model.apply(variables, "encode", anchor_tokens)
        return represent(representation, latents, anchors), anchors

    return encode


def _selection(job: Job, name: str) -> Selection:
    """Judge a model by the accuracy of its own head on the validation texts."""
    model = job.models[name]
    encode = _make_encode(model, job.representations[name])

    def score(variables: Variables, data: Any) -> jax.Array:
        anchor_tokens, texts = data
        space, _ = encode(variables, texts["tokens"], anchor_tokens)
        logits, _ = model.apply(variables, "decode", space)
        return jnp.mean(is_correct(logits, texts["label"]))

    return Selection(score, job.plan.share((job.dataset.x_train[job.anchors], job.validation)))


def _title(job: Job) -> str:
    name = end_to_end.dataset_title(job.dataset.name, is_embedded=job.dataset.is_embedded)
    return f"Text classifier on {name}: zero-shot stitching"


def _headline(job: Job) -> str:
    fields, dataset = job.config.model, job.dataset
    samples = end_to_end.describe_samples(
        len(dataset.x_train), len(job.validation["label"]), len(dataset.x_test)
    )
    return (
        f"{samples} texts of "
        f"{dataset.num_classes} classes, {len(dataset.vocabulary):,} words, a transformer of "
        f"{fields.num_layers} layers of width {fields.width}, {len(job.anchors)} anchors, "
        f"{job.config.training.epochs} epochs, "
        f"{end_to_end.describe_plan(job.plan, len(job.models))}"
    )
