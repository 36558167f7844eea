"""PPAL against its formulas written out object by object."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.strategies.ppal import image_distances, medoids, objects, shown
from kdal_core.errors import ConfigError
from kdal_core.validation import InvalidInput


def pool(seed=0, size=12, most=4, classes=3, **changes):
    rng = np.random.default_rng(seed)
    found = np.round(rng.random((size, most, 6)), 3)
    found[..., 5] = rng.integers(0, classes, (size, most))
    found[np.arange(most) >= rng.integers(0, most + 1, size)[:, None]] = np.nan
    features = np.round(rng.normal(size=(size, most, 5)), 3)
    difficulty = np.round(rng.random(classes), 3)
    given_pool = {"detections": found, "object_features": features, "class_difficulty": difficulty, "budget": 3}
    return PoolScores(**{**given_pool, **changes})


def of_image(given_pool, number):
    rows = given_pool.detections[number]
    return [(row[4], int(row[5]), f) for row, f in zip(rows, given_pool.object_features[number], strict=True)
            if not np.isnan(row[0])]  # fmt: skip


def similarity(a, b):
    """S(a, b) of two lists of (score, class, features)."""
    if not a and not b:
        return 1.0
    if not a or not b:
        return -1.0
    total = 0.0
    for score, label, features in a:
        cosines = [f @ features / np.linalg.norm(f) / np.linalg.norm(features) for _, other, f in b if other == label]
        total += score * max(cosines, default=-1.0)
    return total / sum(score for score, _, _ in a)


def distances_of(given_pool, chosen):
    seen = [of_image(given_pool, number) for number in chosen]
    return np.array([[1 - (similarity(a, b) + similarity(b, a)) / 2 if a is not b else 0 for b in seen] for a in seen])


def uncertainty_of(given_pool, number, alpha=0.3, beta=0.2):
    total = 0.0
    for p, label, _ in of_image(given_pool, number):
        weight = 1 + alpha * beta * math.log(1 + (math.exp(1 / alpha) - 1) * given_pool.class_difficulty[label])
        total += weight * sum(-q * math.log(q) for q in (p, 1 - p) if q > 0)
    return total


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_distances_are_those_of_the_formula(seed):
    given_pool = pool(seed)
    scores, labels = objects(given_pool)
    found = image_distances(shown(given_pool, scores, labels, np.arange(12)))
    np.testing.assert_allclose(found, distances_of(given_pool, range(12)), atol=1e-3)  # features are rounded


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_one_pick_is_the_middle_of_the_most_uncertain_candidates(seed):
    given_pool = pool(seed, budget=1)
    order = strategy("ppal")(given_pool)
    doubt = [uncertainty_of(given_pool, number) for number in range(12)]
    candidates = sorted(range(12), key=lambda number: -doubt[number])[:4]
    sums = dict(zip(candidates, distances_of(given_pool, candidates).sum(axis=1), strict=True))
    assert sums[int(order.indices[0])] <= min(sums.values()) + 1e-2
    rest = [number for number in np.argsort(doubt)[::-1].tolist() if number != order.indices[0]]
    np.testing.assert_allclose(order.scores[1:], np.array(doubt)[rest], atol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_no_other_centre_of_a_cluster_is_nearer_to_its_images(seed):
    given_pool = pool(seed)
    scores, labels = objects(given_pool)
    distances = image_distances(shown(given_pool, scores, labels, np.arange(12)))
    centres = medoids(distances, np.array([0, 1, 2]))
    assert len(set(centres.tolist())) == 3
    cluster = distances[:, centres].argmin(axis=1)
    cluster[centres] = np.arange(3)
    for number, centre in enumerate(centres):
        members = np.flatnonzero(cluster == number)
        costs = distances[np.ix_(members, members)].sum(axis=1)
        assert distances[centre, members].sum() == pytest.approx(costs.min(), abs=1e-8)


def test_each_pick_is_farthest_from_those_before_it_and_told_by_how_much():
    given_pool = pool(3, size=30, budget=5)
    order = strategy("ppal", expand=2.0)(given_pool)
    picks = order.indices[:5]
    distances = distances_of(given_pool, picks)
    for number in range(1, 5):
        nearest = distances[number:, :number].min(axis=1)
        assert nearest[0] == pytest.approx(nearest.max(), abs=1e-3)
        assert order.scores[number] == pytest.approx(nearest[0], abs=1e-3)
    doubt = np.array([uncertainty_of(given_pool, number) for number in range(30)])
    assert set(picks.tolist()) <= set(np.argsort(-doubt)[:10].tolist())


def test_difficult_classes_count_more_and_images_of_one_kind_are_asked_for_once():
    row = [0, 0, 1, 1, 0.5]
    detections = np.array([[[*row, 0]], [[*row, 1]], [[*row, 1]], [[*row, 0]]])
    features = np.array([[[1.0, 0]], [[0, 1.0]], [[0, 1.0]], [[1.0, 0]]])
    easy_first = PoolScores(
        detections=detections, object_features=features, class_difficulty=np.array([0.0, 1.0]), budget=2
    )
    order = strategy("ppal", expand=1.0)(easy_first)
    assert set(order.indices[:2].tolist()) == {1, 2}
    assert order.scores[0] == pytest.approx(1.2 * math.log(2))
    for seed, expand in itertools.product(range(5), (2.0, 4.0)):
        spread = PoolScores(
            detections=detections,
            object_features=features,
            class_difficulty=np.array([0.5, 0.5]),
            budget=2,
            seed=seed,
        )
        kinds = [int(number) in (1, 2) for number in strategy("ppal", expand=expand)(spread).indices[:2]]
        assert sorted(kinds) == [False, True]


def test_without_a_word_on_difficulty_all_classes_are_alike():
    same = pool(class_difficulty=np.ones(3))
    found = strategy("ppal")(same), strategy("ppal")(pool(class_difficulty=None))
    assert found[0].indices.tolist() == found[1].indices.tolist()
    np.testing.assert_array_equal(found[0].scores, found[1].scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detections": np.zeros((12, 4, 5))}, "detections must be"),
        ({"detections": np.full((12, 4, 6), 2.0)}, "between 0 and 1"),
        ({"object_features": np.zeros((12, 3, 5))}, "object_features must be"),
        ({"object_features": np.full((12, 4, 5), np.nan)}, "object_features"),
        ({"class_difficulty": np.zeros(1)}, "for each class"),
        ({"class_difficulty": np.full(3, 1.5)}, "for each class"),
        ({"detections": None}, "needs detections"),
    ],
)
def test_what_is_no_description_of_boxes_is_refused(changes, message):
    with pytest.raises(InvalidInput, match=message):
        strategy("ppal")(pool(**changes))


@pytest.mark.parametrize("parameters", [{"expand": 0.5}, {"alpha": 0.0}, {"beta": -1.0}, {"expand": math.nan}])
def test_parameters_out_of_range_are_refused(parameters):
    with pytest.raises((InvalidInput, ConfigError)):
        strategy("ppal", **parameters)(pool())
