"""What became of suggestions, and the time that they save."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdal_core.errors import KdalError
from kdal_core.evaluation import suggestion_acceptance, time_saved, wilson

rows = st.lists(
    st.tuples(st.sampled_from(["unchanged", "changed", "rejected"]), st.sampled_from("ab"), st.integers(1, 3))
)


@given(rows)
def test_each_suggestion_counts_once_in_all_by_class_and_by_round(made):
    outcomes, classes, rounds = [list(column) for column in zip(*made, strict=True)] or [[], [], []]
    found = suggestion_acceptance(outcomes, classes, rounds)
    for parts in (found.by_class.values(), found.by_round.values()):
        for outcome in ("unchanged", "changed", "rejected"):
            assert sum(getattr(part, outcome) for part in parts) == getattr(found.all, outcome)
            assert getattr(found.all, outcome) == outcomes.count(outcome)
    assert list(found.by_round) == sorted(set(rounds))
    sizes = [part.suggestions for part in found.by_class.values()]
    assert sizes == sorted(sizes, reverse=True)


def test_the_share_left_unchanged_has_wilsons_interval():
    found = suggestion_acceptance(["unchanged"] * 8 + ["changed", "rejected"], ["a"] * 10, [1] * 10).all
    assert found.share == 0.8
    assert found.interval == wilson(8, 10)
    assert found.sentence.startswith("80% of 10 suggestions were accepted unchanged (49% to 94%), 1 were changed")
    assert suggestion_acceptance([], [], []).all.sentence == "Nothing was suggested yet."


@pytest.mark.parametrize("made", [(["unchanged"], [], [1]), (["liked"], ["a"], [1])])
def test_suggestions_that_make_no_sense_are_refused(made):
    with pytest.raises(KdalError):
        suggestion_acceptance(*made)


def lead_times(rng, median, count, pauses=0.05):
    """Seconds as people need them: skewed, and one of twenty tasks lay open over a break."""
    times = median * np.exp(0.5 * rng.normal(size=count))
    return np.where(rng.random(count) < pauses, times + 1800 * rng.random(count), times)


def test_two_groups_are_compared_by_yuens_test():
    rng = np.random.default_rng(0)
    helped, plain = lead_times(rng, 8, 30), lead_times(rng, 12, 24)
    found = time_saved(np.concatenate([helped, plain]), [1] * 30 + [0] * 24)
    expected = stats.ttest_ind(plain, helped, equal_var=False, trim=0.2).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.saved == pytest.approx(stats.trim_mean(plain, 0.2) - stats.trim_mean(helped, 0.2))
    assert found.minutes == pytest.approx(found.saved / 2)


@pytest.mark.parametrize(("helped", "plain"), [(15, 15), (60, 20)])
def test_where_suggestions_save_nothing_that_is_said_in_19_of_20_projects(helped, plain):
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(400):
        times = np.concatenate([lead_times(rng, 10, helped), lead_times(rng, 10, plain)])
        wrong += time_saved(times, [1] * helped + [0] * plain).told
    assert wrong / 400 <= 0.07


def test_what_is_saved_is_found_in_spite_of_breaks_where_plain_means_find_nothing():
    rng = np.random.default_rng(2)
    found, by_means = 0, 0
    for _ in range(100):
        helped, plain = lead_times(rng, 6, 40), lead_times(rng, 10, 40)
        result = time_saved(np.concatenate([helped, plain]), [1] * 40 + [0] * 40)
        found += result.told and result.saved > 0
        by_means += stats.ttest_ind(plain, helped, equal_var=False).pvalue < 0.05
    assert found >= 90
    assert by_means < 60


def test_annotators_who_are_quick_and_have_more_suggestions_make_no_saving():
    """Within each of the two suggestions change nothing; all tasks together would say that they save much."""
    rng = np.random.default_rng(3)
    together, apart = [], []
    for _ in range(100):
        parts = [(lead_times(rng, 5, 90), 1, "quick"), (lead_times(rng, 5, 30), 0, "quick")]
        parts += [(lead_times(rng, 20, 30), 1, "slow"), (lead_times(rng, 20, 90), 0, "slow")]
        times = np.concatenate([part for part, _, _ in parts])
        suggested = np.concatenate([np.full(len(part), kind) for part, kind, _ in parts])
        names = [name for part, _, name in parts for _ in part]
        together.append(time_saved(times, suggested))
        apart.append(time_saved(times, suggested, names))
    assert all(found.told for found in together)
    unsure = [found for found in apart if not found.told]
    assert len(unsure) >= 90
    assert all(found.more >= 1 and "Not enough evidence yet: a suggestion saves" in found.sentence for found in unsure)


def test_few_tasks_and_groups_of_one_kind_say_nothing():
    found = time_saved([5, 6, 7, 8, 9, 1, 2, 3, 4], [1] * 5 + [0] * 4)
    assert (found.saved, found.told) == (None, False)
    assert found.sentence.startswith("Not enough evidence yet: it takes 5 tasks")
    assert time_saved([5.0] * 20, [1] * 10 + [0] * 10, ["ann"] * 10 + ["bob"] * 10).saved is None
    assert not time_saved([], []).told


def test_suggestions_that_cost_time_are_said_to():
    rng = np.random.default_rng(4)
    found = time_saved(np.concatenate([lead_times(rng, 20, 60), lead_times(rng, 5, 60)]), [1] * 60 + [0] * 60)
    assert found.sentence.startswith("Suggestions cost ")


def test_equal_times_are_told_apart_by_nothing_but_their_difference():
    assert time_saved([4.0] * 10 + [6.0] * 10, [1] * 10 + [0] * 10).saved == 2
    assert not time_saved([5.0] * 20, [1] * 10 + [0] * 10).told


@pytest.mark.parametrize(
    "arguments",
    [([0, 1], [1, 0]), ([np.inf], [1]), ([1], [1, 0]), ([1], [1], ["a", "b"])],
)
def test_times_that_are_none_are_refused(arguments):
    with pytest.raises(KdalError):
        time_saved(*arguments)
