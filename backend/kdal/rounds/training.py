"""Steps 2 and 3 of a round: train S, T and S-KD from the snapshot, and decide which model serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from kdal.aliases import Json
from kdal.resources import Resources
from kdal.rounds import gate
from kdal.rounds.features import RoundImages
from kdal.rounds.heads import ModelOnFeatures
from kdal.rounds.lineage import weights_of
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Labelled, Snapshot
from kdal.rounds.store import DISTILLED, LOST, STUDENT, TEACHER, RoundStore
from kdal.rounds.suggestions import REFUSED, Confidence
from kdal_core.models import Network
from kdal_core.tasks import Task, get_task
from kdal_core.training import (
    TrainConfig,
    TrioSpec,
    distil,
    train_pair,
)

WITHOUT_LABELS = 4000
"""Images without a label at most that a round shows S-KD: it sees about as many in a short training."""


def train_student_and_teacher(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Train S and T on the labels; write their checkpoints.

    Returns:
        What was trained; ``{"trains": False, "why_untrained": ...}`` when too few of the images can be read.

    Raises:
        NoReadableImageError: not one labelled image can be used. Something is wrong with the storage or its keys, and
            the order in force is better than one made without a model.
    """
    task, spec, config = _plan(resources, snapshot)
    images, targets = training_set(resources, snapshot, report)
    if (reason := task.trainable(targets)) is not None:
        return {"trains": False, "why_untrained": f"of the labels whose images can be read: {reason}"}
    pair = train_pair(task, spec, images, targets, config, progress=report.progress)
    for role, model in ((STUDENT, pair.student), (TEACHER, pair.teacher)):
        store.save_model(role, model, spec.model_spec(task, role))
    return {"trained_on": len(targets), "student": spec.student, "teacher": spec.teacher}


def train_distilled(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Train S-KD on the labels and on T, and on images that T alone has seen; write its checkpoint."""
    task, spec, config = _plan(resources, snapshot)
    images, targets = training_set(resources, snapshot, report)
    teacher, _ = store.load_model(TEACHER)
    others = _without_labels(resources, snapshot) if config.unlabelled else None
    distilled = distil(task, spec, teacher, images, targets, config, unlabelled=others, progress=report.progress)
    store.save_model(DISTILLED, distilled, spec.model_spec(task, DISTILLED))
    return {}


def promote(
    resources: Resources, store: RoundStore, snapshot: Snapshot, serving: int | None, *, chosen: bool = False
) -> Json:
    """Compare the new model with the serving one on labels that neither has seen, and calibrate the one that serves.

    A model that is worse beyond chance is kept but not promoted (`kdal.rounds.gate.verdict`). Without a serving model,
    without such labels, or when the classes changed since, there is nothing to compare and the new model is promoted.
    Where the training has left out-of-fold predictions (`kdal.rounds.gate.save_out_of_fold`), labels of the training
    set help to decide while few are held out.

    Args:
        resources: what the step works with.
        store: of the round.
        snapshot: of the round.
        serving: the round whose model serves; none before the first.
        chosen: whether the project's owner has chosen that model: then it serves until a new one scores higher.

    Returns:
        "parent", the round whose model serves, and the digests of the new model's "weights"; "promoted"; the two
        scores on the held-out labels under "held_out_score" and "serving_score", and how many labels these are;
        what `verdict` says; and how the confidences of what serves are to be read (`Confidence`).
    """
    task = snapshot.format.task()
    labelled = [item for item in snapshot.labelled if item.target is not None]
    targets = {item.ref.task_id: item.target for item in labelled}
    ask = partial(_model, snapshot, _images(store, snapshot))
    model = ask(store, store.load_model()[0], task, snapshot.image_size)
    new = gate.unseen_by_new(resources, store, model, snapshot.held_out, targets)
    facts: Json = {"promoted": True, "held_out": len(new.held_out), "metric": task.metric_name}
    facts |= {"parent": serving, "weights": weights_of(store)}
    if new.held_out:
        facts["held_out_score"] = new.score(new.held_out, targets)
    serves, number = new, store.number
    if serving is not None and (old := _serving_model(store.of_round(serving), task, ask)) is not None:
        unseen = gate.unseen_by_serving(resources, store.of_round(serving), old, labelled, new)
        if unseen.held_out:
            facts["serving_score"] = unseen.score(unseen.held_out, targets)
        facts |= gate.verdict(new, unseen, targets, f"kdal-r{serving}", chosen=chosen)
        if not facts["promoted"]:
            serves, number = unseen, serving
            facts |= Confidence(store.number, new.calibration(targets)).as_facts(REFUSED)
    gate.save_unseen(store, serves)
    return facts | Confidence(number, serves.calibration(targets)).as_facts()


def _images(store: RoundStore, snapshot: Snapshot) -> RoundImages | None:
    """The round's images whose features are there; none of a round without backbones."""
    return None if snapshot.backbones is None else RoundImages.load(store, snapshot)


def _model(
    snapshot: Snapshot,
    images: RoundImages | None,
    store: RoundStore,
    network: Network,
    task: Task,
    image_size: tuple[int, int],
) -> gate.Model:
    """A model of some round, to be asked about images of this one; by their features, where these are there."""
    if images is None:
        return gate.Model(network, task, image_size)
    return ModelOnFeatures(network, task, image_size, store, snapshot, images)


def _serving_model(store: RoundStore, task: Task, ask: Callable[..., gate.Model]) -> gate.Model | None:
    """The model of an earlier round; none that it could be compared with when it is gone, or has other classes."""
    try:
        network, spec = store.load_model()
    except LOST:
        return None  # it cannot serve any more; a store that is out of reach, though, is no reason to promote
    if spec.classes != tuple(task.classes) or spec.kind != task.kind:
        return None
    own = get_task(spec.kind, spec.classes, **spec.options)  # an older kdal may have trained it for other rows
    return ask(store, network, own, spec.image_size)


def _plan(resources: Resources, snapshot: Snapshot) -> tuple[Task, TrioSpec, TrainConfig]:
    task = snapshot.format.task()
    policy = snapshot.policy if snapshot.why_no_backbones is None else snapshot.policy.from_nothing()
    spec = resources.backbones.started(policy.trio(task, snapshot.image_size), snapshot.starts)
    return task, spec, policy.training(task, resources.settings.device)


def training_set(
    resources: Resources, snapshot: Snapshot, report: StepReport
) -> tuple[Sequence[torch.Tensor] | torch.Tensor, list[Any]]:
    """Images and targets to train on; labels whose images cannot be read are reported as unusable, with the reason.

    Raises:
        NoReadableImageError: there are labels, and not one of their images can be used.
    """
    items: list[Labelled] = snapshot.training
    loaded = resources.images.load([item.ref for item in items], snapshot.image_size)
    report.unusable({items[i].ref.task_id: why for i, why in loaded.reasons.items()})
    loaded.required("labelled images")
    return loaded.images, [items[i].target for i in loaded.kept]


def _without_labels(resources: Resources, snapshot: Snapshot) -> Sequence[torch.Tensor] | torch.Tensor:
    """Images of the pool, `WITHOUT_LABELS` at most; those that cannot be read are left out, to be named by scoring."""
    order = np.random.default_rng(snapshot.policy.seed).permutation(len(snapshot.pool))[:WITHOUT_LABELS]
    return resources.images.load([snapshot.pool[i] for i in np.sort(order)], snapshot.image_size).images
