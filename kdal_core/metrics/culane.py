"""CULane's metric: lanes drawn 30 pixels wide, matched one to one by intersection over union; counts and F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.metrics.thick_lines import FARTHEST, Ints, Spans, cover, merge, ragged
from kdal_core.validation import InvalidInput, as_count, as_floats, as_matrix, as_nonnegative

POINTS = 50  # of the curve from one vertex to the next

Floats = NDArray[np.float64]


def culane(
    pred: Sequence[ArrayLike],
    gt: Sequence[ArrayLike],
    image_size: tuple[int, int] = (590, 1640),
    width: int = 30,
    iou_threshold: float = 0.5,
) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of one image.

    A lane is a natural cubic spline through its vertices, rounded to pixels and drawn `width` wide. Predictions and
    labels are paired so that the sum of their IoU is the largest; a pair of more than `iou_threshold` is a hit.

    As in the official program, whose masks these are to the pixel (with OpenCV 3 and 4; OpenCV 5 draws lines that
    cross the image's border otherwise):

    - a lane of two vertices is a straight line; one of a single vertex or none counts, but matches nothing;
    - lanes may leave the image, and only pixels inside it count;
    - an IoU of exactly the threshold is a miss, and the sum decides the pairing even where another had more hits.

    Where that program is odd, this differs:

    - it takes pairs within 0.01 of the best for as good, so the order of the lanes may decide; here only the best are;
    - two lanes outside the image have an IoU of 0/0, at which its pairing stops; here it is 0;
    - a vertex repeated in a row turns its spline into NaN; here it counts once, and a lane whose vertices are all the
      same is a disc, as its lane of two equal vertices is.

    The Python ports in LaneATT and CLRNet are another metric: FITPACK's spline, points cut to whole pixels, lanes
    of one vertex left out. On TuSimple-like lanes their IoU differs by 0.003 on average and 0.013 at most.

    Args:
        pred: P lanes, each (n, 2) vertices (x, y), pixels, none more than 20,000 from 0.
        gt: G lanes, the same.
        image_size: (height, width), pixels, at most 20,000.
        width: pixels, from 2.
        iou_threshold: from 0 to 1.

    Returns:
        (tp, fp, fn): tp + fp = P, tp + fn = G.

    Raises:
        InvalidInput: a lane that is not (n, 2) finite numbers in reach, or another argument out of range.

    Source: Pan et al. 2018, "Spatial As Deep" (SCNN), and its lane_evaluation program.

    >>> left, right = [[100, 100], [100, 500]], [[400, 100], [500, 500]]
    >>> culane([left, right], [right])
    (1, 1, 0)
    >>> culane([[[108, 100], [108, 500]]], [left]), culane([[[112, 100], [112, 500]]], [left])
    ((1, 0, 0), (0, 1, 1))
    """
    threshold = as_nonnegative("iou_threshold", iou_threshold)
    if threshold > 1:
        raise InvalidInput(f"iou_threshold must lie from 0 to 1, not {threshold}.")
    overlap = lane_ious(pred, gt, image_size, width)
    hits = int((overlap[scipy.optimize.linear_sum_assignment(overlap, maximize=True)] > threshold).sum())
    return hits, len(pred) - hits, len(gt) - hits


class F1(NamedTuple):
    """Shares from 0 to 1."""

    precision: float
    recall: float
    f1: float


def f1_score(tp: int, fp: int, fn: int) -> F1:
    """Precision tp / (tp + fp), recall tp / (tp + fn) and their harmonic mean, of counts over all images.

    Nothing over nothing is 0; the official program then prints -1, and an F1 made of it.

    >>> f1_score(3, 1, 3), f1_score(0, 0, 2)
    (F1(precision=0.75, recall=0.5, f1=0.6), F1(precision=0.0, recall=0.0, f1=0.0))
    """
    tp, fp, fn = (as_count(name, count, low=0, high=2**63) for name, count in (("tp", tp), ("fp", fp), ("fn", fn)))
    return F1(tp / max(tp + fp, 1), tp / max(tp + fn, 1), 2 * tp / max(2 * tp + fp + fn, 1))


class CULane:
    """`culane` over images, one `update` each; `compute` gives precision, recall and F1 of the counts so far.

    >>> metric = CULane(image_size=(144, 400))
    >>> metric.update(pred=[[[100, 20], [100, 140]]], gt=[[[100, 20], [100, 140]], [[300, 20], [300, 140]]])
    >>> metric.compute().recall
    0.5
    """

    def __init__(self, image_size: tuple[int, int] = (590, 1640), width: int = 30, iou_threshold: float = 0.5) -> None:
        self.tp = self.fp = self.fn = 0
        self._how = (image_size, width, iou_threshold)

    def update(self, pred: Sequence[ArrayLike], gt: Sequence[ArrayLike]) -> None:
        """Count one image."""
        tp, fp, fn = culane(pred, gt, *self._how)
        self.tp, self.fp, self.fn = self.tp + tp, self.fp + fp, self.fn + fn

    def compute(self) -> F1:
        """Precision, recall and F1 over all images counted."""
        return f1_score(self.tp, self.fp, self.fn)


def lane_ious(
    pred: Sequence[ArrayLike], gt: Sequence[ArrayLike], image_size: tuple[int, int] = (590, 1640), width: int = 30
) -> Floats:
    """Intersection over union of the pixels of each lane of pred with each of gt, (P, G); arguments as in `culane`."""
    if len(image_size) != 2:
        raise InvalidInput(f"image_size must be (height, width), not {image_size!r}.")
    height, columns = (as_count("image_size", size, low=1, high=FARTHEST) for size in image_size)
    width = as_count("width", width, low=2, high=FARTHEST)
    lanes = [_vertices(f"pred[{number}]", lane) for number, lane in enumerate(pred)]
    lanes += [_vertices(f"gt[{number}]", lane) for number, lane in enumerate(gt)]
    spans = cover(*_lines(lanes), width, (height, columns))
    return _ious(spans, len(pred), len(gt), height * (columns + 1))


def _vertices(name: str, lane: ArrayLike) -> NDArray[np.float32]:
    """(n, 2) vertices, in the official program's precision."""
    vertices = as_floats(name, lane)
    if vertices.size == 0:
        return np.empty((0, 2), dtype=np.float32)
    vertices = as_matrix(name, vertices)
    if vertices.shape[1] != 2:
        raise InvalidInput(f"{name} must hold vertices (x, y), not {vertices.shape}.")
    if np.abs(vertices).max() > FARTHEST:
        raise InvalidInput(f"{name} has a vertex more than {FARTHEST:,} from 0: is it in pixels?")
    return vertices.astype(np.float32)


def _lines(lanes: list[NDArray[np.float32]]) -> tuple[Ints, Ints, Ints]:
    """Lines between the pixels of each lane: from, to (L, 2), and the lane's number (L,)."""
    owners = np.repeat(np.arange(len(lanes)), [len(lane) if len(lane) > 1 else 0 for lane in lanes])
    vertices = np.concatenate([np.empty((0, 2), np.float32), *(lane for lane in lanes if len(lane) > 1)])
    points, owners = _curves(vertices, owners)
    pixels = np.clip(np.rint(points), -FARTHEST, FARTHEST).astype(np.int64)  # halves to the even, like OpenCV
    joined = owners[1:] == owners[:-1]
    new = np.append(True, ~joined)[:-1]  # a lane's first line stays even if it is a point: it may be the only one
    drawn = joined & (new | (pixels[1:] != pixels[:-1]).any(axis=1))
    return pixels[:-1][drawn], pixels[1:][drawn], owners[1:][drawn]


def _curves(vertices: NDArray[np.float32], owners: Ints) -> tuple[NDArray[np.float32], Ints]:
    """Points (N, 2) of the natural cubic splines through each lane's vertices (V, 2), by length of chord; their lanes.

    All lanes are one tridiagonal system, whose unknowns are the second derivatives at the vertices, 0 at a lane's ends.
    """
    if len(vertices) == 0:
        return vertices, owners
    repeated = (owners[1:] == owners[:-1]) & (vertices[1:] == vertices[:-1]).all(axis=1)
    kept = np.append(True, ~repeated)
    vertices, owners = vertices[kept], owners[kept]
    joined = np.append(owners[1:] == owners[:-1], False)[:, None]  # (V, 1) a lane goes on to the next vertex
    inner = joined & np.roll(joined, 1)
    step = np.where(joined, np.roll(vertices, -1, axis=0) - vertices, 0).astype(np.float64)
    chord = np.where(joined, np.sqrt((step**2).sum(axis=1, keepdims=True)), 1.0)
    slope, before = step / chord, np.roll(chord, 1)
    bands = [np.where(inner, chord, 0.0), np.where(inner, 2 * (before + chord), 1.0), np.where(inner, before, 0.0)]
    turn = np.where(inner, 6 * (slope - np.roll(slope, 1, axis=0)), 0.0)
    bent = scipy.linalg.solve_banded((1, 1), np.hstack([np.roll(bands[0], 1), bands[1], np.roll(bands[2], -1)]).T, turn)
    after = np.roll(bent, -1, axis=0)
    linear = np.where(joined, slope - chord * (2 * bent + after) / 6, 0.0)
    cubic = np.where(joined, (after - bent) / (6 * chord), 0.0)
    count = np.bincount(owners)[owners]
    sizes = np.where(joined[:, 0] & (count > 2), POINTS, np.where(count == 1, 2, 1))  # two points make a line of one
    at, along = ragged(sizes)
    t = (chord[at, 0] / POINTS * along)[:, None]
    points = vertices[at] + linear[at] * t + bent[at] / 2 * t**2 + cubic[at] * t**3
    return points.astype(np.float32), owners[at]


def _ious(spans: Spans, preds: int, gts: int, places: int) -> Floats:
    """(P, G) of the spans of P + G lanes of this many places, from the sizes of each lane and of each pair's union."""
    lane = spans.first // places
    area = np.bincount(lane, spans.last - spans.first + 1, minlength=preds + gts)
    ours = lane < preds
    pairs = [lane[ours, None] * gts + np.arange(gts), lane[~ours, None] - preds + np.arange(preds) * gts]
    moves = [(pair - lane[one, None]) * places for one, pair in zip((ours, ~ours), pairs, strict=True)]
    copies = [  # the spans of each lane, for each pair it is in
        np.concatenate([(place[one, None] + move).ravel() for one, move in zip((ours, ~ours), moves, strict=True)])
        for place in spans
    ]
    first, last = merge(Spans(*copies))
    union = np.bincount(first // places, last - first + 1, minlength=preds * gts).reshape(preds, gts)
    overlap: Floats = (area[:preds, None] + area[preds:] - union) / np.maximum(union, 1)
    return overlap
