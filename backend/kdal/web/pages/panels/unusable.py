"""Tasks that the last round could not use, with their reasons."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.web.pages.reading import unusable
from kdal.web.pages.view import Panel, View

SHOWN = 12
"""Tasks that are named."""


def make(view: View) -> Json:
    """What the template shows."""
    standing = view.standing
    if standing.last is None:
        return {"count": 0, "tasks": [], "can_start": False}
    count, tasks = unusable(view.resources.storage, standing.project.id, standing.last.number, SHOWN)
    return {"count": count, "tasks": tasks, "can_start": standing.last.state == "open"}


PANEL = Panel("unusable", "Tasks that cannot be used", make, every=20)
