"""Steps 4 and 5 of a round: the unlabelled pool through the models, in shards, and the order that follows.

A shard holds a fixed number of tasks, so that what is computed does not depend on how many workers there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdal.aliases import Json, Progress
from kdal.labelstudio.task_order import rank_score
from kdal.policy import Policy
from kdal.resources import Resources, round_key
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.training import DISTILLED, STUDENT, TEACHER, load_model
from kdal_core.acquisition import PoolScores, cold_start, cold_start_features, prediction_gap, strategy
from kdal_core.errors import AssetError
from kdal_core.tasks import FirstLook, Task
from kdal_core.training import infer

SCORED = frozenset({"d_ss", "d_st", "features", "probabilities", "objects"})
"""What a round knows of each task of the pool: the policy's strategies need no more."""

SHARD = 2048
"""Tasks of a shard."""
THUMBNAIL = 32
"""Pixels of an image's longer side while no model can look at it."""


def shard_count(snapshot: Snapshot) -> int:
    """How many shards the pool makes."""
    return -(-len(snapshot.pool) // SHARD)


def score_shard(
    resources: Resources,
    project: int,
    snapshot: Snapshot,
    number: int,
    shard: int,
    trained: bool,
    serving: int | None,
    progress: Progress,
) -> Json:
    """Run the round's models over one shard of the pool; write predictions, features, gaps, what the strategy needs.

    Without trained models (cold start) only thumbnails are written, from which diversity is computed.

    Args:
        trained: whether the round has models of its own.
        serving: the round whose model serves and makes the pre-annotations; none in a cold start.
    """
    torch.set_num_threads(resources.settings.torch_threads)
    refs = snapshot.pool[shard * SHARD : (shard + 1) * SHARD]
    size = snapshot.image_size if trained else _thumbnail_size(snapshot.image_size)
    loaded = resources.images.load(refs, size, lambda share: progress(0.3 * share))
    images, kept, reasons = loaded.images, loaded.kept, loaded.reasons
    resources.storage.set_aside(project, number, {refs[i].task_id: why for i, why in reasons.items()})
    arrays: dict[str, NDArray[Any]] = {"tasks": np.array([refs[i].task_id for i in kept], dtype=np.int64)}
    if kept and not trained:
        arrays["thumbnails"] = torch.stack([images[i] for i in range(len(kept))]).numpy()
    elif kept:
        task = snapshot.format.task()
        device = resources.settings.device
        outputs = {}
        probable = "probabilities" in snapshot.policy.chosen_strategy(task).needs
        # A student of a black-box teacher has no other networks beside it.
        roles = (STUDENT, TEACHER, DISTILLED) if snapshot.policy.black_box is None else (DISTILLED,)
        for i, role in enumerate(roles):
            model, _ = load_model(resources, snapshot.uid, number, role)
            dense = probable and role == DISTILLED
            outputs[role] = infer(task, model, images, device=device, distributions=dense)
            progress(0.3 + 0.6 * (i + 1) / len(roles))
        distilled = outputs[DISTILLED]
        for role, gap in ((STUDENT, "d_ss"), (TEACHER, "d_st")):
            if role in outputs:
                arrays[gap] = prediction_gap(task, distilled.predictions, outputs[role].predictions)
        arrays["features"] = distilled.features
        if distilled.distributions is not None:  # of lanes, 37 kB an image
            arrays["probabilities"] = distilled.distributions
        arrays["predictions"] = distilled.predictions
        arrays["sizes"] = np.array(loaded.sizes, dtype=np.int64)
        if serving is not None and serving != number:  # the new model was not promoted: the old one pre-annotates
            model, spec = load_model(resources, snapshot.uid, serving, DISTILLED)
            if spec.image_size != snapshot.image_size:
                images = resources.images.load([refs[i] for i in kept], spec.image_size).images
            arrays["predictions"] = infer(task, model, images, device=device).predictions
    resources.assets.write_arrays(_shard_key(snapshot, number, shard), **arrays)
    return {"scored": len(kept), "unreadable": len(reasons)}


def select(resources: Resources, snapshot: Snapshot, number: int, trained: bool) -> Json:
    """Order the whole pool and write the round's manifest, `Order`.

    Behind the ordered pool come the tasks that people skipped, then those whose image cannot be read.
    """
    policy = snapshot.policy
    task = snapshot.format.task()
    chosen = policy.chosen_strategy(task)
    wanted = {"tasks", *(chosen.needs | {"features"} if trained else {"thumbnails"})}
    keys = [_shard_key(snapshot, number, shard) for shard in range(shard_count(snapshot))]
    shards = [_read_shard(resources, key, task, wanted) for key in keys]
    tasks = np.concatenate([s["tasks"] for s in shards]) if shards else np.zeros(0, dtype=np.int64)
    scored = [s for s in shards if len(s["tasks"])]
    scores = np.zeros(0)
    order = tasks
    if len(tasks):
        if not trained:
            thumbnails = np.concatenate([s["thumbnails"] for s in scored])
            selection = _cold_order(policy, thumbnails, task.first_look)
        else:
            joined = {name: np.concatenate([s[name] for s in scored]) for name in chosen.needs | {"features"}}
            selection = chosen(PoolScores(**joined, seed=policy.seed + number, budget=policy.served))
        order, scores = tasks[selection.indices], selection.scores
    unreadable = sorted({ref.task_id for ref in snapshot.pool} - set(tasks.tolist()))
    ranked = [*order.tolist(), *snapshot.skipped, *unreadable]
    manifest = Order(tasks=ranked, budget=min(policy.budget, len(ranked)), selected=len(order))
    manifest.save(resources, snapshot.uid, number)
    resources.assets.write_arrays(round_key(snapshot.uid, number, "scores.npz"), tasks=order, scores=scores)
    return {"ordered": len(order), "skipped": len(snapshot.skipped), "unreadable": len(unreadable)}


def _read_shard(resources: Resources, key: str, task: Task, wanted: set[str]) -> dict[str, NDArray[Any]]:
    """A shard's arrays of these names; objects are counted as the model sees them that makes the pre-annotations."""
    arrays = resources.assets.read_arrays(key)
    if "objects" in wanted and "predictions" in arrays:
        arrays["objects"] = task.objects(arrays["predictions"])
    return {name: array for name, array in arrays.items() if name in wanted}


def regions(resources: Resources, snapshot: Snapshot, number: int) -> dict[int, list[Json]]:
    """Pre-annotations of the scored tasks, as Label Studio regions by task id."""
    found: dict[int, list[Json]] = {}
    for shard in range(shard_count(snapshot)):
        arrays = resources.assets.read_arrays(_shard_key(snapshot, number, shard))
        if "predictions" in arrays:
            form = snapshot.format
            tasks = arrays["tasks"].tolist()
            sizes = arrays["sizes"].tolist() if "sizes" in arrays else [None] * len(tasks)  # an older kdal's have none
            for task, prediction, size in zip(tasks, arrays["predictions"], sizes, strict=True):
                found[task] = form.result(prediction, None if size is None else (size[0], size[1]))
    return found


@dataclass(frozen=True)
class Order:
    """A round's manifest: all unlabelled tasks, first to be labelled first."""

    tasks: list[int]
    budget: int
    """The first so many are the batch."""
    selected: int
    """The first so many were ordered by the strategy; behind them, skipped and unreadable ones."""

    @property
    def scores(self) -> dict[int, float]:
        """Task id -> score in Label Studio."""
        return {task: rank_score(rank, len(self.tasks)) for rank, task in enumerate(self.tasks)}

    def save(self, resources: Resources, uid: str, number: int) -> None:
        """Write it to the assets."""
        value = {"budget": self.budget, "selected": self.selected, "tasks": self.tasks}
        resources.assets.write_json(round_key(uid, number, "order.json"), value)

    @classmethod
    def load(cls, resources: Resources, uid: str, number: int) -> Order:
        """Read it from the assets."""
        key = round_key(uid, number, "order.json")
        try:
            return cls(**resources.assets.read_json(key))
        except TypeError as error:
            raise AssetError(f"{key} is damaged, it is no order: {error}") from error


def _cold_order(policy: Policy, thumbnails: NDArray[Any], look: FirstLook) -> Any:
    if policy.strategy == "random":
        return strategy("random")(PoolScores(features=thumbnails, seed=policy.seed))
    features = cold_start_features(torch.from_numpy(thumbnails), look=look)
    return cold_start(features) if policy.k is None else cold_start(features, k=policy.k)


def _thumbnail_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shard_key(snapshot: Snapshot, number: int, shard: int) -> str:
    return round_key(snapshot.uid, number, f"shards/{shard:05d}.npz")
