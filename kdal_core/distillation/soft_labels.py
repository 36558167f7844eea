"""Classification from a teacher's probabilities in place of class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from kdal_core.tasks import ClassificationTask
from kdal_core.validation import InvalidInput


class SoftLabelTask(ClassificationTask):
    """Targets: probabilities (C,) float32. Loss: cross-entropy against them at temperature 1; no class is made hard.

    Networks, views, predictions and checkpoints are those of classification.

    >>> task = SoftLabelTask(("cat", "dog"))
    >>> task.loss(torch.zeros(1, 2), task.collate([torch.tensor([0.25, 0.75])])).item()  # doctest: +ELLIPSIS
    0.693147...
    """

    # With 500 steps on 2,000 images a student is far from done: see docs/results.md.
    training: ClassVar[dict[str, Any]] = {
        "epochs": 20,
        "batch_size": 128,
        "lr": 4e-3,
        "min_steps": 4000,
        "max_steps": 6000,
    }

    def trainable(self, targets: Sequence[Any]) -> str | None:
        """Any answers will do, as long as there are some."""
        return None if len(targets) else "The teacher has not been asked about any image yet."

    def collate(self, targets: Sequence[Any]) -> Tensor:
        """(C,) each -> (B, C)."""
        found = torch.stack(list(targets))
        if found.ndim != 2 or found.shape[1] != len(self.classes):
            raise InvalidInput(
                f"A soft label must hold {len(self.classes)} probabilities, not {tuple(found.shape[1:])}."
            )
        return found
