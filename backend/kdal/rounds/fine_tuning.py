"""A round's step "fine-tune": the student trained whole, which serves if it wins over its head alone.

It is asked for by the policy, "train": "full". The heads are fitted before, and serve if it does not win: a whole
network has far more ways than a head to learn what is not so, and held-out labels alone can tell.
"""

from __future__ import annotations

import copy
import time

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from kdal.aliases import Json, Progress
from kdal.resources import Resources
from kdal.rounds import gate
from kdal.rounds.heads import HEADS, head_alone, model_spec
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import DISTILLED, RoundStore
from kdal.rounds.training import WITHOUT_LABELS
from kdal_core.errors import ConfigError
from kdal_core.evaluation import ALPHA, compare, image_scores
from kdal_core.models import FrozenClassifier, Network, TunedClassifier
from kdal_core.models.frozen import FROZEN
from kdal_core.models.tuned import TUNED
from kdal_core.tasks import ClassificationTask
from kdal_core.training import fine_tune, infer, lessons, resolve_device

LABELS = 100
"""Labels to train on from which a whole network is tried: see docs/results/photos.md."""
JUDGES = 5
"""Held-out labels with fewer than which no win is beyond chance."""
FACT = "fine_tuning"
"""A round's fact: what becomes of it, in words for people."""
log = structlog.get_logger()


def fine_tune_student(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Train S-KD whole, from its head on; write it in place of the head's model if it wins on held-out labels.

    Returns:
        Under "fine_tuning" what became of it; where it was trained, "head_score" and "fine_tuned_score" on the held-out
        labels; and where it serves, "student".
    """
    if (reason := why_not(len(snapshot.training), len(snapshot.held_out))) is not None:
        return {FACT: f"not tried, the last layer alone is trained: {reason}"}
    begins = head_alone(resources, store, snapshot)
    try:
        network = _trained(resources, store, snapshot, begins, report)
    except (ConfigError, torch.OutOfMemoryError) as error:
        log.warning("fine-tuning given up", project=store.uid, round=store.number, error=str(error))
        return {FACT: f"given up, the last layer alone is trained: {str(error).partition(chr(10))[0]}"}
    facts = _judged(resources, snapshot, begins, network)
    kind, serves = (TUNED, network) if facts.pop("won") else (FROZEN, begins)
    store.save_model(DISTILLED, serves, spec := model_spec(snapshot, kind))
    if serves is network:  # what the heads said of labels that they were not shown says nothing of it
        classes = len(snapshot.format.task().classes)
        gate.save_out_of_fold(store, [], np.zeros((0, classes), dtype=np.float32))
    return facts | {"student": spec.architecture}


def why_not(labels: int, held_out: int) -> str | None:
    """Why a whole network is not worth training on this many labels; none where it is."""
    if labels < LABELS:
        return f"{labels} labels are too few for more, which may pay from {LABELS} on"
    if held_out < JUDGES:
        return f'with {held_out} held-out labels no win would be beyond chance, {JUDGES} are needed ("holdout")'
    return None


def estimate(seconds: float, share: float, device: str) -> str:
    """A sentence on how long it takes, after this many seconds and with this share done, in (0, 1]."""
    whole = seconds / share
    takes = f"{whole / 60:.0f} minutes" if whole >= 90 else f"{whole:.0f} seconds"
    text = f"under way on {'a GPU' if device == 'cuda' else 'the CPU'}, about {takes} in all"
    return text if device == "cuda" else f'{text}; "train": "heads" does without it'


def _trained(
    resources: Resources, store: RoundStore, snapshot: Snapshot, begins: FrozenClassifier, report: StepReport
) -> TunedClassifier:
    """The whole network, trained on the labels and on T's word on images of the pool, `WITHOUT_LABELS` at most."""
    found, task = store.read_arrays(HEADS), _task(snapshot)
    targets = {item.ref.task_id: item.target for item in snapshot.training}
    is_labelled = np.array([number in targets for number in found["tasks"].tolist()])
    others = np.random.default_rng(snapshot.policy.seed).permutation(np.flatnonzero(~is_labelled))[:WITHOUT_LABELS]
    rows = np.sort(np.concatenate([np.flatnonzero(is_labelled), others]))
    refs = {ref.task_id: ref for ref in snapshot.images}
    loaded = resources.images.load([refs[number] for number in found["tasks"][rows].tolist()], snapshot.image_size)
    rows = rows[loaded.kept]
    labelled = np.flatnonzero(is_labelled[rows])
    known = np.array([targets[number] for number in found["tasks"][rows[labelled]].tolist()], dtype=np.int64)
    told = lessons(found["teacher"][rows], labelled, known, float(found["label_share"]))
    network = TunedClassifier.beginning_as(begins)
    config = snapshot.policy.fine_tuning(resources.settings.device)
    device = resolve_device(config.device).type
    log.info("fine-tuning", project=store.uid, round=store.number, images=len(rows), device=device)
    fine_tune(task, network, loaded.images, told, config, progress=_watched(report, device))
    return network


def _judged(resources: Resources, snapshot: Snapshot, begins: FrozenClassifier, network: TunedClassifier) -> Json:
    """Both on the held-out labels: scores, "won", and a sentence."""
    task, items = _task(snapshot), snapshot.held_out
    loaded = resources.images.load([item.ref for item in items], snapshot.image_size)
    targets = [items[i].target for i in loaded.kept]
    if not targets:
        return {
            "won": False,
            FACT: "trained, but no held-out image can be read to judge it: its last layer alone serves",
        }

    def each(model: Network) -> NDArray[np.float64]:
        found = infer(task, model, loaded.images, device=resources.settings.device).predictions
        return image_scores(task, found, targets)

    before, after = each(copy.deepcopy(begins)), each(network)  # a copy: its backbone is shared, and stays where it is
    won = compare(before, after).worse()
    scores = (
        f"{after.mean():.1%} against {before.mean():.1%} {task.metric_name} on {len(targets)} labels that neither saw"
    )
    text = (
        f"the whole network serves, it is better than its last layer alone: {scores}"
        if won
        else f"the last layer alone serves, the whole network is not better beyond chance ({ALPHA:.0%}): {scores}"
    )
    return {"won": won, FACT: text, "head_score": float(before.mean()), "fine_tuned_score": float(after.mean())}


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
