import numpy as np
import pytest

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.coverage import GRID, UnitRows
from kdal_core.acquisition.strategies.uherding import kernel_width, tempered
from kdal_core.errors import KdalError


def pool(seed=0, size=40, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "features": rng.normal(size=(size, 5)),
        "labelled_features": rng.normal(size=(6, 5)),
        "probabilities": rng.dirichlet(np.ones(3), size),
        "budget": 10,
    }
    return PoolScores(**(arrays | changes))


def test_where_all_images_are_equally_uncertain_and_nothing_is_labelled_it_is_maxherding():
    nothing = pool(labelled_features=None, probabilities=np.tile([0.5, 0.5, 0.0], (40, 1)))
    bare = PoolScores(features=nothing.features, budget=10)
    for given_pool in (nothing, bare):
        order, plain = strategy("uherding")(given_pool), strategy("maxherding")(given_pool)
        assert order.indices.tolist() == plain.indices.tolist()
        assert order.scores.tolist() == pytest.approx(plain.scores.tolist())


def test_as_labels_come_close_it_goes_over_to_the_margin():
    rng = np.random.default_rng(1)
    close = rng.normal(size=(1, 5)) + np.array([[0.0] * 5, [1e-3] + [0.0] * 4])
    given_pool = pool(labelled_features=close)
    order, margin = strategy("uherding")(given_pool), strategy("margin")(given_pool)
    assert order.indices[:10].tolist() == margin.indices[:10].tolist()


def test_sure_images_need_not_be_covered():
    rows = np.array([[3.0, 0], [3, 0.1], [3, -0.1], [-1, 3], [-1, -3]])
    sure = np.tile([1.0, 0.0], (5, 1))
    sure[3] = 0.5
    assert strategy("uherding")(PoolScores(features=rows, probabilities=sure, budget=1)).indices[0] == 3
    assert strategy("uherding")(PoolScores(features=rows, budget=1)).indices[0] != 3


def test_the_width_is_the_smallest_distance_between_two_labelled_images_that_differ():
    def width(*rows):
        return kernel_width(UnitRows(np.zeros((0, 2), np.float32), np.array(rows, np.float32).reshape(-1, 2)))

    assert width() == width((GRID, 0)) == width((GRID, 0), (GRID, 0)) == width((GRID, 0), (-GRID, 0)) == 1
    assert width((GRID, 0), (-GRID, 0), (GRID, 0), (GRID - 300, 400)) == pytest.approx(500 / GRID)


def test_a_temperature_divides_the_logits():
    logits = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 3.0]])

    def softmax(values):
        powers = np.exp(values)
        return powers / powers.sum(axis=1, keepdims=True)

    for temperature in (0.5, 1.0, 3.0):
        np.testing.assert_allclose(tempered(softmax(logits), temperature), softmax(logits / temperature))
    assert tempered(np.array([[1.0, 0.0]]), 2.0).tolist() == [[1.0, 0.0]]


def test_without_predictions_it_orders_only_a_pool_of_which_nothing_is_labelled():
    with pytest.raises(KdalError, match="needs probabilities"):
        strategy("uherding")(pool(probabilities=None))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(KdalError, match="temperature"):
        strategy("uherding", temperature=temperature)(pool())
