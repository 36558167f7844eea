"""One class for each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from kdal_core.errors import ConfigError
from kdal_core.losses import kd_loss
from kdal_core.metrics import ClassGap, accuracy, class_gap
from kdal_core.models import Network, build_model, check_pair, default_pair
from kdal_core.tasks.augmentation import random_affine
from kdal_core.tasks.task import Rescoring, TaskDefaults, WithDefaults
from kdal_core.validation import InvalidInput, as_floats


@dataclass(frozen=True)
class ClassificationTask(WithDefaults):
    """Targets: class numbers in [0, C). Outputs: logits (B, C). Predictions: probabilities (N, C) float32.

    Attributes:
        classes: names, one for each class number.
        gap_kind: of `class_gap`.
    """

    classes: tuple[str, ...]
    gap_kind: ClassGap = "disagreement"

    kind = "classification"
    metric_name = "accuracy"
    even = 0.5
    # A right tick saves a click, for the image has to be looked at anyway. A wrong one has to be noticed and costs the
    # click after all; unnoticed, it is a wrong label. So it should be right twice for each time that it is wrong.
    defaults: ClassVar[TaskDefaults] = TaskDefaults(features=True, suggest_above=2 / 3)

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"classes must be distinct names, at least one, not {self.classes!r}.")

    @property
    def options(self) -> dict[str, int]:
        """None: a classifier is given by its classes."""
        return {}

    def build(self, architecture: str, image_size: tuple[int, int], *, weights: str = "none", seed: int = 0) -> Network:
        """A fresh network with one output for each class."""
        return build_model(architecture, len(self.classes), image_size, weights, seed=seed)

    def default_pair(self, image_size: tuple[int, int]) -> tuple[str, str]:
        """Student and teacher for images of this (height, width)."""
        return default_pair(image_size)

    def check_pair(self, student: str, teacher: str, image_size: tuple[int, int]) -> None:
        """Refuse a teacher with less than 4 times the student's parameters."""
        check_pair(student, teacher, len(self.classes), image_size)

    def trainable(self, targets: Sequence[int]) -> str | None:
        """A classifier needs examples of at least two classes.

        >>> ClassificationTask(("cat", "dog")).trainable([0, 0, 0])
        "All 3 labels say 'cat': label at least one image of another class."
        """
        self._check(targets)
        if len(targets) == 0:
            return "No image is labelled yet."
        if len(self.classes) < 2:
            return "The labelling config offers one class only: nothing can be told apart."
        if len(set(targets)) < 2:
            return (
                f"All {len(targets)} labels say {self.classes[targets[0]]!r}: "
                "label at least one image of another class."
            )
        return None

    def as_json(self, target: int) -> int:
        """The class number."""
        return int(target)

    def from_json(self, value: int) -> int:
        """The class number."""
        self._check([value])
        return value

    def collate(self, targets: Sequence[int]) -> Tensor:
        """Class numbers -> (B,) int64."""
        self._check(targets)
        return torch.as_tensor(np.asarray(targets, dtype=np.int64))

    def augment(self, images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Small rotations, shifts and zooms; no flips, since classes may differ by handedness."""
        return random_affine(images, generator), targets

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) cross-entropy of logits (B, C) against class numbers (B,), in nats."""
        return F.cross_entropy(outputs, targets, reduction="none")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of `losses`, in nats."""
        return self.losses(outputs, targets).mean()

    def distillation_loss(self, student_outputs: Tensor, teacher_outputs: Tensor, temperature: float) -> Tensor:
        """`kd_loss` between the two models' logits (B, C)."""
        return kd_loss(student_outputs, teacher_outputs, temperature)

    def decode(self, outputs: Tensor) -> NDArray[np.float32]:
        """Logits (B, C) -> probabilities (B, C) float32."""
        probabilities: NDArray[np.float32] = self.distributions(outputs).cpu().numpy()
        return probabilities

    def distributions(self, outputs: Tensor) -> Tensor:
        """Logits (B, C) -> probabilities (B, C): one distribution for each image, the same as `decode`."""
        return F.softmax(outputs.float(), dim=1)

    def gap(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
        """`class_gap` of this task's kind between probabilities (N, C): (N,) in [0, 1].

        >>> task = ClassificationTask(("cat", "dog"))
        >>> task.gap([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]).tolist()
        [1.0, 0.5]
        """
        first = as_floats("a", a)
        if first.ndim != 2 or first.shape[1] != len(self.classes):
            raise InvalidInput(f"a must be (N, {len(self.classes)}), a column for each class, not {first.shape}.")
        return class_gap(first, b, self.gap_kind)

    def objects(self, predictions: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, C): the probabilities. An image is one object, of some class."""
        return as_floats("predictions", predictions)

    def score(self, predictions: ArrayLike, targets: Sequence[int]) -> float:
        """Top-1 accuracy in [0, 1]."""
        return accuracy(predictions, np.asarray(targets))

    def graded(
        self, predictions: NDArray[np.float32], targets: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The probabilities (N, C) and the class numbers (N,)."""
        self._check(targets)
        return as_floats("predictions", predictions), np.asarray(targets, dtype=np.int64)

    def rescored(self, predictions: NDArray[np.float32], change: Rescoring) -> NDArray[np.float32]:
        """Other probabilities; the likeliest class stays the likeliest."""
        return change.probabilities(predictions).astype(np.float32)

    def _check(self, targets: Sequence[Any]) -> None:
        for target in targets:
            if isinstance(target, bool) or not isinstance(target, int | np.integer):
                raise InvalidInput(f"A target must be a class number, not {target!r}.")
            if not 0 <= target < len(self.classes):
                raise InvalidInput(f"A target must be a class number below {len(self.classes)}, not {target}.")


TASK = ClassificationTask
