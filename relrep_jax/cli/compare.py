"""`relrep compare`: how alike are spaces of the same samples?"""

import argparse
import math
import shlex
from functools import partial
from itertools import combinations

from relrep_jax.cli.files import add_output, refuse_to_overwrite, whole_folder
from relrep_jax.cli.terminal import add_seed, choices, console, progress, whole_number

SUMMARY = "measure how alike spaces of the same samples are, and whether that is more than chance"

EXAMPLE = """\
examples:
  relrep compare a.npy b.npy
  relrep compare latents/ -o runs/compared
  relrep compare latents.npz:vision latents.npz:text --measures mutual_knn,cknna --permutations 999

Each cell of the table has the score above, and below it the calibrated score (0 at chance level,
1 for identical spaces) and the p-value against permutations of the rows. OUT gets measures.csv,
measures.json, heat maps in measures.png and report.md.
"""

DEFAULT_MEASURES = ("linear_cka", "rbf_cka", "rsa", "mutual_knn", "cknna")
NEIGHBOURS = ("mutual_knn", "cknna", "jaccard", "mrr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "spaces", metavar="LATENTS", nargs="+", help="files of latents [n, d], or folders of them"
    )
    add_output(parser, "folder for tables, heat maps and a report")
    parser.add_argument(
        "--measures",
        metavar="NAMES",
        default=",".join(DEFAULT_MEASURES),
        help="comma-separated, or all (default: %(default)s)",
    )
    parser.add_argument(
        "--permutations",
        metavar="COUNT",
        default="200",
        help="permutations of the rows behind each p-value, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--max-rows",
        metavar="COUNT",
        default="2048",
        help="rows that scores and permutations are computed on, drawn at random, or all; "
        "time grows with the square (default: %(default)s)",
    )
    parser.add_argument(
        "--neighbours",
        metavar="K",
        default="10",
        help="neighbours that measures of neighbourhoods look at (default: %(default)s)",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="level (default: %(default)s)")
    add_seed(parser, "of rows and permutations (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    count = whole_number("--permutations", args.permutations, 0)
    most = None if args.max_rows == "all" else whole_number("--max-rows", args.max_rows, 4)
    neighbours = whole_number("--neighbours", args.neighbours, 1)
    if not 0 < args.alpha < 1:
        raise ValueError(f"--alpha must lie in (0, 1), got {args.alpha}.")
    least = math.ceil(1 / args.alpha - 1 - 1e-9)
    if 0 < count < least:
        raise ValueError(
            f"--permutations must be 0 or at least {least}, got {count}: with fewer no score can "
            f"be significant at --alpha {args.alpha}."
        )
    if args.output is not None:
        refuse_to_overwrite([args.output], force=args.force)
        if args.output.exists() and not args.output.is_dir():
            raise ValueError(f"{args.output} is a file; the output of compare is a folder.")

    from relrep_jax.data.latents import load_spaces

    spaces = load_spaces(args.spaces)
    if len(spaces) < 2:
        raise ValueError(
            f"There is nothing to compare: only {spaces[0].name} was given. Name two files, or a "
            "folder of them."
        )

    # JAX starts here: its devices are counted once.
    from relrep_jax.training.seeds import use_host_devices

    use_host_devices()
    from relrep_jax import measures

    every = args.measures.strip() == "all"
    names = (
        list(measures.MEASURES) if every else choices("measure", args.measures, measures.MEASURES)
    )
    rows = min(most or len(spaces[0].array), len(spaces[0].array))
    looking = [name for name in names if name in NEIGHBOURS]
    if looking and neighbours >= rows:
        raise ValueError(
            f"{', '.join(looking)} look at {neighbours} neighbours, but {spaces[0].name} and the "
            f"others have only {rows} rows to compare: take fewer with --neighbours, or leave "
            "these measures out with --measures."
        )
    widths = [space.array.shape[1] for space in spaces]
    pairs = {}
    for name in names:
        pairs[name] = list(combinations(range(len(spaces)), 2))
        if name in measures.SAME_WIDTH:
            apart = [(i, j) for i, j in pairs[name] if widths[i] != widths[j]]
            if apart and not every:
                i, j = apart[0]
                raise ValueError(
                    f"{name} compares axes, so both spaces must have one width, got "
                    f"{spaces[i].name} {spaces[i].array.shape} and {spaces[j].name} "
                    f"{spaces[j].array.shape}. Leave {name} out."
                )
            pairs[name] = [pair for pair in pairs[name] if pair not in apart]
    skipped = [
        f"{name} for {len(list(combinations(widths, 2))) - len(kept)} pairs of different widths"
        for name, kept in pairs.items()
        if len(kept) < len(list(combinations(widths, 2)))
    ]

    scores, rows = _scores(args, spaces, pairs, count, most, neighbours)
    caption = _caption(args, spaces, count, rows, skipped)
    if args.output is not None:
        _write(args, spaces, scores, *caption)
    _show(args, scores, caption[0])
    return 0


def _scores(args, spaces, pairs, count, most, neighbours):
    """The `PairScore`s, and how many rows they are of."""
    import jax
    import numpy as np

    from relrep_jax import measures
    from relrep_jax.measures.permutation import judged
    from relrep_jax.report.comparison import PairScore

    n = spaces[0].array.shape[0]
    rows = np.arange(n)
    if most is not None and most < n:
        rows = np.sort(np.random.default_rng(args.seed).choice(n, most, replace=False))
    arrays = [np.asarray(space.array[rows], np.float32) for space in spaces]
    key = jax.random.key(args.seed)
    scores = []
    with progress("comparing", sum(map(len, pairs.values()))) as advance:
        for name, chosen in pairs.items():
            measure = measures.get(name)
            distance = name in measures.DISTANCES
            if name in NEIGHBOURS and neighbours != 10:
                measure = partial(measure, k=neighbours)
            found = measures.pair_scores(measure, arrays, key, count, pairs=chosen, visit=advance)
            for (i, j), values in found.items():
                test = judged(measure, values[0], values[1:], args.alpha) if count else None
                scores.append(
                    PairScore(
                        measure=name,
                        first=spaces[i].name,
                        second=spaces[j].name,
                        score=float(values[0]),
                        p_value=_exact(float(test.p_value), count) if test else None,
                        calibrated=float(test.calibrated) if test else None,
                        threshold=float(test.threshold) if test else None,
                        permutations=count,
                        rows=len(rows),
                        distance=distance,
                    )
                )
    return scores, len(rows)


def _exact(p_value: float, count: int) -> float:
    """A p-value of `count` permutations without the rounding of float32: 19 make one of 0.05."""
    return round(p_value * (count + 1)) / (count + 1) if math.isfinite(p_value) else p_value


def _caption(args, spaces, count, rows, skipped) -> tuple[str, str]:
    """What the table says below its rows, and the figure."""
    n = spaces[0].array.shape[0]
    used = f"all {n:,} rows" if rows == n else f"{rows:,} of {n:,} rows, drawn at random"
    left_out = f" Left out: {'; '.join(skipped)}." if skipped else ""
    if not count:
        return (f"Scores of {used}.{left_out}",) * 2
    calibrated = (
        f"calibrated score (0 at the {1 - args.alpha:.0%} quantile of {count:,} permutations of "
        "the same rows, 1 for identical spaces)"
    )
    return (
        f"Above: score of {used}. Below: {calibrated}; p-value.{left_out}",
        f"Above the diagonals: score of {used}. Below: {calibrated}, n.s. where p > "
        f"{args.alpha:g}.{left_out}",
    )


def _show(args, scores, caption) -> None:
    from relrep_jax.report.comparison import comparison_tables

    out = console()
    for table in comparison_tables(scores, out.width):
        out.print(table)
    out.print(caption, style="dim italic")
    if args.output is not None:
        out.print(f"Tables, heat maps and report: {args.output}", soft_wrap=True)


def _write(args, spaces, scores, caption, figure_caption) -> None:
    import jax

    from relrep_jax.report.comparison import (
        comparison_figure,
        comparison_markdown,
        label_of,
        spaces_markdown,
        write_comparison_csv,
        write_comparison_json,
    )
    from relrep_jax.report.figures import save
    from relrep_jax.report.markdown import environment, write_report

    labels = ", ".join(dict.fromkeys(label_of(score.measure) for score in scores))
    with whole_folder(args.output) as folder:
        write_comparison_csv(folder / "measures.csv", scores)
        write_comparison_json(folder / "measures.json", scores)
        save(
            comparison_figure(scores, [space.name for space in spaces], args.alpha),
            folder / "measures.png",
        )
        write_report(
            folder / "report.md",
            title="How alike the spaces are",
            intro=f"{len(spaces)} spaces of the same samples, compared by {labels}.",
            command=shlex.join(["relrep", *args.command_line]),
            figures=[(figure_caption, "measures.png")],
            sections=[
                ("Scores", comparison_markdown(scores)),
                ("Spaces", spaces_markdown(spaces)),
            ],
            versions={**environment(), "device": jax.devices()[0].device_kind},
        )
