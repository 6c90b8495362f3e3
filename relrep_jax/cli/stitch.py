"""`relrep stitch`: every encoder of a folder with the classifier head of every other."""

import argparse
import shlex
import sys
from collections.abc import Collection
from pathlib import Path

from relrep_jax.cli.files import add_output, refuse_to_overwrite, whole_folder
from relrep_jax.cli.terminal import choices, console, progress, whole_number

SUMMARY = "train a head on each encoder's latents and score every encoder with every head"

EXAMPLE = """\
examples:
  relrep stitch latents/trec -o runs/trec
  relrep stitch latents/trec -o runs/few --methods consensus,ridge --parallel-samples 64,256

DIR holds one file of latents [n, d] for each encoder, row i the same sample in all of them, and
labels.npy and split.npy (0 train, 1 dev, 2 test). OUT gets pairs.csv with a row for each method,
number of parallel samples, seed, pair and metric, summary.csv, both as JSON too, figures/ and
report.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", type=Path, help="folder of latents")
    add_output(parser, "folder for tables, heat maps and a report", required=True)
    parser.add_argument("--labels", metavar="FILE", help="default: labels.npy in DIR")
    parser.add_argument("--split", metavar="FILE", help="default: split.npy in DIR")
    parser.add_argument(
        "--methods",
        metavar="NAMES",
        help="comma-separated; default: absolute and relative spaces, translations, consensus",
    )
    parser.add_argument(
        "--parallel-samples",
        metavar="COUNTS",
        help="how many training samples are known to correspond, comma-separated, all for every "
        "one (default: 256,all, or all where there are no more than 256)",
    )
    parser.add_argument(
        "--seeds",
        metavar="COUNT",
        default="5",
        help="each draws its own parallel samples (default: %(default)s)",
    )
    parser.add_argument(
        "--head",
        metavar="NAME",
        default="logistic_regression",
        help="logistic_regression, mlp or deep_mlp (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    seeds = whole_number("--seeds", args.seeds, 1)
    refuse_to_overwrite([args.output], force=args.force)
    if args.output.exists() and not args.output.is_dir():
        raise ValueError(f"{args.output} is a file; the output of stitch is a folder.")
    from relrep_jax.data.latents import check_folder, load_labelled

    check_folder(args.directory)
    latents = load_labelled(args.directory, args.labels, args.split)

    # JAX starts here: its devices are counted once.
    from relrep_jax.training.seeds import use_host_devices

    use_host_devices()
    from relrep_jax.experiments import latent_stitching as job
    from relrep_jax.stitching import HEADS, REPRESENTATIONS
    from relrep_jax.stitching.latents import TEST, TRAIN, check_labelled

    named = ",".join(job.METHODS) if args.methods is None else args.methods
    methods = choices("method", named, REPRESENTATIONS)
    head = _head(args.head, HEADS)
    spaces, labels, split = check_labelled(latents)
    num_train, num_test = int((split == TRAIN).sum()), int((split == TEST).sum())
    default = "256,all" if num_train > 256 else "all"
    named = default if args.parallel_samples is None else args.parallel_samples
    budgets = _budgets(named, num_train)

    outcomes, failures = [], []
    jobs = job.plan(methods, budgets)
    with progress("stitching", len(jobs)) as advance:
        for name, budget in jobs:
            try:
                outcome = job.stitch(name, spaces, labels, split, budget, seeds=seeds, head=head)
                outcomes.append(outcome)
            # What other methods have found is not lost by one that fails.
            except (ValueError, RuntimeError, MemoryError) as error:
                known = "all" if budget is None else budget
                failures.append(f"{name} with {known} parallel samples: {error}")
            except KeyboardInterrupt:
                if not outcomes:
                    raise
                failures.append("what was not done when the command was interrupted")
                break
            advance(1)
    if not outcomes:
        raise ValueError("No method could be run.\n" + "\n".join(failures))

    counts = (
        f"{num_train:,} training and {num_test:,} test samples, {len(set(labels.tolist()))} classes"
    )
    with whole_folder(args.output, stale=["figures/pairs_*.png"]) as folder:
        job.write_tables(folder, outcomes)
        job.write_latents_report(
            folder / "report.md",
            title=f"Stitching the latents of {args.directory.resolve().name}",
            intro=(
                f"Zero-shot stitching of {len(spaces)} encoders ({', '.join(spaces)}): {counts}. "
                f"One {head.replace('_', ' ')} head was trained on the training samples of each "
                "encoder and given the test samples of every other one. *Parallel samples* are the "
                "training samples whose correspondence between encoders a method knew; no method "
                "saw a label of them. The method matched_consensus supposes, besides, that all "
                "encoders have encoded the same training samples, and finds out which is which."
            ),
            command=shlex.join(["relrep", *args.command_line]),
            outcomes=outcomes,
            figures=job.write_figures(folder / "figures", outcomes),
            failures=failures,
        )

    out = console()
    title = f"Zero-shot stitching, {args.directory.resolve().name}: {counts}"
    out.print(job.terminal_table(outcomes, title))
    out.print(f"Tables, heat maps and report: {args.output}", soft_wrap=True)
    for failure in failures:
        print(f"relrep stitch: left out {failure}", file=sys.stderr)
    return 1 if failures else 0


def _head(text: str, known: Collection[str]) -> str:
    """The head that `text` names; a `ValueError` unless it is one, and known."""
    heads = choices("head", text, known)
    if len(heads) > 1:
        raise ValueError(f"--head takes one head, got {text!r}. Known: {', '.join(sorted(known))}.")
    return heads[0]


def _budgets(text: str, num_train: int) -> list[int | None]:
    budgets: dict[int, int | None] = {}
    for part in text.split(","):
        part = part.strip()
        if part == "all":
            budgets.setdefault(num_train, None)
            continue
        try:
            count = int(part)
        except ValueError:
            raise ValueError(
                f"--parallel-samples takes numbers and 'all', separated by commas, got {part!r}."
            ) from None
        if not 1 <= count <= num_train:
            raise ValueError(
                f"--parallel-samples must lie in 1 .. {num_train}, the number of training "
                f"samples, got {count}. 'all' takes them all."
            )
        budgets.setdefault(count, None if count == num_train else count)
    return list(budgets.values())
