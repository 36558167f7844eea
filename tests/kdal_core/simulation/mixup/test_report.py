import re

import numpy as np
import pytest
from PIL import Image

from kdal_core.errors import ConfigError
from kdal_core.simulation.mixup import write_grid
from kdal_core.simulation.mixup.cells import Cell
from kdal_core.simulation.mixup.report import Cells, heat_map, tables

PUBLISHED = {(12, 0): (0.5, 0.6), (12, 10): (0.52, 0.7), (12, 30): (0.7, 0.8)}
RANDOM = {(12, 0): (0.5, 0.6), (12, 10): (0.6, 0.72), (12, 30): (0.6, 0.8)}


@pytest.fixture
def cells():
    """One row of two, two seeds."""
    return [
        Cell(real, mixes, choice, seed, accuracy, accuracy / 2, 1800.0)
        for choice, scores in (("published", PUBLISHED), ("random", RANDOM))
        for (real, mixes), of_seeds in scores.items()
        for seed, accuracy in enumerate(of_seeds)
    ]


def row_below(text, title):
    """The figures of the first row of a table."""
    part = text[text.index(title) :]
    return re.search(r"^\| 12 real \| (.*) \|$", part, re.MULTILINE)[1].split(" | ")


def test_a_table_tells_means_and_intervals_over_the_seeds(small, cells):
    text = tables(Cells(small(), cells), 0.9)
    # Student's t with one degree of freedom is 12.706; the half-width of two values is that times half their distance.
    assert row_below(text, "published: accuracy") == ["55.00 ± 63.53", "61.00 ± 114.36", "75.00 ± 63.53"]
    assert row_below(text, "random: the teacher's class") == ["27.50 ± 31.77", "33.00 ± 38.12", "35.00 ± 63.53"]
    assert "12 of 24 cells, 6.0 core-hours. The teacher is right in 90.00%." in text


def test_a_difference_is_paired_by_seed(small, cells):
    text = tables(Cells(small(), cells), 0.9)
    # Of the two seeds -8 and -2, and +10 and 0 points.
    assert row_below(text, "published − random") == ["+0.00 ± 0.00", "−5.00 ± 38.12", "+5.00 ± 63.53"]
    without = [cell for cell in cells if cell.key != (12, "random", 1, 10)]
    assert row_below(tables(Cells(small(), without), 0.9), "published − random")[1] == "−8.00"


def test_what_is_missing_is_a_dash(small, cells):
    text = tables(Cells(small(), cells), 0.9)
    assert text.count("| 24 real | – | – | – |") == 5
    alone = tables(Cells(small(), [cell for cell in cells if cell.choice == "published"]), 0.9)
    assert "random" not in alone


def test_the_picture_has_a_panel_for_each_choice_and_one_for_the_difference(small, cells):
    figure = heat_map(Cells(small(), cells), 0.9)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [
        "published: accuracy, %",
        "random: accuracy, %",
        "published − random, points",
    ]
    assert np.allclose(shown[0].images[0].get_array()[0], [55, 61, 75])
    assert np.allclose(shown[2].images[0].get_array()[0], [0, -5, 5])
    assert [text.get_text() for text in shown[2].texts] == ["+0.0", "−5.0", "+5.0", "–", "–", "–"]


@pytest.mark.parametrize("count", [1, 6, 12])
def test_what_there_is_so_far_can_be_looked_at(count, small, cells, tmp_path):
    write_grid(small(), 0.9, cells[:count], tmp_path)
    assert f"{count} of 24 cells" in (tmp_path / "table.md").read_text()
    with Image.open(tmp_path / "grid.png") as image:
        assert min(image.size) > 200


@pytest.mark.parametrize("change", [{"accuracy": 1.2}, {"agreement": float("nan")}, {"seconds": -1.0}])
def test_a_cell_that_cannot_be_is_refused(change):
    with pytest.raises(ConfigError, match="cell"):
        Cell(
            **{
                "real": 2,
                "mixes": 0,
                "choice": "random",
                "seed": 0,
                "accuracy": 0.5,
                "agreement": 0.5,
                "seconds": 1.0,
                **change,
            }
        )
