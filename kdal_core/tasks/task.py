"""The Task protocol: all that training, inference and acquisition need to know about what is labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kdal_core.models import Network

ColdStartImages = Literal["thumbnails", "even_thumbnails", "colours"]
"""By what images are alike before there is a model: `kdal_core.acquisition.cold_start_features`."""
FirstLook = ColdStartImages
"""Its name before 0.2.0."""


@dataclass(frozen=True)
class TaskDefaults:
    """What suits a kind of task, unless somebody says otherwise: data, as against the behaviour of `Task`.

    Attributes:
        longest_side: pixels of an image's longer side that its networks see.
        cold_start: by what images are alike when the first batch is chosen, before there is a model.
        acquisition: parameters of the strategy `kd_gap` in which its own defaults do not suit the task.
        training: settings of `TrainConfig` in which its own defaults do not suit the task.
        features: whether its networks can be heads on the features of a frozen backbone.
        pretrained: whether its networks can be built on the maps of a pretrained backbone, named "pretrained/" and the
            backbone's name.
        suggest_above: calibrated confidence from which on a suggestion saves people more time than it costs: with 1/2
            it is as often right as wrong.
    """

    longest_side: int = 224
    cold_start: ColdStartImages = "thumbnails"
    acquisition: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    features: bool = False
    pretrained: bool = False
    suggest_above: float = 0.5

    def __post_init__(self) -> None:
        for name in ("acquisition", "training"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


class WithDefaults:
    """A task's defaults one by one, under the names they had before 0.2.0."""

    defaults: ClassVar[TaskDefaults]

    @property
    def longest_side(self) -> int:
        """See `TaskDefaults`."""
        return self.defaults.longest_side

    @property
    def first_look(self) -> ColdStartImages:
        """`TaskDefaults.cold_start`."""
        return self.defaults.cold_start

    @property
    def acquisition(self) -> Mapping[str, Any]:
        """See `TaskDefaults`."""
        return self.defaults.acquisition

    @property
    def training(self) -> Mapping[str, Any]:
        """See `TaskDefaults`."""
        return self.defaults.training


class Task(Protocol):
    """One kind of label: its behaviour. A new kind is a new file with a class of this shape.

    "Targets" are the labels of some images in the task's own form (classification: class numbers);
    "outputs" are what its networks return for a batch; "predictions" are outputs as an array with one row
    for each image, fit to be stored and compared.
    """

    @property
    def kind(self) -> str:
        """Name of the kind, as stored in checkpoints: "classification"."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their position is the class number."""

    @property
    def options(self) -> Mapping[str, int]:
        """Settings beyond the classes that a network depends on, as `get_task` takes them; checkpoints keep them."""

    @property
    def defaults(self) -> TaskDefaults:
        """What suits it, unless somebody says otherwise."""

    @property
    def metric_name(self) -> str:
        """What `score` measures, in words for people: "accuracy"."""

    def build(self, architecture: str, image_size: tuple[int, int], *, weights: str = "none", seed: int = 0) -> Network:
        """A fresh network for this task and these classes."""

    def default_pair(self, image_size: tuple[int, int]) -> tuple[str, str]:
        """Networks of student and teacher that suit images of this (height, width)."""

    def check_pair(self, student: str, teacher: str, image_size: tuple[int, int]) -> None:
        """Refuse, with `ConfigError`, networks that cannot be built or a teacher that is too small."""

    def trainable(self, targets: Sequence[Any]) -> str | None:
        """None when a model can be trained from these targets, else a sentence that says what is missing."""

    def as_json(self, target: Any) -> Any:
        """A target as JSON, every digit kept: how labels are stored."""

    def from_json(self, value: Any) -> Any:
        """The target that `as_json` wrote."""

    def collate(self, targets: Sequence[Any]) -> Any:
        """Targets of a batch as tensors, in the form `losses` takes."""

    def augment(self, images: Tensor, targets: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        """A random view of a batch, images (B, 3, H, W) float in [0, 1], that keeps the labels true."""

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """(B,): each image's own loss of a network's outputs against collated targets."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Scalar: the mean of `losses`."""

    def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, temperature: float) -> Tensor:
        """Scalar loss of a student's outputs against its teacher's."""

    def decode(self, outputs: Any) -> NDArray[np.float32]:
        """Outputs of a batch as predictions, one row for each image."""

    def distributions(self, outputs: Any) -> Tensor:
        """Outputs of a batch as probabilities (B, ..., K), laid out as the task likes; each (..., K) sums to 1.

        An image has one distribution (B, K) or many: what the strategies that read probabilities are given.
        """

    def gap(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """Prediction gap (N,) >= 0 between two models' predictions for the same N images."""

    def objects(self, predictions: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, C): how many objects of each class the predictions of N images show, in expectation or counted."""

    def score(self, predictions: NDArray[np.float32], targets: Sequence[Any]) -> float:
        """Held-out metric in [0, 1], higher is better."""


class Rescoring(Protocol):
    """What makes other confidences of those of a model: `kdal_core.evaluation.Calibration`."""

    def probabilities(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of probabilities of classes (..., C), each row of which sums to 1."""

    def scores(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Of scores in [0, 1] of any shape; NaN stays NaN."""


@runtime_checkable
class Detects(Protocol):
    """What a kind of task offers beside `Task` if its predictions are objects, each with a score and a class:
    (N, K, 6) as `kdal_core.tasks.box` says."""

    def object_features(self, outputs: Any) -> Tensor:
        """(B, K, E): features of each object predicted from a network's outputs; 0 behind an image's last one."""

    def class_difficulty(self, predictions: NDArray[np.float32], targets: Sequence[Any]) -> NDArray[np.float64]:
        """(C,) in [0, 1]: how badly predictions of N images find the objects of each class that people labelled."""


@runtime_checkable
class Graded(Protocol):
    """What a kind of task offers beside `Task` if its predictions say how sure they are, so that it can be learnt how
    often that is right."""

    @property
    def even(self) -> float:
        """Score at which an object is expected to be as often right as wrong before anything is known."""

    def graded(
        self, predictions: NDArray[np.float32], targets: Sequence[Any]
    ) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """How sure predictions were, and what was right.

        Returns:
            Either probabilities (N, C) of the N images' classes and the labelled class numbers (N,); or scores (M,) in
            [0, 1] of all M objects predicted on these images and whether each is one that people labelled, (M,) bool.
        """

    def rescored(self, predictions: NDArray[np.float32], change: Rescoring) -> NDArray[np.float32]:
        """Predictions with other confidences, and the same in all else."""
