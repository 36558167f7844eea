"""The round now: labelled of budget, by whom, when the next retrain comes; or the step it is at, and the time left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdal.aliases import Json
from kdal.labelstudio.formats import notes
from kdal.policy import Policy
from kdal.storage.tables import Project, Round, now
from kdal.web.pages.reading import Standing
from kdal.web.pages.view import Panel, View
from kdal.web.pages.words import STEPS
from kdal_core.errors import ConfigError

PEOPLE = 8
"""People that are named."""
PACE_FROM = 3
"""Labels from which on a pace is told."""


def make(view: View) -> Json:
    """What the template shows."""
    standing = view.standing
    last, counting = standing.last, standing.counting
    computing = last is not None and last.state == "computing"
    policy = standing.project.policy
    return {
        "last": last,
        "computing": computing,
        "counting": counting,
        "unit": "object" if policy.get("budget_unit") == "objects" else "label",
        "labelling": None if counting is None else _labelling(counting),
        "people": _people(view, counting),
        "steps": _steps(last, standing.rounds) if last is not None and computing else [],
        "time_left": time_left(last, standing.rounds) if last is not None and computing else None,
        "usual": _usual(standing.rounds),
        "problem": standing.project.refusal or standing.project.problem,
        "notes": _notes(standing.project),
        "untrained": None if last is None else last.facts.get("why_untrained"),
        "no_backbones": None if last is None else last.facts.get("why_no_backbones"),
        "serving": standing.serving,
        "published": standing.published,
        "disconnected": standing.project.disconnected_at,
    }


def time_left(last: Round, rounds: Sequence[Round]) -> float | None:
    """Seconds until a round is open, as its steps took the last time; None where no round tells."""
    before = _finished_before(last, rounds)
    if before is None:
        return None
    left = 0.0
    for name, seconds in before.seconds.items():
        if name == last.step:
            left += float(seconds) * (1 - last.progress)
        elif name not in last.seconds:
            left += float(seconds)
    return left


def _finished_before(last: Round, rounds: Sequence[Round]) -> Round | None:
    """The newest earlier round that ran to its end, one that trained like this one where there is one."""
    done = [row for row in rounds if row.number < last.number and row.opened_at is not None and row.seconds]
    alike = [row for row in done if bool(row.facts.get("trains")) == bool(last.facts.get("trains", True))]
    found = (alike or done)[-1:]
    return found[0] if found else None


def _steps(last: Round, rounds: Sequence[Round]) -> list[Json]:
    """The steps of a round that is being computed, in words: those that are done, the one it is at, those to come."""
    before = _finished_before(last, rounds)
    known = set(last.seconds) | {last.step} | (set() if before is None else set(before.seconds))
    found = []
    for name, words in STEPS.items():
        if name in known and name != "waiting":
            state = "now" if name == last.step else "done" if name in last.seconds else "ahead"
            found.append({"name": name, "words": words, "state": state, "seconds": last.seconds.get(name)})
    return found


def _usual(rounds: Sequence[Round]) -> float | None:
    """Seconds that the last round took from its beginning to its opening."""
    opened = [row for row in rounds if row.opened_at is not None and row.seconds]
    return sum(float(value) for value in opened[-1].seconds.values()) if opened else None


def _labelling(row: Round) -> Json:
    """How far a batch is, its pace since the round was opened, and when at that pace the next retrain comes."""
    missing = max(0, row.budget - row.counted)
    found: dict[str, Any] = {"counted": row.counted, "budget": row.budget, "missing": missing, "left": None}
    found["share"] = min(1.0, row.counted / row.budget) if row.budget else 0.0
    if row.opened_at is not None and row.counted >= PACE_FROM and missing:
        passed = max(1.0, (now() - row.opened_at).total_seconds())
        found["pace"] = row.counted / passed * 3600
        found["left"] = missing / row.counted * passed
    return found


def _people(view: View, counting: Round | None) -> list[tuple[str, int]]:
    """Who made the labels that count, most first."""
    told: dict[str, int] = {} if counting is None else counting.facts.get("labelled_by") or {}
    ranked = sorted(told.items(), key=lambda item: (-item[1], item[0]))
    named = [(view.names.person(int(number)), count) for number, count in ranked[:PEOPLE]]
    others = sum(count for _, count in ranked[PEOPLE:])
    return [*named, ("others", others)] if others else named


def _notes(project: Project) -> list[str]:
    """What its owner should know of how kdal reads the labelling config; nothing where it cannot be served."""
    try:
        return list(notes(project.label_config, Policy.stored(project.policy)))
    except ConfigError:
        return []  # which is a problem, and said as one


def state_of(standing: Standing) -> tuple[str, str]:
    """How a project stands in two words or three, and as a colour: good, busy, bad or off."""
    last, project = standing.last, standing.project
    if project.disconnected_at is not None:
        return "disconnected", "off"
    if project.refusal or project.problem:
        return "has a problem", "bad"
    if last is None:
        return "waiting for a worker", "busy"
    return {
        "computing": ("computing", "busy"),
        "open": ("labelling", "good"),
        "failed": ("failed", "bad"),
        "cancelled": ("cancelled", "off"),
    }.get(last.state, (last.state, "off"))


PANEL = Panel("now", "Round now", make, every=3, at_once=True)
