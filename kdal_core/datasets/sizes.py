"""Whether a label's size of its image is the image's own: where it is not, its pixels mean nothing."""

from __future__ import annotations

import math
from typing import Any

from kdal_core.datasets.finding import Finder
from kdal_core.datasets.images import image_size
from kdal_core.errors import ConfigError, LabelFormatError

Size = tuple[int, int]
"""(width, height) in pixels."""
SAME_SHAPE = 0.01
"""Share by which a label may disagree on how wide its image is for its height: sizes are rounded."""
LONGEST = 1_000_000
"""Pixels of a side above which a size is damage."""


def size_of(finder: Finder, path: str, said: Size | None) -> Size:
    """The size for which a label's pixels are meant: the one that it says, if it is that of the image as people see it.

    The image may be a smaller or larger copy of the same picture. One that is not there, or cannot be read, agrees.

    Args:
        finder: of the data set's folder.
        path: of the image in it.
        said: the size that the label says, if any.

    Raises:
        LabelFormatError: they disagree, or nobody knows; says why, without the image's name.
    """
    try:
        actual = image_size(finder.folder / path) if finder.is_file(path) else None
    except ConfigError:
        actual = None
    if said is None:
        if actual is None:
            raise LabelFormatError("nobody says how large the image is, and it cannot be read")
        return actual
    if actual is None or said == actual:
        return said
    here = f"its label is for {said[0]} x {said[1]} pixels, the picture has {actual[0]} x {actual[1]} as it is shown"
    if said == actual[::-1]:
        raise LabelFormatError(f"{here}: width and height are swapped, or the camera was turned (EXIF)")
    if not math.isclose(said[0] * actual[1], said[1] * actual[0], rel_tol=SAME_SHAPE):
        raise LabelFormatError(here)
    return said


def as_size(width: Any, height: Any) -> Size | None:
    """A size that a file says, as whole pixels; none when it is no size.

    >>> as_size("640", 480.0), as_size(0, 0), as_size("wide", None)
    ((640, 480), None, None)
    """
    try:
        sides = [float(side) for side in (width, height) if not isinstance(side, bool)]
    except (TypeError, ValueError, OverflowError):
        return None
    if len(sides) < 2 or not all(math.isfinite(side) and 1 <= side <= LONGEST for side in sides):
        return None
    return int(sides[0]), int(sides[1])
