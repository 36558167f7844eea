"""Labels saved against a random order: when it can be told, and how often what is told is wrong."""

import numpy as np
import pytest

from kdal_core.errors import KdalError
from kdal_core.evaluation import as_points, labels_saved, learning_curve
from kdal_core.evaluation.learning_curve import LearningCurve

ROUNDS = np.arange(50, 551, 50)
HALF = ROUNDS[1:] // 2
"""Labels drawn at random, where they are half of each batch."""


def exact(labels, values, images):
    """A curve on which as many are right as there should be."""
    points = tuple(as_points(labels, values, images))
    return LearningCurve(points, sum(point.images for point in points), 0, 0.95)


def law(labels, error=0.5, exponent=0.5):
    return 1 - error * (np.asarray(labels) / 50) ** -exponent


def drawn(rng, labels, values, images):
    right = [rng.random(images) < value for value in values]
    return learning_curve(np.repeat(labels, images), np.concatenate(right), np.ones(images * len(labels)))


def test_an_order_that_needs_half_the_labels_is_told_with_many_images():
    found = labels_saved(exact(ROUNDS, law(2 * ROUNDS), 2000), exact(HALF, law(HALF), 2000))
    assert found.told
    assert found.random_labels == 275
    assert found.interval.low <= 275 / 2 <= found.interval.high
    assert found.share == pytest.approx(0.5, abs=0.1)
    assert "What 275 labels in a random order reach, this order reached with about 1" in found.sentence


def test_an_order_that_wastes_labels_is_told_as_well():
    found = labels_saved(exact(ROUNDS, law(0.5 * ROUNDS), 2000), exact(HALF, law(HALF), 2000))
    assert found.told
    assert found.share < -0.5


def test_few_images_tell_nothing_and_say_how_many_more_it_takes():
    few = labels_saved(exact(ROUNDS, law(2 * ROUNDS), 20), exact(HALF, law(HALF), 20))
    assert not few.told
    assert few.more > 0
    assert f"about {few.more:,} more images" in few.sentence
    enough = 20 + few.more // 10 + 1
    more = labels_saved(exact(ROUNDS, law(2 * ROUNDS), 2 * enough), exact(HALF, law(HALF), 2 * enough))
    assert more.told


@pytest.mark.parametrize("images", [10, 40])
def test_an_order_that_saves_nothing_is_said_to_in_one_of_twenty_projects_at_most(images):
    rng, told = np.random.default_rng(0), 0
    for _ in range(60):
        error, exponent = rng.uniform(0.1, 0.4), 0.5 * np.exp(0.5 * rng.normal())
        served, at_random = (law(labels, error, exponent).clip(0.02) for labels in (ROUNDS, HALF))
        told += labels_saved(drawn(rng, ROUNDS, served, images), drawn(rng, HALF, at_random, images)).told
    assert told <= 3


def test_before_as_many_are_drawn_as_the_first_model_had_nothing_is_compared():
    served = exact(ROUNDS, law(ROUNDS), 5)
    found = labels_saved(served, exact([10, 30], [0.3, 0.4], 10))
    assert (found.needed, found.share, found.told, found.more) == (None, None, False, 21)
    assert "at least 21 more" in found.sentence
    assert labels_saved(served, exact([], [], 5)).more == 51
    assert labels_saved(exact([], [], 5), exact([], [], 5)).more == 20


def test_a_random_order_that_is_beyond_all_that_was_served_is_said_to_be():
    found = labels_saved(exact(ROUNDS, np.full(len(ROUNDS), 0.5), 2000), exact(HALF, law(HALF), 2000))
    assert found.told
    assert np.isinf(found.interval.high)
    assert "more than it has" in found.sentence


def test_a_level_out_of_range_is_refused():
    with pytest.raises(KdalError):
        labels_saved(exact([], [], 5), exact([], [], 5), level=1)
