"""`kdal accept`: from which confidence on suggestions are right as often as the owner asks, and which these are.

What is promised stands on labels of images that were drawn at random (`Policy.explore`), as models see them that have
not learnt them: of a round's model the held-out labels, those that its training has predicted out of fold, and those
made since. They were drawn from the pools of this round and of earlier ones, which held what the order has taken since:
where it prefers what models are unsure of, what is left is easier, and the promise errs on the safe side. What `kdal
accept` itself takes is the surest part, and would leave the harder one: so labels that were drawn before it was run
count no more for a later round.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.labelstudio.accepted import only_accepted
from kdal.locks import only_one
from kdal.resources import Resources
from kdal.rounds import gate, publishing
from kdal.rounds.estimates.kept import Kept
from kdal.rounds.snapshot import Snapshot, SnapshotHeader
from kdal.rounds.store import RoundStore
from kdal.settings import Settings
from kdal.storage.assets import MissingAssetError
from kdal.storage.tables import Project, Round, now
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.evaluation import AcceptThreshold, accept_threshold, uncalibrated
from kdal_core.tasks.task import Graded

FACT = "accepted"
"""A round's fact: suggestions of its model were accepted: "target", "alpha", "threshold", "images", "at"."""


@dataclass(frozen=True)
class Sure:
    """The suggestions that may be accepted.

    Attributes:
        round: whose order, and whose model's suggestions, are in force.
        found: the threshold and what was seen of it.
        results: of each task that has no label yet and is sure enough, the regions of its suggestion.
        already: tasks that are accepted.
    """

    round: int
    found: AcceptThreshold
    results: dict[int, list[Json]]
    already: int

    def as_fact(self) -> Json:
        """To be noted of the round before anything is written."""
        told = {"target": self.found.target, "alpha": self.found.alpha, "threshold": self.found.threshold}
        return {FACT: {**told, "images": self.found.images, "at": f"{now().isoformat(timespec='seconds')}Z"}}


@contextmanager
def alone(settings: Settings, project: int) -> Iterator[None]:
    """Nobody else accepts suggestions of the project at the same time.

    Raises:
        ConfigError: somebody does.
    """
    refusal = f"project {project}: another `kdal accept` is at work: wait until it has ended"
    with only_one(settings.home_folder / f"accept-{project}.lock", refusal):
        yield


def sure_suggestions(resources: Resources, project: int, target: float, alpha: float) -> Sure:
    """Find the suggestions in force that may be accepted unseen.

    Args:
        resources: tables, assets and Label Studio.
        project: its number.
        target: share of the accepted ones that has to be right, in (0, 1).
        alpha: chance at most that it is not.

    Raises:
        ConfigError: the project has no suggestions of classes at present; says why.
        LabelStudioError: Label Studio is out of reach.
    """
    row, last = _open(resources, project)
    store = RoundStore(resources.assets, row.uid, last.number)
    header = SnapshotHeader.load(store)
    task = header.format.task()
    if task.kind != "classification" or not isinstance(task, Graded):
        raise ConfigError(
            f"project {project}: kdal accepts suggestions of classes alone, and these labels are {task.kind}: whether "
            "all objects of an image are found cannot be promised"
        )
    config = resources.label_studio.project(project)["label_config"]
    if config != header.label_config:
        raise ConfigError(f"project {project}: its labelling config was changed: wait until the next round is open")
    made = publishing.suggestions_of(resources, row, last.number, row.serving_round, header.format)
    calibration = made.calibration or uncalibrated(task)
    tasks, predictions = _predicted(store)
    read = task.rescored(predictions, calibration) if len(tasks) else predictions
    labels, accepted = _since(resources, row, header)
    drawn = _drawn(resources, row, last, store, labels)
    unseen = _unseen(store)
    held = {t: unseen[t] for t in drawn if t in unseen}
    held |= {t: p for t, p in zip(tasks.tolist(), predictions, strict=True) if t in drawn and t in labels}
    order = sorted(held)
    said = task.rescored(np.stack([held[t] for t in order]), calibration) if order else np.zeros((0, 1))
    right = [int(p.argmax()) == drawn[t] for t, p in zip(order, said, strict=True)]
    skipped = resources.label_studio.skipped_ids(project)
    free = {each["id"] for each in resources.label_studio.tasks(project, labelled=False)} - skipped
    # What is accepted already belongs to the pool that the labels were drawn from: run again, this finds the same.
    rows = np.array([i for i, t in enumerate(tasks.tolist()) if t in free or t in accepted], dtype=np.int64)
    sure = read[rows].max(axis=1).clip(0, 1) if len(rows) else np.zeros(0)
    found = accept_threshold(said.max(axis=1).clip(0, 1), right, target, alpha, pool=sure)
    chosen = rows[sure >= found.threshold] if found.threshold is not None else rows[:0]
    results = {int(tasks[i]): header.format.result(read[i]) for i in chosen if int(tasks[i]) in free}
    return Sure(last.number, found, results, len(chosen) - len(results))


def _open(resources: Resources, project: int) -> tuple[Project, Round]:
    row = resources.storage.project(project)
    if row is None or row.disconnected_at is not None:
        raise ConfigError(f"project {project} is not connected to kdal: `kdal connect --project {project}`")
    opened = resources.storage.published_round(project)
    if opened is None or row.serving_round is None:
        raise ConfigError(f"project {project}: no model serves yet, so nothing is suggested: label the first batch")
    return row, opened


def _drawn(resources: Resources, row: Project, last: Round, store: RoundStore, since: dict[int, Any]) -> dict[int, int]:
    """Class by task of the labels that were drawn at random, since `kdal accept` was last used in an earlier round."""
    kept = Kept.newest(resources.storage, resources.assets, row)
    if kept.told is None or kept.told["round"] != last.number:
        why = last.facts.get("no_estimates")
        raise ConfigError(
            f"project {row.id}: what round {last.number} knows of its labels could not be written ({why}): wait "
            "for the next round"
            if why
            else f"project {row.id}: round {last.number} is only just open: try again in a minute"
        )
    if kept.told["model"] != row.serving_round:
        raise ConfigError(
            f"project {row.id}: kdal-r{row.serving_round} serves, and the suggestions in force are not its own: wait "
            "until the next round is open"
        )
    earlier = [each.number for each in resources.storage.rounds(row.id) if FACT in each.facts]
    after = max((number for number in earlier if number < last.number), default=-1)
    counted = {task for task, number in kept.at_random if number > after}
    targets = {item.ref.task_id: item.target for item in Snapshot.load(store).labelled if item.target is not None}
    found = {task: targets[task] for task in counted if task in targets}
    return found | {task: since[task] for task in store.order().explored if task in since}


def _since(resources: Resources, row: Project, header: SnapshotHeader) -> tuple[dict[int, Any], set[int]]:
    """Labels made since a round's snapshot, by task, and the tasks that are accepted."""
    labels: dict[int, Any] = {}
    accepted: set[int] = set()
    for each in resources.label_studio.tasks(row.id, labelled=True, full=True):
        if only_accepted(each):
            accepted.add(each["id"])
        elif each["id"] not in header.labelled:
            try:
                labels[each["id"]] = header.format.target(each)
            except LabelFormatError:  # it is named among the unusable ones
                continue
    return labels, accepted


def _predicted(store: RoundStore) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(N,) tasks of a round's pool, and (N, C) probabilities by the model that serves with it."""
    tasks, predictions = [], []
    try:
        for shard in range(10**6):
            arrays = store.read_shard(shard)
            if "predictions" in arrays:
                tasks.append(arrays["tasks"])
                predictions.append(arrays["predictions"])
    except MissingAssetError:
        pass
    if not tasks:
        return np.zeros(0, dtype=np.int64), np.zeros((0, 1), dtype=np.float32)
    return np.concatenate(tasks), np.concatenate(predictions)


def _unseen(store: RoundStore) -> dict[int, NDArray[np.float32]]:
    try:
        arrays = store.read_arrays(gate.UNSEEN)
    except MissingAssetError:
        return {}
    return dict(zip(arrays["tasks"].tolist(), arrays["predictions"], strict=True))


def forget(resources: Resources, project: int) -> None:
    """Forget that suggestions were accepted, once all were taken back, and let the worker look at the project."""
    if resources.storage.project(project) is None:
        return
    for each in resources.storage.rounds(project):
        if FACT in each.facts:
            resources.storage.update_round(
                project, each.number, facts={k: v for k, v in each.facts.items() if k != FACT}
            )
    resources.storage.add_event(project, "ANNOTATIONS_DELETED")
