"""What became of suggestions, from the regions that were shown and the label that was submitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdal_core.evaluation.suggestions import Outcome
from kdal_core.metrics.prediction_gaps import overlaps
from kdal_core.tasks import Task
from kdal_core.tasks.box import Box
from kdal_core.tasks.lane import Lane

MOVED = 1e-3
"""Share of the image by which something must have been moved: Label Studio adds noise of its own when it saves."""
SAME_BOX = 0.5
"""Overlap (IoU) from which on a labelled box is the suggested one, corrected."""
SAME_LANE = 0.05
"""Share of the image's width, on average, within which a labelled lane is the suggested one, corrected."""
ROWS = 32
"""Rows at which two lanes are compared."""


def outcomes(task: Task, suggested: Any, labelled: Any) -> list[tuple[str, Outcome]]:
    """Class and outcome of each suggestion for an image.

    Args:
        task: what is labelled.
        suggested: what was shown, as the task's target.
        labelled: the target that was submitted.

    >>> from kdal_core.tasks import get_task
    >>> outcomes(get_task("classification", ("cat", "dog")), 0, 1)
    [('cat', 'changed')]
    """
    if not isinstance(suggested, tuple | list):
        return [(task.classes[suggested], "unchanged" if suggested == labelled else "changed")]
    left = list(labelled)
    found: list[tuple[str, Outcome]] = []
    for one in suggested:
        apart = [_apart(one, other) for other in left]
        nearest = int(np.argmin([distance for distance, _ in apart])) if apart else -1
        if nearest < 0 or apart[nearest][0] > 1:
            found.append((task.classes[one.label], "rejected"))
            continue
        same = apart[nearest][1] and one.label == left.pop(nearest).label
        found.append((task.classes[one.label], "unchanged" if same else "changed"))
    return found


def _apart(suggested: Any, labelled: Any) -> tuple[float, bool]:
    """How far two objects lie apart, above 1: they are two; and whether nothing was moved."""
    if isinstance(suggested, Box) and isinstance(labelled, Box):
        one, other = (np.array([[b.left, b.top, b.right, b.bottom]]) for b in (suggested, labelled))
        overlap = float(overlaps(one, other)[0, 0])
        return (1 - overlap) / (1 - SAME_BOX), bool(np.abs(one - other).max() <= MOVED)
    if isinstance(suggested, Lane) and isinstance(labelled, Lane):
        return _lanes_apart(suggested.points, labelled.points)
    return np.inf, False


def _lanes_apart(one: Any, other: Any) -> tuple[float, bool]:
    ends = [(points[0, 1], points[-1, 1]) for points in (one, other)]
    top, bottom = max(ends[0][0], ends[1][0]), min(ends[0][1], ends[1][1])
    if bottom <= top:
        return np.inf, False
    rows = np.linspace(top, bottom, ROWS)
    gaps = np.abs(_x_at(one, rows) - _x_at(other, rows))
    moved = max(float(gaps.max()), *(abs(a - b) for a, b in zip(*ends, strict=True)))
    return float(gaps.mean()) / SAME_LANE, moved <= MOVED


def _x_at(points: Any, rows: Any) -> Any:
    return np.interp(rows, points[:, 1], points[:, 0])


def seen_as(form_target: Any, regions: Sequence[Any]) -> Any:
    """Regions that were shown, as the target that somebody would have given who submitted them as they were.

    Args:
        form_target: `kdal.labelstudio.formats.Format.target`.
        regions: of one prediction.

    Raises:
        LabelFormatError: they are none of the project's labels any more.
    """
    return form_target({"id": 0, "annotations": [{"id": 0, "result": list(regions)}]})
