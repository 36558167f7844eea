"""Projected learning curves and the advice to stop: closed forms, and how often both err on simulated projects."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.errors import KdalError
from kdal_core.evaluation import CurvePoint, LearningCurve, as_points, fit_power_laws, learning_curve, stopping_advice

ROUNDS = np.arange(50, 551, 50)


def seen(rng, law, labels, images):
    """A learning curve of so many images a round, drawn from a power law (first error, floor, exponent)."""
    error, floor, exponent = law
    right = [rng.random(images) < 1 - floor - (error - floor) * (n / labels[0]) ** -exponent for n in labels]
    return learning_curve(np.repeat(labels, images), np.concatenate(right), np.ones(images * len(labels)))


def drawn_law(rng):
    error = rng.uniform(0.1, 0.7)
    return error, error * rng.uniform(), 0.5 * math.exp(0.7 * rng.normal())


def test_many_images_tell_the_curve_between_and_beyond_its_points():
    law = (0.4, 0.05, 0.6)
    found = fit_power_laws(seen(np.random.default_rng(0), law, ROUNDS, 2000).points)
    for labels in (60, 300, 1100):
        truth = 1 - 0.05 - 0.35 * (labels / 50) ** -0.6
        low, high = found.interval(found.values(labels))
        assert low <= truth <= high
        assert high - low < 0.05


def test_projections_hold_the_truth_as_often_as_they_say():
    """Laws as they are expected: 95 of 100 intervals hold the metric after twice the labels, and after none more."""
    rng, now, twice = np.random.default_rng(1), [], []
    for _ in range(150):
        error, floor, exponent = law = drawn_law(rng)
        found = fit_power_laws(seen(rng, law, ROUNDS[:6], 10).points)
        for labels, held in ((300, now), (600, twice)):
            low, high = found.interval(found.values(labels))
            held.append(low <= 1 - floor - (error - floor) * (labels / 50) ** -exponent <= high)
    assert np.mean(now) >= 0.9
    assert np.mean(twice) >= 0.9


@given(st.floats(0.3, 0.95))
def test_the_labels_for_a_metric_are_the_inverse_of_the_metric_after_labels(value):
    laws = fit_power_laws(as_points([50, 100, 200], [0.5, 0.6, 0.7], 20))
    for labels, single in zip(laws.labels_for(value), range(len(laws.weights)), strict=True):
        if single % 97 == 0 and 0 < labels < 1e12:
            assert laws.values(labels)[single] == pytest.approx(value, abs=1e-6)
    assert (laws.labels_for(0.001) == 0).all()
    assert np.isinf(laws.labels_for(0.9999)).any()


def test_quantiles_of_the_laws_are_weighted():
    laws = fit_power_laws(as_points([50], [0.5], 4))
    order = np.arange(len(laws.weights), dtype=float)
    below = np.cumsum(laws.weights)
    for share in (0.025, 0.5, 0.975):
        place = int(laws.quantile(order, share))
        assert below[place] >= share - 1e-9
        assert place == 0 or below[place - 1] < share


@pytest.mark.parametrize("images", [5, 20])
def test_stopping_at_a_target_comes_too_early_in_one_of_twenty_projects_at_most(images):
    """Asked after every round, on laws as they are expected and targets anywhere on the way."""
    rng, early, stopped = np.random.default_rng(2), 0, 0
    for _ in range(60):
        error, floor, exponent = law = drawn_law(rng)
        truth = 1 - floor - (error - floor) * (ROUNDS / 50) ** -exponent
        target = rng.uniform(truth[0], min(0.99, truth[-1] + 0.03))
        curve = seen(rng, law, ROUNDS, images)
        for place in range(len(ROUNDS)):
            shown = LearningCurve(curve.points[: place + 1], 0, 0, 0.95)
            if stopping_advice(shown, batch=50, left=500, target=target).verdict == "stop":
                early, stopped = early + (truth[place] < target), stopped + 1
                break
    assert early <= 3
    assert stopped >= 5


def test_a_target_far_above_the_floor_is_out_of_reach():
    curve = seen(np.random.default_rng(3), (0.5, 0.3, 1.0), ROUNDS, 100)
    advice = stopping_advice(curve, batch=50, left=1000, target=0.95)
    assert advice.verdict == "out of reach"
    assert "will not be reached" in advice.sentence


def test_going_on_tells_how_many_labels_the_target_takes():
    curve = seen(np.random.default_rng(4), (0.5, 0.02, 0.5), ROUNDS, 3000)
    advice = stopping_advice(curve, batch=50, left=5000, target=0.85)
    truth = 50 * (0.13 / 0.48) ** -2
    assert advice.verdict == "go on"
    assert advice.labels_interval.low <= truth <= advice.labels_interval.high
    assert advice.labels_needed == pytest.approx(truth, rel=0.5)
    assert "Go on: 85.0% takes about" in advice.sentence


def test_a_batch_that_costs_more_than_it_is_worth_stops():
    curve = seen(np.random.default_rng(5), (0.4, 0.05, 1.0), ROUNDS, 100)
    gain = stopping_advice(curve, batch=50, left=1000, price=1, worth=1).gain
    truth = 0.35 * (11**-1.0 - 12**-1.0)
    assert gain == pytest.approx(truth, abs=0.004)
    dear = stopping_advice(curve, batch=50, left=1000, price=1.01 * 100 * gain / 50, worth=1)
    cheap = stopping_advice(curve, batch=50, left=1000, price=0.99 * 100 * gain / 50, worth=1)
    assert (dear.verdict, cheap.verdict) == ("stop", "go on")
    assert "costs more" in dear.sentence
    assert "worth its price" in cheap.sentence


def test_a_target_that_may_never_be_reached_is_said_to_be_so():
    curve = seen(np.random.default_rng(7), (0.5, 0.1, 0.5), ROUNDS, 100)
    advice = stopping_advice(curve, batch=50, left=100_000, target=0.93)
    assert math.isinf(advice.labels_needed)
    assert "may well never be reached" in advice.sentence


def test_with_few_images_nothing_is_advised():
    curve = learning_curve([50] * 19, [1] * 19, [True] * 19)
    advice = stopping_advice(curve, batch=50, left=1000, target=0.5)
    assert advice.verdict == "cannot be told yet"
    assert "there are 19" in advice.sentence


def test_without_images_left_there_is_nothing_to_gain():
    curve = seen(np.random.default_rng(6), (0.4, 0.05, 1.0), ROUNDS, 20)
    advice = stopping_advice(curve, batch=50, left=0, target=0.99)
    assert (advice.gain, advice.verdict) == (0, "out of reach")


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"target": 1.0},
        {"price": 1.0},
        {"worth": 1.0, "target": 0.5},
        {"price": -1.0, "worth": 1.0},
        {"target": 0.9, "level": 1.0},
        {"target": 0.9, "batch": 0},
        {"target": 0.9, "left": -1},
    ],
)
def test_bad_input_is_refused(asked):
    curve = LearningCurve((CurvePoint(50, 30, 0.5, 0.4, 0.6, 30.0),), 30, 0, 0.95)
    with pytest.raises(KdalError):
        stopping_advice(curve, **({"batch": 50, "left": 100} | asked))


def test_a_model_without_labels_projects_nothing():
    with pytest.raises(KdalError, match="trained on labels"):
        fit_power_laws(as_points([0], [0.1], 10))
