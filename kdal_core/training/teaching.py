"""What S-KD is taught on pretrained features: the labels, and its teacher's word on every image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lessons:
    """A distribution over the classes for each of M images, to be learnt by cross-entropy.

    Attributes:
        targets: (M, C) float32, rows of sum 1.
        weights: (M,) float64 of sum 1: how much each image counts. Those without a label all count the same.
    """

    targets: NDArray[np.float32]
    weights: NDArray[np.float64]


def lessons(
    word: NDArray[np.float32], labelled: NDArray[np.int64], classes: NDArray[np.int64], label_share: float
) -> Lessons:
    """The sum of two losses as one: the labels', and the teacher's word's on all images.

    Cross-entropy is linear in its targets, so that an image with a label has one target, between the two.

    Args:
        word: (M, C) probabilities.
        labelled: (L,) positions among the M images of those with a label, each once, L >= 1.
        classes: (L,) their class numbers.
        label_share: of the labels' loss, in [0, 1]; the rest is the word's.
    """
    weights = np.full(len(word), (1 - label_share) / len(word))
    labels = np.eye(word.shape[1], dtype=np.float32)[classes]
    targets, extra = word.copy(), label_share / len(labelled)
    targets[labelled] = (weights[labelled, None] * targets[labelled] + extra * labels) / (
        weights[labelled, None] + extra
    )
    weights[labelled] += extra
    return Lessons(targets, weights)
