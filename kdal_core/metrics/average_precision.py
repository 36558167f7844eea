"""Mean average precision of boxes, over torchmetrics and faster-coco-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kdal_core.metrics.prediction_gaps import sure_boxes
from kdal_core.validation import InvalidInput


def mean_average_precision(
    pred: Sequence[Mapping[str, ArrayLike]],
    gt: Sequence[Mapping[str, ArrayLike]],
    iou: float | None = None,
    *,
    most: int = 100,
) -> float:
    """COCO's mAP: average precision at 101 recalls, meaned over the classes that are labelled anywhere.

    Args:
        pred: N images, each "boxes" (n, 4) as x1, y1, x2, y2, shares or pixels (areas up to 1e10), "labels" (n,),
            "scores" (n,).
        gt: the same N images; scores are not needed.
        iou: from which a box is found; None: the mean over 0.50, 0.55, ..., 0.95.
        most: boxes of an image and class that count, best first.

    Returns:
        A float in [0, 1].

    Raises:
        InvalidInput: another number of images, boxes that are none, no labelled box at all, or iou out of (0, 1).

    Source: Lin et al. 2014 (COCO), as faster-coco-eval computes it.

    >>> box = {"boxes": [[0, 0, 4, 4]], "labels": [0], "scores": [0.9]}
    >>> half = {"boxes": [[0, 0, 4, 3]], "labels": [0], "scores": [0.8]}
    >>> round(mean_average_precision([half], [box], iou=0.5), 4), round(mean_average_precision([half], [box]), 4)
    (1.0, 0.6)
    """
    if len(pred) != len(gt):
        raise InvalidInput(f"pred has {len(pred)} images and gt {len(gt)}; both must be of the same images.")
    if iou is not None and not 0 < iou < 1:
        raise InvalidInput(f"iou must lie between 0 and 1, not {iou!r}.")
    found = [_tensors(f"pred[{image}]", boxes) for image, boxes in enumerate(pred)]
    labelled = [
        _tensors(f"gt[{image}]", {**boxes, "scores": np.ones(len(np.atleast_1d(np.asarray(boxes["labels"]))))})
        for image, boxes in enumerate(gt)
    ]
    if not any(len(image["labels"]) for image in labelled):
        raise InvalidInput("gt holds no box: average precision needs one.")
    from torchmetrics.detection import MeanAveragePrecision  # seconds to import, rarely needed

    metric = MeanAveragePrecision(
        iou_thresholds=None if iou is None else [iou],
        max_detection_thresholds=[1, 10, most],
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False
    metric.update(found, labelled)
    return min(max(float(metric.compute()["map"]), 0.0), 1.0)


def _tensors(name: str, boxes: Mapping[str, ArrayLike]) -> dict[str, Tensor]:
    corners, labels, scores = sure_boxes(name, boxes, 0.0)
    return {
        "boxes": torch.from_numpy(corners),
        "labels": torch.from_numpy(labels),
        "scores": torch.from_numpy(scores),
    }
