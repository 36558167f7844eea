"""Which labels look wrong: those that models contradict which have not seen them, and even the teacher, which has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_count, as_matrix, as_vector

LEAST = 1e-6
"""Probability that a model gives a class at least."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelErrors:
    """Labelled images, the one whose label is most likely wrong first.

    Attributes:
        order: (N,) their positions.
        scores: (N,) in this order, falling: how many times likelier, in logarithms, the best other class is.
        suggested: (N,) in this order: that other class.
        expected: about how many of the labels are wrong, by confident learning's count.
    """

    order: NDArray[np.int64]
    scores: Floats
    suggested: NDArray[np.int64]
    expected: int

    @property
    def sentence(self) -> str:
        """The result in words."""
        if not len(self.order):
            return "There is no label to look at yet."
        if not self.expected:
            return f"None of {len(self.order):,} labels looks wrong."
        return f"About {self.expected:,} of {len(self.order):,} labels look wrong; the likeliest come first."


def label_errors(labels: ArrayLike, out_of_fold: ArrayLike, taught: Sequence[ArrayLike] = ()) -> LabelErrors:
    """Order labelled images by how surely models contradict their label.

    An image's score is log(p of the likeliest other class / p of the label), by the predictions out of fold, plus the
    same of each model that was taught the label. Of these give the teacher: where even it does not believe what it was
    taught, the image's neighbours say something else. Ratios, and not the label's probability alone, since a low
    probability may also come of an image on which no class is likely.

    Args:
        labels: (N,) class numbers in [0, C) that people gave.
        out_of_fold: (N, C) probabilities by models that were trained without the image's label.
        taught: probabilities (N, C) by models that were trained with it; the teacher's in the first place.

    Raises:
        InvalidInput: shapes that do not fit, or class numbers out of range.

    Source: Northcutt, Jiang and Chuang 2021, "Confident learning" (arXiv:1911.00068), for out-of-fold predictions and
    for `expected` (equation 1); ratios and the teacher are our choice: docs/results/estimates.md compares.

    >>> found = label_errors([0, 1, 1], [[0.9, 0.1], [0.95, 0.05], [0.1, 0.9]])
    >>> found.order.tolist(), found.suggested.tolist(), found.expected
    ([1, 0, 2], [0, 1, 0], 1)
    """
    kinds = [_probabilities("out_of_fold", out_of_fold), *(_probabilities("taught", each) for each in taught)]
    first = kinds[0]
    given = _classes(labels, first)
    if any(each.shape != first.shape for each in kinds):
        raise InvalidInput(f"taught must hold probabilities of the shape {first.shape}, that of out_of_fold.")
    if not len(first):
        nothing = np.zeros(0, dtype=np.int64)
        return LabelErrors(nothing, np.zeros(0), nothing, 0)
    logs = np.sum([np.log(each.clip(min=LEAST)) for each in kinds], axis=0)
    rows = np.arange(len(first))
    own = logs[rows, given]
    logs[rows, given] = -np.inf
    scores: Floats = logs.max(axis=1) - own
    order = np.argsort(-scores, kind="stable")
    return LabelErrors(order, scores[order], logs.argmax(axis=1)[order], _expected(given, first))


def _expected(given: NDArray[np.int64], probabilities: Floats) -> int:
    """Labels that are off the diagonal of the confident joint.

    An image counts for the class it is surest of among those of which it is at least as sure as, on average, the images
    labelled so; and its label is wrong if that is another class.
    """
    classes = probabilities.shape[1]
    sure = np.array([probabilities[given == c, c].mean() if (given == c).any() else np.inf for c in range(classes)])
    confident = np.where(probabilities >= sure, probabilities, -1.0)
    counted = confident.max(axis=1) >= 0
    return int((counted & (confident.argmax(axis=1) != given)).sum())


def _probabilities(name: str, values: ArrayLike) -> Floats:
    array = as_matrix(name, values)
    if ((array < 0) | (array > 1)).any():
        raise InvalidInput(f"{name} must hold probabilities from 0 to 1.")
    return array


def _classes(labels: ArrayLike, probabilities: Floats) -> NDArray[np.int64]:
    given = as_vector("labels", labels, length=len(probabilities))
    classes = as_count("the number of classes", probabilities.shape[1], low=2, high=2**31)
    if (given != np.floor(given)).any() or (given < 0).any() or (given >= classes).any():
        raise InvalidInput(f"labels must hold class numbers from 0 to {classes - 1}.")
    return given.astype(np.int64)
