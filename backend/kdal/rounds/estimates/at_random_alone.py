"""What a random order would have led to: a model trained on the labels drawn at random alone, beside the served ones.

Where last layers are trained on pretrained features, one more costs a second or two. It is trained from when on it can
tell anything: once more images were drawn at random than the first model had labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdal.resources import Resources
from kdal.rounds.estimates.kept import Kept
from kdal.rounds.estimates.met import Met
from kdal.rounds.features import RoundImages
from kdal.rounds.heads import features_of
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import RoundStore
from kdal.storage.assets import MissingAssetError
from kdal_core.evaluation import CurvePoint, LearningCurve, learning_curve
from kdal_core.evaluation.intervals import LEVEL
from kdal_core.training import Head, HeadPool

FILE = "at_random_alone.npz"
"""A round's file: the last layer of such a model."""
MOST = 20_000
"""Images of a project up to which it is trained: for more, the pool alone takes a minute."""
ROWS = 5_000
"""Predictions that are kept, the last ones."""


def scored(resources: Resources, store: RoundStore, snapshot: Snapshot, kept: Kept, met: Met) -> Kept:
    """What the last such model says of the images drawn at random since, against their labels."""
    tasks = np.array(sorted(met.at_random), dtype=np.int64)
    if snapshot.backbones is None or not len(tasks):
        return kept
    try:
        arrays = store.of_round(met.round).read_arrays(FILE)
    except MissingAssetError:
        return kept
    images = RoundImages.load(store, snapshot).of(tasks)
    student = snapshot.backbones.student
    if str(arrays["backbone"]) != student["sha256"] or not len(images.tasks):
        return kept
    head = Head(arrays["weight"], arrays["bias"], bool(arrays["normalised"]))
    targets = {item.ref.task_id: item.target for item in met.items}
    found = head.probabilities(images.features(resources, snapshot, student)).argmax(axis=1)
    rows = [
        [int(arrays["labels"]), int(said == targets[task])]
        for said, task in zip(found.tolist(), images.tasks.tolist(), strict=True)
    ]
    return replace(kept, shadow=[*kept.shadow, *rows][-ROWS:])


def train(resources: Resources, store: RoundStore, snapshot: Snapshot, kept: Kept) -> None:
    """Train such a model and keep its last layer for the next round, if it could tell anything."""
    first = min((point["labels"] for point in kept.points), default=None)
    targets = {item.ref.task_id: item.target for item in snapshot.training}
    drawn = {task for task, _ in kept.at_random if task in targets}
    if snapshot.backbones is None or snapshot.policy.train == "full" or first is None or len(drawn) <= first:
        return
    images = RoundImages.load(store, snapshot)
    rows = np.array([row for row, task in enumerate(images.tasks.tolist()) if task in drawn], dtype=np.int64)
    labels = [targets[task] for task in images.tasks[rows].tolist()]
    task = snapshot.format.task()
    if len(images.tasks) > MOST or len(rows) <= first or task.trainable(labels) is not None:
        return
    student, teacher = features_of(resources, snapshot, images)
    head = HeadPool(student, teacher, seed=snapshot.policy.seed).fit(rows, labels, len(task.classes)).distilled
    store.write_arrays(
        FILE,
        weight=head.weight,
        bias=head.bias,
        normalised=np.array(head.normalised),
        labels=np.array(len(rows)),
        backbone=np.array(snapshot.backbones.student["sha256"]),
    )


def curve(kept: Kept) -> LearningCurve:
    """The learning curve of these models; before there is one, how many images were drawn at random so far."""
    if not kept.shadow:
        point = CurvePoint(len(kept.at_random), 0, 0.0, 0.0, 1.0, 0.0)
        return LearningCurve((point,), 0, 0, LEVEL)
    labels, right = zip(*kept.shadow, strict=True)
    return learning_curve(labels, right, [True] * len(right))
