"""Prediction gaps: how far two models' predictions for the same images are apart, one function a kind of label.

Model 1 is always `a`, the distilled student where the lane paper's gaps D_SS and D_ST are meant. For lanes and
boxes the gap is directed: what `a` predicts and `b` does not counts, not the reverse (methods.md, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.metrics.lane_distance import CAP, Method, as_lane, lane_distances
from kdal_core.validation import InvalidInput, as_floats, as_nonnegative, as_vector

Floats = NDArray[np.float64]
Lanes = Sequence[ArrayLike]
Boxes = Mapping[str, ArrayLike]
ClassGap = Literal["disagreement", "total_variation"]


def class_gap(a: ArrayLike, b: ArrayLike, kind: ClassGap = "disagreement") -> Floats:
    """How far two models' class probabilities are apart.

    "disagreement": 1 - sum of a · b, the probability that a class drawn from a differs from one drawn from b. Two
    models that are unsure in the same way disagree, too.
    "total_variation": half the sum of |a - b|; 0 for equal probabilities, however unsure.

    Args:
        a: (N, C) probabilities of one model, a row for each image.
        b: (N, C) of the other.
        kind: "disagreement" or "total_variation".

    Returns:
        (N,) in [0, 1].

    Raises:
        InvalidInput: NaN, shapes that differ or are not (N, C), or another kind.

    Source: our choice for the lane paper's prediction gap (methods.md, section 2). Disagreement told more of
    S-KD's errors, and orders by it taught more, see docs/results/classes.md.

    >>> a, b = [[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]
    >>> class_gap(a, b).tolist(), class_gap(a, b, "total_variation").tolist()
    ([1.0, 0.5], [1.0, 0.0])
    """
    first, second = as_floats("a", a), as_floats("b", b)
    if first.shape != second.shape or first.ndim != 2:
        raise InvalidInput(
            f"a {first.shape} and b {second.shape} must both be (N, C): the predictions of two models for the "
            "same images."
        )
    gap: Floats
    if kind == "disagreement":
        gap = np.clip(1 - np.einsum("nc,nc->n", first, second), 0, 1)
    elif kind == "total_variation":
        gap = np.abs(first - second).sum(axis=1) / 2
    else:
        raise InvalidInput(f"kind must be one of {', '.join(get_args(ClassGap))}, not {kind!r}.")
    return gap


def lane_gap(
    a: Sequence[Lanes],
    b: Sequence[Lanes],
    image_size: tuple[int, int],
    *,
    step: float = 1.0,
    cap: float = CAP,
    method: Method = "rows",
) -> Floats:
    """The largest, over the lanes of a, of the distance to the closest lane of b.

    Args:
        a: N images, each with its lanes: (n, 2) vertices (x, y) in pixels, n >= 2.
        b: the same N images, lanes of the other model.
        image_size: (height, width), pixels.
        step, cap, method: as in `lane_distance`.

    Returns:
        (N,) pixels, >= 0. Two images without lanes give 0; one without gives the image's diagonal.

    Raises:
        InvalidInput: another number of images, or a lane that is none; the message names argument and image.

    Source: lane paper, prediction gap D_12(p); the empty cases are our choice (methods.md, section 2).

    >>> left, right = [[10, 0], [10, 99]], [[90, 0], [90, 99]]
    >>> lane_gap([[left, right], [left], [], [left]], [[left], [left, right], [], []], (30, 40)).tolist()
    [80.0, 0.0, 0.0, 50.0]
    """
    _check_images(a, b)
    if len(image_size) != 2 or not np.isfinite(image_size).all() or min(image_size) <= 0:
        raise InvalidInput(f"image_size must be (height, width) in pixels, not {image_size!r}.")
    gaps = np.empty(len(a))
    for image in range(len(a)):
        first, second = _lanes(f"a[{image}]", a[image]), _lanes(f"b[{image}]", b[image])
        if first and second:
            gaps[image] = lane_distances(first, second, step=step, cap=cap, method=method).min(axis=1).max()
        else:
            gaps[image] = np.hypot(*image_size) if first or second else 0.0
    return gaps


def row_gap(a: Floats, b: Floats, *, farthest: float, cap: float = CAP) -> Floats:
    """`lane_gap` of many images at once, for lanes that are given at the same rows.

    Args:
        a: (N, S, R) x of N images' lanes at R rows, NaN where a lane is absent; a slot without a row is no lane.
        b: (N, T, R), lanes of the other model for the same images.
        farthest: the gap of an image in which only one of the two models sees a lane.
        cap: as in `lane_distance`.

    Returns:
        (N,) in the unit of x, >= 0.

    Raises:
        InvalidInput: shapes that do not fit, a negative distance.

    Source: lane paper, prediction gap D_12(p), at the networks' own rows (methods.md, section 2).

    >>> absent = np.full(3, np.nan)
    >>> a = np.array([[[10.0, 10, 10], [90, 90, 90]], [[10, 10, 10], absent]])
    >>> b = np.array([[[10.0, 10, 10], [80, 80, np.nan]], [absent, absent]])
    >>> row_gap(a, b, farthest=1000.0, cap=40).tolist()  # 20 = (10 + 10 + 40) / 3
    [20.0, 1000.0]
    """
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b) or a.shape[2] != b.shape[2]:
        raise InvalidInput(f"a {a.shape} and b {b.shape} must be (N, S, R) and (N, T, R) of the same images and rows.")
    farthest, cap = as_nonnegative("farthest", farthest), as_nonnegative("cap", cap)
    here: NDArray[np.bool_] = np.isfinite(a)  # (N, S, R)
    there: NDArray[np.bool_] = np.isfinite(b)
    lanes = np.asarray(here.any(axis=2))  # (N, S)
    others = np.asarray(there.any(axis=2))  # (N, T)
    gaps = np.zeros((len(a), a.shape[1]))
    for slot in range(a.shape[1]):  # one at a time, to need memory for (N, T, R) only
        mine = here[:, slot, None]
        either, both = mine | there, mine & there
        cost = np.where(both, np.abs(np.where(mine, a[:, slot, None], 0) - np.where(there, b, 0)), cap)
        mean = np.where(either, cost, 0.0).sum(axis=2) / np.maximum(either.sum(axis=2), 1)  # (N, T)
        closest = np.where(others, mean, np.inf).min(axis=1, initial=np.inf)
        gaps[:, slot] = np.where(lanes[:, slot], closest, 0.0)
    largest: Floats = np.where(lanes.any(axis=1) != others.any(axis=1), farthest, gaps.max(axis=1, initial=0.0))
    return largest


def box_gap(a: Sequence[Boxes], b: Sequence[Boxes], *, score: float = 0.5, least: float | None = None) -> Floats:
    """The largest, over the classes and the boxes of a, of 1 - IoU with the best box of the same class of b.

    Boxes of a below `score` are no predictions; boxes of b are looked for down to `least`. A class that one model
    sees for `score` and the other not even for `least` gives 1 (the largest distance there is, as for lanes),
    whichever it is; where both see a class, boxes of b that no box of a overlaps do not count. A box without area
    overlaps nothing, itself included.

    With `least` below `score`, two scores just above and just below it are no disagreement. Young networks have many
    such boxes: one of them makes an image's gap 1, and the gap tells little any more (docs/results/boxes.md).

    Args:
        a: N images, each as torchvision's detectors give it: "boxes" (n, 4) as x1, y1, x2, y2 in pixels,
            "labels" (n,) class numbers, "scores" (n,); on the CPU.
        b: the same N images, boxes of the other model.
        score: a box counts from this score on.
        least: a box may be the counterpart of one that counts from this score on, at most `score`; None: `score`.

    Returns:
        (N,) in [0, 1]. Two images without boxes that count give 0.

    Raises:
        InvalidInput: another number of images, or boxes that are none; the message names argument and image.

    Source: our choice for the lane paper's prediction gap (methods.md, section 2).

    >>> one = {"boxes": [[0, 0, 4, 4]], "labels": [1], "scores": [0.9]}
    >>> half = {"boxes": [[0, 0, 4, 2]], "labels": [1], "scores": [0.8]}
    >>> other = {"boxes": [[0, 0, 4, 4]], "labels": [2], "scores": [0.9]}
    >>> box_gap([one, one, one], [one, half, other]).tolist()
    [0.0, 0.5, 1.0]
    >>> unsure = {"boxes": [[0, 0, 4, 4]], "labels": [1], "scores": [0.4]}
    >>> box_gap([one, unsure], [unsure, one]).tolist(), box_gap([one, unsure], [unsure, one], least=0.1).tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """
    _check_images(a, b)
    score = as_nonnegative("score", score)
    least = score if least is None else as_nonnegative("least", least)
    if least > score:
        raise InvalidInput(f"least must be at most score, {score}, not {least}.")
    gaps = np.empty(len(a))
    for image in range(len(a)):
        boxes, labels, scores = sure_boxes(f"a[{image}]", a[image], least)
        others, other_labels, other_scores = sure_boxes(f"b[{image}]", b[image], least)
        sure = scores >= score
        classes, other_classes = set(labels[sure]), set(other_labels[other_scores >= score])
        if not classes <= set(other_labels) or not other_classes <= set(labels):
            gaps[image] = 1.0
        elif len(classes):
            same = labels[sure][:, None] == other_labels
            overlap = np.where(same, overlaps(boxes[sure], others), 0.0)  # (n, m)
            gaps[image] = 1 - overlap.max(axis=1).min()
        else:
            gaps[image] = 0.0
    return gaps


def _check_images(a: Sequence[object], b: Sequence[object]) -> None:
    if len(a) != len(b):
        raise InvalidInput(f"a has {len(a)} images and b {len(b)}; both must be of the same images.")


def _lanes(name: str, lanes: Lanes) -> list[Floats]:
    return [as_lane(f"{name}[{number}]", lane) for number, lane in enumerate(lanes)]


def sure_boxes(name: str, found: Boxes, score: float) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Boxes (n, 4), labels (n,) and scores (n,) of those of one image that reach the score.

    Args:
        name: of the image, for errors.
        found: "boxes", "labels" and "scores".
        score: the least that counts.

    Raises:
        InvalidInput: boxes that are none.
    """
    missing = [key for key in ("boxes", "labels", "scores") if not isinstance(found, Mapping) or key not in found]
    if missing:
        raise InvalidInput(f"{name} must map boxes, labels and scores to arrays; it lacks {', '.join(missing)}.")
    scores = as_vector(f"{name}['scores']", found["scores"])
    labels = as_vector(f"{name}['labels']", found["labels"], length=len(scores))
    boxes = as_floats(f"{name}['boxes']", found["boxes"])
    if boxes.size == 0 and len(scores) == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.shape != (len(scores), 4) or not np.isfinite(boxes).all():
        raise InvalidInput(f"{name}['boxes'] must be ({len(scores)}, 4) finite numbers, not {boxes.shape}.")
    if (boxes[:, :2] > boxes[:, 2:]).any():
        raise InvalidInput(f"{name}['boxes'] must be x1, y1, x2, y2 with x1 <= x2 and y1 <= y2.")
    if (labels != np.floor(labels)).any():
        raise InvalidInput(f"{name}['labels'] must be class numbers.")
    kept = scores >= score
    return boxes[kept], labels[kept].astype(np.int64), scores[kept]


def overlaps(a: Floats, b: Floats) -> Floats:
    """Intersection over union, (n, m), of boxes (n, 4) and (m, 4); 0 where the union has no area."""
    corner, far = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(far - corner, 0, None).prod(axis=2)
    union = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None] + (b[:, 2:] - b[:, :2]).prod(axis=1) - common
    overlap: Floats = common / np.where(union > 0, union, 1.0)
    return overlap
