"""Which predicted boxes are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.metrics.prediction_gaps import overlaps, sure_boxes

XI = 0.6
"""How much a box's score counts in `box_difficulty`, against how well it lies: Yang et al. 2024."""


def found_right(pred: Mapping[str, ArrayLike], gt: Mapping[str, ArrayLike], iou: float = 0.5) -> NDArray[np.bool_]:
    """(n,): which of one image's predicted boxes find a labelled box of their class.

    The best predictions choose first, each the box that it overlaps most; a box is found once.

    Args:
        pred: "boxes" (n, 4) as x1, y1, x2, y2, "labels" (n,), "scores" (n,).
        gt: the same of the labelled boxes; their scores do not count.
        iou: from which a box is found.

    Raises:
        InvalidInput: boxes that are none.

    Source: Everingham et al. 2010 (PASCAL VOC), section 4.2.

    >>> box = {"boxes": [[0, 0, 4, 4]], "labels": [0], "scores": [1.0]}
    >>> twice = {"boxes": [[0, 0, 4, 3], [0, 0, 4, 4]], "labels": [0, 0], "scores": [0.8, 0.9]}
    >>> found_right(twice, box).tolist()
    [False, True]
    """
    boxes, labels, scores = sure_boxes("pred", pred, 0.0)
    others, other_labels, _ = sure_boxes("gt", gt, 0.0)
    right = np.zeros(len(boxes), dtype=np.bool_)
    if len(boxes) == 0 or len(others) == 0:
        return right
    overlap = np.where(labels[:, None] == other_labels, overlaps(boxes, others), 0.0)  # (n, m)
    for row in np.argsort(-scores, kind="stable"):
        column = int(overlap[row].argmax())
        if overlap[row, column] >= iou:
            right[row] = True
            overlap[:, column] = 0.0
    return right


def box_difficulty(
    pred: Sequence[Mapping[str, ArrayLike]], gt: Sequence[Mapping[str, ArrayLike]], classes: int
) -> NDArray[np.float64]:
    """(C,) in [0, 1]: how badly the labelled boxes of each class are found, on average; 1 of a class without any.

    A labelled box's difficulty is 1 - p^xi · IoU^(1 - xi): of the predicted box of its class that overlaps it most, by
    IoU, and has the score p.

    Args:
        pred, gt: an image each, as in `found_right`.
        classes: C.

    Raises:
        InvalidInput: boxes that are none.

    Source: Yang et al. 2024 (arXiv:2211.11612), section 3.2.

    >>> box = {"boxes": [[0, 0, 4, 4]], "labels": [0], "scores": [1.0]}
    >>> half = {"boxes": [[0, 0, 4, 2]], "labels": [0], "scores": [0.5]}
    >>> box_difficulty([half], [box], 2).round(4).tolist()
    [0.5, 1.0]
    """
    sums, counts = np.zeros(classes), np.zeros(classes)
    for found, labelled in zip(pred, gt, strict=True):
        boxes, labels, scores = sure_boxes("pred", found, 0.0)
        others, other_labels, _ = sure_boxes("gt", labelled, 0.0)
        quality = np.zeros(len(others))
        if len(boxes) and len(others):
            overlap = np.where(labels[:, None] == other_labels, overlaps(boxes, others), 0.0)  # (n, m)
            best = overlap.argmax(axis=0)
            quality = scores[best] ** XI * overlap.max(axis=0) ** (1 - XI)
        counts += np.bincount(other_labels, minlength=classes)
        sums += np.bincount(other_labels, 1 - quality, minlength=classes)
    difficulty: NDArray[np.float64] = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
    return difficulty
