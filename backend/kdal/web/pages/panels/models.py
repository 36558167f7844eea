"""The models of a project, which one serves, and the way back to an earlier one."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.rounds import models
from kdal.web.pages.view import Panel, View

SHOWN = 30
"""Models that are shown: the newest."""


def make(view: View) -> Json:
    """What the template shows."""
    standing = view.standing
    found = models.versions(view.resources.storage, standing.project.id)[::-1]
    serving = next((one for one in found if one.serves), None)
    busy = standing.last is not None and standing.last.state in ("computing", "failed")
    return {
        "models": found[:SHOWN],
        "more": max(0, len(found) - SHOWN),
        "serving": serving,
        "back": serving.parent if serving is not None else None,
        "busy": busy,
        "can_choose": not busy and standing.project.disconnected_at is None,
    }


PANEL = Panel("models", "Models", make, every=10)
