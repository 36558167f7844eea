"""The probabilities that inference gives beside predictions, for tasks with one distribution an image and with many."""

import numpy as np
import pytest
import torch

from kdal_core.tasks import LaneTask, LearningLossTask
from kdal_core.training import inference
from kdal_core.training.inference import infer

ROADS = torch.randint(0, 256, (11, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def lanes():
    return LaneTask(("lane",), slots=4, rows=6, columns=8)


def test_a_classifiers_distributions_are_its_predictions(task, digits):
    found = infer(task, task.build("tiny_cnn", (8, 8)), digits.images[:20], distributions=True)
    assert np.array_equal(found.distributions, found.predictions)
    assert infer(task, task.build("tiny_cnn", (8, 8)), digits.images[:20]).distributions is None


def test_a_lane_has_a_distribution_for_each_row_from_which_its_prediction_follows(lanes):
    model = lanes.build("tiny_rows", (32, 64), seed=1)
    found = infer(lanes, model, ROADS, distributions=True)
    assert found.distributions.shape == (11, 4, 6, 9)
    assert found.distributions.dtype == np.float16
    np.testing.assert_allclose(found.distributions.astype(float).sum(axis=-1), 1, atol=1e-3)
    there = np.isfinite(found.predictions[..., :6])
    scores = np.ma.masked_array(1 - found.distributions[..., -1].astype(float), ~there).mean(axis=-1)
    assert there.any()
    np.testing.assert_allclose(found.predictions[..., 6], scores.filled(0), atol=1e-3)


def test_distributions_do_not_hang_on_batches_nor_on_where_they_are_kept(lanes, monkeypatch):
    model = lanes.build("tiny_rows", (32, 64), seed=1)
    whole = infer(lanes, model, ROADS, device="cpu", distributions=True).distributions
    parts = [infer(lanes, model, ROADS[i : i + 4], device="cpu", distributions=True).distributions for i in (0, 4, 8)]
    assert np.array_equal(np.concatenate(parts), whole)
    monkeypatch.setattr(inference, "KEEP_IN_MEMORY", 100)
    on_disk = infer(lanes, model, ROADS, device="cpu", distributions=True).distributions
    assert isinstance(on_disk, np.memmap)
    assert np.array_equal(on_disk, whole)


def test_a_loss_head_leaves_the_distributions_as_they_are(task, digits):
    wrapped = LearningLossTask(task)
    model = wrapped.build("tiny_cnn", (8, 8), seed=3)
    found = infer(wrapped, model, digits.images[:9], device="cpu", distributions=True)
    assert np.array_equal(found.distributions, found.predictions[:, :-1])
