"""The rounds so far: why each began, what it cost, what it was worth."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.storage.tables import Round
from kdal.web.pages.view import Panel, View
from kdal.web.pages.words import TRIGGERS

SHOWN = 30
"""Rounds of the table: the newest."""


def make(view: View) -> Json:
    """What the template shows."""
    rounds = view.standing.rounds
    serving = view.standing.project.serving_round
    return {"rows": [_row(row, serving) for row in rounds[::-1][:SHOWN]], "more": max(0, len(rounds) - SHOWN)}


def _row(row: Round, serving: int | None) -> Json:
    facts = row.facts
    return {
        "number": row.number,
        "state": row.state,
        "began": row.created_at,
        "why": TRIGGERS.get(row.trigger, row.trigger),
        "labels": facts.get("labels"),
        "pool": facts.get("pool"),
        "took": sum(float(value) for value in row.seconds.values()) if row.opened_at is not None else None,
        "score": facts.get("held_out_score"),
        "metric": facts.get("metric"),
        "held_out": facts.get("held_out"),
        "promoted": facts.get("promoted"),
        "serves": row.number == serving,
        "verdict": facts.get("verdict"),
        "untrained": facts.get("why_untrained"),
        "error": row.error,
    }


PANEL = Panel("timeline", "Rounds", make, every=10, at_once=True)
