"""Fine-tuning: S-KD trained whole, from where its head on frozen features ended.

First the head, then all layers: a fresh head would at once distort the features that it was to be put on (Kumar et al.,
Fine-tuning can distort pretrained features and underperform out-of-distribution, 2022). What is learnt is what the head
learnt, the labels and the teacher's word on every image, now from random views of the images; the early layers stay as
they are, and the others have a smaller learning rate than the head.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdal_core.models import TunedClassifier
from kdal_core.tasks.classification import ClassificationTask
from kdal_core.tasks.soft_labels import SoftLabelTask
from kdal_core.training.config import TrainConfig
from kdal_core.training.data import ImageSource
from kdal_core.training.loop import Progress, TrainResult, train
from kdal_core.training.teaching import Lessons
from kdal_core.validation import InvalidInput

DEFAULTS = {"epochs": 2, "lr": 1e-3, "backbone_lr": 6e-4, "min_steps": 100, "max_steps": 1500}
"""Of `TrainConfig`: what a CPU does in minutes. The rates are of a first look: docs/results/photos.md."""


def fine_tuning_config(**settings: Any) -> TrainConfig:
    """How to fine-tune, by default and as the settings say. An epoch passes over all images that are taught.

    >>> fine_tuning_config(lr=5e-4).steps(1_800), fine_tuning_config().steps(100_000)
    (114, 1500)
    """
    return TrainConfig(**{**DEFAULTS, **settings})


def fine_tune(
    task: ClassificationTask,
    network: TunedClassifier,
    images: ImageSource,
    told: Lessons,
    config: TrainConfig,
    *,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a network in place, from what it says now; it comes back on the CPU, in eval mode.

    Args:
        task: whose classes they are.
        network: of `TunedClassifier.beginning_as`.
        images: M uint8 images (3, H, W), all of one size.
        told: what each of them shows.
        config: of `fine_tuning_config`.
        progress: called with the share done, in [0, 1].

    Raises:
        ConfigError: an unknown device, or a loss of NaN.
        InvalidInput: as many images as targets are needed.
    """
    if len(images) != len(told.targets):
        raise InvalidInput(f"There are {len(images)} images but {len(told.targets)} targets.")
    taught = SoftLabelTask(task.classes)
    targets = list(torch.from_numpy(told.targets))
    return train(taught, network, images, targets, config, rows=_rows(told.weights), progress=progress)


def _rows(weights: NDArray[np.float64]) -> list[int]:
    """Positions, each as often as it counts beside the one that counts least; those that do not count are left out."""
    times = np.rint(weights / weights[weights > 0].min()).astype(np.int64)
    rows: list[int] = np.repeat(np.arange(len(weights)), times).tolist()
    return rows
