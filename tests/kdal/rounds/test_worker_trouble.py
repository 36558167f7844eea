"""What the worker makes of what went wrong, was cancelled or taken out; time passes as the tests say."""

from __future__ import annotations

import sqlite3
import threading
import time

import pytest
from dbos import DBOS
from flask import jsonify

from kdal.rounds.engine import workflow_id
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import take_snapshot
from kdal.rounds.store import RoundStore
from kdal.rounds.worker import only_worker
from kdal.storage.tables import SETUP, START_TRAINING
from kdal_core.errors import ConfigError
from tests.kdal.rounds.states import engine_state, open_round

# ------------------------------------------------------------------ trouble


def test_a_label_studio_that_is_away_is_told_and_what_waits_stays_in_the_inbox(loop):
    loop.label_studio.on["GET", ".*"] = lambda: (jsonify(detail="busy"), 503)
    loop.look()
    assert "503" in loop.row.problem
    assert len(loop.resources.storage.waiting_events()) == 1
    loop.label_studio.on.clear()
    loop.look()
    assert loop.row.problem is None
    assert len(loop.rounds) == 1


def test_a_project_that_is_gone_keeps_no_event_waiting(loop):
    del loop.label_studio.projects[3]
    loop.label_studio.on["GET", "/api/ml"] = lambda: (jsonify(detail="Not found."), 404)
    loop.look()
    assert "404" in loop.row.problem
    assert loop.resources.storage.waiting_events() == []


def test_a_project_that_is_gone_is_looked_for_later_and_later_and_at_once_when_it_sends_an_event(loop):
    loop.look()  # connects it
    gone = loop.label_studio.projects.pop(3)
    loop.label_studio.on["GET", "/api/ml"] = lambda: (jsonify(detail="Not found."), 404)
    looks = []
    for _ in range(64):
        before = loop.label_studio.count("GET /api/ml")
        loop.look()
        looks.append(loop.label_studio.count("GET /api/ml") - before)
    assert [minute for minute, count in enumerate(looks) if count] == [0, 1, 3, 7, 15, 31, 63]
    loop.label_studio.projects[3] = gone
    loop.label_studio.on.clear()
    loop.event("ANNOTATION_CREATED")
    loop.look()
    assert loop.row.problem is None
    before = loop.label_studio.count("GET /api/ml")
    loop.look()
    assert loop.label_studio.count("GET /api/ml") == before + 1


def test_the_round_of_a_project_that_is_gone_is_given_up_and_begins_again_should_the_project_be_seen_again(loop):
    loop.resources.storage.begin_round(3, 0, "connect")
    gone = loop.label_studio.projects.pop(3)
    loop.label_studio.on["GET", "/api/ml"] = lambda: (jsonify(detail="Not found."), 404)
    loop.look()
    assert [(row.state, row.restarts) for row in loop.rounds] == [("computing", 0)]  # it may be the token, for a moment
    loop.look(3600)
    loop.look(3600)
    assert [(row.state, row.restarts, row.failures) for row in loop.rounds] == [("failed", 1, 0)]
    assert "404" in loop.rounds[0].error
    assert not loop.resources.storage.is_current(3, 0, 0)
    loop.label_studio.projects[3] = gone
    loop.label_studio.on.clear()
    loop.event("ANNOTATION_CREATED")
    loop.look()
    assert [(row.state, row.restarts) for row in loop.rounds] == [("computing", 2)]
    assert engine_state(loop, 0, restarts=2) == "ENQUEUED"


def test_events_of_projects_that_kdal_does_not_serve_are_dropped(loop):
    loop.resources.storage.add_event(99, "ANNOTATION_CREATED")
    loop.look()
    assert loop.resources.storage.waiting_events() == []


def test_a_fault_of_ours_stops_no_other_project_and_is_said_to_be_in_the_log(loop):
    open_round(loop)
    loop.resources.assets.write(RoundStore(loop.resources.assets, loop.row.uid, 0).key("order.json"), b"[1]")
    loop.label(1)
    loop.look()
    assert loop.row.problem


def test_a_database_that_is_away_ends_no_worker(loop):
    path = loop.resources.settings.home_folder / "kdal.sqlite"
    stop = threading.Event()
    runner = threading.Thread(target=loop.worker.run, args=(stop,))
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE inbox RENAME TO away")
    database.close()
    runner.start()
    time.sleep(0.5)
    assert runner.is_alive()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE away RENAME TO inbox")
    database.close()
    deadline = time.monotonic() + 60
    while not loop.rounds and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    runner.join(30)
    assert not runner.is_alive()
    assert len(loop.rounds) == 1


def test_a_database_that_fails_while_a_project_is_looked_at_ends_no_worker(loop):
    path = loop.resources.settings.home_folder / "kdal.sqlite"

    def lose_rounds():
        with sqlite3.connect(path) as database:
            database.execute("ALTER TABLE projects RENAME TO away")
        database.close()

    loop.label_studio.on["GET", "/api/ml"] = lose_rounds
    loop.look()
    loop.label_studio.on.clear()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE away RENAME TO projects")
    database.close()
    loop.look()
    assert len(loop.rounds) == 1


def test_a_second_worker_of_the_same_name_is_refused_and_let_in_once_the_first_is_gone(resources):
    with (
        only_worker(resources.settings),
        pytest.raises(ConfigError, match="KDAL_WORKER_ID"),
        only_worker(resources.settings),
    ):
        pass
    with only_worker(resources.settings):
        pass


# ------------------------------------------------------------------ rounds that failed, hang or are cancelled


def fail(loop, failure, number=0):
    """Leave a round as the engine leaves it that failed."""
    loop.resources.storage.update_round(3, number, state="failed", error="why")
    loop.resources.storage.merge_round(3, number, facts={"failure": failure})
    loop.engine.cancel(loop.row, loop.rounds[number])  # its workflow has come to an end


def test_a_failed_round_is_tried_again_later_and_later_and_by_the_button_at_once(loop):
    loop.look()
    fail(loop, "error")
    loop.look()
    first = loop.rounds[0].retry_at
    loop.look(30)
    assert loop.rounds[0].state == "failed"
    loop.look(40)
    assert (loop.rounds[0].state, loop.rounds[0].restarts, loop.rounds[0].failures) == ("computing", 1, 1)
    fail(loop, "error")
    loop.look()
    assert (loop.rounds[0].retry_at - first).total_seconds() > 120
    loop.event(START_TRAINING)
    loop.look(3)
    assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("computing", 2)
    assert engine_state(loop, 0, 2) == "ENQUEUED"


def test_a_set_up_that_says_nothing_new_tries_no_failed_round_again_and_another_policy_does(loop):
    loop.look()
    take_snapshot(loop.resources, loop.row, RoundStore(loop.resources.assets, loop.row.uid, 0), StepReport())
    loop.resources.storage.merge_round(3, 0, seconds={"snapshot": 0.5})
    fail(loop, "error")
    loop.event(SETUP)
    loop.look()
    assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("failed", 0)
    loop.set_up(epochs=2)
    loop.look()
    assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("computing", 1)


def test_what_label_studio_refuses_begins_again_at_once_from_a_fresh_snapshot_and_only_once(loop):
    loop.look()
    fail(loop, "refused")
    loop.look()
    assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("computing", 1)
    assert engine_state(loop, 0) == "CANCELLED"
    fail(loop, "refused")
    loop.look(10)
    assert (loop.rounds[0].state, loop.rounds[0].restarts, loop.rounds[0].error) == ("failed", 1, "why")


def test_a_failure_that_may_pass_is_resumed_at_its_step(loop):
    loop.look()
    fail(loop, "transient")
    loop.event(START_TRAINING)
    loop.look()
    assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("computing", 0)
    assert engine_state(loop, 0) == "ENQUEUED"


def test_a_failed_round_that_the_engine_has_lost_begins_again(loop):
    loop.look()
    fail(loop, "transient")
    DBOS.delete_workflow(workflow_id(loop.row.uid, 0))
    loop.event(START_TRAINING)
    loop.look()
    assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("computing", 1)
    assert engine_state(loop, 0, 1) == "ENQUEUED"


def test_a_failed_round_that_has_not_quite_ended_is_left_alone(loop):
    loop.look()
    loop.resources.storage.update_round(3, 0, state="failed")
    loop.event(START_TRAINING)
    loop.look()
    assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("failed", 0)


def test_a_round_whose_workflow_ended_without_a_word_has_failed(loop):
    loop.look()
    loop.engine.cancel(loop.row, loop.rounds[0])
    loop.look()
    assert (loop.rounds[0].state, loop.rounds[0].error) == ("failed", "its computation ended without a result")


def test_a_round_that_was_begun_and_never_handed_over_is_handed_over(loop):
    loop.look()
    DBOS.delete_workflow(workflow_id(loop.row.uid, 0))
    assert engine_state(loop, 0) is None
    loop.look()
    assert engine_state(loop, 0) == "ENQUEUED"


def test_a_cancelled_round_leaves_the_queue_and_the_next_begins_after_a_further_batch(loop):
    open_round(loop)
    loop.label(3)
    loop.look()
    assert loop.resources.storage.cancel_round(3) == 1
    loop.event("ROUND_CANCELLED")
    loop.look()
    assert engine_state(loop, 1) == "CANCELLED"
    assert (loop.rounds[1].state, loop.rounds[1].counted) == ("cancelled", 0)
    loop.label(2)
    loop.look()
    assert (loop.rounds[1].counted, len(loop.rounds)) == (2, 2)
    loop.label(1)
    loop.look()
    assert [(r.state, r.trigger) for r in loop.rounds][1:] == [("cancelled", "budget"), ("computing", "budget")]


def test_a_first_round_that_was_cancelled_waits_for_the_button(loop):
    loop.look()
    loop.resources.storage.cancel_round(3)
    loop.event("ROUND_CANCELLED")
    loop.look()
    loop.look()
    assert [r.state for r in loop.rounds] == ["cancelled"]
    loop.event(START_TRAINING)
    loop.look()
    assert [r.state for r in loop.rounds] == ["cancelled", "computing"]
    assert loop.resources.storage.cancel_round(3) == 1
    assert loop.resources.storage.cancel_round(3) is None


def test_a_policy_that_trains_otherwise_begins_the_round_again_and_another_budget_does_not(loop):
    loop.look()
    take_snapshot(loop.resources, loop.row, RoundStore(loop.resources.assets, loop.row.uid, 0), StepReport())
    loop.resources.storage.merge_round(3, 0, seconds={"snapshot": 0.5})
    loop.set_up(budget=5)
    loop.look()
    assert loop.rounds[0].restarts == 0
    loop.set_up(budget=5, epochs=2)
    loop.look()
    assert loop.rounds[0].restarts == 1
    assert (engine_state(loop, 0), engine_state(loop, 0, 1)) == ("CANCELLED", "ENQUEUED")
    loop.set_up(budget=6, epochs=2)  # the new start has not read the project yet: what is there is the old one's
    loop.look()
    assert loop.rounds[0].restarts == 1


def test_a_policy_that_changes_before_the_project_was_read_needs_no_new_start(loop):
    loop.look()
    loop.set_up(epochs=2)
    loop.look()
    assert loop.rounds[0].restarts == 0


# ------------------------------------------------------------------ claims, disconnecting


def test_a_project_made_again_under_its_old_number_begins_from_nothing(loop):
    open_round(loop)
    loop.project.created_at = "2027-01-01T00:00:00Z"
    loop.set_up()
    loop.look()
    assert loop.row.uid == loop.project.uid
    assert [(r.number, r.state) for r in loop.rounds] == [(0, "computing")]


def test_deleting_the_backend_in_label_studio_takes_kdal_out_for_good(loop):
    loop.look()
    open_round(loop)
    loop.look()
    loop.project.backends.clear()
    loop.look()
    assert (loop.project.webhooks, loop.project.sampling, loop.project.model_version) == ({}, "Sequential sampling", "")
    assert loop.row.disconnected_at is not None
    for _ in range(3):
        loop.event("ANNOTATION_CREATED")
        loop.look()
    assert (loop.project.webhooks, loop.project.backends) == ({}, {})
    assert loop.project.versions() == {"kdal-r0": 12}
    assert loop.resources.storage.waiting_events() == []


def test_a_reconnected_project_goes_on_from_where_it_was(loop):
    loop.look()
    open_round(loop)
    loop.look()
    loop.project.backends.clear()
    loop.look()
    loop.label_studio.add_backend(loop.project, "http://127.0.0.1:9090")
    loop.set_up()
    loop.look()
    assert (loop.project.model_version, loop.project.sampling) == ("kdal-r0", "Uncertainty sampling")
    assert [(r.number, r.state) for r in loop.rounds] == [(0, "open")]


def test_a_project_reconnected_after_its_round_was_cancelled_begins_the_next(loop):
    loop.look()
    loop.look()
    loop.project.backends.clear()
    loop.look()
    assert [r.state for r in loop.rounds] == ["cancelled"]
    loop.label_studio.add_backend(loop.project, "http://127.0.0.1:9090")
    loop.set_up()
    loop.look()
    assert [(r.state, r.trigger) for r in loop.rounds] == [("closed", "connect"), ("computing", "connect")]
