"""How a stage's student comes to be from what the teacher answered: a whole network, or a head on a frozen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kdal_core.distillation.ledger import image_key
from kdal_core.distillation.soft_labels import SoftLabel, SoftLabelTask
from kdal_core.models import Backbone, FrozenClassifier, Network
from kdal_core.training import TrainConfig, TrainResult, train
from kdal_core.training.logistic import fit_logistic
from kdal_core.validation import as_count

LOOKED_AT = 32
"""Images that a backbone looks at at once."""
INVERSE_DECAY = 30.0
"""Scikit-learn's C of a head on features of length 1."""


class Learn(Protocol):
    """A way to a stage's student."""

    def __call__(
        self, images: Tensor, targets: Sequence[SoftLabel], rows: Sequence[int], number: int
    ) -> tuple[Network, TrainResult | None]:
        """A new student, on the CPU, in eval mode; what its training was like, if it was one of steps.

        Args:
            images: uint8 (N, 3, H, W), all that was asked about.
            targets: N answers.
            rows: the positions that a pass over them goes through, some of them several times.
            number: of the stage, 0 for that of the real images.
        """


@dataclass(frozen=True)
class FromScratch:
    """The whole network is trained, from new parameters in each stage: as published.

    Attributes:
        task: of the student.
        student: its architecture.
        size: (height, width) of the images.
        config: of its training.
        seed: of the run; each stage has one of its own.
        progress: called with the share that is done.
    """

    task: SoftLabelTask
    student: str
    size: tuple[int, int]
    config: TrainConfig
    seed: int
    progress: Callable[[float], None] | None = None

    def __call__(
        self, images: Tensor, targets: Sequence[SoftLabel], rows: Sequence[int], number: int
    ) -> tuple[Network, TrainResult]:
        """See `Learn`."""
        seed = self.seed * 10_007 + number
        model = self.task.build(self.student, self.size, seed=seed)
        config = replace(self.config, seed=seed)
        return model, train(self.task, model, images, targets, config, rows=rows, progress=self.progress)


class HeadOnly:
    """A linear head on a pretrained backbone that stays as it is: each image goes through the backbone once.

    Random views are not made: their features would have to be computed again in each step.

    Args:
        backbone: with its weights.
        inverse_decay: scikit-learn's C of the head, on features of length 1.
        batch_size: images that the backbone looks at at once.
    """

    def __init__(
        self, backbone: Backbone, *, inverse_decay: float = INVERSE_DECAY, batch_size: int = LOOKED_AT
    ) -> None:
        self.backbone, self._inverse_decay = backbone, inverse_decay
        self._batch_size = as_count("batch_size", batch_size, low=1, high=1_000_000)
        self._known: dict[str, Tensor] = {}

    def __call__(
        self, images: Tensor, targets: Sequence[SoftLabel], rows: Sequence[int], number: int
    ) -> tuple[Network, None]:
        """See `Learn`."""
        features = torch.nn.functional.normalize(self.features(images)).numpy()
        answers = torch.stack([target.probabilities for target in targets]).numpy()
        weights = np.bincount(rows, minlength=len(images))
        values = fit_logistic(features, answers, weights, 1 / (self._inverse_decay * len(images)), steps=300)
        model = FrozenClassifier(self.backbone, answers.shape[1])
        weight, bias = torch.from_numpy(values[:-1].T).float(), torch.from_numpy(values[-1]).float()
        model.set_head(weight, bias, normalised=True)
        return model.eval(), None

    def features(self, images: Tensor) -> Tensor:
        """(N, D) float32 of uint8 images (N, 3, H, W); those that were looked at before are only looked up."""
        keys = [image_key(image) for image in images]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        for start in range(0, len(new), self._batch_size):
            places = new[start : start + self._batch_size]
            found = self.backbone.features(images[places])
            self._known.update(zip((keys[place] for place in places), found, strict=True))
        return torch.stack([self._known[key] for key in keys])
