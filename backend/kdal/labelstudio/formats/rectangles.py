"""``<RectangleLabels>``: an object is a box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.base import told_sure
from kdal.labelstudio.formats.regions import Drawing, RegionFormat, size_of
from kdal_core.errors import LabelFormatError
from kdal_core.tasks.box import MOST_BOXES, Box, boxes_of, clean_box

if TYPE_CHECKING:  # it imports torch, which takes seconds: reading a labelling config does not need it
    from kdal_core.tasks import Task

Floats = NDArray[np.float64]

UPRIGHT = 1e-6
"""Degrees by which a box may be turned and still be upright."""


class RectangleLabelsFormat(RegionFormat):
    """Reads and writes boxes.

    A turned box is read as the upright box around it, and the log says so. Boxes reaching beyond the image are cut at
    its border; one without size (a click) or beside the image sets its image aside: something is there that nobody has
    drawn.
    """

    tag: ClassVar[str] = "RectangleLabels"
    kind: ClassVar[str] = "boxes"
    region_type: ClassVar[str] = "rectanglelabels"
    exact: ClassVar[bool] = True

    def task(self) -> Task:
        """Boxes of these classes."""
        from kdal_core.tasks import get_task

        return get_task("boxes", self._classes)

    def result(self, prediction: NDArray[Any], size: tuple[int, int] | None = None) -> list[Json]:
        """One region for each box that is predicted, with its score.

        Args:
            prediction: (K, 6), as `kdal_core.tasks.box` says.
            size: (width, height) of the image in pixels, where known.
        """
        regions: list[Json] = []
        for number, (box, score) in enumerate(boxes_of(prediction)):
            corners = np.array(box.corners).reshape(2, 2).round(6)
            name = f"kdal-{self._control.name}-{number}"
            regions += [region | told_sure(score) for region in self.draw(corners, box.label, name, size)]
        return regions

    def _cleaned(self, drawing: Drawing) -> Box:
        (left, top), (right, bottom) = drawing.points.tolist()
        return clean_box(left, top, right, bottom, drawing.label)

    def _drawings(self, regions: Sequence[Json]) -> list[Drawing]:
        drawings = list(super()._drawings(regions))
        if len(drawings) > MOST_BOXES:
            raise LabelFormatError(f"it has {len(drawings):,} boxes, more than anybody draws ({MOST_BOXES:,})")
        return drawings

    def _drawing(self, name: str, region: Json, points: Floats) -> Drawing:
        drawing = super()._drawing(name, region, points)
        angle = _number(region["value"], "rotation", 0.0)
        if abs(angle) <= UPRIGHT:
            return drawing
        return replace(drawing, note=f"a box turned by {angle:.1f} degrees is read as the upright box around it")

    def _points(self, region: Json, value: Json) -> Floats:
        left, top, width, height = (_number(value, name) for name in ("x", "y", "width", "height"))
        angle = math.radians(_number(value, "rotation", 0.0))
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) / 100
        if abs(math.degrees(angle)) > UPRIGHT:
            pixels = size_of(region)
            if pixels is None:
                raise LabelFormatError(
                    "it is turned, and does not say how large its image is: nobody can tell which box is around it"
                )
            cos, sin = math.cos(angle), math.sin(angle)  # clockwise about its first corner, as the editor does
            corners = (corners * pixels) @ np.array([[cos, sin], [-sin, cos]]) / pixels
        points: Floats = np.stack([corners.min(axis=0), corners.max(axis=0)]) + np.array([left, top]) / 100
        return points

    def _values(self, points: Floats, region: str) -> list[tuple[Json, Json]]:
        (left, top), (right, bottom) = points.tolist()
        return [({"id": region}, {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0})]


FORMAT = RectangleLabelsFormat


def _number(value: Json, name: str, default: float | None = None) -> float:
    """A number of a region's value, in per cent or degrees."""
    found = value.get(name, default)
    if found is None and default is not None:
        return default
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise LabelFormatError(f"its {name} is no number")
    try:
        number = float(found)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or abs(number) > 1e6:
        raise LabelFormatError(f"its {name} is damaged: {str(found)[:40]}")
    return number
