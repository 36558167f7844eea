"""The next tasks as pictures, with what is suggested on them and why each comes now."""

from __future__ import annotations

from kdal.aliases import Json
from kdal.rounds.queue import Entry
from kdal.web.pages import drawing
from kdal.web.pages.view import Panel, View
from kdal.web.pages.words import plural

SHOWN = 24
"""Tasks that are shown."""
RARE = 0.5
"""A class is rare below this part of its even share of the labels."""


def make(view: View) -> Json:
    """What the template shows."""
    store, published = view.store, view.standing.published
    if store is None or published is None:
        return {"tasks": [], "round": None, "done": 0, "beyond": False}
    found = view.pictures.queue(store.uid, store.number)
    counting = view.standing.counting
    done = set((counting or published).facts.get("labelled_first") or [])
    left = [entry for task, entry in found.entries.items() if task not in done]
    rare = _rare(view) if found.regions else {}
    return {
        "tasks": [_task(entry, found.regions.get(entry.task, []), rare) for entry in left[:SHOWN]],
        "round": published.number,
        "done": len(done & found.entries.keys()),
        "strategy": found.strategy,
        "beyond": bool(found.entries) and not left,
    }


def _task(entry: Entry, regions: list[Json], rare: dict[str, int]) -> Json:
    said = drawing.names(regions)
    short, why = reason(entry)
    note = next((f"{label}: {plural(rare[label], 'label')} so far" for label, _, _ in said if label in rare), None)
    return {"task": entry.task, "short": short, "why": why, "said": said, "rare": note, "kind": entry.why}


def reason(entry: Entry) -> tuple[str, str]:
    """Why a task comes when it does: in two words, and in a sentence."""
    if entry.why == "gap" and entry.gap is not None:
        return "models disagree", f"The models disagree on it more than on {entry.gap:.0%} of the images that wait."
    if entry.why == "unsure" and entry.unsure is not None:
        return "model unsure", f"The model is less sure of it than of {entry.unsure:.0%} of the images that wait."
    if entry.why == "far" and entry.far is not None:
        return "far from labels", f"It is farther from all labelled images than {entry.far:.0%} of those that wait."
    return {
        "random": ("random", "It was drawn at random: what is seen on such labels holds for all images."),
        "cold": ("coverage", "It was chosen to cover the images well: no model has been trained yet."),
        "covers": ("stands for others", f"It stands for {plural(entry.covers, 'image')} like it."),
        "behind": ("put back", "It comes last: somebody skipped it, or its image cannot be read."),
    }.get(entry.why, ("strategy", "The strategy of the policy ranks it here."))


def _rare(view: View) -> dict[str, int]:
    """Classes of which there are few labels, with how many."""
    rows = view.estimates["classes"]["rows"]
    return {
        row["class"]: row["objects"] for row in rows if row["share"] is not None and row["share"] < RARE / len(rows)
    }


PANEL = Panel("queue", "Next tasks", make, every=10)
