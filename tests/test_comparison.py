"""Tables and heat maps of how alike spaces are."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from relrep_jax.data import LatentSpace
from relrep_jax.measures import MEASURES
from relrep_jax.report import comparison, save
from relrep_jax.report.comparison import PairScore

NAMES = ("a", "b|c", "[red]")


def score(measure="rsa", first="a", second="b|c", value=0.5, p=0.005, calibrated=0.4, **more):
    return PairScore(measure, first, second, value, p, calibrated, 0.1, 200, 40, **more)


SCORES = [
    score(),
    score(second="[red]", value=0.1, p=0.3, calibrated=0.0),
    score("procrustes_distance", value=0.2, distance=True),
]


def printed(scores, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in comparison.comparison_tables(scores, width):
        console.print(table)
    return console.export_text()


def test_every_measure_has_a_label():
    assert set(comparison.LABELS) == set(MEASURES)


def test_rows_come_back_from_files(tmp_path):
    comparison.write_comparison_csv(tmp_path / "m.csv", SCORES)
    comparison.write_comparison_json(tmp_path / "m.json", SCORES)
    with open(tmp_path / "m.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == comparison.COMPARISON_COLUMNS
    assert rows == [
        {key: str(value) for key, value in row.items()}
        for row in json.loads((tmp_path / "m.json").read_text())
    ]
    untested = dataclasses.replace(SCORES[0], p_value=None)
    comparison.write_comparison_csv(tmp_path / "m.csv", [untested])
    assert ",0.5,,0.4," in (tmp_path / "m.csv").read_text()


def test_the_table_has_a_row_a_pair_and_a_column_a_measure():
    text = printed(SCORES)
    assert "RSA" in text
    assert "Procrustes distance" in text
    assert "[red]" in text
    assert "0.500" in text
    assert "0.40  p 0.005" in text
    assert "–" in text  # the pair without a distance
    untested = printed([dataclasses.replace(SCORES[0], p_value=None, calibrated=None)])
    assert "0.500" in untested
    assert " p " not in untested


def test_measures_that_do_not_fit_go_to_a_further_table():
    scores = [score(name) for name in MEASURES]
    assert printed(scores, 60).count("Spaces") > printed(scores, 240).count("Spaces") == 1
    assert max(map(len, printed(scores, 60).splitlines())) <= 60


def test_p_values_have_the_decimals_that_permutations_can_tell():
    assert comparison.format_p(1 / 201, 200) == "0.005"
    assert comparison.format_p(1 / 1001, 1000) == "0.0010"
    assert comparison.format_p(0.5, 1) == "0.50"


def test_markdown_escapes_bars():
    text = comparison.comparison_markdown(SCORES)
    assert len(text.splitlines()) == 2 + len(SCORES)
    assert "| RSA | a | b\\|c | 0.5000 | 0.400 | 0.005 |" in text


def test_spaces_are_listed_with_bars_escaped():
    spaces = [LatentSpace(name, np.ones((4, 1200), np.float16)) for name in NAMES]
    lines = comparison.spaces_markdown(spaces).splitlines()
    assert lines[2:] == [
        "| a | 4 | 1,200 | float16 |",
        "| b\\|c | 4 | 1,200 | float16 |",
        "| [red] | 4 | 1,200 | float16 |",
    ]


def test_names_with_dollar_signs_are_drawn_as_they_are(tmp_path):
    names = ("$x^", "$y_{$")
    figure = comparison.comparison_figure([score(first=names[0], second=names[1])], names)
    save(figure, tmp_path / "m.png")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(names)


def test_heat_maps_show_scores_above_and_calibrated_scores_below_the_diagonal():
    figure = comparison.comparison_figure(SCORES, NAMES)
    rsa, distance = figure.axes[:2]
    assert rsa.get_title() == "RSA"
    shown = np.ma.filled(rsa.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown[0], [np.nan, 0.5, 0.1])
    np.testing.assert_allclose(shown[:, 0], [np.nan, 0.4, 0.0])
    texts = {tuple(map(int, text.get_position())): text.get_text() for text in rsa.texts}
    assert texts == {(1, 0): "0.50", (0, 1): "0.40", (2, 0): "0.10", (0, 2): "n.s."}
    # A distance is shown as it is, and coloured by how alike the spaces are.
    assert distance.images[0].get_array()[0, 1] == pytest.approx(0.8)
    assert "0.20" in [text.get_text() for text in distance.texts]


def test_heat_maps_without_a_test_are_symmetric():
    untested = dataclasses.replace(SCORES[0], p_value=None, calibrated=None)
    figure = comparison.comparison_figure([untested], NAMES[:2])
    shown = figure.axes[0].images[0].get_array()
    assert shown[0, 1] == shown[1, 0] == 0.5
    with pytest.raises(ValueError, match="2 spaces and 0 scores"):
        comparison.comparison_figure([], NAMES[:2])
