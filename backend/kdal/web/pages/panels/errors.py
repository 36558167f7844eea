"""Labels that look wrong, with their pictures, likeliest mistake first."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.web.pages.view import Panel, View

SHOWN = 12
"""Labels that are shown."""


def make(view: View) -> Json:
    """What the template shows."""
    told = view.estimates["label_errors"]
    return {
        "told": told,
        "suspects": told["suspects"][:SHOWN],
        "more": max(0, len(told["suspects"]) - SHOWN),
        "round": view.estimates["round"],
    }


PANEL = Panel("errors", "Labels that look wrong", make, every=30)
