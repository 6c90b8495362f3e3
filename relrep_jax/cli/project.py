"""`relrep project`: latents to relative spaces."""

import argparse
from functools import partial
from pathlib import Path

from relrep_jax.cli.files import (
    ARRAY_KINDS,
    Blocks,
    add_output,
    check_kind,
    refuse_to_overwrite,
    write_arrays,
)
from relrep_jax.cli.terminal import choices, console, progress

SUMMARY = "re-express latents by their similarities to anchors"

EXAMPLE = """\
examples:
  relrep project a.npy --anchors anchors.npy -o relative.npy
  relrep project a.npy --anchors anchors.npy --similarity cosine,euclidean,manhattan,chebyshev \\
      --absolute-transform centering -o product.npz
  relrep project new.npy --anchor-vectors anchors_of_encoder.npy -o relative.safetensors

One similarity gives [n, m]; several give [s, n, m] in .npy, and one array each in .npz and
.safetensors. Rows go through in blocks: latents that are mapped from the disk (.npy,
.safetensors) may be larger than the memory, but for mahalanobis and whitened_inner, whose
statistics need all of them at once.
"""

_BLOCK_ENTRIES = 2**24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("latents", metavar="LATENTS", help="file of latents [n, d]")
    anchors = parser.add_mutually_exclusive_group(required=True)
    anchors.add_argument(
        "--anchors", metavar="FILE", help="rows of LATENTS that are anchors: .npy, .txt or .csv"
    )
    anchors.add_argument(
        "--anchor-vectors", metavar="FILE", help="file of anchors [m, d] by the same encoder"
    )
    parser.add_argument(
        "--similarity",
        metavar="NAMES",
        default="cosine",
        help="comma-separated: cosine, inner, euclidean, manhattan, chebyshev, angular, "
        "change_of_basis; mahalanobis and whitened_inner, whose covariance (Ledoit-Wolf) is "
        "that of LATENTS (default: %(default)s)",
    )
    parser.add_argument(
        "--absolute-transform",
        metavar="NAMES",
        help="of latents and anchors, fitted on the anchors: centering, standard_scaling, ...; "
        "several, comma-separated, are applied in turn",
    )
    parser.add_argument(
        "--relative-transform",
        metavar="NAMES",
        help="of the relative space, fitted on that of the anchors",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="to store (default: %(default)s; everything is computed in float32)",
    )
    add_output(parser, "file: .npy, .npz or .safetensors", required=True)


def run(args: argparse.Namespace) -> int:
    check_kind(args.output, ARRAY_KINDS)
    refuse_to_overwrite([args.output], force=args.force)

    from relrep_jax.data.latents import load_indices, load_latents

    space = load_latents(args.latents)
    n, d = space.array.shape
    if args.anchors is not None:
        rows = load_indices(args.anchors, n)
        if rows.ndim != 1:
            raise ValueError(
                f"{args.anchors} holds pairs of rows {rows.shape}; anchors are rows of one file, "
                "[m]. Save the column that belongs to it."
            )
        vectors = space.array[rows]
    else:
        vectors = load_latents(args.anchor_vectors).array
        if vectors.shape[1] != d:
            raise ValueError(
                f"Latents and anchors must have the same width, got {args.latents} {(n, d)} and "
                f"{args.anchor_vectors} {vectors.shape}. Both must come from one encoder."
            )

    import jax
    import jax.numpy as jnp
    import numpy as np

    from relrep_jax import relative_projection, similarities

    fitted = {
        "mahalanobis": lambda mean, precision: partial(
            similarities.mahalanobis, precision=precision
        ),
        "whitened_inner": lambda mean, precision: partial(
            similarities.whitened_inner, mean=mean, precision=precision
        ),
    }
    plain = similarities.SIMILARITIES
    names = choices("similarity", args.similarity, {**plain, **fitted})
    absolute = _transform(args.absolute_transform)
    relative = _transform(args.relative_transform)
    anchors = jnp.asarray(vectors, jnp.float32)
    m = anchors.shape[0]
    statistics = ()
    if any(name in fitted for name in names):
        statistics = _statistics(space.array, absolute, anchors)

    size = int(np.clip(_BLOCK_ENTRIES // max(d, m), 256, 65_536))
    dtype = np.dtype(args.dtype)
    with progress("projecting", len(names) * n) as advance:

        def blocks(name: str):
            chosen = fitted[name](*statistics) if name in fitted else plain[name]
            project = jax.jit(
                lambda block: relative_projection(block, anchors, chosen, absolute, relative)
            )
            for start in range(0, n, size):
                block = np.asarray(space.array[start : start + size], np.float32)
                found = np.asarray(project(block))
                _check_range(found, dtype, name, start)
                yield found.astype(dtype)
                advance(len(block))

        write_arrays(args.output, {name: Blocks((n, m), dtype, blocks(name)) for name in names})
    several = len(names) > 1 and Path(args.output).suffix.lower() == ".npy"
    shape = (len(names), n, m) if several else (n, m)
    keys = "" if len(names) == 1 else f" ({', '.join(names)})"
    console().print(f"{args.output}: {list(shape)} {dtype}{keys}", soft_wrap=True)
    return 0


def _transform(text: str | None):
    from relrep_jax import transforms

    if text is None:
        return None
    names = choices("transform", text, transforms.TRANSFORMS)
    return names[0] if len(names) == 1 else transforms.chain(*names)


def _statistics(latents, absolute, anchors):
    """Mean and precision of the latents, after the absolute transform as the similarity is."""
    import jax.numpy as jnp

    from relrep_jax import similarities, transforms

    transform = transforms.resolve(absolute, anchors)
    return similarities.covariance_statistics(transform(jnp.asarray(latents, jnp.float32)))


def _check_range(found, dtype, name: str, start: int) -> None:
    import numpy as np

    limit = np.finfo(dtype).max
    bad = np.flatnonzero(~(np.abs(found) <= limit).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{name} of row {start + bad[0]} is not a number that {dtype} can hold. "
            + (
                "Store float32."
                if dtype == np.float16 and np.isfinite(found).all()
                else "Scale the latents to values near 1."
            )
        )
