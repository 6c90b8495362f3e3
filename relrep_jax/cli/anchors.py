"""`relrep anchors`: which samples a space is seen from."""

import argparse

from relrep_jax.cli.files import add_output, check_kind, refuse_to_overwrite
from relrep_jax.cli.terminal import add_seed, console, progress, whole_number

SUMMARY = "choose anchors among the samples of a file of latents"

EXAMPLE = """\
examples:
  relrep anchors a.npy --count 256 -o anchors.npy
  relrep anchors a.npy --method stratified --labels labels.npy --among train.npy -o anchors.npy
  relrep anchors words.npy --method top --top 1000 --count 300 -o anchors.txt

methods:
  uniform      at random
  stratified   at random, in turn from every class of --labels
  fps          farthest-point sampling: each is the farthest from all before it
  kmeans       the samples next to the centroids of k-means
  greedy       each brings the samples nearest to an anchor (facility location)
  top          at random among the first --top rows, such as the most frequent words

The row numbers [m], counted from 0, name the same samples in every file of the same rows.
"""

METHODS = ("uniform", "stratified", "fps", "kmeans", "greedy", "top")
_OWNERS = {"labels": "stratified", "start": "fps", "top": "top"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", metavar="LATENTS", help="file of latents [n, d]")
    parser.add_argument("--method", metavar="NAME", default="uniform", help="default: uniform")
    parser.add_argument("--count", metavar="M", default="256", help="default: %(default)s")
    parser.add_argument("--labels", metavar="FILE", help="class of every row, for stratified")
    parser.add_argument("--start", metavar="ROW", help="first anchor of fps (default: 0)")
    parser.add_argument("--top", metavar="N", help="how many rows top chooses from")
    parser.add_argument("--among", metavar="FILE", help="rows to choose from (default: all)")
    add_seed(parser, "default: %(default)s")
    add_output(parser, "file: .npy, or .txt with one row number a line", required=True)


def run(args: argparse.Namespace) -> int:
    check_kind(args.output, (".npy", ".txt"))
    refuse_to_overwrite([args.output], force=args.force)
    count = whole_number("--count", args.count, 1)
    start = None if args.start is None else whole_number("--start", args.start, 0)
    top = None if args.top is None else whole_number("--top", args.top, 1)

    from relrep_jax.checks import lookup

    lookup("method", args.method, dict.fromkeys(METHODS))
    for option, owner in _OWNERS.items():
        if getattr(args, option) is not None and args.method != owner:
            raise ValueError(f"--{option} is an option of {owner}, not of {args.method}.")
    for method, option in (("stratified", "labels"), ("top", "top")):
        if args.method == method and getattr(args, option) is None:
            raise ValueError(f"The method {method} needs --{option}.")

    import numpy as np

    from relrep_jax.data.latents import load_indices, load_labels, load_latents

    space = load_latents(args.latents)
    n = space.array.shape[0]
    labels = None if args.labels is None else load_labels(args.labels, n)
    rows = np.arange(n)
    if args.among is not None:
        rows = load_indices(args.among, n)
        if rows.ndim != 1:
            raise ValueError(
                f"{args.among} holds pairs of rows {rows.shape}; one column is wanted."
            )
        if len(np.unique(rows)) < len(rows):
            raise ValueError(f"{args.among} names rows more than once; anchors are distinct.")
    first = 0
    if start is not None:
        place = np.flatnonzero(rows == start)
        if not place.size:
            raise ValueError(f"--start is {start}, which is not among the {len(rows)} rows.")
        first = int(place[0])

    import jax
    import jax.numpy as jnp

    from relrep_jax import anchors

    # Refused before anything is searched.
    try:
        anchors.check_num_anchors(len(rows), count)
    except ValueError as error:
        raise ValueError(f"--count for {args.among or args.latents}: {error}") from error
    key = jax.random.key(args.seed)

    def latents():
        return jnp.asarray(space.array[rows], jnp.float32)

    methods = {
        "uniform": lambda: anchors.uniform(key, len(rows), count),
        "stratified": lambda: anchors.stratified(key, labels[rows], count),
        "fps": lambda: anchors.farthest_point(latents(), count, start=first),
        "kmeans": lambda: anchors.kmeans(key, latents(), count),
        "greedy": lambda: anchors.greedy(latents(), count),
        "top": lambda: anchors.top_frequency(key, len(rows), count, top),
    }
    with progress(f"choosing {count} anchors", 1) as advance:
        chosen = rows[np.asarray(methods[args.method]())].astype(np.int64)
        advance(1)
    _write(args.output, chosen)
    console().print(
        f"{args.output}: {count} of {len(rows):,} rows by {args.method}", soft_wrap=True
    )
    return 0


def _write(path, chosen) -> None:
    import numpy as np

    from relrep_jax._files import atomic_open

    with atomic_open(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, chosen)
        else:
            file.write("".join(f"{row}\n" for row in chosen).encode())
