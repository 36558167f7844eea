"""The gate: what labels that a model was not trained on say of it, by itself and beside the one that serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.resources import Resources
from kdal.rounds.snapshot import Labelled, SnapshotHeader, held_out
from kdal.rounds.store import LOST, RoundStore
from kdal_core.evaluation import ALPHA, Calibration, Comparison, calibrate, compare, image_scores
from kdal_core.models import Network
from kdal_core.tasks import Task
from kdal_core.training import infer

FEW = 100
"""Held-out labels from which on they decide alone; while there are fewer, out-of-fold predictions help."""
OUT_OF_FOLD = "out_of_fold.npz"
"""A round's file, where its training writes one: `save_out_of_fold`."""
UNSEEN = "unseen.npz"
"""A round's file: what the model that serves with it says of labels that it was not trained on, `save_unseen`."""

Predictions = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A network, what its predictions mean, and the (H, W) that it sees."""

    network: Network
    task: Task
    image_size: tuple[int, int]

    def predictions(self, resources: Resources, items: Sequence[Labelled]) -> dict[int, Predictions]:
        """What it predicts, by task id; images that cannot be read are left out."""
        loaded = resources.images.load([item.ref for item in items], self.image_size)
        if not loaded.kept:
            return {}
        found = infer(self.task, self.network, loaded.images, device=resources.settings.device).predictions
        return {items[i].ref.task_id: row for i, row in zip(loaded.kept, found, strict=True)}


@dataclass(frozen=True)
class Unseen:
    """A model's predictions, by task id, for images whose labels it was not trained on."""

    task: Task
    held_out: Mapping[int, Predictions]
    """Of labels that no model is trained on."""
    others: Mapping[int, Predictions]
    """Of labels of the training set: out-of-fold, or made after the model's round began."""

    @property
    def all(self) -> dict[int, Predictions]:
        """What counts: the others only while few labels are held out."""
        return dict(self.held_out) if len(self.held_out) >= FEW else {**self.others, **self.held_out}

    def score(self, tasks: Collection[int], targets: Mapping[int, Any]) -> float:
        """The task's metric on the labels of these tasks."""
        return float(self.task.score(*self._of(tasks, targets)))

    def each(self, tasks: Collection[int], targets: Mapping[int, Any]) -> NDArray[np.float64]:
        """(N,): the score of each of these N tasks."""
        return image_scores(self.task, *self._of(tasks, targets))

    def calibration(self, targets: Mapping[int, Any]) -> Calibration | None:
        """How its confidences are to be read; none for a kind of task without any."""
        tasks = sorted(self.all)
        return calibrate(self.task, *self._of(tasks, targets)) if tasks else None

    def _of(self, tasks: Collection[int], targets: Mapping[int, Any]) -> tuple[Predictions, list[Any]]:
        known = self.all
        return np.stack([known[task] for task in tasks]), [targets[task] for task in tasks]


def save_out_of_fold(store: RoundStore, tasks: Sequence[int], predictions: Predictions) -> None:
    """Keep what a round's training says of its own labels: each image predicted by a model that was not shown it.

    A training that comes by such predictions cheaply (a head on frozen features, cross-validated) writes them before
    `promote`, which uses them while few labels are held out.

    Args:
        store: of the round.
        tasks: N ids of labelled tasks.
        predictions: (N, ...) in that order, as the round's task decodes them; of classes, probabilities (N, C).
    """
    store.write_arrays(OUT_OF_FOLD, tasks=np.asarray(tasks, dtype=np.int64), predictions=predictions)


def save_unseen(store: RoundStore, serves: Unseen) -> None:
    """Keep what the model that serves says of labels that it was not trained on, for estimates; of classes alone.

    Boxes and lanes of an image take kilobytes, and nothing is made of them yet.
    """
    known = {**serves.others, **serves.held_out}
    if serves.task.kind == "classification" and known:
        tasks = sorted(known)
        rows = np.stack([known[task] for task in tasks])
        store.write_arrays(UNSEEN, tasks=np.array(tasks, dtype=np.int64), predictions=rows)


def unseen_by_new(
    resources: Resources, store: RoundStore, model: Model, held: Sequence[Labelled], known: Collection[int]
) -> Unseen:
    """A round's own model on the held-out labels and, where its training left them, out-of-fold on the others.

    Args:
        store: of the round.
        model: its model.
        held: the held-out labels.
        known: ids of the tasks that have a usable label.
    """
    others = {task: row for task, row in _out_of_fold(store).items() if task in known}
    return Unseen(model.task, model.predictions(resources, held), others)


def unseen_by_serving(
    resources: Resources, store: RoundStore, model: Model, labelled: Sequence[Labelled], new: Unseen
) -> Unseen:
    """The model of an earlier round on the labels that the new one is judged by, as far as it was not trained on them.

    A label that was made after the earlier round began is new to its model, which is asked. For one that it was
    trained on, there may be an out-of-fold prediction of its round; without one, the label says nothing fair.

    Args:
        store: of the earlier round.
        model: its model.
        labelled: the usable labels of the new round.
        new: what the new model predicts for some of them.
    """
    seen = _trained_on(store)
    fair = new.all.keys() - seen if seen is not None else new.held_out.keys()
    found = model.predictions(resources, [item for item in labelled if item.ref.task_id in fair])
    held = {task: row for task, row in found.items() if task in new.held_out}
    others = {task: row for task, row in found.items() if task not in new.held_out}
    folds = {task: row for task, row in _out_of_fold(store).items() if task in new.all and task not in fair}
    return Unseen(model.task, held, others | folds)


def verdict(new: Unseen, serving: Unseen, targets: Mapping[int, Any], name: str, *, chosen: bool = False) -> Json:
    """Whether a round's model may serve in place of the one that does: facts of the round.

    It is refused if its metric is lower, and chance alone would hardly make two equally good models differ so much
    (`kdal_core.evaluation.compare`). Two things to know. Out-of-fold predictions come from models that were shown a
    little less than the one that is judged, which speaks against the new model. And labels made since the serving
    model's round were asked for because it was unsure of them, which speaks against that one.

    Args:
        new: what the round's model predicts.
        serving: what the other one predicts.
        targets: labels by task id.
        name: of the serving model, for people.
        chosen: whether the project's owner has chosen the serving model: then only a higher score takes its place.

    Returns:
        "promoted", "compared" (how many labels), "p_value", and under "verdict" a sentence for people.
    """
    tasks = sorted(new.all.keys() & serving.all.keys())
    if not tasks and chosen:
        said = f"{name} goes on serving: you chose it, and no label tells whether the new model is better."
        return {"promoted": False, "compared": 0, "verdict": said}
    if not tasks:
        return {"promoted": True, "compared": 0, "verdict": f"No label tells the new model from {name}: it serves."}
    score, before = new.score(tasks, targets), serving.score(tasks, targets)
    tested = compare(new.each(tasks, targets), serving.each(tasks, targets))
    return {
        "promoted": score > before if chosen else score >= before or not tested.worse(),
        "compared": tested.images,
        "p_value": tested.p_value,
        "verdict": _sentence(tested, score, before, new.task.metric_name, name, chosen=chosen),
    }


def _sentence(tested: Comparison, score: float, before: float, metric: str, name: str, *, chosen: bool) -> str:
    both = f"{score:.1%} against {before:.1%} {metric} on {tested.images} labels that neither was trained on"
    if chosen and score > before:
        return f"The new model serves; it is better than {name}, which you chose: {both}."
    if chosen:
        return f"{name} goes on serving: you chose it, and the new model is no better: {both}."
    if score >= before:
        return f"The new model serves; it is no worse than {name}: {both}."
    differ = f"worse on {tested.worse_on} of the images, better on {tested.better_on}"
    if not tested.worse():
        return (
            f"The new model serves, though it scores lower than {name}: {both}; {differ}. That may be chance: an "
            f"equally good model would look so bad in {tested.p_value:.0%} of all cases, and kdal refuses one below "
            f"{ALPHA:.0%}."
        )
    chance = f"{tested.p_value:.1%}" if tested.p_value >= 0.001 else "less than 0.1%"
    return (
        f"{name} goes on serving, the new model is worse: {both}; {differ}. An equally good model would look so bad in "
        f"{chance} of all cases."
    )


def _out_of_fold(store: RoundStore) -> dict[int, Predictions]:
    """What `save_out_of_fold` wrote for a round, by task id; nothing where it wrote nothing."""
    try:
        arrays = store.read_arrays(OUT_OF_FOLD)
    except LOST:
        return {}
    return dict(zip(arrays["tasks"].tolist(), arrays["predictions"], strict=True))


def _trained_on(store: RoundStore) -> frozenset[int] | None:
    """Ids of the tasks whose labels a round's models were trained on: those it did not hold out by its own policy.

    None where the round's snapshot is gone, and nobody knows.
    """
    try:
        header = SnapshotHeader.load(store)
    except LOST:
        return None
    return frozenset(task for task in header.labelled if not held_out(header.policy, task))
