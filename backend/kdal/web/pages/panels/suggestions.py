"""What becomes of suggestions, class by class, and the time they save."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.web.pages.view import Panel, View

SHOWN = 12
"""Classes of the table: those with the most suggestions."""


def make(view: View) -> Json:
    """What the template shows."""
    told = view.estimates
    rows = told["suggestions"]["by_class"]
    return {
        "suggestions": told["suggestions"],
        "rows": rows[:SHOWN],
        "more": max(0, len(rows) - SHOWN),
        "time": told["time"],
    }


PANEL = Panel("suggestions", "Suggestions", make, every=20)
