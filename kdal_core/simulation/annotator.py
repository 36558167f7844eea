"""The simulated annotator: what label an image gets, right or wrong, and how long it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdal_core.simulation.campaign import AnnotatorSettings, Campaign, NoiseSettings
from kdal_core.simulation.datasets import Split
from kdal_core.simulation.lane_noise import badly_drawn
from kdal_core.tasks import Task
from kdal_core.training import TrioSpec, infer, train_student

FOLDS = 2


@dataclass(frozen=True)
class Annotator:
    """Answers for every image of a pool, drawn once for a seed: asked twice, or by another arm, it says the same.

    Attributes:
        labels: (N,) targets that it gives, classes or tuples of lanes.
        seconds: (N,) time that each takes.
        mistaken: (N,) which of them are wrong, in any lane at least.
    """

    labels: NDArray[Any]
    seconds: NDArray[np.float64]
    mistaken: NDArray[np.bool_]

    @property
    def objects(self) -> NDArray[np.int64]:
        """(N,) boxes or lanes that it draws on each image, one of an image without any; one of a class."""
        drawn = [max(1, len(label)) if isinstance(label, tuple | list) else 1 for label in self.labels]
        return np.array(drawn, dtype=np.int64)

    def wrong(self, indices: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these images it labels wrong."""
        return self.mistaken[indices]


@dataclass(frozen=True)
class Difficulty:
    """How hard each image of a pool is to a model that has not seen it, and what it would mistake it for.

    Attributes:
        loss: (N,) -log of the true class's probability.
        mistake: (N,) the most probable wrong class.
    """

    loss: NDArray[np.float64]
    mistake: NDArray[np.int64]


def make_annotator(
    settings: AnnotatorSettings,
    noise: NoiseSettings,
    truth: NDArray[Any],
    classes: int,
    seed: int,
    difficulty: Difficulty | None = None,
    attributes: Mapping[str, NDArray[Any]] | None = None,
) -> Annotator:
    """An annotator of a seed.

    Args:
        settings: pace.
        noise: kind and amount of wrong labels.
        truth: (N,) right classes, or tuples of lanes (dtype object).
        classes: C.
        seed: same seed, same answers.
        difficulty: needed for noise of kind "difficulty".
        attributes: needed for noise of kind "attribute"; see `LabelledImages`.

    Raises:
        ConfigError: noise bound to an attribute that the data set does not have.
    """
    rng = np.random.default_rng([7, seed])
    draws, others = rng.random(len(truth)), rng.integers(1, max(classes, 2), len(truth))
    seconds = settings.seconds * np.exp(settings.spread * rng.standard_normal(len(truth)))
    if noise.kind == "none":
        return Annotator(truth, seconds, np.zeros(len(truth), dtype=np.bool_))
    if truth.dtype == object:
        labels, mistaken = badly_drawn(truth, attributes or {}, noise, seed)
        return Annotator(labels, seconds, mistaken)
    if noise.kind == "uniform":
        wrong, instead = draws < noise.rate, (truth + others) % classes
    else:
        assert difficulty is not None
        hard = stats.rankdata(-difficulty.loss, method="ordinal") <= noise.share * len(truth)
        wrong, instead = hard & (draws < noise.rate), difficulty.mistake
    labels = np.where(wrong, instead, truth)
    return Annotator(labels, seconds, labels != truth)


def measure_difficulty(campaign: Campaign, task: Task, spec: TrioSpec, split: Split, seed: int) -> Difficulty:
    """Each image's difficulty, by students trained on the true labels of the pool's other part (`FOLDS` parts)."""
    pool = split.pool
    parts = np.array_split(np.random.default_rng([8, seed]).permutation(len(pool)), FOLDS)
    probabilities = np.empty((len(pool), len(split.classes)))
    for number, part in enumerate(parts):
        others = np.setdiff1d(np.arange(len(pool)), part)
        config = campaign.train_config(10_000 * seed + 9000 + number)
        model = train_student(task, spec, pool.images[others], pool.labels[others].tolist(), config)
        probabilities[part] = infer(task, model, pool.images[part], device=config.device).predictions
    rows = np.arange(len(pool))
    loss = -np.log(np.maximum(probabilities[rows, pool.labels], 1e-12))
    probabilities[rows, pool.labels] = -1
    return Difficulty(loss, probabilities.argmax(axis=1))
