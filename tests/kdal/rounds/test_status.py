import io
import json
from datetime import timedelta

import pytest
from rich.console import Console
from sqlalchemy import update
from torch import nn

from kdal.cli.status import table
from kdal.rounds.status import status
from kdal.storage.tables import WorkerBeat, account_of, now
from kdal.teachers import open_ledger
from kdal_core.distillation import TorchTeacher

UID = "3.1795301030"


@pytest.fixture
def storage(resources):
    return resources.storage


def shown(report):
    console = Console(file=io.StringIO(), width=300)
    console.print(table(report))
    return console.file.getvalue()


def test_without_projects_the_status_says_how_to_connect_one(storage):
    report = status(storage)
    assert report == {"workers": [], "projects": [], "events_waiting": 0, "oldest_event": None}
    assert "kdal connect --project N" in shown(report)


def test_a_project_that_no_worker_has_seen_is_said_to_wait_for_one(storage):
    storage.put_project(3, UID, "<View/>", {"budget": 5})
    storage.add_event(3, "SETUP")
    report = status(storage)
    assert report["events_waiting"] == 1
    assert report["oldest_event"].endswith("Z")
    assert "waiting for a worker" in shown(report)
    assert "No worker is running" in shown(report)


def test_a_worker_is_said_to_be_missing_only_while_none_gives_signs_of_life(storage):
    storage.put_project(3, UID, "<View/>", {})
    storage.beat("gpu-1")
    storage.beat("gpu-2")
    report = status(storage)
    assert [(worker["name"], worker["alive"]) for worker in report["workers"]] == [("gpu-2", True), ("gpu-1", True)]
    assert "No worker" not in shown(report)
    long_ago = now() - timedelta(hours=3)
    with storage.session() as session:
        session.execute(update(WorkerBeat).values(beat_at=long_ago))
    text = shown(status(storage))
    assert "No worker is running: rounds wait for one." in text
    assert f"gave a sign of life at {long_ago.isoformat(timespec='milliseconds')}Z" in text
    storage.disconnect_project(3)
    assert "No worker" not in shown(status(storage))


def test_a_running_round_shows_its_step_and_the_labels_of_the_open_one(storage):
    storage.put_project(3, UID, "<View/>", {})
    storage.begin_round(3, 0, "connect")
    storage.update_round(3, 0, state="open", opened_at=now(), version="kdal-r0", budget=50, counted=50)
    storage.merge_round(3, 0, facts={"held_out_score": 0.915, "held_out": 20, "metric": "accuracy"})
    storage.update_project(3, serving_round=0, version="kdal-r0")
    storage.begin_round(3, 1, "budget")
    storage.update_round(3, 1, step="train S and T", progress=0.25)
    report = status(storage)
    (project,) = report["projects"]
    assert (project["version"], project["counted"], project["budget"], project["serving"]) == (
        "kdal-r0",
        50,
        50,
        "kdal-r0",
    )
    assert [row["state"] for row in project["rounds"]] == ["closed", "computing"]
    text = shown(report)
    for part in ("50 of 50", "train S and T, 25%", "computing", "kdal-r0"):
        assert part in text


def test_a_model_that_was_refused_is_told_of_in_words(storage):
    storage.put_project(3, UID, "<View/>", {})
    storage.begin_round(3, 0, "connect")
    verdict = "kdal-r0 goes on serving, the new model is worse: 10% against 90%."
    assert "new model" not in shown(status(storage))
    storage.merge_round(3, 0, facts={"promoted": False, "p_value": 0.01, "verdict": verdict})
    assert "new model" in shown(status(storage))
    assert "kdal-r0 goes on serving" in shown(status(storage))


def test_controls_that_kdal_leaves_alone_are_named(storage):
    config = (
        '<View><Image name="i" value="$image"/><RectangleLabels name="box" toName="i"><Label value="cell"/>'
        '</RectangleLabels><Rating name="stars" toName="i"/></View>'
    )
    storage.put_project(3, UID, config, {})
    report = status(storage)
    assert report["projects"][0]["notes"] == [
        'kdal serves <RectangleLabels name="box"> and leaves <Rating name="stars"> alone'
    ]
    assert 'leaves <Rating name="stars"> alone' in shown(report)


@pytest.mark.parametrize(("config", "policy"), [("<View/>", {}), ("", {}), ("<View/>", {"of_a_newer_kdal": 1})])
def test_a_project_that_cannot_be_served_has_no_notes(storage, config, policy):
    storage.put_project(3, UID, config, policy)
    assert status(storage)["projects"][0]["notes"] == []


def test_the_status_is_plain_json(storage):
    storage.put_project(3, UID, "<View/>", {"budget": 5})
    storage.begin_round(3, 0, "connect")
    storage.note_unusable(3, 0, {1: "damaged"})
    report = status(storage)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_what_a_black_box_teacher_has_cost_is_shown_while_it_is_asked_and_after(storage):
    storage.put_project(3, UID, "<View/>", {"black_box": "pets"})
    storage.begin_round(3, 0, "connect")
    assert status(storage)["projects"][0]["teacher"] is None
    ledger = open_ledger(storage, account_of(UID, "pets"), TorchTeacher(nn.Flatten(), ("cat", "dog")), "test")
    storage.merge_round(3, 0, facts={"query_budget": 5000, "money": 8.0, "currency": "EUR"})
    assert ledger.reserve(1200, 2_400_000_000, 5000, None)
    report = status(storage)
    assert report["projects"][0]["teacher"] == {
        "name": "pets", "queries": 1200, "budget": 5000, "cost": 2.4, "money": 8.0, "currency": "EUR",
    }  # fmt: skip
    assert "pets, 1,200 of 5,000 queries, 2.40 of 8.00 EUR" in shown(report)


@pytest.mark.parametrize("text", ["[/data/upload] is [bold]gone[/bold]", "[/]", "[red", "a [b] c [/b]"])
def test_brackets_in_a_message_are_shown_as_they_are(storage, text):
    """They come from addresses and from other programs' messages, and are no markup."""
    storage.put_project(3, UID, "<View/>", {})
    storage.begin_round(3, 0, "connect")
    storage.update_project(3, problem=text)
    storage.note_unusable(3, 0, {1: f"task 1: {text}"})
    found = shown(status(storage))
    assert found.count(text) == 2


def test_of_many_tasks_set_aside_the_first_are_shown_and_the_rest_counted(storage):
    storage.put_project(3, UID, "<View/>", {})
    storage.begin_round(3, 0, "connect")
    storage.note_unusable(3, 0, {i: f"task {i}: damaged" for i in range(1, 26)})
    text = shown(status(storage))
    assert "task 10: damaged" in text
    assert "task 11: damaged" not in text
    assert "and 15 more" in text
