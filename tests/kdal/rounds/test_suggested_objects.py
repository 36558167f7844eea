"""What became of suggested classes, boxes and lanes; and the curve of a model whose metric is that of a set."""

from __future__ import annotations

import numpy as np
import pytest

from kdal.images.refs import ImageRef
from kdal.rounds.estimates.collecting import _with_point
from kdal.rounds.estimates.kept import Kept
from kdal.rounds.estimates.kept_objects import outcomes
from kdal.rounds.estimates.met import Met
from kdal.rounds.snapshot import Labelled
from kdal_core.tasks import get_task
from kdal_core.tasks.box import Box
from kdal_core.tasks.lane import Lane

CELLS = get_task("boxes", ("red", "white"))
LANES = get_task("lanes", ("lane",))


HERE = Box(0.1, 0.1, 0.3, 0.3, 1)


def lane(top: float, bottom: float, low: float = 0.9) -> Lane:
    return Lane(np.array([[top, 0.4], [bottom, low]]))


@pytest.mark.parametrize(
    ("task", "suggested", "labelled", "became"),
    [
        (CELLS, (Box(0.1, 0.1, 0.3, 0.3, 0),), (Box(0.1, 0.1, 0.3, 0.3000004, 0),), [("red", "unchanged")]),
        (CELLS, (Box(0.1, 0.1, 0.3, 0.3, 0),), (Box(0.1, 0.1, 0.3, 0.32, 0),), [("red", "changed")]),
        (CELLS, (Box(0.1, 0.1, 0.3, 0.3, 0),), (Box(0.1, 0.1, 0.3, 0.3, 1),), [("red", "changed")]),
        (CELLS, (Box(0.1, 0.1, 0.3, 0.3, 1),), (Box(0.6, 0.6, 0.8, 0.8, 1),), [("white", "rejected")]),
        (CELLS, (HERE, HERE), (HERE,), [("white", "unchanged"), ("white", "rejected")]),
        (CELLS, (Box(0.1, 0.1, 0.3, 0.3, 1),), (), [("white", "rejected")]),
        (LANES, (lane(0.5, 0.2),), (lane(0.5, 0.2000001),), [("lane", "unchanged")]),
        (LANES, (lane(0.5, 0.2),), (lane(0.5, 0.24),), [("lane", "changed")]),
        (LANES, (lane(0.5, 0.2),), (lane(0.5, 0.2, 0.95),), [("lane", "changed")]),
        (LANES, (lane(0.5, 0.2),), (lane(0.5, 0.8),), [("lane", "rejected")]),
    ],
)  # fmt: skip
def test_each_suggested_object_is_left_corrected_or_removed(task, suggested, labelled, became):
    assert outcomes(task, suggested, labelled) == became


def test_the_curve_of_boxes_is_of_all_images_of_a_model_over_rounds():
    rng = np.random.default_rng(0)
    found = np.full((6, 4, 6), np.nan, dtype=np.float32)
    targets = []
    for image in range(6):
        x, y = rng.random(2) * 0.5
        found[image, 0] = [x, y, x + 0.3, y + 0.3, 0.9, 0]
        found[image, 1] = [0.7, 0.7, 0.9, 0.9, rng.random(), 1]
        targets.append((Box(float(x), float(y), float(x + 0.3), float(y + 0.3), 0),) if image else ())
    items = [Labelled(ImageRef(task, "x.png"), targets[task], False) for task in range(6)]

    def met(number: int, tasks: range) -> Met:
        said = {task: found[task] for task in tasks}
        drawn = frozenset(tasks)
        return Met(number, 1, [items[task] for task in tasks], drawn, said)

    kept = _with_point(Kept(), met(1, range(3)), 1, 40, CELLS)
    kept = _with_point(kept, met(2, range(3, 6)), 1, 40, CELLS)
    (point,) = kept.points
    assert (point["images"], kept.models) == (6, [1])
    assert point["value"] == pytest.approx(CELLS.score(found, targets))
    assert point["low"] <= point["value"] <= point["high"]
