"""TuSimple's metric: the share of a lane's points found, false positives and false negatives."""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, cos
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_nonnegative, as_vector

PIXELS = 20.0  # a point is found within this many pixels, measured across the lane
MATCHED = 0.85  # a lane is found when at least this share of its points is
ABSENT = -100.0  # where a lane without a point is taken to be
SLOWEST = 200.0  # ms
MOST_LANES = 4  # of a label that count: where there are more, its worst is forgiven
EXTRA_LANES = 2  # more than are labelled that may be predicted

Floats = NDArray[np.float64]


def tusimple(
    pred: Sequence[ArrayLike], gt: Sequence[ArrayLike], y_samples: ArrayLike, run_time: float
) -> tuple[float, float, float]:
    """Accuracy, false positives and false negatives of one image, as the official `evaluate/lane.py` counts them.

    A labelled lane's accuracy is the largest share of rows in which a predicted lane lies less than 20 / cos(a) pixels
    from it, a being the angle off the vertical of the straight line fitted to its points. It is found from 0.85 on.

    What is odd there is kept, for numbers that can be compared with published ones:

    - a row in which neither lane has a point is a row found; a lane without a point is taken to be at x = -100, so a
      point near the left border may lie close to it where lanes are flat;
    - one predicted lane may find several labelled ones, so fp may be negative;
    - of five or more labelled lanes the worst and one miss are forgiven, and both sums are divided by 4;
    - without labelled lanes accuracy is 0, and fp is 1 if anything was predicted;
    - more than 200 ms, or over two lanes more than are labelled, make the whole image (0, 0, 1): fp 0.

    Args:
        pred: P lanes, each (R,) x in pixels at every row, -2 (or any negative number) where it has no point.
        gt: G lanes, the same.
        y_samples: (R,) the rows, y in pixels, R >= 1.
        run_time: ms that the prediction took, >= 0.

    Returns:
        (accuracy, fp, fn): shares of the labelled lanes' points, of the predicted and of the labelled lanes.

    Raises:
        InvalidInput: a lane that has not one finite number for each row, no rows, or a run_time out of range.

    Source: TuSimple benchmark, `evaluate/lane.py`, LaneEval.bench. It fits with scikit-learn, this in closed form:
        the thresholds agree to some 12 digits.

    >>> rows = [100, 110, 120, 130]
    >>> tusimple([[50, 50, 50, 50]], [[50, 50, 50, 50], [90, 95, 100, -2]], rows, run_time=10)
    (0.5, 0.0, 0.5)
    """
    table = _table(pred, gt, y_samples)  # (1 + G + P, R)
    if as_nonnegative("run_time", run_time) > SLOWEST or len(pred) > len(gt) + EXTRA_LANES:
        return 0.0, 0.0, 1.0
    present = table >= 0
    placed = np.where(present, table, ABSENT)
    labels, found = placed[1 : len(gt) + 1], placed[len(gt) + 1 :]
    within = _thresholds(table[0], table[1 : len(gt) + 1], present[1 : len(gt) + 1])
    near = np.abs(labels[:, None] - found) < within[:, None, None]  # (G, P, R)
    best = [count / table.shape[1] for count in near.sum(axis=2).max(axis=1, initial=0).tolist()]
    matched = sum(share >= MATCHED for share in best)
    missed, total = len(gt) - matched, sum(best)
    if len(gt) > MOST_LANES:
        missed, total = max(missed - 1, 0), total - min(best)
    counted = max(min(len(gt), MOST_LANES), 1)
    return total / counted, (len(pred) - matched) / max(len(pred), 1), missed / counted


class TuSimpleScores(NamedTuple):
    """Means over images, and the F1 that papers make of them."""

    accuracy: float
    fp: float
    fn: float
    f1: float


class TuSimple:
    """`tusimple` over images, one `update` each; `compute` gives the means, as the official evaluator does.

    F1 is not the official evaluator's but that of later papers (CLRNet): with tp = 1 - fp, 2 tp / (2 tp + fp + fn).

    >>> metric = TuSimple()
    >>> metric.update(pred=[[50, 50]], gt=[[50, 50]], y_samples=[100, 110], run_time=10)
    >>> metric.update(pred=[], gt=[[50, 50]], y_samples=[100, 110], run_time=10)
    >>> metric.compute()
    TuSimpleScores(accuracy=0.5, fp=0.0, fn=0.5, f1=0.8)
    """

    def __init__(self) -> None:
        self._sums = (0.0, 0.0, 0.0)
        self.images = 0

    def update(self, pred: Sequence[ArrayLike], gt: Sequence[ArrayLike], y_samples: ArrayLike, run_time: float) -> None:
        """Add one image."""
        accuracy, fp, fn = tusimple(pred, gt, y_samples, run_time)
        self._sums = (self._sums[0] + accuracy, self._sums[1] + fp, self._sums[2] + fn)
        self.images += 1

    def compute(self) -> TuSimpleScores:
        """Scores of all images added; there must be one."""
        if self.images == 0:
            raise InvalidInput("TuSimple has no image to score: call update first.")
        accuracy, fp, fn = (total / self.images for total in self._sums)
        return TuSimpleScores(accuracy, fp, fn, 2 * (1 - fp) / (2 * (1 - fp) + fp + fn))


def _table(pred: Sequence[ArrayLike], gt: Sequence[ArrayLike], y_samples: ArrayLike) -> Floats:
    """(1 + G + P, R) the rows, then the labelled and the predicted lanes; every entry finite."""
    try:
        table = np.array([y_samples, *gt, *pred], dtype=np.float64)
    except (TypeError, ValueError):
        table = np.empty((0, 0))
    if table.ndim == 2 and table.size and np.isfinite(table).all():
        return table
    rows = as_vector("y_samples", y_samples)  # what is wrong is looked for one by one, so that it can be named
    if len(rows) == 0:
        raise InvalidInput("y_samples must hold at least one row.")
    for name, lanes in (("gt", gt), ("pred", pred)):
        for number, lane in enumerate(lanes):
            as_vector(f"{name}[{number}]", lane, length=len(rows))
    raise InvalidInput("y_samples, gt and pred must be finite numbers, one of each lane for each row.")


def _thresholds(rows: Floats, lanes: Floats, present: NDArray[np.bool_]) -> Floats:
    """(G,) pixels along a row within which a point counts, by the slope of x over y of each lane's points."""
    powers = np.ones((len(rows), 3))
    powers[:, 1] = rows - rows[len(rows) // 2]
    powers[:, 2] = powers[:, 1] ** 2
    thresholds = []
    sums = (np.concatenate([present, lanes * present]) @ powers).tolist()
    for (count, y, yy), (x, xy, _) in zip(sums[: len(lanes)], sums[len(lanes) :], strict=True):
        spread = count * yy - y * y
        slanted = spread > 1e-12 * count * yy  # not so with one point, or one row repeated: upright
        thresholds.append(PIXELS / cos(atan((count * xy - x * y) / spread)) if slanted else PIXELS)
    return np.array(thresholds)
