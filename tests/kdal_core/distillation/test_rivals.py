from dataclasses import replace

import numpy as np
import pytest
import torch

from kdal_core.distillation import (
    MixupConfig,
    Problem,
    QueryLedger,
    StageConfig,
    TorchTeacher,
    confidence_curves,
    method,
    method_names,
    mixup_pairs,
)
from kdal_core.distillation.rivals.fskd import pseudo_examples
from kdal_core.distillation.rivals.vanilla_active import lowest_mixes
from kdal_core.distillation.rivals.zskd import (
    TEMPERATURE,
    HotLabelTask,
    data_impressions,
    impression_targets,
    last_weights,
)
from kdal_core.errors import ConfigError
from kdal_core.training import TrainConfig

CLASSES = tuple("0123456789")
TRAIN = TrainConfig(epochs=2, batch_size=32, min_steps=15, max_steps=15, lr=4e-3, device="cpu")
CONFIG = MixupConfig(training=StageConfig(stages=2, train=TRAIN), lambdas=(0.3, 0.5, 0.7))


@pytest.fixture
def problem(student, digits):
    teacher = TorchTeacher(student, CLASSES, device="cpu")
    return Problem(teacher, digits.images[300:320], "tiny_cnn", QueryLedger(50), CONFIG, white_box=student)


@pytest.mark.parametrize("name", method_names())
def test_every_method_gives_a_student_within_the_budget(name, problem):
    result = method(name)(problem)
    assert result.student(problem.images.float() / 255).shape == (20, 10)
    assert result.spec.architecture == "tiny_cnn"
    assert result.ledger.spent == {"vanilla_kd": 20, "zskd": 0}.get(name, 50)
    assert not result.student.training


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigError, match="active_mixup"):
        method("mixup")


def test_vanilla_active_learning_takes_the_lowest_mixes_however_alike(student, digits):
    images, grid = digits.images[:15], np.array([0.3, 0.5, 0.7])
    found = lowest_mixes(student, images, 40, grid, np.empty(0, np.int64), np.random.default_rng(0))
    curves = confidence_curves(student, images, mixup_pairs(15), grid)
    order = np.argsort(curves.ravel(), kind="stable")[:40]
    assert np.array_equal(found.pairs, mixup_pairs(15)[order // 3])
    assert np.array_equal(found.lambdas, grid[order % 3])
    assert len({tuple(pair) for pair in found.pairs.tolist()}) < 40
    rest = lowest_mixes(student, images, 40, grid, order, np.random.default_rng(0))
    assert np.array_equal(rest.confidence, np.sort(curves.ravel())[40:80])


def test_pseudo_examples_are_harder_for_the_student_and_still_near(student, digits):
    images = digits.images[300:340]
    answers = student(images.float() / 255).detach().softmax(1)
    moved = pseudo_examples(student, images, answers, torch.Generator().manual_seed(0))
    assert (moved.dtype, moved.shape) == (torch.uint8, images.shape)
    before, after = (
        torch.nn.functional.cross_entropy(student(x.float() / 255), answers).item() for x in (images, moved)
    )
    assert after > 2 * before
    assert (moved.int() - images.int()).abs().float().mean() < 0.25 * 255


def test_the_targets_of_impressions_are_probabilities_with_their_class_ahead_on_the_whole():
    weights = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    targets = impression_targets(weights, 1000, np.random.default_rng(0))
    assert np.allclose(targets.sum(axis=1), 1)
    assert (targets.argmax(axis=1) == np.arange(1000) % 5).mean() > 0.5
    alike = weights.clone()
    alike[1] = alike[0] + 0.01 * alike[1]
    beside = impression_targets(alike, 1000, np.random.default_rng(0))[::5].mean(axis=0)
    assert beside[1] > 3 * beside[2:].max()


def test_data_impressions_are_what_the_teacher_takes_for_their_class(student):
    targets = torch.from_numpy(impression_targets(last_weights(student), 40, np.random.default_rng(0))).float()
    images = data_impressions(student, targets, (8, 8), np.random.default_rng(0))
    with torch.inference_mode():
        found = student(images.float() / 255).argmax(1)
    assert (found == targets.argmax(1)).float().mean() > 0.7


def test_a_student_of_impressions_learns_the_logits_of_a_teacher_that_is_certain():
    logits = torch.tensor([[60.0, 20.0, 0.0], [0.0, 80.0, 70.0]])
    task = HotLabelTask(("a", "b", "c"))
    answers = task.collate(list((logits / TEMPERATURE).softmax(dim=1)))
    (same,) = torch.autograd.grad(task.loss(known := logits.clone().requires_grad_(), answers), known)
    (half,) = torch.autograd.grad(task.loss(known := (logits / 2).requires_grad_(), answers), known)
    assert same.abs().max() < 1e-4
    assert half.abs().max() > 1


def test_zero_shot_distillation_needs_a_white_box(problem):
    with pytest.raises(ConfigError, match="white_box"):
        method("zskd")(replace(problem, white_box=None))


def test_plain_distillation_is_a_single_stage(problem):
    result = method("vanilla_kd")(problem)
    assert [(stage.number, stage.images) for stage in result.history] == [(0, 20)]
