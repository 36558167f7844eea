"""``<PolygonLabels>``: a lane is the outline of its painted marking, or a polyline that nobody closed."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.centre_lines import centre_of_outline
from kdal.labelstudio.formats.lanes import LaneFormat, as_point
from kdal_core.errors import LabelFormatError

Floats = NDArray[np.float64]

MARKING_WIDTH = 0.4
"""Per cent of the image's width between the borders of an outline that kdal draws."""


class PolygonLabelsFormat(LaneFormat):
    """Reads the centre line of closed polygons, and open ones as polylines; writes thin closed ones.

    Label Studio does not submit open polygons (it disables the button): they come by import only.
    """

    tag: ClassVar[str] = "PolygonLabels"
    on_request: ClassVar[bool] = True
    region_type: ClassVar[str] = "polygonlabels"

    def _points(self, region: Json, value: Json) -> Floats:
        points = value.get("points")
        if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
            raise LabelFormatError("it has no list of points [x, y]")
        drawn = np.array([as_point(x, y) for x, y in points]).reshape(-1, 2)
        return drawn if value.get("closed") is False else centre_of_outline(drawn)

    def _values(self, points: Floats, region: str) -> list[tuple[Json, Json]]:
        aside = np.array([MARKING_WIDTH / 2, 0.0])
        outline = np.concatenate([points - aside, points[::-1] + aside])
        outline = outline.clip(0.0, 100.0)  # Label Studio drops predictions of polygons that reach outside, in silence
        return [({"id": region}, {"points": outline.tolist(), "closed": True})]


FORMAT = PolygonLabelsFormat
