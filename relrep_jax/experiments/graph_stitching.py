"""Train node classifiers from many seeds, then stitch every encoder to every head.

End-to-end accuracy of absolute and relative classifiers on graphs: experiment A4, Table 3 of
Moschella et al. 2023 (arXiv 2209.15430). Zero-shot stitching of graph networks: experiment B5 of
Cannistraci et al. 2024 (arXiv 2310.01211), who also define the stitching index.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report
from relrep_jax.data import GraphDataset
from relrep_jax.experiments import end_to_end
from relrep_jax.experiments import node_classification as nodes
from relrep_jax.experiments.config import ConfigError, check_at_least, check_fields, cut_to_scale
from relrep_jax.models import PureModel, Representation, Variables
from relrep_jax.stitching import is_correct
from relrep_jax.training.logs import MetricsLog, TrainingProgress
from relrep_jax.training.seeds import SeedPlan, over_seeds, plan_seeds
from relrep_jax.training.selection import Selection


def default_config() -> ConfigDict:
    """Every field of this experiment, with the values of a small job."""
    config = ConfigDict()
    config.experiment = "graph_stitching"
    nodes.add_graph_fields(config)
    end_to_end.add_shared_fields(config)
    config.optimizer.learning_rate = 0.005
    config.checkpoint.every = 100
    return config


SMOKE = {
    "seeds": {"count": 2},
    "training": {"epochs": 10},
    "model": {"num_layers": 4, "hidden_features": 32, "latent_dim": 32},
    "anchors": {"count": 32},
}
"""The largest values at the scale `smoke`."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A config that was found good, with everything that it names."""

    config: ConfigDict
    dataset: GraphDataset
    data: nodes.NodeData
    seeds: tuple[int, ...]
    plan: SeedPlan
    optimizer: optax.GradientTransformation
    models: dict[str, PureModel]
    representations: dict[str, Representation]


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its graph, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, default_config(), free=end_to_end.FREE_FIELDS)
    representations = end_to_end.read_representations(config)
    config = cut_to_scale(config, SMOKE)
    check_at_least(config, end_to_end.MINIMUM)
    plan = plan_seeds(config.seeds.count, config.seeds.axis)
    optimizer = end_to_end.read_optimizer(config, config.training.epochs)
    dataset, data = nodes.prepare_graph(config)
    if not len(data.test):
        raise ConfigError("config.data.test_fraction leaves no test nodes to stitch on.")
    if end_to_end.keeps_best(config) and not len(data.val):
        raise ConfigError(
            "config.checkpoint.keep is best, and config.data.val_fraction leaves no validation "
            "nodes to judge models on."
        )
    models = {
        name: nodes.build_model(config, dataset, representation)
        for name, representation in representations.items()
    }
    seeds = end_to_end.seed_numbers(config)
    return Job(config, dataset, data, seeds, plan, optimizer, models, representations)


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
    config = job.config
    console.print(f"{_title(job)}\n{_headline(job)}", highlight=False)
    grids, spaces, curves = [], {}, {}
    totals = dict.fromkeys(job.models, config.training.epochs)
    with MetricsLog(workdir, job.seeds) as log, TrainingProgress(console, totals) as progress:
        for name in job.models:
            variables = train(job, name, workdir, log, progress)
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
        labels=job.data.labels[job.data.test],
        curves=curves,
        sections=end_to_end.published_section(config, is_embedded=not config.data.path),
    )
    console.print(report.terminal_table(summaries, title=_title(job)))
    console.print(f"Report: {workdir / 'report.md'}", highlight=False)
    return summaries


def train(
    job: Job,
    name: str,
    workdir: Path,
    log: MetricsLog,
    progress: TrainingProgress,
    *,
    label: str = "",
) -> Variables:
    """Train one representation from all seeds, or go on where it stopped.

    Args:
        job: what to train.
        name: of the representation.
        workdir: where checkpoints go.
        log, progress: told of every epoch.
        label: what checkpoints and logs call it; its name if left out.

    Returns:
        The trained models, with a leading seed axis.
    """
    model = job.models[name]
    return end_to_end.train_seeds(
        label or name,
        model,
        nodes.make_loss(model, job.representations[name], nodes.options_of(job.config)),
        job.optimizer,
        job.plan.share(job.data),
        config=job.config,
        seeds=job.seeds,
        plan=job.plan,
        workdir=workdir,
        log=log,
        progress=progress,
        batch_size=None,
        select=_selection(job, name) if end_to_end.keeps_best(job.config) else None,
    )


def _selection(job: Job, name: str) -> Selection:
    """Judge a model by the accuracy of its own head on the validation nodes."""
    model = job.models[name]
    encode = nodes.make_encode(model, job.representations[name], nodes.options_of(job.config))

    def score(variables: Variables, data: nodes.NodeData) -> jax.Array:
        logits, _ = model.apply(variables, "decode", encode(variables, data, data.val))
        return jnp.mean(is_correct(logits, data.labels[data.val]))

    return Selection(score, job.plan.share(job.data))


def evaluate(
    job: Job, name: str, variables: Variables
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Every encoder with every head on the test nodes.

    Args:
        job: what was trained.
        name: of the representation.
        variables: the models, with a leading seed axis.

    Returns:
        Accuracies `[encoders, decoders]` by row of the tables; and what the figures show of the
        spaces.
    """
    plan, model = job.plan, job.models[name]
    encode = nodes.make_encode(model, job.representations[name], nodes.options_of(job.config))
    variables = plan.pad(variables)
    rows = end_to_end.read_as(job.config, name)

    def encode_all(of_nodes: np.ndarray) -> jax.Array:
        arguments = plan.share(job.data), plan.share(of_nodes)
        return plan.unpad(over_seeds(encode, plan)(variables, *arguments))

    spaces = encode_all(job.data.test)
    anchors = encode_all(job.data.anchors) if len(rows) > 1 else None
    labels = job.data.labels[job.data.test]
    grids = end_to_end.accuracy_grids(model, plan, variables, spaces, anchors, labels, rows)
    return grids, end_to_end.shown_spaces(np.asarray(spaces))


def _title(job: Job) -> str:
    name = end_to_end.dataset_title(job.dataset.name, is_embedded=not job.config.data.path)
    return f"Node classifier on {name}: zero-shot stitching"


def _headline(job: Job) -> str:
    fields, data = job.config.model, job.data
    return (
        f"{job.dataset.num_nodes:,} nodes and {job.dataset.edges.shape[1]:,} edges "
        f"({len(data.train):,} training, {len(data.val):,} validation and {len(data.test):,} test "
        f"nodes), {fields.num_layers} {fields.layer} layers of {fields.hidden_features} features, "
        f"{len(data.anchors)} anchors, {job.config.training.epochs} epochs, "
        f"{end_to_end.describe_plan(job.plan, len(job.models))}"
    )
