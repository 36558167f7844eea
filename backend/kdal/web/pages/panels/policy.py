"""What the owner has decided, and who changed it when."""

from __future__ import annotations

import json

from kdal.aliases import Json
from kdal.web.pages.view import Panel, View

SHOWN = 5
"""Changes that are shown."""


def make(view: View) -> Json:
    """What the template shows."""
    policy = view.standing.project.policy
    return {
        "keys": [(key, json.dumps(value)) for key, value in sorted(policy.items())],
        "changes": view.policies.history(view.standing.project)[:SHOWN],
        "refusal": view.standing.project.refusal,
    }


PANEL = Panel("policy", "Policy", make, every=15)
