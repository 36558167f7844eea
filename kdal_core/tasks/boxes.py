"""Objects in boxes: any number of them in an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from kdal_core.errors import ConfigError
from kdal_core.losses import binary_kd_losses
from kdal_core.metrics import box_gap, mean_average_precision
from kdal_core.metrics.box_matches import box_difficulty, found_right
from kdal_core.models import Network
from kdal_core.models.building import Family
from kdal_core.models.fcos import BoxOutputs
from kdal_core.models.registry import box_networks, default_box_pair
from kdal_core.tasks.augmentation import moved, random_colours, random_matrices, warped
from kdal_core.tasks.box import MOST_BOXES, Box, as_arrays, boxes_as_json, boxes_from_json
from kdal_core.tasks.box_places import (
    around,
    as_tensors,
    centreness,
    class_weights,
    found_boxes,
    found_places,
    match,
    probability_maps,
    reach_of,
    seen,
)
from kdal_core.tasks.task import Rescoring, TaskDefaults, WithDefaults
from kdal_core.validation import InvalidInput, as_count

LEAST = 0.05
"""Score from which on a box is predicted at all: mAP asks for unsure boxes too."""
SURE = 0.45
"""Score from which on a box counts: in gaps, in what annotators are shown. Near that of the highest F1 on BCCD's
validation images: 0.73 and 0.78 there (S of 30 and 100 labels), 0.76 and 0.79 at 0.5, 0.56 at 0.3. The rare platelets
are better found at 0.45."""
OVERLAP = 0.5
"""IoU from which on two boxes of a class are one."""
TEACHER_SURE = 0.3
"""Probability of a class from which on a place's teacher is believed where the box is."""


@dataclass(frozen=True)
class BoxTask(WithDefaults):
    """Targets: tuples of `Box`, empty where an image shows none. Outputs: `BoxOutputs`.

    Predictions: (N, K, 6) float32, a row for each box, best first: left, top, right, bottom as shares of width and
    height; score, the geometric mean of class probability and centre-ness; class number. NaN behind the last box.
    `boxes_of` reads them.

    Attributes:
        classes: names of the kinds of object.
        boxes: K, boxes of an image that are predicted at most; there may be more in its label.
    """

    classes: tuple[str, ...]
    boxes: int = 100

    kind = "boxes"
    metric_name = "mAP@.5"
    even = SURE
    # Rare and small objects are learnt last: many small steps teach them more than few large ones, and an optimiser
    # that forgets the frequent objects' first gradients is in time for them. A teacher's word on every place says more
    # than a few boxes do, so that it counts three times, and is heard on unlabelled images, too. Chosen on BCCD's
    # validation images (docs/results/boxes.md).
    defaults: ClassVar[TaskDefaults] = TaskDefaults(
        longest_side=512,  # objects are small: at half of it many are smaller than the finest grid's cells
        pretrained=True,
        cold_start="colours",  # objects lie anywhere, and rare ones are small
        # An image may show many frequent objects and no rare one, of which there is least to learn from.
        acquisition={"rarity": 1.0},
        training={
            "lr": 2e-3,
            "batch_size": 4,
            "min_steps": 800,
            "beta2": 0.95,
            "temperature": 1.0,
            "kd_weight": 3.0,
            "unlabelled": True,
        },
    )

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"classes must be distinct names, at least one, not {self.classes!r}.")
        as_count("boxes", self.boxes, low=1, high=MOST_BOXES)

    @property
    def options(self) -> dict[str, int]:
        """The number of boxes."""
        return {"boxes": self.boxes}

    def build(self, architecture: str, image_size: tuple[int, int], *, weights: str = "none", seed: int = 0) -> Network:
        """A fresh dense detector."""
        return self._networks(image_size).build(architecture, weights, seed=seed)

    def default_pair(self, image_size: tuple[int, int]) -> tuple[str, str]:
        """Student and teacher for images of this (height, width)."""
        return default_box_pair(image_size)

    def check_pair(self, student: str, teacher: str, image_size: tuple[int, int]) -> None:
        """Refuse a teacher with less than 4 times the student's parameters."""
        self._networks(image_size).check_pair(student, teacher)

    def trainable(self, targets: Sequence[Sequence[Box]]) -> str | None:
        """A detector needs a box to learn from.

        >>> BoxTask(("cell",)).trainable([(), ()])
        'None of the 2 labelled images shows a box: label one that does.'
        """
        self._check(targets)
        if len(targets) == 0:
            return "No image is labelled yet."
        if not any(targets):
            return f"None of the {len(targets)} labelled images shows a box: label one that does."
        return None

    def as_json(self, target: Sequence[Box]) -> list[dict[str, Any]]:
        """`boxes_as_json`."""
        return boxes_as_json(target)

    def from_json(self, value: list[dict[str, Any]]) -> tuple[Box, ...]:
        """`boxes_from_json`."""
        boxes = boxes_from_json(value)
        self._check([boxes])
        return boxes

    def collate(self, targets: Sequence[Sequence[Box]]) -> dict[str, Tensor]:
        """Boxes -> corners (B, M, 4) in shares, NaN behind an image's last box, and labels (B, M)."""
        self._check(targets)
        corners, labels = as_tensors(targets)
        return {"corners": corners, "labels": labels}

    def augment(
        self, images: Tensor, targets: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mirrored, shifted, cropped by a zoom, brighter or darker; the boxes move with the image.

        Nothing is turned: the box around a turned box is larger than the object. Nothing is tinted: by colour small
        objects are told from each other.
        """
        matrices = random_matrices(images, generator, degrees=0.0, shift=0.15, zoom=0.3, mirrored=True)
        corners = targets["corners"].reshape(len(images), -1, 2, 2)  # (B, M, 2, 2): two points
        views = seen(moved(corners, matrices.to(corners.device)).flatten(2))
        return random_colours(warped(images, matrices), generator, tint=0.0), {**targets, "corners": views}

    def losses(self, outputs: BoxOutputs, targets: dict[str, Tensor]) -> Tensor:
        """(B,): focal loss of the classes, GIoU loss of the boxes, cross-entropy of centre-ness, as FCOS adds them.

        Each is a sum over the image's places divided by how many of them learn a box, at least 1. The last two are
        those of the places that learn one. Ours: where a class is, its focal loss weighs `class_weights`, so that few
        small objects are not drowned by many large ones.

        Source: Tian et al. 2019 (arXiv:1904.01355), equation 2; Rezatofighi et al. 2019 (arXiv:1902.09630) for GIoU.
        """
        logits = outputs.logits.float()
        corners, labels = targets["corners"].to(logits.dtype), targets["labels"]
        found = match(corners, outputs.grid, outputs.levels)
        wanted = torch.zeros_like(logits)
        wanted[found.image, found.place, labels[found.image, found.box]] = 1.0
        weight = torch.where(wanted > 0, class_weights(wanted)[:, None], 1.0)  # (B, A, C)
        what = (weight * sigmoid_focal_loss(logits, wanted)).sum(dim=(1, 2))  # (B,)
        reach = reach_of(corners[found.image, found.box], outputs.grid[found.place])  # (P, 4)
        predicted = outputs.reach.float()[found.image, found.place]
        where = generalized_box_iou_loss(around(predicted), around(reach))  # (P,)
        centre = F.binary_cross_entropy_with_logits(
            outputs.centre.float()[found.image, found.place], centreness(reach), reduction="none"
        )
        losses: Tensor = what.index_add(0, found.image, where + centre) / found.counts.clamp(min=1)
        return losses

    def loss(self, outputs: BoxOutputs, targets: dict[str, Tensor]) -> Tensor:
        """The mean of `losses`."""
        return self.losses(outputs, targets).mean()

    def distillation_loss(self, student_outputs: BoxOutputs, teacher_outputs: BoxOutputs, temperature: float) -> Tensor:
        """What the teacher sees at each place, and where its boxes are at the places where it is sure.

        Classes: `binary_kd_losses` of each logit, weighed by how probable the likelier of the two models finds any
        class there: at most places neither sees anything, and these would drown the others. Boxes: GIoU loss against
        the teacher's, and the teacher's centre-ness, weighed by its class probability where that is `TEACHER_SURE` at
        least. All of it divided by the sum of the teacher's probabilities, its own count of the places with an object.
        """
        belief = teacher_outputs.logits.detach().float().sigmoid().amax(dim=2)  # (B, A)
        count = belief.sum().clamp(min=1.0)
        either = torch.maximum(belief, student_outputs.logits.detach().float().sigmoid().amax(dim=2))
        apart = binary_kd_losses(student_outputs.logits.float(), teacher_outputs.logits.float(), temperature)
        what = (either[..., None] * apart).sum()
        sure = belief >= TEACHER_SURE
        weight = belief[sure]  # (P,)
        where = generalized_box_iou_loss(
            around(student_outputs.reach.float()[sure]), around(teacher_outputs.reach.detach().float()[sure])
        )
        centre = F.binary_cross_entropy_with_logits(
            student_outputs.centre.float()[sure],
            teacher_outputs.centre.detach().float()[sure].sigmoid(),
            reduction="none",
        )
        loss: Tensor = (what + (weight * (where + centre)).sum()) / count
        return loss

    def decode(self, outputs: BoxOutputs) -> NDArray[np.float32]:
        """Predictions (B, K, 6) float32; of boxes of a class that overlap by `OVERLAP`, the best alone."""
        decoded: NDArray[np.float32] = found_boxes(outputs, self.boxes, LEAST, OVERLAP).cpu().numpy()
        return decoded

    def object_features(self, outputs: BoxOutputs) -> Tensor:
        """(B, K, E): of each box of `decode`, the features of the place that found it; 0 behind the last box."""
        assert outputs.places is not None
        _, places = found_places(outputs, self.boxes, LEAST, OVERLAP)
        index = places.clamp(min=0)[..., None].expand(-1, -1, outputs.places.shape[2])
        found: Tensor = outputs.places.float().gather(1, index)
        return torch.where(places[..., None] >= 0, found, 0.0)

    def class_difficulty(
        self, predictions: NDArray[np.float32], targets: Sequence[Sequence[Box]]
    ) -> NDArray[np.float64]:
        """(C,) in [0, 1]: how badly the labelled boxes of each class are found, 1 for a class without any.

        The mean over its labelled boxes of 1 - p^xi · IoU^(1 - xi), xi = 0.6, of the predicted box of the class that
        overlaps it most and that box's score p; 1 where none does.

        Source: Yang et al. 2024 (arXiv:2211.11612), section 3.2. P: of the trained network, not averaged over its
        training; the score takes the probability's place.
        """
        self._check(targets)
        images = self._arrays("predictions", predictions)
        return box_difficulty(images, [as_arrays(boxes) for boxes in targets], len(self.classes))

    def distributions(self, outputs: BoxOutputs) -> Tensor:
        """(B, C, h, w, 2): of each class at each cell of the finest grid, that it is there and, last, that it is not.

        Maps larger than 48 cells either way are joined to smaller ones.
        """
        there = probability_maps(outputs)
        return torch.stack([there, 1 - there], dim=-1)

    def gap(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """`box_gap` (N,) in [0, 1]: how far boxes that are `SURE` are from any that the other model predicts."""
        return box_gap(self._arrays("a", a), self._arrays("b", b), score=SURE, least=LEAST)

    def objects(self, predictions: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, C): the sum of the scores of each class's boxes, those that are not `SURE`, too."""
        kinds = np.arange(len(self.classes))
        found = [
            (image["scores"][:, None] * (image["labels"][:, None] == kinds)).sum(axis=0)
            for image in self._arrays("predictions", predictions)
        ]
        return np.array(found, dtype=np.float64).reshape(-1, len(kinds))

    def score(self, predictions: NDArray[np.float32], targets: Sequence[Sequence[Box]]) -> float:
        """`mean_average_precision` at an IoU of 0.5, in [0, 1]; without any box labelled, the share of images for
        which none is predicted for `SURE`."""
        self._check(targets)
        found = self._arrays("predictions", predictions)
        if len(found) != len(targets):
            raise InvalidInput(f"There are {len(found)} predictions but {len(targets)} targets.")
        if not any(targets):
            return float(np.mean([not (image["scores"] >= SURE).any() for image in found]))
        labelled = [as_arrays(boxes) for boxes in targets]
        return mean_average_precision(found, labelled, iou=0.5, most=max(100, self.boxes))

    def graded(
        self, predictions: NDArray[np.float32], targets: Sequence[Sequence[Box]]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores (M,) of all boxes predicted, and whether each finds a labelled box of its class, by an IoU of 0.5."""
        self._check(targets)
        images = self._arrays("predictions", predictions)
        right = [found_right(found, as_arrays(boxes)) for found, boxes in zip(images, targets, strict=True)]
        scores = [found["scores"] for found in images]
        return np.concatenate([np.empty(0), *scores]), np.concatenate([np.empty(0, dtype=np.bool_), *right])

    def rescored(self, predictions: NDArray[np.float32], change: Rescoring) -> NDArray[np.float32]:
        """Other scores of the boxes (N, K, 6)."""
        changed = predictions.copy()
        changed[..., 4] = change.scores(predictions[..., 4])
        return changed

    def _networks(self, image_size: tuple[int, int]) -> Family:
        return box_networks(image_size, classes=len(self.classes))

    def _arrays(self, name: str, predictions: NDArray[np.float32]) -> list[dict[str, NDArray[Any]]]:
        """Predictions (N, K, 6) as the metrics take them, an image each."""
        array = np.asarray(predictions, dtype=np.float64)
        if array.ndim != 3 or array.shape[2] != 6:
            raise InvalidInput(f"{name} must be (N, K, 6), as `decode` gives it, not {array.shape}.")
        rows = [image[np.isfinite(image).all(axis=1)] for image in array]
        return [{"boxes": r[:, :4], "scores": r[:, 4], "labels": r[:, 5].astype(np.int64)} for r in rows]

    def _check(self, targets: Sequence[Any]) -> None:
        for target in targets:
            if not isinstance(target, tuple | list) or not all(isinstance(box, Box) for box in target):
                raise InvalidInput(f"A target must be a tuple of boxes, not {str(target)[:200]}.")
            if len(target) > MOST_BOXES:
                raise InvalidInput(f"An image has {len(target):,} boxes, more than {MOST_BOXES:,}.")
            for box in target:
                if box.label >= len(self.classes):
                    raise InvalidInput(
                        f"A box's label must be a class number below {len(self.classes)}, not {box.label}."
                    )


TASK = BoxTask
