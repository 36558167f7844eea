"""Steps 4 and 5 of a round: the unlabelled pool through the models, in shards, and the order that follows.

A shard holds a fixed number of tasks, so that what is computed does not depend on how many workers there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.images.errors import NoReadableImageError
from kdal.images.refs import ImageRef, nothing_readable
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds import heads, queue
from kdal.rounds.batch import drawn as drawn_on
from kdal.rounds.features import RoundImages
from kdal.rounds.map import save_map
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import DISTILLED, SHARD, STUDENT, TEACHER, Order, RoundStore
from kdal_core.acquisition import (
    PoolScores,
    Selection,
    Strategy,
    cold_start,
    cold_start_features,
    explore,
    prediction_gap,
    strategy,
    thumbnails_tell,
)
from kdal_core.tasks import Task
from kdal_core.tasks.task import Detects
from kdal_core.training import infer

OF_LABELS = frozenset({"labelled_features", "labelled_probabilities", "class_difficulty"})
"""Arrays of `PoolScores` that tell of the labelled images."""
THUMBNAIL = 32
"""Pixels of an image's longer side while no model can look at it."""


def shard_count(snapshot: Snapshot) -> int:
    """How many shards the pool makes."""
    return -(-len(snapshot.pool) // SHARD)


def score_shard(
    resources: Resources,
    store: RoundStore,
    snapshot: Snapshot,
    shard: int,
    trained: bool,
    serving: int | None,
    report: StepReport,
) -> Json:
    """Run the round's models over one shard of the pool; write predictions, features, gaps, what the strategy needs.

    Without trained models (cold start) only thumbnails are written, from which diversity is computed.

    Args:
        trained: whether the round has models of its own.
        serving: the round whose model serves and makes the pre-annotations; none in a cold start.
    """
    refs = snapshot.pool[shard * SHARD : (shard + 1) * SHARD]
    if snapshot.backbones is not None:
        return _score_features(resources, store, snapshot, shard, refs, trained, serving, report)
    size = snapshot.image_size if trained else _thumbnail_size(snapshot.image_size)
    loaded = resources.images.load(refs, size, lambda share: report.progress(0.3 * share))
    images, kept, reasons = loaded.images, loaded.kept, loaded.reasons
    report.unusable({refs[i].task_id: why for i, why in reasons.items()})
    arrays: dict[str, NDArray[Any]] = {"tasks": np.array([refs[i].task_id for i in kept], dtype=np.int64)}
    if reasons:
        arrays["reason"] = np.array(next(iter(reasons.values())))  # for `select`, should it find no image at all
    if kept and not trained:
        arrays["thumbnails"] = torch.stack([images[i] for i in range(len(kept))]).numpy()
    elif kept:
        task = snapshot.format.task()
        device = resources.settings.device
        outputs = {}
        needs = snapshot.policy.chosen_strategy(task).needs
        # A student of a black-box teacher has no other networks beside it.
        roles = (STUDENT, TEACHER, DISTILLED) if snapshot.policy.black_box is None else (DISTILLED,)
        for i, role in enumerate(roles):
            model, _ = store.load_model(role)
            dense, single = ({name} <= needs and role == DISTILLED for name in ("probabilities", "object_features"))
            outputs[role] = infer(task, model, images, device=device, distributions=dense, object_features=single)
            report.progress(0.3 + 0.6 * (i + 1) / len(roles))
        distilled = outputs[DISTILLED]
        for role, gap in ((STUDENT, "d_ss"), (TEACHER, "d_st")):
            if role in outputs:
                arrays[gap] = prediction_gap(task, distilled.predictions, outputs[role].predictions)
        arrays["features"] = distilled.features
        if distilled.distributions is not None:  # of lanes, 37 kB an image
            arrays["probabilities"] = distilled.distributions
        if distilled.object_features is not None:
            arrays |= {"detections": distilled.predictions, "object_features": distilled.object_features}
        arrays["predictions"] = distilled.predictions
        arrays["sizes"] = np.array(loaded.sizes, dtype=np.int64)
        if serving is not None and serving != store.number:  # the new model was not promoted: the old one pre-annotates
            model, spec = store.of_round(serving).load_model()
            if spec.image_size != snapshot.image_size:
                images = resources.images.load([refs[i] for i in kept], spec.image_size).complete().images
            arrays["predictions"] = infer(task, model, images, device=device).predictions
    store.write_shard(shard, **arrays)
    return {"scored": len(kept), "unreadable": len(reasons)}


def _score_features(
    resources: Resources,
    store: RoundStore,
    snapshot: Snapshot,
    shard: int,
    refs: list[ImageRef],
    trained: bool,
    serving: int | None,
    report: StepReport,
) -> Json:
    """The same of images whose features are there, which need not be read unless the student was trained whole."""
    by_task = {ref.task_id: ref for ref in refs}
    images = RoundImages.load(store, snapshot, np.array(list(by_task), dtype=np.int64))
    arrays: dict[str, NDArray[Any]] = {"tasks": images.tasks}
    if trained:
        arrays = heads.score(resources, store, snapshot, by_task, report)
    if trained and serving is not None and serving != store.number and len(images.tasks):
        arrays["predictions"] = heads.predictions_of(resources, store.of_round(serving), snapshot, images, by_task)
    if images.reason:
        arrays["reason"] = np.array(images.reason)
    store.write_shard(shard, **arrays)
    return {"scored": len(images.tasks), "unreadable": len(refs) - len(images.tasks)}


def select(store: RoundStore, snapshot: Snapshot, trained: bool, resources: Resources | None = None) -> Json:
    """Order the whole pool and write the round's manifest, `Order`.

    Behind the ordered pool come the tasks that people skipped, then those whose image cannot be read.

    Args:
        store: of the round, its shards scored.
        snapshot: of the round.
        trained: whether the round has models of its own.
        resources: where features are, for a round that has backbones.

    Raises:
        NoReadableImageError: tasks wait for a label, and not one of their images can be used. The order in force is
            better than one by nothing at all. (The last few that are left, once models have been trained, are no
            reason to throw these away: labels can still be asked for, in whatever order.)
    """
    policy = snapshot.policy
    task = snapshot.format.task()
    chosen = policy.chosen_strategy(task)
    counts_objects = policy.budget_unit == "objects"
    wanted = {"tasks", "reason", *(chosen.needs | {"features"} if trained else {"thumbnails"})}
    wanted |= {"objects"} if counts_objects and trained else set()
    shards = [_read_shard(store, shard, task, wanted) for shard in range(shard_count(snapshot))]
    tasks = np.concatenate([s["tasks"] for s in shards]) if shards else np.zeros(0, dtype=np.int64)
    last_few = trained and len(snapshot.pool) <= policy.budget
    if snapshot.pool and not len(tasks) and not last_few:
        example = next((str(s["reason"]) for s in shards if "reason" in s), "see the list of unusable tasks")
        raise NoReadableImageError(nothing_readable("images that wait for a label", len(snapshot.pool), example))
    scored = [s for s in shards if len(s["tasks"])]
    scores: NDArray[np.float64] = np.zeros(0)
    order, drawn, batch = tasks, tasks[:0], policy.budget
    estimates: NDArray[np.float64] = np.ones(len(tasks))
    why: list[queue.Entry] = []
    if len(tasks):
        there = [name for name in sorted(wanted & scored[0].keys()) if name not in ("tasks", "reason")]
        arrays = {name: np.concatenate([s[name] for s in scored]) for name in there}
        if snapshot.backbones is not None and resources is not None:
            arrays |= heads.spaces(resources, store, snapshot, tasks, arrays.get("features"))
        elif trained and resources is not None and chosen.reads & OF_LABELS:
            arrays |= _of_labels(resources, store, snapshot, chosen.reads & OF_LABELS, arrays["features"].shape[1])
        seed = policy.seed + store.number
        selection = _order(policy, task, chosen, arrays, trained=trained, seed=seed)
        if counts_objects:
            estimates = _estimates(snapshot, arrays)
            batch = images_for(estimates[selection.indices], policy.budget)
        batches = -(-policy.served // batch)
        explored = explore(selection.indices, policy.explore, budget=batch, batches=batches, seed=seed)
        order, drawn = tasks[explored.indices], tasks[explored.drawn]
        by_chance = policy.strategy == "random" or (not trained and _nothing_tells(task, arrays))
        why = queue.reasons(
            order.tolist(),
            explored.indices,
            explored.drawn,
            selection,
            arrays,
            trained=trained,
            by_chance=by_chance,
        )
        save_map(store, tasks, order[:batch].tolist(), arrays, _labelled_tasks(store, snapshot))
        estimates = estimates[explored.indices]
        scores = selection.scores[np.argsort(selection.indices)][explored.indices]
    unreadable = sorted({ref.task_id for ref in snapshot.pool} - set(tasks.tolist()))
    ranked = [*order.tolist(), *snapshot.skipped, *unreadable]
    told: list[float] = []
    if counts_objects and ranked:
        behind = float(estimates.mean()) if len(order) else 1.0
        told = [*estimates.round(2).tolist(), *[round(behind, 2)] * (len(ranked) - len(order))]
        batch = images_for(np.array(told), policy.budget)
    manifest = Order(
        tasks=ranked,
        budget=min(batch, len(ranked)),
        selected=len(order),
        explored=drawn.tolist(),
        estimates=told,
    )
    store.save_order(manifest, order, scores)
    why += [queue.Entry(number, "behind") for number in ranked[len(order) :]]
    queue.save_reasons(store, why, policy.strategy)
    return {"ordered": len(order), "skipped": len(snapshot.skipped), "unreadable": len(unreadable)}


def images_for(estimates: NDArray[np.float64], budget: int) -> int:
    """How many images of an order make a batch of so many objects, at least 1.

    Args:
        estimates: (N,) objects of each image, in the order, > 0.
        budget: objects of the batch.

    >>> images_for(np.array([4.0, 1.5, 3.0, 9.0]), budget=6)
    3
    """
    return min(int(np.searchsorted(np.cumsum(estimates), budget - 1e-9)) + 1, max(1, len(estimates)))


def _estimates(snapshot: Snapshot, arrays: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """(N,) how many objects each image seems to show, at least 1: as the model sees it, else as labels have had it."""
    if "objects" in arrays:
        found: NDArray[np.float64] = arrays["objects"].sum(axis=1)
        return np.maximum(found, 1.0)
    so_far = [drawn_on(item.target) for item in snapshot.labelled if item.target is not None]
    images = len(next(iter(arrays.values())))
    return np.full(images, float(np.mean(so_far)) if so_far else 1.0)


def _of_labels(
    resources: Resources, store: RoundStore, snapshot: Snapshot, wanted: frozenset[str], width: int
) -> dict[str, NDArray[Any]]:
    """What S-KD, whose features are this wide, makes of the labelled images, as `PoolScores` takes it."""
    task, usable = snapshot.format.task(), [item for item in snapshot.labelled if item.target is not None]
    model, _ = store.load_model(DISTILLED)
    loaded = resources.images.load([item.ref for item in usable], snapshot.image_size)
    images = loaded.images
    if not len(images):  # a black-box teacher's student is trained without a label
        return {"labelled_features": np.zeros((0, width), dtype=np.float32)} if "labelled_features" in wanted else {}
    dense = "labelled_probabilities" in wanted
    seen = infer(task, model, images, device=resources.settings.device, distributions=dense)
    found = {"labelled_features": seen.features, "labelled_probabilities": seen.distributions}
    if isinstance(task, Detects):
        targets = [usable[i].target for i in loaded.kept]
        found["class_difficulty"] = task.class_difficulty(seen.predictions, targets)
    return {name: array for name, array in found.items() if name in wanted and array is not None}


def _read_shard(store: RoundStore, shard: int, task: Task, wanted: set[str]) -> dict[str, NDArray[Any]]:
    """A shard's arrays of these names; objects are counted as the model sees them that makes the pre-annotations."""
    arrays = store.read_shard(shard)
    if "objects" in wanted and "predictions" in arrays:
        arrays["objects"] = task.objects(arrays["predictions"])
    return {name: array for name, array in arrays.items() if name in wanted}


def _order(
    policy: Policy, task: Task, chosen: Strategy, arrays: dict[str, NDArray[Any]], *, trained: bool, seed: int
) -> Selection:
    """The whole pool in the policy's order; without a model, in that of a cold start."""
    if trained:
        return chosen(PoolScores(**arrays, seed=seed, budget=policy.served))
    if policy.strategy == "random":
        return chosen(PoolScores(features=next(iter(arrays.values())), seed=policy.seed))
    if "teacher_features" in arrays:
        features, labelled = arrays["teacher_features"], arrays["labelled_teacher_features"]
        if not len(labelled):
            return cold_start(features, mode="kernel", seed=policy.seed, budget=policy.served)
        # Labels of one class, say, which train nothing, but stand for images like theirs.
        pool = PoolScores(features=features, labelled_features=labelled, seed=policy.seed, budget=policy.served)
        return strategy("maxherding")(pool)
    thumbnails, look = torch.from_numpy(arrays["thumbnails"]), task.defaults.cold_start
    if _nothing_tells(task, arrays):
        return strategy("random")(PoolScores(features=arrays["thumbnails"], seed=policy.seed))
    features = cold_start_features(thumbnails, look=look)
    if policy.k is None:
        return cold_start(features, seed=policy.seed)
    return cold_start(features, k=policy.k, seed=policy.seed)


def _labelled_tasks(store: RoundStore, snapshot: Snapshot) -> NDArray[np.int64]:
    """The labelled tasks whose features `heads.spaces` tells, in their order; none of a round without backbones."""
    labelled = sorted(item.ref.task_id for item in snapshot.labelled if item.target is not None)
    if snapshot.backbones is None or not labelled:
        return np.zeros(0, dtype=np.int64)
    return RoundImages.load(store, snapshot, np.array(labelled, dtype=np.int64)).tasks


def _nothing_tells(task: Task, arrays: dict[str, NDArray[Any]]) -> bool:
    """Whether nothing that is known without a model tells images apart, so that their order is random."""
    if "thumbnails" not in arrays or task.defaults.cold_start != "thumbnails":
        return False
    return not thumbnails_tell(torch.from_numpy(arrays["thumbnails"]))


def _thumbnail_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
