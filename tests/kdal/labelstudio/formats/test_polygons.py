import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal.labelstudio.formats import format_for
from kdal_core.errors import LabelFormatError
from kdal_core.tasks.lane import x_at
from tests.kdal.labelstudio.formats.lanes import LANES, config, region, task


@pytest.fixture(scope="module")
def form():
    return format_for(config("PolygonLabels"), LANES)


def polygon(*points, **fields):
    return region("PolygonLabels", {"points": [list(p) for p in points]} | fields, "lane")


def test_an_open_polygon_is_a_polyline(form):
    (lane,) = form.target(task(polygon((20, 10), (30, 50), (20, 90), closed=False)))
    assert lane.points.tolist() == [[0.2, 0.1], [0.3, 0.5], [0.2, 0.9]]


@given(
    st.lists(st.tuples(st.floats(20, 80), st.floats(0.5, 4)), min_size=2, max_size=8),
    st.integers(0, 30),
    st.booleans(),
    st.booleans(),
)
def test_the_outline_of_a_marking_is_read_as_its_centre_line(borders, turn, clockwise, repeat):
    rows = np.linspace(10, 90, len(borders))
    left = [(x - width, y) for (x, width), y in zip(borders, rows, strict=True)]
    right = [(x + width, y) for (x, width), y in zip(borders, rows, strict=True)]
    outline = [*left, *right[::-1]]
    turn %= len(outline)
    outline = outline[turn:] + outline[:turn]
    outline = outline if clockwise else outline[::-1]
    outline = [*outline, outline[0]] if repeat else outline
    (lane,) = format_for(config("PolygonLabels"), LANES).target(task(polygon(*outline, closed=True)))
    wanted = np.linspace(10, 90, 33)
    centre = np.interp(wanted, rows, [x for x, _ in borders])
    np.testing.assert_allclose(x_at(lane, wanted / 100)[1:-1], centre[1:-1] / 100, atol=1.5e-3)


def test_a_polygon_of_an_older_label_studio_is_closed_without_saying_so(form):
    (lane,) = form.target(task(polygon((40, 10), (44, 10), (44, 90), (40, 90))))
    assert lane.points.round(9).tolist() == [[0.42, 0.1], [0.42, 0.9]]


def test_two_points_that_a_tool_closed_are_a_line(form):
    (lane,) = form.target(task(polygon((40, 10), (44, 90), (40, 10), closed=True)))
    assert lane.points.tolist() == [[0.4, 0.1], [0.44, 0.9]]


def test_an_outline_of_thousands_of_vertices_is_read(form):
    angles = np.linspace(0, 2 * np.pi, 5000)
    outline = np.stack([50 + 2 * np.cos(angles), 50 + 40 * np.sin(angles)], axis=1)
    (lane,) = form.target(task(polygon(*outline.tolist(), closed=True)))
    np.testing.assert_allclose(x_at(lane, np.linspace(0.11, 0.89, 50)), 0.5, atol=1e-3)


@pytest.mark.parametrize("points", [None, "x", [1, 2], [[1]], [[1, 2, 3]], [[1, "2"], [3, 4]], [{"x": 1, "y": 2}]])
def test_what_is_no_list_of_points_is_refused_by_its_region(form, points):
    with pytest.raises(LabelFormatError, match=r"^task 12: region abc: "):
        form.target(task(region("PolygonLabels", {"points": points}, "lane")))
