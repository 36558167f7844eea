"""Whether all of kdal works: workers, the inbox, Label Studio, the teacher."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.rounds.status import ALIVE
from kdal.storage.tables import account_of, now
from kdal.web.pages.reading import inbox
from kdal.web.pages.view import Panel, View

WORKERS = 20
"""Workers that are shown, the last that gave a sign of life first."""
SLOW = 120.0
"""Seconds after which an event that nobody has dealt with is worth a remark."""


def make(view: View) -> Json:
    """What the template shows."""
    storage = view.resources.storage
    rows = storage.workers()
    workers = [{"name": row.name, "seen": row.beat_at, "alive": now() - row.beat_at < ALIVE} for row in rows]
    waiting = inbox(storage, view.standing.project.id)
    age = None if waiting.oldest is None else (now() - waiting.oldest).total_seconds()
    title = view.names.title(view.standing.project.id)
    return {
        "workers": workers[:WORKERS],
        "more_workers": max(0, len(workers) - WORKERS),
        "alive": sum(worker["alive"] for worker in workers),
        "waiting": waiting.waiting,
        # Whole minutes: a figure that moves every second would make the page draw itself anew each time.
        "oldest": None if age is None else age // 60 * 60,
        "slow": age is not None and age > SLOW,
        "label_studio": title,
        "label_studio_url": view.resources.settings.label_studio_url,
        "teacher": _teacher(view),
        "connected_at": view.standing.project.connected_at,
    }


def _teacher(view: View) -> Json | None:
    """What the project's black-box teacher has cost by now; None before it is asked."""
    project = view.standing.project
    name = project.policy.get("black_box")
    account = None if name is None else view.resources.storage.teacher_account(account_of(project.uid, name))
    limits = next((row.facts for row in reversed(view.standing.rounds) if "query_budget" in row.facts), None)
    if account is None or limits is None:
        return None
    told = {"budget": limits["query_budget"], "money": limits["money"], "currency": limits["currency"]}
    return {"name": name, "queries": account.images, "cost": account.cost, **told}


PANEL = Panel("health", "Health", make, every=15, at_once=True)
