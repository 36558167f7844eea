"""What the tags that lanes are drawn with have in common: how a lane is read and written."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.base import told_sure
from kdal.labelstudio.formats.regions import Drawing, RegionFormat
from kdal_core.errors import LabelFormatError

if TYPE_CHECKING:  # they import scipy or torch, which takes seconds: reading a labelling config does not need them
    from kdal_core.tasks import Task
    from kdal_core.tasks.lane import Lane

Floats = NDArray[np.float64]

EDITABLE = (1e-3, 1.5e-3, 2e-3, 3e-3, 4e-3)
"""Shares of the image by which a pre-annotation may miss the prediction: the first with which it has few vertices."""
FEW = 10
"""Vertices that somebody likes to drag."""
LARGE = 1_000_000
"""Per cent of the image above which a coordinate is damage: computing with it could overflow."""


class LaneFormat(RegionFormat):
    """Reads and writes lanes. A tag is a subclass that knows its regions' values."""

    kind: ClassVar[str] = "lanes"

    def task(self) -> Task:
        """Lanes of these classes."""
        from kdal_core.tasks import get_task

        return get_task("lanes", self._classes)

    def result(self, prediction: NDArray[Any], size: tuple[int, int] | None = None) -> list[Json]:
        """One editable region for each lane, with its score.

        Args:
            prediction: (S, R + 2), as `kdal_core.tasks.lane` says.
            size: (width, height) of the image in pixels. Without it Label Studio's editor draws polylines far too
                small, all of them in the upper left corner.
        """
        from kdal_core.tasks.lane import clean_lane, lanes_of

        regions = []
        for number, (lane, score) in enumerate(lanes_of(prediction)):
            try:
                drawn = _editable(clean_lane(lane.points, lane.label).points)
            except LabelFormatError:
                continue  # next to nothing of it lies in the image
            drawn = drawn.round(6).clip(0.0, 1.0)  # Label Studio drops points beyond the border, in silence
            for region in self.draw(drawn, lane.label, f"kdal-{self._control.name}-{number}", size):
                regions.append(region | told_sure(score))
        return regions

    def _cleaned(self, drawing: Drawing) -> Lane:
        from kdal_core.tasks.lane import clean_lane

        return clean_lane(drawing.points, drawing.label)


def _editable(points: Floats) -> Floats:
    """A lane (n, 2) with as few vertices as people like to drag, (m, 2)."""
    from kdal_core.tasks.lane import reduce_vertices

    for tolerance in EDITABLE:
        reduced = reduce_vertices(points, tolerance)
        if len(reduced) <= FEW:
            break
    return reduced


def as_point(x: Any, y: Any) -> tuple[float, float]:
    """A vertex in per cent of the image as shares of it."""
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in (x, y)):
        raise LabelFormatError("a vertex is no pair of numbers")
    if any(math.isfinite(v) and abs(v) > LARGE for v in (x, y)):
        raise LabelFormatError("a vertex lies far away from the image")
    return (x / 100, y / 100) if math.isfinite(x) and math.isfinite(y) else (math.nan, math.nan)
