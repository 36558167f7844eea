import math
import re

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from kdal.labelstudio.formats import format_for, notes
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.tasks.box import boxes_of
from tests.kdal.labelstudio.formats.lanes import annotation, config, region, task
from tests.kdal.values import json_values, outcome

TAG = "RectangleLabels"
CONFIG = config(TAG, ("cell", "platelet"))


def rectangle(x, y, width, height, *labels, rotation=0, **fields):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return region(TAG, value, *(labels or ("cell",)), **fields)


SIZED = {"original_width": 400, "original_height": 200, "image_rotation": 0}


@pytest.fixture(scope="module")
def form():
    return format_for(CONFIG)


def corners(form, *regions):
    return [np.round(box.corners, 9).tolist() for box in form.target(task(*regions))]


def test_the_boxes_of_the_annotation_come_in_its_order(form):
    boxes = form.target(task(rectangle(10, 20, 30, 40), rectangle(50, 0, 50, 100, "platelet")))
    assert [box.label for box in boxes] == [0, 1]
    assert np.round([box.corners for box in boxes], 9).tolist() == [[0.1, 0.2, 0.4, 0.6], [0.5, 0.0, 1.0, 1.0]]
    assert (form.task().kind, form.task().classes, form.image_key) == ("boxes", ("cell", "platelet"), "image")


def test_an_annotation_without_regions_says_that_there_are_no_boxes(form):
    assert form.target(task()) == ()


def test_the_newest_annotation_decides_and_a_ground_truth_before_it(form):
    old = annotation(rectangle(10, 10, 10, 10), updated_at="2026-11-21T10:00:00Z")
    new = annotation(rectangle(50, 10, 10, 10), updated_at="2026-11-21T11:00:00Z", id=2)
    assert form.target({"id": 1, "annotations": [new, old]})[0].left == 0.5
    assert form.target({"id": 1, "annotations": [new, old | {"ground_truth": True}]})[0].left == 0.1


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ((-10, -5, 30, 30), [0, 0, 0.2, 0.25]),  # begun beside the image
        ((90, 90, 30, 30), [0.9, 0.9, 1, 1]),  # ended beside it
        ((-50, -50, 300, 300), [0, 0, 1, 1]),
        ((40, 60, -30, -40), [0.1, 0.2, 0.4, 0.6]),  # drawn from the lower right corner
    ],
)
def test_habits_of_drawing_are_cleaned(form, drawn, expected):
    assert corners(form, rectangle(*drawn)) == [expected]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (rectangle(10, 10, 0, 0), "it has no size"),
        (rectangle(10, 10, 0, 30), "it has no size"),
        (rectangle(110, 10, 20, 20), "it lies outside the image"),
        (rectangle(10, 10, 20, 20, "zebra"), 'its label "zebra" is no <Label>'),
        (rectangle(10, 10, 20, 20, "cell", "platelet"), "it carries 2 labels"),
        (region(TAG, {"x": 1, "y": 1, "width": 5, "height": 5}), "it carries 0 labels"),
        (rectangle("10", 10, 20, 20), "its x is no number"),
        (rectangle(10, None, 20, 20), "its y is no number"),
        (rectangle(10, 10, True, 20), "its width is no number"),
        (rectangle(10, 10, 20, math.nan), "its height is damaged"),
        (rectangle(10, 10**400, 20, 20), "its y is damaged"),
        (rectangle(10, 10, 20, 1e9), "its height is damaged"),
        (rectangle(10, 10, 20, 20, rotation=30), "does not say how large its image is"),
        (rectangle(10, 10, 20, 20, rotation="a lot"), "its rotation is no number"),
        (rectangle(10, 10, 20, 20) | {"from_name": "old"}, 'it belongs to "old"'),
        (rectangle(1, 1, 5, 5) | {"value": None}, "it has no value"),
    ],
)
def test_a_region_that_is_no_box_is_refused_with_task_and_region(form, bad, message):
    with pytest.raises(LabelFormatError, match=r"^task 12: region abc") as caught:
        form.target(task(rectangle(10, 10, 10, 10, id="good"), bad))
    assert message in str(caught.value)


def test_thousands_of_boxes_are_read_and_far_too_many_refused(form):
    many = [rectangle(i % 90, i // 90, 5, 5, id=f"r{i}") for i in range(5000)]
    assert len(form.target(task(*many))) == 5000
    with pytest.raises(LabelFormatError, match=r"task 12: it has 10,001 boxes, more than anybody draws"):
        form.target(task(*[rectangle(1, 1, 5, 5)] * 10_001))


@pytest.mark.parametrize(
    ("angle", "expected"),
    [
        (0, [40, 40, 80, 60]),
        (90, [20, 40, 40, 80]),  # clockwise about the upper left corner
        (180, [0, 20, 40, 40]),
        (-90, [40, 0, 60, 40]),
        (450, [20, 40, 40, 80]),
    ],
)
def test_a_turned_box_is_read_as_the_upright_box_around_it(form, angle, expected):
    """In pixels of an image twice as wide as high: 40 x 20 pixels with a corner at (40, 40)."""
    (box,) = form.target(task(rectangle(10, 20, 10, 10, rotation=angle, **SIZED)))
    np.testing.assert_allclose(np.array(box.corners) * [400, 200, 400, 200], expected, atol=1e-9)


@given(st.floats(-360, 360), st.floats(5, 20), st.floats(5, 20))
def test_the_box_around_a_turned_one_touches_its_corners(angle, width, height):
    """Against complex numbers."""
    form = format_for(CONFIG)
    (box,) = form.target(task(rectangle(50, 50, width, height, rotation=angle, **SIZED)))
    turn = complex(math.cos(math.radians(angle)), math.sin(math.radians(angle)))
    points = [200 + 100j + turn * complex(4 * width * i, 2 * height * j) for i in (0, 1) for j in (0, 1)]
    wanted = [f(getattr(p, part) for p in points) for f in (min, max) for part in ("real", "imag")]
    np.testing.assert_allclose(np.array(box.corners) * [400, 200, 400, 200], wanted, atol=1e-6)


def test_the_log_says_that_a_box_was_turned_and_only_then(form):
    with structlog.testing.capture_logs() as logs:
        form.target(task(rectangle(10, 20, 10, 10, rotation=30.5, **SIZED), rectangle(1, 2, 5, 5, id="upright")))
    (entry,) = logs
    assert (entry["task"], entry["region"]) == (12, "abc")
    assert entry["event"] == "a box turned by 30.5 degrees is read as the upright box around it"


@given(json_values)
def test_whatever_is_in_a_value_is_a_box_or_an_error_that_names_the_region(value):
    found = outcome(
        LabelFormatError, lambda: format_for(CONFIG).target(task({**rectangle(1, 1, 5, 5), "value": value}))
    )
    assert isinstance(found, tuple) or str(found).startswith("task 12: region abc")


def prediction(*rows):
    table = np.full((6, 6), np.nan, dtype=np.float32)
    table[: len(rows)] = np.array(rows).reshape(-1, 6)
    return table


def test_boxes_become_regions_that_label_studio_takes_and_that_say_how_sure_they_are(form):
    predicted = prediction((0.1, 0.2, 0.4, 0.6, 0.875, 1), (0, 0, 1, 1, 0.46, 0), (0.5, 0.5, 0.6, 0.6, 0.05, 0))
    regions = form.result(predicted, (400, 200))
    assert [r["score"] for r in regions] == [0.875, 0.46, 0.05]
    assert [r["meta"]["text"] for r in regions] == [["88% sure"], ["46% sure"], ["5% sure"]]
    assert [r["value"]["rectanglelabels"] for r in regions] == [["platelet"], ["cell"], ["cell"]]
    assert regions[0]["value"]["x"] == pytest.approx(10, abs=1e-4)
    assert (regions[0]["original_width"], regions[0]["original_height"]) == (400, 200)
    assert len({r["id"] for r in regions}) == 3
    interface = LabelInterface(CONFIG)
    assert interface.validate_prediction({"result": regions, "score": 0.5}, return_errors=True) == []
    assert form.result(prediction(), (400, 200)) == []


@given(
    st.lists(
        st.tuples(*[st.floats(0, 0.45)] * 2, *[st.floats(0.5, 1)] * 2, st.floats(0.5, 1), st.integers(0, 1)), max_size=6
    )
)
def test_a_confirmed_prediction_is_the_label_that_was_predicted(rows):
    form = format_for(CONFIG)
    predicted = prediction(*rows)
    regions = form.result(predicted, (640, 480))
    boxes = form.target(task(*regions))
    wanted = [box for box, _ in boxes_of(predicted)]
    assert [box.label for box in boxes] == [box.label for box in wanted]
    for box, other in zip(boxes, wanted, strict=True):
        np.testing.assert_allclose(box.corners, other.corners, atol=1e-6)
    assert all(
        r["value"][a] + r["value"][b] <= 100 + 1e-9 for r in regions for a, b in (("x", "width"), ("y", "height"))
    )


def test_a_config_without_labels_is_refused():
    with pytest.raises(ConfigError, match=r'<RectangleLabels name="drawn"> needs at least one <Label'):
        format_for(config(TAG, ()))


def beside(*others):
    """A config of boxes with other controls on the same image."""
    return CONFIG.replace("</View>", "".join(others) + "</View>")


QUALITY = '<Choices name="quality" toName="img"><Choice value="good"/><Choice value="bad"/></Choices>'
AREAS = '<PolygonLabels name="area" toName="img"><Label value="cell"/><Label value="slide"/></PolygonLabels>'
GOOD = {"id": "q", "from_name": "quality", "to_name": "img", "type": "choices", "value": {"choices": ["good"]}}
POINTS = {"points": [[1, 1], [9, 1], [9, 9]], "closed": True}


def area(*labels):
    return region("PolygonLabels", POINTS, *labels, from_name="area", id="p")


def test_boxes_are_read_whatever_another_control_says_of_them_or_of_the_image():
    form = format_for(beside(QUALITY, '<TextArea name="note" toName="img" perRegion="true"/>'))
    box = rectangle(10, 20, 30, 40, id="a")
    note = box | {"from_name": "note", "type": "textarea", "value": box["value"] | {"text": ["blurred"]}}
    assert len(form.target(task(GOOD, box, note, note | {"id": "b"}))) == 1


def test_a_choice_without_boxes_that_somebody_submitted_says_that_there_are_none():
    form = format_for(beside(QUALITY))
    assert form.target(task(GOOD, lead_time=4.2)) == form.target(task(GOOD)) == ()


def test_a_choice_without_boxes_that_was_imported_says_nothing_of_boxes():
    form = format_for(beside(QUALITY))
    with pytest.raises(LabelFormatError, match=r'no region of <RectangleLabels name="drawn">.*it was imported'):
        form.target(task(GOOD, lead_time=None))
    assert form.target(task(lead_time=None)) == ()  # an empty label says so itself
    assert len(form.target(task(GOOD, rectangle(10, 20, 30, 40), lead_time=None))) == 1


@pytest.mark.parametrize(
    "condition",
    [
        ('<View visibleWhen="choice-selected" whenTagName="quality" whenChoiceValue="good">', "</View>"),
        ('<View whenchoicevalue="good"><View>', "</View></View>"),
    ],
)
def test_no_box_of_a_control_that_is_shown_at_some_times_only_says_nothing(condition):
    start, end = condition
    control = re.search("<RectangleLabels.*</RectangleLabels>", CONFIG)[0]
    text = beside(QUALITY).replace(control, f"{start}{control}{end}")
    form = format_for(text)
    for regions in ((), (GOOD,)):
        with pytest.raises(LabelFormatError, match="shown at some times only"):
            form.target(task(*regions, lead_time=4.2))
    assert len(form.target(task(rectangle(10, 20, 30, 40)))) == 1
    assert any("shown at some times only" in note for note in notes(text))


@pytest.mark.parametrize("boxes", [(), (rectangle(10, 20, 30, 40, id="a"),)])
def test_one_of_our_classes_drawn_with_another_tool_leaves_the_image_out(boxes):
    form = format_for(beside(AREAS))
    with pytest.raises(LabelFormatError, match=r'task 12: region p: "cell" is drawn with <PolygonLabels name="area">'):
        form.target(task(*boxes, area("cell"), lead_time=4.2))
    with pytest.raises(LabelFormatError, match="region p: something without a label is drawn"):
        form.target(task(*boxes, area(), lead_time=4.2))
    assert len(form.target(task(*boxes, area("slide"), lead_time=4.2))) == len(boxes)


def test_a_plain_tool_has_its_label_from_labels_beside_it():
    plain = '<Ellipse name="area" toName="img"/><Labels name="names" toName="img"><Label value="cell"/></Labels>'
    form = format_for(beside(plain))
    drawn = {"id": "e", "from_name": "area", "to_name": "img", "type": "ellipse", "value": {"x": 5, "y": 5}}
    named = drawn | {"from_name": "names", "type": "labels"}
    with pytest.raises(LabelFormatError, match='region e: "cell" is drawn with <Ellipse name="area">'):
        form.target(task(drawn, named | {"value": {"labels": ["cell"]}}))
    assert form.target(task(drawn, named | {"value": {"labels": ["slide"]}})) == ()


def test_objects_of_a_control_that_has_left_the_config_are_not_read_as_absent(form):
    """A project that once drew polygons: its old labels show cells, though not a single box."""
    with pytest.raises(LabelFormatError, match='region p: "cell" is drawn with "area" here'):
        form.target(task(area("cell")))
    assert form.target(task(area("slide"))) == ()


@given(json_values)
def test_any_json_as_a_region_of_another_control_is_read_or_refused_by_its_task(value):
    form = format_for(beside(AREAS, QUALITY))
    other = value if isinstance(value, dict) else {"value": value}
    for kind in ("polygonlabels", "polygon", "labels", "choices"):
        regions = [{"from_name": "area", "type": kind} | other, rectangle(10, 20, 30, 40)]
        found = outcome(LabelFormatError, lambda regions=regions: form.target(task(*regions)))
        assert isinstance(found, tuple) or str(found).startswith("task 12: ")
