"""Paired comparisons of stitching grids: the same seeds and pairs under two representations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from relrep_jax.report.sheets import PAIRED_HEADER, PairedTest, Sheet, paired_tail, paired_test
from relrep_jax.report.tables import Grid, get_metric, summarize

__all__ = ["PAIRED_GRID_COLUMNS", "compare_grids", "paired_grids_sheet"]

KINDS = ("non-stitched", "stitched")
PAIRED_GRID_COLUMNS = ("representation", "against", "metric", "cells", *PairedTest._fields)


def compare_grids(grids: Sequence[Grid], references: Sequence[str] = ()) -> list[tuple]:
    """Every representation against the first one, and against the one that is stitched best.

    Args:
        grids: scores of the same seeds, one grid a representation, all of one metric.
        references: names of further representations to compare every other with.

    Returns:
        Rows in the order of `PAIRED_GRID_COLUMNS`: a difference is the mean of `representation`
        less that of `against`, and a pair is won by the better value, which of an error is the
        smaller one. Seeds that diverged under either are left out, and so are comparisons of
        scores that are equal throughout, or that were compared already.
    """
    if len(grids) < 2:
        return []
    metric = get_metric(grids[0].metric)
    sign = 1 if metric.higher_is_better else -1
    means = [sign * summarize(grid).stitched_mean for grid in grids]
    best = int(np.nanargmax(means)) if np.isfinite(means).any() else 0
    further = [i for i, grid in enumerate(grids) if grid.representation in references]
    rows, own_scores, compared = [], set(), set()
    for reference in dict.fromkeys((0, best, *further)):
        for other, grid in enumerate(grids):
            pair = frozenset((other, reference))
            if other == reference or pair in compared:
                continue
            compared.add(pair)
            for kind in KINDS:
                gone = {*grid.diverged, *grids[reference].diverged}
                first, second = (_cells(g, gone, kind) for g in (grid, grids[reference]))
                if first.size and np.array_equal(first, second):
                    continue  # the same models, whose latents other decoders read otherwise
                if kind == "non-stitched":
                    # The own scores of a translation are those of the latents that it maps.
                    key = (first.tobytes(), second.tobytes())
                    if key in own_scores:
                        continue
                    own_scores.add(key)
                test = paired_test(sign * first, sign * second)
                test = test._replace(difference=sign * test.difference)
                rows.append(
                    (grid.representation, grids[reference].representation, grid.metric, kind, *test)
                )
    return rows


def _cells(grid: Grid, gone: set[str], kind: str) -> np.ndarray:
    """The scores `[p]` of one kind without some seeds."""
    kept = np.outer(
        [label not in gone for label in grid.encoders],
        [label not in gone for label in grid.decoders],
    )
    own = grid.non_stitched
    return grid.values[kept & (own if kind == "non-stitched" else ~own)]


def paired_grids_sheet(rows: Sequence[tuple]) -> Sheet:
    """The rows of `compare_grids` as a table for people."""
    metric = get_metric(rows[0][2])
    cells = []
    for name, against, _, kind, *test in rows:
        test = PairedTest(*test)
        difference = f"{metric.scale * test.difference:+.3g}" if test.pairs else "–"
        cells.append([name, against, kind, difference, *paired_tail(test)])
    return Sheet(
        "Paired comparisons",
        ("Representation", "Against", "Decoders", *PAIRED_HEADER),
        cells,
        f"Difference of the mean {metric.label}, tested over seeds with their own decoders, or "
        "over ordered pairs of seeds, which are not independent of one another: the p-values of "
        "stitched pairs are too small rather than too large, and none is corrected for the number "
        "of tests. The best representation to compare with is the one whose stitched mean is the "
        "best in these very scores. Pairs whose scores are not finite are left out.",
        num_left=3,
    )
