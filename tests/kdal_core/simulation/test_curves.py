import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kdal_core.simulation.curves import (
    Crossing,
    Reach,
    area,
    compare,
    crossing,
    difference_curve,
    interval,
    mean_curve,
    reach,
    summarise,
    wrong_share,
)
from kdal_core.simulation.results import Point, Results, Run


def run(scores, *, arm="kd_gap", seed=0, labels=None, wrong=0, pace=36.0):
    """A run with these scores at 100, 200, ... labels; `pace` is the annotator's seconds for a label."""
    labels = labels or [100 * (number + 1) for number in range(len(scores))]
    pairs = enumerate(zip(labels, scores, strict=True))
    return Run(arm, seed, tuple(Point(n, bought, s, wrong, pace * bought, 10.0) for n, (bought, s) in pairs))


def results(*runs, full=None):
    seeds = {r.seed for r in runs}
    full = dict.fromkeys(seeds, 1.0) if full is None else full
    return Results("c", "", "accuracy", "random", full, 1000, runs, {}, {})


def test_the_interval_is_scipys():
    values = [0.91, 0.94, 0.9, 0.97, 0.93]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    found = interval(values)
    assert (found.low, found.high, found.seeds) == (pytest.approx(low), pytest.approx(high), 5)


def test_the_interval_of_two_values_is_the_closed_form():
    # s / sqrt(2) of 0 and 2 is 1, and t(0.975, 1) = tan(0.475 pi), the Cauchy distribution's
    assert interval([0, 2]).half_width == pytest.approx(math.tan(0.475 * math.pi))


def test_one_value_has_no_interval_and_excludes_nothing():
    found = interval([0.5])
    assert (found.mean, found.half_width, found.low, found.high, found.excludes_zero) == (0.5, None, None, None, False)
    assert interval([]) is None


def test_equal_values_exclude_zero_unless_they_are_zero():
    assert interval([0.25, 0.25, 0.25]).excludes_zero
    assert not interval([0.0, 0.0, 0.0]).excludes_zero


def test_the_mean_curve_has_every_budget_that_any_seed_has_come_to():
    curve = mean_curve({0: run([0.5, 0.75]), 1: run([0.75])})
    assert {labels: (point.mean, point.seeds) for labels, point in curve.items()} == {100: (0.625, 2), 200: (0.75, 1)}


def test_differences_are_paired_by_seed_so_that_what_a_seed_does_to_both_cancels():
    own = {0: run([0.5]), 1: run([0.75]), 2: run([0.9])}
    random = {1: run([0.625]), 0: run([0.375]), 3: run([0.1])}
    found = difference_curve(own, random)[100]
    assert (found.mean, found.half_width, found.seeds) == (0.125, 0.0, 2)


def test_the_area_of_a_straight_line_is_its_middle():
    assert area(run([0.2, 0.4, 0.6, 0.8])) == pytest.approx(0.5)


def test_the_area_weighs_uneven_budgets_by_their_width():
    # (0.4 + 0.8) / 2 over 100 labels, then 0.8 over 300
    assert area(run([0.4, 0.8, 0.8], labels=[100, 200, 500])) == pytest.approx((0.6 * 100 + 0.8 * 300) / 400)


def test_the_area_of_one_point_is_its_score():
    assert area(run([0.7])) == 0.7


def test_a_crossing_is_read_off_the_straight_line_between_two_budgets():
    found = crossing(run([0.5, 0.75, 1.0]), 0.8125)
    assert found == Crossing(labels=225.0, seconds=36 * 225.0)


def test_a_score_that_is_met_exactly_is_reached():
    assert crossing(run([0.5, 0.75]), 0.75).labels == 200


def test_the_first_crossing_counts_when_the_curve_falls_again():
    assert crossing(run([0.5, 0.75, 0.5, 1.0]), 0.625).labels == 150


def test_a_level_reached_at_the_first_budget_is_an_upper_bound():
    assert crossing(run([0.9, 0.95]), 0.8) == Crossing(100, 3600, at_first=True)


def test_a_level_never_reached_has_no_crossing():
    assert crossing(run([0.5, 0.75]), 0.8) is None


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([210, 250, 180], Reach(210, False, 3, 3)),
        ([210, None, 180], Reach(210, False, 2, 3)),
        ([210, None, None], Reach(None, False, 1, 3)),
        ([210, 250, None, None], Reach(None, False, 2, 4)),
        ([200, 250, 300, None], Reach(275, False, 3, 4)),
        ([], Reach(None, False, 0, 0)),
    ],
)
def test_the_median_counts_what_was_not_reached_as_beyond_the_last_budget(labels, expected):
    assert reach([None if value is None else Crossing(value, 0) for value in labels]) == expected


def test_a_median_at_the_first_budget_is_an_upper_bound():
    first, later = Crossing(100, 0, at_first=True), Crossing(150, 0)
    assert reach([first, first, later]) == Reach(100, True, 3, 3)
    assert reach([first, later]) == Reach(125, True, 2, 2)
    assert reach([first, later, later]) == Reach(150, False, 3, 3)


def test_the_saving_is_paired_and_over_the_seeds_in_which_both_got_there():
    own = [Crossing(100, 3600), Crossing(150, 7200), Crossing(100, 3600), None]
    random = [Crossing(200, 7200), Crossing(200, 14400), None, Crossing(300, 7200)]
    found = compare(own, random)
    assert found.saving == interval([0.5, 0.25])
    assert found.hours_saved == interval([1.0, 2.0])
    assert (found.own.reached, found.other.reached, found.both, found.own.seeds) == (3, 3, 2, 4)
    assert (found.own_hours.median, found.other_hours.median) == (1.5, 3.0)


def test_needing_more_labels_than_the_baseline_is_a_negative_saving():
    assert compare([Crossing(300, 0)], [Crossing(200, 0)]).saving.mean == -0.5


def test_a_saving_from_the_first_budget_is_counted_as_a_bound():
    found = compare([Crossing(100, 0, at_first=True), Crossing(150, 0)], [Crossing(200, 0), Crossing(200, 0)])
    assert (found.at_first, found.both) == (1, 2)


def test_the_share_of_wrong_labels_is_that_of_the_last_round():
    assert wrong_share(run([0.5, 0.6], wrong=5)) == 5 / 200
    assert wrong_share(Run("kd_gap", 0, ())) is None


def test_arms_are_sorted_by_area_and_only_kd_gap_itself_stands_for_kdal():
    found = summarise(results(run([0.5, 0.6], arm="random"), run([0.9, 0.9], arm="kd_gap b"), run([0.6, 0.7])))
    assert [arm.arm for arm in found.arms] == ["kd_gap b", "kd_gap", "random"]
    assert found.kdal == "kd_gap"
    assert found.notes == ()


def test_the_area_difference_is_paired_with_the_baseline():
    runs = [run([0.5 + s, 0.7 + s], arm="random", seed=number) for number, s in enumerate((0, 0.125, 0.25))]
    runs += [
        replace(r, arm="kd_gap", points=tuple(replace(p, score=p.score + 0.03125) for p in r.points)) for r in runs
    ]
    found = summarise(results(*runs)).arm("kd_gap").area_difference
    assert (found.mean, found.half_width) == (pytest.approx(0.03125), pytest.approx(0, abs=1e-12))


def test_levels_are_shares_of_each_seeds_own_full_score():
    runs = [run([0.4, 0.5, 0.6], seed=0), run([0.8, 0.9, 1.0], seed=1)]
    found = summarise(results(*runs, full={0: 0.5, 1: 1.0})).arm("kd_gap").reaches[0.9]
    assert found.median == pytest.approx((150 + 200) / 2)  # 0.45 of seed 0, 0.9 of seed 1


def test_an_unfinished_run_counts_in_the_curve_but_not_where_the_end_matters():
    done, late = run([0.5, 0.6, 0.7]), run([0.7, 0.8], seed=1)
    random = [run([0.4, 0.5, 0.6], arm="random", seed=seed) for seed in (0, 1)]
    found = summarise(results(done, late, *random))
    arm = found.arm("kd_gap")
    assert (arm.seeds, arm.finished, arm.paired) == ((0, 1), (0,), (0,))
    assert arm.scores[100].seeds == 2
    assert arm.differences[200] == interval([0.6 - 0.5, 0.8 - 0.5])
    assert arm.area.mean == pytest.approx(0.6)
    assert arm.area.seeds == arm.area_difference.seeds == arm.reaches[0.95].seeds == 1
    assert found.notes[0].startswith("1 of 4 runs have not come to round 2 yet")


def test_the_labels_for_a_level_that_all_runs_of_an_arm_reached_hang_on_no_later_round():
    early = [run([0.5, 0.9], seed=0), run([0.7, 0.95], seed=1)]
    random = [run([0.4, 0.5, 0.9], arm="random", seed=seed) for seed in (0, 1)]
    found = summarise(results(*early, *random)).arm("kd_gap")
    assert (found.finished, found.area) == ((), None)
    assert found.reaches[0.9] == Reach(pytest.approx((200 + 180) / 2), False, 2, 2)
    assert found.comparisons[0.9].saving.mean == pytest.approx(1 - 190 / 300)
    # 95% were reached by the quicker run alone, which says nothing of the arm.
    assert found.reaches[0.95] == Reach(None, False, 0, 0)
    assert found.comparisons[0.95].saving is None


def test_seeds_that_only_one_of_two_arms_has_are_not_compared_and_named():
    random = [run([0.4, 0.6], arm="random", seed=seed) for seed in (0, 1, 2)]
    found = summarise(results(run([0.5, 0.7], seed=1), *random))
    assert found.arm("kd_gap").area_difference.seeds == 1
    assert found.notes == ("kd_gap: 1 of 3 seeds so far; differences to random are over the seeds that both have.",)


def test_a_seed_without_full_score_is_left_out_of_the_levels_and_named():
    found = summarise(results(run([0.5, 1.0], seed=0), run([0.5, 1.0], seed=1), full={1: 1.0}))
    assert found.arm("kd_gap").reaches[0.9].seeds == 1
    assert "The score with all labels is not known for seed 0; what depends on it leaves it out." in found.notes


def test_a_campaign_without_any_round_has_a_summary():
    found = summarise(results(Run("kd_gap", 0, ())))
    assert (found.arms, found.kdal, found.baseline, found.budgets) == ((), None, None, ())
    assert "No round of kd_gap is finished yet." in found.notes


def test_the_baseline_is_not_compared_with_itself():
    arm = summarise(results(run([0.5, 0.7], arm="random"))).arm("random")
    assert (arm.differences, arm.area_difference, arm.comparisons) == ({}, None, {})
