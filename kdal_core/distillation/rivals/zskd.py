"""Zero-shot distillation: images made up from the inside of a white-box teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from kdal_core.distillation.rivals.protocol import Problem
from kdal_core.distillation.soft_labels import SoftLabelTask
from kdal_core.distillation.stages import Distilled, Stage
from kdal_core.errors import ConfigError
from kdal_core.training import ModelSpec, train
from kdal_core.training.config import resolve_device

TEMPERATURE = 20.0
SCALES = (1.0, 0.1)
STEPS = 50
LEARNING_RATE = 0.1
START_CELLS, START_SPREAD = 5, 6.0
"""Impressions begin as grey blobs: normal noise with this many cells a side, in logits. From noise of single pixels, as
its authors begin, a LeNet-5 takes dust for digits (docs/results/mixup.md)."""
BATCH = 128


class HotLabelTask(SoftLabelTask):
    """`SoftLabelTask` at `TEMPERATURE`: the teacher is certain of its impressions, and at 1 would say little of them.

    Source: Hinton et al. 2015 (arXiv:1503.02531), section 2, as Nayak et al. 2019 (arXiv:1905.08114) distil.
    """

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """(B,) T² times the cross-entropy of logits (B, C) / T against probabilities at T, in nats."""
        return TEMPERATURE**2 * super().losses(outputs / TEMPERATURE, targets)


def zskd(problem: Problem) -> Distilled:
    """A student from data impressions: no image of the data and no query, but the teacher's weights and gradients.

    As many impressions as the budget has queries are made. The student learns what the teacher says of them at
    `TEMPERATURE`. The ledger is left alone: nothing black was asked.

    Source: Nayak et al. 2019 (arXiv:1905.08114).

    Raises:
        ConfigError: no white-box teacher, or one without a linear last layer.
    """
    teacher = problem.white_box
    if teacher is None:
        raise ConfigError("zskd looks inside the teacher: give its network as white_box.")
    task = HotLabelTask(tuple(problem.teacher.classes))
    training = problem.config.training
    device = resolve_device(training.train.device)
    size = (int(problem.images.shape[2]), int(problem.images.shape[3]))
    count = problem.ledger.left
    rng = np.random.default_rng(training.seed)
    teacher = teacher.to(device).eval()
    wanted = impression_targets(last_weights(teacher), count, rng)
    images = data_impressions(teacher, torch.from_numpy(wanted).float(), size, rng)
    answers = _hot_probabilities(teacher, images)
    model = task.build(problem.student, size, seed=training.seed)
    result = train(task, model, images, list(answers), replace(training.train, seed=training.seed))
    stage = Stage(0, problem.ledger.spent, count, None, result)
    if problem.on_stage is not None:
        problem.on_stage(stage, model)
    return Distilled(model, ModelSpec("classification", problem.student, task.classes, size), problem.ledger, (stage,))


def last_weights(teacher: nn.Module) -> Tensor:
    """(C, D) weights of a network's last linear layer."""
    layers = [layer for layer in teacher.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ConfigError("zskd needs a teacher whose last layer is linear: its weights tell which classes are alike.")
    return layers[-1].weight.detach()


def impression_targets(
    weights: Tensor, count: int, rng: np.random.Generator, scales: Sequence[float] = SCALES
) -> NDArray[np.float64]:
    """Probabilities (count, C) to make images for: each class in turn, with classes that look like it beside it.

    Row c of the classes' similarity (cosine between last-layer weights, stretched to [0, 1]) times a scale is the
    concentration of a Dirichlet distribution; the scales take turns. Source: Nayak et al. 2019, section 3.2.
    """
    unit = F.normalize(weights.double(), dim=1)
    similarity = (unit @ unit.T).cpu().numpy()  # (C, C)
    low, high = similarity.min(axis=1, keepdims=True), similarity.max(axis=1, keepdims=True)
    concentration = np.maximum((similarity - low) / np.maximum(high - low, 1e-12), 1e-3)
    rows = [
        rng.dirichlet(scales[(number // len(weights)) % len(scales)] * concentration[number % len(weights)])
        for number in range(count)
    ]
    return np.stack(rows) if rows else np.empty((0, len(weights)))


def data_impressions(teacher: nn.Module, wanted: Tensor, size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """Images that the teacher answers, at a high temperature, with the wanted probabilities (N, C).

    They begin as smooth noise, which the authors do not do.

    Returns:
        uint8 (N, 3, H, W), grey where the teacher's gradient is.
    """
    device = next(teacher.parameters()).device
    made = []
    for start in range(0, len(wanted), BATCH):
        target = wanted[start : start + BATCH].to(device)
        cells = torch.from_numpy(rng.normal(0, START_SPREAD, (len(target), 1, START_CELLS, START_CELLS))).float()
        blobs = F.interpolate(cells, size=size, mode="bicubic").expand(-1, 3, -1, -1)
        pixels = blobs.contiguous().to(device).requires_grad_(True)
        optimizer = torch.optim.Adam([pixels], lr=LEARNING_RATE)
        for _ in range(STEPS):
            loss = F.cross_entropy(teacher(torch.sigmoid(pixels)) / TEMPERATURE, target, reduction="sum")
            (pixels.grad,) = torch.autograd.grad(loss, pixels)
            optimizer.step()
        made.append((torch.sigmoid(pixels.detach()) * 255).round().to("cpu", torch.uint8))
    return torch.cat(made)


@torch.inference_mode()
def _hot_probabilities(teacher: nn.Module, images: Tensor) -> Tensor:
    device = next(teacher.parameters()).device
    parts = [teacher(batch.to(device).float() / 255).cpu() / TEMPERATURE for batch in torch.split(images, BATCH)]
    return torch.cat(parts).softmax(dim=1).clone()
