"""How often each class has been labelled."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.web.pages.view import Panel, View

SHOWN = 14
"""Classes that are shown."""


def make(view: View) -> Json:
    """What the template shows: the classes with the most labels, and those with the fewest where there are many."""
    told = view.estimates["classes"]
    rows = sorted(told["rows"], key=lambda row: -row["objects"])
    head, tail = (rows, []) if len(rows) <= SHOWN else (rows[: SHOWN // 2], rows[-SHOWN // 2 :])
    return {
        "told": told,
        "head": head,
        "tail": tail,
        "between": len(rows) - len(head) - len(tail),
        "most": max((row["objects"] for row in rows), default=0),
        "drawn": any(row["objects"] != row["labels"] for row in rows),
    }


PANEL = Panel("classes", "Class balance", make, every=30)
