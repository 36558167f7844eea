"""Which predicted boxes are right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.metrics.prediction_gaps import overlaps, sure_boxes


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
