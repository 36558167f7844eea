"""The labelling loop on boxes: they are drawn, learnt, suggested with scores, corrected, learnt again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import Page

from kdal.demo.examples.blood_cells import KINDS, SIZE
from kdal.demo.examples.boxes import Boxes
from kdal.labelstudio.formats import format_for
from kdal_core.tasks.box import boxes_from_json
from kdal_core.tasks.boxes import SURE
from tests.integration import harness
from tests.integration.harness import Api, Project
from tests.integration.loop.editor import Editor
from tests.integration.loop.running import RunningKdal, drain, unlabelled

pytestmark = pytest.mark.timeout(3600)

CELLS = Boxes()
PICTURES, BUDGET = 44, 20
POLICY = {
    "budget": BUDGET,
    "image_size": 160,
    "student": "tiny_boxes",
    "teacher": "small_boxes",
    "batch_size": 8,
    "epochs": 40,
    "lr": 4e-3,
}
"""Under which a round takes half a minute, and its boxes are about right."""
PATIENCE = 1500.0
"""Seconds that a round may take where other programs keep the processor busy."""


@dataclass(frozen=True)
class Blood:
    """A project whose first batch is labelled and learnt."""

    project: Project
    answer: Callable[[int], list[dict[str, Any]]]
    """What somebody draws in a task."""
    cold: list[int]
    """The order before there were labels."""
    labelled: list[int]


@pytest.fixture(scope="module")
def blood(kdal: RunningKdal, ls_api: Api) -> Iterator[Blood]:
    files = [CELLS.image(number) for number in range(PICTURES)]
    project = harness.create_project(ls_api, CELLS.label_config, files, title=CELLS.title)
    numbers = dict(zip(project.task_ids, range(PICTURES), strict=True))
    kdal.connect(project, **POLICY)
    kdal.wait_open(project, 0)
    cold = kdal.order(project, 0)

    def answer(task: int) -> list[dict[str, Any]]:
        return CELLS.answer(numbers[task])

    labelled = drain(project, [ls_api], BUDGET, answer)
    kdal.wait_open(project, 1, timeout=PATIENCE)
    yield Blood(project, answer, cold, labelled)
    ls_api.delete(project.path)


def test_a_full_batch_of_pictures_trains_and_serves_the_rest_in_a_new_order(kdal: RunningKdal, blood: Blood) -> None:
    assert blood.labelled == blood.cold[:BUDGET]
    first = kdal.rounds(blood.project)[1]
    assert (first.facts["trained_on"], first.facts["student"], first.facts["metric"]) == (
        BUDGET,
        "tiny_boxes",
        "mAP@.5",
    )
    assert kdal.snapshot(blood.project, 1)["image_size"] == [120, 160]
    order = kdal.order(blood.project, 1)
    assert sorted(order) == sorted(blood.cold[BUDGET:])
    assert order != blood.cold[BUDGET:]
    assert drain(blood.project, [blood.project.api], 3, blood.answer) == order[:3]


def test_pictures_are_pre_annotated_with_boxes_each_with_a_score(kdal: RunningKdal, blood: Blood) -> None:
    order = kdal.order(blood.project, 1)
    predictions = unlabelled(blood.project)
    assert sorted(predictions) == sorted(order[3:])
    form = format_for(CELLS.label_config)
    found = 0
    for task, prediction in predictions.items():
        assert prediction["score"] == (order.index(task) + 1) / (len(order) + 1)
        assert prediction["model_version"] == "kdal-r1"
        for region in prediction["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == ("rectanglelabels", "cell", "image")
            assert SURE <= region["score"] <= 1
            assert (region["original_width"], region["original_height"]) == SIZE[::-1]
            assert region["value"]["rectanglelabels"][0] in KINDS
            assert 0 <= region["value"]["x"] < region["value"]["x"] + region["value"]["width"] <= 100 + 1e-9
            assert 0 <= region["value"]["y"] < region["value"]["y"] + region["value"]["height"] <= 100 + 1e-9
        # Confirmed as it is, it would be a label.
        boxes = form.target({"id": task, "annotations": [{"id": 1, "result": prediction["result"]}]})
        assert len(boxes) == len(prediction["result"])
        found += len(boxes)
    assert found > len(predictions)  # not a claim about learning: there is something to see and to correct


def test_label_studios_button_gets_the_same_boxes_as_the_queue(kdal: RunningKdal, blood: Blood) -> None:
    task = kdal.order(blood.project, 1)[5]
    data = next(t for t in blood.project.tasks() if t["id"] == task)["data"]
    uid = kdal.uid(blood.project)
    body = {"project": uid, "tasks": [{"id": task, "data": data}], "label_config": "", "params": {}}
    answer = requests.post(f"{kdal.url}/predict", json=body, auth=kdal.user, timeout=60)
    assert answer.ok, answer.text
    (result,) = answer.json()["results"]
    stored = unlabelled(blood.project)[task]
    assert (result["score"], result["model_version"]) == (stored["score"], "kdal-r1")
    assert len(result["result"]) == len(stored["result"])
    for asked, pushed in zip(result["result"], stored["result"], strict=True):
        places = [[region["value"][name] for name in ("x", "y", "width", "height")] for region in (asked, pushed)]
        assert places[0] == pytest.approx(places[1], abs=0.01)


def test_a_person_drags_a_pre_annotated_box_and_submits_and_that_is_learnt_and_served(
    kdal: RunningKdal, blood: Blood, page: Page, tmp_path: Path
) -> None:
    project = blood.project
    while not (boxes := unlabelled(project)[task := kdal.wait(project.next_task, "a task")]["result"]):
        project.annotate(task, blood.answer(task))  # a picture in which the model sees no cells
    editor = Editor(page, 880, tmp_path, "boxes")
    editor.open_next(project, len(boxes))

    number = most_alone(boxes)
    value = boxes[number]["value"]
    middle = value["x"] + value["width"] / 2, value["y"] + value["height"] / 2
    right, down = editor.drag(number, middle, [(15, 0), (30, 8)])
    editor.submit()

    (annotation,) = next(t for t in project.tasks() if t["id"] == task)["annotations"]
    assert [region["id"] for region in annotation["result"]] == [box["id"] for box in boxes]
    for i, (before, after) in enumerate(zip(boxes, annotation["result"], strict=True)):
        old, new = before["value"], after["value"]
        moved = (new["x"] - old["x"], new["y"] - old["y"])
        # per cent: the mouse's pixel, rounded
        assert moved == pytest.approx((right, down) if i == number else (0, 0), abs=0.5 if i == number else 0.01)
        assert (new["width"], new["height"]) == pytest.approx((old["width"], old["height"]), abs=0.01)

    # What the person made of it is what the next models learn, and the queue is ordered and suggested again.
    (backend,) = project.api.get("/api/ml/", project=project.id)
    project.api.request("POST", f"/api/ml/{backend['id']}/train")
    opened = kdal.wait_open(project, 2, timeout=PATIENCE)
    assert opened.facts["estimates"] == {"model": kdal.storage.project(project.id).serving_round}
    learnt = {item["ref"]["task_id"]: item["target"] for item in kdal.snapshot(project, 2)["labelled"]}
    assert opened.facts["trained_on"] == len(learnt) > BUDGET
    target, dragged = boxes_from_json(learnt[task]), annotation["result"][number]["value"]
    assert len(target) == len(boxes)
    assert target[number].left == pytest.approx(max(dragged["x"], 0) / 100, abs=1e-4)
    assert {prediction["model_version"] for prediction in unlabelled(project).values()} == {"kdal-r2"}
    held = kdal.wait(project.next_task, "a task")  # the page has been given one already, in the order of that time
    order = [task for task in kdal.order(project, 2) if task != held]
    assert drain(project, [project.api], 4, blood.answer) == [held, *order[:3]]


def most_alone(boxes: list[dict[str, Any]]) -> int:
    """Which box's middle lies in no other box and is farthest from all other middles: a hand cannot miss it."""
    values = [box["value"] for box in boxes]
    corners = np.array([(v["x"], v["y"], v["x"] + v["width"], v["y"] + v["height"]) for v in values])
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    within = ((corners[:, :2] < middles[:, None]) & (middles[:, None] < corners[:, 2:])).all(axis=2)
    apart = np.linalg.norm((middles[:, None] - middles) * SIZE[::-1], axis=2) + np.diag([np.inf] * len(boxes))
    free = within.sum(axis=1) == 1
    inner = (middles > 12).all(axis=1) & (middles < 75).all(axis=1)  # so that it can be moved without being cut
    return int(np.where(free & inner, apart.min(axis=1).clip(max=1e6), -1).argmax())
