"""Top-1 accuracy, over torchmetrics."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from kdal_core.validation import InvalidInput, as_floats


def accuracy(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Share of images whose most probable class is the labelled one.

    Args:
        predictions: (N, C) scores or probabilities; among equal scores the lowest class counts.
        targets: (N,) class numbers in [0, C).

    Returns:
        A float in [0, 1].

    Raises:
        InvalidInput: no image at all, wrong shapes, NaN, or a class number out of range.

    >>> accuracy([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1])  # doctest: +ELLIPSIS
    0.666...
    """
    scores = as_floats("predictions", predictions)
    labels = np.asarray(targets)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise InvalidInput(
            f"predictions must be (N, C) and targets (N,) with N >= 1, not {scores.shape} and {labels.shape}."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise InvalidInput(f"targets must be class numbers from 0 to {scores.shape[1] - 1}.")
    import torch  # seconds to import, rarely needed
    from torchmetrics.functional.classification import multiclass_accuracy

    chosen = torch.from_numpy(scores.argmax(axis=1))
    value = multiclass_accuracy(
        chosen,
        torch.from_numpy(labels.astype(np.int64)),
        num_classes=max(scores.shape[1], 2),
        average="micro",
    )
    return float(value)
