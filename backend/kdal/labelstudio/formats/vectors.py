"""``<VectorLabels>``: a lane is a polyline. The tags that suit lanes best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.formats.centre_lines import centre_of_outline
from kdal.labelstudio.formats.lanes import LaneFormat, as_point
from kdal_core.errors import LabelFormatError

Floats = NDArray[np.float64]

BEZIER_STEPS = 20
"""Straight pieces of a curve: as many as Label Studio's editor takes."""
HANDLE = 0.3
"""Where the editor puts the handle of a curve's end that has none, as share of the way to the other end."""


class VectorLabelsFormat(LaneFormat):
    """Reads and writes polylines.

    Curves are read as the editor draws them. A closed shape is the outline of a painted marking: its centre line
    counts. A line that forks is refused: nothing says which branch is the lane.
    """

    tag: ClassVar[str] = "VectorLabels"
    region_type: ClassVar[str] = "vectorlabels"
    exact: ClassVar[bool] = True

    def _points(self, region: Json, value: Json) -> Floats:
        vertices = value.get("vertices")
        if not isinstance(vertices, list) or not all(isinstance(vertex, dict) for vertex in vertices):
            raise LabelFormatError("it has no list of vertices")
        if not vertices:
            return np.zeros((0, 2))
        places = np.array([as_point(vertex.get("x"), vertex.get("y")) for vertex in vertices])
        before = _predecessors(vertices)
        walk = _walk(before, places)
        pieces = [places[walk[:1]]]
        for a, b in pairwise(walk):
            forward = before[b] == a
            piece = _piece(vertices, places, a, b) if forward else _piece(vertices, places, b, a)[::-1]
            pieces.append(piece[1:])
        points = np.concatenate(pieces)
        closed = value.get("closed") is True or (len(walk) > 1 and walk[0] == walk[-1])
        return centre_of_outline(points) if closed else points

    def _values(self, points: Floats, region: str) -> list[tuple[Json, Json]]:
        names = [f"{region}-{i}" for i in range(len(points))]
        vertices = [
            {"id": name, "x": x, "y": y, "prevPointId": before, "isBezier": False}
            for name, before, (x, y) in zip(names, [None, *names[:-1]], points.tolist(), strict=True)
        ]
        return [({"id": region}, {"vertices": vertices, "closed": False})]


FORMAT = VectorLabelsFormat


def _predecessors(vertices: Sequence[Json]) -> list[int | None]:
    """For each vertex the one that it is joined to, none for the first of the line."""
    numbers = {name: i for i, vertex in enumerate(vertices) if isinstance(name := vertex.get("id"), str)}
    found: list[int | None] = []
    for i, vertex in enumerate(vertices):
        name = vertex.get("prevPointId")
        said = numbers.get(name) if isinstance(name, str) else None
        found.append(None if said == i else said)
    if found.count(None) > 1:  # as the editor reads them: whoever names none follows the one before it in the list
        found = [i - 1 if said is None and i else said for i, said in enumerate(found)]
    return found


def _walk(before: Sequence[int | None], places: Floats) -> list[int]:
    """The vertices from one end of the line to the other; the first again at the end when it is closed."""
    joined: list[list[int]] = [[] for _ in before]
    for child, parent in enumerate(before):
        if parent is not None:
            joined[child].append(parent)
            joined[parent].append(child)
    fork = next((i for i, others in enumerate(joined) if len(others) > 2), None)
    if fork is not None:
        x, y = places[fork] * 100
        raise LabelFormatError(f"it forks at {x:.1f} %, {y:.1f} %: draw each branch as a region of its own")
    start = next((i for i, others in enumerate(joined) if len(others) < 2), 0)
    walk, left = [start], joined[start].copy()
    while left:
        here = left[0]
        left = joined[here].copy()
        left.remove(walk[-1])
        walk.append(here)
        if here == start:
            break
    if len(set(walk)) < len(before):
        raise LabelFormatError("its vertices are not joined to one line")
    return walk


def _piece(vertices: Sequence[Json], places: Floats, a: int, b: int) -> Floats:
    """(k, 2) points from vertex a to vertex b, which is drawn after it: both, and between them those of a curve."""
    start, end = places[a], places[b]
    leaving, arriving = _handle(vertices[a], "controlPoint2"), _handle(vertices[b], "controlPoint1")
    if leaving is None and arriving is None:
        return np.stack([start, end])
    leaving = start + HANDLE * (end - start) if leaving is None else leaving
    arriving = end - HANDLE * (end - start) if arriving is None else arriving
    t = np.linspace(0, 1, BEZIER_STEPS + 1)[:, None]
    s = 1 - t
    curve: Floats = s**3 * start + 3 * s**2 * t * leaving + 3 * s * t**2 * arriving + t**3 * end
    curve[0], curve[-1] = start, end
    return curve


def _handle(vertex: Json, name: str) -> Floats | None:
    handle: Any = vertex.get(name)
    if vertex.get("isBezier") is not True or not isinstance(handle, dict):
        return None
    return np.array(as_point(handle.get("x"), handle.get("y")))
