"""A worker that is lost is noticed by the others, whatever their clocks say, and its rounds are taken over."""

from __future__ import annotations

import sqlite3

import pytest

from kdal.rounds.engine import workflow_id
from kdal.rounds.liveness import Liveness
from tests.kdal.rounds.states import engine_state


class Watcher:
    """A worker with a clock of its own."""

    def __init__(self, storage, name, clock=0.0):
        self.clock = clock
        self.liveness = Liveness(storage, name, 60, lambda: self.clock)

    def goes_on(self, seconds):
        self.clock += seconds
        self.liveness.beat()


@pytest.fixture
def pair(resources):
    return Watcher(resources.storage, "first"), Watcher(resources.storage, "second", clock=5_000_000.0)


def test_a_worker_that_gives_signs_of_life_is_not_lost_however_its_clock_goes(pair):
    first, second = pair
    for _ in range(100):
        first.goes_on(11)
        second.goes_on(10)
        assert first.liveness.lost({"first", "second"}) == second.liveness.lost({"first", "second"}) == set()


def test_a_worker_that_gives_none_for_too_long_is_lost_until_it_comes_back(pair):
    first, second = pair
    first.goes_on(10)
    second.goes_on(10)
    for _ in range(6):
        second.goes_on(10)
        assert second.liveness.lost({"first"}) == set()
    second.goes_on(10)
    assert second.liveness.lost({"first"}) == {"first"}
    first.goes_on(10)
    second.goes_on(10)
    assert second.liveness.lost({"first"}) == set()


def test_no_worker_holds_itself_for_lost_and_one_that_it_has_never_heard_of_gets_its_time(pair):
    first, _ = pair
    first.goes_on(10_000)
    assert first.liveness.lost({"first", "of an older kdal"}) == set()
    first.clock += 61
    assert first.liveness.lost({"first", "of an older kdal"}) == {"of an older kdal"}


def leave_with(loop, worker):
    """Leave round 0 in the workflow engine's tables as a worker that has begun it, and is gone, leaves it."""
    with sqlite3.connect(loop.resources.settings.home_folder / "kdal-workflows.sqlite") as database:
        begun = "UPDATE workflow_status SET status = 'PENDING', executor_id = ? WHERE workflow_uuid = ?"
        assert database.execute(begun, (worker, workflow_id(loop.row.uid, 0))).rowcount == 1
    database.close()


def test_a_round_of_a_lost_worker_is_begun_again_by_another_though_events_keep_coming(loop):
    loop.look()
    leave_with(loop, "worker-of-a-lost-machine")
    for _ in range(3):
        loop.event("ANNOTATION_CREATED")
        loop.look(20)
        assert (loop.rounds[0].state, loop.rounds[0].restarts) == ("computing", 0)
    for _ in range(5):
        loop.event("ANNOTATION_CREATED")
        loop.look(20)
    assert [(row.number, row.state, row.restarts) for row in loop.rounds] == [(0, "computing", 1)]
    assert (engine_state(loop, 0), engine_state(loop, 0, 1)) == ("CANCELLED", "ENQUEUED")


def test_a_round_of_a_living_worker_is_left_to_it(loop):
    loop.look()
    leave_with(loop, "worker-2")
    for _ in range(10):
        loop.resources.storage.beat("worker-2")
        loop.look(20)
    assert [(row.number, row.state, row.restarts) for row in loop.rounds] == [(0, "computing", 0)]
