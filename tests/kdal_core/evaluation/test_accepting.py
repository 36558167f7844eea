"""From which confidence on suggestions may be accepted, and how often that breaks its promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from kdal_core.errors import KdalError
from kdal_core.evaluation import accept_threshold

PROJECTS = 200


def project(rng, images, kind):
    """Confidences and what is right, of images some of which are hard: calibrated, or not."""
    chance = rng.beta(8, 0.7, images).clip(0.2, 0.999)
    right = rng.random(images) < chance
    confidence = {
        "calibrated": chance,
        "too sure": 1 / (1 + np.exp(-2.5 * np.log(chance / (1 - chance)) - 1)),
        "noisy": (chance + rng.normal(0, 0.1, images)).clip(0, 1),
        "meaningless": rng.random(images),
        "the wrong way round": 1 - chance,
    }[kind]
    return confidence, right


@pytest.mark.parametrize("kind", ["calibrated", "too sure", "noisy", "meaningless", "the wrong way round"])
@pytest.mark.parametrize(("labels", "pool", "target"), [(30, 400, 0.9), (100, 400, 0.9), (300, 2000, 0.95)])
def test_the_target_is_met_on_hidden_labels_in_95_of_100_projects(kind, labels, pool, target):
    missed = 0
    for seed in range(PROJECTS):
        confidence, right = project(np.random.default_rng(seed), labels + pool, kind)
        found = accept_threshold(confidence[:labels], right[:labels], target, pool=confidence[labels:])
        if found.threshold is not None:
            accepted = confidence[labels:] >= found.threshold
            assert accepted.sum() == found.images > 0
            missed += right[labels:][accepted].mean() < target
    assert missed <= 0.05 * PROJECTS


@pytest.mark.parametrize("pool", [100, 1000])
def test_the_promise_holds_where_every_threshold_is_as_bad_as_it_may_be(pool):
    """One more is wrong than a pool of this accuracy may hold: the likeliest way to accept what should not be."""
    rng, labels, missed = np.random.default_rng(0), 60, 0
    for _ in range(1000):
        right = np.arange(labels + pool) >= math.floor(0.1 * pool) + 1
        right, confidence = rng.permutation(right), rng.random(labels + pool)
        found = accept_threshold(confidence[:labels], right[:labels], 0.9, pool=confidence[labels:])
        if found.threshold is not None:
            missed += right[labels:][confidence[labels:] >= found.threshold].mean() < 0.9
    assert missed / 1000 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


def test_without_a_pool_the_promise_is_on_new_images():
    missed = 0
    for seed in range(PROJECTS):
        confidence, right = project(np.random.default_rng(seed), 20_200, "calibrated")
        found = accept_threshold(confidence[:200], right[:200], 0.9)
        if found.threshold is not None:
            missed += right[200:][confidence[200:] >= found.threshold].mean() < 0.9
    assert missed <= 0.05 * PROJECTS


def test_a_good_model_has_most_of_its_suggestions_accepted():
    rng = np.random.default_rng(3)
    easy = rng.random(2300) < 0.8
    right = np.where(easy, True, rng.random(2300) < 0.5)
    confidence = np.where(easy, 0.99, 0.6) - rng.random(2300) / 100
    found = accept_threshold(confidence[:300], right[:300], 0.95, pool=confidence[300:])
    assert found.threshold is not None
    assert 0.75 < found.share < 0.92
    assert "of the pool" in found.sentence


@given(st.integers(1, 400), st.sampled_from([0.6, 0.9, 0.95, 0.99]), st.sampled_from([0.01, 0.05, 0.2]))
def test_faultless_labels_show_a_target_from_the_closed_form_number_on(labels, target, alpha):
    found = accept_threshold([0.9] * labels, [True] * labels, target, alpha)
    assert target**found.needed <= alpha
    assert found.needed == 1 or target ** (found.needed - 1) > alpha
    if labels < found.needed:
        assert found.threshold is None
        assert "cannot be shown yet" in found.sentence
    # Hoeffding's condition asks for a whole wrong one to be expected, which matters for a lenient alpha alone.
    elif labels * (1 - target) >= 1:
        assert found.threshold == 0.9


@given(st.integers(0, 60))
def test_equal_confidences_are_tested_by_the_binomial_tail(wrong):
    found = accept_threshold([0.8] * 200, [False] * wrong + [True] * (200 - wrong), 0.9)
    assert (found.threshold is not None) == (binom.cdf(wrong, 200, 0.1) <= 0.05)
    assert (found.checked, found.wrong) == (200, wrong)


def test_a_few_images_left_take_nearly_all_labels():
    """All of ten images that are left can be shown to be right only by looking at nearly all others."""
    few = accept_threshold([0.9] * 100, [True] * 100, 0.99, pool=[0.9] * 10)
    many = accept_threshold([0.9] * 400, [True] * 400, 0.99, pool=[0.9] * 10)
    assert (few.threshold, many.threshold) == (None, 0.9)


def test_where_too_much_is_wrong_the_sentence_says_so():
    found = accept_threshold([0.9] * 400, [True, False] * 200, 0.99, pool=[0.9] * 50)
    assert found.threshold is None
    assert (found.images, found.share) == (0, 0)
    assert "of the 400 surest held-out suggestions 200 were wrong" in found.sentence


def test_no_label_shows_nothing():
    for pool in (None, [], [0.5, 0.9]):
        found = accept_threshold([], [], 0.9, pool=pool)
        assert found.threshold is None
        assert "there are 0" in found.sentence


@pytest.mark.parametrize(
    "arguments",
    [
        {"confidence": [0.5, 0.6], "correct": [True], "target": 0.9},
        {"confidence": [1.5], "correct": [True], "target": 0.9},
        {"confidence": [np.nan], "correct": [True], "target": 0.9},
        {"confidence": [0.5], "correct": [True], "target": 1.0},
        {"confidence": [0.5], "correct": [True], "target": 0.9, "alpha": 0},
        {"confidence": [0.5], "correct": [True], "target": 0.9, "pool": [[0.5]]},
    ],
)
def test_bad_input_is_refused(arguments):
    with pytest.raises(KdalError):
        accept_threshold(**arguments)
