"""Boxes as labels: corners in shares of the image, the same whatever size a network sees.

A label of an image is a tuple of boxes, empty where the image shows none. A prediction of an image is a float32
array (K, 6), a row for each of at most K boxes, best first: left, top, right and bottom as shares of the width and
height; the box's score in [0, 1]; its class number. Rows behind the last box are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.errors import LabelFormatError
from kdal_core.validation import InvalidInput, as_count

SAME = 1e-6
"""Share of the image by which the borders of a box must differ, or it has no size."""
FAR = 100.0
"""Image widths or heights beyond which a corner is no habit of drawing but damage."""
MOST_BOXES = 10_000
"""Boxes of an image beyond which nobody has drawn them."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A box inside the image, borders along the image's.

    Args:
        left, top, right, bottom: shares of the image's width and height, 0 <= left < right <= 1, top and bottom alike.
        label: class number, >= 0.

    Raises:
        InvalidInput: anything else; `clean_box` makes boxes of what people draw.
    """

    left: float
    top: float
    right: float
    bottom: float
    label: int = 0

    def __post_init__(self) -> None:
        corners = (self.left, self.top, self.right, self.bottom)
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in corners):
            raise InvalidInput(f"A box is four finite numbers, not {corners!r}.")
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise InvalidInput(
                f"A box must be left < right and top < bottom in shares of the image, 0 to 1, not {corners}."
            )
        for name, value in zip(("left", "top", "right", "bottom"), corners, strict=True):
            object.__setattr__(self, name, float(value))
        object.__setattr__(self, "label", as_count("label", self.label, low=0, high=2**31 - 1))

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.right, self.bottom


def clean_box(left: float, top: float, right: float, bottom: float, label: int = 0) -> Box:
    """The box that somebody drew: corners in either order are put right, and it is cut at the image's border.

    Args:
        left, top, right, bottom: two opposite corners as shares of the image's width and height.
        label: class number.

    Raises:
        LabelFormatError: it is no box: no number, no size, or nothing of it inside the image. Says which.

    >>> clean_box(0.5, 0.75, -0.25, 0.25).corners
    (0.0, 0.25, 0.5, 0.75)
    """
    corners = np.array([left, top, right, bottom], dtype=np.float64)
    if not np.isfinite(corners).all():
        raise LabelFormatError("a corner is no number")
    if (np.abs(corners) > FAR).any():
        raise LabelFormatError(f"a corner lies more than {FAR:.0f} images away from the image")
    near, far = np.minimum(corners[:2], corners[2:]), np.maximum(corners[:2], corners[2:])
    if (far - near <= SAME).any():
        raise LabelFormatError("it has no size: somebody clicked, and drew no box")
    if (far <= SAME).any() or (near >= 1 - SAME).any():
        raise LabelFormatError("it lies outside the image")
    near, far = near.clip(0.0, 1.0), far.clip(0.0, 1.0)
    if (far - near <= SAME).any():
        raise LabelFormatError("next to nothing of it lies inside the image")
    return Box(float(near[0]), float(near[1]), float(far[0]), float(far[1]), label)


def boxes_of(prediction: ArrayLike, least: float = 0.0) -> list[tuple[Box, float]]:
    """The boxes of one image's prediction, each with its score, best first.

    Args:
        prediction: (K, 6): left, top, right, bottom, score, class number; NaN behind the last box.
        least: boxes with a lower score are left out.

    >>> [(box.corners, score) for box, score in boxes_of([[0, 0.25, 0.5, 1, 0.75, 2], [np.nan] * 6])]
    [((0.0, 0.25, 0.5, 1.0), 0.75)]
    """
    rows = np.asarray(prediction, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise InvalidInput(f"prediction must have the shape (K, 6), not {rows.shape}.")
    found = []
    for left, top, right, bottom, score, label in rows[np.isfinite(rows).all(axis=1)].tolist():
        if score >= least:
            try:
                found.append((clean_box(left, top, right, bottom, int(label)), score))
            except LabelFormatError:
                continue  # a network may put a box beside the image: nobody can see or label it
    return found


def as_arrays(boxes: Sequence[Box]) -> dict[str, NDArray[Any]]:
    """A label as the metrics take it: "boxes" (n, 4) shares, "labels" (n,), and "scores" (n,) of 1.

    >>> as_arrays([Box(0, 0, 0.5, 1, 3)])["labels"].tolist()
    [3]
    """
    return {
        "boxes": np.array([box.corners for box in boxes], dtype=np.float64).reshape(-1, 4),
        "labels": np.array([box.label for box in boxes], dtype=np.int64),
        "scores": np.ones(len(boxes)),
    }


def boxes_as_json(boxes: Iterable[Box]) -> list[dict[str, Any]]:
    """A label as JSON, every digit kept.

    >>> boxes_as_json([Box(0, 0.25, 0.5, 1, label=2)])
    [{'label': 2, 'box': [0.0, 0.25, 0.5, 1.0]}]
    """
    return [{"label": box.label, "box": list(box.corners)} for box in boxes]


def boxes_from_json(value: Iterable[dict[str, Any]]) -> tuple[Box, ...]:
    """The label that `boxes_as_json` wrote."""
    found = []
    for item in value:
        left, top, right, bottom = item["box"]
        found.append(Box(left, top, right, bottom, item["label"]))
    return tuple(found)
