"""A map of the images: alike is near; labelled, batch and pool in colours; a point opens its picture."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.rounds.map import KINDS
from kdal.web.pages.view import Panel, View

WIDTH, HEIGHT, EDGE = 720, 420, 10
"""Of the map, in its own units."""


def make(view: View) -> Json:
    """What the template shows."""
    store = view.store
    points = [] if store is None else view.pictures.map(store.uid, store.number)
    shown = [
        {
            "task": point.task,
            "x": round(EDGE + (WIDTH - 2 * EDGE) * point.x, 1),
            "y": round(EDGE + (HEIGHT - 2 * EDGE) * point.y, 1),
            "kind": point.kind,
        }
        for point in points
    ]
    counts = {kind: sum(point.kind == kind for point in points) for kind in KINDS}
    return {"points": shown, "counts": counts, "width": WIDTH, "height": HEIGHT, "number": store and store.number}


PANEL = Panel("map", "Map of the images", make, every=30)
