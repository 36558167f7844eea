from dataclasses import replace

import numpy as np
import pytest

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.errors import KdalError


def pool(labelled, budget=10):
    rng = np.random.default_rng(0)
    return PoolScores(
        features=rng.normal(size=(60, 4)),
        labelled_features=rng.normal(size=(labelled, 4)),
        probabilities=rng.dirichlet(np.ones(3), 60),
        budget=budget,
    )


@pytest.mark.parametrize(("labelled", "stands_for"), [(0, "typiclust"), (19, "typiclust"), (20, "margin")])
def test_after_two_batches_of_typical_images_the_margin_decides(labelled, stands_for):
    order = strategy("tcm")(pool(labelled))
    assert order.indices.tolist() == strategy(stands_for)(pool(labelled)).indices.tolist()


def test_how_many_batches_can_be_told():
    assert strategy("tcm", typical=1)(pool(10)).indices.tolist() == strategy("margin")(pool(10)).indices.tolist()
    assert strategy("tcm", typical=5)(pool(49)).indices.tolist() == strategy("typiclust")(pool(49)).indices.tolist()


def test_without_predictions_it_orders_only_a_pool_of_which_nothing_is_labelled():
    strategy("tcm")(replace(pool(0), probabilities=None))
    with pytest.raises(KdalError, match="needs probabilities"):
        strategy("tcm")(replace(pool(3), probabilities=None))


@pytest.mark.parametrize("typical", [0, -1, 1.5])
def test_a_number_of_batches_below_one_is_refused(typical):
    with pytest.raises(KdalError, match="typical"):
        strategy("tcm", typical=typical)(pool(3))
