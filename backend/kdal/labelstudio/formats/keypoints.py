"""``<KeyPointLabels>``: a lane is a set of points, each a region of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.lanes import LaneFormat, as_point
from kdal.labelstudio.formats.regions import Drawing, naming, value_of
from kdal_core.errors import LabelFormatError

Floats = NDArray[np.float64]

POINT_WIDTH = 0.5
"""Per cent of the image's width that a point is drawn with."""


class KeyPointLabelsFormat(LaneFormat):
    """Reads and writes lanes of points.

    Points that people have joined, by a relation or under one parent in the list of regions, are one lane. Of those
    that nobody joined, all points of a label are one lane, so that with a label for each lane nothing needs joining.
    The points of a lane are taken from top to bottom.
    """

    tag: ClassVar[str] = "KeyPointLabels"
    on_request: ClassVar[bool] = True
    region_type: ClassVar[str] = "keypointlabels"

    def _drawings(self, regions: Sequence[Json]) -> Iterator[Drawing]:
        points = []
        for name, region in self._ours(regions):
            with naming(f"region {name}"):
                points.append(self._drawing(name, region, self._points(region, value_of(region))))
        for lane in _lanes(points, _groups(regions)):
            first = lane[0]
            with naming(f"region {first.region}"):
                if any(point.label != first.label for point in lane):
                    raise LabelFormatError("it is joined with points of another label")
            places = np.concatenate([point.points for point in lane])
            order = np.argsort(places[:, 1], kind="stable")
            yield Drawing(first.region, places[order], first.label, first.size, first.meta)

    def _points(self, region: Json, value: Json) -> Floats:
        return np.array([as_point(value.get("x"), value.get("y"))])

    def _values(self, points: Floats, region: str) -> list[tuple[Json, Json]]:
        found: list[tuple[Json, Json]] = []
        for number, (x, y) in enumerate(points.tolist()):
            own = {"id": f"{region}-{number}"} | ({"parentID": f"{region}-0"} if number else {})
            found.append((own, {"x": x, "y": y, "width": POINT_WIDTH}))
        return found


FORMAT = KeyPointLabelsFormat


def _groups(regions: Sequence[Json]) -> dict[str, str]:
    """Id of a region that is joined with others -> name of its group."""
    groups: dict[str, str] = {}

    def find(name: str) -> str:
        while groups.setdefault(name, name) != name:
            groups[name] = name = groups[groups[name]]
        return name

    for region in regions:
        if region.get("type") == "relation":
            pair = region.get("from_id"), region.get("to_id")
        else:
            pair = region.get("id"), region.get("parentID")
        a, b = pair
        if isinstance(a, str) and isinstance(b, str) and a and b:
            groups[find(a)] = find(b)
    return {name: find(name) for name in list(groups)}


def _lanes(points: Sequence[Drawing], groups: dict[str, str]) -> list[list[Drawing]]:
    """The points of each lane, in the order in which people began them."""
    lanes: dict[tuple[str, str | int], list[Drawing]] = {}
    for point in points:
        group = groups.get(point.region)
        key: tuple[str, str | int] = ("label", point.label) if group is None else ("group", group)
        lanes.setdefault(key, []).append(point)
    return list(lanes.values())
