from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.shuffling import drawn_order
from kdal_core.acquisition.strategies.badge import draw, seeds


def embeddings(probabilities, features):
    """The (N, C · D) gradients themselves."""
    residual = probabilities - np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return (residual[:, :, None] * features[:, None, :]).reshape(len(features), -1)


def pool(seed, size=30, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        "features": np.round(rng.normal(size=(size, 4)), 3),
        "probabilities": np.round(rng.dirichlet(np.ones(3), size), 4),
    }
    return PoolScores(**(arrays | {"seed": seed} | changes))


@given(st.integers(0, 10_000))
def test_badge_is_k_means_plus_plus_over_the_gradients_it_never_makes(seed):
    given_pool = pool(seed, budget=10)
    drawn = drawn_order(30, seed)  # it is given the pool in this order
    gradients = embeddings(given_pool.probabilities, given_pool.features)[drawn]
    generator = given_pool.generator()
    picks = [int((gradients**2).sum(axis=1).argmax())]
    while len(picks) < 10:
        distance = ((gradients[:, None] - gradients[picks]) ** 2).sum(axis=2).min(axis=1)
        picks.append(draw(np.where(np.isin(np.arange(30), picks), 0, distance), generator))
    order = strategy("badge")(given_pool)
    assert order.indices[:10].tolist() == drawn[picks].tolist()
    left = ((gradients[:, None] - gradients[picks]) ** 2).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(order.scores[10:], left[np.argsort(drawn)][order.indices[10:]], atol=1e-9)
    assert (np.diff(order.scores[10:]) <= 0).all()


def test_the_gradient_is_that_of_cross_entropy_with_the_predicted_class_as_label():
    """As torch differentiates it; the order of the first pick follows its length."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    probabilities = np.exp(features @ weights.T) / np.exp(features @ weights.T).sum(axis=1, keepdims=True)
    lengths = []
    for row in features:
        layer = torch.tensor(weights, requires_grad=True)
        logits = layer @ torch.tensor(row)
        torch.nn.functional.cross_entropy(logits[None], logits.argmax()[None]).backward()
        lengths.append(float((layer.grad**2).sum()))
    order = strategy("badge")(PoolScores(features=features, probabilities=probabilities, budget=1))
    assert order.indices[0] == int(np.argmax(lengths))
    assert order.scores[0] == pytest.approx(max(lengths), rel=1e-3)


def test_the_second_pick_is_drawn_in_proportion_to_the_squared_distance():
    left, right = np.ones((4, 1)), np.array([[4.0], [3.0], [2.0], [0.0]])  # squared distances to the first: 1, 4, 16
    drawn = Counter(int(seeds(left, right, 2, np.random.default_rng(seed))[0][1]) for seed in range(4000))
    for point, share in ((1, 1 / 21), (2, 4 / 21), (3, 16 / 21)):
        assert drawn[point] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_what_has_no_weight_is_never_drawn():
    weights = np.array([0.0, 1.0, 0.0, 2.0, 0.0])
    assert {draw(weights, np.random.default_rng(seed)) for seed in range(200)} == {1, 3}


class AlmostOne(np.random.Generator):
    """A generator whose next number is the largest below 1."""

    def random(self):
        return np.nextafter(1.0, 0.0)


def test_rounding_up_to_the_whole_sum_still_draws_an_image_with_weight():
    weights = np.array([1e-300, 1e300, 3.0, 0.0])
    assert draw(weights, AlmostOne(np.random.PCG64(0))) == 1


def test_copies_of_a_pick_are_not_picked():
    given_pool = pool(0, size=6)
    twice = PoolScores(
        features=np.tile(given_pool.features, (5, 1)),
        probabilities=np.tile(given_pool.probabilities, (5, 1)),
        budget=20,
    )
    order = strategy("badge")(twice).indices
    assert {int(i) % 6 for i in order[:6]} == set(range(6))
    behind = set(order[6:].tolist())
    assert order[6:].tolist() == [i for i in drawn_order(30, 0).tolist() if i in behind]


def test_certain_predictions_have_no_gradient_and_come_at_random():
    certain = PoolScores(features=np.random.default_rng(0).normal(size=(5, 2)), probabilities=np.eye(5), budget=3)
    assert strategy("badge")(certain).indices.tolist() == drawn_order(5, 0).tolist()


def test_another_seed_draws_another_batch_that_begins_alike():
    large = pool(3, size=200, budget=20)
    first, second = (strategy("badge")(replace(large, seed=seed)).indices for seed in (0, 1))
    assert first[0] == second[0]
    assert first[:20].tolist() != second[:20].tolist()
