"""Rendered blood: the same each time, with boxes that end where the cells do."""

from __future__ import annotations

import numpy as np
import pytest

from kdal.demo.examples.blood_cells import KINDS, PLATELET, SIZE, WHITE, render
from kdal.demo.examples.boxes import Boxes
from kdal.labelstudio.formats import format_for
from kdal_core.tasks import Box


@pytest.fixture(scope="module")
def smears():
    return [render(index) for index in range(40)]


def test_a_number_draws_the_same_picture_each_time_and_another_number_another(smears):
    again = render(3)
    assert np.array_equal(again.image, smears[3].image)
    assert again.cells == smears[3].cells
    assert len({smear.image.tobytes() for smear in smears}) == len(smears)


def test_all_kinds_occur_and_lie_inside_the_image(smears):
    cells = [cell for smear in smears for cell in smear.cells]
    assert {cell.kind for cell in cells} == set(range(len(KINDS)))
    for cell in cells:
        left, top, right, bottom = cell.box
        assert 0 <= left < right <= SIZE[1]
        assert 0 <= top < bottom <= SIZE[0]
    assert 4 < len(cells) / len(smears) < 12


def test_a_cell_is_darker_than_the_ground_beside_its_box(smears):
    compared = 0
    for smear in smears:
        grey = smear.image.mean(axis=2)
        for cell in smear.cells:
            left, top, right, bottom = (round(side) for side in cell.box)
            if cell.kind == PLATELET or min(left, top) < 8 or right > SIZE[1] - 8 or bottom > SIZE[0] - 8:
                continue
            row = (top + bottom) // 2
            beside = max(grey[row, left - 6 : left - 2].mean(), grey[row, right + 2 : right + 6].mean())
            assert grey[row, left + 4 : right - 4].mean() < beside - (10 if cell.kind == WHITE else 5)
            compared += 1
    assert compared > 40


def test_what_somebody_draws_is_nearly_the_truth():
    shown = Boxes()
    form = format_for(shown.label_config)
    assert form.task().classes == KINDS

    def read(regions):
        return form.target({"id": 0, "annotations": [{"id": 1, "result": regions}]})

    for index in range(12):
        truth, answer = read(shown.truth(index)), read(shown.answer(index))
        assert [box.label for box in answer] == [box.label for box in truth] == [c.kind for c in render(index).cells]
        for box, other in zip(truth, answer, strict=True):
            assert isinstance(box, Box)
            np.testing.assert_allclose(box.corners, other.corners, atol=0.04)
