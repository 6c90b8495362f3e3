"""Train image models from many seeds, then stitch every encoder to every decoder.

Experiments A1 and A5 of Moschella et al. 2023 (arXiv 2209.15430) and zero-shot reconstruction of
Cannistraci et al. 2024 (arXiv 2310.01211); with the classifier, their end-to-end classification.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
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
from relrep_jax.checks import lookup
from relrep_jax.data import DatasetError, ImageDataset, load_images
from relrep_jax.experiments import end_to_end
from relrep_jax.experiments.config import ConfigError, check_at_least, check_fields, cut_to_scale
from relrep_jax.experiments.end_to_end import representation_config
from relrep_jax.experiments.tasks import TASKS, Task, count_parameters
from relrep_jax.models import Representation, Variables
from relrep_jax.models.functional import PureModel
from relrep_jax.training.ahead import Ahead
from relrep_jax.training.logs import MetricsLog, TrainingProgress
from relrep_jax.training.loop import Loss
from relrep_jax.training.seeds import SeedPlan, over_seeds, plan_seeds, take_seed
from relrep_jax.training.selection import Selection
from relrep_jax.training.trainer import Program, compile_program, make_program

__all__ = ["Job", "default_config", "evaluate", "prepare", "representation_config", "run"]


def default_config() -> ConfigDict:
    """Every field of this experiment, with the values of the default job."""
    config = ConfigDict()
    config.experiment = "image_stitching"
    # autoencoder | variational_autoencoder | classifier
    config.task = "autoencoder"

    config.data = ConfigDict()
    # digits (embedded) | mnist | fashion_mnist | cifar10 | cifar100 (prepared by tfds)
    config.data.name = "digits"
    # A .npz in the Keras layout (x_train, y_train, x_test, y_test), instead of a name.
    config.data.path = ""
    # Where tfds keeps prepared data; empty: its own default.
    config.data.data_dir = ""
    # Only the first so many rows; 0: all.
    config.data.train_limit = 0
    config.data.test_limit = 0
    # Of the training images, held out where checkpoint.keep is best.
    config.data.val_fraction = 0.1

    config.model = ConfigDict()
    # One stride-2 convolution each; the decoder mirrors them.
    config.model.channels = (32, 64)
    # Width of the latents; 0: the flattened features are the latents.
    config.model.latent_dim = 64
    # That of the latents which relative spaces are made of; -1: the same. The papers have 0.
    config.model.relative_latent_dim = -1

    end_to_end.add_shared_fields(config)

    config.anchors = ConfigDict()
    config.anchors.count = 128
    # uniform | stratified
    config.anchors.choice = "stratified"
    # The same anchors for all seeds: they are what the seeds have in common.
    config.anchors.seed = 0

    config.training = ConfigDict()
    config.training.epochs = 30
    config.training.batch_size = 128
    # optimal_sigma | mse for autoencoders, cross_entropy for the classifier
    config.training.loss = "optimal_sigma"
    # Weight of the variational autoencoder's Kullback-Leibler term.
    config.training.kl_weight = 1.0
    # Steps in one compiled call; 0: an epoch.
    config.training.log_every = 0

    config.evaluation = ConfigDict()
    # Test samples encoded at once.
    config.evaluation.batch_size = 1000
    # Further scores, of reconstructions beside the mean squared error: psnr | ssim | ergas; of
    # classes beside accuracy: f1_weighted
    config.evaluation.metrics = ()
    return config


DATA_FIELDS = (
    "In a config these are config.data.name, .path, .data_dir, .train_limit and .test_limit, of "
    "which 0 is no limit."
)
SMOKE = {
    "seeds": {"count": 2},
    "training": {"epochs": 2},
    "anchors": {"count": 32},
    "data": {"train_limit": 512, "test_limit": 256},
}
"""The largest values at the scale `smoke`."""
SMOKE_REPRESENTATIONS = (0, 1, -1)
"""Which of the representations are trained at that scale, by their place: of many, the first two
and the last one."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A config that was found good, with everything that it names.

    `validation` are training images held out to judge models, of which there may be none."""

    config: ConfigDict
    dataset: ImageDataset
    validation: dict[str, np.ndarray]
    anchors: np.ndarray
    seeds: tuple[int, ...]
    plan: SeedPlan
    tasks: dict[str, Task]
    representations: dict[str, Representation]


def _load(config: ConfigDict, asked: ConfigDict) -> ImageDataset:
    """The images of `config`, which was cut to its scale from what was `asked` for."""
    # A file may have less than a small run takes at most; it is read whole in any case.
    limits = (asked if config.data.path else config).data
    try:
        dataset = load_images(
            config.data.name,
            path=config.data.path or None,
            data_dir=config.data.data_dir or None,
            train_limit=limits.train_limit or None,
            test_limit=limits.test_limit or None,
        )
    except DatasetError as error:
        raise ConfigError(f"{error} ({DATA_FIELDS})") from error
    train, test = config.data.train_limit or None, config.data.test_limit or None
    return dataclasses.replace(
        dataset,
        x_train=dataset.x_train[:train],
        y_train=dataset.y_train[:train],
        x_test=dataset.x_test[:test],
        y_test=dataset.y_test[:test],
    )


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, default_config(), free=end_to_end.FREE_FIELDS)
    representations = end_to_end.read_representations(config)
    asked = config
    config = cut_to_scale(config, SMOKE)
    if config.scale == "smoke":
        named = list(representations.items())
        if len(named) > len(SMOKE_REPRESENTATIONS):
            representations = dict(named[place] for place in SMOKE_REPRESENTATIONS)
        config.translations = config.translations[:1]
    make_task = lookup("task", config.task, TASKS)
    check_at_least(
        config,
        {
            **end_to_end.MINIMUM,
            "model.latent_dim": 0,
            "model.relative_latent_dim": -1,
            "training.batch_size": 1,
            "training.log_every": 0,
            "training.kl_weight": 0,
            "evaluation.batch_size": 1,
            "data.train_limit": 0,
            "data.test_limit": 0,
        },
    )
    lookup("anchor choice", config.anchors.choice, dict.fromkeys(("uniform", "stratified")))
    plan = plan_seeds(config.seeds.count, config.seeds.axis)

    dataset = _load(config, asked)
    rows, held_out = end_to_end.hold_out(config, len(dataset.x_train))
    validation = {"image": dataset.x_train[held_out], "label": dataset.y_train[held_out]}
    dataset = dataclasses.replace(
        dataset, x_train=dataset.x_train[rows], y_train=dataset.y_train[rows]
    )
    num_samples = len(rows)
    if config.training.batch_size > num_samples:
        raise ConfigError(
            f"config.training.batch_size is {config.training.batch_size}, but {dataset.name} has "
            f"only {num_samples} training samples."
        )
    if config.anchors.count > num_samples:
        raise ConfigError(
            f"config.anchors.count is {config.anchors.count}, but {dataset.name} has only "
            f"{num_samples} training samples, and anchors are distinct training samples."
        )
    anchor_key = jax.random.key(config.anchors.seed)
    if config.anchors.choice == "uniform":
        anchors = anchor_choice.uniform(anchor_key, num_samples, config.anchors.count)
    else:
        choose = jax.jit(anchor_choice.stratified, static_argnums=2)
        anchors = choose(anchor_key, dataset.y_train, config.anchors.count)

    _make_optimizer(config, num_samples)
    tasks = {
        name: make_task(config, dataset, representation)
        for name, representation in representations.items()
    }
    for task in tasks.values():
        count_parameters(task)
    seeds = end_to_end.seed_numbers(config)
    return Job(
        config, dataset, validation, np.asarray(anchors), seeds, plan, tasks, representations
    )


def _make_optimizer(config: ConfigDict, num_samples: int) -> optax.GradientTransformation:
    steps = config.training.epochs * (num_samples // config.training.batch_size)
    return end_to_end.read_optimizer(config, steps)


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
    data = job.plan.share({"image": dataset.x_train, "label": dataset.y_train})
    console.print(_headline(job), highlight=False)
    grids, pictures, curves = [], {}, {}
    with (
        MetricsLog(workdir, job.seeds) as log,
        TrainingProgress(console, dict.fromkeys(job.tasks, config.training.epochs)) as progress,
        Ahead(_compilations(job, data, log)) as programs,
    ):
        for name, task in job.tasks.items():
            variables = train(
                job, name, task, data, workdir, log, progress, program=programs.take(name)
            )
            found, pictures[name] = evaluate(job, name, task, variables)
            labels = tuple(map(str, job.seeds))
            grids += [
                report.Grid(row, metric, values, labels, labels)
                for row, scores in found.items()
                for metric, values in scores.items()
            ]
            curves[name] = log.curves(name)
    metrics = next(iter(job.tasks.values())).metrics
    grids.sort(key=lambda grid: metrics.index(grid.metric))
    summaries = [report.summarize(grid) for grid in grids]
    end_to_end.write_results(
        workdir,
        grids,
        summaries,
        config=config,
        title=_title(job),
        intro=_headline(job).split("\n", 1)[1] + ".",
        command=command,
        spaces={name: picture.spaces for name, picture in pictures.items()},
        labels=next(iter(pictures.values())).labels,
        curves=curves,
        figures=partial(_reconstructions, pictures),
        sections=end_to_end.published_section(config, is_embedded=is_embedded(config)),
    )
    leading, further = end_to_end.split_by_metric(summaries)
    console.print(report.terminal_table(leading, title=_title(job)))
    if further:
        console.print(report.terminal_table(further, title=end_to_end.FURTHER_SCORES))
    console.print(f"Report: {workdir / 'report.md'}", highlight=False)
    return summaries


def train(
    job: Job,
    name: str,
    task: Task,
    data: Any,
    workdir: Path,
    log: MetricsLog,
    progress: TrainingProgress,
    program: Program | None = None,
) -> Variables:
    """Train one representation from all seeds, or go on where it stopped.

    Args:
        job: of which `task` is the representation `name`.
        data: the training images and labels, shared over devices.
        workdir: where checkpoints go.
        log, progress: told of every epoch.
        program: what was compiled for it; None compiles it now.

    Returns:
        The trained models, with a leading seed axis.
    """
    config = job.config
    return end_to_end.train_seeds(
        name,
        *_model_and_loss(job, task),
        data,
        config=config,
        seeds=job.seeds,
        plan=job.plan,
        workdir=workdir,
        log=log,
        progress=progress,
        program=program,
        **_training_options(job, task),
    )


def _model_and_loss(job: Job, task: Task) -> tuple[PureModel, Loss, optax.GradientTransformation]:
    return task.model, task.loss, _make_optimizer(job.config, len(job.dataset.x_train))


def _training_options(job: Job, task: Task) -> dict[str, Any]:
    config, anchors = job.config, jnp.asarray(job.anchors)
    return {
        "batch_size": config.training.batch_size,
        "make_context": lambda data: data["image"][anchors],
        "log_every": config.training.log_every,
        "select": _selection(job, task) if end_to_end.keeps_best(config) else None,
    }


def _compilations(
    job: Job, data: Any, log: MetricsLog
) -> dict[str, Callable[[Callable[[], bool]], Program]]:
    """What compiles the training of each representation that is not over, for `Ahead`.

    Nothing on accelerators: their compilers try kernels on the device, which is in use.
    """
    if job.plan.mesh.devices.flat[0].platform != "cpu":
        return {}

    def compile_task(task: Task, is_wanted: Callable[[], bool]) -> Program:
        options = _training_options(job, task)
        program = make_program(*_model_and_loss(job, task), data, plan=job.plan, **options)
        return compile_program(
            program,
            data,
            seeds=job.seeds,
            plan=job.plan,
            select=options["select"],
            is_wanted=is_wanted,
        )

    return {
        name: partial(compile_task, task)
        for name, task in job.tasks.items()
        if log.curves(name).shape[-1] < job.config.training.epochs
    }


def _selection(job: Job, task: Task) -> Selection:
    """Judge a model by what its own decoder makes of the validation images."""
    size = job.config.evaluation.batch_size
    count = len(job.validation["label"])
    sign = 1 if report.get_metric(task.metrics[0]).higher_is_better else -1

    def score(variables: Variables, data: Any) -> jax.Array:
        anchor_images, images = data
        anchors = task.encode_anchors(variables, anchor_images)
        total = 0.0
        for start in range(0, count, size):
            batch = jax.tree.map(lambda leaf, i=start: leaf[i : i + size], images)
            prediction = task.decode(variables, task.encode(variables, anchors, batch["image"]))
            total = total + jnp.sum(task.score(prediction, batch)[:, 0])
        return sign * total / count

    data = job.dataset.x_train[job.anchors], job.validation
    return Selection(score, job.plan.share(data))


def encode(job: Job, task: Task, variables: Variables, images: np.ndarray) -> np.ndarray:
    """What crosses from all encoders to decoders: `[seeds, n, d]`, or `[seeds, s, n, m]`.

    Args:
        job: what was trained.
        task: of one representation.
        variables: the models, with a leading seed axis.
        images: `[n, h, w, c]` as stored.
    """
    plan = job.plan
    variables = plan.pad(variables)
    anchors = over_seeds(task.encode_anchors, plan)(
        variables, plan.share(job.dataset.x_train[job.anchors])
    )
    encode_all = over_seeds(lambda seed, images: task.encode(*seed, images), plan)
    size = job.config.evaluation.batch_size
    parts = [
        np.asarray(plan.unpad(encode_all((variables, anchors), plan.share(images[i : i + size]))))
        for i in range(0, len(images), size)
    ]
    return np.concatenate(parts, axis=-2)


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What the figures show of one representation.

    Attributes:
        labels: `[n]` classes of the samples in `spaces`.
        spaces: a space `[n, width]` a seed (`end_to_end.shown_spaces`).
        originals: `[k, h, w, c]` a few of these samples; None for classifiers.
        non_stitched: `[k, h, w, c]`, the first seed's reconstructions; None for classifiers.
        stitched: `[k, h, w, c]`, the first seed's encoder with the second seed's decoder; None
            where there is no second one.
    """

    labels: np.ndarray
    spaces: list[np.ndarray]
    originals: np.ndarray | None = None
    non_stitched: np.ndarray | None = None
    stitched: np.ndarray | None = None


MAX_IMAGES = 10


def evaluate(
    job: Job, name: str, task: Task, variables: Variables
) -> tuple[dict[str, dict[str, np.ndarray]], Pictures]:
    """Every encoder with every decoder on the test split.

    Args:
        job: of which `task` is the representation `name`.
        variables: the models, with a leading seed axis.

    Returns:
        Scores `[encoders, decoders]` by row of the tables and by metric, means over the test
        split; and what the figures show.
    """
    plan, dataset = job.plan, job.dataset
    size = min(job.config.evaluation.batch_size, len(dataset.x_test))
    variables = plan.pad(variables)
    anchor_images = plan.share(dataset.x_train[job.anchors])
    anchors = over_seeds(task.encode_anchors, plan)(variables, anchor_images)
    encode_all = over_seeds(lambda seed, images: task.encode(*seed, images), plan)
    rows = end_to_end.read_as(job.config, name)
    scorers = end_to_end.make_row_scorers(
        rows, task.decode, task.score, plan, variables, plan.unpad(anchors)
    )
    totals = dict.fromkeys(scorers, 0.0)
    alive = np.ones(plan.num_seeds, bool)
    pictures = None
    for start in range(0, len(dataset.x_test), size):
        # The last batch reaches back, so that one compiled program serves all of them.
        begin = min(start, len(dataset.x_test) - size)
        batch = {
            "image": dataset.x_test[begin : begin + size],
            "label": dataset.y_test[begin : begin + size],
        }
        spaces = plan.unpad(encode_all((variables, anchors), plan.share(batch["image"])))
        alive &= end_to_end.is_alive(spaces)
        shared = plan.share(spaces), plan.share(batch)
        for row, scorer in scorers.items():
            scores = plan.unpad(scorer.columns(scorer.decoders, *shared))
            fresh = np.asarray(scores, dtype=np.float64)[:, :, start - begin :]
            totals[row] = totals[row] + fresh.sum(axis=2).swapaxes(0, 1)
        if pictures is None:
            pictures = _take_pictures(task, dataset, variables, np.asarray(spaces), batch)
    grids: dict[str, dict[str, np.ndarray]] = {row: {} for row in totals}
    scores = {row: task.summarize(total / len(dataset.x_test)) for row, total in totals.items()}
    for metric in task.metrics:
        by_row = {row: by_metric[metric] for row, by_metric in scores.items()}
        for row, values in end_to_end.finished_grids(by_row, alive).items():
            grids[row][metric] = values
    return grids, pictures


def _take_pictures(
    task: Task, dataset: ImageDataset, variables: Variables, spaces: np.ndarray, batch: Any
) -> Pictures:
    shown = Pictures(batch["label"], end_to_end.shown_spaces(spaces))
    if task.metrics[0] != "mse":
        return shown
    chosen = _one_of_each_class(batch["label"], MAX_IMAGES)
    # The samples are the axis before the last, in latents [n, d] and in products [s, n, m].
    space = spaces[0].take(chosen, axis=-2)
    decode = jax.jit(task.decode)
    return dataclasses.replace(
        shown,
        originals=batch["image"][chosen].astype(np.float32) / dataset.scale,
        non_stitched=np.asarray(decode(take_seed(variables, 0), space)),
        stitched=np.asarray(decode(take_seed(variables, 1), space)) if len(spaces) > 1 else None,
    )


def _one_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first sample of each class, then of the next, up to `count`."""
    turn = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        members = labels == label
        turn[members] = np.arange(members.sum())
    return np.lexsort((labels, turn))[:count]


def _title(job: Job) -> str:
    task = job.config.task.replace("_", " ").capitalize()
    name = end_to_end.dataset_title(job.dataset.name, is_embedded=is_embedded(job.config))
    return f"{task} on {name}: zero-shot stitching"


def is_embedded(config: ConfigDict) -> bool:
    """Whether the data come with the package, and are not the user's."""
    return not config.data.path and config.data.name == "digits"


def _headline(job: Job) -> str:
    height, width, channels = job.dataset.image_shape
    samples = end_to_end.describe_samples(
        len(job.dataset.x_train), len(job.validation["label"]), len(job.dataset.x_test)
    )
    return (
        f"{_title(job)}\n"
        f"{samples} images of "
        f"{height}x{width}x{channels}, {len(job.anchors)} anchors, "
        f"{end_to_end.describe_plan(job.plan, len(job.tasks))}"
    )


def _reconstructions(pictures: dict[str, Pictures]) -> list[tuple]:
    originals = next(iter(pictures.values())).originals
    if originals is None:
        return []
    rows = []
    for name, picture in pictures.items():
        rows.append(((name, "own decoder"), picture.non_stitched))
        if picture.stitched is not None:
            rows.append(((name, "stitched"), picture.stitched))
    caption = "Test images, and what the models make of them: with their own decoder"
    is_stitched = any(picture.stitched is not None for picture in pictures.values())
    caption += ", and with the decoder of another seed." if is_stitched else "."
    channels, shown = originals.shape[-1], _shown_channels(originals.shape[-1])
    if shown < channels:
        caption += f" Of {channels} channels the first{' three' if shown > 1 else ''}."
    rows = [(label, images[..., :shown]) for label, images in rows]
    return [("reconstructions", caption, report.reconstructions(originals[..., :shown], rows))]


def _shown_channels(channels: int) -> int:
    """How many channels of an image a picture can show: three as colours, or one as grey."""
    return 3 if channels >= 3 else 1
