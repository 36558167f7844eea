import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from kdal_core.acquisition import PoolScores
from kdal_core.acquisition.strategies.points import (
    grid_points,
    nearest_squared,
    squared_lengths,
    squared_to,
    unit_points,
)
from kdal_core.acquisition.strategies.protocol import rounded

FEATURES = np.random.default_rng(0).normal(size=(50, 300)) * 37


def test_points_are_the_rounded_features_counted_in_steps():
    points = grid_points(PoolScores(features=FEATURES))
    assert np.array_equal(points.pool, np.rint(points.pool))
    assert np.abs(points.pool).max() <= 10_000
    np.testing.assert_allclose(points.pool * points.step, rounded(FEATURES), atol=1e-9)


def test_pool_and_labelled_images_lie_on_one_grid():
    points = grid_points(PoolScores(features=FEATURES[:30], labelled_features=FEATURES[30:] * 100))
    np.testing.assert_allclose(points.labelled * points.step, rounded(FEATURES[30:] * 100), atol=1e-6)
    np.testing.assert_allclose(points.pool * points.step, FEATURES[:30], atol=points.step)
    assert points.everything.shape == (50, 300)


@given(st.integers(0, 1000))
def test_distances_are_exact_whatever_the_order_of_the_rows(seed):
    rng = np.random.default_rng(seed)
    rows = grid_points(PoolScores(features=FEATURES)).pool
    whole = rows.astype(np.int64)
    exact = ((whole[:, None] - whole) ** 2).sum(axis=2)
    lengths, moved = squared_lengths(rows), rng.permutation(50)
    assert squared_to(rows[7], rows, lengths).tolist() == exact[7].tolist()
    assert nearest_squared(rows[moved], rows[:9]).tolist() == exact[moved][:, :9].min(axis=1).tolist()


def test_without_targets_nothing_is_near():
    assert nearest_squared(np.zeros((2, 3)), np.zeros((0, 3))).tolist() == [np.inf, np.inf]


def test_normalised_points_have_length_one_and_a_zero_vector_stays():
    rows = np.concatenate([np.zeros((1, 300)), FEATURES])
    points = unit_points(grid_points(PoolScores(features=rows)))
    assert not points.pool[0].any()
    np.testing.assert_allclose(np.sqrt(squared_lengths(points.pool[1:])) * points.step, 1, atol=1e-5)
    expected = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    np.testing.assert_allclose(cdist(points.pool[1:] * points.step, expected).diagonal(), 0, atol=1e-3)


@pytest.mark.parametrize("largest", [1e-310, 1e-30, 1.0, 1e30, 1e308])
def test_numbers_of_any_size_can_be_put_on_a_grid(largest):
    points = grid_points(PoolScores(features=np.array([[largest, -largest / 2]])))
    assert np.isfinite(points.pool).all()
    assert np.abs(points.pool).max() <= 10_000
