"""Classification from a teacher's probabilities in place of class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdal_core.tasks.classification import ClassificationTask
from kdal_core.tasks.task import TaskDefaults
from kdal_core.validation import InvalidInput


@dataclass(frozen=True)
class SoftLabel:
    """What a teacher answered about an image.

    Attributes:
        probabilities: (C,) float32.
        views: whether a student is trained on random views of the image, of which the teacher did not say this; or on
            the image as it was asked about.
    """

    probabilities: Tensor
    views: bool = True


class SoftLabelTask(ClassificationTask):
    """Targets: `SoftLabel`, or its probabilities (C,) alone. Loss: cross-entropy against them at temperature 1.

    No class is made hard.

    Networks, views, predictions and checkpoints are those of classification.

    >>> task = SoftLabelTask(("cat", "dog"))
    >>> task.loss(torch.zeros(1, 2), task.collate([torch.tensor([0.25, 0.75])])).item()  # doctest: +ELLIPSIS
    0.693147...
    """

    # 500 steps on 2,000 images are far too few, 20 passes over 48,000 a little: see docs/results/mixup.md.
    defaults: ClassVar[TaskDefaults] = TaskDefaults(
        training={"epochs": 40, "batch_size": 128, "lr": 4e-3, "min_steps": 4000, "max_steps": 20_000}
    )

    def trainable(self, targets: Sequence[Any]) -> str | None:
        """Any answers will do, as long as there are some."""
        return None if len(targets) else "The teacher has not been asked about any image yet."

    def collate(self, targets: Sequence[Any]) -> Any:
        """-> probabilities (B, C), and whether views are wanted (B,)."""
        labels = [target if isinstance(target, SoftLabel) else SoftLabel(target) for target in targets]
        found = torch.stack([label.probabilities for label in labels])
        if found.ndim != 2 or found.shape[1] != len(self.classes):
            raise InvalidInput(
                f"A soft label must hold {len(self.classes)} probabilities, not {tuple(found.shape[1:])}."
            )
        return found, torch.tensor([label.views for label in labels])

    def augment(self, images: Tensor, targets: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        """Views as classification has them, of those images of which they are wanted."""
        wanted = targets[1].nonzero().flatten().to(images.device)
        if len(wanted):
            views, _ = super().augment(images[wanted], targets[0], generator)
            images = images.index_copy(0, wanted, views)
        return images, targets

    def losses(self, outputs: Tensor, targets: Any) -> Tensor:
        """(B,) cross-entropy of logits (B, C) against what `collate` gives, in nats."""
        return super().losses(outputs, targets[0])
