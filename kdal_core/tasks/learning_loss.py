"""Any task, with the model's own loss predicted beside it, so that unlabelled images can be ranked by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.models import LossHeadNet, Network
from kdal_core.tasks.task import Task, TaskDefaults
from kdal_core.validation import InvalidInput, as_nonnegative


@dataclass(frozen=True)
class LearningLossTask:
    """The inner task's targets; outputs of a `LossHeadNet`: (the inner task's outputs, predicted losses (B,)).

    Predictions are the inner task's (N, ..., K) with one column more, (N, ..., K + 1) float32: the image's predicted
    loss in each of its rows. `gap` and `score` leave that column out, `predicted_losses` reads it. Predicted losses are
    right up to an increasing function only: they rank images and have no unit.

    Attributes:
        inner: any task.
        weight: lambda >= 0 of the ranking loss.
        margin: xi >= 0 by which the two predicted losses of a pair should differ.
        joint: whether the ranking loss also trains the network itself; see `LossHeadNet`.

    Source: Yoo & Kweon 2019 (arXiv:1905.03677). A checkpoint of such a model cannot be loaded by its kind.
    """

    inner: Task
    weight: float = 1.0
    margin: float = 1.0
    joint: bool = False

    def __post_init__(self) -> None:
        as_nonnegative("weight", self.weight)
        as_nonnegative("margin", self.margin)

    @property
    def kind(self) -> str:
        """The inner kind with a mark of its own: these networks have more parameters."""
        return f"{self.inner.kind}+loss"

    @property
    def classes(self) -> tuple[str, ...]:
        """The inner task's."""
        return self.inner.classes

    @property
    def options(self) -> Mapping[str, int]:
        """The inner task's."""
        return self.inner.options

    @property
    def defaults(self) -> TaskDefaults:
        """The inner task's."""
        return self.inner.defaults

    @property
    def metric_name(self) -> str:
        """The inner task's."""
        return self.inner.metric_name

    def build(self, architecture: str, image_size: tuple[int, int], *, weights: str = "none", seed: int = 0) -> Network:
        """The inner task's network, with a loss head on it."""
        network = self.inner.build(architecture, image_size, weights=weights, seed=seed)
        return LossHeadNet(network, image_size, joint=self.joint, seed=seed)

    def default_pair(self, image_size: tuple[int, int]) -> tuple[str, str]:
        """The inner task's."""
        return self.inner.default_pair(image_size)

    def check_pair(self, student: str, teacher: str, image_size: tuple[int, int]) -> None:
        """As the inner task does."""
        self.inner.check_pair(student, teacher, image_size)

    def trainable(self, targets: Sequence[Any]) -> str | None:
        """As the inner task says."""
        return self.inner.trainable(targets)

    def as_json(self, target: Any) -> Any:
        """The inner task's."""
        return self.inner.as_json(target)

    def from_json(self, value: Any) -> Any:
        """The inner task's."""
        return self.inner.from_json(value)

    def collate(self, targets: Sequence[Any]) -> Any:
        """As the inner task does."""
        return self.inner.collate(targets)

    def augment(self, images: Tensor, targets: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        """As the inner task does."""
        return self.inner.augment(images, targets, generator)

    def losses(self, outputs: tuple[Any, Tensor], targets: Any) -> Tensor:
        """(B,): each image's inner loss + weight · the ranking loss of its pair; the mean is equation 3."""
        inner_outputs, predicted = outputs
        actual = self.inner.losses(inner_outputs, targets)  # (B,)
        return actual + self.weight * ranking_losses(predicted, actual, self.margin)

    def loss(self, outputs: tuple[Any, Tensor], targets: Any) -> Tensor:
        """The mean of `losses`."""
        return self.losses(outputs, targets).mean()

    def distillation_loss(
        self, student_outputs: tuple[Any, Tensor], teacher_outputs: Any, temperature: float
    ) -> Tensor:
        """The inner task's; the student has a loss head, the teacher has none."""
        return self.inner.distillation_loss(student_outputs[0], teacher_outputs, temperature)

    def decode(self, outputs: tuple[Any, Tensor]) -> NDArray[np.float32]:
        """(B, ..., K + 1) float32: the inner predictions, then the predicted loss."""
        predictions = self.inner.decode(outputs[0])  # (B, ..., K)
        predicted = outputs[1].float().cpu().numpy().reshape(-1, *[1] * (predictions.ndim - 1))  # (B, ..., 1)
        column = np.broadcast_to(predicted, (*predictions.shape[:-1], 1))
        return np.concatenate([predictions, column], axis=-1)

    def predicted_losses(self, predictions: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,): the predicted loss of each image, out of predictions (N, ..., K + 1)."""
        return predictions.reshape(len(predictions), -1)[:, -1]

    def distributions(self, outputs: tuple[Any, Tensor]) -> Tensor:
        """The inner task's probabilities (B, ..., K)."""
        return self.inner.distributions(outputs[0])

    def gap(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """The inner task's gap (N,) between predictions (N, ..., K + 1)."""
        return self.inner.gap(a[..., :-1], b[..., :-1])

    def objects(self, predictions: NDArray[np.float32]) -> NDArray[np.float64]:
        """The inner task's, of predictions (N, ..., K + 1)."""
        return self.inner.objects(predictions[..., :-1])

    def score(self, predictions: NDArray[np.float32], targets: Sequence[Any]) -> float:
        """The inner task's metric of predictions (N, ..., K + 1)."""
        return self.inner.score(predictions[..., :-1], targets)


def ranking_losses(predicted: Tensor, actual: Tensor, margin: float = 1.0) -> Tensor:
    """max(0, -s · (predicted_i - predicted_j) + margin), s = 1 if actual_i > actual_j else -1.

    The pairs are (i, B - 1 - i), i < B / 2, of a batch in random order. Both images of a pair get its loss;
    the one in the middle of an odd batch gets 0. The mean is then the 2 / B · sum over pairs of the paper.

    Args:
        predicted: (B,) predicted losses; gradients flow into these.
        actual: (B,) true losses; treated as constants.
        margin: xi >= 0.

    Returns:
        (B,) float32, >= 0.

    Raises:
        InvalidInput: shapes that differ or are not (B,).

    Source: Yoo & Kweon 2019 (arXiv:1905.03677), equations 2 and 3.

    >>> ranking_losses(torch.tensor([0.5, 9.0, 2.0]), torch.tensor([3.0, 1.0, 2.0])).tolist()
    [2.5, 0.0, 2.5]
    """
    if predicted.ndim != 1 or predicted.shape != actual.shape:
        raise InvalidInput(f"predicted {tuple(predicted.shape)} and actual {tuple(actual.shape)} must both be (B,).")
    half = len(predicted) // 2
    first, second = predicted.float()[:half], predicted.float().flip(0)[:half]  # (B // 2,)
    larger = actual.detach()[:half] > actual.detach().flip(0)[:half]
    sign = torch.where(larger, 1.0, -1.0)
    pairs = torch.relu(margin - sign * (first - second))
    return torch.cat([pairs, pairs.new_zeros(len(predicted) % 2), pairs.flip(0)])
