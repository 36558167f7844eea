"""When the worker begins rounds, and what its looks cost; time passes as the tests say."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timedelta

from flask import request

from kdal.storage.tables import START_TRAINING
from tests.kdal.rounds.conftest import choice
from tests.kdal.rounds.states import engine_state, open_round

# ------------------------------------------------------------------ when rounds begin


def test_a_set_up_connects_the_project_and_begins_its_first_round(loop):
    loop.look()
    assert [(r.number, r.state, r.trigger) for r in loop.rounds] == [(0, "computing", "connect")]
    assert engine_state(loop, 0) == "ENQUEUED"
    assert loop.row.before == {"sampling": "Sequential sampling", "model_version": ""}
    assert loop.resources.storage.waiting_events() == []


def test_a_full_batch_begins_the_next_round_and_an_unfilled_one_does_not(loop):
    open_round(loop)
    loop.label(2)
    loop.look()
    assert (loop.rounds[0].counted, len(loop.rounds)) == (2, 1)
    loop.label(1)
    loop.look()
    assert [(r.state, r.trigger) for r in loop.rounds] == [("closed", "connect"), ("computing", "budget")]


def test_labels_whose_events_were_lost_are_found_by_the_timer(loop):
    open_round(loop)
    loop.look()
    for task in loop.project.queue()[:3]:
        loop.label_studio.annotate(loop.project, task, choice(1))
    loop.look(5)
    assert len(loop.rounds) == 1
    loop.look(60)
    assert len(loop.rounds) == 2


def test_labels_that_come_while_the_worker_counts_are_found_by_the_next_look(loop):
    """Each time that it has read what changed, and asks how many there are now, somebody submits another.

    That is no reason to walk all labels, which takes seconds of a large project's Label Studio.
    """
    open_round(loop)
    first, *others = loop.project.queue()[:3]
    walks = []

    def submit() -> None:
        if request.args["page_size"] != "1" and request.args["fields"] == "task_only":
            walks.append(1)
        if request.args["page_size"] == "1" and loop.project.tasks[first]["annotations"] and others:
            loop.label_studio.annotate(loop.project, others.pop(), choice(1))

    loop.label_studio.annotate(loop.project, first, choice(1))
    loop.event("ANNOTATION_CREATED")
    loop.label_studio.on["GET", "/api/tasks"] = submit
    loop.look()
    assert not others
    loop.look()
    assert len(loop.rounds) == 2
    assert not walks


def test_labels_are_read_once_and_one_that_was_committed_late_is_found_without_walking_all(loop):
    open_round(loop)
    first, second, late = loop.project.queue()[:3]
    loop.label_studio.annotate(loop.project, first, choice(1))
    loop.label_studio.clock += timedelta(minutes=1)
    loop.label_studio.annotate(loop.project, second, choice(1))
    loop.look()
    read, walks = [], []

    def note() -> None:
        filters = {item["filter"]: item["value"] for item in json.loads(request.args["query"])["filters"]["items"]}
        if request.args["fields"] == "all":
            read.append(datetime.fromisoformat(filters["filter:tasks:updated_at"]))
        elif request.args["page_size"] != "1":
            walks.append(1)

    loop.label_studio.on["GET", "/api/tasks"] = note
    loop.look()
    assert read == []
    loop.label_studio.annotate(loop.project, late, choice(1))
    loop.project.tasks[late]["updated_at"] = loop.project.tasks[first]["updated_at"]
    loop.look()
    assert loop.rounds[0].counted == 2
    newest = datetime.fromisoformat(loop.project.tasks[second]["updated_at"])
    assert all(newest - since < timedelta(minutes=1) for since in read)  # what the first label is older than
    loop.look()
    assert (loop.rounds[0].counted, len(loop.rounds), walks) == (3, 2, [])


def test_labels_that_cannot_be_used_count_for_no_batch_and_are_named_at_once(loop):
    open_round(loop)
    empty, unknown, *_ = loop.project.queue()
    loop.label_studio.annotate(loop.project, empty, [])
    loop.label_studio.annotate(loop.project, unknown, choice("eleven"))
    loop.event("ANNOTATION_CREATED", "ANNOTATION_CREATED")
    loop.label(1)
    loop.look()
    assert (loop.rounds[0].counted, len(loop.rounds)) == (1, 1)
    assert {row.task_id for row in loop.resources.storage.unusable_tasks(3)} == {empty, unknown}
    loop.label_studio.edit(loop.project, empty, choice(4))
    loop.event("ANNOTATION_UPDATED")
    loop.look()
    assert {row.task_id for row in loop.resources.storage.unusable_tasks(3)} == {unknown}
    assert (loop.rounds[0].counted, len(loop.rounds)) == (2, 1)


def test_an_empty_submission_is_a_label_where_it_says_that_nothing_is_there(make_loop):
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
        '<Label value="cell"/></RectangleLabels></View>'
    )
    loop = make_loop(config=config, student="tiny_boxes", teacher="mid_boxes")
    open_round(loop)
    loop.label(3, result=[])
    loop.look()
    assert loop.rounds[0].counted == 3
    assert len(loop.rounds) == 2


def test_a_deleted_label_no_longer_counts_and_one_from_before_the_snapshot_never_did(loop):
    (before,) = loop.label(1)
    open_round(loop)
    first, *_ = loop.label(2)
    loop.look()
    assert loop.rounds[0].counted == 2
    loop.project.tasks[first]["annotations"].clear()
    loop.project.tasks[before]["annotations"].clear()
    loop.event("ANNOTATIONS_DELETED")
    loop.look()
    assert loop.rounds[0].counted == 1
    loop.label_studio.annotate(loop.project, first, choice(1))
    loop.label(1)
    loop.look()
    assert loop.rounds[0].counted == 3


def test_only_the_batch_counts_where_the_owner_says_so_and_a_skipped_task_is_replaced(make_loop):
    loop = make_loop(count_outside=False)
    open_round(loop)
    queue = loop.project.queue()
    loop.label_studio.annotate(loop.project, queue[0], [], was_cancelled=True)
    for task in (queue[1], queue[2], queue[-1]):
        loop.label_studio.annotate(loop.project, task, choice(1))
    loop.event(*["ANNOTATION_CREATED"] * 4)
    loop.look()
    assert (loop.rounds[0].counted, len(loop.rounds)) == (2, 1)
    loop.label_studio.annotate(loop.project, queue[3], choice(1))
    loop.event("ANNOTATION_CREATED")
    loop.look()
    assert len(loop.rounds) == 2


def rectangles(count):
    """An annotation's result: so many boxes."""
    value = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["cell"]}
    size = {"original_width": 8, "original_height": 8}
    return [
        {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": {**value, "x": 3 * i}, **size}
        for i in range(count)
    ]


def test_boxes_are_counted_where_the_budget_is_in_objects(make_loop):
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="box" toName="image">'
        '<Label value="cell"/></RectangleLabels></View>'
    )
    loop = make_loop(config=config, budget=8, budget_unit="objects", student=None, teacher=None)
    open_round(loop)
    for boxes, counted in ((4, 4), (0, 5), (2, 7)):  # nothing to draw is a look, too
        loop.label(1, rectangles(boxes))
        loop.look()
        assert (loop.rounds[0].counted, loop.rounds[0].budget, len(loop.rounds)) == (counted, 8, 1)
    loop.label(1, rectangles(3))
    loop.look()
    assert [(r.state, r.trigger) for r in loop.rounds] == [("closed", "connect"), ("computing", "budget")]


def test_the_last_batch_ends_when_nothing_is_left_to_label(make_loop):
    loop = make_loop(images=4)
    open_round(loop)
    queue = loop.project.queue()
    loop.label(2)
    for task in queue[2:]:
        loop.label_studio.annotate(loop.project, task, [], was_cancelled=True)
    loop.event("ANNOTATION_CREATED")
    loop.look()
    assert len(loop.rounds) == 2


def test_new_tasks_begin_a_round_where_nothing_had_been_left(make_loop):
    loop = make_loop(images=2)
    loop.label(2)
    open_round(loop)
    loop.look()
    assert len(loop.rounds) == 1
    loop.label_studio._add_task(loop.project, "data:image/png;base64,AAAA")
    loop.event("TASKS_CREATED")
    loop.look()
    assert loop.rounds[-1].trigger == "tasks"


def test_the_button_begins_a_round_at_once_full_batch_or_not(loop):
    open_round(loop)
    loop.look()
    loop.event(START_TRAINING)
    loop.look(3)  # no longer than the longest rest
    assert loop.rounds[-1].trigger == "button"


# ------------------------------------------------------------------ what looking costs


def test_an_idle_look_asks_for_the_number_of_labels_and_walks_none(loop):
    open_round(loop)
    loop.label(2)
    loop.look()
    loop.look()
    before = len(loop.label_studio.asked)
    loop.look()
    asked = loop.label_studio.asked[before:]
    assert asked.count("GET /api/tasks") == 1


def test_of_two_idle_looks_one_sees_whether_kdal_is_still_connected(loop):
    open_round(loop)
    loop.look()
    before = len(loop.label_studio.asked)
    for _ in range(6):
        loop.look(loop.resources.settings.reconcile_seconds)
    asked = loop.label_studio.asked[before:]
    assert (asked.count("GET /api/tasks"), asked.count("GET /api/ml")) == (6, 3)


def test_a_label_is_read_once_and_all_of_them_only_when_the_numbers_disagree(loop):
    open_round(loop)
    sizes = []
    loop.label_studio.on["GET", "/api/tasks"] = lambda: sizes.append(1)
    for _ in range(3):
        loop.label(1)
        loop.look()
    assert len(sizes) <= 5 * 3  # a number, the changes, the number again, what is open


def test_a_team_that_submits_at_every_moment_has_no_label_read_twice(loop):
    """Labels are missing at each look, since somebody submits while it counts: no reason to read those of minutes."""
    open_round(loop)
    loop.resources.storage.update_project(3, policy={**loop.row.policy, "budget": 20})
    read = []
    first, *others = loop.project.queue()[:10]

    def submit() -> None:
        if request.args["page_size"] == "1" and others and loop.project.tasks[first]["annotations"]:
            loop.label_studio.annotate(loop.project, others.pop(), choice(1))
        elif request.args["fields"] == "all":
            read.append(json.loads(request.args["query"])["filters"]["items"])

    loop.label_studio.on["GET", "/api/tasks"] = submit
    loop.label_studio.annotate(loop.project, first, choice(1))
    for _ in range(4):
        loop.event("ANNOTATION_CREATED")
        loop.look(60)
    since = [item["value"] for items in read for item in items if item["filter"] == "filter:tasks:updated_at"]
    moments = [datetime.fromisoformat(value) for value in since]
    assert len(moments) >= 3
    assert loop.label_studio.clock - min(moments) < timedelta(minutes=1)


def test_a_long_look_is_seldom_repeated_until_the_events_may_fill_the_batch(make_loop):
    loop = make_loop(images=40, budget=10)
    open_round(loop)
    loop.look()
    loop.label_studio.on["GET", "/api/tasks"] = lambda: loop.time.pass_(0.2)  # a large project's Label Studio
    loop.label(1)
    loop.look(5)
    asked = loop.label_studio.count("GET /api/tasks")
    for _ in range(5):
        loop.label(1)
        loop.look(1)
    assert loop.label_studio.count("GET /api/tasks") == asked
    loop.label(4)
    loop.look(1)
    assert len(loop.rounds) == 2


def test_who_skipped_what_is_not_asked_while_the_labels_are_too_few(make_loop):
    loop = make_loop(images=12, budget=5, count_outside=False)
    open_round(loop)
    loop.look()
    asked = []
    loop.label_studio.on["GET", "/api/tasks"] = lambda: asked.append("cancelled_annotations" in request.args["query"])
    loop.label(2)
    loop.look(5)
    assert not any(asked)
    loop.look(60)  # the timer: what a person sees is right after a while
    loop.label(1)
    loop.look(60)
    assert loop.rounds[0].counted == 3


def test_a_project_rests_no_longer_than_two_seconds_after_a_long_look(loop):
    open_round(loop)
    loop.label_studio.on["GET", "/api/tasks"] = lambda: loop.time.pass_(20)  # a very slow Label Studio
    loop.look()
    loop.label_studio.on.clear()
    loop.event(START_TRAINING)
    loop.look(1.9)
    assert len(loop.rounds) == 1
    loop.look(0.2)
    assert len(loop.rounds) == 2


def test_one_projects_long_look_delays_no_other(loop):
    open_round(loop)
    other = loop.label_studio.project(4, loop.project.label_config, ["data:,"])
    loop.label_studio.add_backend(other, "http://127.0.0.1:9090")
    loop.resources.storage.put_project(4, other.uid, other.label_config, {})
    loop.resources.storage.add_event(4, "SETUP")
    released = threading.Event()

    def delay() -> None:
        if request.args["ids"] == "3":
            released.wait(30)

    loop.label_studio.on["GET", "/api/projects/"] = delay
    loop.time.pass_(60)
    loop.worker.look()
    deadline = time.monotonic() + 30
    while loop.resources.storage.last_round(4) is None and time.monotonic() < deadline:
        time.sleep(0.01)
        loop.time.pass_(1)
        loop.worker.look()
    assert loop.resources.storage.last_round(4) is not None
    assert not released.is_set()
    released.set()
    loop.worker.settle()
