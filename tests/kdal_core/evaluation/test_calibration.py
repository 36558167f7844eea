"""Confidences that are right as often as they say."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from torch import from_numpy
from torchmetrics.functional.classification import multiclass_calibration_error

from kdal_core.errors import KdalError
from kdal_core.evaluation import Calibration, calibrate, calibrated, fit_scores, fit_temperature, uncalibrated
from kdal_core.tasks import BoxTask, ClassificationTask, LaneTask
from kdal_core.tasks.box import Box
from kdal_core.tasks.task import Task


def drawn(rng, count, true_temperature, classes=5):
    """Probabilities of a model whose logits should have been divided by a temperature, and labels."""
    logits = rng.normal(0, 3, (count, classes))
    truth = softmax(logits / true_temperature, axis=1)
    return softmax(logits, axis=1), np.array([rng.choice(classes, p=row) for row in truth])


def error(probabilities, targets):
    found = from_numpy(np.asarray(probabilities))
    return float(multiclass_calibration_error(found, from_numpy(targets), num_classes=found.shape[1]))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_many_labels_find_the_temperature(temperature):
    probabilities, targets = drawn(np.random.default_rng(0), 3000, temperature)
    found = fit_temperature(probabilities, targets)
    assert found == pytest.approx(temperature, rel=0.1)
    assert error(calibrated(probabilities, found), targets) < 0.03


def test_few_labels_of_a_model_that_is_too_sure_help_on_average_and_move_less_than_many():
    rng = np.random.default_rng(1)
    probabilities, targets = drawn(rng, 2000, 3.0)
    few = [fit_temperature(probabilities[i : i + 5], targets[i : i + 5]) for i in range(0, 200, 5)]
    assert 1 < np.mean(few) < 3
    assert np.std(few) < 1
    wrong = error(probabilities, targets)
    assert np.mean([error(calibrated(probabilities, t), targets) for t in few]) < wrong


def test_no_label_leaves_confidences_alone():
    assert fit_temperature(np.empty((0, 3)), []) == 1
    for task, shape in ((ClassificationTask(("a", "b")), (0, 2)), (LaneTask(("lane",)), (0, 8, 38))):
        assert calibrate(task, np.empty(shape, np.float32), []) == Calibration()


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong_stay_within_reason(count, right):
    found = fit_temperature([[0.9, 0.1]] * count, [0 if right else 1] * count)
    assert 0.1 <= found <= 10
    assert found < 1 if right else found > 1
    if count <= 2 and right:
        assert calibrated([0.9, 0.1], found)[0] < 0.95
    scores = fit_scores([0.9] * count, [right] * count).scores(0.9)
    assert scores > 0.9 if right else scores < 0.9


def test_probabilities_of_zero_and_one_are_taken():
    found = fit_temperature([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1, 0, 1])
    assert 1 < found <= 10
    assert np.isfinite(calibrated([1.0, 0.0], found)).all()


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(0.1, 10))
def test_the_order_of_the_classes_stays_and_the_sum_is_one(weights, temperature):
    before = np.array(weights) / sum(weights)
    after = calibrated(before, temperature)
    assert after.sum() == pytest.approx(1)
    assert after[before.argmax()] == pytest.approx(after.max())
    assert (np.diff(after[np.argsort(before)]) >= -1e-12).all()


def test_scores_of_objects_say_how_often_they_are_right():
    rng = np.random.default_rng(2)
    scores = rng.uniform(0.05, 0.95, 5000)
    right = rng.uniform(size=5000) < 1 / (1 + np.exp(-(np.log(scores / (1 - scores)) / 0.5 + 1)))
    found = fit_scores(scores, right, even=0.45)
    assert (found.temperature, found.offset) == (pytest.approx(0.5, rel=0.15), pytest.approx(1, rel=0.2))
    assert found.labels == 5000
    sure = found.scores(scores)
    for low in np.arange(0.1, 0.9, 0.2):
        bin_ = (sure >= low) & (sure < low + 0.2)
        assert right[bin_].mean() == pytest.approx(sure[bin_].mean(), abs=0.05)


def test_before_any_label_the_score_that_a_kind_of_task_expects_to_be_even_is_even():
    for task in (ClassificationTask(("a", "b")), BoxTask(("cell",)), LaneTask(("lane",))):
        assert uncalibrated(task).scores(np.array(task.even)) == pytest.approx(0.5)
    assert np.isnan(Calibration(2.0).scores([np.nan, 0.5])).tolist() == [True, False]


def test_boxes_are_calibrated_by_those_that_people_labelled_too():
    task = BoxTask(("cell", "platelet"))
    box = [0.1, 0.1, 0.4, 0.4]
    predictions = np.full((300, 3, 6), np.nan, dtype=np.float32)
    predictions[:, 0] = [*box, 0.6, 0]
    predictions[:, 1] = [0.6, 0.6, 0.9, 0.9, 0.5, 1]
    found = calibrate(task, predictions, [(Box(*box, 0),)] * 300)
    assert found.labels == 600
    right, wrong = found.scores([0.6, 0.5])
    assert right > 0.75
    assert wrong < 0.25
    changed = task.rescored(predictions, found)
    assert changed[0, :2, 4] == pytest.approx([right, wrong], abs=1e-6)
    np.testing.assert_array_equal(np.delete(changed, 4, axis=2), np.delete(predictions, 4, axis=2))
    assert predictions[0, 0, 4] == pytest.approx(0.6)


def test_a_kind_of_task_that_says_nothing_of_how_sure_it_is_is_not_calibrated():
    class Plain:
        kind = "plain"

    plain: Task = Plain()
    assert calibrate(plain, np.empty((0, 2), np.float32), []) is None


def test_a_calibration_is_kept_as_json():
    before = Calibration(1.25, -0.1 / 3, 7)
    assert Calibration.from_json(json.loads(json.dumps(before.as_json()))) == before


@pytest.mark.parametrize(
    ("probabilities", "targets"),
    [([[0.5, 0.5]], [2]), ([[0.5, 0.5]], [-1]), ([[0.5, 0.5]], [0, 1]), ([0.5], [0]), ([[np.nan, 1]], [0])],
)
def test_what_cannot_be_calibrated_is_refused(probabilities, targets):
    with pytest.raises(KdalError):
        fit_temperature(probabilities, targets)


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(KdalError, match="temperature must be"):
        calibrated([0.5, 0.5], temperature)
