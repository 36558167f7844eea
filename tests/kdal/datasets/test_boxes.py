import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdal.datasets.boxes import scene_of, task_of
from kdal.datasets.tasks import Labels
from kdal.labelstudio.formats import format_for
from kdal_core.datasets import BoxScene, Mark
from kdal_core.datasets.box_scene import same_box
from kdal_core.errors import LabelFormatError
from tests.kdal.labelstudio.formats import lanes as drawn
from tests.kdal.values import json_values, outcome

SIZE = (640, 480)
CLASSES = ("cell", "platelet")


@pytest.fixture(scope="module")
def drawer():
    return format_for(drawn.config("RectangleLabels", CLASSES))


def stored(task, number=7):
    """The task as Label Studio gives it back: through JSON, annotated, with ids."""
    task = json.loads(json.dumps(task)) | {"id": number}
    for annotation in task.get("annotations", ()):
        annotation |= {"id": 1, "was_cancelled": False, "updated_at": "2026-11-21T10:00:00Z"}
    return task


def imported(drawer, scene, form="voc", labels=Labels.annotations):
    return stored(task_of(scene, form, drawer, "/data/upload/1/x.jpg", SIZE, labels))


sides = st.integers(-50, 700)
marks = st.lists(
    st.builds(
        lambda label, a, b, c, d, extra: Mark(label, (a / 640, b / 480, c / 640, d / 480), extra),
        st.sampled_from(CLASSES), sides, sides, sides, sides, st.dictionaries(st.text(max_size=3), st.integers()),
    ),
    max_size=5,
)  # fmt: skip


def drawable(mark):
    left, top, right, bottom = mark.corners
    return left != right and top != bottom


@given(marks, st.sampled_from(["coco", "voc", "yolo"]))
@settings(max_examples=50)
def test_a_scene_comes_back_with_its_boxes_even_those_that_cannot_be_drawn(found, form):
    drawer = format_for(drawn.config("RectangleLabels", CLASSES))
    scene = BoxScene("a/0.jpg", tuple(found), {"note": 1}, {"train": (3, "0")}, SIZE)
    if found and not any(drawable(mark) for mark in found):  # it would say that there is nothing
        assert "annotations" not in imported(drawer, scene, form)
        return
    again = scene_of(imported(drawer, scene, form), form, drawer, SIZE, 0)
    assert (again.path, again.extra, again.lists, again.size) == (scene.path, scene.extra, scene.lists, SIZE)
    assert [mark.label for mark in again.marks] == [mark.label for mark in found]
    assert [mark.extra for mark in again.marks] == [mark.extra for mark in found]
    assert all(same_box(a.corners, b.corners) for a, b in zip(again.marks, found, strict=True))


def test_another_form_gets_the_boxes_and_none_of_what_the_first_one_said(drawer):
    scene = BoxScene(
        "a/0.jpg", (Mark("cell", (0.1, 0.1, 0.5, 0.5), {"object": 0}),), {"note": 1}, {"t": (1, "0")}, SIZE
    )
    again = scene_of(imported(drawer, scene, "voc"), "coco", drawer, None, 9)
    assert (again.extra, again.lists, again.size) == ({}, {"annotations/instances.json": (9, "")}, SIZE)
    assert [mark.extra for mark in again.marks] == [{}]


def test_images_that_came_from_no_folder_are_put_and_listed_as_each_form_has_it(drawer):
    value = {"x": 1, "y": 1, "width": 30, "height": 20, "rectanglelabels": ["cell"]}
    region = {"id": "r", "from_name": "drawn", "type": "rectanglelabels", "value": value}
    task = {"id": 7, "data": {"image": "/data/b.jpg"}, "annotations": [{"id": 1, "result": [region]}]}
    found = {form: scene_of(task, form, drawer, SIZE, 4) for form in ("coco", "voc", "yolo")}
    assert {form: scene.path for form, scene in found.items()} == {
        "coco": "images/7-b.jpg",
        "voc": "JPEGImages/7-b.jpg",
        "yolo": "images/7-b.jpg",
    }
    assert found["voc"].lists == {"ImageSets/Main/train.txt": (4, "7-b")}
    assert found["coco"].lists == {"annotations/instances.json": (4, "")}
    assert found["yolo"].lists == {"train": (4, "")}


def test_an_image_without_boxes_is_annotated_and_one_without_a_label_is_not(drawer):
    def task(found, labels):
        return task_of(BoxScene("a.jpg", found), "yolo", drawer, "/x.jpg", SIZE, labels)

    assert task((), Labels.annotations)["annotations"] == [{"result": [], "ground_truth": False}]
    assert "annotations" not in task(None, Labels.annotations)
    assert not {"annotations", "predictions"} & set(task((), Labels.none))
    assert task((), Labels.predictions)["predictions"] == [{"result": [], "model_version": "import"}]


def test_what_people_drew_is_cleaned_and_what_is_no_box_named(drawer):
    task = imported(drawer, BoxScene("a.jpg", (), size=SIZE))
    value = {"x": 90, "y": 50, "width": 30, "height": 20, "rotation": 0, "rectanglelabels": ["cell"]}
    region = {"id": "drawn", "from_name": "drawn", "to_name": "img", "type": "rectanglelabels", "value": value}
    task["annotations"][0]["result"] = [region]
    (mark,) = scene_of(task, "voc", drawer, SIZE, 0).marks
    np.testing.assert_allclose(mark.corners, (0.9, 0.5, 1.0, 0.7))
    value["width"] = 0
    with pytest.raises(LabelFormatError, match="task 7: region drawn: it has no size"):
        scene_of(task, "voc", drawer, SIZE, 0)


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        (BoxScene("a.jpg", (Mark("zebra", (0, 0, 1, 1)),)), r'a\.jpg: its label "zebra" is no <Label>'),
        (BoxScene("a.jpg", (), size=(480, 640)), r"a\.jpg: its label is for 480 x 640 pixels, it has 640 x 480"),
    ],
)
def test_a_scene_that_does_not_fit_the_project_or_its_image_is_refused_by_name(drawer, scene, message):
    with pytest.raises(LabelFormatError, match=message):
        task_of(scene, "voc", drawer, "/x.jpg", SIZE, Labels.annotations)


def test_nobody_knows_how_large_an_image_is_that_no_region_and_no_file_tells(drawer):
    task = {"id": 7, "data": {"image": "a.jpg"}, "annotations": [{"id": 1, "result": []}]}
    assert scene_of(task, "yolo", drawer, None, 0).marks == ()
    value = {"x": 1, "y": 1, "width": 30, "height": 20, "rectanglelabels": ["cell"]}
    region = {"id": "r", "from_name": "drawn", "type": "rectanglelabels", "value": value}
    task["annotations"][0]["result"] = [region]
    with pytest.raises(LabelFormatError, match="task 7: its image cannot be read"):
        scene_of(task, "voc", drawer, None, 0)


@given(json_values)
def test_a_damaged_meta_is_this_tasks_fault_by_name(value):
    drawer = format_for(drawn.config("RectangleLabels", CLASSES))
    task = {"id": 7, "data": {"image": "a.jpg"}, "meta": {"kdal": value}, "annotations": [{"id": 1, "result": []}]}
    found = outcome(LabelFormatError, lambda: scene_of(task, "voc", drawer, SIZE, 0))
    assert isinstance(found, BoxScene) or str(found).startswith("task 7")
