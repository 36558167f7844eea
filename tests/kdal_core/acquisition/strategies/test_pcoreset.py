import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.errors import KdalError


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_each_pick_is_the_prediction_farthest_from_all_before_it(seed, labelled):
    rng = np.random.default_rng(seed)
    seen, known = rng.dirichlet(np.ones(3), 25), rng.dirichlet(np.ones(3), labelled)
    order = strategy("pcoreset")(PoolScores(probabilities=seen, labelled_probabilities=known, budget=10))
    nearest = cdist(seen, known).min(axis=1)
    for pick, score in zip(order.indices[:10], order.scores[:10], strict=True):
        assert nearest[pick] == pytest.approx(nearest.max(), abs=1e-5)
        assert score == pytest.approx(nearest.max(), abs=1e-5)
        nearest = np.minimum(nearest, cdist(seen, seen[[pick]])[:, 0])
    np.testing.assert_allclose(order.scores[10:], np.sort(nearest)[::-1][:15], atol=1e-5)


def test_it_is_coreset_on_predictions():
    seen = np.random.default_rng(0).dirichlet(np.ones(4), 60)
    order = strategy("pcoreset")(PoolScores(probabilities=seen, budget=20))
    same = strategy("coreset")(PoolScores(features=np.round(seen, 4), budget=20))
    assert order.indices[:5].tolist() == same.indices[:5].tolist()


def test_predictions_like_those_of_labelled_images_come_last():
    seen = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0]])
    order = strategy("pcoreset")(PoolScores(probabilities=seen, labelled_probabilities=seen[[0, 2]], budget=2))
    assert order.indices.tolist()[:2] == [1, 3]


def test_dense_predictions_are_one_long_row():
    seen = np.random.default_rng(0).dirichlet(np.ones(3), (12, 2, 4))
    dense = strategy("pcoreset")(
        PoolScores(probabilities=seen[:10], labelled_probabilities=seen[10:], budget=10)
    ).indices.tolist()
    left, nearest = list(range(10)), cdist(seen[:10].reshape(10, -1), seen[10:].reshape(2, -1)).min(axis=1)
    assert dense[0] == nearest.argmax()
    assert sorted(dense) == left


def test_predictions_of_other_classes_are_refused():
    with pytest.raises(KdalError, match="columns"):
        strategy("pcoreset")(PoolScores(probabilities=np.eye(3), labelled_probabilities=np.eye(2)))
