import numpy as np
import pytest

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.errors import KdalError


def on_circle(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


PEERS = [
    (0, 1.0, [21, 32, 13, 0, 39, 9, 27, 22]),
    (7, 0.5, [25, 34, 18, 39, 6, 13, 33, 5]),
    (11, 0.4, [25, 17, 22, 2, 4, 6, 21, 29]),
]


@pytest.mark.parametrize(("seed", "width", "picks"), PEERS)
def test_the_first_picks_are_those_of_scikit_activeml(seed, width, picks):
    """Its MaxHerding, version 1.0.1, of the features less their mean, with metric rbf and gamma = 1 / width²."""
    rows = np.round(np.random.default_rng(seed).normal(size=(44, 4)), 2)
    given_pool = PoolScores(features=rows[:40], labelled_features=rows[40:], budget=8)
    assert strategy("maxherding", width=width)(given_pool).indices[:8].tolist() == picks


def test_the_middle_of_the_largest_crowd_comes_first():
    rows = on_circle(0, 10, 20, 120, 128, 240)
    order = strategy("maxherding", width=0.5)(PoolScores(features=rows, budget=3))
    assert order.indices[0] == 1
    assert {int(i) // 3 for i in order.indices[:2]} == {0, 1}


def test_what_a_labelled_image_is_like_is_not_asked_for():
    rows = on_circle(0, 1, 2, 3, 90, 180, 270)
    given_pool = PoolScores(features=rows, labelled_features=on_circle(1.5), budget=3)
    assert set(strategy("maxherding", width=0.5)(given_pool).indices[:3].tolist()) == {4, 5, 6}


def test_scores_are_what_the_mean_coverage_grows_by():
    rows = np.concatenate([np.eye(4), -np.eye(4)])
    order = strategy("maxherding")(PoolScores(features=rows, budget=8))
    near = np.exp(-2.0)  # six of the eight lie at right angles, sqrt(2) apart, one opposite, 2 apart
    first = (1 + 6 * near + np.exp(-4)) / 8
    assert order.scores[0] == pytest.approx(first, abs=1e-6)
    assert order.scores.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("width", [0.0, -1.0, np.nan])
def test_a_width_that_is_not_positive_is_refused(width):
    with pytest.raises(KdalError, match="width"):
        strategy("maxherding", width=width)(PoolScores(features=np.eye(3)))
