import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.errors import KdalError, LabelFormatError
from kdal_core.tasks.box import Box, boxes_as_json, boxes_from_json, boxes_of, clean_box

anything = st.floats(-99, 99)


@given(anything, anything, anything, anything)
def test_what_is_drawn_is_cut_at_the_border_or_refused_with_a_reason(a, b, c, d):
    wide, high = (min(max(p, q), 1) - max(min(p, q), 0) for p, q in ((a, c), (b, d)))
    if min(wide, high) <= 1e-6:
        with pytest.raises(LabelFormatError, match=r"no size|outside|next to nothing"):
            clean_box(a, b, c, d, 1)
        return
    box = clean_box(a, b, c, d, 1)
    expected = np.clip([min(a, c), min(b, d), max(a, c), max(b, d)], 0, 1)
    assert box.corners == tuple(expected)
    assert box.label == 1


@pytest.mark.parametrize(
    ("corners", "reason"),
    [
        ((0.5, 0.5, 0.5, 0.9), "it has no size"),
        ((0.5, 0.5, 0.5, 0.5), "it has no size"),
        ((1.1, 0.2, 1.4, 0.4), "it lies outside the image"),
        ((0.2, -0.4, 0.4, 0.0), "it lies outside the image"),
        ((float("nan"), 0, 1, 1), "a corner is no number"),
        ((float("inf"), 0, 1, 1), "a corner is no number"),
        ((0, 0, 101, 1), "more than 100 images away"),
    ],
)
def test_what_is_no_box_is_refused_and_named(corners, reason):
    with pytest.raises(LabelFormatError, match=reason):
        clean_box(*corners)


@pytest.mark.parametrize(
    "corners",
    [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.01), (0, 0, float("nan"), 1), ("0",) * 4],
)
def test_a_box_is_in_order_and_inside_the_image(corners):
    with pytest.raises(KdalError, match="box"):
        Box(*corners)


@given(st.lists(st.tuples(*[st.floats(0, 0.4)] * 2, *[st.floats(0.5, 1)] * 2, st.integers(0, 9)), max_size=5))
def test_json_keeps_every_digit(rows):
    boxes = tuple(Box(*row) for row in rows)
    assert boxes_from_json(boxes_as_json(boxes)) == boxes


def test_predictions_are_read_best_first_and_from_a_score_on():
    nothing = [np.nan] * 6
    rows = np.float32(
        [[0.1, 0.2, 0.5, 0.6, 0.9, 1], [0.1, 0.2, 0.5, 0.6, 0.25, 0], [0.3, 0.2, 0.3, 0.6, 0.9, 1], nothing]
    )
    found = boxes_of(rows)  # the third has no size: nobody can see it
    assert [(box.label, score) for box, score in found] == [(1, pytest.approx(0.9)), (0, 0.25)]
    assert len(boxes_of(rows, least=0.5)) == 1
    with pytest.raises(KdalError, match=r"\(K, 6\)"):
        boxes_of(rows[0])
