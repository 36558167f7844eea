import math

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
    return format_for(config("VectorLabels"), LANES)


def vertex(name, x, y, before=None, **fields):
    return {"id": name, "x": x, "y": y, "prevPointId": before, "isBezier": False} | fields


def bezier(name, x, y, before, first, second):
    handles = {
        "controlPoint1": dict(zip("xy", first, strict=True)),
        "controlPoint2": dict(zip("xy", second, strict=True)),
    }
    return vertex(name, x, y, before, isBezier=True) | handles


def shape(*vertices, closed=False, tag="VectorLabels"):
    labels = () if tag == "Vector" else ("lane",)
    return region(tag, {"vertices": list(vertices), "closed": closed}, *labels)


def drawn(form, *vertices, **options):
    """The points of the one region, in per cent."""
    (drawing,) = form.drawings(task(shape(*vertices, **options)))
    return (drawing.points * 100).round(9).tolist()


def test_vertices_are_taken_in_the_order_of_the_list_where_nothing_else_is_said(form):
    assert drawn(form, {"x": 10, "y": 90}, {"x": 20, "y": 50}, {"x": 30, "y": 10}) == [[10, 90], [20, 50], [30, 10]]


@given(st.permutations(range(5)))
def test_links_between_vertices_count_more_than_their_order(order):
    form = format_for(config("VectorLabels"), LANES)
    line = [vertex(f"v{i}", 10 * i, 20 * i, f"v{i - 1}" if i else None) for i in range(5)]
    found = drawn(form, *(line[i] for i in order))
    assert min(found, found[::-1]) == [[10 * i, 20 * i] for i in range(5)]


def test_a_line_that_was_continued_at_its_first_vertex_is_one_line(form):
    vertices = [vertex("a", 50, 50), vertex("b", 60, 90, "a"), vertex("c", 40, 10, "a")]
    assert drawn(form, *vertices) in ([[60, 90], [50, 50], [40, 10]], [[40, 10], [50, 50], [60, 90]])


def test_a_line_that_forks_is_refused_where_it_forks(form):
    vertices = [vertex("a", 50, 90), vertex("b", 50, 50, "a"), vertex("c", 40, 10, "b"), vertex("d", 60, 10, "b")]
    with pytest.raises(LabelFormatError, match=r"^task 12: region abc: it forks at 50\.0 %, 50\.0 %"):
        form.target(task(shape(*vertices)))


def test_a_ring_beside_a_line_is_refused(form):
    ring = [vertex("c", 30, 30, "e"), vertex("d", 40, 30, "c"), vertex("e", 40, 40, "d")]
    with pytest.raises(LabelFormatError, match="not joined to one line"):
        form.target(task(shape(vertex("a", 50, 90), vertex("b", 50, 50, "a"), *ring)))


def test_hand_drawing_that_repeats_the_first_vertex_and_closes_the_line_is_cleaned(form):
    vertices = [vertex("a", 50, 90), vertex("b", 50, 90, "a"), vertex("c", 40, 10, "b"), vertex("d", 50, 90, "c")]
    (lane,) = form.target(task(shape(*vertices)))
    assert lane.points.tolist() == [[0.4, 0.1], [0.5, 0.9]]


def test_a_curve_is_read_as_the_editor_draws_it(form):
    start = bezier("a", 20, 10, None, (0, 0), (20, 40))
    end = bezier("b", 80, 90, "a", (80, 60), (0, 0))
    found = np.array(drawn(form, start, end))
    t = np.linspace(0, 1, 21)
    x = 20 * (1 - t) ** 3 + 3 * 20 * (1 - t) ** 2 * t + 3 * 80 * (1 - t) * t**2 + 80 * t**3
    y = 10 * (1 - t) ** 3 + 3 * 40 * (1 - t) ** 2 * t + 3 * 60 * (1 - t) * t**2 + 90 * t**3
    np.testing.assert_allclose(found, np.stack([x, y], axis=1), atol=1e-8)


@pytest.mark.parametrize("curved", ["first", "second"])
def test_a_curve_with_one_handle_leaves_the_other_end_straight(form, curved):
    first = bezier("a", 20, 10, None, (0, 0), (60, 10)) if curved == "first" else vertex("a", 20, 10)
    second = bezier("b", 20, 90, "a", (60, 90), (0, 0)) if curved == "second" else vertex("b", 20, 90, "a")
    handles = [(60, 10), (20, 66)] if curved == "first" else [(20, 34), (60, 90)]
    found = np.array(drawn(form, first, second))
    middle = (np.array([20, 10]) + 3 * np.array(handles[0]) + 3 * np.array(handles[1]) + np.array([20, 90])) / 8
    np.testing.assert_allclose(found[10], middle, atol=1e-8)


def test_a_curve_is_the_same_from_either_end(form):
    """The second line is walked from b, so that its curve is met from the other end."""
    a, b = bezier("a", 20, 10, None, (0, 0), (60, 30)), bezier("b", 20, 50, "a", (70, 40), (0, 0))
    c = vertex("c", 25, 5, "a")
    down, up = np.array(drawn(form, a, b)), np.array(drawn(form, a, b, c))
    np.testing.assert_allclose(up[: len(down)][::-1], down, atol=1e-9)


def test_damaged_handles_make_a_straight_line(form):
    broken = vertex("b", 20, 90, "a", isBezier=True, controlPoint1=None, controlPoint2=5)
    assert drawn(form, vertex("a", 20, 10), broken) == [[20, 10], [20, 90]]


@pytest.mark.parametrize("how", ["flag", "link"])
def test_a_closed_shape_is_the_outline_of_a_marking(form, how):
    corners = [(40, 10), (44, 10), (64, 90), (60, 90)]
    vertices = [vertex(str(i), x, y, str(i - 1) if i else None) for i, (x, y) in enumerate(corners)]
    if how == "link":
        vertices[0]["prevPointId"] = "3"
    (lane,) = form.target(task(shape(*vertices, closed=how == "flag")))
    assert x_at(lane, [0.1, 0.5, 0.9]) == pytest.approx([0.42, 0.52, 0.62])


def test_vertices_that_are_no_numbers_are_dropped(form):
    vertices = [vertex("a", 20, 10), vertex("b", math.nan, 50, "a"), vertex("c", 30, 90, "b")]
    (lane,) = form.target(task(shape(*vertices)))
    assert lane.points.tolist() == [[0.2, 0.1], [0.3, 0.9]]


def test_a_vector_without_labels_is_a_lane():
    form = format_for(config("Vector"), LANES)
    assert form.classes == ("lane",)
    (lane,) = form.target(task(shape(vertex("a", 20, 10), vertex("b", 30, 90, "a"), tag="Vector")))
    assert (lane.label, lane.points.tolist()) == (0, [[0.2, 0.1], [0.3, 0.9]])


def test_a_region_as_the_browser_submits_it_is_read(form):
    """Drawn by hand in Label Studio 1.23.2 with three clicks: the first vertex twice, float noise, `origin`."""
    submitted = {
        "original_width": 400,
        "original_height": 144,
        "image_rotation": 0,
        "value": {
            "vertices": [
                {"x": 50.07235890014471, "y": 92.20935841775203, "id": "3dLASo-Dg", "isBezier": False},
                {
                    "x": 50.07235890014471,
                    "y": 92.20935841775203,
                    "id": "DLK9BM9Gf",
                    "prevPointId": "3dLASo-Dg",
                    "isBezier": False,
                },
                {
                    "x": 54.70332850940666,
                    "y": 59.24585946293616,
                    "id": "h1Ospkg1A",
                    "prevPointId": "DLK9BM9Gf",
                    "isBezier": False,
                },
                {
                    "x": 59.33429811866859,
                    "y": 31.106287184434795,
                    "id": "RHXeK0-9R",
                    "prevPointId": "h1Ospkg1A",
                    "isBezier": False,
                },
            ],
            "closed": False,
            "vectorlabels": ["lane"],
        },
        "id": "03cUbrkjWZ",
        "from_name": "drawn",
        "to_name": "img",
        "type": "vectorlabels",
        "origin": "manual",
    }
    (lane,) = form.target(task(submitted))
    expected = [[0.593343, 0.311063], [0.547033, 0.592459], [0.500724, 0.922094]]
    np.testing.assert_allclose(lane.points, expected, atol=1e-6)
