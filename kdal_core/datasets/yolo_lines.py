"""The lines of a YOLO label file: class number, then a box, or the outline of an object."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kdal_core.datasets.box_scene import BoxScene, Corners, Mark, same_box
from kdal_core.datasets.texts import lines_of
from kdal_core.errors import LabelFormatError

DECIMALS = 6
"""Digits behind the point of a share that is written; those of boxes that nobody changed stay as they were."""
LEAST, MOST = -1.0, 2.0
"""A share beyond these is a pixel, or damage: a box that reaches beyond the image has its middle within."""


class Line(NamedTuple):
    """What a line says."""

    kind: int
    """Class number."""
    corners: Corners
    confidence: bool
    """Whether a sixth number stands behind the box, as predictions have it."""


def parse(line: str, keypoints: int = 0) -> Line:
    """The class number and box of a line.

    Args:
        line: class, then x and y of the middle, width and height; or x and y of three corners or more.
        keypoints: how many numbers tell key points behind the box.

    Raises:
        LabelFormatError: it is neither.

    >>> parse("1 0.5 0.5 0.25 0.5").corners
    (0.375, 0.25, 0.625, 0.75)
    >>> parse("0 0.25 0.25 0.5 0.25 0.5 0.75").corners
    (0.25, 0.25, 0.5, 0.75)
    """
    words = line.split()
    try:
        kind, *values = [_number(word) for word in words]
    except ValueError as error:
        raise LabelFormatError(f"it is no class number and four shares ({error})") from error
    if kind < 0 or not kind.is_integer() or len(values) < 4:
        raise LabelFormatError("it is no class number and four shares")
    if len(values) == 4 + keypoints:
        values = values[:4]
    outline = len(values) > 5
    if outline and len(values) % 2:
        raise LabelFormatError(f"it is no class number and four finite shares but {len(words)} words")
    checked = values if outline else values[:4]
    if not all(math.isfinite(value) and LEAST <= value <= MOST for value in checked):
        raise LabelFormatError("it is no class number and four finite shares of the image's width and height")
    if outline:
        xs, ys = values[::2], values[1::2]
        return Line(int(kind), (min(xs), min(ys), max(xs), max(ys)), False)
    x, y, wide, high = checked
    if min(wide, high) < 0:
        raise LabelFormatError("its box has a negative size")
    return Line(int(kind), (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2), len(values) == 5)


def told(text: str) -> list[str]:
    """The lines of a label file that tell boxes: neither empty nor comments."""
    return [line for line in lines_of(text) if line.strip() and not line.lstrip().startswith("#")]


def text_of(scene: BoxScene, numbers: Mapping[str, int]) -> str:
    """The text of a scene's label file: as it was read where nobody changed a box.

    Args:
        scene: with its marks.
        numbers: class number of each label.
    """
    lines = [_line(mark, numbers) for mark in scene.marks or ()]
    before = scene.extra.get("text")
    return before if isinstance(before, str) and told(before) == lines else as_text(lines)


def as_text(lines: Sequence[str]) -> str:
    """A text of these lines."""
    return "".join(f"{line}\n" for line in lines)


def number_said(mark: Mark) -> int | None:
    """The class number that a box's line gives for its label; none when it was renamed, or is new."""
    line = mark.extra.get("line")
    if not isinstance(line, str) or mark.extra.get("label") != mark.label:
        return None
    return parse(line, mark.extra.get("keypoints", 0)).kind


def _line(mark: Mark, numbers: Mapping[str, int]) -> str:
    before = mark.extra.get("line")
    if isinstance(before, str) and mark.extra.get("label") == mark.label:
        said = parse(before, mark.extra.get("keypoints", 0))
        if same_box(said.corners, mark.corners) and said.kind == numbers[mark.label]:
            return before
    left, top, right, bottom = mark.corners
    shares = ((left + right) / 2, (top + bottom) / 2, abs(right - left), abs(bottom - top))
    return " ".join([str(numbers[mark.label]), *(f"{share:.{DECIMALS}f}" for share in shares)])


def _number(word: str) -> float:
    if "_" in word:  # Python alone reads 1_000 as a number
        raise ValueError(f"could not convert string to float: {word!r}")
    return float(word)
