import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from scipy.stats import pearsonr, rankdata

from kdal_core.acquisition import PoolScores
from kdal_core.simulation.attributes import errors, means, rank_correlations, scores_of
from kdal_core.tasks import ClassificationTask, Lane, LaneTask


@given(st.integers(0, 10_000))
def test_a_rank_correlation_is_that_of_the_ranks(seed):
    rng = np.random.default_rng(seed)
    score, mark = rng.integers(0, 6, 30).astype(float), rng.random(30)
    mark[::7] = np.nan
    known = np.isfinite(mark)
    expected = pearsonr(rankdata(score[known]), rankdata(mark[known])).statistic
    assert rank_correlations({"a": score}, {"b": mark})["a"]["b"] == pytest.approx(expected)


def test_what_does_not_vary_goes_with_nothing_and_infinite_scores_rank_first():
    scores = {"same": np.ones(4), "rising": np.array([0.0, 1.0, 2.0, np.inf])}
    marks = {"flat": np.zeros(4), "falling": np.array([3.0, 2.0, 1.0, 0.0])}
    assert rank_correlations(scores, marks) == {"same": {}, "rising": {"falling": pytest.approx(-1)}}


def test_means_are_over_the_images_that_have_the_trait():
    traits = {"lanes": np.array([3.0, 0.0, 2.0, 9.0]), "worn": np.array([0.5, np.nan, 0.1, 1.0])}
    assert means(traits, np.array([0, 1, 2])) == {"lanes": pytest.approx(5 / 3), "worn": pytest.approx(0.3)}
    assert means(traits, np.array([1])) == {"lanes": 0.0}
    assert means({}, np.array([0])) == {}


def test_the_scores_stand_side_by_side_for_each_image():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), (6, 2, 3))
    pool = PoolScores(d_ss=np.arange(6.0), d_st=np.array([0, 1, 0, 3, 0, 5.0]), probabilities=probabilities)
    found = scores_of(pool, eps=0)
    np.testing.assert_allclose(found["entropy"], scipy_entropy(probabilities, axis=-1).mean(axis=(1, 2)), atol=1e-5)
    weights = 1 - probabilities[..., -1]
    of_lanes = (weights * scipy_entropy(probabilities, axis=-1)).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    np.testing.assert_allclose(found["entropy of lanes"], of_lanes, atol=1e-5)
    assert found["D_SS + D_ST"].tolist() == [0, 2, 2, 6, 4, 10]
    assert found["min(D_SS, D_ST)"].tolist() == [0, 1, 0, 3, 0, 5]
    assert found["Uncr, published"].tolist() == [0, 2, np.inf, 6, np.inf, 10]
    assert found["Uncr, four cases"].argmax() in (2, 4)


def test_an_images_error_is_what_its_metric_leaves():
    classes = ClassificationTask(("a", "b"))
    assert errors(classes, np.float32([[0.9, 0.1], [0.9, 0.1]]), [0, 1]).tolist() == [0.0, 1.0]
    lanes, right = LaneTask(("lane",), slots=2, rows=4, columns=4), Lane(np.array([[0.5, 0.0], [0.5, 1.0]]))
    found = np.full((3, 2, 6), np.nan, dtype=np.float32)
    found[:2, 0, :4] = 0.5
    assert errors(lanes, found, [(right,), (), (right,)]).tolist() == [0.0, 1.0, 1.0]
