import numpy as np
import pytest

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.strategies.dropquery import disagreement
from kdal_core.errors import KdalError


def one_hot(*classes):
    return np.eye(3)[np.array(classes)]


def test_an_image_disagrees_by_the_share_of_passes_that_see_another_class():
    usual = one_hot(0, 1, 2, 2)
    passes = np.stack([one_hot(0, 1, 2, 0), one_hot(0, 2, 2, 1), one_hot(0, 0, 1, 0)])
    found = disagreement(PoolScores(probabilities=usual, dropout=passes))
    assert found.tolist() == pytest.approx([0, 2 / 3, 1 / 3, 1])


def test_a_dense_prediction_disagrees_by_the_share_of_its_distributions():
    usual = np.stack([one_hot(0, 1), one_hot(2, 2)])
    passes = np.stack([np.stack([one_hot(0, 1), one_hot(2, 0)]), np.stack([one_hot(1, 1), one_hot(0, 0)])])
    assert disagreement(PoolScores(probabilities=usual, dropout=passes)).tolist() == [0.25, 0.75]


CROWDS = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [100.0, 100.0]])


def crowds(sizes=(9, 7, 5, 3)):
    """Around each of four places a cross of images, the middle one of them exactly there."""
    rng = np.random.default_rng(0)
    rows, where = [], []
    for crowd, (place, size) in enumerate(zip(CROWDS, sizes, strict=True)):
        around = rng.normal(size=(size // 2, 2))
        rows.append(np.concatenate([[place], place + around, place - around]))
        where += [crowd] * len(rows[-1])
    return np.concatenate(rows), np.array(where)


def test_of_each_crowd_the_image_in_the_middle_comes_first_the_largest_crowd_before_the_others():
    rows, _ = crowds()
    order = strategy("dropquery")(PoolScores(features=rows, budget=4))
    assert rows[order.indices[:4]].tolist() == CROWDS.tolist()
    assert order.scores[:4].tolist() == pytest.approx([0] * 4, abs=0.05)


def test_only_images_on_which_most_passes_disagree_are_candidates():
    rows, where = crowds()
    usual = one_hot(*[0] * len(rows))
    passes = np.stack([one_hot(*np.where(where % 2 == 1, 1, 0)) for _ in range(3)])
    passes[0] = usual
    labelled = np.zeros((2, 2))
    given_pool = PoolScores(features=rows, labelled_features=labelled, probabilities=usual, dropout=passes, budget=2)
    order = strategy("dropquery")(given_pool)
    assert rows[order.indices[:2]].tolist() == CROWDS[[1, 3]].tolist()
    assert set(where[order.indices[2 : 2 + 8]]) == {1, 3}  # behind the picks the other candidates
    assert order.scores[2] == pytest.approx(2 / 3)


def test_where_too_few_disagree_those_follow_on_which_the_next_most_passes_do():
    rng = np.random.default_rng(0)
    rows, usual = rng.normal(size=(20, 2)), one_hot(*[0] * 20)
    passes = np.stack([one_hot(*[1] * 2, *[0] * 18), one_hot(*[1] * 5, *[0] * 15), one_hot(*[0] * 20)])
    given_pool = PoolScores(features=rows, labelled_features=rows[:1], probabilities=usual, dropout=passes, budget=5)
    assert set(strategy("dropquery")(given_pool).indices[:5].tolist()) == set(range(5))


@pytest.mark.parametrize("missing", ["probabilities", "dropout"])
def test_without_predictions_it_orders_only_a_pool_of_which_nothing_is_labelled(missing):
    given_pool = {"probabilities": one_hot(0, 1), "dropout": np.stack([one_hot(0, 1)] * 3)} | {missing: None}
    with pytest.raises(KdalError, match=f"needs {missing}"):
        strategy("dropquery")(PoolScores(features=np.eye(2), labelled_features=np.eye(2), **given_pool))
