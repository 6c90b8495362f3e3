"""Train image models from many seeds, then stitch every encoder to every decoder.

Experiments A1 and A5 of Moschella et al. 2023 (arXiv 2209.15430) and zero-shot reconstruction of
Cannistraci et al. 2024 (arXiv 2310.01211); with the classifier, their end-to-end classification.
"""

import dataclasses
import platform
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import anchors as anchor_choice
from relrep_jax import report
from relrep_jax.checks import lookup
from relrep_jax.data import ImageDataset, load_images
from relrep_jax.experiments.config import ConfigError, check_at_least, check_fields
from relrep_jax.experiments.tasks import TASKS, Task, count_parameters
from relrep_jax.models import Representation, Variables
from relrep_jax.stitching import stitching_column
from relrep_jax.training.logs import MetricsLog, TrainingProgress
from relrep_jax.training.optimizers import make_optimizer, make_schedule
from relrep_jax.training.seeds import SeedPlan, over_seeds, plan_seeds, take_seed
from relrep_jax.training.trainer import Epoch, train


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

    config.model = ConfigDict()
    # One stride-2 convolution each; the decoder mirrors them.
    config.model.channels = (32, 64)
    # Width of the latents; 0: the flattened features are the latents.
    config.model.latent_dim = 64

    # What the decoder reads. No similarities: the latents themselves.
    config.representations = ConfigDict(sort_keys=False)
    config.representations.absolute = representation_config()
    config.representations.relative_cosine = representation_config(("cosine",))
    config.representations.product = representation_config(
        ("cosine", "euclidean", "manhattan", "chebyshev"), aggregation="mlp_sum"
    )

    config.anchors = ConfigDict()
    config.anchors.count = 128
    # uniform | stratified
    config.anchors.choice = "stratified"
    # The same anchors for all seeds: they are what the seeds have in common.
    config.anchors.seed = 0

    config.seeds = ConfigDict()
    config.seeds.count = 5
    config.seeds.first = 0
    # auto | vmap | map: how the seed axis runs on a device (the result is the same).
    config.seeds.axis = "auto"

    config.training = ConfigDict()
    config.training.epochs = 30
    config.training.batch_size = 128
    # optimal_sigma | mse for autoencoders, cross_entropy for the classifier
    config.training.loss = "optimal_sigma"
    # Weight of the variational autoencoder's Kullback-Leibler term.
    config.training.kl_weight = 1.0
    # Steps in one compiled call; 0: an epoch.
    config.training.log_every = 0

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

    config.checkpoint = ConfigDict()
    # Epochs between checkpoints; there is always one at the end.
    config.checkpoint.every = 10

    config.evaluation = ConfigDict()
    # Test samples encoded at once.
    config.evaluation.batch_size = 1000
    return config


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


@dataclasses.dataclass(frozen=True)
class Job:
    """A config that was found good, with everything that it names."""

    config: ConfigDict
    dataset: ImageDataset
    anchors: np.ndarray
    seeds: tuple[int, ...]
    plan: SeedPlan
    tasks: dict[str, Task]
    representations: dict[str, Representation]


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, default_config(), free=("representations", "optimizer.options"))
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
    make_task = lookup("task", config.task, TASKS)
    check_at_least(
        config,
        {
            "seeds.count": 1,
            "seeds.first": 0,
            "anchors.count": 1,
            "anchors.seed": 0,
            "training.epochs": 1,
            "training.batch_size": 1,
            "training.log_every": 0,
            "checkpoint.every": 1,
            "evaluation.batch_size": 1,
            "optimizer.clip_norm": 0,
            "data.train_limit": 0,
            "data.test_limit": 0,
        },
    )
    if not config.optimizer.learning_rate > 0:
        raise ConfigError(
            f"config.optimizer.learning_rate must be above 0, got {config.optimizer.learning_rate}."
        )
    lookup("anchor choice", config.anchors.choice, dict.fromkeys(("uniform", "stratified")))
    representations = {
        name: Representation(
            name,
            tuple(fields.similarities),
            fields.aggregation,
            fields.absolute_transform or None,
        )
        for name, fields in config.representations.items()
    }
    plan = plan_seeds(config.seeds.count, config.seeds.axis)

    dataset = load_images(
        config.data.name,
        path=config.data.path or None,
        data_dir=config.data.data_dir or None,
        train_limit=config.data.train_limit or None,
        test_limit=config.data.test_limit or None,
    )
    num_samples = len(dataset.x_train)
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
    seeds = tuple(range(config.seeds.first, config.seeds.first + config.seeds.count))
    return Job(config, dataset, np.asarray(anchors), seeds, plan, tasks, representations)


def _make_optimizer(config: ConfigDict, num_samples: int):
    fields = config.optimizer
    total_steps = config.training.epochs * (num_samples // config.training.batch_size)
    schedule = make_schedule(
        fields.schedule, fields.learning_rate, total_steps, fields.warmup_steps
    )
    return make_optimizer(fields.name, schedule, fields.clip_norm, **fields.options)


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
    ):
        for name, task in job.tasks.items():
            variables = _train(job, name, task, data, workdir, log, progress)
            values, pictures[name] = evaluate(job, task, variables)
            labels = tuple(map(str, job.seeds))
            grids.append(report.Grid(name, task.metric, values, labels, labels))
            curves[name] = log.curves(name)
    summaries = [report.summarize(grid) for grid in grids]
    _write_report(job, workdir, grids, summaries, pictures, curves, command)
    console.print(report.terminal_table(summaries, title=_title(job)))
    console.print(f"Report: {workdir / 'report.md'}", highlight=False)
    return summaries


def _train(
    job: Job,
    name: str,
    task: Task,
    data: Any,
    workdir: Path,
    log: MetricsLog,
    progress: TrainingProgress,
) -> Variables:
    config = job.config
    diverged: set[int] = set()

    def on_resume(epoch: int) -> None:
        log.forget(name, epoch)
        progress.advance(name, epoch)
        if epoch:
            progress.say(f"{name}: going on from epoch {epoch}.")

    def on_epoch(epoch: Epoch) -> None:
        log.write(name, epoch.number, epoch.step, epoch.seconds, epoch.metrics)
        progress.advance(name, epoch.number, epoch.metrics["loss"])
        for seed, loss in zip(job.seeds, epoch.metrics["loss"], strict=True):
            if not np.isfinite(loss) and seed not in diverged:
                diverged.add(seed)
                progress.say(
                    f"{name}: seed {seed} diverged in epoch {epoch.number} (its loss is {loss}); "
                    "the other seeds go on."
                )

    anchors = jnp.asarray(job.anchors)
    state = train(
        task.model,
        task.loss,
        _make_optimizer(config, len(job.dataset.x_train)),
        data,
        seeds=job.seeds,
        plan=job.plan,
        epochs=config.training.epochs,
        batch_size=config.training.batch_size,
        make_context=lambda data: data["image"][anchors],
        log_every=config.training.log_every,
        checkpoint_directory=workdir / "checkpoints" / name,
        checkpoint_every=config.checkpoint.every,
        on_resume=on_resume,
        on_epoch=on_epoch,
    )
    return state.variables


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What the figures show of one representation.

    Attributes:
        labels: `[n]` classes of the samples in `spaces`.
        spaces: a space `[n, width]` a seed, for at most `MAX_SPACES` seeds that did not diverge.
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


MAX_SPACES = 5
MAX_POINTS = 1000
MAX_IMAGES = 10


def evaluate(job: Job, task: Task, variables: Variables) -> tuple[np.ndarray, Pictures]:
    """Every encoder with every decoder on the test split.

    Args:
        job: what was trained.
        task: of one representation.
        variables: the models, with a leading seed axis.

    Returns:
        Scores `[encoders, decoders]`, means over the test split; and what the figures show.
    """
    plan, dataset = job.plan, job.dataset
    size = min(job.config.evaluation.batch_size, len(dataset.x_test))
    variables = plan.pad(variables)
    anchor_images = plan.share(dataset.x_train[job.anchors])
    anchors = over_seeds(task.encode_anchors, plan)(variables, anchor_images)
    encode_all = over_seeds(lambda seed, images: task.encode(*seed, images), plan)
    columns = over_seeds(
        lambda decoder, spaces, batch: stitching_column(
            task.decode, task.score, spaces, decoder, batch
        ),
        plan,
    )
    total = np.zeros((plan.num_seeds, plan.num_seeds))
    pictures = None
    for start in range(0, len(dataset.x_test), size):
        # The last batch reaches back, so that one compiled program serves all of them.
        begin = min(start, len(dataset.x_test) - size)
        batch = {
            "image": dataset.x_test[begin : begin + size],
            "label": dataset.y_test[begin : begin + size],
        }
        spaces = plan.unpad(encode_all((variables, anchors), plan.share(batch["image"])))
        scores = columns(variables, plan.share(spaces), plan.share(batch))
        fresh = np.asarray(plan.unpad(scores), dtype=np.float64)[:, :, start - begin :]
        total += fresh.sum(axis=-1).T
        if pictures is None:
            pictures = _take_pictures(task, dataset, variables, np.asarray(spaces), batch)
    return total / len(dataset.x_test), pictures


def _take_pictures(
    task: Task, dataset: ImageDataset, variables: Variables, spaces: np.ndarray, batch: Any
) -> Pictures:
    finite = [space for space in spaces if np.isfinite(space).all()]
    shown = Pictures(
        labels=batch["label"][:MAX_POINTS],
        spaces=[_flatten_space(space)[:MAX_POINTS] for space in finite[:MAX_SPACES]],
    )
    if task.metric != "mse":
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


def _flatten_space(space: np.ndarray) -> np.ndarray:
    """`[n, d]` as it is; a product `[s, n, m]` as `[n, s * m]`, each space at unit spread."""
    if space.ndim == 2:
        return space
    space = space - space.mean(axis=(1, 2), keepdims=True)
    spread = space.std(axis=(1, 2), keepdims=True)
    space = space / np.where(spread == 0, 1.0, spread)
    return np.moveaxis(space, 0, 1).reshape(space.shape[1], -1)


def _one_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first sample of each class, then of the next, up to `count`."""
    turn = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        members = labels == label
        turn[members] = np.arange(members.sum())
    return np.lexsort((labels, turn))[:count]


def _title(job: Job) -> str:
    task = job.config.task.replace("_", " ").capitalize()
    return f"{task} on {job.dataset.name}: zero-shot stitching"


def _headline(job: Job) -> str:
    height, width, channels = job.dataset.image_shape
    plan = job.plan
    devices = f"{plan.mesh.size} {plan.mesh.devices.flat[0].platform} device"
    return (
        f"{_title(job)}\n"
        f"{len(job.dataset.x_train)} training and {len(job.dataset.x_test)} test images of "
        f"{height}x{width}x{channels}, {len(job.anchors)} anchors, {plan.num_seeds} seeds x "
        f"{len(job.tasks)} representations, {plan.strategy} over seeds on {devices}"
        f"{'' if plan.mesh.size == 1 else 's'}"
    )


def _write_report(
    job: Job,
    workdir: Path,
    grids: list[report.Grid],
    summaries: list[report.Summary],
    pictures: dict[str, Pictures],
    curves: dict[str, np.ndarray],
    command: str,
) -> None:
    tables, figures = workdir / "tables", workdir / "figures"
    report.write_stitching_csv(tables / "stitching.csv", grids)
    report.write_stitching_json(tables / "stitching.json", grids)
    report.write_summary_csv(tables / "summary.csv", summaries)
    report.write_summary_json(tables / "summary.json", summaries)

    shown: list[tuple[str, str]] = []

    def add(name: str, caption: str, figure) -> None:
        report.save(figure, figures / f"{name}.png")
        shown.append((caption, f"figures/{name}.png"))

    originals = next(iter(pictures.values())).originals
    if originals is not None:
        rows = []
        for name, picture in pictures.items():
            rows.append(((name, "own decoder"), picture.non_stitched))
            if picture.stitched is not None:
                rows.append(((name, "stitched"), picture.stitched))
        add(
            "reconstructions",
            "Test images, and what the models make of them: with their own decoder, and with the "
            "decoder of another seed.",
            report.reconstructions(originals, rows),
        )
    spaces = {
        name: report.project_jointly(picture.spaces)
        for name, picture in pictures.items()
        if picture.spaces
    }
    labels = next(iter(pictures.values())).labels
    add(
        "latent_spaces",
        "What crosses from encoder to decoder, seed by seed: the principal plane of the first "
        "seed's space, the same for all seeds; colours are classes.",
        report.latent_spaces(spaces, labels),
    )
    add(
        "pair_grid",
        "Every encoder with every decoder; the diagonal is not stitched.",
        report.pair_grid(grids),
    )
    add(
        "learning_curves",
        "Training loss by epoch: mean and range over seeds.",
        report.learning_curves(curves, ylabel="training loss"),
    )
    report.write_report(
        workdir / "report.md",
        title=_title(job),
        intro=_headline(job).split("\n", 1)[1] + ".",
        command=command or f"python train.py --workdir={shlex.quote(str(workdir))}",
        summaries=summaries,
        figures=shown,
        sections=[
            (
                "Files",
                "`tables/stitching.csv` has one row for each pair of encoder and decoder, "
                "`tables/summary.csv` the table above, `metrics.jsonl` the losses of every epoch "
                "and seed, `checkpoints/` the trained models, `config.json` the configuration.",
            )
        ],
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("relrep_jax", "jax", "flax", "optax", "numpy")},
        },
    )
