"""Is a model as good as its relative space is like that of the best model? Experiment A3.

Moschella et al. 2023 (arXiv 2209.15430), section 4.2: hundreds of node classifiers are trained with
absolute latents and different hyperparameters. How alike the relative representations of a model
and of a well-trained reference are, for which no label is needed, tells how accurate the model is.
"""

import dataclasses
import itertools
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import measures, report
from relrep_jax.data import GraphDataset
from relrep_jax.experiments import end_to_end
from relrep_jax.experiments import node_classification as nodes
from relrep_jax.experiments.config import ConfigError, check_at_least, check_fields, cut_to_scale
from relrep_jax.models import Adjacency, GraphOptions, PureModel, Representation, represent
from relrep_jax.models.graph import LAYERS
from relrep_jax.stitching import is_correct
from relrep_jax.training.loop import init_state, train_steps
from relrep_jax.training.optimizers import make_optimizer
from relrep_jax.training.seeds import SeedPlan, over_seeds, plan_seeds

ABSOLUTE = Representation("absolute")
RELATIVE = Representation("relative", ("cosine",))
COLUMNS = (
    "layer",
    "num_layers",
    "hidden_activation",
    "layer_activation",
    "optimizer",
    "learning_rate",
    "dropout",
    "seed",
    "epochs",
    "val_accuracy",
    "similarity",
)
CORRELATION_COLUMNS = (
    "models",
    "count",
    "diverged",
    "pearson",
    "pearson_p",
    "spearman",
    "spearman_p",
)


SEED = "seed"
"""What rows of the table of correlations that are one seed's begin with."""
LEARNT = 0.5
"""The validation accuracy above which the paper's plots over time show a model."""
PUBLISHED = (
    "A Pearson correlation of 0.955 on Cora. A notebook of the authors has 1,680 models of 32 and "
    "64 layers that did not diverge."
)


def default_config() -> ConfigDict:
    """Every field of this experiment, with the values of a small job."""
    config = ConfigDict()
    config.experiment = "data_manifold"
    # full | smoke: 2 seeds, 10 epochs, 4 layers, 32 features and anchors, one activation.
    config.scale = "full"
    nodes.add_graph_fields(config)
    config.data.test_fraction = 0.0
    # These are the reference model's, and what all models share.
    config.model.layer = "gcnii"
    config.model.num_layers = 8
    config.model.self_loops = False
    config.training.epochs = 200
    config.anchors.count = 300

    config.reference = ConfigDict()
    # Of so many seeds the one with the best validation accuracy.
    config.reference.seeds = 5
    config.reference.optimizer = "adam"
    config.reference.learning_rate = 0.02

    # Every combination of these is a model.
    config.sweep = ConfigDict()
    config.sweep.seeds = 5
    # A model is looked at after each of these numbers of epochs.
    config.sweep.epochs = (10, 30, 50)
    config.sweep.layers = ("gcnii", "gin")
    config.sweep.num_layers = (4, 8)
    config.sweep.hidden_activations = ("relu", "tanh")
    config.sweep.layer_activations = ("relu", "tanh")
    config.sweep.dropouts = (0.1, 0.5)
    config.sweep.optimizers = ("adam", "sgd")
    config.sweep.learning_rates = (0.01, 0.02)

    # auto | vmap | map: how models of equal shape run on a device (the same up to rounding).
    config.axis = "auto"
    return config


class Point(NamedTuple):
    """What differs between models that are trained side by side: scalars, or arrays of them."""

    seed: Any
    dropout: Any
    learning_rate: Any


@dataclasses.dataclass(frozen=True)
class Group:
    """Models of equal shape and program.

    Attributes:
        fields: layer, num_layers, hidden_activation, layer_activation, optimizer.
        model: as pure functions.
        adjacency: what its layers read.
    """

    fields: tuple[str, int, str, str, str]
    model: PureModel
    adjacency: Adjacency


@dataclasses.dataclass(frozen=True)
class Job:
    """A config that was found good, with everything that it names."""

    config: ConfigDict
    dataset: GraphDataset
    data: nodes.NodeData
    reference: Group
    groups: tuple[Group, ...]
    points: tuple[Point, ...]
    plan: SeedPlan

    @property
    def num_models(self) -> int:
        return len(self.groups) * len(self.points) * len(self.config.sweep.epochs)


SMOKE = {
    "training": {"epochs": 20},
    "reference": {"seeds": 2},
    "sweep": {"seeds": 2},
    "model": {"num_layers": 4, "hidden_features": 32, "latent_dim": 32},
    "anchors": {"count": 32},
}
"""The largest values at the scale `smoke`."""


def at_scale(config: ConfigDict) -> ConfigDict:
    """The config with its numbers and its lists cut to its scale.

    Raises:
        ConfigError: an unknown scale.
    """
    config = cut_to_scale(config, SMOKE)
    if config.scale == "full":
        return config
    sweep = config.sweep
    sweep.epochs = tuple(
        {min(epochs, most) for epochs, most in zip(sorted(sweep.epochs), (5, 10), strict=False)}
    )
    sweep.num_layers = (min(4, *sweep.num_layers),)
    sweep.hidden_activations = sweep.hidden_activations[:1]
    sweep.layer_activations = sweep.layer_activations[:1]
    return config


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its graph, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    check_fields(config, default_config())
    config = at_scale(config)
    sweep = config.sweep
    check_at_least(config, {"reference.seeds": 1, "sweep.seeds": 1})
    for name, values in sweep.items():
        if name != "seeds" and not len(values):
            raise ConfigError(f"config.sweep.{name} is empty: name at least one value.")
        if name != "seeds" and len(set(values)) < len(values):
            raise ConfigError(f"config.sweep.{name} has a value twice: {tuple(values)}.")
    for name, fits, expected in (
        ("dropouts", lambda value: 0 <= value < 1, "lie in [0, 1)"),
        ("learning_rates", lambda value: value > 0, "be above 0"),
        ("epochs", lambda value: value >= 1, "be at least 1"),
    ):
        for value in sweep[name]:
            if not fits(value):
                raise ConfigError(f"config.sweep.{name} has {value}: it must {expected}.")
    if not config.reference.learning_rate > 0:
        raise ConfigError(
            f"config.reference.learning_rate must be above 0, got {config.reference.learning_rate}."
        )
    dataset, data = nodes.prepare_graph(config)
    if not len(data.val):
        raise ConfigError("config.data.val_fraction leaves no validation nodes to score models on.")
    adjacencies = {
        layer: nodes.adjacency_for(layer, dataset, config.model.self_loops) for layer in LAYERS
    }

    def group(layer: str, num_layers: int, hidden: str, between: str, optimizer: str) -> Group:
        make_optimizer(optimizer, 0.01)
        model = nodes.build_model(
            config, dataset, ABSOLUTE, layer=layer, num_layers=num_layers,
            hidden_activation=hidden, layer_activation=between,
        )  # fmt: skip
        fields = (layer, num_layers, hidden, between, optimizer)
        return Group(fields, model, adjacencies[layer])

    fields = config.model
    reference = group(
        fields.layer, fields.num_layers, fields.hidden_activation, fields.layer_activation,
        config.reference.optimizer,
    )  # fmt: skip
    groups = tuple(
        itertools.starmap(
            group,
            itertools.product(
                sweep.layers,
                sweep.num_layers,
                sweep.hidden_activations,
                sweep.layer_activations,
                sweep.optimizers,
            ),  # fmt: skip
        )
    )
    points = tuple(
        itertools.starmap(
            Point, itertools.product(range(sweep.seeds), sweep.dropouts, sweep.learning_rates)
        )
    )
    return Job(
        config, dataset, data, reference, groups, points, plan_seeds(len(points), config.axis)
    )


def relative_space(
    group: Group, variables: Any, data: nodes.NodeData, options: GraphOptions
) -> tuple[jax.Array, jax.Array]:
    """All nodes relative to the anchors `[n, m]`, and the validation accuracy."""
    latents, _ = group.model.apply(variables, "encode", data.features, group.adjacency, options)
    logits, _ = group.model.apply(variables, "decode", latents[data.val])
    accuracy = jnp.mean(is_correct(logits, data.labels[data.val]))
    return represent(RELATIVE, latents, latents[data.anchors])[0], accuracy


def train_points(
    group: Group,
    points: list[Point],
    epochs: tuple[int, ...],
    data: nodes.NodeData,
    options: GraphOptions,
    plan: SeedPlan,
    target: jax.Array | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train models of equal shape side by side.

    Args:
        group: what they have in common.
        points: in what they differ.
        epochs: ascending; after each of these numbers of epochs the models are looked at.
        data: placed with `plan.share`.
        options: of the model; `dropout` is the points'.
        plan: how the axis of points runs.
        target: the reference's relative space `[n, m]`.

    Returns:
        Validation accuracies `[points, epochs]`; and similarities to the target `[points, epochs]`
        or, without a target, the relative spaces `[points, epochs, n, m]`.
    """

    def one(point: Point, data: nodes.NodeData, target: jax.Array | None):
        mine = options._replace(dropout=point.dropout)
        optimizer = make_optimizer(group.fields[-1], point.learning_rate)
        loss = nodes.make_loss(group.model, ABSOLUTE, mine)
        state, found = init_state(group.model, optimizer, point.seed), []
        for steps in np.diff(epochs, prepend=0):
            state, _ = train_steps(
                loss, optimizer, state, data, lambda data: None, batch_size=None,
                num_steps=int(steps),
            )  # fmt: skip
            space, accuracy = relative_space(group, state.variables, data, mine)
            # A diverged model's NaN similarity says so; its accuracy would not.
            found.append(
                (accuracy, space if target is None else measures.mean_cosine(space, target))
            )
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    seeds, dropouts, rates = zip(*points, strict=True)
    stacked = Point(
        jnp.asarray(seeds, jnp.uint32), jnp.asarray(dropouts, jnp.float32),
        jnp.asarray(rates, jnp.float32),
    )  # fmt: skip
    shared = plan.share(data._replace(adjacency=group.adjacency))
    accuracy, second = plan.unpad(over_seeds(one, plan)(plan.pad(stacked), shared, target))
    return np.asarray(accuracy, np.float64), np.asarray(second)


def run(job: Job, workdir: Path, console: Console, command: str = "") -> list[tuple]:
    """Train the reference and all models; correlate similarity and accuracy; report.

    Args:
        job: from `prepare`.
        workdir: where tables, the figure and the report go.
        console: where progress and the table are printed.
        command: what a reader types to run it again.

    Returns:
        The rows of the table of correlations (`CORRELATION_COLUMNS`).
    """
    config, options = job.config, nodes.options_of(job.config)
    console.print(_headline(job), highlight=False)
    seeds = [
        Point(seed, options.dropout, config.reference.learning_rate)
        for seed in range(config.reference.seeds)
    ]
    plan = plan_seeds(len(seeds), config.axis)
    epochs = (config.training.epochs,)
    accuracies, spaces = train_points(job.reference, seeds, epochs, job.data, options, plan)
    alive = np.isfinite(spaces).all(axis=(1, 2, 3))
    if not alive.any():
        raise ConfigError("Every reference model diverged: lower config.reference.learning_rate.")
    best = int(np.argmax(np.where(alive, accuracies[:, 0], -1)))
    reference_accuracy = accuracies[best, 0]
    console.print(
        f"Reference: seed {best}, validation accuracy {reference_accuracy:.3f}", highlight=False
    )
    target = job.plan.share(jnp.asarray(spaces[best, 0]))

    looked_at = tuple(sorted(set(config.sweep.epochs)))
    rows: list[tuple] = []
    with report.progress(console, "models", job.num_models) as advance:
        for group in job.groups:
            accuracy, similarity = train_points(
                group, list(job.points), looked_at, job.data, options, job.plan, target
            )
            for i, point in enumerate(job.points):
                for j, epochs_done in enumerate(looked_at):
                    rows.append((
                        *group.fields, point.learning_rate, point.dropout, point.seed, epochs_done,
                        float(accuracy[i, j]), float(similarity[i, j]),
                    ))  # fmt: skip
            advance(len(job.points) * len(looked_at))

    table = correlations(rows)
    report.write_csv(workdir / "tables" / "models.csv", COLUMNS, rows)
    report.write_csv(workdir / "tables" / "correlations.csv", CORRELATION_COLUMNS, table)
    by_layer = {
        layer: tuple(np.array([(r[-2], r[-1]) for r in rows if r[0] == layer]).T)
        for layer in config.sweep.layers
    }
    figure = report.scatter(by_layer, "validation accuracy", "similarity to the reference")
    report.save(figure, workdir / "figures" / "similarity.png")
    markdown = _markdown(table)
    report.write_report(
        workdir / "report.md",
        title=f"Similarity to the best model and accuracy on {_name(job)}",
        intro=f"{_headline(job)}. The reference's validation accuracy is "
        f"{reference_accuracy:.3f}. A3 of Moschella et al. 2023.",
        command=command or f"python train.py --workdir={shlex.quote(str(workdir))}",
        sections=[
            ("Results", markdown),
            *([("Published", PUBLISHED)] if config.data.path else []),
        ],
        figures=[("One point a model, without diverged ones.", "figures/similarity.png")],
        versions=report.environment("flax", "optax"),
    )
    console.print(markdown, highlight=False, markup=False)
    console.print(f"Report: {workdir / 'report.md'}", highlight=False)
    return table


def _name(job: Job) -> str:
    return end_to_end.dataset_title(job.dataset.name, is_embedded=not job.config.data.path)


def correlations(rows: list[tuple]) -> list[tuple]:
    """Of rows of `COLUMNS` the correlations over all models, for each kind of layer, over those
    that have learnt something, and for each seed: with those that have not, which form a cluster,
    correlations are high.

    Returns:
        Rows of `CORRELATION_COLUMNS`; NaN where fewer than three models, or no spread, are left.
    """
    from scipy import stats

    table = []
    chosen = {"all": [row[-2:] for row in rows]}
    for layer in dict.fromkeys(row[0] for row in rows):
        chosen[layer] = [row[-2:] for row in rows if row[0] == layer]
    chosen[f"accuracy above {LEARNT}"] = [row[-2:] for row in rows if row[-2] > LEARNT]
    where = COLUMNS.index("seed")
    for seed in sorted({row[where] for row in rows}):
        chosen[f"{SEED} {seed}"] = [row[-2:] for row in rows if row[where] == seed]
    for name, pairs in chosen.items():
        accuracy, similarity = np.array(pairs, np.float64).reshape(-1, 2).T
        alive = np.isfinite(accuracy) & np.isfinite(similarity)
        accuracy, similarity = accuracy[alive], similarity[alive]
        found = [(float("nan"),) * 2] * 2
        if len(accuracy) > 2 and np.ptp(accuracy) > 0 and np.ptp(similarity) > 0:
            found = [
                (float(result.statistic), float(result.pvalue))
                for result in (
                    stats.pearsonr(accuracy, similarity),
                    stats.spearmanr(accuracy, similarity),
                )
            ]
        table.append((name, int(alive.sum()), int((~alive).sum()), *found[0], *found[1]))
    return table


def _markdown(table: list[tuple]) -> str:
    lines = [
        "| Models | Count | Diverged | Pearson | p | Spearman | p |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, count, diverged, r, r_p, rho, rho_p in table:
        lines.append(
            f"| {name} | {count} | {diverged} | {r:.3f} | {_p_value(r_p)} | {rho:.3f} "
            f"| {_p_value(rho_p)} |"
        )
    seeds = [row[3::2] for row in table if row[0].startswith(f"{SEED} ")]
    if len(seeds) > 1:
        mean, std = np.mean(seeds, axis=0), np.std(seeds, axis=0, ddof=1)
        lines += [
            "",
            f"Mean ± standard deviation over {len(seeds)} seeds: Pearson {mean[0]:.3f} ± "
            f"{std[0]:.3f}, Spearman {mean[1]:.3f} ± {std[1]:.3f}.",
        ]
    return "\n".join(lines)


def _p_value(value: float) -> str:
    """Smaller ones are rounded to zero, which none is."""
    return "< 1e-300" if value < 1e-300 else f"{value:.1e}"


def _headline(job: Job) -> str:
    epochs = sorted(set(job.config.sweep.epochs))
    return (
        f"{job.num_models:,} node classifiers ({job.num_models // len(epochs):,} trainings, looked "
        f"at after {', '.join(map(str, epochs))} epochs) on {_name(job)} "
        f"({job.dataset.num_nodes:,} "
        f"nodes, {len(job.data.train):,} of them for training and {len(job.data.val):,} for "
        f"validation), {len(job.data.anchors)} anchors, similarity over all nodes"
    )
