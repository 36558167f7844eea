"""How many lanes are found, when predictions and labels are given as x at the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import NDArray

from kdal_core.metrics.tusimple import MATCHED, PIXELS
from kdal_core.validation import InvalidInput

WIDTH = 1280.0  # pixels of a TuSimple image, in which its 20 pixels are meant

Floats = NDArray[np.float64]


def lane_matches(pred: Floats, gt: Floats, aspect: float = 9 / 16) -> tuple[int, int, int]:
    """Lanes found, false positives and false negatives of one image, by TuSimple's test but without its oddities.

    A labelled lane and a predicted one match when they agree in 0.85 of the rows from the highest point of any lane in
    the image down. They agree in a row where both have a point, less than 20 / cos(a) pixels of a 1280 wide image
    apart, a being the angle of the labelled lane off the vertical; and in a row where neither has one. The first kind
    must be more than half of the labelled lane's own rows, or any two short lanes would match. One predicted lane finds
    one labelled lane.

    Args:
        pred: (P, R) x as shares of the width at R rows, NaN where the lane is absent; the rows are the middles of R
            equal strips.
        gt: (G, R), the same.
        aspect: height / width of the image, for the angle.

    Returns:
        (tp, fp, fn), whole numbers.

    Raises:
        InvalidInput: shapes that do not fit.

    Source: TuSimple benchmark, `evaluate/lane.py`; one-to-one and without forgiveness, which are our choice.

    >>> straight = np.full((1, 4), 0.5)
    >>> lane_matches(straight, np.concatenate([straight, straight + 0.1]))
    (1, 0, 1)
    """
    tp = int(matched_lanes(pred, gt, aspect).sum())
    return tp, len(pred) - tp, len(gt) - tp


def matched_lanes(pred: Floats, gt: Floats, aspect: float = 9 / 16) -> NDArray[np.bool_]:
    """(P,): which of one image's predicted lanes find a labelled one. Arguments, errors and test of `lane_matches`."""
    if pred.ndim != 2 or gt.ndim != 2 or pred.shape[1] != gt.shape[1]:
        raise InvalidInput(f"pred {pred.shape} and gt {gt.shape} must be (P, R) and (G, R).")
    right = np.zeros(len(pred), dtype=np.bool_)
    if len(pred) == 0 or len(gt) == 0:
        return right
    lanes = np.concatenate([gt, pred])
    first = int(np.isfinite(lanes).any(axis=0).argmax())
    rows = (np.arange(pred.shape[1]) + 0.5) / pred.shape[1] * aspect * WIDTH
    labels, found = gt[:, None, first:] * WIDTH, pred[None, :, first:] * WIDTH  # (G, 1, r), (1, P, r)
    within = np.array([PIXELS * np.hypot(1, _slope(rows, lane * WIDTH)) for lane in gt])  # 1 / cos(arctan s)
    near = np.abs(labels - found) < within[:, None, None]  # (G, P, r), False where either is absent
    neither = np.isnan(labels) & np.isnan(found)
    matched = (near | neither).mean(axis=2) >= MATCHED  # (G, P)
    matched &= 2 * near.sum(axis=2) > np.isfinite(labels).sum(axis=2)
    labelled, predicted = scipy.optimize.linear_sum_assignment(matched, maximize=True)
    right[predicted] = matched[labelled, predicted]
    return right


def lane_f1(pred: Sequence[Floats], gt: Sequence[Floats], aspect: float = 9 / 16) -> float:
    """2 tp / (2 tp + fp + fn) over all images, in [0, 1]; 1 where nothing is labelled and nothing predicted.

    Args:
        pred: N images, each (P, R) as `lane_matches` takes it.
        gt: the same N images.
        aspect: height / width of the images.
    """
    if len(pred) != len(gt):
        raise InvalidInput(f"pred has {len(pred)} images and gt {len(gt)}; both must be of the same images.")
    counts = [lane_matches(p, g, aspect) for p, g in zip(pred, gt, strict=True)]
    tp, fp, fn = np.array(counts).reshape(-1, 3).sum(axis=0)
    return 1.0 if tp + fp + fn == 0 else float(2 * tp / (2 * tp + fp + fn))


def _slope(rows: Floats, x: Floats) -> float:
    """dx / dy of the straight line fitted to a lane; 0 for a single point."""
    there = np.isfinite(x)
    y = rows[there] - rows[there].mean() if there.any() else rows[:0]
    spread = float(y @ y)
    return float(y @ x[there]) / spread if spread > 0 else 0.0
