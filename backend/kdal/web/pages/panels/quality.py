"""How good it is by now, and whether more labels pay: the learning curve, when to stop, what the order saved."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.web.pages.charts import curve
from kdal.web.pages.view import Panel, View


def make(view: View) -> Json:
    """What the template shows."""
    told = view.estimates
    points, target = told["curve"]["points"], told["stopping"]["target"]
    return {
        "curve": told["curve"],
        "metric": told["metric"] or "score",
        "chart": curve(points, target) if len(points) > 1 else None,
        "stopping": told["stopping"],
        "saved": told["labels_saved"],
        "verdict": VERDICTS.get(told["stopping"]["verdict"], ("", "off")),
    }


VERDICTS = {
    "stop": ("you may stop", "good"),
    "go on": ("go on", "busy"),
    "out of reach": ("out of reach", "bad"),
    "cannot be told yet": ("cannot be told yet", "off"),
    "not asked": ("no target set", "off"),
}
"""The advice in a word or two, and its colour."""
PANEL = Panel("quality", "How good it is", make, every=20, at_once=True)
