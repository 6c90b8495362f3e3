"""Zero-shot stitching across languages: experiment A6.

Moschella et al. 2023 (arXiv 2209.15430), section 5.2 and Table 4: a classifier is trained on texts
of one language and used with those of another; parallel sentences are the anchors.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report
from relrep_jax.data.views import LOOKS, digit_views
from relrep_jax.experiments import latent_stitching as stitching
from relrep_jax.experiments import latents
from relrep_jax.experiments.config import ConfigError
from relrep_jax.stitching import REPRESENTATIONS
from relrep_jax.stitching.heads import Head

PAPER_ANCHORS = 768
SEPARATOR = "__"
METRICS = ("f1_weighted", "accuracy")

PUBLISHED = report.Sheet(
    "Published: other data and encoders, not comparable",
    ("Decoder", "Encoder", "Absolute", "Relative, translated", "Relative, Wikipedia"),
    (
        ("en", "en", "91.54", "90.06", "90.45"),
        ("en", "es", "43.67", "82.78", "78.53"),
        ("en", "fr", "54.41", "78.49", "70.41"),
        ("en", "ja", "48.72", "65.72", "66.31"),
    ),
    "Weighted F1 on Amazon reviews (coarse) of Moschella et al. 2023, Table 4: a monolingual "
    "RoBERTa for each language, 768 anchors, either machine-translated reviews or aligned "
    "sentences of Wikipedia.",
    num_left=2,
)


def default_config() -> ConfigDict:
    """Every field of this experiment."""
    config = latents.latent_fields("cross_lingual")
    latents.anchor_fields(config)
    latents.head_fields(config, "deep_mlp", epochs=10)
    # Names of relrep_jax.stitching.REPRESENTATIONS; the paper's are absolute and cosine.
    config.methods = ("absolute", "cosine", "centred_cosine", "orthogonal", "ridge")
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A config that was found good, with its data."""

    config: ConfigDict
    problem: latents.Problem
    head: Head
    num_anchors: int


def _digits():
    """Digits in several looks, which stand for languages."""
    return digit_views("pixels", "gradients", looks=tuple(LOOKS))


def split_name(name: str) -> tuple[str, str]:
    """Encoder and language of `ENCODER__LANGUAGE`."""
    encoder, _, language = name.rpartition(SEPARATOR)
    return encoder, language


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    config, problem = latents.prepare_latents(
        config, default_config(), least={"anchors.count": 0}, smoke={"head": latents.SMOKE_HEAD},
        embedded=_digits,
    )  # fmt: skip
    for name in problem.names:
        if not all(split_name(name)):
            raise ConfigError(
                f"The file of {name!r} does not name its language: call files of latents "
                f"ENCODER{SEPARATOR}LANGUAGE.npy, or name those that are in config.data.encoders."
            )
    latents.check_names("config.methods", config.methods, REPRESENTATIONS)
    if config.scale == "smoke":
        config.methods = config.methods[:2]
    head = latents.make_head(config.head)
    return Job(
        config,
        problem,
        head,
        latents.num_anchors(config.anchors.count, config, problem, PAPER_ANCHORS),
    )


def run(job: Job, workdir: Path, console: Console, command: str = "") -> Path:
    """Stitch every encoder and language with every other one; write tables and figures.

    Returns:
        The report's path.
    """
    config, problem = job.config, job.problem
    outcomes = latents.stitch_methods(
        problem, config.methods, (job.num_anchors,), head=job.head,
        seeds=latents.seeds_of(config), console=console,
    )  # fmt: skip
    sheets = [
        language_sheet(outcomes, encoder)
        for encoder in dict.fromkeys(split_name(name)[0] for name in problem.names)
        if sum(split_name(name)[0] == encoder for name in problem.names) > 1
    ]
    sheets += [kind_sheet(outcomes), comparison_sheet(outcomes)]
    return latents.write_findings(
        latents.Findings(
            title=f"Stitching across languages: {problem.name}",
            intro=(
                "Zero-shot stitching across languages, A6 of Moschella et al. 2023. A "
                f"{config.head.name.replace('_', ' ')} head on each encoder and language, "
                f"{latents.describe_anchors(job.num_anchors, problem)}."
            ),
            sheets=sheets,
            tables=stitching.tables(outcomes),
            figures=stitching.write_figures(workdir / "figures", outcomes, METRICS[0]),
            published=PUBLISHED,
        ),
        problem,
        workdir,
        console,
        command,
    )


def language_sheet(outcomes: list[stitching.Outcome], encoder: str) -> report.Sheet:
    """One encoder, decoder language by encoder language: the layout of Table 4."""
    names = outcomes[0].result.names
    mine = [i for i, name in enumerate(names) if split_name(name)[0] == encoder]
    rows = []
    for j in mine:
        for i in mine:
            cells = [split_name(names[j])[1], split_name(names[i])[1]]
            for metric in METRICS:
                for outcome in outcomes:
                    scores = getattr(outcome.result, metric)[:, i, j]
                    cells.append(report.percent(*latents.mean_and_std(scores)))
            rows.append(cells)
    header = [f"{outcome.method} {label}" for label in ("F1", "acc.") for outcome in outcomes]
    return report.Sheet(
        f"Languages of {encoder}",
        ("Decoder", "Encoder", *header),
        rows,
        "Weighted F1 and accuracy in percent, mean ± standard deviation over seeds. The decoder's "
        "classifier saw its own language only.",
        num_left=2,
    )


KINDS: dict[str, Callable[[tuple[str, str], tuple[str, str]], bool]] = {
    "own head": lambda a, b: a == b,
    "one encoder, another language": lambda a, b: a[0] == b[0] and a[1] != b[1],
    "another encoder, one language": lambda a, b: a[0] != b[0] and a[1] == b[1],
    "another encoder, another language": lambda a, b: a[0] != b[0] and a[1] != b[1],
}
"""Kinds of pairs `(encoder, language), (encoder, language)`."""


def kind_mask(names: tuple[str, ...], kind: str) -> np.ndarray:
    """Which cells `[encoders, decoders]` are of a kind."""
    parts = [split_name(name) for name in names]
    return np.array([[KINDS[kind](a, b) for b in parts] for a in parts])


def kind_sheet(outcomes: list[stitching.Outcome]) -> report.Sheet:
    """Means over kinds of pairs, by method."""
    rows, bold = [], set()
    for kind in KINDS:
        mask = kind_mask(outcomes[0].result.names, kind)
        if not mask.any():
            continue
        scores = [getattr(outcome.result, METRICS[0])[:, mask] for outcome in outcomes]
        cells = [latents.seed_summary(one) for one in scores]
        shown = []
        for one, cell in zip(scores, cells, strict=True):
            possible = int((~np.isnan(one).all(axis=0)).sum())
            few = f" (of {possible})" if 0 < possible < mask.sum() else ""
            shown.append(report.percent(*cell) + few)
        rows.append([kind, str(int(mask.sum())), *shown])
        bold.add((len(rows) - 1, 2 + int(np.nanargmax([mean for mean, _ in cells]))))
    return report.Sheet(
        "Kinds of pairs",
        ("Pairs", "n", *(outcome.method for outcome in outcomes)),
        rows,
        "Weighted F1 in percent, mean ± standard deviation over seeds of the mean over pairs. "
        "In brackets: over fewer pairs, those of one width.",
        frozenset(bold),
    )


def comparison_sheet(outcomes: list[stitching.Outcome]) -> report.Sheet:
    """The paper's relative spaces with every other method, over each kind of pairs and over all
    pairs of different spaces."""
    grids = {o.method: getattr(o.result, METRICS[0]).mean(axis=0) for o in outcomes}
    base = "cosine" if "cosine" in grids else outcomes[-1].method
    names = outcomes[0].result.names
    masks = {kind: kind_mask(names, kind) for kind in KINDS}
    masks["all of different spaces"] = ~masks["own head"]
    rows = []
    for kind, mask in masks.items():
        for method in grids if mask.any() else ():
            if method != base:
                test = report.paired_test(grids[base][mask], grids[method][mask])
                rows.append([kind, base, method, *report.paired_cells(test)])
    return report.Sheet(
        "Paired comparisons",
        ("Pairs", "Method", "Compared with", *report.PAIRED_HEADER),
        rows,
        "Difference of weighted F1 in percentage points of the means over seeds, tested over "
        "ordered pairs that both methods can stitch. Pairs share encoders and are not independent, "
        "so that the p-values are too small rather than too large.",
        num_left=3,
    )
