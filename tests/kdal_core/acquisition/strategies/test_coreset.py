from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.shuffling import drawn_order


def features(seed, size=20):
    return np.random.default_rng(seed).integers(-9, 10, (size, 2)).astype(float)


def farthest_first(rows, labelled, count):
    """The definition, all distances at each pick."""
    picks = []
    if len(labelled) == 0:
        picks.append(int(np.argmin(cdist(rows, rows.mean(axis=0)[None])[:, 0].round(9))))
    while len(picks) < count:
        nearest = cdist(rows, np.concatenate([labelled, rows[picks]]), "sqeuclidean").min(axis=1)
        nearest[picks] = -1
        picks.append(int(nearest.argmax()))
    return picks


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_coreset_takes_the_farthest_image_each_time(seed, labelled):
    rows, known = features(seed), features(seed + 1, labelled)
    order = strategy("coreset")(PoolScores(features=rows, labelled_features=known, budget=12))
    drawn = drawn_order(20, 0)  # of equally far ones the first of this order
    assert order.indices[:12].tolist() == drawn[farthest_first(rows[drawn], known, 12)].tolist()
    left = cdist(rows, np.concatenate([known, rows[order.indices[:12]]])).min(axis=1)
    np.testing.assert_allclose(order.scores[12:], left[order.indices[12:]], atol=1e-9)
    assert (np.diff(order.scores) <= 1e-12).all()


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_the_greedy_centers_reach_all_images_within_twice_the_radius_of_the_best_ones(seed, count):
    """Gonzalez 1985: farthest-first is within twice the optimum, here found by trying all."""
    rows = features(seed, 10)
    order = strategy("coreset")(PoolScores(features=rows, budget=count))
    reached = cdist(rows, rows[order.indices[:count]]).min(axis=1).max()
    best = min(cdist(rows, rows[list(chosen)]).min(axis=1).max() for chosen in combinations(range(10), count))
    assert reached <= 2 * best + 1e-9


def test_on_a_line_it_goes_from_the_middle_to_the_ends_and_between():
    line = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [6.0]])
    order = strategy("coreset")(PoolScores(features=line))
    middle, *others = order.indices.tolist()
    assert (middle, set(others[:2]), set(others[2:])) == (3, {0, 5}, {1, 2, 4})
    assert order.scores.tolist() == pytest.approx([3.0, 3.0, 3.0, 1.0, 1.0, 1.0])


def test_copies_of_labelled_images_come_last():
    rows = np.array([[0.0, 0.0], [5.0, 5.0], [1.0, 0.0]])
    order = strategy("coreset")(PoolScores(features=rows, labelled_features=rows[1:2], budget=1))
    assert order.indices.tolist() == [0, 2, 1]
    assert order.scores[-1] == 0


def test_a_budget_of_nothing_orders_by_distance_from_the_middle():
    rows = np.array([[0.0], [1.0], [5.0], [2.0]])
    assert strategy("coreset")(PoolScores(features=rows, budget=0)).indices.tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e6, 1e150])
def test_the_unit_of_the_features_does_not_change_the_order(scale):
    rows = features(0)
    plain, scaled = (strategy("coreset")(PoolScores(features=rows * factor)) for factor in (1.0, scale))
    assert plain.indices.tolist() == scaled.indices.tolist()
    np.testing.assert_allclose(scaled.scores, plain.scores * scale, rtol=1e-3)
