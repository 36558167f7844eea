"""The labelling loop on roads: lanes are drawn, learnt, suggested as editable lines, corrected, learnt again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page

from kdal.demo.examples.lanes import Lanes
from kdal.demo.examples.road_scenes import SIZE, render
from kdal.labelstudio.formats import format_for
from kdal_core.tasks.lane import lanes_from_json, x_at
from tests.integration import harness
from tests.integration.harness import Api, Project
from tests.integration.loop.editor import Editor
from tests.integration.loop.running import RunningKdal, drain, unlabelled

ROADS = Lanes()
SCENES, BUDGET = 56, 24
POLICY = {
    "budget": BUDGET,
    "image_size": 200,
    "student": "tiny_rows",
    "teacher": "mid_rows",
    "batch_size": 12,
    "epochs": 60,
    "lr": 4e-3,
}
"""Under which a round takes half a minute, and its lanes are about right."""


@dataclass(frozen=True)
class Roads:
    """A project whose first batch is labelled and learnt."""

    project: Project
    answer: Callable[[int], list[dict[str, Any]]]
    """What somebody draws in a task."""
    cold: list[int]
    """The order before there were labels."""
    labelled: list[int]


@pytest.fixture(scope="module")
def roads(kdal: RunningKdal, ls_api: Api) -> Iterator[Roads]:
    files = []
    for seed in range(SCENES):
        file = io.BytesIO()
        Image.fromarray(render(seed).image).save(file, "PNG")
        files.append(file.getvalue())
    project = harness.create_project(ls_api, ROADS.label_config, files, title=ROADS.title)
    seeds = dict(zip(project.task_ids, range(SCENES), strict=True))
    kdal.connect(project, **POLICY)
    kdal.wait_open(project, 0)
    cold = kdal.order(project, 0)

    def answer(task: int) -> list[dict[str, Any]]:
        return ROADS.answer(seeds[task])

    labelled = drain(project, [ls_api], BUDGET, answer)
    kdal.wait_open(project, 1, timeout=500)
    yield Roads(project, answer, cold, labelled)
    ls_api.delete(project.path)


def test_a_full_batch_of_roads_trains_and_serves_the_rest_in_a_new_order(kdal: RunningKdal, roads: Roads) -> None:
    assert roads.labelled == roads.cold[:BUDGET]
    first = kdal.rounds(roads.project)[1]
    assert (first.facts["trained_on"], first.facts["student"], first.facts["metric"]) == (
        BUDGET,
        "tiny_rows",
        "lane F1",
    )
    assert kdal.snapshot(roads.project, 1)["image_size"] == [72, 200]
    order = kdal.order(roads.project, 1)
    assert sorted(order) == sorted(roads.cold[BUDGET:])
    assert order != roads.cold[BUDGET:]
    assert drain(roads.project, [roads.project.api], 3, roads.answer) == order[:3]


def test_roads_are_pre_annotated_with_lines_that_can_be_edited_each_with_a_score(
    kdal: RunningKdal, roads: Roads
) -> None:
    order = kdal.order(roads.project, 1)
    predictions = unlabelled(roads.project)
    assert sorted(predictions) == sorted(order[3:])
    form = format_for(ROADS.label_config)
    lines = 0
    for task, prediction in predictions.items():
        assert prediction["score"] == (order.index(task) + 1) / (len(order) + 1)
        assert prediction["model_version"] == "kdal-r1"
        for region in prediction["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == ("vectorlabels", "lane", "image")
            assert 0.5 <= region["score"] <= 1
            assert (region["original_width"], region["original_height"]) == SIZE[::-1]
            assert region["value"]["vectorlabels"] == ["lane"]
            assert region["value"]["closed"] is False
            vertices = region["value"]["vertices"]
            assert 2 <= len(vertices) <= 36
            assert [v["prevPointId"] for v in vertices] == [None, *[v["id"] for v in vertices[:-1]]]
            assert all(0 <= v["x"] <= 100 and 0 <= v["y"] <= 100 for v in vertices)
        # Confirmed as it is, it would be a label.
        lanes = form.target({"id": task, "annotations": [{"id": 1, "result": prediction["result"]}]})
        assert len(lanes) == len(prediction["result"])
        lines += len(lanes)
    assert lines > len(predictions)  # not a claim about learning: there is something to see and to correct


def test_label_studios_button_gets_the_same_lines_as_the_queue(kdal: RunningKdal, roads: Roads) -> None:
    task = kdal.order(roads.project, 1)[5]
    data = next(t for t in roads.project.tasks() if t["id"] == task)["data"]
    body = {"project": kdal.uid(roads.project), "tasks": [{"id": task, "data": data}], "label_config": "", "params": {}}
    answer = requests.post(f"{kdal.url}/predict", json=body, auth=kdal.user, timeout=60)
    assert answer.ok, answer.text
    (result,) = answer.json()["results"]
    stored = unlabelled(roads.project)[task]
    assert (result["score"], result["model_version"]) == (stored["score"], "kdal-r1")
    assert len(result["result"]) == len(stored["result"])
    for asked, pushed in zip(result["result"], stored["result"], strict=True):
        places = [[(v["x"], v["y"]) for v in region["value"]["vertices"]] for region in (asked, pushed)]
        assert np.array(places[0]) == pytest.approx(np.array(places[1]), abs=0.01)


def test_a_person_drags_a_pre_annotated_lane_and_submits_and_that_is_learnt_and_served(
    kdal: RunningKdal, roads: Roads, page: Page, tmp_path: Path
) -> None:
    project = roads.project
    while not (lines := unlabelled(project)[task := kdal.wait(project.next_task, "a task")]["result"]):
        project.annotate(task, roads.answer(task))  # a road in which the model sees no lanes
    editor = Editor(page, 560, tmp_path, "lanes")
    editor.open_next(project, len(lines))

    number, chosen = most_alone(lines)
    vertex = lines[number]["value"]["vertices"][chosen]
    right, down = editor.drag(number, (vertex["x"], vertex["y"]), [(20, 0), (45, 4)])
    editor.submit()

    (annotation,) = next(t for t in project.tasks() if t["id"] == task)["annotations"]
    assert [region["id"] for region in annotation["result"]] == [line["id"] for line in lines]
    before, after = ([region["value"]["vertices"] for region in result] for result in (lines, annotation["result"]))
    assert [len(vertices) for vertices in after] == [len(vertices) for vertices in before]
    moved = {
        (i, j): (b["x"] - a["x"], b["y"] - a["y"])
        for i, pair in enumerate(zip(before, after, strict=True))
        for j, (a, b) in enumerate(zip(*pair, strict=True))
    }
    assert moved.pop((number, chosen)) == pytest.approx((right, down), abs=1)  # per cent: the mouse's pixel, rounded
    assert np.abs(list(moved.values())).max() < 0.01

    # What the person made of it is what the next models learn, and the queue is ordered and suggested again.
    (backend,) = project.api.get("/api/ml/", project=project.id)
    project.api.request("POST", f"/api/ml/{backend['id']}/train")
    opened = kdal.wait_open(project, 2, timeout=500)
    learnt = {item["ref"]["task_id"]: item["target"] for item in kdal.snapshot(project, 2)["labelled"]}
    assert opened.facts["trained_on"] == len(learnt) > BUDGET
    lanes, dragged = lanes_from_json(learnt[task]), after[number][chosen]
    assert len(lanes) == len(lines)
    assert x_at(lanes[number], [dragged["y"] / 100])[0] == pytest.approx(dragged["x"] / 100, abs=0.002)
    assert {prediction["model_version"] for prediction in unlabelled(project).values()} == {"kdal-r2"}
    held = kdal.wait(project.next_task, "a task")  # the page has been given one already, in the order of that time
    order = [task for task in kdal.order(project, 2) if task != held]
    assert drain(project, [project.api], 4, roads.answer) == [held, *order[:3]]


def most_alone(lines: list[dict[str, Any]]) -> tuple[int, int]:
    """Which line's which vertex is farthest from all others: a hand cannot miss it. Not an end, which may hide."""
    places = np.array([(v["x"], v["y"]) for line in lines for v in line["value"]["vertices"]])
    names = [(i, j) for i, line in enumerate(lines) for j in range(len(line["value"]["vertices"]))]
    apart = np.linalg.norm((places[:, None] - places) * SIZE[::-1], axis=2) + np.diag([np.inf] * len(places))
    inner = [0 < j < len(lines[i]["value"]["vertices"]) - 1 for i, j in names]
    return names[int(np.where(inner, apart.min(axis=1), -1).argmax())]
