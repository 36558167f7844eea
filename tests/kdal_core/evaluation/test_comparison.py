"""When a model counts as worse, and how often that errs."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from kdal_core.errors import KdalError
from kdal_core.evaluation import compare, image_scores
from kdal_core.tasks import BoxTask, ClassificationTask
from kdal_core.tasks.box import Box

right_or_wrong = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


def test_two_labels_refuse_nothing_and_five_may():
    for count in range(5):
        assert not compare([0] * count, [1] * count).worse()
    assert compare([0] * 5, [1] * 5).worse()


@given(right_or_wrong)
def test_right_and_wrong_images_are_tested_by_mcnemars_exact_test(pairs):
    new, serving = [a for a, _ in pairs], [b for _, b in pairs]
    found = compare(new, serving)
    lost, won = sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs)
    assert (found.images, found.worse_on, found.better_on) == (len(pairs), lost, won)
    assert found.p_value == pytest.approx(binom.sf(lost - 1, lost + won, 0.5), abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 16), st.integers(0, 16)), max_size=9))
def test_other_scores_are_tested_by_all_swaps(pairs):
    new, serving = np.array(pairs).reshape(-1, 2).T / 16  # so that equal sums are equal to the last digit
    gains = new - serving
    means = [gains @ signs for signs in product((-1, 1), repeat=len(gains))]
    expected = np.mean([mean <= gains.sum() + 1e-9 for mean in means])
    assert compare(new, serving).p_value == pytest.approx(expected, abs=1e-6)


def test_many_scores_are_tested_by_the_same_random_swaps_every_time():
    rng = np.random.default_rng(0)
    serving = rng.uniform(size=200)
    new = serving - 0.05 + rng.normal(0, 0.3, 200)
    first, second = compare(new, serving), compare(new, serving)
    assert first == second
    assert 0.0001 < first.p_value < 0.5


@pytest.mark.parametrize("graded", [False, True])
def test_an_equally_good_model_is_refused_in_no_more_than_one_of_twenty_cases(graded):
    """2,000 draws: 0.05 and four standard errors of it make 0.07."""
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(2000 if not graded else 300):
        new, serving = rng.uniform(size=(2, 12)) if graded else rng.integers(0, 2, size=(2, 30))
        refused += compare(new, serving).worse()
    assert refused / (2000 if not graded else 300) < (0.07 if not graded else 0.1)


def test_a_much_worse_model_is_found_out_by_fifty_labels():
    rng = np.random.default_rng(2)
    found = [compare(rng.uniform(size=50) < 0.5, rng.uniform(size=50) < 0.9).worse() for _ in range(200)]
    assert np.mean(found) > 0.95


@given(right_or_wrong)
def test_a_model_is_never_both_worse_and_better_and_is_not_worse_than_itself(pairs):
    new, serving = [a for a, _ in pairs], [b for _, b in pairs]
    assert not (compare(new, serving).worse() and compare(serving, new).worse())
    assert compare(new, new).p_value == 1


@pytest.mark.parametrize(("new", "serving"), [([1], [1, 0]), ([np.nan], [1]), ([[1]], [[1]]), ([np.inf], [0])])
def test_scores_that_are_none_are_refused(new, serving):
    with pytest.raises(KdalError):
        compare(new, serving)


def test_a_score_of_each_image_is_the_tasks_own():
    task = ClassificationTask(("cat", "dog"))
    predictions = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], dtype=np.float32)
    assert image_scores(task, predictions, [0, 1, 1]).tolist() == [1, 0, 1]
    assert image_scores(task, predictions[:0], []).tolist() == []
    boxes = np.array([[[0, 0, 0.5, 0.5, 0.9, 0]], [[0, 0, 0.5, 0.5, 0.9, 0]]], dtype=np.float32)
    found = image_scores(BoxTask(("cell",)), boxes, [(Box(0, 0, 0.5, 0.5),), ()])
    assert found.tolist() == pytest.approx([1, 0])
    with pytest.raises(KdalError, match="2 predictions but 1 targets"):
        image_scores(task, predictions[:2], [0])
