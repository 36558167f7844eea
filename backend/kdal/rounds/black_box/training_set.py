"""A round's step "train student": what it is taught, and by whom. People's labels outrank the teacher's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdal.aliases import Json
from kdal.resources import Resources
from kdal.rounds.progress import StepReport
from kdal.rounds.query_log import QueryLog
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import DISTILLED, RoundStore
from kdal.rounds.training import training_set
from kdal.storage.tables import account_of
from kdal.teachers import StoredLedger
from kdal_core.distillation import SoftLabelTask, image_key, mix_images
from kdal_core.distillation.stages import taught
from kdal_core.training import train_student as train
from kdal_core.training.data import fetch


@dataclass(frozen=True)
class TrainingSet:
    """What a student is taught.

    Attributes:
        images: uint8 (n, 3, H, W).
        targets: (n, C) float32, probabilities of the project's classes, in the order of its labelling config.
        by_people: number of targets, the first ones, that come from people's labels alone.
        real: for each image whether it is one of the project's, and no mix.
    """

    images: Tensor
    targets: Tensor
    by_people: int
    real: Sequence[bool]


def train_student(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Train the student of a black-box teacher; write its checkpoint in the role that serves.

    Returns:
        What was trained, and on how many images of each kind.
    """
    task = SoftLabelTask(snapshot.format.task().classes)
    prepared = prepare(resources, store, snapshot, report)
    spec = snapshot.policy.trio(task, snapshot.image_size)
    config = snapshot.policy.training(task, resources.settings.device)
    terms = resources.teachers.terms(str(snapshot.policy.black_box))
    manner = terms.mixes(config, snapshot.policy.seed).training
    targets, rows = taught(prepared.targets, prepared.real, manner)
    student = train(task, spec, prepared.images, targets, config, rows=rows, progress=report.progress)
    store.save_model(DISTILLED, student, spec.model_spec(task, DISTILLED))
    return {
        "student": spec.student,
        "trained_on": len(prepared.targets),
        "taught_by_people": prepared.by_people,
        "taught_by_teacher": len(prepared.targets) - prepared.by_people,
    }


def prepare(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> TrainingSet:
    """Labels by people, answers by the teacher, and mixes; no image in two ways.

    What people have labelled is taught by their label alone, and a mix of two such images by the mix of the two
    labels. For all else the teacher's answer holds, as the ledger has it; what it has none for is left out. Images
    whose labels are held out are not among it.
    """
    classes = snapshot.format.task().classes
    asked = QueryLog.load(store)
    held_out = {item.ref.task_id for item in snapshot.labelled if item.held_out}
    refs = [ref for ref in asked.images if ref.task_id not in held_out]
    loaded = resources.images.load(refs, asked.image_size)
    tasks = [refs[place].task_id for place in loaded.kept]
    images = _tensor(loaded.images, asked.image_size)
    known = asked.mixes.within({task: row for row, task in enumerate(tasks)})
    mixes = mix_images(images, known.pairs, known.lambdas)

    labelled, numbers = training_set(resources, snapshot, report)
    certain = torch.eye(len(classes))
    labels = {item.ref.task_id: certain[item.target] for item in snapshot.training}
    by_people = [certain[number] for number in numbers]
    settled, open_mixes = [], []
    for row, ((a, b), weight) in enumerate(zip(known.pairs.tolist(), known.lambdas.tolist(), strict=True)):
        if tasks[a] in labels and tasks[b] in labels:
            settled.append(row)
            by_people.append(weight * labels[tasks[a]] + (1 - weight) * labels[tasks[b]])
        else:
            open_mixes.append(row)
    unlabelled = [row for row, task in enumerate(tasks) if task not in labels]
    others = torch.cat([images[unlabelled], mixes[open_mixes]])
    answered, answers = _answers(resources, snapshot.uid, asked, classes, others)
    of_people = torch.stack(by_people) if by_people else answers[:0]
    return TrainingSet(
        images=torch.cat([_tensor(labelled, snapshot.image_size), mixes[settled], others[answered]]),
        targets=torch.cat([of_people, answers]),
        by_people=len(by_people),
        real=[*(row < len(labelled) for row in range(len(by_people))), *(row < len(unlabelled) for row in answered)],
    )


def _answers(
    resources: Resources, uid: str, asked: QueryLog, classes: Sequence[str], images: Tensor
) -> tuple[list[int], Tensor]:
    """Rows of those images (n, 3, H, W) that the ledger has an answer for, and the answers, columns as in `classes`."""
    keys = [image_key(image) for image in images]
    known = StoredLedger(resources.storage, account_of(uid, asked.teacher)).read(list(dict.fromkeys(keys)))
    rows = [row for row, key in enumerate(keys) if key in known]
    if not rows:
        return [], torch.empty(0, len(classes))
    columns = [asked.classes.index(name) for name in classes]
    return rows, torch.from_numpy(np.stack([known[keys[row]] for row in rows]))[:, columns]


def _tensor(images: Sequence[Tensor] | Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (n, 3, H, W), of no image, too."""
    return fetch(images, range(len(images))) if len(images) else torch.empty((0, 3, *size), dtype=torch.uint8)
