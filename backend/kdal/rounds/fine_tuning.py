"""A round's step "fine-tune": the student trained whole, which serves if it wins over its head alone.

It is asked for by the policy, "train": "full". The heads are fitted before, and serve if it does not win: a whole
network has far more ways than a head to learn what is not so, and only labels that it was not shown can tell. These are
the held-out ones; while they are few, it is trained twice more, each time on one half of the labels, and judged on the
other half beside a head that was fitted to the same.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from kdal.aliases import Json, Progress
from kdal.resources import Resources
from kdal.rounds import gate
from kdal.rounds.features import RoundImages
from kdal.rounds.heads import features_of, head_alone, model_spec, on_backbone
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import DISTILLED, HEADS, RoundStore
from kdal.rounds.training import WITHOUT_LABELS
from kdal_core.errors import ConfigError
from kdal_core.evaluation import ALPHA, compare, image_scores
from kdal_core.models import FrozenClassifier, TunedClassifier
from kdal_core.models.frozen import FROZEN
from kdal_core.models.tuned import TUNED
from kdal_core.tasks import ClassificationTask
from kdal_core.training import HeadPool, ImageSource, Lessons, fine_tune, infer, lessons, resolve_device
from kdal_core.training.logistic import stratified_folds

LABELS = 100
"""Labels to train on from which a whole network is tried: see docs/results/photos.md."""
HALVES = 2
HELD_OUT = 500
"""Held-out labels from which on they judge alone: fewer hardly show a gain of a few points."""
FACT = "fine_tuning"
"""A round's fact: what becomes of it, in words for people."""
log = structlog.get_logger()

Tune = Callable[[FrozenClassifier, Lessons, int], TunedClassifier]
"""Trains whole what begins as this head, on these lessons; the number counts the trainings of the step."""


@dataclass(frozen=True)
class Taught:
    """What a student is trained on.

    Attributes:
        tasks: (M,) ids of the tasks, those with a label to train on and `WITHOUT_LABELS` others at most.
        images: of these tasks.
        labelled: (L,) positions among them of those with a label.
        targets: (L,) their class numbers.
    """

    tasks: NDArray[np.int64]
    images: ImageSource
    labelled: NDArray[np.int64]
    targets: NDArray[np.int64]


def fine_tune_student(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Train S-KD whole, from its head on; write it in place of the head's model if it wins.

    Returns:
        Under "fine_tuning" what became of it; where it was trained, "head_score" and "fine_tuned_score" on the labels
        that judged it; and the "student" that serves.
    """
    if len(snapshot.training) < LABELS:
        reason = f"{len(snapshot.training)} labels to train on are too few, it may pay from {LABELS} on"
        return {FACT: f"not tried, the last layer alone is trained: {reason}"}
    try:
        return _tried(resources, store, snapshot, report)
    except (ConfigError, torch.OutOfMemoryError) as error:
        log.warning("fine-tuning given up", project=store.uid, round=store.number, error=str(error))
        return {FACT: f"given up, the last layer alone is trained: {str(error).partition(chr(10))[0]}"}


def estimate(seconds: float, share: float, device: str) -> str:
    """A sentence on how long it takes, after this many seconds and with this share done, in (0, 1]."""
    whole = seconds / share
    takes = f"{whole / 60:.0f} minutes" if whole >= 90 else f"{whole:.0f} seconds"
    text = f"under way on {'a GPU' if device == 'cuda' else 'the CPU'}, about {takes} in all"
    return text if device == "cuda" else f'{text}; "train": "heads" does without it'


def _tried(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    task, taught, found = _task(snapshot), _taught(resources, store, snapshot), store.read_arrays(HEADS)
    config = snapshot.policy.fine_tuning(resources.settings.device)
    device, in_turn = resolve_device(config.device).type, len(snapshot.held_out) < HELD_OUT
    progress, trainings = _watched(report, device), 1 + HALVES * in_turn
    log.info("fine-tuning", project=store.uid, round=store.number, images=len(taught.tasks), device=device)

    def tune(begins: FrozenClassifier, told: Lessons, number: int) -> TunedClassifier:
        network = TunedClassifier.beginning_as(begins)

        def part(share: float) -> None:
            progress((number + share) / trainings)

        fine_tune(task, network, taught.images, told, config, progress=part)
        return network

    begins = head_alone(resources, store, snapshot)
    word = found["teacher"][np.searchsorted(found["tasks"], taught.tasks)]
    told = lessons(word, taught.labelled, taught.targets, float(found["label_share"]))
    network = tune(begins, told, 0)
    before, after = _on_held_out(resources, snapshot, begins, network)
    out_of_fold: NDArray[np.float32] = np.zeros((0, len(task.classes)), dtype=np.float32)
    if in_turn:
        of_heads, out_of_fold = _in_turn(resources, store, snapshot, taught, tune)
        before = np.concatenate([before, image_scores(task, of_heads, taught.targets.tolist())])
        after = np.concatenate([after, image_scores(task, out_of_fold, taught.targets.tolist())])
    won = compare(before, after).worse()
    kind, serves = (TUNED, network) if won else (FROZEN, begins)
    store.save_model(DISTILLED, serves, spec := model_spec(snapshot, kind))
    if won:  # what the heads said of labels that they were not shown says nothing of it
        gate.save_out_of_fold(store, taught.tasks[taught.labelled][: len(out_of_fold)].tolist(), out_of_fold)
    scores = {"head_score": float(before.mean()), "fine_tuned_score": float(after.mean())} if len(after) else {}
    return {FACT: _sentence(task, before, after, won), "student": spec.architecture, **scores}


def _taught(resources: Resources, store: RoundStore, snapshot: Snapshot) -> Taught:
    """The images that the heads were fitted on, or some of them where there are many."""
    tasks: NDArray[np.int64] = store.read_arrays(HEADS)["tasks"]
    targets = {item.ref.task_id: item.target for item in snapshot.training}
    is_labelled = np.isin(tasks, list(targets))
    others = np.random.default_rng(snapshot.policy.seed).permutation(np.flatnonzero(~is_labelled))[:WITHOUT_LABELS]
    tasks = tasks[np.sort(np.concatenate([np.flatnonzero(is_labelled), others]))]
    refs = {ref.task_id: ref for ref in snapshot.images}
    loaded = resources.images.load([refs[number] for number in tasks.tolist()], snapshot.image_size)
    tasks = tasks[loaded.kept]
    labelled = np.flatnonzero(np.isin(tasks, list(targets)))
    known = np.array([targets[number] for number in tasks[labelled].tolist()], dtype=np.int64)
    return Taught(tasks, loaded.images, labelled, known)


def _on_held_out(
    resources: Resources, snapshot: Snapshot, begins: FrozenClassifier, network: TunedClassifier
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,), (N,): scores of the head alone and of the whole network on each held-out label whose image can be read."""
    task, items, device = _task(snapshot), snapshot.held_out, resources.settings.device
    loaded = resources.images.load([item.ref for item in items], snapshot.image_size)
    if not loaded.kept:
        return np.zeros(0), np.zeros(0)
    targets = [items[i].target for i in loaded.kept]
    alone = copy.deepcopy(begins)  # its backbone is shared, and stays on its device
    before, after = (infer(task, model, loaded.images, device=device).predictions for model in (alone, network))
    return image_scores(task, before, targets), image_scores(task, after, targets)


def _in_turn(
    resources: Resources, store: RoundStore, snapshot: Snapshot, taught: Taught, tune: Tune
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(L, C), (L, C): heads' and whole networks' probabilities of each label, by those that learnt the other half."""
    task, seed = _task(snapshot), snapshot.policy.seed
    student, teacher = features_of(resources, snapshot, RoundImages.load(store, snapshot, taught.tasks))
    pool = HeadPool(student, teacher, seed=seed)
    half = stratified_folds(taught.targets, HALVES, np.random.default_rng(seed))
    before = np.empty((len(half), len(task.classes)), dtype=np.float32)
    after = np.empty_like(before)
    for number in range(HALVES):
        out = half == number
        rows, known = taught.labelled[~out], taught.targets[~out]
        trio = pool.fit(rows, known, len(task.classes))
        begins = on_backbone(resources, snapshot, trio.distilled)
        network = tune(begins, lessons(trio.teacher, rows, known, trio.label_share), 1 + number)
        images = [taught.images[i] for i in taught.labelled[out].tolist()]
        before[out] = trio.distilled.probabilities(student[taught.labelled[out]])
        after[out] = infer(task, network, images, device=resources.settings.device).predictions
    return before, after


def _sentence(task: ClassificationTask, before: NDArray[np.float64], after: NDArray[np.float64], won: bool) -> str:
    """What became of it, for people."""
    if not len(after):
        return "the last layer alone serves, no label could judge the whole network"
    scores = (
        f"{after.mean():.1%} against {before.mean():.1%} {task.metric_name} on {len(after)} labels not shown to them"
    )
    if won:
        return f"the whole network serves, it is better than its last layer alone: {scores}"
    return f"the last layer alone serves, the whole network is not better beyond chance ({ALPHA:.0%}): {scores}"


def _watched(report: StepReport, device: str) -> Progress:
    """Passes progress on, and says once how long it takes."""
    began, told = time.monotonic(), False

    def progress(share: float) -> None:
        nonlocal told
        if not told:
            told, text = True, estimate(time.monotonic() - began, share, device)
            report.facts({FACT: text})
            log.info("fine-tuning", estimate=text)
        report.progress(share)

    return progress


def _task(snapshot: Snapshot) -> ClassificationTask:
    task = snapshot.format.task()
    assert isinstance(task, ClassificationTask)  # nothing else has pretrained features
    return task
