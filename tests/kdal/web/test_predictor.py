"""What stays in memory of the projects that are served."""

import threading

import pytest

from kdal.web.predictor import PerProject


class Loads:
    """Counts what is loaded, and makes it."""

    def __init__(self):
        self.seen = []

    def __call__(self, uid, number):
        self.seen.append((uid, number))
        return f"{uid} r{number}"


def test_a_round_is_loaded_once_and_again_when_another_was_asked_for():
    loads = Loads()
    kept = PerProject(loads)
    assert [kept.get("3.1", number) for number in (0, 0, 1, 1, 0)] == ["3.1 r0"] * 2 + ["3.1 r1"] * 2 + ["3.1 r0"]
    assert loads.seen == [("3.1", 0), ("3.1", 1), ("3.1", 0)]


def test_the_rounds_of_one_project_push_no_other_project_out():
    loads = Loads()
    kept = PerProject(loads, size=2)
    kept.get("quiet", 0)
    for number in range(20):
        kept.get("busy", number)
    loads.seen.clear()
    assert kept.get("quiet", 0) == "quiet r0"
    assert loads.seen == []


def test_the_project_that_was_asked_longest_ago_leaves_first():
    loads = Loads()
    kept = PerProject(loads, size=2)
    for uid in ("a", "b", "a", "c", "a", "b"):
        kept.get(uid, 0)
    assert loads.seen == [("a", 0), ("b", 0), ("c", 0), ("b", 0)]


def test_what_cannot_be_loaded_is_tried_again():
    def fail(uid, number):
        tries.append(number)
        raise OSError("out of reach")

    tries = []
    kept = PerProject(fail)
    for _ in range(2):
        with pytest.raises(OSError, match="out of reach"):
            kept.get("a", 0)
    assert tries == [0, 0]


def test_a_project_that_loads_slowly_makes_no_other_wait_and_is_loaded_once():
    arrived, go_on = threading.Event(), threading.Event()
    loads = Loads()

    def load(uid, number):
        if uid == "slow":
            arrived.set()
            assert go_on.wait(30)
        return loads(uid, number)

    kept = PerProject(load)
    waiting = [threading.Thread(target=kept.get, args=("slow", 0)) for _ in range(4)]
    for thread in waiting:
        thread.start()
    assert arrived.wait(30)
    assert kept.get("quick", 0) == "quick r0"
    go_on.set()
    for thread in waiting:
        thread.join(30)
    assert sorted(loads.seen) == [("quick", 0), ("slow", 0)]
