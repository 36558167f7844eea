"""Which classes the model takes for which; each cell opens its pictures."""

from __future__ import annotations

from collections import Counter

from kdal.aliases import Json
from kdal.web.pages.charts import heat
from kdal.web.pages.view import Panel, View

SHOWN = 12
"""Classes of the table: those that are in most cells off its diagonal, then by labels."""
PAIRS = 8
"""Pairs that are named under the table."""


def make(view: View) -> Json:
    """What the template shows."""
    told = view.estimates["confusion"]
    cells = {(cell["label"], cell["predicted"]): cell["count"] for cell in told["cells"]}
    wrong, total = Counter[str](), Counter[str]()
    for (label, predicted), count in cells.items():
        total[label] += count
        if label != predicted:
            wrong[label] += count
            wrong[predicted] += count
    ranked = sorted(told["classes"], key=lambda name: (-wrong[name], -total[name]))[:SHOWN]
    classes = [name for name in told["classes"] if name in set(ranked)]
    most = max((count for (label, predicted), count in cells.items() if label != predicted), default=0)
    right = max((count for (label, predicted), count in cells.items() if label == predicted), default=0)
    rows = [
        {
            "label": label,
            "total": total[label],
            "cells": [
                {
                    "predicted": name,
                    "count": cells.get((label, name), 0),
                    "heat": heat(cells.get((label, name), 0), right if label == name else most),
                    "right": label == name,
                }
                for name in classes
            ],
        }
        for label in classes
    ]
    pairs = [cell for cell in told["cells"] if cell["label"] != cell["predicted"]][:PAIRS]
    return {
        "told": told,
        "classes": classes,
        "rows": rows if told["cells"] else [],
        "pairs": pairs if len(told["classes"]) > SHOWN else [],
        "more": max(0, len(told["classes"]) - len(classes)),
    }


PANEL = Panel("confusion", "What it confuses", make, every=30)
