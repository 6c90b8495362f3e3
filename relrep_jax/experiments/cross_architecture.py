"""Zero-shot stitching across architectures: experiments A7 (text) and A8 (vision).

Moschella et al. 2023 (arXiv 2209.15430), section 5.2, Tables 5 and 6: a classifier is trained on
the frozen latents of one pretrained encoder and used with those of another.
"""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from relrep_jax import report
from relrep_jax.experiments import latent_stitching as stitching
from relrep_jax.experiments import latents
from relrep_jax.stitching import REPRESENTATIONS
from relrep_jax.stitching.heads import Head

PAPER_ANCHORS = 768
METRIC = "f1_weighted"

_TEXT = report.Sheet(
    "Published: other data and encoders, not comparable",
    ("Data", "Absolute: own", "Absolute: stitched", "Relative: own", "Relative: stitched"),
    (
        ("TREC", "91.7", "21.5", "88.1", "75.9 ± 5.4"),
        ("DBpedia", "98.6", "7.0", "97.4", "80.5 ± 21.1"),
        ("Amazon, coarse", "87.8", "49.6", "85.1", "72.4 ± 7.3"),
        ("Amazon, fine", "55.4", "19.0", "48.9", "33.2 ± 7.2"),
    ),
    "Weighted F1 of Moschella et al. 2023, Table 5: BERT (cased, uncased), ELECTRA and RoBERTa, "
    "768 anchors.",
)
_VISION_ROWS = (
    ("rexnet", "rexnet", "82.06", "80.22"),
    ("rexnet", "ViT-base", "–", "54.98"),
    ("rexnet", "ViT-ResNet50", "–", "53.33"),
    ("rexnet", "ViT-small", "–", "59.82"),
    ("ViT-base", "rexnet", "–", "76.81"),
    ("ViT-base", "ViT-base", "93.15", "91.94"),
    ("ViT-base", "ViT-ResNet50", "6.21", "81.42"),
    ("ViT-base", "ViT-small", "–", "84.29"),
    ("ViT-ResNet50", "rexnet", "–", "79.79"),
    ("ViT-ResNet50", "ViT-base", "4.69", "84.46"),
    ("ViT-ResNet50", "ViT-ResNet50", "91.41", "90.77"),
    ("ViT-ResNet50", "ViT-small", "–", "84.66"),
    ("ViT-small", "rexnet", "–", "75.35"),
    ("ViT-small", "ViT-base", "–", "81.23"),
    ("ViT-small", "ViT-ResNet50", "–", "78.35"),
    ("ViT-small", "ViT-small", "90.07", "88.85"),
)
_VISION = report.Sheet(
    "Published: other data and encoders, not comparable",
    ("Decoder", "Encoder", "Absolute", "Relative"),
    _VISION_ROWS,
    "Weighted F1 on CIFAR-100 of Moschella et al. 2023, Table 6: 768 anchors. A dash: the widths "
    "differ.",
    num_left=2,
)
PUBLISHED = {"text": _TEXT, "vision": _VISION, "none": None}
"""What the paper's table says, by `config.published`."""


def default_config() -> ConfigDict:
    """Every field of this experiment, as for text."""
    config = latents.latent_fields("cross_architecture")
    latents.anchor_fields(config)
    latents.head_fields(config, "deep_mlp", epochs=10)
    # Names of relrep_jax.stitching.REPRESENTATIONS; the paper's are absolute and cosine.
    config.methods = ("absolute", "cosine", "centred_cosine", "orthogonal", "ridge", "consensus")
    # text | vision | none: which of the paper's tables is shown beside what is found.
    config.published = "text"
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A config that was found good, with its data."""

    config: ConfigDict
    problem: latents.Problem
    head: Head
    num_anchors: int


def prepare(config: ConfigDict) -> Job:
    """Check a config and load its data, before anything long begins.

    Raises:
        ConfigError, ValueError: the message says which field, what is wrong and what to do.
    """
    config, problem = latents.prepare_latents(
        config, default_config(), least={"anchors.count": 0}, smoke={"head": latents.SMOKE_HEAD}
    )
    latents.check_names("config.methods", config.methods, REPRESENTATIONS)
    latents.check_names("config.published", (config.published,), PUBLISHED)
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
    """Stitch every encoder with every head by every method; write tables and figures.

    Returns:
        The report's path.
    """
    config, problem = job.config, job.problem
    outcomes = latents.stitch_methods(
        problem, config.methods, (job.num_anchors,), head=job.head,
        seeds=latents.seeds_of(config), console=console,
    )  # fmt: skip
    sheets = [summary_sheet(outcomes), pair_sheet(outcomes), comparison_sheet(outcomes)]
    return latents.write_findings(
        latents.Findings(
            title=f"Stitching across architectures: {problem.name}",
            intro=(
                "Zero-shot stitching across encoders, A7 and A8 of Moschella et al. 2023. A "
                f"{config.head.name.replace('_', ' ')} head on each encoder, "
                f"{latents.describe_anchors(job.num_anchors, problem)}."
            ),
            sheets=sheets,
            tables=stitching.tables(outcomes),
            figures=stitching.write_figures(workdir / "figures", outcomes, METRIC),
            published=PUBLISHED[config.published],
        ),
        problem,
        workdir,
        console,
        command,
    )


def summary_sheet(outcomes: list[stitching.Outcome]) -> report.Sheet:
    """Own and stitched scores by method: the layout of Table 5, a row for each method."""
    rows = []
    for outcome in outcomes:
        own, stitched = outcome.result.non_stitched(METRIC), outcome.result.stitched(METRIC)
        spread = latents.mean_and_std(stitched.mean(axis=0))[1] if stitched.size else float("nan")
        rows.append([
            outcome.method,
            report.percent(*latents.mean_and_std(own)),
            report.percent(*latents.mean_and_std(stitched)),
            report.percent(spread),
            str(stitched.shape[1]),
        ])  # fmt: skip
    count = len(outcomes[0].result.seeds)
    return report.Sheet(
        "Own and stitched heads",
        ("Method", "Own head", "Stitched", "Std over pairs", "Pairs"),
        rows,
        f"Weighted F1 in percent, mean ± standard deviation over all cells of {count} seeds and "
        "encoders or ordered pairs of encoders, as in the paper; beside it the standard deviation "
        "over pairs of the means over seeds. absolute: pairs of one width only.",
        _best_rows(outcomes, column=2),
    )


def _best_rows(outcomes: list[stitching.Outcome], column: int) -> frozenset[tuple[int, int]]:
    # Of methods that can stitch every pair: means over fewer pairs do not compare.
    size = max(outcome.result.stitched(METRIC).shape[1] for outcome in outcomes)
    means = [
        outcome.result.stitched(METRIC).mean()
        if outcome.result.stitched(METRIC).shape[1] == size
        else -1.0
        for outcome in outcomes
    ]
    return frozenset({(latents.best_of(means), column)})


def pair_sheet(outcomes: list[stitching.Outcome]) -> report.Sheet:
    """A row for each decoder and encoder, a column for each method: the layout of Table 6."""
    names = outcomes[0].result.names
    rows = []
    for j, decoder in enumerate(names):
        for i, encoder in enumerate(names):
            cells = [getattr(outcome.result, METRIC)[:, i, j] for outcome in outcomes]
            rows.append(
                [decoder, encoder, *(report.percent(*latents.mean_and_std(c)) for c in cells)]
            )
    return report.Sheet(
        "Every decoder with every encoder",
        ("Decoder", "Encoder", *(outcome.method for outcome in outcomes)),
        rows,
        "Weighted F1 in percent, mean ± standard deviation over seeds. The decoder's classifier "
        "was trained on its own encoder.",
        num_left=2,
    )


def comparison_sheet(outcomes: list[stitching.Outcome]) -> report.Sheet:
    """Every method with the first one that stitches every pair, over pairs."""
    found = {outcome.method: latents.pair_means(outcome, METRIC) for outcome in outcomes}
    base = next((name for name, scores in found.items() if np.isfinite(scores).all()), None)
    rows = [
        (name, base, scores, found[base])
        for name, scores in found.items()
        if base not in (None, name)
    ]
    return latents.paired_sheet("Paired comparisons of stitched heads", rows)
