"""Step 3 of a round on pretrained features: S, T and S-KD as heads, in seconds; and the pool as they see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kdal.aliases import Json, Progress
from kdal.backbones import RoundBackbones
from kdal.images.errors import NoReadableImageError
from kdal.images.refs import ImageRef, nothing_readable
from kdal.resources import Resources
from kdal.rounds import gate
from kdal.rounds.features import LARGEST, RoundImages
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import BACKBONES, Labelled, Snapshot
from kdal.rounds.store import DISTILLED, HEADS, Arrays, RoundStore
from kdal.storage.assets import MissingAssetError
from kdal.storage.features import Half
from kdal_core.acquisition import joined_features, prediction_gap
from kdal_core.errors import AssetError
from kdal_core.models import FrozenClassifier, Network, TunedClassifier
from kdal_core.models.frozen import FROZEN
from kdal_core.tasks import get_task
from kdal_core.training import Head, HeadPool, Inference, ModelSpec, infer

FOLDED = 3_000
"""Labels up to which each is predicted by heads that were not shown it: of more, the held-out ones tell enough."""
FOLDS = 5
"""Of the labels, for predictions of each by heads that were not shown it."""


def train_heads(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Fit the three heads to the labels and the pool; write the serving model, and what scoring needs of the others.

    Held-out images are not looked at: their predictions are to be those of any new image.

    Returns:
        What was trained; ``{"trains": False, "why_untrained": ...}`` when too few of the images can be read.

    Raises:
        NoReadableImageError: there are labels, and not one of their images can be used.
    """
    task, told = snapshot.format.task(), _backbones(snapshot)
    images = RoundImages.load(store, snapshot)
    targets = {item.ref.task_id: item.target for item in snapshot.training}
    held_out = {item.ref.task_id for item in snapshot.held_out}
    seen = np.array([i for i, number in enumerate(images.tasks.tolist()) if number not in held_out], dtype=np.int64)
    images = images.at(seen)
    tasks = images.tasks
    labelled = np.flatnonzero([number in targets for number in tasks.tolist()])
    if targets and not len(labelled):
        raise NoReadableImageError(nothing_readable("labelled images", len(targets), images.reason))
    known = [targets[number] for number in tasks[labelled].tolist()]
    if (reason := task.trainable(known)) is not None:
        return {"trains": False, "why_untrained": f"of the labels whose images can be read: {reason}"}
    student, teacher = features_of(resources, snapshot, images)
    report.progress(0.3)
    pool = HeadPool(student, teacher, seed=snapshot.policy.seed)
    report.progress(0.5)
    trio = pool.fit(labelled, known, len(task.classes))
    report.progress(0.7)
    if 1 < len(known) <= FOLDED:
        folds = pool.out_of_fold(labelled, known, len(task.classes), folds=min(FOLDS, len(known)))
        gate.save_out_of_fold(store, tasks[labelled].tolist(), folds)
    report.progress(0.9)
    spec = model_spec(snapshot, FROZEN)
    store.save_model(DISTILLED, on_backbone(resources, snapshot, trio.distilled), spec)
    store.write_arrays(
        HEADS,
        tasks=tasks,
        teacher=trio.teacher.astype(np.float32),
        label_share=np.array(trio.label_share),
        **_as_arrays("student", trio.student),
        **_as_arrays("distilled", trio.distilled),
    )
    teachers = "+".join(one["name"] for one in told.teacher)
    return {"trained_on": len(known), "student": spec.architecture, "teacher": teachers}


def model_spec(snapshot: Snapshot, kind: str) -> ModelSpec:
    """The checkpoint spec of a round's student: `kind` is FROZEN or TUNED."""
    task, told = snapshot.format.task(), _backbones(snapshot)
    architecture = f"{kind}{told.student['name']}"
    return ModelSpec(task.kind, architecture, tuple(task.classes), snapshot.image_size, task.options)


def head_alone(resources: Resources, store: RoundStore, snapshot: Snapshot) -> FrozenClassifier:
    """S-KD as a round's heads were fitted, whatever became of it since."""
    return on_backbone(resources, snapshot, _head(store.read_arrays(HEADS), "distilled"))


def fine_tuned(store: RoundStore, snapshot: Snapshot) -> TunedClassifier | None:
    """The round's student, if it was trained whole and won over its head alone."""
    if snapshot.policy.train != "full":
        return None
    network, _ = store.load_model()
    return network if isinstance(network, TunedClassifier) else None


def features_of(resources: Resources, snapshot: Snapshot, images: RoundImages) -> tuple[Half, list[Half]]:
    """Features of a round's images as the student sees them, (N, D), and as each backbone of the teacher, (N, E_i)."""
    told = _backbones(snapshot)
    found = {one["sha256"]: images.features(resources, snapshot, one) for one in told.all}
    return found[told.student["sha256"]], [found[one["sha256"]] for one in told.teacher]


def score(
    resources: Resources, store: RoundStore, snapshot: Snapshot, refs: Mapping[int, ImageRef], report: StepReport
) -> Arrays:
    """Gaps, probabilities and predictions of these tasks of the pool, as a round's shards hold them.

    A student that was trained whole looks at the images again, and its features are kept beside the rest.

    Args:
        refs: of the images, by task; those that cannot be read are left out.
    """
    task, told = snapshot.format.task(), _backbones(snapshot)
    images = RoundImages.load(store, snapshot, np.array(list(refs), dtype=np.int64))
    if not len(images.tasks):
        return {"tasks": images.tasks}
    found = store.read_arrays(HEADS)
    features = images.features(resources, snapshot, told.student)
    student = _head(found, "student").probabilities(features)
    refreshed: Arrays = {}
    if (network := fine_tuned(store, snapshot)) is None:
        distilled = _head(found, "distilled").probabilities(features)
    else:
        seen = _look(resources, network, snapshot, images, refs, report.progress)
        distilled = seen.predictions
        refreshed["features"] = seen.features.clip(-LARGEST, LARGEST).astype(np.float16)
    teacher = found["teacher"][np.searchsorted(found["tasks"], images.tasks)]
    return {
        "tasks": images.tasks,
        "d_ss": prediction_gap(task, distilled, student),
        "d_st": prediction_gap(task, distilled, teacher),
        "probabilities": distilled,
        "predictions": distilled,
        "sizes": images.sizes,
        **refreshed,
    }


def spaces(
    resources: Resources,
    store: RoundStore,
    snapshot: Snapshot,
    tasks: NDArray[np.int64],
    refreshed: NDArray[np.floating] | None = None,
) -> Arrays:
    """The features by which tasks of the pool are alike, as `PoolScores` takes them, and those of the labelled images.

    Args:
        tasks: (M,) numbers of tasks whose images can be read.
        refreshed: (M, D) of these by a student that was trained whole, in place of its backbone's; the teacher's stay
            those of its frozen backbones.
    """
    labelled = {item.ref.task_id: item.ref for item in snapshot.labelled if item.target is not None}
    everything = RoundImages.load(store, snapshot)
    of_pool, of_labels = everything.of(tasks), everything.of(np.array(sorted(labelled), dtype=np.int64))
    images = of_pool.and_also(of_labels)
    of_student: NDArray[np.floating]
    of_student, of_teacher = features_of(resources, snapshot, images)
    count = len(of_pool.tasks)
    found = {}
    if refreshed is not None and (network := fine_tuned(store, snapshot)) is not None:
        seen = _look(resources, network, snapshot, of_labels, labelled)
        of_student = np.concatenate([refreshed, seen.features])
        found["labelled_probabilities"] = seen.predictions
    else:
        with suppress(MissingAssetError):  # no model was trained
            distilled = _head(store.read_arrays(HEADS), "distilled")
            found["labelled_probabilities"] = distilled.probabilities(of_student[count:])
    student, teacher = joined_features([of_student]), joined_features(of_teacher)
    return found | {
        "features": student[:count],
        "labelled_features": student[count:],
        "teacher_features": teacher[:count],
        "labelled_teacher_features": teacher[count:],
    }


@dataclass(frozen=True)
class ModelOnFeatures(gate.Model):
    """A model that is asked about images of a round whose features are there."""

    store: RoundStore
    """Of the model's round."""
    snapshot: Snapshot
    """Of the round whose images they are."""
    images: RoundImages
    """Of that round."""

    def predictions(self, resources: Resources, items: Sequence[Labelled]) -> dict[int, NDArray[np.float32]]:
        """See `gate.Model`."""
        refs = {item.ref.task_id: item.ref for item in items}
        images = self.images.of(np.array(sorted(refs), dtype=np.int64))
        if not len(images.tasks):
            return {}
        found = predictions_of(resources, self.store, self.snapshot, images, refs)
        return dict(zip(images.tasks.tolist(), found, strict=True))


def predictions_of(
    resources: Resources, serving: RoundStore, snapshot: Snapshot, images: RoundImages, refs: Mapping[int, ImageRef]
) -> NDArray[np.float32]:
    """What the model of an earlier round says of this round's images.

    Args:
        resources: what the step works with.
        serving: the store of the model's round.
        snapshot: of this round.
        images: N of its images.
        refs: of these images, by task.

    Returns:
        (N, ...) predictions. Images are only read where the model has another backbone than the round.
    """
    network, spec = serving.load_model()
    task = get_task(spec.kind, spec.classes, **spec.options)
    if isinstance(network, FrozenClassifier) and spec.image_size == snapshot.image_size:
        earlier = RoundBackbones.from_json(serving.read_json(BACKBONES))
        for told in _backbones(snapshot).all:
            if earlier is not None and told["sha256"] == earlier.student["sha256"]:
                features = torch.from_numpy(images.features(resources, snapshot, told).astype(np.float32))
                with torch.inference_mode():
                    return task.decode(network.logits(features))
    loaded = resources.images.load([refs[number] for number in images.tasks.tolist()], spec.image_size).complete()
    return infer(task, network, loaded.images, device=resources.settings.device).predictions


def _look(
    resources: Resources,
    network: Network,
    snapshot: Snapshot,
    images: RoundImages,
    refs: Mapping[int, ImageRef],
    progress: Progress | None = None,
) -> Inference:
    """What a whole network makes of images of the round, in their order."""
    asked = [refs[number] for number in images.tasks.tolist()]
    loaded = resources.images.load(asked, snapshot.image_size).complete()
    device = resources.settings.device
    return infer(snapshot.format.task(), network, loaded.images, device=device, progress=progress)


def _backbones(snapshot: Snapshot) -> RoundBackbones:
    if snapshot.backbones is None:
        raise AssetError("this round has no backbones")
    return snapshot.backbones


def on_backbone(resources: Resources, snapshot: Snapshot, head: Head) -> FrozenClassifier:
    """The student's backbone, shared with others, and a head."""
    network = FrozenClassifier(resources.backbones.load(_backbones(snapshot).student), len(head.bias))
    network.set_head(torch.from_numpy(head.weight), torch.from_numpy(head.bias), normalised=head.normalised)
    return network


def _as_arrays(role: str, head: Head) -> Arrays:
    return {
        f"{role}_weight": head.weight,
        f"{role}_bias": head.bias,
        f"{role}_normalised": np.array(head.normalised),
    }


def _head(arrays: Arrays, role: str) -> Head:
    return Head(arrays[f"{role}_weight"], arrays[f"{role}_bias"], bool(arrays[f"{role}_normalised"]))
