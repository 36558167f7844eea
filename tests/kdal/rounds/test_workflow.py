"""Whole rounds, computed for real on digits, and what happens to them on the way."""

from __future__ import annotations

import re
import threading

import pytest
import yaml
from flask import jsonify

from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.task_order import StaleOrderError
from kdal.rounds.progress import SupersededError, check_current, step
from kdal.rounds.publishing import RefusedOrderError
from kdal.rounds.snapshot import SnapshotHeader
from kdal.rounds.store import DamagedModelError, RoundStore
from kdal.rounds.workflow import kind_of
from kdal.storage.assets import MissingAssetError
from kdal.storage.tables import account_of, now
from kdal_core.errors import AssetError, ConfigError, LabelFormatError
from tests.kdal.teachers.conftest import Endpoint

PUSH = ("POST", "/api/projects/3/import/predictions")
SWITCH = ("PATCH", "/api/projects/3")


def header(loop, number):
    return SnapshotHeader.load(RoundStore(loop.resources.assets, loop.row.uid, number))


def open_first(loop):
    loop.look()
    return loop.wait_open(0)


def test_a_project_goes_from_its_set_up_to_a_trained_round_in_the_order_that_was_computed(make_loop):
    loop = make_loop(computes=True)
    first = open_first(loop)
    assert (first.version, loop.row.version, loop.project.model_version) == ("kdal-r0",) * 3
    assert loop.project.sampling == "Uncertainty sampling"
    assert len(loop.project.queue()) == 12
    labelled = loop.label(3)
    second = loop.wait_open(1)
    assert second.facts["trains"] in (True, False)
    assert loop.project.versions() == {"kdal-r1": 9}
    order = RoundStore(loop.resources.assets, loop.row.uid, 1).order()
    assert loop.project.queue() == order.tasks
    assert sorted(order.tasks + labelled) == sorted(loop.project.tasks)
    assert header(loop, 1).labelled == set(labelled)
    if second.facts["trains"]:
        assert loop.row.serving_round == 1


@pytest.mark.parametrize("above", [0.0, 1.0])
def test_what_the_model_is_not_sure_enough_of_is_pushed_without_a_tick_and_keeps_its_place(make_loop, above):
    loop = make_loop(computes=True, suggest_above=above)
    open_first(loop)
    loop.label(3)
    second = loop.wait_open(1)
    assert (second.facts["trains"], second.facts["confidence"]["round"]) == (True, 1)
    pushed = [p for p in loop.project.predictions if p["model_version"] == "kdal-r1"]
    assert [bool(p["result"]) for p in pushed] == [above == 0] * 9
    order = RoundStore(loop.resources.assets, loop.row.uid, 1).order()
    assert loop.project.queue() == order.tasks
    assert {p["task"]: p["score"] for p in pushed} == order.scores
    for (region,) in (p["result"] for p in pushed if p["result"]):
        assert region["meta"]["text"][0].startswith(f"{region['score']:.0%} sure; else ")


def test_names_that_label_studio_holds_predictions_under_are_not_used_again(make_loop):
    loop = make_loop(computes=True)
    old = [{"task": t, "score": 0.9, "model_version": "kdal-r0", "result": []} for t in loop.project.tasks]
    loop.project.predictions += old
    first = open_first(loop)
    assert first.version == loop.project.model_version == "kdal-r0.2"
    assert loop.project.versions() == {"kdal-r0.2": 12}  # what an earlier life left is removed


def test_a_set_up_between_publish_and_activate_leaves_the_new_order_in_force(make_loop):
    loop = make_loop(computes=True)
    open_first(loop)
    looked = threading.Event()

    def edit_policy():
        """The owner saves the extra params the moment the new order is switched to."""
        if loop.project.model_version == "kdal-r1" and not looked.is_set():
            looked.set()
            loop.set_up(budget=4)
            loop.worker._attend(loop.row, loop.worker._watches[loop.row.uid], loop.resources.storage.waiting_events())

    loop.label_studio.on["GET", "/api/projects/3"] = edit_policy
    loop.label(3)
    loop.wait_open(1)
    assert looked.is_set()
    assert (loop.project.model_version, loop.row.version) == ("kdal-r1", "kdal-r1")
    assert loop.project.versions() == {"kdal-r1": 9}
    assert len(loop.project.queue()) == 9


def test_an_order_that_somebody_switched_back_is_put_right_before_anything_is_removed(make_loop):
    loop = make_loop(computes=True)
    open_first(loop)

    def switch_back():
        if loop.project.model_version == "kdal-r1":
            loop.project.model_version = "kdal-r0"
            loop.label_studio.on.pop(("GET", "/api/projects/3"))

    loop.label_studio.on["GET", "/api/projects/3"] = switch_back
    loop.label(3)
    loop.wait_open(1)
    assert loop.project.model_version == "kdal-r1"
    assert list(loop.project.versions()) == ["kdal-r1"]


def test_a_class_that_was_renamed_while_the_round_computed_leads_to_a_fresh_snapshot_and_no_orphans(make_loop):
    loop = make_loop(computes=True)
    open_first(loop)

    def rename():
        """Once, just before the first push of the trained round."""
        loop.project.label_config = re.sub(r'Choice value="(\d)"', r'Choice value="n\1"', loop.project.label_config)
        loop.label_studio.on.pop(PUSH)

    loop.label(3)
    loop.wait(lambda: loop.rounds[-1].number == 1, "round 1 has not begun")
    loop.label_studio.on[PUSH] = rename
    second = loop.wait_open(1)
    # The labels name classes that are no more: nothing can be trained on, which is said of each of them.
    assert (second.restarts, second.facts["trains"]) == (1, False)
    assert len(loop.resources.storage.unusable_tasks(3)) == 3
    assert loop.project.versions() == {second.version: 9}
    assert loop.project.model_version == second.version


@pytest.mark.parametrize("moment", [PUSH, SWITCH], ids=["before the push", "before the switch"])
def test_a_config_that_changes_in_a_way_that_label_studio_takes_still_begins_the_round_again(make_loop, moment):
    loop = make_loop(computes=True)
    open_first(loop)

    def add_a_class():
        loop.project.label_config = loop.project.label_config.replace("</Choices>", '<Choice value="ten"/></Choices>')
        loop.label_studio.on.pop(moment)

    loop.label(3)
    loop.wait(lambda: loop.rounds[-1].number == 1, "round 1 has not begun")
    loop.label_studio.on[moment] = add_a_class
    second = loop.wait_open(1)
    assert second.restarts == 1
    assert header(loop, 1).label_config == loop.project.label_config
    assert loop.project.versions() == {second.version: 9}


def test_an_order_that_goes_on_being_refused_ends_in_words_and_without_a_pile_of_predictions(make_loop):
    loop = make_loop(computes=True)
    open_first(loop)
    taken = []

    def take_all_but_one():
        from flask import request

        rows = request.get_json()[1:]
        taken.append(len(rows))
        loop.project.predictions += rows
        return jsonify(created=len(rows))

    loop.label_studio.on[PUSH] = take_all_but_one
    loop.label(3)
    loop.wait(lambda: loop.rounds[-1].state == "failed" and loop.rounds[-1].restarts == 1, "round 1 has not failed")
    assert len(taken) == 4  # twice from the first snapshot, twice from a fresh one
    assert "took 8 of 9 pre-annotations" in loop.rounds[1].error
    assert "labelling config" in loop.rounds[1].error
    assert loop.project.versions() == {"kdal-r0": 12}
    assert (loop.project.model_version, len(loop.project.queue())) == ("kdal-r0", 9)
    loop.label_studio.on.clear()
    loop.event("START_TRAINING")
    loop.look(3)
    assert loop.wait_open(1).restarts == 2


def test_tasks_that_were_deleted_meanwhile_are_left_out_of_the_order(make_loop):
    loop = make_loop(computes=True)
    gone = next(iter(loop.project.tasks))

    def delete():
        del loop.project.tasks[gone]
        loop.label_studio.on.pop(PUSH)

    loop.label_studio.on[PUSH] = delete
    first = open_first(loop)
    assert (first.restarts, loop.project.versions()) == (0, {first.version: 11})


def test_a_cancelled_round_stops_and_changes_nothing(make_loop):
    loop = make_loop(computes=True, images=40, epochs=5000)
    open_first(loop)
    loop.label(3)
    loop.wait(lambda: loop.rounds[-1].step.startswith("train") and loop.rounds[-1].progress > 0, "no training")
    assert loop.resources.storage.cancel_round(3) == 1
    loop.event("ROUND_CANCELLED")
    loop.look()
    done = loop.rounds[1].progress
    loop.set_up(epochs=1)
    loop.look()
    loop.event("START_TRAINING")
    loop.look()
    loop.wait_open(2)  # the engine computes one round at a time: the cancelled one is out of its way
    assert (loop.rounds[1].state, loop.rounds[1].version) == ("cancelled", None)
    assert done <= 1
    assert list(loop.project.versions()) == ["kdal-r2"]


def test_a_policy_that_changes_while_a_round_trains_reaches_it(make_loop):
    loop = make_loop(computes=True, images=40, epochs=5000)
    open_first(loop)
    loop.label(3)
    loop.wait(lambda: loop.rounds[-1].step.startswith("train") and loop.rounds[-1].progress > 0, "no training")
    loop.set_up(epochs=1)
    loop.look()
    assert loop.wait_open(1).restarts == 1
    assert header(loop, 1).policy.epochs == 1


def test_a_label_studio_that_is_away_after_the_opening_does_not_fail_the_round(make_loop):
    loop = make_loop(computes=True)
    loop.label_studio.on["GET", "/api/projects/3/model-versions/"] = lambda: (
        (jsonify(detail="gone"), 503) if loop.project.model_version == "kdal-r0" else None
    )
    first = open_first(loop)
    assert (first.state, first.error) == ("open", None)


@pytest.fixture
def black_box(tmp_path):
    """A teacher of animals behind a real HTTP server, and the settings that name it."""
    endpoint = Endpoint(tmp_path)
    pets = {"teacher": endpoint.settings(batch_size=5), "budget": 24, "mixup": {"stages": 1}}
    (tmp_path / "teachers.yaml").write_text(yaml.safe_dump({"pets": pets}))
    yield endpoint, {"teachers": tmp_path / "teachers.yaml", "device": "cpu"}
    endpoint.kill()


ANIMALS = (
    '<View><Image name="image" value="$image"/><Choices name="animal" toName="image">'
    '<Choice value="cat"/><Choice value="dog"/><Choice value="hen"/></Choices></View>'
)


def test_a_black_box_teacher_is_asked_and_its_student_serves_without_a_label(make_loop, black_box):
    _, settings = black_box
    policy = {"teacher": None, "black_box": "pets", "suggest_above": 0.0}
    loop = make_loop(computes=True, config=ANIMALS, settings=settings, **policy)
    first = open_first(loop)
    assert (first.facts["trains"], first.facts["student"], loop.row.serving_round) == (True, "tiny_cnn", 0)
    assert 0 < first.facts["queries"] <= 24
    assert {p["result"][0]["value"]["choices"][0] for p in loop.project.predictions} <= {"cat", "dog", "hen"}


@pytest.mark.parametrize("strategy", ["maxherding", "pcoreset"])
def test_strategies_that_look_at_labels_order_a_pool_that_has_none_yet(make_loop, black_box, strategy):
    _, settings = black_box
    policy = {"teacher": None, "black_box": "pets", "strategy": strategy}
    loop = make_loop(computes=True, config=ANIMALS, settings=settings, **policy)
    assert open_first(loop).facts["trains"]
    assert sorted(loop.project.queue()) == sorted(loop.project.tasks)


def test_a_teacher_that_fails_in_a_way_that_may_have_cost_money_is_left_alone_for_a_day(make_loop, black_box):
    endpoint, settings = black_box
    endpoint.behave(answer="words")
    loop = make_loop(computes=True, config=ANIMALS, settings=settings, teacher=None, black_box="pets")
    loop.look()
    loop.wait(lambda: loop.rounds[0].state == "failed", "the round has not failed")
    spent = loop.resources.storage.teacher_account(account_of(loop.row.uid, "pets")).images
    assert (loop.rounds[0].retry_at - now()).total_seconds() > 23 * 3600
    loop.look()
    assert loop.rounds[0].state == "failed"
    assert loop.resources.storage.teacher_account(account_of(loop.row.uid, "pets")).images == spent


def test_a_step_says_what_a_project_that_kdal_left_needs(make_loop):
    loop = make_loop(computes=True)
    loop.label_studio.on["GET", "/api/tasks"] = lambda: loop.resources.storage.disconnect_project(3)
    loop.look()
    loop.wait(lambda: loop.rounds and loop.rounds[0].state == "cancelled", "the round goes on")
    assert loop.project.versions() == {}


def test_a_report_of_a_round_that_was_begun_again_is_refused(resources):
    storage = resources.storage
    storage.put_project(3, "3.1", "<View/>", {})
    storage.begin_round(3, 0, "connect")
    with step(storage, 3, 0, "snapshot") as report:
        report.facts({"labels": 1})
    storage.restart_round(3, 0)
    with pytest.raises(SupersededError), step(storage, 3, 0, "snapshot"):
        pass
    with step(storage, 3, 0, "snapshot", restarts=1):
        pass


def test_a_round_that_was_cancelled_stays_so_whatever_sets_its_project_up_again(resources):
    # Label Studio asks for a set-up with each look at its backends: one may come a moment after kdal was taken out.
    storage = resources.storage
    storage.put_project(3, "3.1", "<View/>", {})
    storage.begin_round(3, 0, "connect")
    storage.disconnect_project(3)
    storage.put_project(3, "3.1", "<View/>", {})
    assert storage.round(3, 0).state == "closed"
    with pytest.raises(SupersededError):
        check_current(storage, 3, 0, 0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (LabelStudioError("no answer"), "transient"),
        (LabelStudioError("locked", 500), "transient"),
        (LabelStudioError("no such project", 404), "refused"),
        (RefusedOrderError("took 1 of 2", 400), "refused"),
        (ConfigError("no control tag"), "refused"),
        (AssetError("S3 is away"), "transient"),
        (MissingAssetError("no model"), "lost"),
        (DamagedModelError("half a model"), "lost"),
        (StaleOrderError("tasks are gone", 400), "refused"),
        (LabelFormatError("no label"), "error"),
        (RuntimeError("out of memory"), "error"),
    ],
)
def test_what_failed_says_whether_it_may_pass(error, kind):
    assert kind_of(error) == kind
