"""Learning curves of test-then-train, and how often their intervals hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from kdal_core.acquisition import explore
from kdal_core.errors import KdalError
from kdal_core.evaluation import bootstrap, learning_curve, mean_interval, wilson


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.8, 0.95]))
def test_wilsons_interval_is_scipys(trials, part, level):
    successes = round(part * trials)
    expected = binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert wilson(successes, trials, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("images", [5, 20, 50])
@pytest.mark.parametrize("accuracy", [0.6, 0.85, 0.95])
def test_wilsons_interval_holds_the_accuracy_in_nine_of_ten_cases_and_more(images, accuracy):
    """By the exact distribution; 95% is what it has on average over accuracies."""
    held = [low <= accuracy <= high for low, high in (wilson(right, images) for right in range(images + 1))]
    assert binom.pmf(np.arange(images + 1), images, accuracy)[held].sum() > 0.9


def test_the_bootstrap_holds_the_mean_in_nine_of_ten_cases_and_more():
    rng = np.random.default_rng(0)
    draws = [rng.beta(6, 2, 20) for _ in range(150)]
    intervals = [mean_interval(values) for values in draws]
    assert np.mean([low <= 0.75 <= high for low, high in intervals]) > 0.9
    widths = [high - low for low, high in intervals]
    t_width = 2 * 2.093 * math.sqrt(6 * 2 / (8**2 * 9) / 20)
    assert np.mean(widths) == pytest.approx(t_width, rel=0.1)


def test_a_few_graded_images_and_equal_ones_have_wilsons_interval_which_is_no_narrower():
    assert mean_interval([0.5, 0.7, 0.9]) == wilson(2.1, 3)
    assert mean_interval([0.7] * 30) == pytest.approx(wilson(21, 30))
    assert bootstrap(lambda images: 1.0, 1) == (0, 1)


def test_a_point_for_each_model_from_images_drawn_at_random_alone():
    labels = np.repeat([0, 50, 100], 10)
    score = np.tile([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], 3)
    at_random = np.tile([1, 1, 0, 1, 0, 0, 0, 0, 0, 0], 3)
    at_random[:10] = 0
    curve = learning_curve(labels, score, at_random)
    assert [(point.labels, point.images, point.value) for point in curve.points] == [(50, 3, 2 / 3), (100, 3, 2 / 3)]
    assert (curve.points[0].low, curve.points[0].high) == wilson(2, 3)
    assert (curve.images, curve.left_out) == (6, 24)
    assert "66.7%" in curve.sentence
    assert "3 images" in curve.sentence


def test_without_an_image_drawn_at_random_nothing_is_said():
    for rows in ([], [50]):
        curve = learning_curve(rows, [1] * len(rows), [False] * len(rows))
        assert curve.points == ()
        assert "Nothing can be said" in curve.sentence


def test_a_metric_of_a_set_is_bootstrapped_over_images():
    """F1 of all objects together, as a set's mAP would be."""
    rng = np.random.default_rng(1)
    hits, found, there = rng.poisson(4, (3, 60)) + np.array([[0], [2], [3]])

    def f1(rows):
        return 2 * np.minimum(hits, np.minimum(found, there))[rows].sum() / (found[rows].sum() + there[rows].sum())

    curve = learning_curve([20] * 30 + [40] * 30, f1, [True] * 60)
    first = curve.points[0]
    assert first.value == pytest.approx(f1(np.arange(30)))
    assert first.low < first.value < first.high
    assert first.high - first.low < 0.3


def test_trials_say_how_much_graded_images_tell():
    right_or_wrong = learning_curve([1] * 40, [1, 0] * 20, [True] * 40).points[0]
    graded = learning_curve([1] * 40, [0.6, 0.4] * 20, [True] * 40).points[0]
    assert right_or_wrong.trials == 40
    assert graded.trials > 400


def test_what_is_seen_on_images_drawn_at_random_is_true_of_the_pool_and_on_the_others_it_is_not():
    """An order that looks for hard images, and a model that is right on three of four."""
    rng = np.random.default_rng(2)
    right = rng.random(2000) < 0.75
    order = np.argsort(right + 0.5 * rng.random(2000))
    honest, chosen = [], []
    for seed in range(60):
        explored = explore(order, 0.2, budget=100, batches=1, seed=seed)
        batch = explored.indices[:100]
        at_random = np.isin(batch, explored.drawn)
        honest.append(learning_curve([50] * 100, right[batch], at_random).points[0])
        chosen.append(right[batch].mean())
    assert np.mean([point.low <= right.mean() <= point.high for point in honest]) >= 0.9
    assert np.mean([point.value for point in honest]) == pytest.approx(right.mean(), abs=0.04)
    assert np.mean(chosen) < 0.3


@pytest.mark.parametrize(
    "arguments",
    [
        ([1, 2], [1], [1, 1]),
        ([1, 2], [1, 1], [1]),
        ([-1], [1], [1]),
        ([1.5], [1], [1]),
        ([1], [1.5], [1]),
        ([1] * 3, lambda rows: 2.0, [1] * 3),
    ],
)
def test_bad_input_is_refused(arguments):
    with pytest.raises(KdalError):
        learning_curve(*arguments)


@pytest.mark.parametrize("level", [0, 1, 1.5])
def test_levels_lie_between_0_and_1(level):
    with pytest.raises(KdalError):
        wilson(1, 2, level)
