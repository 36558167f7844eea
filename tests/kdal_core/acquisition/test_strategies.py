from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.acquisition import (
    PoolScores,
    greedy_select,
    nearest_neighbors,
    strategy,
    strategy_names,
    uncertainty,
)
from kdal_core.acquisition.strategies.kd_gap import rounded, standardized
from kdal_core.errors import ConfigError, KdalError


def pool(size=40, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return PoolScores(rng.random(size), rng.random(size), rng.normal(size=(size, 5)), **changes)


@pytest.mark.parametrize("name", strategy_names())
@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_every_strategy_orders_every_image_once_whatever_the_pools_size(name, size):
    order = strategy(name)(pool(size))
    assert sorted(order.indices.tolist()) == list(range(size))
    assert len(order.scores) == len(order.diversity) == size


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_is_a_function_of_its_input(name):
    assert np.array_equal(strategy(name)(pool()).indices, strategy(name)(pool()).indices)


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="kd_gap, random"):
        strategy("oracle")


def test_a_random_order_follows_its_seed_and_nothing_else():
    first = strategy("random")(pool(seed=0, **{}))
    other_pool = strategy("random")(replace(pool(seed=1), seed=0))
    other_seed = strategy("random")(replace(pool(), seed=1))
    assert np.array_equal(first.indices, other_pool.indices)
    assert not np.array_equal(first.indices, other_seed.indices)
    assert (np.diff(first.scores) <= 0).all()


@pytest.mark.parametrize("mode", ["score", "marginal", "coverage", "static"])
@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_kd_gap_is_the_greedy_pass_over_standardised_uncertainty(mode, eps):
    given_pool = pool(beta=0.7, k=4, eps=eps, mode=mode)
    given_pool = replace(given_pool, d_ss=rounded(given_pool.d_ss), d_st=rounded(given_pool.d_st))
    scores = uncertainty(given_pool.d_ss, given_pool.d_st, eps)
    scores = (scores - scores.mean()) / scores.std()
    neighbors = nearest_neighbors(rounded(given_pool.features), 4)
    expected = greedy_select(scores, neighbors, 40, 0.7, mode)
    order = strategy("kd_gap")(given_pool)
    assert order.indices.tolist() == expected.indices.tolist()
    assert order.scores.tolist() == pytest.approx(expected.scores.tolist())


def test_without_diversity_the_most_uncertain_image_comes_first():
    given_pool = replace(pool(), beta=0.0, d_ss=np.linspace(0, 1, 40), d_st=np.zeros(40))
    assert strategy("kd_gap")(given_pool).indices.tolist() == list(range(39, -1, -1))


@given(st.integers(0, 1000), st.floats(0.01, 1000))
def test_the_unit_of_uncertainty_does_not_change_what_beta_means(seed, unit):
    values = np.random.default_rng(seed).normal(size=30)
    np.testing.assert_allclose(standardized(values * unit), standardized(values), atol=1e-9)


def test_standardising_keeps_infinity_and_turns_equal_values_into_zero():
    assert standardized(np.array([1.0, 3.0, np.inf])).tolist() == [-1, 1, np.inf]
    assert standardized(np.array([2.0, 2.0])).tolist() == [0, 0]
    assert standardized(np.array([np.inf])).tolist() == [np.inf]


def test_differences_in_the_last_bits_do_not_change_the_order():
    rng = np.random.default_rng(0)
    plain = PoolScores(*(np.round(part, 3) for part in (rng.random(300), rng.random(300), rng.normal(size=(300, 8)))))
    for _ in range(5):
        noisy = replace(
            plain,
            d_ss=np.abs(plain.d_ss + rng.normal(size=300) * 1e-7),
            d_st=np.abs(plain.d_st + rng.normal(size=300) * 1e-7),
            features=plain.features + rng.normal(size=(300, 8)) * 1e-7,
        )
        assert np.array_equal(strategy("kd_gap")(noisy).indices, strategy("kd_gap")(plain).indices)


def test_equal_images_are_not_picked_in_a_row():
    """Ten copies of the most uncertain image: diversity sends the second copy behind other images."""
    rng = np.random.default_rng(0)
    features = np.concatenate([np.zeros((10, 3)), rng.normal(size=(40, 3))])
    gaps = np.concatenate([np.full(10, 0.3), rng.random(40) * 0.25])
    order = strategy("kd_gap")(PoolScores(gaps, gaps, features, beta=1.0, k=5, mode="coverage")).indices
    assert set(order[:10].tolist()) != set(range(10))


@pytest.mark.parametrize(
    "bad",
    [
        {"d_ss": np.full(40, np.nan)},
        {"d_st": np.zeros(39)},
        {"features": np.zeros((39, 5))},
        {"features": np.full((40, 5), np.nan)},
        {"d_ss": -np.ones(40)},
        {"k": 0},
        {"beta": -1.0},
        {"eps": -1.0},
        {"mode": "best"},
    ],
)
def test_a_pool_that_cannot_be_ranked_is_refused(bad):
    with pytest.raises(KdalError):
        strategy("kd_gap")(replace(pool(), **bad))


def test_by_default_one_gap_of_three_tenths_comes_before_two_gaps_of_two_tenths():
    d_ss, d_st = np.array([0.2, 0.0, 0.3, 0.0]), np.array([0.2, 0.3, 0.0, 0.0])
    far_apart = np.array([[0.0], [10.0], [20.0], [30.0]])
    order = strategy("kd_gap")(PoolScores(d_ss, d_st, far_apart, beta=0.0)).indices
    assert order.tolist() == [1, 2, 0, 3]
