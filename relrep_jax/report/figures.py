"""Figures of experiments: reconstructions, latent spaces, stitching grids and learning curves.

Every function returns a `matplotlib.figure.Figure`, drawn with matplotlib's own defaults and the
style below whatever the user's settings are, and without `pyplot`, so that nothing is kept in
memory and no display is needed. Names and labels are drawn as they are given: a dollar sign is one,
and begins no formula. `save` writes the same bytes for the same input.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LogNorm, Normalize, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from relrep_jax._files import atomic_open
from relrep_jax.report.tables import Grid, get_metric

__all__ = [
    "PALETTE",
    "change_map",
    "intervals",
    "latent_spaces",
    "learning_curves",
    "pair_grid",
    "project_jointly",
    "reconstructions",
    "save",
    "scatter",
]

DPI = 160

# Petroff (2021), "Accessible Color Sequences for Data Visualization", arXiv:2107.02270: ten
# colours chosen to be told apart under the common colour-vision deficiencies; here with the
# greys and the second orange late, because most figures need only a few.
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#832db6",
    "#717581",
    "#a96b59",
    "#92dadd",
    "#b9ac70",
    "#e76300",
    "#94a4a2",
)

_INK = "#222222"
_SOFT = "#707070"
_MISSING = "#e4e4e4"
_HATCHED: dict[str, Any] = {
    "facecolor": _MISSING,
    "edgecolor": "#b5b5b5",
    "hatch": "////",
    "linewidth": 0,
}
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.edgecolor": "#888888",
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "hatch.linewidth": 0.6,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "pdf.fonttype": 42,  # letters stay letters
}


@contextlib.contextmanager
def _style(*, formulas: bool = False) -> Iterator[None]:
    """The settings to draw with; texts made meanwhile are read as formulas only if so asked."""
    with matplotlib.style.context(["default", {**_STYLE, "text.parse_math": formulas}]):
        yield


def _figure(width: float, height: float, gap: float, *, compress: bool = False) -> Figure:
    """Figure whose axes make room for their labels, with a gap (in inches) around them."""
    engine = ConstrainedLayoutEngine(
        w_pad=gap, h_pad=gap, wspace=0.02, hspace=0.02, compress=compress
    )
    figure = Figure(figsize=(width, height), dpi=DPI, layout=engine)
    FigureCanvasAgg(figure)
    return figure


def _freeze(figure: Figure) -> None:
    """Lays the figure out now and for good: a layout engine would shift it a little each time."""
    for _ in range(2):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Writes a figure as PNG or PDF, in one step and without a time stamp.

    Args:
        figure: what one of the functions of this module returned (any figure works).
        path: where the file goes; it ends in `.png` or `.pdf`.

    Returns:
        The path.

    Raises:
        ValueError: if the path ends in anything else.
    """
    path = Path(path)
    kind = path.suffix.lower()
    metadata: dict[str, dict[str, str | None]] = {
        ".png": {"Software": None},
        ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }
    if kind not in metadata:
        raise ValueError(f"figures are written as .png or .pdf, got {str(path)!r}")
    # A figure without a layout engine was laid out to the pixel: cropping would blur it.
    crop: dict[str, Any] = (
        {} if figure.get_layout_engine() is None else {"bbox_inches": "tight", "pad_inches": 0.06}
    )
    # The texts of this module's figures are there by now. In other figures ticks may be made only
    # here, and those of logarithmic axes are formulas.
    with _style(formulas=True), atomic_open(path) as file:
        figure.savefig(file, format=kind[1:], dpi=DPI, metadata=metadata[kind], **crop)
    return path


# --- Reconstructions --------------------------------------------------------------------------


def _images(name: str, images: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Checks images and brings them to `[k, h, w, 1 or 3]` in [0, 1]."""
    array = np.asarray(images, dtype=np.float32)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(
            f"{name} must have shape [k, h, w, c] with c = 1 (grey) or 3 (RGB), or [k, h, w], got "
            f"{np.shape(images)}"
        )
    if like is not None and array.shape != like.shape:
        raise ValueError(
            f"{name} has shape {array.shape}, the originals have {like.shape}: give the same "
            "images in the same order"
        )
    # What is not a number (a diverged model) is light grey.
    return np.where(np.isfinite(array), np.clip(array, 0.0, 1.0), 0.85)


def reconstructions(
    originals: np.ndarray,
    rows: Sequence[tuple[str | tuple[str, str], np.ndarray]],
    *,
    source_label: str = "source",
) -> Figure:
    """Source images above their reconstructions, one row for each way to reconstruct them.

    Args:
        originals: images `[k, h, w, c]` in [0, 1], with c = 1 or 3; or `[k, h, w]`.
        rows: labels and images of the shape of the originals, clipped to [0, 1]. A label is a
            text, or a group and a text, such as `("absolute", "stitched")`: neighbouring rows of
            one group are drawn together under its name.
        source_label: label of the first row.

    Returns:
        The figure, with one axes for each image, row by row.

    Raises:
        ValueError: if images are not grey or RGB images of one shape.
    """
    source = _images("originals", originals)
    labels: list[tuple[str, str]] = [("", source_label)]
    images = [source]
    for label, array in rows:
        labels.append(("", label) if isinstance(label, str) else (label[0], label[1]))
        images.append(_images(f"row {label!r}", array, like=source))
    k, height, width, channels = source.shape

    with _style():
        figure = Figure(dpi=DPI)
        renderer = FigureCanvasAgg(figure).get_renderer()

        def text_width(text: str, **style: Any) -> int:
            if not text:
                return 0
            probe = figure.text(0, 0, text, **style)
            extent = probe.get_window_extent(renderer).width
            probe.remove()
            return int(np.ceil(extent))

        # All lengths in pixels, so that image pixels fall on pixels of the figure.
        bold: dict[str, Any] = {"fontsize": 9, "fontweight": "bold"}
        group_width = max(text_width(group, **bold) for group, _ in labels)
        label_width = max(text_width(label, fontsize=9) for _, label in labels)
        margin, gap, group_gap, pad = 10, 4, 18, 12
        left = margin + group_width + (2 * pad if group_width else 0) + label_width + pad
        room = (1280 - left - margin) // k - gap
        cell_w = int(np.clip(room, 40, 104))
        if cell_w >= width:
            cell_w = cell_w // width * width
        cell_h = max(1, round(cell_w * height / width))

        interpolation = "nearest" if cell_w >= width else "hanning"

        tops, y = [], margin
        for i, (group, _) in enumerate(labels):
            if i and (group != labels[i - 1][0] or not group and i == 1):
                y += group_gap - gap
            tops.append(y)
            y += cell_h + gap
        total_w = left + k * (cell_w + gap) - gap + margin
        total_h = y - gap + margin
        figure.set_size_inches(total_w / DPI, total_h / DPI)

        def centre(first: int, last: int) -> float:
            return 1 - (tops[first] + tops[last] + cell_h) / 2 / total_h

        for (_, label), array, top in zip(labels, images, tops, strict=True):
            for j in range(k):
                axes = figure.add_axes(
                    (
                        (left + j * (cell_w + gap)) / total_w,
                        1 - (top + cell_h) / total_h,
                        cell_w / total_w,
                        cell_h / total_h,
                    ),
                    label=f"{label} {j}",
                )
                shown = array[j, ..., 0] if channels == 1 else array[j]
                axes.imshow(
                    shown, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation=interpolation
                )
                axes.set_axis_off()

        first = 0
        label_x = (left - pad) / total_w
        for i, (group, label) in enumerate(labels):
            figure.text(label_x, centre(i, i), label, ha="right", va="center", fontsize=9)
            if i + 1 < len(labels) and labels[i + 1][0] == group:
                continue
            if group:
                figure.text(
                    (margin + group_width) / total_w,
                    centre(first, i),
                    group,
                    ha="right",
                    va="center",
                    **bold,
                )
                x = (margin + group_width + pad) / total_w
                figure.add_artist(
                    Line2D(
                        [x, x],
                        [1 - tops[first] / total_h, 1 - (tops[i] + cell_h) / total_h],
                        color="#b0b0b0",
                        linewidth=1,
                    )
                )
            first = i + 1
    return figure


# --- Latent spaces ----------------------------------------------------------------------------


def project_jointly(spaces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Projects the spaces of several seeds to the plane, all by the axes of the first.

    The principal axes of the first space are fitted and applied to all, so that equal spaces look
    equal and rotated ones look rotated. Where the widths differ this cannot be, and each space is
    projected by its own axes.

    Args:
        spaces: latents `[n, d]` of each seed. A seed with a value that is not finite (diverged)
            is NaN in the result, and the first finite one is fitted in its place.

    Returns:
        As many arrays `[n, 2]`, float64. Spaces with fewer than two dimensions get zeros.

    Raises:
        ValueError: if a space is not a matrix with at least one row and column.

    Example:
        >>> a = np.random.default_rng(0).normal(size=(50, 8))
        >>> p, q = project_jointly([a, a.copy()])
        >>> p.shape, bool((p == q).all())
        ((50, 2), True)
    """
    # Loaded here, because nothing else of this module needs it and it takes a while.
    from sklearn.decomposition import PCA

    arrays = [np.asarray(space, dtype=np.float64) for space in spaces]
    for i, array in enumerate(arrays):
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"space {i} must have shape [n, d] with n, d >= 1, got {array.shape}")
    usable = [bool(np.isfinite(array).all()) for array in arrays]
    same_width = len({array.shape[1] for array in arrays}) <= 1

    def fit(array: np.ndarray) -> PCA:
        return PCA(n_components=min(2, *array.shape), svd_solver="full").fit(array)

    shared = None
    projected = []
    for array, good in zip(arrays, usable, strict=True):
        plane = np.zeros((len(array), 2))
        if good:
            if shared is None or not same_width:
                shared = fit(array)
            scores = shared.transform(array)
            plane[:, : scores.shape[1]] = scores
        else:
            plane[:] = np.nan
        projected.append(plane)
    return projected


def _class_colours(count: int) -> np.ndarray:
    """Colours `[count, 4]` of classes."""
    if count <= len(PALETTE):
        return to_rgba_array(PALETTE[:count])
    # More classes than can be told apart by colour: neighbours in number look alike.
    return matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, count))


def _names(name: str, names: Sequence[str] | None, count: int, default: str) -> list[str]:
    if names is None:
        return [default.format(i) for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{len(names)} {name} given, expected {count}")
    return [str(n) for n in names]


def latent_spaces(
    spaces: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    seed_names: Sequence[str] | None = None,
) -> Figure:
    """Latent spaces of several seeds in the plane, one row for each representation.

    All panels of a row share one scale, and a class has the same colour everywhere: spaces that
    are alike look alike.

    Args:
        spaces: for each representation its seeds' points `[n, 2]` (see `project_jointly`), the
            same samples in the same order everywhere.
        labels: class of each sample `[n]`, integers or texts.
        class_names: names of the classes, in sorted order of the labels; the labels if left out.
        seed_names: titles of the columns; `seed 0, seed 1, ...` if left out.

    Returns:
        The figure, with one axes for each representation and seed, row by row.

    Raises:
        ValueError: if there is nothing to draw, or shapes or counts do not fit.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape [n], got {labels.shape}")
    if not spaces or not all(len(row) for row in spaces.values()):
        raise ValueError("latent_spaces needs at least one representation with one seed each")
    for name, row in spaces.items():
        for i, points in enumerate(row):
            if np.shape(points) != (len(labels), 2):
                raise ValueError(
                    f"points of {name!r}, seed {i}, must have shape {(len(labels), 2)} to fit the "
                    f"labels, got {np.shape(points)}; project_jointly makes points of latents"
                )
    classes, index = np.unique(labels, return_inverse=True)
    names = _names("class names", class_names, len(classes), "{}")
    if class_names is None:
        names = [str(c) for c in classes]
    columns = max(len(row) for row in spaces.values())
    titles = _names("seed names", seed_names, columns, "seed {}")
    palette = _class_colours(len(classes))
    panel = min(2.3, 7.2 / columns)
    # Many points are small, few are large.
    size = float(np.clip(2400 * panel**2 / max(len(labels), 1), 1.5, 14))
    entry = 0.36 + 0.072 * max(len(name) for name in names)
    fit = max(1, min(len(classes), int(columns * panel / entry)))
    legend_columns = -(-len(classes) // -(-len(classes) // fit))  # rows of about equal length

    with _style():
        figure = _figure(
            columns * panel + 0.35,
            len(spaces) * panel + 0.3 + 0.22 * -(-len(classes) // legend_columns),
            gap=0.03,
            compress=True,
        )
        grid = figure.subplots(len(spaces), columns, squeeze=False)
        for r, (name, row) in enumerate(spaces.items()):
            finite = np.concatenate([np.asarray(p, float)[np.isfinite(p).all(1)] for p in row])
            if len(finite):
                low, high = finite.min(0), finite.max(0)
                middle, half = (low + high) / 2, max(float((high - low).max()) / 2, 1e-12) * 1.06
            for c in range(columns):
                axes = grid[r, c]
                axes.set(xticks=[], yticks=[], aspect="equal")
                axes.set_box_aspect(1)
                if r == 0:
                    axes.set_title(titles[c], pad=5)
                if c == 0:
                    axes.set_ylabel(name, fontsize=9.5, fontweight="bold", labelpad=6)
                if c >= len(row):
                    axes.set_axis_off()
                    continue
                points = np.asarray(row[c], dtype=float)
                good = np.isfinite(points).all(1)
                if not good.any():
                    axes.set_facecolor("#f4f4f4")
                    axes.text(
                        0.5, 0.5, "diverged", transform=axes.transAxes, ha="center", color=_SOFT
                    )
                    continue
                axes.set_xlim(middle[0] - half, middle[0] + half)
                axes.set_ylim(middle[1] - half, middle[1] + half)
                # One call in the order of the samples: no class is drawn on top of the others.
                axes.scatter(
                    *points[good].T,
                    s=size,
                    c=palette[index[good]],
                    alpha=0.75,
                    linewidths=0,
                    rasterized=True,
                )
        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, label=label)
            for colour, label in zip(palette, names, strict=True)
        ]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=legend_columns,
            handletextpad=0.1,
            columnspacing=1.2,
            borderpad=0.2,
        )
        _freeze(figure)
    return figure


# --- Stitching grids --------------------------------------------------------------------------


def _short(value: float, characters: int) -> str:
    """Number with three significant digits at most, in so many characters if that is possible."""
    magnitude = int(np.floor(np.log10(abs(value)))) if value else 0
    for decimals in range(int(np.clip(2 - magnitude, 0, 3)), -1, -1):
        text = f"{value:.{decimals}f}"
        if characters < 4 and text.startswith("0."):
            text = text[1:]
        if len(text) <= characters:
            return text
    return text if abs(value) < 1e4 else f"{value:.0e}".replace("e+0", "e")


def _plain(value: float, _position: object = None) -> str:
    return f"{value:g}"


def _limits(grids: Sequence[Grid], log: bool, scale: float) -> tuple[float, float]:
    """Ends of a colour scale that holds every value, never equal, positive if logarithmic."""
    cells = np.concatenate([grid.values.ravel() for grid in grids]) * scale
    cells = cells[np.isfinite(cells) & ((cells > 0) | (not log))]
    if not cells.size:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(cells.min()), float(cells.max())
    if low == high:
        return (low / 1.1, high * 1.1) if log else (low - 0.05, high + 0.05)
    return low, high


def _ink_on(colormap: Colormap, norm: Normalize, lowest: float, value: float) -> str:
    # A zero error has no logarithm: it is as good as the best.
    red, green, blue, _ = colormap(float(norm(max(value, lowest))))
    return "white" if 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5 else _INK


def pair_grid(grids: Sequence[Grid], *, missing: str = "diverged") -> Figure:
    """Scores of every encoder with every decoder as heat maps, one for each representation.

    The heat maps share one colour scale, in which brighter is better: logarithmic for errors,
    linear for scores. Cells of an encoder with its own decoder are outlined, cells that are not
    finite (a diverged seed) are hatched. Up to twelve seeds, cells carry their values.

    Args:
        grids: grids of one metric.
        missing: what the legend calls cells that are not finite.

    Returns:
        The figure, with one axes for each grid, then one for the colour bar.

    Raises:
        ValueError: if there is no grid, or metrics differ or are not known.
    """
    grids = list(grids)
    metrics = {grid.metric for grid in grids}
    if len(metrics) != 1:
        raise ValueError(f"pair_grid takes grids of one metric, got {sorted(metrics) or 'no grid'}")
    metric = get_metric(grids[0].metric)
    log = not metric.higher_is_better
    lowest, highest = _limits(grids, log, metric.scale)
    norm = (LogNorm if log else Normalize)(lowest, highest, clip=True)
    colormap = matplotlib.colormaps["viridis_r" if log else "viridis"]
    most = max(max(grid.values.shape) for grid in grids)
    most_columns = 4 if most <= 6 else 3 if most <= 8 else 2
    rows = -(-len(grids) // most_columns)
    columns = -(-len(grids) // rows)
    panel = min(float(np.clip(0.55 * most, 1.6, 3.4)), 8.0 / columns)
    rotated = any(len(label) > 3 for grid in grids for label in grid.decoders)
    heights = max(grid.values.shape[0] / grid.values.shape[1] for grid in grids)

    with _style():
        figure = _figure(
            columns * panel + 0.8,
            rows * (panel * min(heights, 2.0) + (1.2 if rotated else 0.8)) + 0.3,
            gap=0.04,
            compress=True,
        )
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes in panels.ravel()[len(grids) :]:
            axes.set_axis_off()
        for k, (axes, grid) in enumerate(zip(panels.ravel(), grids, strict=False)):
            values = grid.values * metric.scale
            finite = np.isfinite(values)
            image = axes.imshow(
                np.ma.masked_array(np.maximum(values, lowest), ~finite),
                cmap=colormap,
                norm=norm,
                aspect="equal",
            )
            axes.set_title(grid.representation, fontweight="bold", pad=6)
            for axis, labels in ((axes.xaxis, grid.decoders), (axes.yaxis, grid.encoders)):
                step = -(-len(labels) // 16)
                ticks = range(0, len(labels), step)
                axis.set_ticks(list(ticks), [labels[i] for i in ticks])
            axes.tick_params(length=0, pad=3)
            if rotated:
                for tick in axes.get_xticklabels():
                    tick.set(rotation=35, ha="right", rotation_mode="anchor")
            axes.set_xlabel("decoder")
            if k % columns == 0:
                axes.set_ylabel("encoder")
            axes.spines[:].set_visible(False)
            side = max(values.shape)
            characters = 5 if side <= 4 else 4 if side <= 8 else 3
            for (i, j), own in np.ndenumerate(grid.non_stitched):
                value = float(values[i, j])
                if not finite[i, j]:
                    axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, **_HATCHED))
                elif side <= 12:
                    axes.text(
                        j,
                        i,
                        _short(value, characters),
                        ha="center",
                        va="center",
                        in_layout=False,
                        color=_ink_on(colormap, norm, lowest, value),
                    )
                if own and finite[i, j]:
                    inset = 0.04
                    axes.add_patch(
                        Rectangle(
                            (j - 0.5 + inset, i - 0.5 + inset),
                            1 - 2 * inset,
                            1 - 2 * inset,
                            fill=False,
                            edgecolor=_ink_on(colormap, norm, lowest, value),
                            linewidth=1.0,
                        )
                    )
        label = f"{metric.label}{', log scale' if log else ''}"
        bar = figure.colorbar(
            image, ax=panels, label=label, fraction=0.05, pad=0.015, aspect=22, shrink=0.9
        )
        bar.outline.set_visible(False)
        if log:
            decades = np.log10(highest / lowest)
            subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.2 else (1, 2, 3, 5, 7)
            bar.ax.yaxis.set_major_locator(LogLocator(subs=subs))
            bar.ax.yaxis.set_major_formatter(FuncFormatter(_plain))
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
            bar.ax.minorticks_off()
        _freeze(figure)
        for axes, grid in zip(panels.ravel(), grids, strict=False):
            cell = axes.get_window_extent().width / grid.values.shape[1] * 72 / DPI
            longest = max((len(text.get_text()) for text in axes.texts), default=1)
            for text in axes.texts:
                text.set_fontsize(min(8.5, 0.86 * cell / (0.6 * longest)))
        handles = []
        if any(grid.non_stitched.any() and not grid.non_stitched.all() for grid in grids):
            handles.append(
                Rectangle((0, 0), 1, 1, fill=False, edgecolor=_INK, lw=1, label="own decoder")
            )
        if not all(np.isfinite(grid.values).all() for grid in grids):
            handles.append(Rectangle((0, 0), 1, 1, **_HATCHED, label=missing))
        if handles:
            # Close below the panels, which leave room of their own choice at the bottom.
            boxes = [axes.get_tightbbox() for axes in panels.ravel()[: len(grids)]]
            x = (min(box.x0 for box in boxes) + max(box.x1 for box in boxes)) / 2
            y = min(box.y0 for box in boxes) - 0.04 * DPI
            figure.legend(
                handles=handles,
                loc="upper center",
                bbox_to_anchor=(x / figure.bbox.width, y / figure.bbox.height),
                ncols=len(handles),
                handlelength=1.1,
                handleheight=1.1,
                borderpad=0.2,
            )
    return figure


# --- Learning curves --------------------------------------------------------------------------


def learning_curves(
    curves: Mapping[str, np.ndarray],
    ylabel: str,
    *,
    log: bool | None = None,
    xlabel: str = "epoch",
    x: Sequence[float] | np.ndarray | None = None,
    log_x: bool = False,
) -> Figure:
    """Learning curves: the mean over seeds as a line, from the lowest to the highest as a band.

    Args:
        curves: for each representation values `[seeds, epochs]`. What is not finite (a diverged
            seed) is left out of mean and band.
        ylabel: what the values are, with unit.
        log: whether the vertical axis is logarithmic. If left out, it is where every value is
            positive, and it is not where some are not (the Gaussian negative log-likelihood can
            be negative). Pass False for accuracies.
        xlabel: what the columns are.
        x: positions of the columns; `1, 2, ...` if left out.
        log_x: whether the horizontal axis is logarithmic, with its ticks at the positions.

    Returns:
        The figure, with one axes.

    Raises:
        ValueError: if there is no curve, a curve is not a matrix, positions do not fit, or a
            logarithmic axis is asked for where no value is positive.
    """
    if not curves:
        raise ValueError("learning_curves needs at least one curve")
    arrays: dict[str, np.ndarray] = {}
    for name, values in curves.items():
        array = np.array(values, dtype=np.float64)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"curve {name!r} must have shape [seeds, epochs], got {array.shape}")
        if x is not None and len(x) != array.shape[1]:
            raise ValueError(
                f"curve {name!r} has {array.shape[1]} columns, but {len(x)} positions are given"
            )
        array[~np.isfinite(array)] = np.nan
        arrays[name] = array
    cells = np.concatenate([array.ravel() for array in arrays.values()])
    cells = cells[np.isfinite(cells)]
    positive = bool(cells.size and (cells > 0).all())
    if log and not (cells > 0).any():
        raise ValueError("a logarithmic axis needs positive values, and there are none")
    if log is None:
        log = positive

    styles = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))
    with _style():
        figure = _figure(6.0, 3.3, gap=0.04)
        axes = figure.subplots()
        for i, (name, array) in enumerate(arrays.items()):
            colour = PALETTE[i % len(PALETTE)]
            alive = np.isfinite(array)
            count = alive.sum(0)
            keep = count > 0
            at = (np.arange(1, array.shape[1] + 1) if x is None else np.asarray(x, float))[keep]
            mean = np.where(alive, array, 0.0).sum(0)[keep] / count[keep]
            low = np.where(alive, array, np.inf).min(0)[keep]
            high = np.where(alive, array, -np.inf).max(0)[keep]
            axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(
                at,
                mean,
                color=colour,
                linestyle=styles[i % len(styles)],
                linewidth=1.7,
                marker="o" if len(at) == 1 else None,
                label=name,
            )
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if log:
            axes.set_yscale("log")
            low, high = float(cells[cells > 0].min()), float(cells[cells > 0].max())
            if high / low < 30:
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            axes.yaxis.set_major_formatter(FuncFormatter(_plain))
            # Matplotlib's own for logarithmic axes writes formulas.
            axes.yaxis.set_minor_formatter(NullFormatter())
        if log_x:
            axes.set_xscale("log")
            if x is not None:
                axes.set_xticks(sorted(set(x)), minor=False)
                axes.set_xticks([], minor=True)
            axes.xaxis.set_major_formatter(FuncFormatter(_plain))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if x is None:
            axes.xaxis.set_major_locator(
                MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10])
            )
        axes.margins(x=0.015)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(handlelength=2.4)
        _freeze(figure)
    return figure


# --- Intervals --------------------------------------------------------------------------------


def intervals(values: Mapping[str, tuple[float, float]], xlabel: str) -> Figure:
    """Means as dots, one below the other, with their spreads as whiskers.

    Args:
        values: for each row its mean and its spread; a spread of NaN is left out.
        xlabel: what the values are, with unit.

    Returns:
        The figure, with one axes.

    Raises:
        ValueError: if there is no row.
    """
    if not values:
        raise ValueError("intervals needs at least one value")
    means, spreads = np.array(list(values.values()), np.float64).T
    places = np.arange(len(values))
    with _style():
        figure = _figure(6.0, 0.7 + 0.23 * len(values), gap=0.04)
        axes = figure.subplots()
        axes.errorbar(
            means,
            places,
            xerr=np.where(np.isfinite(spreads), spreads, 0.0),
            linestyle="none",
            marker="o",
            markersize=5,
            color=PALETTE[0],
            elinewidth=1.2,
            capsize=2.5,
        )
        axes.set_yticks(places, list(values))
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_xlabel(xlabel)
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        _freeze(figure)
    return figure


def change_map(
    changes: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str, tolerance: float
) -> Figure:
    """A heat map of changes, in which what does not change at all stands out.

    Args:
        changes: `[rows, columns]`, at least 0.
        rows, columns: their names.
        label: what the changes are.
        tolerance: a change below this is none.

    Returns:
        The figure, with one axes and one for the colour bar.

    Raises:
        ValueError: the shapes do not fit.
    """
    changes = np.asarray(changes, np.float64)
    if changes.shape != (len(rows), len(columns)):
        raise ValueError(
            f"changes must have shape {(len(rows), len(columns))} to fit the names, got "
            f"{changes.shape}"
        )
    is_same = changes < tolerance
    colormap = matplotlib.colormaps["Oranges"]
    norm = LogNorm(0.01, 10.0, clip=True)
    with _style():
        figure = _figure(1.9 + 0.78 * len(columns), 1.2 + 0.27 * len(rows), gap=0.04)
        axes = figure.subplots()
        image = axes.imshow(
            np.ma.masked_array(changes, is_same), cmap=colormap, norm=norm, aspect="auto"
        )
        for (i, j), change in np.ndenumerate(changes):
            if is_same[i, j]:
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=PALETTE[0]))
            axes.text(
                j,
                i,
                "same" if is_same[i, j] else _short(change, 4),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if is_same[i, j] else _ink_on(colormap, norm, 0.01, change),
            )
        axes.set_xticks(range(len(columns)), [name.replace(" ", "\n") for name in columns])
        axes.set_yticks(range(len(rows)), list(rows))
        axes.xaxis.tick_top()
        axes.tick_params(length=0, pad=4)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, label=label, pad=0.015, aspect=22)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(_plain))
        _freeze(figure)
    return figure


# --- Points -----------------------------------------------------------------------------------


def scatter(
    points: Mapping[str, tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str
) -> Figure:
    """Points of several groups in one plane.

    Args:
        points: for each group its positions `[n]` and `[n]`; what is not finite is left out.
        xlabel, ylabel: what the positions are, with unit.

    Returns:
        The figure, with one axes.

    Raises:
        ValueError: if there is no group, or the two lengths of one differ.
    """
    if not points:
        raise ValueError("scatter needs at least one group of points")
    markers = "o^sDvP*X"
    with _style():
        figure = _figure(4.6, 3.8, gap=0.04)
        axes = figure.subplots()
        for i, (name, pair) in enumerate(points.items()):
            x, y = (np.asarray(values, np.float64) for values in pair)
            if x.ndim != 1 or x.shape != y.shape:
                raise ValueError(f"group {name!r} has positions of shapes {x.shape} and {y.shape}")
            finite = np.isfinite(x) & np.isfinite(y)
            axes.plot(
                x[finite],
                y[finite],
                linestyle="none",
                marker=markers[i % len(markers)],
                markersize=3.5,
                markeredgewidth=0,
                alpha=0.6,
                color=PALETTE[i % len(PALETTE)],
                label=name,
            )
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(points) > 1:
            axes.legend(handletextpad=0.3)
        _freeze(figure)
    return figure
