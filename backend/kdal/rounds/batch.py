"""Counting a round's labels: each task once, whoever labels it, as Label Studio's API tells it now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from kdal.aliases import Json
from kdal.labelstudio.accepted import finished_by_anybody, only_accepted
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.formats import Format
from kdal.rounds.snapshot import changed_at
from kdal_core.errors import LabelFormatError

MARGIN = timedelta(seconds=10)
"""How much earlier than the last change that was seen one looks for changes. All labels of that time are read again by
every look, 5 ms of Label Studio each: of a busy team, or after an import, minutes would be thousands."""
LATE = timedelta(minutes=5)
"""The same where a label is missing and nobody submits: imports are committed late."""
FULL_EVERY = 1800.0
"""Seconds between two comparisons with all of a project's labels, though nothing says that one was missed."""
TOLD_FIRST = 500
"""Tasks at the head of an order of which people are told whether they are done."""
MOST_PEOPLE = 50
"""People whose labels are counted apart."""


def batch_window(
    order: Sequence[int], skipped: Iterable[int], budget: float, estimates: Sequence[float] = ()
) -> list[int]:
    """The tasks of the batch: the first ``budget`` of the order, each skipped one replaced by the next in rank.

    A skipped task stays in the window: if somebody labels it after all, that label counts too.

    Args:
        order: tasks, first to be labelled first.
        skipped: tasks that somebody skipped.
        budget: of the batch, in tasks, or, with estimates, in objects.
        estimates: how many objects each task of the order seems to show, > 0; none: each counts as one.

    >>> batch_window([7, 3, 9, 4], skipped=[3], budget=2)
    [7, 3, 9]
    >>> batch_window([7, 3, 9, 4], skipped=[3], budget=6, estimates=[4.0, 9.0, 1.5, 2.0])
    [7, 3, 9, 4]
    """
    left, window, skips = budget, [], set(skipped)
    for task, objects in zip(order, estimates or [1] * len(order), strict=True):
        if left <= 0:
            break
        window.append(task)
        left -= 0 if task in skips else objects
    return window


def drawn(target: Any) -> int:
    """How many objects a label draws: its boxes or lanes, at least 1, for somebody has looked; 1 of a class.

    >>> drawn(("box", "box")), drawn(()), drawn(3)
    (2, 1, 1)
    """
    return max(1, len(target)) if isinstance(target, tuple | list) else 1


def count_labels(
    labelled: Iterable[int],
    before: Iterable[int],
    *,
    window: Iterable[int] | None = None,
    objects: Mapping[int, int] | None = None,
) -> int:
    """Labels that count for a round, or the objects drawn in them.

    Args:
        labelled: tasks with a finished, non-cancelled annotation now.
        before: tasks that were labelled at the round's snapshot.
        window: only these tasks count; none: labels outside the batch count too.
        objects: how many are drawn on a task, where these are counted; none: labels are.

    >>> count_labels([1, 2, 3], before=[1]), count_labels([1, 2, 3], before=[1], window=[2, 8])
    (2, 1)
    >>> count_labels([1, 2, 3], before=[1], objects={2: 5, 3: 1})
    6
    """
    new = set(labelled) - set(before)
    counted = new if window is None else new & set(window)
    return len(counted) if objects is None else sum(objects.get(task, 1) for task in counted)


def labelled_by(row: Json) -> int | None:
    """Who made the label of a task of Label Studio's API, by number: the last one who did not skip it.

    >>> labelled_by({"annotations": [{"completed_by": 3}, {"completed_by": {"id": 4}}, {"was_cancelled": True}]})
    4
    """
    made = [each for each in row.get("annotations") or [] if isinstance(each, dict) and not each.get("was_cancelled")]
    who = made[-1].get("completed_by") if made else None
    who = who.get("id") if isinstance(who, dict) else who
    return who if isinstance(who, int) else None


@dataclass
class NewLabels:
    """Which tasks were labelled since a round's snapshot, and which of these labels can be used.

    A label that cannot be read (an empty submission where a class is asked for, say) teaches nothing, and counts for
    no batch. To walk all labels costs Label Studio a millisecond each, at the expense of annotators, so it is asked
    how many there are, and what changed since; all of them only when the two do not agree, and now and then.

    Attributes:
        client: of the Label Studio that has the labels.
        project: its number there.
        form: how its labels are read.
        before: tasks that were labelled at the snapshot.
        moment: when the last of them changed, by Label Studio's clock; none: everything is looked at.
    """

    client: LabelStudioClient
    project: int
    form: Format
    before: frozenset[int]
    moment: datetime | None
    accepted: set[int] = field(default_factory=set)
    """Tasks that Label Studio calls labelled, and that only `kdal accept` has: they count for nothing."""
    usable: set[int] = field(default_factory=set)
    unusable: dict[int, str] = field(default_factory=dict)
    """Task id -> why its label cannot be used."""
    objects: dict[int, int] = field(default_factory=dict)
    """Task id -> how many objects are `drawn` on it."""
    people: dict[int, int] = field(default_factory=dict)
    """Task id -> Label Studio's number of who labelled it."""
    _lost: int = 0
    """Tasks labelled at the snapshot that are not any more."""
    _total: int | None = None
    _full_at: float | None = None

    def update(self, clock: float, *, hinted: bool) -> bool:
        """Look again; returns whether anything may have changed.

        Args:
            clock: seconds by a clock that only goes forward.
            hinted: whether an event says that something changed.
        """
        if self._full_at is None:
            self._full_at = clock + FULL_EVERY
        due = clock >= self._full_at
        settled = not due and not hinted and self._total == self._known
        if settled and self.client.labelled_count(self.project) == self._total:
            return False
        before = self._total
        self._read_changes(MARGIN)
        total = self._total = self.client.labelled_count(self.project)
        # More than are known have mostly been submitted between the two questions, and are seen by the next look. If
        # nobody submits any more and they still are not, they changed at a time that is not looked at. Fewer: some
        # were deleted.
        if total > self._known and total == before:
            self._read_changes(LATE)
        missed = total > self._known and total == before
        if due or missed or total < self._known:
            self._compare_all(missed=missed)
            self._full_at = clock + FULL_EVERY
        return True

    @property
    def _known(self) -> int:
        return len(self.before) - self._lost + len(self.usable) + len(self.unusable) + len(self.accepted)

    def _read_changes(self, margin: timedelta) -> None:
        since = None if self.moment is None else self.moment - margin
        moments = [] if self.moment is None else [self.moment]
        for row in self.client.tasks(self.project, labelled=True, changed_after=since, full=True):
            moments += changed_at(row)
            task = int(row["id"])
            if task in self.before:
                continue
            self.usable.discard(task)
            self.unusable.pop(task, None)
            self.accepted.discard(task)
            if not finished_by_anybody(row):
                continue  # it was removed while this was read
            if only_accepted(row):
                self.accepted.add(task)
                continue
            try:
                self.objects[task] = drawn(self.form.target(row))
                self.usable.add(task)
                if (who := labelled_by(row)) is not None:
                    self.people[task] = who
            except LabelFormatError as error:
                self.unusable[task] = str(error)
        self.moment = max(moments, default=None)

    def _compare_all(self, *, missed: bool) -> None:
        labelled = self.client.labelled_ids(self.project)
        self._lost = len(self.before - labelled)
        self.usable &= labelled
        self.accepted &= labelled
        self.unusable = {task: why for task, why in self.unusable.items() if task in labelled}
        if missed and labelled - self.before - self.usable - self.unusable.keys() - self.accepted:
            self.moment = None
            self._read_changes(LATE)


def told(labels: NewLabels, order: Sequence[int]) -> Json:
    """What people are told of the labels made since a round's snapshot: facts of the round.

    Args:
        labels: the new labels.
        order: the round's.

    Returns:
        "labelled_by", labels by the number of who made them, and "labelled_first", those of the order's first
        `TOLD_FIRST` tasks that are done.
    """
    people = Counter(str(labels.people[task]) for task in labels.usable if task in labels.people)
    done = [task for task in order[:TOLD_FIRST] if task in labels.usable]
    return {"labelled_by": dict(people.most_common(MOST_PEOPLE)), "labelled_first": done}
