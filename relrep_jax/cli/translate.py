"""`relrep translate`: latents of one encoder into the space of another."""

import argparse
from typing import Any

from relrep_jax.cli.files import (
    ARRAY_KINDS,
    Blocks,
    add_output,
    check_kind,
    refuse_to_overwrite,
    write_arrays,
)
from relrep_jax.cli.terminal import add_seed, console, progress, whole_number

SUMMARY = "map latents of one encoder into the space of another"

EXAMPLE = """\
examples:
  relrep translate a.npy b.npy --train rows.npy -o a_in_b.npy
  relrep translate a.npy b.npy --method ridge --penalty 10 --train rows.npy -o a_in_b.npy
  relrep translate a.npy b.npy --method low_rank --rank 64 --train pairs.npy -o a_in_b.npy

The map is fitted on the training rows of A and B and applied to all of A. Rows [p] mean the same
samples in both files; pairs [p, 2] a row of A and its counterpart in B. On the rows that were not
used it prints the mean cosine with B, the relative error |Y' - Y| / |Y - mean Y| and how well a
row finds its counterpart (MRR@10, top-1).
"""

_OPTIONS = {"low_rank": ("rank",), "cca": ("rank",), "ridge": ("penalty",)}
_BLOCK_ENTRIES = 2**24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="A", help="file of latents [n, d1]")
    parser.add_argument("target", metavar="B", help="file of latents [n, d2]")
    parser.add_argument(
        "--method",
        metavar="NAME",
        default="orthogonal",
        help="orthogonal (default), linear, affine, ridge, low_rank, cca or inverse_relative",
    )
    parser.add_argument(
        "--train", metavar="FILE", required=True, help="rows [p] or pairs [p, 2]: .npy, .txt, .csv"
    )
    parser.add_argument("--rank", metavar="COUNT", help="of low_rank and cca (default: full)")
    parser.add_argument("--penalty", type=float, help="of ridge (default: 1)")
    parser.add_argument(
        "--test",
        metavar="FILE",
        help="rows or pairs to print scores on (default: all that are not in --train; none where "
        "that holds pairs)",
    )
    parser.add_argument(
        "--max-rows",
        metavar="COUNT",
        default="10000",
        help="rows to print scores on, drawn at random, or all (default: %(default)s)",
    )
    add_seed(parser, "of that draw (default: %(default)s)")
    add_output(parser, "file: .npy, .npz or .safetensors", required=True)


def run(args: argparse.Namespace) -> int:
    check_kind(args.output, ARRAY_KINDS)
    refuse_to_overwrite([args.output], force=args.force)
    most = None if args.max_rows == "all" else whole_number("--max-rows", args.max_rows, 2)
    options = _options(args)

    from relrep_jax.data.latents import load_indices, load_latents

    source, target = load_latents(args.source).array, load_latents(args.target).array
    train = load_indices(args.train, len(source), len(target))
    if train.ndim == 1 and len(source) != len(target):
        raise ValueError(
            f"Rows mean the same samples in both files, but {args.source} has {len(source)} rows "
            f"and {args.target} has {len(target)}. Give pairs [p, 2]: a row of each."
        )
    test = _test_rows(args, train, source, target, load_indices)

    import jax.numpy as jnp
    import numpy as np

    from relrep_jax import translation

    method = translation.get(args.method)
    for option in options:
        if option not in _OPTIONS.get(args.method, ()):
            owners = " and ".join(name for name, taken in _OPTIONS.items() if option in taken)
            raise ValueError(f"--{option} is an option of {owners}, not of {args.method}.")

    pairs = train if train.ndim == 2 else np.stack([train, train], axis=1)
    with progress("translating", 1 + len(source)) as advance:
        try:
            params = method.fit(
                jnp.asarray(source[pairs[:, 0]], jnp.float32),
                jnp.asarray(target[pairs[:, 1]], jnp.float32),
                **options,
            )
        except ValueError as error:
            raise ValueError(f"{args.source} to {args.target}: {error}") from error
        advance(1)

        def apply(rows):
            return np.asarray(method.apply(params, jnp.asarray(rows, jnp.float32)))

        def blocks():
            size = int(np.clip(_BLOCK_ENTRIES // max(source.shape[1], width), 256, 65_536))
            for start in range(0, len(source), size):
                block = apply(source[start : start + size])
                bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
                if bad.size:
                    raise ValueError(f"Row {start + bad[0]} is not finite after {args.method}.")
                yield block
                advance(len(block))

        width = target.shape[1]
        shape = (len(source), width)
        write_arrays(args.output, {"latents": Blocks(shape, np.float32, blocks())})

    out = console()
    out.print(
        f"{args.output}: {list(shape)} float32, {args.method} fitted on {len(pairs):,} "
        f"{'pairs' if train.ndim == 2 else 'rows'}",
        soft_wrap=True,
    )
    if test is None or len(test) < 2:
        out.print(_why_no_scores(0 if test is None else len(test), args.test), style="dim")
        return 0
    of = f"{len(test):,}"
    what = "rows of --test" if args.test else "rows that were not fitted on"
    if most is not None and len(test) > most:
        test = test[np.sort(np.random.default_rng(args.seed).choice(len(test), most, False))]
        of = f"{most:,} of {of}"
    _show(
        out,
        apply(source[test[:, 0]]),
        np.asarray(target[test[:, 1]], np.float32),
        f"On {of} {what}",
    )
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the method that were given.

    Raises:
        ValueError: a rank below 1, or a penalty that is negative or that float32 cannot hold.
    """
    options: dict[str, Any] = {}
    if args.rank is not None:
        options["rank"] = whole_number("--rank", args.rank, 1)
    if args.penalty is not None:
        import numpy as np

        limits = np.finfo(np.float32)
        if args.penalty != 0 and not float(limits.tiny) <= args.penalty <= float(limits.max):
            raise ValueError(
                "--penalty must be 0 or a number that float32 can hold, about "
                f"{limits.tiny:.1e} to {limits.max:.1e}, got {args.penalty}."
            )
        options["penalty"] = args.penalty
    return options


def _why_no_scores(count: int, test: str | None) -> str:
    """What to say where there are fewer than two rows to score the map on."""
    if test is not None:
        return "The map was not scored: --test names one row; scores take two or more."
    if count == 1:
        return (
            "One row is left to score the map on, and scores take two or more; name them with "
            "--test."
        )
    return "No rows are left to score the map on; name two or more with --test."


def _test_rows(args, train, source, target, load_indices):
    """Pairs of rows to score the map on, or None where nothing says which correspond."""
    import numpy as np

    if args.test is not None:
        test = load_indices(args.test, len(source), len(target))
        if test.ndim == 1 and (train.ndim == 2 or len(source) != len(target)):
            raise ValueError(
                f"{args.test} holds single rows, but --train says that the files do not "
                "correspond row by row: give pairs of rows [p, 2] here as well."
            )
        return test if test.ndim == 2 else np.stack([test, test], axis=1)
    if train.ndim == 2:
        return None
    rest = np.setdiff1d(np.arange(len(source)), train)
    return np.stack([rest, rest], axis=1)


def _show(out, found, wanted, heading: str) -> None:
    import numpy as np
    from rich import box
    from rich.table import Table

    from relrep_jax import measures

    k = min(10, len(found) - 1)
    spread = np.linalg.norm(wanted - wanted.mean(axis=0))
    error = np.linalg.norm(found - wanted)
    table = Table(box=box.HORIZONTALS, border_style="dim", pad_edge=False)
    table.add_column(heading, no_wrap=True)
    table.add_column("", justify="right")
    for name, value in (
        ("mean cosine", measures.mean_cosine(found, wanted)),
        ("relative error", error / spread if spread > 0 else np.nan),
        (f"MRR@{k}", measures.mrr(found, wanted, k)),
        ("top-1 retrieval", measures.mrr(found, wanted, 1)),
    ):
        table.add_row(name, f"{float(value):.3f}")
    out.print(table)
