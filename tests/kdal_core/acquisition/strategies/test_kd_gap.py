import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.acquisition import PoolScores, greedy_select, nearest_neighbors, strategy, uncertainty
from kdal_core.acquisition.gaps import four_case_uncertainty
from kdal_core.acquisition.strategies.kd_gap import standardized
from kdal_core.acquisition.strategies.protocol import rounded
from kdal_core.errors import KdalError


def pool(**changes):
    rng = np.random.default_rng(0)
    arrays = {"d_ss": rounded(rng.random(40)), "d_st": rounded(rng.random(40)), "features": rng.normal(size=(40, 5))}
    return PoolScores(**(arrays | changes))


@pytest.mark.parametrize("mode", ["score", "marginal", "coverage", "static"])
@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_kd_gap_is_the_greedy_pass_over_standardised_uncertainty(mode, eps):
    given_pool = pool()
    scores = uncertainty(given_pool.d_ss, given_pool.d_st, eps)
    scores = (scores - scores.mean()) / scores.std()
    neighbors = nearest_neighbors(rounded(given_pool.features), 4)
    expected = greedy_select(scores, neighbors, 40, 0.7, mode)
    order = strategy("kd_gap", beta=0.7, k=4, eps=eps, mode=mode)(given_pool)
    assert order.indices.tolist() == expected.indices.tolist()
    assert order.scores.tolist() == pytest.approx(expected.scores.tolist())


def test_without_diversity_the_four_cases_alone_decide():
    given_pool = pool()
    scores = four_case_uncertainty(given_pool.d_ss, given_pool.d_st)
    order = strategy("kd_gap", beta=0.0, formula="four_case")(given_pool)
    assert order.indices.tolist() == np.argsort(-scores, kind="stable").tolist()


def test_without_diversity_the_most_uncertain_image_comes_first():
    given_pool = pool(d_ss=np.linspace(0, 1, 40), d_st=np.zeros(40))
    assert strategy("kd_gap", beta=0.0)(given_pool).indices.tolist() == list(range(39, -1, -1))


@given(st.integers(0, 1000), st.floats(0.01, 1000))
def test_the_unit_of_uncertainty_does_not_change_what_beta_means(seed, unit):
    values = np.random.default_rng(seed).normal(size=30)
    np.testing.assert_allclose(standardized(values * unit), standardized(values), atol=1e-9)


def test_standardising_keeps_infinity_and_turns_equal_values_into_zero():
    assert standardized(np.array([1.0, 3.0, np.inf])).tolist() == [-1, 1, np.inf]
    assert standardized(np.array([2.0, 2.0])).tolist() == [0, 0]
    assert standardized(np.array([np.inf])).tolist() == [np.inf]


def test_equal_images_are_not_picked_in_a_row():
    """Ten copies of the most uncertain image: diversity sends the second copy behind other images."""
    rng = np.random.default_rng(0)
    features = np.concatenate([np.zeros((10, 3)), rng.normal(size=(40, 3))])
    gaps = np.concatenate([np.full(10, 0.3), rng.random(40) * 0.25])
    given_pool = PoolScores(d_ss=gaps, d_st=gaps, features=features)
    order = strategy("kd_gap", beta=1.0, k=5, mode="coverage")(given_pool).indices
    assert set(order[:10].tolist()) != set(range(10))


@pytest.mark.parametrize(
    "bad",
    [{"d_st": np.zeros(39)}, {"features": np.zeros((39, 5))}, {"d_ss": -np.ones(40)}, {"d_ss": np.ones((40, 1))}],
)
def test_a_pool_that_cannot_be_ranked_is_refused(bad):
    with pytest.raises(KdalError):
        strategy("kd_gap")(pool(**bad))


@pytest.mark.parametrize("bad", [{"k": 0}, {"beta": -1.0}, {"eps": -1.0}, {"mode": "best"}, {"formula": "other"}])
def test_a_parameter_out_of_range_is_refused(bad):
    with pytest.raises(KdalError):
        strategy("kd_gap", **bad)(pool())


def test_a_small_eps_puts_one_gap_of_three_tenths_before_two_gaps_of_two_tenths():
    far_apart = np.array([[0.0], [10.0], [20.0], [30.0]])
    given_pool = PoolScores(
        d_ss=np.array([0.2, 0.0, 0.3, 0.0]), d_st=np.array([0.2, 0.3, 0.0, 0.0]), features=far_apart
    )
    order = strategy("kd_gap", beta=0.0, eps=0.1)(given_pool).indices.tolist()
    assert (set(order[:2]), order[2:]) == ({1, 2}, [0, 3])
    order = strategy("kd_gap", beta=0.0)(given_pool).indices.tolist()
    assert (order[0], set(order[1:3]), order[3]) == (
        0,
        {1, 2},
        3,
    )  # the gaps of 1 and 2 are the same the other way round
