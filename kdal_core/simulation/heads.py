"""Campaigns on the features of pretrained backbones: each image is looked at once, a round is a few heads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.acquisition import PoolScores, joined_features, label_noise, prediction_gap
from kdal_core.models import Backbone, default_backbones, find_weights
from kdal_core.simulation.campaign import Campaign
from kdal_core.simulation.datasets import Split
from kdal_core.tasks import Task
from kdal_core.training import HeadPool, HeadTrio

Half = NDArray[np.float16]
BATCH = 32
"""Images that a backbone looks at at once."""
DROPPED = 0.75
"""Share of the features that a pass with dropout leaves out: Gupte et al. 2024, appendix."""
PASSES = 3


def uses_features(campaign: Campaign) -> bool:
    """Whether a campaign's models are heads on pretrained features."""
    return campaign.task == "classification" and campaign.models.weights == "auto"


def backbone_names(campaign: Campaign) -> tuple[str, tuple[str, ...]]:
    """The student's backbone, and those of the teacher, whose features are joined.

    Raises:
        ConfigError: none are named, and there are none by default.
    """
    models = campaign.models
    if models.student is not None and models.teacher is not None:
        return models.student, tuple(models.teacher.split("+"))
    found = default_backbones()
    student = models.student or found.student.name
    teacher = tuple(models.teacher.split("+")) if models.teacher else tuple(each.name for each in found.teacher)
    return student, teacher


@dataclass(frozen=True)
class PoolFeatures:
    """A seed's images as the backbones see them.

    Attributes:
        student: (N, D) of the pool.
        teacher: (N, E_i) of the pool.
        held_out_student, held_out_teacher: the same of the images that models are scored on.
    """

    student: Half
    teacher: tuple[Half, ...]
    held_out_student: Half
    held_out_teacher: tuple[Half, ...]

    @cached_property
    def heads(self) -> HeadPool:
        """The pool, ready to be fitted to any labels."""
        return HeadPool(self.student, self.teacher)

    @cached_property
    def spaces(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The pool in few dimensions, as the student and as the teacher sees it: (N, K), (N, E)."""
        return joined_features([self.student]), joined_features(self.teacher)

    def trained(self, labelled: NDArray[np.int64], targets: Sequence[int], classes: int) -> HeadTrio:
        """S, T and S-KD of the labels of these images of the pool."""
        return self.heads.fit(labelled, np.asarray(targets, dtype=np.int64), classes)

    def scores(self, task: Task, trio: HeadTrio, targets: Sequence[int]) -> dict[str, float]:
        """What each of the three is worth on the held-out images."""
        predictions = {
            "student": trio.student.probabilities(self.held_out_student),
            "teacher": trio.teacher_head.probabilities(self.held_out_teacher),
            "distilled": trio.distilled.probabilities(self.held_out_student),
        }
        return {name: task.score(found, targets) for name, found in predictions.items()}

    def suspicion(self, task: Task, trio: HeadTrio, labelled: NDArray[np.int64]) -> NDArray[np.float64]:
        """`label_noise` (L,) of labelled images."""
        features = self.student[labelled]
        distilled = trio.distilled.probabilities(features)
        student = trio.student.probabilities(features)
        return label_noise(
            prediction_gap(task, distilled, student), prediction_gap(task, distilled, trio.teacher[labelled])
        )

    def observed(
        self,
        task: Task,
        trio: HeadTrio | None,
        unlabelled: NDArray[np.int64],
        labelled: NDArray[np.int64],
        wanted: frozenset[str],
        *,
        seed: int,
        budget: int,
    ) -> PoolScores:
        """The unlabelled images as a strategy sees them; without a model their features alone."""
        student, teacher = self.spaces
        found: dict[str, Any] = {
            "features": student[unlabelled],
            "labelled_features": student[labelled],
            "teacher_features": teacher[unlabelled],
            "labelled_teacher_features": teacher[labelled],
        }
        if trio is not None:
            features = self.student[unlabelled]
            distilled = trio.distilled.probabilities(features)
            found |= {
                "probabilities": distilled,
                "labelled_probabilities": trio.distilled.probabilities(self.student[labelled]),
                "teacher_probabilities": trio.teacher[unlabelled],
                "objects": task.objects(distilled),
                "d_ss": prediction_gap(task, distilled, trio.student.probabilities(features)),
                "d_st": prediction_gap(task, distilled, trio.teacher[unlabelled]),
            }
            if "dropout" in wanted:
                found["dropout"] = _dropped(trio, features, seed)
        # A strategy that reads nothing has to know how many images there are, all the same.
        shown = {name: found[name] for name in wanted if name in found} or {"features": found["features"]}
        return PoolScores(**shown, seed=seed, budget=budget)


def pool_features(campaign: Campaign, split: Split, folder: Path) -> PoolFeatures:
    """A seed's features, computed once for each image and backbone and kept in a folder."""
    student, teacher = backbone_names(campaign)
    found: dict[str, tuple[Half, Half]] = {}
    for name in dict.fromkeys((student, *teacher)):
        known = _Known(folder, name)
        found[name] = known.of(split.pool.images), known.of(split.held_out.images)
        known.save()
    return PoolFeatures(
        found[student][0],
        tuple(found[name][0] for name in teacher),
        found[student][1],
        tuple(found[name][1] for name in teacher),
    )


class _Known:
    """Features of one backbone by the digest of an image's pixels."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name, self._weights = name, find_weights(name)
        self._path = folder / f"{name.replace('/', '_')}-{self._weights.sha256[:16]}.npz"
        self._rows: dict[bytes, Half] = {}
        self._new = False
        if self._path.is_file():
            with np.load(self._path, allow_pickle=False) as arrays:
                self._rows = dict(zip(map(bytes, arrays["images"]), arrays["features"], strict=True))

    def of(self, images: Tensor) -> Half:
        """(N, D) of images (N, 3, H, W)."""
        digests = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
        missing = {digest: i for i, digest in enumerate(digests) if digest not in self._rows}
        if missing:
            backbone, places = Backbone(self._name, self._weights), list(missing.items())
            for start in range(0, len(places), BATCH):
                part = places[start : start + BATCH]
                features = backbone.features(torch.stack([images[i] for _, i in part])).numpy().astype(np.float16)
                self._rows.update(zip((digest for digest, _ in part), features, strict=True))
            self._new = True
        return np.stack([self._rows[digest] for digest in digests])

    def save(self) -> None:
        """Write what is new, whole or not at all."""
        if self._new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_suffix(".part.npz")
            images = np.array([list(digest) for digest in self._rows], dtype=np.uint8)
            np.savez(draft, images=images, features=np.stack(list(self._rows.values())))
            draft.replace(self._path)


def _dropped(trio: HeadTrio, features: Half, seed: int) -> NDArray[np.float32]:
    """(M, N, C): what S-KD says of features of which most are left out, the same ones of every image."""
    rng = np.random.default_rng(seed)
    masks: Sequence[NDArray[np.bool_]] = [rng.random(features.shape[1]) >= DROPPED for _ in range(PASSES)]
    return np.stack([trio.distilled.probabilities(np.where(mask, features, 0)) for mask in masks])
