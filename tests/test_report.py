import csv
import dataclasses
import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from matplotlib import image
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.console import Console

import relrep_jax
from relrep_jax import report
from relrep_jax.report import Grid, markdown, summarize
from relrep_jax.training.logs import TrainingProgress

SQUARE = np.array([[1.0, 4.0, 8.0], [3.0, 2.0, 6.0], [5.0, 7.0, 3.0]])


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def rendered(table, width=140):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()


# --- Progress ---------------------------------------------------------------------------------


def test_progress_without_a_terminal_is_a_line_at_times(monkeypatch):
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    console = Console(file=io.StringIO(), width=80)
    with report.progress(console, "stitching", 4) as advance:
        for seconds in (20.0, 15.0, 3.0, 60.0):
            now += seconds
            advance(what="ridge [all]" if seconds == 15.0 else None)
    # At the end the result speaks for itself.
    assert console.file.getvalue() == "ridge [all]: 50 % after 35 s\n"


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_live_line_of_a_training_is_never_cut_off(width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    live = TrainingProgress(console, {"absolute": 30, "relative_cosine": 30, "product": 30})
    for name, epoch in {"absolute": 30, "relative_cosine": 30, "product": 5}.items():
        live.advance(name, epoch, np.array([-147.5]))
    console.print(live._progress.get_renderable())
    shown = console.file.getvalue()
    assert "…" not in shown
    for part in ("65/90", "left", "absolute -147.5", "relative_cosine", "product -147.5"):
        assert part in shown


# --- Grids ------------------------------------------------------------------------------------


def test_grid_labels_default_to_seed_numbers():
    grid = Grid("absolute", "mse", np.zeros((2, 3)))
    assert grid.encoders == ("0", "1")
    assert grid.decoders == ("0", "1", "2")
    assert grid.non_stitched.tolist() == [[True, False, False], [False, True, False]]


def test_grid_keeps_a_copy_that_cannot_change():
    values = SQUARE.copy()
    grid = Grid("absolute", "mse", values)
    values[:] = 0
    np.testing.assert_array_equal(grid.values, SQUARE)
    with pytest.raises(ValueError):
        grid.values[0, 0] = 1


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2), (0, 3)])
def test_grid_rejects_what_is_not_a_matrix(shape):
    with pytest.raises(ValueError, match="encoders, decoders"):
        Grid("absolute", "mse", np.zeros(shape))


def test_grid_rejects_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="2 decoders labels .* expected 3"):
        Grid("absolute", "mse", SQUARE, decoders=("a", "b"))
    with pytest.raises(ValueError, match="must differ"):
        Grid("absolute", "mse", SQUARE, encoders=("a", "a", "b"))


# --- Summaries --------------------------------------------------------------------------------


def test_summary_of_an_error_by_hand():
    s = summarize(Grid("absolute", "mse", SQUARE))
    assert s.non_stitched_mean == 2.0
    assert s.non_stitched_std == 1.0  # sqrt(((1-2)² + 0 + (3-2)²) / 2)
    assert s.stitched_mean == 33 / 6
    assert s.stitched_std == pytest.approx(math.sqrt(17.5 / 5))
    assert s.stitching_index == pytest.approx(2 / 5.5)
    assert (s.num_seeds, s.num_pairs, s.excluded) == (3, 6, ())


def test_summary_of_a_score_by_hand():
    s = summarize(Grid("relative", "accuracy", [[0.9, 0.8], [0.6, 0.7]]))
    assert s.stitching_index == pytest.approx(0.7 / 0.8)
    assert s.num_pairs == 2


@pytest.mark.parametrize("name", sorted(report.METRICS))
def test_lossless_stitching_has_index_one_for_every_metric(name):
    assert summarize(Grid("relative", name, np.full((3, 3), 0.375))).stitching_index == 1


def test_diverged_seed_is_left_out_and_listed():
    values = np.full((4, 4), np.nan)
    alive = [0, 1, 3]
    values[np.ix_(alive, alive)] = SQUARE
    s = summarize(Grid("absolute", "mse", values))
    kept = summarize(Grid("absolute", "mse", SQUARE))
    assert s.excluded == ("2",)
    assert dataclasses.replace(s, excluded=()) == kept


def test_seed_with_nan_on_the_diagonal_alone_is_left_out_altogether():
    values = np.arange(9.0).reshape(3, 3) + 1
    values[1, 1] = np.nan
    s = summarize(Grid("absolute", "mse", values))
    assert s.excluded == ("1",)
    assert (s.non_stitched_mean, s.stitched_mean, s.num_pairs) == (5.0, 5.0, 2)


def test_nan_between_two_good_seeds_is_not_hidden():
    values = SQUARE.copy()
    values[0, 2] = np.nan
    s = summarize(Grid("absolute", "mse", values))
    assert s.excluded == ()
    assert math.isnan(s.stitched_mean)
    assert s.num_pairs == 6
    assert "| nan |" in report.markdown_table([s])


def test_every_seed_diverged():
    s = summarize(Grid("absolute", "mse", np.full((2, 2), np.nan)))
    assert s.excluded == ("0", "1")
    assert (s.num_seeds, s.num_pairs) == (0, 0)
    assert report.markdown_table([s]).count("–") >= 4


def test_one_seed_has_no_pairs():
    s = summarize(Grid("absolute", "mse", [[0.5]]))
    assert s.non_stitched_mean == 0.5
    assert math.isnan(s.non_stitched_std)
    assert math.isnan(s.stitched_mean)
    assert math.isnan(s.stitching_index)
    assert s.num_pairs == 0
    assert report.markdown_table([s]).splitlines()[-1] == "| absolute | 500.0 | – | – | – |"


def test_non_square_grid_takes_own_decoders_by_label():
    grid = Grid("absolute", "accuracy", [[0.1, 0.9, 0.3]], encoders=("b",), decoders="abc")
    s = summarize(grid)
    assert s.non_stitched_mean == 0.9
    assert s.stitched_mean == pytest.approx(0.2)
    assert (s.num_seeds, s.num_pairs) == (1, 2)


def test_grid_without_own_pairs_leaves_out_dead_rows():
    values = [[0.1, 0.3], [np.nan, np.nan]]
    s = summarize(
        Grid("relative", "accuracy", values, encoders=("en", "fr"), decoders=("es", "ja"))
    )
    assert s.excluded == ("fr",)
    assert s.stitched_mean == pytest.approx(0.2)
    assert math.isnan(s.stitching_index)


def test_grids_are_compared_seed_by_seed_and_pair_by_pair():
    rng = np.random.default_rng(0)
    values = {name: rng.random((4, 4)) for name in ("absolute", "cosine", "product")}
    values["cosine"] -= 1  # the smaller error everywhere
    grids = [Grid(name, "mse", cells) for name, cells in values.items()]
    rows = {row[:4]: report.PairedTest(*row[4:]) for row in report.compare_grids(grids)}
    assert list(rows) == [
        (name, against, "mse", kind)
        for name, against in (
            ("cosine", "absolute"),
            ("product", "absolute"),
            ("product", "cosine"),
        )
        for kind in ("non-stitched", "stitched")
    ]
    for (name, against, _, kind), test in rows.items():
        own = np.eye(4, dtype=bool)
        chosen = own if kind == "non-stitched" else ~own
        first, second = values[name][chosen], values[against][chosen]
        assert test.pairs == (4 if kind == "non-stitched" else 12)
        assert test.difference == pytest.approx((first - second).mean())
        assert test.wins == (first < second).sum()
        assert test.t_p == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue)
    text = report.sheet_markdown(report.paired_grids_sheet(report.compare_grids(grids)))
    assert "| cosine | absolute | stitched | -" in text
    assert "MSE ×10³" in text


def test_further_references_are_compared_with_every_other_once():
    rng = np.random.default_rng(0)
    names = ("absolute", "best", "cosine", "product")
    grids = [Grid(k, "mse", rng.random((3, 3)) - (k == "best")) for k in names]
    rows = report.compare_grids(grids, ["product", "absent"])
    assert [row[:2] for row in rows if row[3] == "stitched"] == [
        ("best", "absolute"),
        ("cosine", "absolute"),
        ("product", "absolute"),
        ("cosine", "best"),
        ("product", "best"),
        ("cosine", "product"),
    ]
    assert rows[:-2] == report.compare_grids(grids)


def test_seeds_that_diverged_under_either_of_two_representations_are_not_compared():
    first, second = np.ones((3, 3)), np.zeros((3, 3))
    first[2, :] = first[:, 2] = np.nan
    second[0, :] = second[:, 0] = np.nan
    pair = [Grid("a", "accuracy", first), Grid("b", "accuracy", second)]
    rows = report.compare_grids(pair)
    assert [row[4] for row in rows] == [1, 0]
    report.paired_grids_sheet(rows)
    assert report.compare_grids(pair[:1]) == []


def test_equal_scores_are_not_compared():
    own = np.diag([0.5, 0.6])
    pair = [Grid("a", "accuracy", own), Grid("a_ridge", "accuracy", own + [[0, 0.1], [0.2, 0]])]
    assert [row[3] for row in report.compare_grids(pair)] == ["stitched"]


def test_unknown_metric_lists_the_known():
    with pytest.raises(ValueError, match="unknown metric 'loss'.*accuracy.*mse"):
        summarize(Grid("absolute", "loss", SQUARE))


# --- CSV and JSON -----------------------------------------------------------------------------


def grids():
    rng = np.random.default_rng(0)
    values = rng.random((3, 3)) ** 9
    values[1, :] = values[:, 1] = np.nan
    return [
        Grid("absolute", "mse", values),
        Grid("relative, cosine", "mse", rng.random((2, 3)), ("a", "b"), ("a", "b", "c")),
        Grid("absolute", "psnr", 30 * rng.random((3, 3))),
    ]


def test_stitching_csv_has_one_row_a_pair_and_metric(tmp_path):
    path = report.write_stitching_csv(tmp_path / "tables" / "stitching.csv", grids())
    header, *rows = rows_of(path)
    assert header == ["representation", "encoder", "decoder", "metric", "value"]
    assert len(rows) == 9 + 6 + 9
    assert rows[9][:4] == ["relative, cosine", "a", "a", "mse"]


def test_stitching_csv_round_trip_is_exact(tmp_path):
    path = report.write_stitching_csv(tmp_path / "stitching.csv", grids())
    back = report.read_stitching_csv(path)
    for read, written in zip(back, grids(), strict=True):
        assert (read.representation, read.metric) == (written.representation, written.metric)
        assert (read.encoders, read.decoders) == (written.encoders, written.decoders)
        np.testing.assert_array_equal(read.values, written.values)


def test_reading_another_table_is_an_error(tmp_path):
    path = report.write_summary_csv(tmp_path / "summary.csv", [summarize(grids()[0])])
    with pytest.raises(ValueError, match="expected representation,encoder,decoder"):
        report.read_stitching_csv(path)


def test_summary_csv_columns_and_values(tmp_path):
    summaries = [summarize(grid) for grid in grids()]
    header, *rows = rows_of(report.write_summary_csv(tmp_path / "summary.csv", summaries))
    assert header == [
        "representation",
        "metric",
        "non_stitched_mean",
        "non_stitched_std",
        "stitched_mean",
        "stitched_std",
        "stitching_index",
    ]
    for row, summary in zip(rows, summaries, strict=True):
        assert row[:2] == [summary.representation, summary.metric]
        expected = [getattr(summary, name) for name in header[2:]]
        np.testing.assert_array_equal([float(cell) for cell in row[2:]], expected)


def test_json_has_null_for_what_is_not_finite(tmp_path):
    cells = json.loads(report.write_stitching_json(tmp_path / "a.json", grids()).read_text("utf-8"))
    assert list(cells[0]) == list(report.STITCHING_COLUMNS)
    assert cells[0]["value"] == grids()[0].values[0, 0]
    assert cells[1]["value"] is None
    (summary,) = json.loads(
        report.write_summary_json(
            tmp_path / "b.json", [summarize(Grid("absolute", "mse", [[0.5]]))]
        ).read_text("utf-8")
    )
    assert summary["stitched_mean"] is None
    assert summary["non_stitched_mean"] == 0.5
    assert summary["excluded"] == []


def test_the_same_representation_twice_is_an_error(tmp_path):
    twice = [grids()[0], grids()[0]]
    with pytest.raises(ValueError, match="given twice"):
        report.write_stitching_csv(tmp_path / "a.csv", twice)
    with pytest.raises(ValueError, match="given twice"):
        report.write_summary_csv(tmp_path / "b.csv", [summarize(grid) for grid in twice])
    assert list(tmp_path.iterdir()) == []


# --- Atomic writing ---------------------------------------------------------------------------


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.md"
    report.atomic_write_text(path, "old")

    def fail():
        with report.atomic_open(path) as file:
            file.write(b"half of the n")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_appears_only_once_complete(tmp_path):
    path = tmp_path / "new" / "figure.png"
    with report.atomic_open(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert list(path.parent.iterdir()) == [path]


def test_text_is_written_as_utf8_and_replaces(tmp_path):
    path = tmp_path / "a.txt"
    report.atomic_write_text(path, "long old text")
    report.atomic_write_text(path, "± ×10³\n")
    assert path.read_bytes() == "± ×10³\n".encode()


# --- Tables -----------------------------------------------------------------------------------


def mse_summaries():
    own = np.eye(3) * 0.003
    absolute = Grid("absolute", "mse", own + 0.15 * (1 - np.eye(3)))
    relative = Grid("relative [cosine] | a", "mse", own + 0.004 * (1 - np.eye(3)))
    return [summarize(absolute), summarize(relative)]


def test_markdown_table_of_an_error():
    assert report.markdown_table(mse_summaries()).splitlines() == [
        "| Representation | Non-stitched (MSE ×10³) | Stitched (MSE ×10³) | "
        "Stitched ÷ non-stitched | Stitching index |",
        "| :--- | ---: | ---: | ---: | ---: |",
        "| absolute | 3.000 ± 0.000 | 150.0 ± 0.0 | 50 | 0.02 |",
        "| **relative [cosine] \\| a** | 3.000 ± 0.000 | **4.000 ± 0.000** | 1.33 | 0.75 |",
    ]


def test_markdown_table_of_a_score_marks_the_highest():
    values = np.array([[0.97, 0.11], [0.09, 0.95]])
    absolute = summarize(Grid("absolute", "accuracy", values))
    relative = summarize(Grid("relative", "accuracy", [[0.97, 0.93], [0.92, 0.95]]))
    table = report.markdown_table([relative, absolute]).splitlines()
    assert table[0].split(" | ")[1:3] == ["Non-stitched (Accuracy)", "Stitched (Accuracy)"]
    assert table[2].startswith("| **relative** | 0.960 ± 0.014 | **0.9250 ± 0.0071** | 0.96 |")
    assert "**" not in table[3]


def test_a_single_row_is_not_the_best():
    assert "**" not in report.markdown_table(mse_summaries()[:1])


def test_table_of_several_metrics_names_them_and_marks_each_best():
    values = 20 + np.eye(2)
    more = [summarize(Grid(name, "psnr", values + k)) for k, name in enumerate("ab")]
    lines = report.markdown_table(mse_summaries() + more).splitlines()
    assert lines[0].startswith("| Representation | Metric | Non-stitched | Stitched | Stitching")
    assert [("**" in line) for line in lines[2:]] == [False, True, False, True]
    assert "| PSNR (dB) |" in lines[4]


@pytest.mark.parametrize(
    "mean, std, count, text",
    [
        (57.2431, 12.13, 5, "57.2 ± 12.1"),
        (250.4, 80.1, 5, "250 ± 80"),
        (0.97312, 0.00214, 5, "0.9731 ± 0.0021"),
        (3.14159, 1e-9, 5, "3.142 ± 0.000"),
        (3.14159, math.nan, 1, "3.142"),
        (math.nan, math.nan, 0, "–"),
        (math.inf, math.nan, 4, "inf"),
        (0.0, 0.0, 3, "0.0000 ± 0.0000"),
        (4.0e7, 2.0e6, 3, "4.00e+07 ± 2.0e+06"),
    ],
)
def test_digits_follow_the_spread(mean, std, count, text):
    assert report.tables.format_mean_std(mean, std, count) == text


def test_terminal_table_says_everything_at_80_columns():
    text = rendered(report.terminal_table(mse_summaries(), title="MNIST"), width=80)
    for part in (
        "MNIST",
        "absolute",
        "relative",
        "[cosine]",
        "4.000 ± 0.000",
        "MSE ×10³",
        "0.75",
    ):
        assert part in text
    assert "3 seeds and 6 stitched pairs" in text


@pytest.mark.parametrize("width", [60, 80])
def test_names_are_never_cut_off(width):
    names = ("absolute", "absolute_orthogonal", "relative_cosine", "relative_euclidean")
    table = report.terminal_table([summarize(Grid(name, "mse", SQUARE)) for name in names])
    lines = rendered(table, width=width).splitlines()
    assert "…" not in "".join(lines)
    first = "".join(line.split("│")[1].strip() for line in lines if line.count("│") > 2)
    assert first == "".join(names)


def test_terminal_table_lists_diverged_seeds():
    values = SQUARE.copy()
    values[2] = np.nan
    text = rendered(report.terminal_table([summarize(Grid("absolute", "mse", values))]))
    assert "diverged: absolute: seed 2" in text


# --- Figures ----------------------------------------------------------------------------------


def texts(figure):
    return [t.get_text() for t in figure.texts]


def images(rng, *shape):
    return rng.random(shape) * 1.5 - 0.25


def make_reconstructions(rng):
    rows = [((g, s), images(rng, 4, 8, 8, 1)) for g in ("absolute", "relative") for s in "ab"]
    return report.reconstructions(images(rng, 4, 8, 8, 1), rows)


def make_latent_spaces(rng):
    spaces = {name: list(rng.normal(size=(3, 60, 2))) for name in ("absolute", "relative")}
    return report.latent_spaces(spaces, np.arange(60) % 4, ["ant", "bee", "cat", "dog"])


def make_pair_grid(rng):
    return report.pair_grid(
        [Grid(name, "mse", 10 ** -rng.random((4, 4))) for name in ("absolute", "relative")]
    )


def make_learning_curves(rng):
    return report.learning_curves(
        {name: 1 + rng.random((3, 20)) for name in ("absolute", "relative")}, "validation MSE"
    )


MAKERS = [make_reconstructions, make_latent_spaces, make_pair_grid, make_learning_curves]


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKERS)
def test_figures_are_the_same_bytes_every_time(make, tmp_path):
    contents = set()
    for i in range(2):
        figure = make(np.random.default_rng(3))
        assert isinstance(figure, Figure)
        for j in range(2):
            contents.add(report.save(figure, tmp_path / f"{i}{j}.png").read_bytes())
    assert len(contents) == 1
    assert contents.pop().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 4


def test_figures_do_not_follow_the_users_settings(tmp_path):
    import matplotlib

    plain = report.save(make_learning_curves(np.random.default_rng(0)), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20}):
        styled = report.save(make_learning_curves(np.random.default_rng(0)), tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert plain.read_bytes() == styled.read_bytes()


ODD = "$y_{$"

NAMED = {
    "reconstructions": lambda x: report.reconstructions(x[..., None], [((ODD, ODD), x)]),
    "latent_spaces": lambda x: report.latent_spaces(
        {ODD: [x[0, :, :2]]}, np.arange(8) % 2, [ODD, "b"], seed_names=[ODD]
    ),
    "pair_grid": lambda x: report.pair_grid(
        [Grid(ODD, "mse", 1 + x[0, :2, :2], (ODD, "b"), (ODD, "b"))]
    ),
    "learning_curves": lambda x: report.learning_curves({ODD: 1 + x[0]}, ODD, xlabel=ODD),
    "intervals": lambda x: report.intervals({ODD: (0.5, 0.1)}, ODD),
    "change_map": lambda x: report.change_map(x[0, :1, :1], [ODD], [ODD], ODD, 1e-6),
    "scatter": lambda x: report.scatter({ODD: (x[0, 0], x[0, 1]), "b": (x[0, 0],) * 2}, ODD, ODD),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", NAMED.values(), ids=NAMED)
def test_names_with_dollar_signs_are_drawn_as_they_are(make, tmp_path):
    figure = make(np.random.default_rng(0).random((3, 8, 8)))
    for ending in ("png", "pdf"):
        report.save(figure, tmp_path / f"a.{ending}")
    drawn = [text for text in figure.findobj(Text) if ODD in text.get_text()]
    assert drawn
    assert not any(text.get_parse_math() for text in drawn)


@pytest.mark.parametrize("high", [1.2, 5.0, 1000.0])
def test_ticks_on_logarithmic_axes_are_plain_numbers(high):
    values = np.geomspace(1.0, high, 6)[None]
    (axes,) = report.learning_curves({"a": values}, "MSE", log=True, log_x=True).axes
    ticks = [
        text.get_text()
        for axis in (axes.xaxis, axes.yaxis)
        for text in axis.get_ticklabels(which="both")
    ]
    assert any(ticks)
    assert not any("$" in text for text in ticks)


def test_figures_of_others_keep_their_formulas(tmp_path):
    figure = Figure()
    axes = figure.subplots()
    axes.set_title("$x^2$")
    axes.loglog([1, 1e4], [1, 1e4])
    report.save(figure, tmp_path / "a.png")
    formulas = [text for text in figure.findobj(Text) if "$" in text.get_text()]
    assert len(formulas) > 1
    assert all(text.get_parse_math() for text in formulas)


def test_pdf_is_written_without_a_time_stamp(tmp_path):
    data = report.save(make_pair_grid(np.random.default_rng(0)), tmp_path / "a.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    assert b"CreationDate" not in data


def test_save_names_the_formats(tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.pdf"):
        report.save(Figure(), tmp_path / "a.gif")


def test_pyplot_is_not_loaded():
    code = "import relrep_jax.report, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("shape", [(5, 8, 8, 1), (5, 8, 6, 3), (5, 8, 8), (2, 200, 200, 3)])
def test_reconstructions_draw_every_image_clipped(shape):
    rng = np.random.default_rng(0)
    originals, own, stitched = (images(rng, *shape) for _ in range(3))
    own.flat[0] = np.nan
    rows = [(("absolute", "own decoder"), own), (("absolute", "stitched"), stitched)]
    figure = report.reconstructions(originals, rows)
    assert len(figure.axes) == 3 * shape[0]
    assert texts(figure) == ["source", "own decoder", "stitched", "absolute"]
    for axes in figure.axes:
        shown = axes.images[0].get_array()
        assert 0 <= shown.min() <= shown.max() <= 1
        assert shown.shape[:2] == shape[1:3]


def test_reconstructions_keep_pixels_sharp(tmp_path):
    array = np.random.default_rng(0).random((3, 8, 8, 1))
    figure = report.reconstructions(array, [("own decoder", array)])
    path = report.save(figure, tmp_path / "a.png")
    picture = np.round(image.imread(path)[..., 0] * 255)
    height, width = picture.shape
    for axes, original in zip(figure.axes, [*array, *array], strict=True):
        box = axes.get_position()
        left, size = round(box.x0 * width), round(box.width * width)
        top = round((1 - box.y1) * height)
        blocks = picture[top : top + size, left : left + size].reshape(8, size // 8, 8, size // 8)
        assert (blocks == blocks[:, :1, :, :1]).all()
        np.testing.assert_allclose(blocks[:, 0, :, 0], original[..., 0] * 255, atol=2)


def test_reconstructions_take_labels_without_a_group():
    rng = np.random.default_rng(0)
    figure = report.reconstructions(images(rng, 2, 4, 4, 1), [("mine", images(rng, 2, 4, 4, 1))])
    assert texts(figure) == ["source", "mine"]


def test_reconstructions_reject_other_shapes():
    with pytest.raises(ValueError, match=r"row 'own' has shape \(3, 4, 4, 1\)"):
        report.reconstructions(np.zeros((2, 4, 4, 1)), [("own", np.zeros((3, 4, 4, 1)))])
    with pytest.raises(ValueError, match="grey.*RGB"):
        report.reconstructions(np.zeros((2, 4, 4, 2)), [])


def test_latent_spaces_have_titles_rows_and_one_legend():
    figure = make_latent_spaces(np.random.default_rng(0))
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["seed 0", "seed 1", "seed 2"]
    assert [figure.axes[i].get_ylabel() for i in (0, 3)] == ["absolute", "relative"]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["ant", "bee", "cat", "dog"]
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert all(len(axes.get_xticks()) == 0 for axes in figure.axes)


def test_latent_spaces_share_scale_in_a_row_and_colours_everywhere():
    figure = make_latent_spaces(np.random.default_rng(0))
    limits = [(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes]
    assert limits[0] == limits[1] == limits[2]
    colours = [axes.collections[0].get_facecolors() for axes in figure.axes]
    for colour in colours:
        np.testing.assert_array_equal(colour, colours[0])
    assert len(np.unique(colours[0], axis=0)) == 4


def test_latent_spaces_say_where_a_seed_diverged():
    points = np.random.default_rng(0).normal(size=(10, 2))
    figure = report.latent_spaces(
        {"absolute": [points, np.full((10, 2), np.nan)]}, np.arange(10) % 2
    )
    assert [t.get_text() for t in figure.axes[1].texts] == ["diverged"]


def test_latent_spaces_reject_what_does_not_fit():
    with pytest.raises(ValueError, match=r"'absolute', seed 0, .*\(5, 2\).*project_jointly"):
        report.latent_spaces({"absolute": [np.zeros((5, 3))]}, np.zeros(5, int))
    with pytest.raises(ValueError, match="3 class names given, expected 1"):
        report.latent_spaces({"absolute": [np.zeros((5, 2))]}, np.zeros(5, int), list("abc"))
    with pytest.raises(ValueError, match="at least one"):
        report.latent_spaces({}, np.zeros(5, int))


def test_projection_uses_the_axes_of_the_first_space():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(80, 6)) * np.array([9, 5, 1, 1, 1, 1])
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    a, same, rotated = report.project_jointly([first, first.copy(), first @ rotation])
    centred = first - first.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    np.testing.assert_allclose(np.abs(a), np.abs(centred @ axes.T), atol=1e-9)
    np.testing.assert_array_equal(a, same)
    assert np.abs(a - rotated).max() > 1


def test_projection_of_spaces_of_different_widths_fits_each():
    rng = np.random.default_rng(0)
    spaces = [rng.normal(size=(30, d)) for d in (5, 3, 1)]
    projected = report.project_jointly(spaces)
    for space, plane in zip(spaces, projected, strict=True):
        np.testing.assert_array_equal(plane, report.project_jointly([space])[0])
    assert (projected[2][:, 1] == 0).all()


def test_projection_passes_over_a_diverged_seed():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(30, 4))
    dead, plane = report.project_jointly([np.full((30, 4), np.nan), good])
    assert np.isnan(dead).all()
    np.testing.assert_array_equal(plane, report.project_jointly([good])[0])


def test_projection_rejects_what_is_not_a_matrix():
    with pytest.raises(ValueError, match="space 1 must have shape"):
        report.project_jointly([np.zeros((3, 2)), np.zeros(3)])


def test_pair_grid_has_a_map_a_representation_and_one_colour_bar():
    figure = make_pair_grid(np.random.default_rng(0))
    first, second, bar = figure.axes
    assert [first.get_title(), second.get_title()] == ["absolute", "relative"]
    assert (first.get_xlabel(), first.get_ylabel()) == ("decoder", "encoder")
    assert bar.get_ylabel() == "MSE ×10³, log scale"
    assert first.images[0].norm is second.images[0].norm
    assert first.images[0].norm.vmin > 0
    assert len(first.texts) == 16


def test_pair_grid_annotates_encoders_as_rows():
    values = np.array([[0.10, 0.20, 0.30], [0.40, 0.50, 0.60]])
    axes, bar = report.pair_grid([Grid("relative", "accuracy", values)]).axes
    shown = {
        (round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in axes.texts
    }
    assert {cell: float(text) for cell, text in shown.items()} == dict(np.ndenumerate(values))
    assert bar.get_ylabel() == "Accuracy"


def test_pair_grid_hatches_what_diverged():
    values = SQUARE.copy()
    values[1, :] = values[:, 1] = np.nan
    axes, _ = report.pair_grid([Grid("absolute", "mse", values)]).axes
    assert sum(patch.get_hatch() is not None for patch in axes.patches) == 5
    assert len(axes.texts) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [np.full((2, 2), np.nan), np.zeros((2, 2)), np.full((1, 1), 0.5), np.ones((20, 20))]
)
@pytest.mark.parametrize("metric", ["mse", "accuracy"])
def test_pair_grid_draws_edge_cases(values, metric, tmp_path):
    figure = report.pair_grid([Grid("absolute", metric, values)])
    report.save(figure, tmp_path / "a.png")
    expected = np.isfinite(values).sum() if len(values) <= 12 else 0
    assert len(figure.axes[0].texts) == expected


def test_pair_grid_takes_one_metric():
    with pytest.raises(ValueError, match="one metric.*accuracy.*mse"):
        report.pair_grid([Grid("a", "mse", SQUARE), Grid("a", "accuracy", SQUARE)])
    with pytest.raises(ValueError, match="no grid"):
        report.pair_grid([])


def test_learning_curves_draw_mean_and_band():
    values = np.array([[4.0, 2.0, 1.0], [2.0, 1.0, np.nan]])
    (axes,) = report.learning_curves({"absolute": values}, "loss").axes
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(line.get_ydata(), [3.0, 1.5, 1.0])
    band = axes.collections[0].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == (1.0, 4.0)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["absolute"]


def test_learning_curves_are_logarithmic_only_where_all_is_positive():
    positive, negative = np.array([[3.0, 2.0]]), np.array([[1.0, -4.0]])
    assert report.learning_curves({"a": positive}, "loss").axes[0].get_yscale() == "log"
    mixed = report.learning_curves({"a": positive, "b": negative}, "loss")
    assert mixed.axes[0].get_yscale() == "linear"
    plain = report.learning_curves({"a": positive}, "accuracy", log=False)
    assert plain.axes[0].get_yscale() == "linear"
    with pytest.raises(ValueError, match="positive"):
        report.learning_curves({"a": -positive}, "loss", log=True)


def test_learning_curves_reject_what_does_not_fit():
    with pytest.raises(ValueError, match=r"'a' must have shape \[seeds, epochs\]"):
        report.learning_curves({"a": np.zeros(3)}, "loss")
    with pytest.raises(ValueError, match="3 columns, but 2 positions"):
        report.learning_curves({"a": np.zeros((1, 3))}, "loss", x=[1, 2])
    with pytest.raises(ValueError, match="at least one"):
        report.learning_curves({}, "loss")


# --- Report -----------------------------------------------------------------------------------


def test_report_reads_from_title_to_environment(tmp_path):
    values = SQUARE.copy()
    values[2, 2] = np.nan
    path = tmp_path / "run" / "report.md"
    arguments = {
        "title": "MNIST, five seeds",
        "intro": "Autoencoders on MNIST.",
        "command": "python train.py --config=configs/mnist.py",
        "summaries": [summarize(Grid("absolute", "mse", values))],
        "figures": [
            ("Every pair", "figures/pair grid.png"),
            ("Spaces [2-d]", path.parent / "figures" / "spaces.png"),
        ],
        "sections": [("Notes", "Nothing to add.")],
        "versions": {"jax": "0.9", "Python": "3.12"},
    }
    text = report.write_report(path, **arguments).read_text("utf-8")
    parts = [
        "# MNIST, five seeds\n",
        "Autoencoders on MNIST.",
        "```sh\npython train.py --config=configs/mnist.py\n```",
        "> **Diverged seeds.** Left out because training diverged: absolute: seed 2.",
        "| Representation |",
        "![Every pair](figures/pair%20grid.png)",
        "![Spaces (2-d)](figures/spaces.png)",
        "## Notes\n\nNothing to add.",
        "| jax | 0.9 |\n| Python | 3.12 |\n",
    ]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert text.endswith("|\n")
    before = path.read_bytes()
    report.write_report(path, **arguments)
    assert path.read_bytes() == before


def test_report_leaves_out_what_is_empty(tmp_path):
    path = report.write_report(tmp_path / "r.md", title="T", intro="I.", command="c")
    assert path.read_text() == "# T\n\nI.\n\nTo run it again:\n\n```sh\nc\n```\n"
    with pytest.raises(ValueError, match="command"):
        report.write_report(tmp_path / "r.md", title="T", intro="I.", command=" ")


def test_scatter_draws_a_group_each_without_what_is_not_finite():
    x, y = np.array([0.1, 0.2, np.nan]), np.array([1.0, 2.0, 3.0])
    (axes,) = report.scatter({"gcn": (x, y), "gin": (y, y)}, "accuracy", "similarity").axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn["gcn"] == [[0.1, 1.0], [0.2, 2.0]]
    assert len(drawn["gin"]) == 3
    with pytest.raises(ValueError, match="'gcn' has positions of shapes"):
        report.scatter({"gcn": (x, y[:2])}, "a", "b")
    with pytest.raises(ValueError, match="at least one group"):
        report.scatter({}, "a", "b")


def test_a_change_map_tells_no_change_from_little():
    changes = np.array([[0.0, 0.004], [1e-8, 2.0]])
    figure = report.change_map(changes, ["cosine", "L1"], ["scaling", "any map"], "change", 1e-6)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["same", "0.00", "same", "2.00"]
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        report.change_map(changes, ["cosine"], ["scaling", "any map"], "change", 1e-6)


def test_a_package_on_the_path_that_is_not_installed_has_its_own_version(monkeypatch):
    def missing(name):
        raise markdown.PackageNotFoundError(name)

    monkeypatch.setattr(markdown, "version", missing)
    assert report.environment()["relrep_jax"] == relrep_jax.__version__


@pytest.mark.parametrize("num_left", [1, 2, 3])
def test_a_sheet_keeps_its_last_numbers_in_a_terminal_of_80_columns(num_left):
    texts = ("own head of the new encoder", "best single of each pair", "Cos + Euc + L1 + L∞")
    cells = ("-11.1", "42 of 42", "< 0.001", "0.322")
    header = ("Method", "Compared with", "Product")[:num_left]
    sheet = report.Sheet(
        "Comparison", (*header, *report.PAIRED_HEADER), [[*texts[:num_left], *cells]],
        num_left=num_left,
    )  # fmt: skip
    lines = rendered(report.sheet_terminal(sheet), width=80).splitlines()
    assert all(len(line) <= 80 for line in lines)
    for cell in cells:
        assert any(cell in line for line in lines), cell
    assert lines[1].endswith("┓")
