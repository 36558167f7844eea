"""Labels made since the last round, beside what its model had said of their images before: test, then train."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.labelstudio.formats import Format
from kdal.resources import Resources
from kdal.rounds import publishing
from kdal.rounds.estimates import kept_objects
from kdal.rounds.snapshot import Labelled, Snapshot, SnapshotHeader
from kdal.rounds.store import Order, RoundStore
from kdal.storage.assets import MissingAssetError
from kdal.storage.tables import Project, Round
from kdal_core.errors import LabelFormatError
from kdal_core.evaluation.suggestions import OUTCOMES, Outcome
from kdal_core.tasks import Task


@dataclass(frozen=True)
class Met:
    """New labels of images that a model had met.

    Attributes:
        round: whose order was in force.
        model: round of the model that had predicted; none: there was no model.
        items: the labels, M.
        at_random: tasks among them that were drawn at random.
        predictions: of their images, by task, as the model of that round made them; some may be missing.
        suggested: tasks among them for which something was suggested.
        outcomes: of suggestions, by class and outcome.
    """

    round: int
    model: int | None = None
    items: list[Labelled] = field(default_factory=list)
    at_random: frozenset[int] = frozenset()
    predictions: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    suggested: frozenset[int] = frozenset()
    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)

    @property
    def counts(self) -> list[list[Any]]:
        """[class, round, unchanged, changed, rejected] of each class."""
        names = dict.fromkeys(name for name, _ in self.outcomes)
        return [[name, self.round, *(self.outcomes[name, outcome] for outcome in OUTCOMES)] for name in names]

    def timed(self) -> list[list[Any]]:
        """[seconds, whether there was a suggestion, annotator, round] of each task whose time is known."""
        return [
            [round(item.seconds, 2), item.ref.task_id in self.suggested, item.annotator, self.round]
            for item in self.items
            if item.seconds is not None
        ]


def last_opened(rounds: list[Round], number: int) -> Round | None:
    """The round whose order annotators worked in until a round began."""
    return next((row for row in reversed(rounds) if row.number < number and row.opened_at is not None), None)


def new_labels(
    resources: Resources, project: Project, before: Round, model: int | None, store: RoundStore, snapshot: Snapshot
) -> Met:
    """The labels that were made between two rounds.

    Args:
        resources: what the step works with.
        project: whose they are.
        before: the round whose order was in force.
        model: the round whose model served in it.
        store: of the round that has just begun.
        snapshot: its snapshot.

    Returns:
        Labels alone, without predictions, where the labelling config has become another one in between.
    """
    earlier = store.of_round(before.number)
    header, order = SnapshotHeader.load(earlier), earlier.order()
    known = header.labelled
    items = [item for item in snapshot.labelled if item.target is not None and item.ref.task_id not in known]
    ordered = set(order.tasks)
    items = [item for item in items if item.ref.task_id in ordered]
    tasks = {item.ref.task_id for item in items}
    drawn = frozenset(tasks.intersection(order.explored))
    now, then = snapshot.format.task(), header.format.task()
    if model is None or (now.kind, now.classes) != (then.kind, then.classes):
        return Met(before.number, None, items, drawn)
    found = _predictions(earlier, tasks)
    met = Met(before.number, model, items, drawn, {task: prediction for task, (prediction, _) in found.items()})
    shown = publishing.suggestions_of(resources, project, before.number, model, header.format)
    pushed = tasks.intersection(_pushed(order, header))
    regions = {task: shown.regions(*found[task]) for task in pushed if task in found}
    suggested = {task: told for task, told in regions.items() if told}
    counted = _outcomes(header.format, then, suggested, items)
    return Met(met.round, model, items, drawn, met.predictions, frozenset(suggested), counted)


def _pushed(order: Order, header: SnapshotHeader) -> list[int]:
    return order.tasks[: header.policy.served]


def _predictions(store: RoundStore, wanted: set[int]) -> dict[int, tuple[NDArray[np.float32], tuple[int, int] | None]]:
    """Prediction and (width, height) of these tasks, as far as the round looked at them."""
    found: dict[int, tuple[NDArray[np.float32], tuple[int, int] | None]] = {}
    shard = 0
    while len(found) < len(wanted):
        try:
            arrays = store.read_shard(shard)
        except MissingAssetError:
            break
        if "predictions" in arrays:
            sizes = arrays.get("sizes")
            for row, task in enumerate(arrays["tasks"].tolist()):
                if task in wanted:
                    size = None if sizes is None else (int(sizes[row][0]), int(sizes[row][1]))
                    found[task] = (arrays["predictions"][row], size)
        shard += 1
    return found


def _outcomes(
    form: Format, task: Task, suggested: dict[int, list[Any]], items: list[Labelled]
) -> Counter[tuple[str, Outcome]]:
    counted: Counter[tuple[str, Outcome]] = Counter()
    for item in items:
        regions = suggested.get(item.ref.task_id)
        if not regions:
            continue
        try:
            shown = kept_objects.seen_as(form.target, regions)
        except LabelFormatError:  # a lane that is level once drawn, say
            continue
        counted.update(kept_objects.outcomes(task, shown, item.target))
    return counted
