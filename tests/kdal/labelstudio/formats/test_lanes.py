import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from kdal.labelstudio.formats import format_for
from kdal_core.errors import LabelFormatError
from kdal_core.tasks.lane import Lane, row_anchors, x_at
from tests.kdal.labelstudio.formats.lanes import LANES, TAGS, annotation, config, region, task
from tests.kdal.values import json_values, outcome

WRITTEN = tuple(tag for tag in TAGS if tag != "BrushLabels")


def line(*points, label="lane", **fields):
    value = {"vertices": [{"x": x, "y": y} for x, y in points]}
    return region("VectorLabels", value, *([label] if label else []), **fields)


LEFT, RIGHT = line((20, 10), (10, 90), id="left"), line((80, 10), (90, 90), id="right")


@pytest.fixture(scope="module")
def form():
    return format_for(config("VectorLabels"), LANES)


def first_x(lanes):
    return [lane.points[0, 0] for lane in lanes]


def test_the_lanes_of_the_annotation_come_in_its_order(form):
    lanes = form.target(task(LEFT, line((80, 10), (90, 90), label="curb")))
    assert [lane.points.tolist() for lane in lanes] == [[[0.2, 0.1], [0.1, 0.9]], [[0.8, 0.1], [0.9, 0.9]]]
    assert [lane.label for lane in lanes] == [0, 1]
    assert form.image_key == "image"
    assert form.classes == ("lane", "curb")


def test_an_annotation_without_regions_says_that_there_are_no_lanes(form):
    assert form.target(task()) == ()


def test_regions_of_other_controls_are_no_lanes(form):
    other = {"id": "x", "from_name": "weather", "type": "choices", "value": {"choices": ["rain"]}}
    assert len(form.target(task(other, LEFT))) == 1


def test_the_newest_annotation_decides_and_skipped_ones_do_not_count(form):
    old = annotation(LEFT, updated_at="2026-11-21T10:00:00Z")
    new = annotation(RIGHT, updated_at="2026-11-21T11:00:00Z", id=2)
    skipped = annotation(updated_at="2026-11-21T12:00:00Z", id=3, was_cancelled=True)
    for annotations in ([old, new, skipped], [skipped, new, old]):
        assert first_x(form.target({"id": 12, "annotations": annotations})) == [0.8]


def test_a_ground_truth_decides_over_a_newer_annotation(form):
    truth = annotation(LEFT, updated_at="2026-11-21T10:00:00Z", ground_truth=True)
    new = annotation(RIGHT, updated_at="2026-11-21T11:00:00Z", id=2)
    assert first_x(form.target({"id": 12, "annotations": [truth, new]})) == [0.2]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line((50, 50)), "it is a single point"),
        (line((50, 50), (50, 50), (50, 50)), "it is a single point"),
        (line((120, 10), (130, 90)), "it lies outside the image"),
        (line((10, 50), (90, 50)), "it is level"),
        (line((10, 50), (90, 1e7)), "a vertex lies far away"),
        (line((10, 50), (90, 50_000)), "images away from the image"),
        (line((10, 50), ("90", 50)), "no pair of numbers"),
        (line((10, 50), (True, 50)), "no pair of numbers"),
        (line((10, 50), (None, 50)), "no pair of numbers"),
        (line((10, 10), (10, 90), label=None), "it carries 0 labels"),
        (line((10, 10), (10, 90), label="zebra"), 'its label "zebra" is no <Label>'),
        (region("VectorLabels", {"vertices": [{"x": 1, "y": 2}]}, "lane", "curb"), "it carries 2 labels"),
        (region("VectorLabels", {}, "lane"), "it has no list of vertices"),
        (region("VectorLabels", {"vertices": [[1, 2]]}, "lane"), "it has no list of vertices"),
        (region("VectorLabels", {"vertices": []}, "lane"), "it has no vertices"),
        (region("VectorLabels", {}) | {"value": None}, "it has no value"),
        (line((10, 10), (10, 90), from_name="old"), 'it belongs to "old", the labelling config says "drawn" now'),
    ],
)
def test_a_region_that_is_no_lane_refuses_its_image_by_task_and_region(form, bad, message):
    with pytest.raises(LabelFormatError) as caught:
        form.target(task(LEFT, bad))
    assert str(caught.value).startswith("task 12: region abc: ")
    assert message in str(caught.value)


def test_a_region_without_an_id_is_named_by_its_place(form):
    nameless = line((50, 50))
    del nameless["id"]
    with pytest.raises(LabelFormatError, match=r"^task 12: region 2, without an id: it is a single point"):
        form.target(task(LEFT, nameless))


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], "task 12: it has no finished annotation"),
        ([annotation(LEFT, was_cancelled=True)], "task 12: it has no finished annotation"),
        ([annotation() | {"result": None}], "task 12: its annotation holds no list of regions"),
        ([annotation("lane")], "task 12: its annotation holds no list of regions"),
    ],
)
def test_a_task_without_a_readable_annotation_is_named(form, annotations, message):
    with pytest.raises(LabelFormatError) as caught:
        form.target({"id": 12, "annotations": annotations})
    assert str(caught.value) == message


def test_one_label_in_the_config_needs_no_naming_in_the_regions():
    form = format_for(config("VectorLabels", ("lane",)), LANES)
    assert [lane.label for lane in form.target(task(line((1, 10), (1, 90), label=None)))] == [0]


def test_an_image_of_another_size_is_harmless_and_one_of_another_shape_is_refused(form):
    sizes = [(1280, 720), (640, 360), (641, 360)]
    lanes = [line((10, 10), (20, 90), id=f"r{w}", original_width=w, original_height=h) for w, h in sizes]
    assert len(form.target(task(*lanes))) == 3
    turned = line((10, 10), (20, 90), id="turned", original_width=720, original_height=1280)
    with pytest.raises(LabelFormatError, match=r"task 12: region turned: .* 720 x 1280 .* region r1280 on 1280 x 720"):
        form.target(task(*lanes, turned))


@given(json_values)
def test_any_json_as_annotations_is_read_or_refused_by_its_task(value):
    form = format_for(config("VectorLabels"), LANES)
    found = outcome(LabelFormatError, lambda: form.target({"id": 12, "annotations": value}))
    assert isinstance(found, tuple) or str(found).startswith("task 12: ")


points = st.fixed_dictionaries({"x": json_values, "y": json_values}) | json_values
values = st.fixed_dictionaries(
    {},
    optional={
        "vertices": st.lists(points, max_size=4) | json_values,
        "points": st.lists(st.lists(json_values, max_size=2), max_size=4) | json_values,
        "x": json_values,
        "y": json_values,
        "rle": st.lists(st.integers(0, 255), max_size=20) | json_values,
        "format": st.just("rle") | json_values,
        "closed": json_values,
        **{tag.lower(): st.just(["lane"]) | json_values for tag in TAGS},
    },
)


@given(st.sampled_from(TAGS), st.lists(values | json_values, max_size=3), st.integers(-1, 3), json_values)
def test_any_json_inside_regions_is_read_or_refused_by_its_task(tag, found, size, meta):
    extra = {"original_width": size, "original_height": size, "meta": meta, "parentID": meta}
    regions = [{"id": str(i), "from_name": "drawn", "value": value} | extra for i, value in enumerate(found)]
    form = format_for(config(tag), LANES)
    read = outcome(LabelFormatError, lambda: form.target(task(*regions)))
    assert isinstance(read, tuple) or str(read).startswith("task 12: ")


@st.composite
def predictions(draw):
    """(S, R + 2), lanes with gaps, some outside the image; straight enough for a few vertices."""
    rows = draw(st.integers(4, 40))
    anchors = row_anchors(rows)
    slots = []
    for _ in range(draw(st.integers(0, 4))):
        top, bottom = draw(st.floats(-0.3, 1.3)), draw(st.floats(-0.3, 1.3))
        x = top + (bottom - top) * anchors
        start = draw(st.integers(0, rows))
        x[: draw(st.integers(0, start))] = math.nan
        x[start:] = math.nan
        slots.append([*x, draw(st.floats(0, 1)), draw(st.integers(0, 1))])
    return np.array(slots, dtype=np.float32).reshape(-1, rows + 2)


@given(st.sampled_from(WRITTEN), predictions())
def test_what_kdal_draws_is_valid_in_label_studio_and_reads_back_as_the_prediction(tag, prediction):
    text = config(tag)
    form = format_for(text, LANES)
    regions = form.result(prediction)
    assert LabelInterface(text).validate_prediction({"result": regions, "score": 0.5}, return_errors=True) == []
    assert all(0 <= region["score"] <= 1 for region in regions)
    assert len({region["id"] for region in regions}) == len(regions)
    anchors = row_anchors(prediction.shape[1] - 2)
    found = form.target(task(*regions))
    visible = [slot for slot in prediction if _length(slot[:-2]) > 2]
    assert len(found) >= len(visible)
    for slot in visible:
        x = np.where((slot[:-2] > 0.02) & (slot[:-2] < 0.98), slot[:-2], np.nan)
        assert any(_same(x, x_at(lane, anchors)) and _label(slot, tag) == lane.label for lane in found)


def _length(x):
    return ((x > 0.02) & (x < 0.98)).sum()


def _label(slot, tag):
    return 0 if tag == "Vector" else int(slot[-1])


def _same(expected, found):
    there = np.flatnonzero(np.isfinite(expected))[1:-1]  # percentages are rounded: an end may just miss its row
    return np.isfinite(found[there]).all() and np.abs(expected[there] - found[there]).max(initial=0) < 0.003


def test_a_curved_lane_is_drawn_with_a_handful_of_vertices(form):
    anchors = row_anchors(72)
    x = 0.5 + 0.2 * anchors**2
    (drawn,) = form.result(np.append(x, [0.87654, 1]).astype(np.float32)[None])
    vertices = drawn["value"]["vertices"]
    assert 3 <= len(vertices) <= 10
    assert drawn["score"] == 0.8765
    assert drawn["meta"] == {"text": ["88% sure"]}
    assert drawn["value"]["vectorlabels"] == ["curb"]
    assert drawn["value"]["closed"] is False
    assert [v["prevPointId"] for v in vertices] == [None, *[v["id"] for v in vertices[:-1]]]
    read = Lane(np.array([[v["x"], v["y"]] for v in vertices]) / 100)
    assert np.abs(x_at(read, anchors[1:-1]) - x[1:-1]).max() < 0.0012


@pytest.mark.parametrize("tag", WRITTEN)
def test_what_kdal_draws_says_how_large_its_image_is(tag):
    """Label Studio's editor draws polylines in the upper left corner when it is not told."""
    slot = np.array([[0.5, 0.5, 0.5, 0.9, 0]], dtype=np.float32)
    regions = format_for(config(tag), LANES).result(slot, (1640, 590))
    assert {(region["original_width"], region["original_height"]) for region in regions} == {(1640, 590)}


def test_a_restless_prediction_is_drawn_with_few_vertices_too(form):
    anchors = row_anchors(36)
    x = 0.5 + 0.2 * anchors**2 + np.random.default_rng(0).normal(0, 0.0015, 36)
    (drawn,) = form.result(np.append(x, [0.9, 0]).astype(np.float32)[None])
    assert len(drawn["value"]["vertices"]) <= 12


def test_a_brush_writes_nothing_and_an_empty_prediction_neither(form):
    slot = np.array([[0.5, 0.5, 0.5, 0.9, 0]], dtype=np.float32)
    assert format_for(config("BrushLabels"), LANES).result(slot) == []
    assert form.result(np.full((4, 22), np.nan, dtype=np.float32)) == []
    assert form.result(np.zeros((0, 22), dtype=np.float32)) == []


def test_a_lane_that_is_level_within_the_image_is_not_drawn(form):
    slot = np.array([[0.2, math.nan, math.nan, 0.9, 0], [1.2, 1.1, 0.9999999, 0.9, 0]], dtype=np.float32)
    assert form.result(slot) == []
