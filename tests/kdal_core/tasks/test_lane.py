import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kdal_core.errors import LabelFormatError
from kdal_core.tasks.lane import (
    MOST_VERTICES,
    Lane,
    clean_lane,
    lanes_as_json,
    lanes_from_json,
    lanes_of,
    reduce_vertices,
    row_anchors,
    x_at,
)
from kdal_core.validation import InvalidInput

PIXELS = 1000  # shares are told as pixels of an image of 1,000 x 1,000
inside = st.floats(0, 1, width=32).map(float)


@st.composite
def descents(draw, most=8):
    """A lane as somebody draws it from top to bottom: (n, 2) shares, every row met once."""
    count = draw(st.integers(2, most))
    heights = sorted(draw(st.lists(st.integers(0, 1000), min_size=count, max_size=count, unique=True)))
    return np.array([[draw(inside), y / 1000] for y in heights])


def crossings(points, row):
    """x wherever a polyline meets a row, by segments: slow and plain."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(points):
        if min(y0, y1) <= row <= max(y0, y1):
            found.append((x0 + x1) / 2 if y0 == y1 else x0 + (x1 - x0) * (row - y0) / (y1 - y0))
    return found


def apart(points, line):
    """The largest distance of a point to a polyline, segment by segment."""
    worst = 0.0
    for point in points:
        distances = []
        for a, b in pairwise(line):
            t = np.clip((point - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
            distances.append(np.linalg.norm(point - a - t * (b - a)))
        worst = max(worst, min(distances))
    return worst


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[0.5, 0.5]], "two vertices"),
        ([[0.5, 0.5, 1.0], [0.5, 0.9, 1.0]], "two vertices"),
        ([[0.5, 0.9], [0.5, 0.1]], "top to bottom"),
        ([[0.5, 0.5], [0.7, 0.5]], "top to bottom"),
        ([[0.5, 0.5], [0.7, math.nan]], "NaN"),
        ([[50, 10], [40, 90]], "outside the image"),
        ([[-3, 0.1], [-2, 0.9]], "outside the image"),
        ("lane", "numbers"),
    ],
)
def test_what_is_no_lane_is_refused_by_its_reason(points, message):
    with pytest.raises(InvalidInput, match=message):
        Lane(points)


def test_a_class_number_below_nought_is_refused():
    with pytest.raises(InvalidInput, match="label"):
        Lane([[0.5, 0.1], [0.5, 0.9]], label=-1)


@given(descents())
def test_a_lane_drawn_from_either_end_is_the_same_lane(points):
    down, up = clean_lane(points), clean_lane(points[::-1])
    np.testing.assert_allclose(down.points, up.points)
    assert (np.diff(down.points[:, 1]) >= 0).all()


@given(descents(), st.data())
def test_repeated_vertices_and_float_noise_change_nothing(points, data):
    times = data.draw(st.lists(st.integers(1, 3), min_size=len(points), max_size=len(points)))
    noise = data.draw(st.floats(-1e-7, 1e-7))
    drawn = np.repeat(points, times, axis=0) + noise * np.arange(sum(times))[:, None] / sum(times)
    drawn = np.concatenate([drawn[:1], drawn, drawn[:1]])  # as hand drawing leaves it: the first vertex twice, and last
    once, again = clean_lane(points).points, clean_lane(drawn).points
    assert max(apart(once, again), apart(again, once)) <= 3e-4


@given(descents())
def test_a_lane_that_needs_no_cleaning_is_kept_within_a_tenth_of_a_pixel(points):
    lane = clean_lane(points)
    np.testing.assert_allclose(lane.points[[0, -1]], points[[0, -1]], atol=1e-6)
    assert apart(lane.points, points) <= 1e-6
    assert apart(points, lane.points) <= 0.1 / PIXELS + 1e-6


def test_vertices_that_are_no_numbers_are_dropped():
    lane = clean_lane([[0.5, 0.1], [math.nan, 0.2], [0.5, math.inf], [0.4, 0.9]])
    assert lane.points.tolist() == [[0.5, 0.1], [0.4, 0.9]]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "no vertices"),
        ([[0.5, 0.5]], "single point"),
        ([[0.5, 0.5]] * 40, "single point"),
        ([[0.5, 0.5], [0.5 + 1e-9, 0.5]], "single point"),
        ([[math.nan, 0.5], [0.5, math.nan]], "single point"),
        ([[0.2, 0.5], [0.8, 0.5]], "level"),
        ([[0.2, 1.1], [0.8, 1.5]], "outside the image"),
        ([[-0.2, 0.1], [-0.1, 0.9]], "outside the image"),
        ([[-0.5, 0.4], [0.4, -0.5]], "outside the image"),
        ([[-0.5, 0.5], [0.0, 0.6], [-0.5, 0.7]], "outside the image"),
        ([[0.5, 0.1], [0.5, 1e200]], "images away"),
        ([[1.0, 0.0], [0.0, 3e-5], [0.0, 0.0]], "level"),
        ([[0.5, i / 200_000] for i in range(200_000)], "more than anybody draws"),
    ],
)
def test_a_drawing_that_is_no_lane_is_refused_by_its_reason(points, message):
    with pytest.raises(LabelFormatError, match=message):
        clean_lane(points)


@pytest.mark.parametrize("points", ["lane", [[1, 2, 3], [4, 5, 6]], [0.5, 0.5], [[0.5], [0.5, 0.5]], [[None, {}]]])
def test_what_is_no_list_of_points_is_invalid_input(points):
    with pytest.raises(InvalidInput, match="points"):
        clean_lane(points)


def test_both_ends_are_cut_where_the_lane_leaves_the_image():
    lane = clean_lane([[-0.5, 1.0], [0.25, 0.25], [0.75, -0.25]])
    np.testing.assert_allclose(lane.points, [[0.5, 0.0], [0.0, 0.5]], atol=1e-12)


def test_a_lane_that_leaves_the_image_and_returns_is_absent_between():
    lane = clean_lane([[0.2, 0.0], [-0.2, 0.4], [-0.2, 0.6], [0.2, 1.0]])
    assert x_at(lane, [0.1, 0.5, 0.9]) == pytest.approx([0.1, math.nan, 0.1], nan_ok=True)


@given(arrays.arrays(np.float64, st.tuples(st.integers(2, 12), st.just(2)), elements=st.floats(-2, 3)))
def test_any_drawing_becomes_a_lane_from_top_to_bottom_or_is_refused(points):
    try:
        lane = clean_lane(points)
    except LabelFormatError:
        return
    assert (np.diff(lane.points[:, 1]) >= 0).all()
    assert len(lane.points) <= MOST_VERTICES
    for end in (lane.points[0], lane.points[-1]):
        assert 0 <= end[1] <= 1
    found = x_at(lane, row_anchors(50))
    assert ((found[np.isfinite(found)] >= 0) & (found[np.isfinite(found)] <= 1)).all()


@settings(max_examples=50)
@given(
    arrays.arrays(
        np.float64, st.tuples(st.integers(3, 9), st.just(2)), elements=st.integers(0, 40).map(lambda i: i / 40)
    )
)
def test_a_lane_that_turns_back_or_crosses_itself_is_at_the_mean_of_its_crossings(points):
    try:
        lane = clean_lane(points)
    except LabelFormatError:
        return
    drawn = points[np.append(True, (np.diff(points, axis=0) != 0).any(axis=1))]
    while len(drawn) > 2 and (drawn[0] == drawn[-1]).all():
        drawn = drawn[:-1]
    # Where the number of crossings changes, at a vertex, the mean jumps: rows are compared between vertices.
    rows = (np.unique(drawn[:, 1])[:-1] + np.unique(drawn[:, 1])[1:]) / 2
    expected = [np.mean(crossings(drawn, row)) for row in rows]
    steepest = max((abs(b[0] - a[0]) / abs(b[1] - a[1]) for a, b in pairwise(drawn) if a[1] != b[1]), default=0)
    np.testing.assert_allclose(x_at(lane, rows), expected, atol=2e-4 * (1 + steepest))


def test_a_lane_of_a_hundred_thousand_vertices_keeps_its_place_with_a_few_hundred():
    y = np.linspace(0, 1, 100_000)
    x = 0.5 + 0.3 * np.sin(3 * y)
    lane = clean_lane(np.stack([x, y], axis=1))
    assert len(lane.points) < 100
    rows = row_anchors(100)
    assert np.abs(x_at(lane, rows) - (0.5 + 0.3 * np.sin(3 * rows))).max() < 0.2 / PIXELS


def test_a_scribble_of_many_vertices_is_read_at_a_few_hundred_rows():
    scribble = np.random.default_rng(0).random((20_000, 2))
    lane = clean_lane(scribble)
    assert len(lane.points) <= MOST_VERTICES
    assert np.abs(x_at(lane, [0.3, 0.5, 0.7]) - 0.5).max() < 0.05  # the mean of thousands of crossings


@given(descents(most=30), st.sampled_from([1e-4, 1e-2, 0.1]))
def test_no_vertex_left_out_was_farther_than_the_tolerance(points, tolerance):
    kept = reduce_vertices(points, tolerance)
    assert apart(points, kept) <= tolerance + 1e-12


@given(descents())
def test_x_at_a_row_is_where_the_lane_crosses_it(points):
    lane = Lane(points)
    for row in np.linspace(0.05, 0.95, 13):
        met = crossings(points, row)
        assert x_at(lane, [row])[0] == pytest.approx(np.mean(met) if met else math.nan, nan_ok=True, abs=1e-9)


def test_x_on_the_row_of_a_level_piece_is_its_middle():
    lane = Lane([[0.2, 0.2], [0.2, 0.5], [0.6, 0.5], [0.6, 0.8]])
    assert x_at(lane, [0.4, 0.5, 0.6]).tolist() == pytest.approx([0.2, 0.4, 0.6])
    level_ends = Lane([[0.2, 0.2], [0.4, 0.2], [0.4, 0.8], [0.8, 0.8]])
    assert x_at(level_ends, [0.2, 0.5, 0.8]).tolist() == pytest.approx([0.3, 0.4, 0.6])


def test_row_anchors_are_the_middles_of_equal_strips():
    assert row_anchors(1).tolist() == [0.5]
    assert row_anchors(36)[[0, -1]].tolist() == pytest.approx([0.5 / 36, 35.5 / 36])
    with pytest.raises(InvalidInput, match="count"):
        row_anchors(0)


@given(descents(), st.integers(0, 5))
def test_a_lane_at_the_anchors_comes_back_from_its_prediction(points, label):
    anchors = row_anchors(20)
    row = np.append(x_at(Lane(points), anchors), [0.75, label]).astype(np.float32)
    found = lanes_of(row[None])
    if np.isfinite(row[:-2]).sum() < 2:
        assert found == []
    else:
        ((lane, score),) = found
        assert (score, lane.label) == (0.75, label)
        np.testing.assert_allclose(x_at(lane, anchors), row[:-2], atol=1e-6)


def test_empty_slots_and_lanes_beside_the_image_are_no_lanes():
    nan = math.nan
    slots = [[nan, nan, nan, 0.9, 0], [0.5, nan, nan, 0.9, 0], [1.5, 1.6, 1.7, 0.9, 0], [0.5, nan, 0.7, 0.8, 0]]
    ((lane, score),) = lanes_of(np.array(slots, dtype=np.float32))
    assert score == pytest.approx(0.8)
    assert lane.points == pytest.approx(np.array([[0.5, 1 / 6], [0.7, 5 / 6]]))


@pytest.mark.parametrize("prediction", [[0.5, 0.5, 1.0], [[0.5, 1.0]], [[[0.5]]]])
def test_what_is_no_prediction_is_refused(prediction):
    with pytest.raises(InvalidInput, match="prediction"):
        lanes_of(prediction)


@given(st.lists(st.tuples(descents(), st.integers(0, 9)), max_size=4))
def test_a_label_comes_back_from_json_digit_for_digit(drawn):
    lanes = tuple(Lane(points, label) for points, label in drawn)
    found = lanes_from_json(json.loads(json.dumps(lanes_as_json(lanes))))
    assert len(found) == len(lanes)
    for lane, again in zip(lanes, found, strict=True):
        assert lane.label == again.label
        assert (lane.points == again.points).all()
