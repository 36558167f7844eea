"""An image of a box data set with its boxes, whichever form the data set has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Corners = tuple[float, float, float, float]
Json = dict[str, Any]

SAME = 1e-7
"""Share of the image by which nobody has moved a box: what a file said of it still holds, to its last digit."""


@dataclass(frozen=True, eq=False)
class Mark:
    """A box as a data set's file tells it, right or wrong."""

    label: str
    corners: Corners
    """Left, top, right, bottom as shares of the image's width and height."""
    extra: Json = field(default_factory=dict)
    """What else the file says of it, as JSON: what is needed to write it back as it was."""


@dataclass(frozen=True, eq=False)
class BoxScene:
    """An image and the boxes that its data set says it shows."""

    path: str
    """Of the image within the data set's folder, with forward slashes."""
    marks: tuple[Mark, ...] | None
    """None at all for an image without a label."""
    extra: Json = field(default_factory=dict)
    """What else the data set says of it, as JSON."""
    lists: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The data set's files that name it -> its place there, from 0, and what that line says."""
    size: tuple[int, int] | None = None
    """(width, height) in pixels, as its file or the image itself says."""

    @property
    def labelled(self) -> bool:
        """Whether the data set says which boxes the image shows, be it none."""
        return self.marks is not None


def same_box(a: Corners, b: Corners) -> bool:
    """Whether two boxes are the same but for noise; corners may come in either order.

    >>> same_box((0, 0, 0.5, 1), (0.5, 0, 0, 1)), same_box((0, 0, 0.5, 1), (0, 0, 0.501, 1))
    (True, False)
    """
    return bool(np.abs(np.array(_sorted(a)) - _sorted(b)).max() <= SAME)


def shortest(value: float, decimals: int) -> float | int:
    """A number rounded to `decimals` decimals; a whole one without a point.

    >>> shortest(12.0000000001, 6), shortest(12.3456789, 2)
    (12, 12.35)
    """
    rounded = round(value, decimals)
    return int(rounded) if rounded == int(rounded) else rounded


def class_names(scenes: list[BoxScene]) -> tuple[str, ...]:
    """The classes of all marks, in alphabetical order."""
    return tuple(sorted({mark.label for scene in scenes for mark in scene.marks or ()}))


def _sorted(corners: Corners) -> Corners:
    left, top, right, bottom = corners
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)
