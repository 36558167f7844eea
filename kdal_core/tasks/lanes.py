"""Lane markings: a set of polylines for each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kdal_core.errors import ConfigError
from kdal_core.losses import kd_loss
from kdal_core.metrics import row_gap
from kdal_core.metrics.lane_f1 import lane_f1, matched_lanes
from kdal_core.models import Network
from kdal_core.models.building import Family
from kdal_core.models.registry import default_lane_pair, lane_networks
from kdal_core.models.row_anchor import LaneOutputs
from kdal_core.tasks.augmentation import moved, random_colours, random_matrices, warped
from kdal_core.tasks.lane import Lane, lanes_as_json, lanes_from_json, row_anchors, x_at
from kdal_core.tasks.lane_rows import LEAST_ROWS, as_distributions, as_points, from_distributions, in_slots
from kdal_core.tasks.task import Rescoring, TaskDefaults, WithDefaults
from kdal_core.validation import InvalidInput, as_count

PRESENT = 0.5  # probability from which on a row has a lane
GAP_WIDTH = 1000.0  # pixels of the image in which gaps are measured
MOST_SLOTS, MOST_PLACES = 64, 4096  # a damaged checkpoint must not ask for all memory there is


@dataclass(frozen=True)
class LaneTask(WithDefaults):
    """Targets: tuples of `Lane`, empty where an image shows none. Outputs: `LaneOutputs`.

    Predictions: (N, S, R + 2) float32, a row for each slot: x at the R `row_anchors` as share of the width, NaN where
    the lane is absent; its score, the mean probability of its rows; its class number. `lanes_of` reads them.

    Attributes:
        classes: names of the kinds of lane.
        slots: S, lanes of an image at most, half of them left and half right of the middle of its lower edge; even.
        rows: R, row anchors.
        columns: G, columns that the network tells apart; x is finer than these.
    """

    classes: tuple[str, ...]
    slots: int = 8
    rows: int = 36
    columns: int = 64

    kind = "lanes"
    metric_name = "lane F1"
    even = PRESENT
    # Where lanes are is learnt slowly: after 400 steps a network knows of 1,000 labels little more than of 300. And the
    # labels of rows are soft as they are: at a temperature of 4, S-KD falls behind S; with the teacher's word on
    # unlabelled images it comes out ahead (docs/results/lanes.md).
    defaults: ClassVar[TaskDefaults] = TaskDefaults(
        longest_side=400,  # lanes are thin: at half of it they are one pixel wide where they begin
        pretrained=True,
        cold_start="even_thumbnails",  # a road is the same road at night; pale ones, whose paint is worn, teach little
        # Lanes on which both gaps are large are those whose paint is gone: they teach little, and are labelled wrong.
        acquisition={"formula": "four_case"},
        training={"lr": 4e-3, "batch_size": 16, "min_steps": 1000, "temperature": 1.0, "unlabelled": True},
    )

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"classes must be distinct names, at least one, not {self.classes!r}.")
        for name, most in (("slots", MOST_SLOTS), ("rows", MOST_PLACES), ("columns", MOST_PLACES)):
            as_count(name, getattr(self, name), low=2, high=most)
        if self.slots % 2:
            raise ConfigError(f"slots must be even, as many left as right of the middle, not {self.slots}.")

    @property
    def options(self) -> dict[str, int]:
        """The numbers of slots, rows and columns."""
        return {"slots": self.slots, "rows": self.rows, "columns": self.columns}

    def build(self, architecture: str, image_size: tuple[int, int], *, weights: str = "none", seed: int = 0) -> Network:
        """A fresh row-anchor network."""
        return self._networks(image_size).build(architecture, weights, seed=seed)

    def default_pair(self, image_size: tuple[int, int]) -> tuple[str, str]:
        """Student and teacher for images of this (height, width)."""
        return default_lane_pair(image_size)

    def check_pair(self, student: str, teacher: str, image_size: tuple[int, int]) -> None:
        """Refuse a teacher with less than 4 times the student's parameters."""
        self._networks(image_size).check_pair(student, teacher)

    def trainable(self, targets: Sequence[Sequence[Lane]]) -> str | None:
        """A detector needs a lane to learn from.

        >>> LaneTask(("lane",)).trainable([(), ()])
        'None of the 2 labelled images shows a lane: label one that does.'
        """
        self._check(targets)
        if len(targets) == 0:
            return "No image is labelled yet."
        if not any(targets):
            return f"None of the {len(targets)} labelled images shows a lane: label one that does."
        return None

    def as_json(self, target: Sequence[Lane]) -> list[dict[str, Any]]:
        """`lanes_as_json`."""
        return lanes_as_json(target)

    def from_json(self, value: list[dict[str, Any]]) -> tuple[Lane, ...]:
        """`lanes_from_json`."""
        lanes = lanes_from_json(value)
        self._check([lanes])
        return lanes

    def collate(self, targets: Sequence[Sequence[Lane]]) -> dict[str, Tensor]:
        """Lanes -> points (B, L, P, 2), NaN behind an image's last lane, and labels (B, L)."""
        self._check(targets)
        points, labels = as_points(targets)
        return {"points": points, "labels": labels}

    def augment(
        self, images: Tensor, targets: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mirrored, turned, shifted, cropped by a zoom, and in other light; the lanes move with the image."""
        matrices = random_matrices(images, generator, degrees=3.0, shift=0.08, zoom=0.15, mirrored=True)
        points = moved(targets["points"], matrices.to(targets["points"].device))
        return random_colours(warped(images, matrices), generator), {**targets, "points": points}

    def losses(self, outputs: LaneOutputs, targets: dict[str, Tensor]) -> Tensor:
        """(B,) cross-entropy in nats: the mean over all rows of all slots, and that of the classes of lanes there."""
        x, kinds = in_slots(targets["points"], targets["labels"], self.slots, self.rows)
        wanted = as_distributions(x, self.columns)  # (B, S, R, G + 1)
        where = -(wanted * F.log_softmax(outputs.rows.float(), dim=-1)).sum(dim=-1).mean(dim=(1, 2))
        there = kinds >= 0
        what = F.cross_entropy(outputs.kinds.float().transpose(1, 2), kinds.clamp(min=0), reduction="none")  # (B, S)
        return where + (what * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)

    def loss(self, outputs: LaneOutputs, targets: dict[str, Tensor]) -> Tensor:
        """The mean of `losses`, in nats."""
        return self.losses(outputs, targets).mean()

    def distillation_loss(
        self, student_outputs: LaneOutputs, teacher_outputs: LaneOutputs, temperature: float
    ) -> Tensor:
        """`kd_loss` of the rows' logits, each row of each slot a distribution of its own; and of the classes'."""
        rows = kd_loss(
            student_outputs.rows.flatten(0, 2).float(), teacher_outputs.rows.flatten(0, 2).float(), temperature
        )
        if len(self.classes) == 1:
            return rows
        return rows + kd_loss(
            student_outputs.kinds.flatten(0, 1).float(), teacher_outputs.kinds.flatten(0, 1).float(), temperature
        )

    def decode(self, outputs: LaneOutputs) -> NDArray[np.float32]:
        """Predictions (B, S, R + 2) float32. A slot in which fewer than two rows have a lane is empty."""
        distributions = self.distributions(outputs)
        there = distributions[..., -1] <= 1 - PRESENT  # (B, S, R)
        there &= there.sum(dim=-1, keepdim=True) >= LEAST_ROWS
        x, probability = from_distributions(distributions, there.any(dim=-1))  # (B, S, R) each
        score = (probability * there).sum(dim=-1) / there.sum(dim=-1).clamp(min=1)  # (B, S)
        kind = outputs.kinds.argmax(dim=-1).to(x.dtype)
        rows = torch.where(there, x, torch.nan)
        decoded: NDArray[np.float32] = torch.cat([rows, score[..., None], kind[..., None]], dim=-1).cpu().numpy()
        return decoded

    def distributions(self, outputs: LaneOutputs) -> Tensor:
        """(B, S, R, G + 1): for each row of each slot the probabilities of its G columns and, last, of no lane."""
        return F.softmax(outputs.rows.float(), dim=-1)

    def gap(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """`row_gap` (N,) between predictions, in pixels of an image 1,000 pixels wide."""
        return row_gap(self._x("a", a) * GAP_WIDTH, self._x("b", b) * GAP_WIDTH, farthest=GAP_WIDTH)

    def objects(self, predictions: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, C): the sum of the scores of each class's lanes."""
        self._x("predictions", predictions)
        scores, kinds = predictions[..., -2].astype(np.float64), predictions[..., -1]  # (N, S); absent lanes have 0
        return np.stack([(scores * (kinds == number)).sum(axis=1) for number in range(len(self.classes))], axis=1)

    def score(self, predictions: NDArray[np.float32], targets: Sequence[Sequence[Lane]]) -> float:
        """`lane_f1` in [0, 1] of all lanes; their classes are not looked at."""
        self._check(targets)
        found = self._x("predictions", predictions)
        return lane_f1([slots[np.isfinite(slots).any(axis=1)] for slots in found], self._at_rows(targets))

    def graded(
        self, predictions: NDArray[np.float32], targets: Sequence[Sequence[Lane]]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Scores (M,) of all lanes predicted, and whether each finds a labelled one, as `lane_matches` has it."""
        self._check(targets)
        scores: list[NDArray[np.float64]] = [np.empty(0)]
        right: list[NDArray[np.bool_]] = [np.empty(0, dtype=np.bool_)]
        for slots, sure, lanes in zip(
            self._x("predictions", predictions), predictions[..., -2], self._at_rows(targets), strict=True
        ):
            there = np.isfinite(slots).any(axis=1)
            scores.append(sure[there].astype(np.float64))
            right.append(matched_lanes(slots[there], lanes))
        return np.concatenate(scores), np.concatenate(right)

    def rescored(self, predictions: NDArray[np.float32], change: Rescoring) -> NDArray[np.float32]:
        """Other scores of the lanes (N, S, R + 2); an empty slot keeps its own."""
        changed = predictions.copy()
        there = np.isfinite(predictions[..., :-2]).any(axis=-1)
        changed[there, -2] = change.scores(predictions[there, -2])
        return changed

    def _at_rows(self, targets: Sequence[Sequence[Lane]]) -> list[NDArray[np.float64]]:
        """x of each image's labelled lanes at the rows, (G, R) each."""
        anchors = row_anchors(self.rows)
        return [
            np.array([x_at(lane, anchors) for lane in lanes], dtype=np.float64).reshape(-1, self.rows)
            for lanes in targets
        ]

    def _networks(self, image_size: tuple[int, int]) -> Family:
        return lane_networks(
            image_size, slots=self.slots, rows=self.rows, columns=self.columns, classes=len(self.classes)
        )

    def _x(self, name: str, predictions: NDArray[np.float32]) -> NDArray[np.float64]:
        array = np.asarray(predictions, dtype=np.float64)
        if array.ndim != 3 or array.shape[2] != self.rows + 2:
            raise InvalidInput(f"{name} must be (N, S, {self.rows + 2}), as `decode` gives it, not {array.shape}.")
        return array[:, :, : self.rows]

    def _check(self, targets: Sequence[Any]) -> None:
        for target in targets:
            if not isinstance(target, tuple | list) or not all(isinstance(lane, Lane) for lane in target):
                raise InvalidInput(f"A target must be a tuple of lanes, not {target!r}.")
            for lane in target:
                if lane.label >= len(self.classes):
                    raise InvalidInput(
                        f"A lane's label must be a class number below {len(self.classes)}, not {lane.label}."
                    )


TASK = LaneTask
