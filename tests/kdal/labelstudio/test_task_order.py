"""Names and scores under which an order is pushed."""

import pytest

from kdal.labelstudio.task_order import VERSION, rank_score, version_name

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
