import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal.labelstudio.formats import format_for
from kdal_core.errors import LabelFormatError
from tests.kdal.labelstudio.formats.lanes import LANES, config, region, task

CONFIG = config("KeyPointLabels", ("left", "right"))


@pytest.fixture(scope="module")
def form():
    return format_for(CONFIG, LANES)


def point(name, x, y, label="left", **fields):
    return region("KeyPointLabels", {"x": x, "y": y, "width": 0.5}, label, id=name, **fields)


def joined(a, b):
    return {"from_id": a, "to_id": b, "type": "relation", "direction": "right"}


def lanes(form, *regions):
    return [(lane.label, (lane.points * 100).round(6).tolist()) for lane in form.target(task(*regions))]


@given(st.permutations([("left", 20, 10), ("left", 25, 50), ("left", 10, 90), ("right", 80, 10), ("right", 90, 90)]))
def test_the_points_of_a_label_are_a_lane_from_top_to_bottom(order):
    regions = [point(str(i), x, y, label) for i, (label, x, y) in enumerate(order)]
    found = lanes(format_for(CONFIG, LANES), *regions)
    assert sorted(found) == [(0, [[20, 10], [25, 50], [10, 90]]), (1, [[80, 10], [90, 90]])]


def test_points_that_people_joined_are_lanes_of_their_own(form):
    regions = [
        point("a", 20, 10),
        point("b", 10, 90),
        point("c", 40, 10),
        point("d", 45, 50),
        point("e", 44, 90),
        point("f", 80, 10, parentID="g"),
        point("g", 90, 90),
        joined("c", "d"),
        joined("e", "d"),
    ]
    assert lanes(form, *regions) == [
        (0, [[20, 10], [10, 90]]),
        (0, [[40, 10], [45, 50], [44, 90]]),
        (0, [[80, 10], [90, 90]]),
    ]


def test_points_of_two_labels_joined_to_one_lane_are_refused(form):
    regions = [point("a", 20, 10), point("b", 10, 90, "right"), joined("a", "b")]
    with pytest.raises(LabelFormatError, match="task 12: region a: it is joined with points of another label"):
        form.target(task(*regions))


def test_a_single_point_is_refused_by_its_region(form):
    with pytest.raises(LabelFormatError, match="task 12: region b: it is a single point"):
        form.target(task(point("a", 20, 10), point("c", 20, 90), point("b", 10, 90, "right")))


def test_a_point_without_a_place_is_refused_by_its_region(form):
    with pytest.raises(LabelFormatError, match="task 12: region b: a vertex is no pair of numbers"):
        form.target(task(point("a", 20, 10), point("b", None, 90)))


def test_relations_that_lead_nowhere_and_rings_of_parents_do_no_harm(form):
    regions = [point("a", 20, 10, parentID="b"), point("b", 10, 90, parentID="a"), joined("x", "y"), joined("a", None)]
    assert lanes(form, *regions) == [(0, [[20, 10], [10, 90]])]
