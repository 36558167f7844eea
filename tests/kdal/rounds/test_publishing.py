"""Names and scores under which an order is pushed, and what is left when Label Studio is away."""

import pytest

from kdal.labelstudio.task_order import VERSION, rank_score, version_name
from kdal.processes.child import free_port
from kdal.rounds.progress import StepReport
from kdal.rounds.store import RoundStore
from kdal.rounds.workflow import Rounds
from kdal.storage.tables import now

UID = "3.1795301030"


@pytest.mark.parametrize(("number", "attempt", "name"), [(0, 1, "kdal-r0"), (7, 1, "kdal-r7"), (7, 3, "kdal-r7.3")])
def test_each_attempt_at_a_round_has_a_name_of_its_own_that_tells_the_round(number, attempt, name):
    assert version_name(number, attempt) == name
    assert int(VERSION.fullmatch(name)[1]) == number


@pytest.mark.parametrize("name", ["kdal", "my-model", "kdal-r", "kdal-r1x", "xkdal-r1", ""])
def test_other_peoples_versions_are_not_taken_for_ours(name):
    assert VERSION.fullmatch(name) is None


def test_scores_are_distinct_ascending_and_between_zero_and_one():
    scores = [rank_score(rank, 1000) for rank in range(1000)]
    assert scores == sorted(set(scores))
    assert scores[0] > 0
    assert scores[-1] < 1


def test_a_label_studio_that_is_away_after_the_opening_does_not_fail_the_round(open_resources):
    resources = open_resources(label_studio_url=f"http://127.0.0.1:{free_port()}")
    storage = resources.storage
    storage.put_project(3, UID, "<View/>", {})
    storage.begin_round(3, 0, "connect")
    storage.update_round(3, 0, state="open", opened_at=now(), version="kdal-r0")
    rounds = Rounds(resources)
    assert rounds._clean_up(storage.project(3), RoundStore(resources.assets, UID, 0), StepReport()) == {}
    rounds._fail(3, 0, "something after the opening")
    assert (storage.round(3, 0).state, storage.round(3, 0).error) == ("open", "something after the opening")
