import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdal.datasets.lanes import scene_of, task_of
from kdal.datasets.tasks import Labels, path_of
from kdal.labelstudio.formats import format_for
from kdal_core.datasets import LaneScene
from kdal_core.datasets.tusimple import record_of, rows_of
from kdal_core.errors import LabelFormatError
from kdal_core.validation import InvalidInput
from tests.kdal.labelstudio.formats import lanes as drawn
from tests.kdal.values import json_values, outcome

DECIMALS = 6


@pytest.fixture(scope="module")
def drawer():
    return format_for(drawn.config("VectorLabels"))


def stored(task, number=7):
    """The task as Label Studio gives it back: through JSON, annotated, with ids."""
    task = json.loads(json.dumps(task)) | {"id": number}
    for annotation in task.get("annotations", ()):
        annotation |= {"id": 1, "was_cancelled": False, "updated_at": "2026-11-21T10:00:00Z"}
    return task


def there_and_back(scene, form, size, tag="VectorLabels"):
    drawer = format_for(drawn.config(tag), drawn.LANES)
    task = stored(task_of(scene, form, drawer, "/data/upload/1/x.jpg", size, 0, Labels.annotations))
    points = [len(lane) for lane in scene.lanes]
    if any(points) and max(points) < 2:  # single points cannot be drawn: it would say that there is no lane
        assert "annotations" not in task
        return scene
    return scene_of(task, form, drawer, size, DECIMALS, 0)


def same(a, b):
    assert (a.path, a.extra, a.lists) == (b.path, b.extra, b.lists)
    assert [lane.tolist() for lane in a.lanes] == [lane.tolist() for lane in b.lanes]


sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
numbers = st.integers(0, 4000) | st.integers(-5_000_000, 40_000_000).map(lambda i: i / 10_000)


@given(st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6, unique=True), max_size=4), sizes)
def test_a_culane_scene_comes_back_number_for_number(found, size):
    lanes = tuple(np.array(lane, dtype=np.float64) for lane in found)
    scene = LaneScene(
        "a/0.jpg", lanes, lists={"list/train.txt": (3, "/a/0.jpg"), "list/x_gt.txt": (5, "/a/0.jpg /s.png 1")}
    )
    same(scene, there_and_back(scene, "culane", size))


@given(st.data(), sizes, st.sampled_from(["VectorLabels", "Vector"]))
def test_a_tusimple_scene_comes_back_number_for_number_gaps_and_short_lanes_too(data, size, tag):
    rows = data.draw(st.lists(st.integers(0, 1080), max_size=12, unique=True).map(sorted))
    xs = st.integers(0, 1280) | st.integers(0, 12_800).map(lambda i: i / 10)
    present = st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))
    lanes = []
    for _ in range(data.draw(st.integers(0, 4))):
        points = [[data.draw(xs), row] for row, there in zip(rows, data.draw(present), strict=True) if there]
        lanes.append(np.array(points, dtype=np.float64).reshape(-1, 2))
    extra = {"h_samples": rows, "tag": "night", "worn": [0.5]}
    scene = LaneScene("a/0.jpg", tuple(lanes), extra, {"train.jsonl": (3, "")})
    again = there_and_back(scene, "tusimple", size, tag)
    same(scene, again)
    assert record_of(again) == record_of(scene)


def test_an_image_without_lanes_is_annotated_and_one_without_a_label_is_not(drawer):
    def task(lanes, labels):
        return task_of(LaneScene("a.jpg", lanes), "culane", drawer, "/x.jpg", (100, 50), 0, labels)

    assert task((), Labels.annotations)["annotations"] == [{"result": [], "ground_truth": False}]
    assert "annotations" not in task(None, Labels.annotations)
    assert not {"annotations", "predictions"} & set(task((), Labels.none))
    assert task((), Labels.predictions)["predictions"] == [{"result": [], "model_version": "import"}]


def test_a_folder_s_own_lists_and_keys_are_not_written_in_another_form():
    lane = np.array([[10.0, 40.0], [10.0, 30.0], [20.0, 10.0]])
    scene = LaneScene("a/0.jpg", (lane,), lists={"list/train.txt": (3, "/a/0.jpg")})
    drawer = format_for(drawn.config("VectorLabels"))
    task = stored(task_of(scene, "culane", drawer, "/x.jpg", (100, 50), 0, Labels.annotations))
    again = scene_of(task, "tusimple", drawer, None, DECIMALS, 9)
    assert again.lists == {"label_data.json": (9, "")}
    assert again.extra == {"h_samples": rows_of(50)}
    assert again.lanes[0][[0, -1]].tolist() == [[19.5, 11], [10, 40]]


def hand_drawn(*points, **fields):
    return drawn.region("VectorLabels", {"vertices": [{"x": x, "y": y} for x, y in points]}, "lane", **fields)


def written(drawer, *regions, actual=(200, 100), form="culane", **fields):
    task = drawn.task(*regions) | {"data": {"image": "/data/upload/3/4f-b%20c.jpg?x=1"}} | fields
    return scene_of(task, form, drawer, actual, DECIMALS, 4)


def test_hand_drawn_lanes_are_cleaned_of_repeated_vertices_and_keep_their_direction(drawer):
    scene = written(drawer, hand_drawn((25, 90), (25, 90), (30, 20), (25, 90)))
    assert scene.lanes[0].tolist() == [[50, 90], [60, 20]]
    assert scene.path == "images/12-4f-b c.jpg"
    assert scene.lists == {"list/train.txt": (4, "/images/12-4f-b c.jpg")}


def test_an_image_of_another_size_counts_more_than_what_the_label_says(drawer):
    lane = hand_drawn((25, 90), (30, 20), original_width=400, original_height=200)
    assert written(drawer, lane).lanes[0].tolist() == [[50, 90], [60, 20]]
    assert written(drawer, lane, actual=None).lanes[0].tolist() == [[100, 180], [120, 40]]


@pytest.mark.parametrize(
    ("points", "fields", "actual", "message"),
    [
        ([(25, 90), (25, 90)], {}, (200, 100), "region abc: it is a single point"),
        ([(25, 90), (30, 20)], {}, None, "its image cannot be read, and no region says how large it is"),
        (
            [(25, 90), (30, 20)],
            {"original_width": 100, "original_height": 200},
            (200, 100),
            "region abc: it was drawn on 100 x 200 pixels, its image has 200 x 100",
        ),
    ],
)
def test_what_cannot_be_written_is_named_by_task_and_region(drawer, points, fields, actual, message):
    with pytest.raises(LabelFormatError) as caught:
        written(drawer, hand_drawn(*points, **fields), actual=actual)
    assert str(caught.value).startswith("task 12: ")
    assert message in str(caught.value)


def test_a_lane_between_two_rows_is_left_out_in_tusimple_s_form(drawer):
    between, over = hand_drawn((25, 41), (30, 44), id="x"), hand_drawn((25, 20), (25, 90))
    scene = written(
        drawer, between, over, form="tusimple", meta={"kdal": {"form": "tusimple", "extra": {"h_samples": [40, 50]}}}
    )
    assert [lane.tolist() for lane in scene.lanes] == [[[50, 40], [50, 50]]]


@pytest.mark.parametrize("tag", ["PolygonLabels", "KeyPointLabels"])
def test_lanes_of_other_tags_are_written_too(tag):
    drawer = format_for(drawn.config(tag), drawn.LANES)
    regions = drawer.draw(np.array([[0.25, 0.2], [0.3, 0.9]]), 0, "r", (200, 100))
    scene = scene_of(drawn.task(*regions), "culane", drawer, None, DECIMALS, 0)
    assert scene.lanes[0].tolist() == [[50, 20], [60, 90]]


@pytest.mark.parametrize("path", ["../a.jpg", "/../a.jpg", "", "a/../../b.jpg", "..\\a.jpg"])
def test_a_path_that_leads_out_of_the_folder_is_refused(path):
    with pytest.raises(LabelFormatError, match="task 12: "):
        path_of({"id": 12, "data": {"image": "x", "path": path}}, "image")


@given(json_values, json_values)
def test_any_json_as_image_or_path_gives_a_file_inside_or_a_label_format_error(image, path):
    found = outcome(LabelFormatError, lambda: path_of({"id": 12, "data": {"image": image, "path": path}}, "image"))
    assert isinstance(found, LabelFormatError) or ".." not in found.split("/")


metas = st.fixed_dictionaries(
    {},
    optional={
        "form": st.just("tusimple") | json_values,
        "extra": st.fixed_dictionaries({}, optional={"h_samples": st.lists(st.integers(0, 90)) | json_values})
        | json_values,
        "lists": st.dictionaries(st.text(max_size=5), st.tuples(st.integers(), st.text(max_size=3))) | json_values,
        "undrawn": st.lists(st.tuples(st.integers(), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)))))
        | json_values,
        "gaps": st.lists(st.tuples(st.floats(), st.floats())) | json_values,
    },
)


@given(metas | json_values, metas | json_values, st.sampled_from(["tusimple", "culane"]))
@example({"form": "tusimple", "undrawn": [(2**63, []), (-(2**63) - 1, [])]}, {}, "tusimple")
def test_any_json_as_meta_is_written_or_refused(of_task, of_region, form):
    drawer = format_for(drawn.config("VectorLabels"))
    lane = hand_drawn((25, 90), (30, 20), meta={"kdal": of_region})
    found = outcome((LabelFormatError, InvalidInput), lambda: written(drawer, lane, form=form, meta={"kdal": of_task}))
    assert isinstance(found, LaneScene | LabelFormatError | InvalidInput)
    if isinstance(found, LaneScene) and form == "tusimple":
        assert record_of(found)
