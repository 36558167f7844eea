"""Annotations that `kdal accept` has written: sure suggestions, which nobody has looked at.

They say so in their region, where people see it, too. But a region's mark alone would not do: somebody who opens such
an annotation and submits it, or a copy of it, hands the mark on, and has looked. Label Studio notes who last changed an
annotation ("updated_by") of all that people and API clients make or edit, and of none that its action "Create
annotations from predictions" makes, which is how kdal writes them. So one that bears the mark and that nobody has
touched is kdal's; anything else is a person's.
"""

from __future__ import annotations

from typing import Any

from kdal.aliases import Json

MARK, ACCEPTED = "kdal", "accepted"
"""Key and value in the meta of a region."""
TOLD = "accepted by kdal, not seen by anybody"
"""What people read beside the region; Label Studio's filter of annotation results finds it, too."""
VERSION = "kdal-accepted"
"""Model version of the predictions that become annotations; they are gone once that is done."""


def marked(region: Json) -> Json:
    """A region of a suggestion with the mark."""
    meta = region.get("meta") or {}
    return region | {"meta": {**meta, "text": [TOLD, *meta.get("text", [])], MARK: ACCEPTED}}


def is_accepted(annotation: Json) -> bool:
    """Whether kdal wrote this annotation, and nobody has touched it since."""
    touched = (annotation.get(name) for name in ("updated_by", "lead_time", "ground_truth"))
    regions = annotation.get("result")
    return not any(touched) and isinstance(regions, list) and any(_bears_mark(region) for region in regions)


def accepted_in(task: Json) -> list[Json]:
    """A task's annotations that are kdal's."""
    found = task.get("annotations")
    return [a for a in found if isinstance(a, dict) and is_accepted(a)] if isinstance(found, list) else []


def only_accepted(task: Json) -> bool:
    """Whether a task that is labelled is so by kdal alone: to kdal it has no label."""
    finished = finished_by_anybody(task)
    return bool(finished) and all(is_accepted(annotation) for annotation in finished)


def finished_by_anybody(task: Json) -> list[Json]:
    """Annotations that are not cancelled, kdal's own, too.

    Of a task that Label Studio calls labelled there is none where the last one was just removed.
    """
    found = task.get("annotations")
    return [a for a in found if isinstance(a, dict) and not a.get("was_cancelled")] if isinstance(found, list) else []


def _bears_mark(region: Any) -> bool:
    meta = region.get("meta") if isinstance(region, dict) else None
    return isinstance(meta, dict) and meta.get(MARK) == ACCEPTED
