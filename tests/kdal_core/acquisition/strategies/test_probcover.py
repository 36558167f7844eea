from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.shuffling import drawn_order
from kdal_core.acquisition.strategies.points import grid_points, unit_points
from kdal_core.acquisition.strategies.probcover import Balls, pure_radius, squared_to_other_labels
from kdal_core.acquisition.strategies.typiclust import clusters
from kdal_core.errors import KdalError


def features(seed, size=25, width=3):
    return np.random.default_rng(seed).normal(size=(size, width))


def unit(given_pool):
    points = unit_points(grid_points(given_pool))
    return points.pool * points.step, points.labelled * points.step


def on_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@given(st.integers(0, 10_000), st.floats(0.05, 1.8), st.integers(0, 3))
def test_probcover_is_greedy_coverage_and_then_what_the_fewest_balls_hold(seed, delta, labelled):
    given_pool = PoolScores(features=features(seed), labelled_features=features(seed + 1, labelled), budget=20)
    drawn = drawn_order(25, 0)  # of equal ones the first of this order
    rows, known = unit(given_pool.reordered(drawn))
    near = cdist(rows, rows) <= delta
    held = (cdist(rows, known) <= delta).sum(axis=1)
    picks, gains = [], []
    for _ in range(20):
        gain = (near & (held == 0)).sum(axis=1)
        open_ = [i for i in range(25) if i not in picks]
        if gain.any():
            best = max(open_, key=lambda i: (gain[i], -i))
            gains.append(gain[best])
        else:
            best = min(open_, key=lambda i: (held[i], -near[i].sum(), i))
            gains.append(-held[best])
        picks.append(best)
        held += near[best]
    order = strategy("probcover", delta=delta)(given_pool)
    assert order.indices[:20].tolist() == drawn[picks].tolist()
    assert order.scores[:20].tolist() == gains
    assert (np.diff(order.scores) <= 0).all()


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_greedy_coverage_is_within_the_bound_of_submodular_maximisation(seed, count):
    given_pool = PoolScores(features=features(seed, 10), budget=count)
    near = cdist(*(unit(given_pool)[:1] * 2)) <= 0.8
    best = max(near[list(chosen)].any(axis=0).sum() for chosen in combinations(range(10), count))
    found = near[strategy("probcover", delta=0.8)(given_pool).indices[:count]].any(axis=0).sum()
    assert found >= (1 - 1 / np.e) * best


def test_the_middle_of_the_largest_crowd_comes_first():
    """A chord of 10 degrees is .1743 long: the ball of 10 degrees holds three, that of 120 two."""
    rows = on_circle(0, 10, 20, 120, 128)
    order = strategy("probcover", delta=0.18)(PoolScores(features=rows, budget=2))
    assert (order.indices[0], order.indices[1] in (3, 4)) == (1, True)
    assert order.scores[:2].tolist() == [3, 2]


def test_length_does_not_count_only_direction_does():
    rows = on_circle(0, 10, 20, 120, 128)
    longer = rows * np.array([[1.0], [2.0], [4.0], [1.0], [8.0]])
    plain, scaled = (strategy("probcover", delta=0.18)(PoolScores(features=given)) for given in (rows, longer))
    assert plain.indices.tolist() == scaled.indices.tolist()


def test_what_a_labelled_image_covers_is_not_asked_for():
    rows = on_circle(0, 1, 2, 3, 90, 180)
    given_pool = PoolScores(features=rows, labelled_features=on_circle(1.5), budget=2)
    assert set(strategy("probcover", delta=0.1)(given_pool).indices[:2].tolist()) == {4, 5}


def test_a_ball_contains_its_surface():
    rows = np.array([[3.0, 4.0], [4.0, 3.0]])  # normalised: (.6, .8) and (.8, .6), sqrt(.08) apart
    for delta, held in ((0.2829, 2), (0.2828, 1)):
        assert strategy("probcover", delta=delta)(PoolScores(features=rows)).scores[0] == held
    assert Balls(np.array([[0.0, 0.0], [3.0, 4.0]]), 5.0).of(0).tolist() == [True, True]


@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0, 12))
def test_counts_of_balls_are_those_of_all_distances(seed, size, delta):
    rows = np.random.default_rng(seed).integers(-5, 6, (size, 2)).astype(float)
    near = cdist(rows, rows, "sqeuclidean") <= delta**2
    balls, members = Balls(rows, delta), np.arange(0, size, 3)
    assert balls.degrees().tolist() == near.sum(axis=1).tolist()
    assert balls.counts(members).tolist() == near[:, members].sum(axis=1).tolist()


def test_counts_of_balls_do_not_depend_on_the_blocks():
    rows = np.random.default_rng(0).integers(-5, 6, (3000, 2)).astype(float)
    near = cdist(rows, rows, "sqeuclidean") <= 9
    assert Balls(rows, 3.0).degrees().tolist() == near.sum(axis=1).tolist()
    assert Balls(rows, 3.0).counts(np.arange(3000)).tolist() == near.sum(axis=1).tolist()


@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_the_chosen_radius_is_the_largest_with_that_share_of_pure_balls(seed, alpha):
    points = unit_points(grid_points(PoolScores(features=features(seed, 60))))
    delta = pure_radius(points, alpha, 4, np.random.default_rng(seed))
    rows, labels = points.pool * points.step, clusters(points.pool, 4, np.random.default_rng(seed))
    distance, other = cdist(rows, rows), labels[:, None] != labels

    def purity(radius):
        return 1 - ((distance <= radius) & other).any(axis=1).mean()

    assert purity(delta) >= alpha - 1e-9
    assert purity(delta + 2e-6) < alpha


def test_the_nearest_image_of_another_label_is_found_for_the_chosen_rows():
    rows = np.array([[0.0], [1.0], [4.0], [9.0]])
    assert squared_to_other_labels(rows, np.array([0, 0, 1, 1]), np.array([3, 0])).tolist() == [64.0, 16.0]
    assert squared_to_other_labels(rows, np.zeros(4, dtype=int), np.array([0])).tolist() == [np.inf]


def test_of_a_large_pool_a_sample_of_balls_is_enough_for_about_the_same_radius():
    rng = np.random.default_rng(0)
    rows = np.eye(8)[rng.integers(0, 8, 6000)] + 0.15 * rng.normal(size=(6000, 8))
    points = unit_points(grid_points(PoolScores(features=rows)))
    labels = clusters(points.everything, 8, np.random.default_rng(0))
    gap = np.sqrt(squared_to_other_labels(points.pool, labels, np.arange(6000))) * points.step
    assert pure_radius(points, 0.95, 8, np.random.default_rng(0)) == pytest.approx(np.quantile(gap, 0.05), rel=0.1)


def test_with_one_image_or_one_direction_every_ball_is_pure():
    for rows in (np.ones((1, 3)), np.ones((9, 3)), np.zeros((4, 2))):
        points = unit_points(grid_points(PoolScores(features=rows)))
        assert pure_radius(points, 0.95, 10, np.random.default_rng(0)) == 2.0


@pytest.mark.parametrize(
    "bad", [{"delta": -1.0}, {"delta": np.nan}, {"alpha": 0.0}, {"alpha": 1.5}, {"alpha": np.nan}, {"classes": 0}]
)
def test_a_parameter_out_of_range_is_refused(bad):
    with pytest.raises(KdalError):
        strategy("probcover", **bad)(PoolScores(features=np.zeros((5, 2))))
