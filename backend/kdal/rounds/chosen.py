"""The step of a round that serves a model which its owner chose: that model's order, and what it predicts.

Nothing is trained. The order is the one that the model's own round computed, without what was labelled since. Tasks
that it did not have follow: first as the last order had them, then, new ones, at random.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.images.refs import ImageRef
from kdal.resources import Resources
from kdal.rounds import heads, queue
from kdal.rounds.features import RoundImages
from kdal.rounds.progress import StepReport
from kdal.rounds.scoring import images_for, shard_count
from kdal.rounds.snapshot import Snapshot, SnapshotHeader
from kdal.rounds.store import SHARD, Arrays, Order, RoundStore
from kdal.storage.assets import MissingAssetError
from kdal_core.errors import ConfigError
from kdal_core.tasks import get_task
from kdal_core.training import infer


def count_on(store: RoundStore, before: RoundStore) -> None:
    """Let labels count as they did in the round before: a change of the model is no reason to begin a batch anew."""
    header, earlier = SnapshotHeader.load(store), SnapshotHeader.load(before)
    replace(header, labelled=earlier.labelled, moment=earlier.moment).save(store)


def serve_chosen(
    resources: Resources, store: RoundStore, snapshot: Snapshot, chosen: int, before: int | None, report: StepReport
) -> Json:
    """Write the order and the predictions of a model that was chosen, as a round's own would be.

    Args:
        resources: what the step works with.
        store: of the round.
        snapshot: of the round.
        chosen: the round of the model.
        before: the round whose order is in force; none where there is none.
        report: takes the progress, and which images cannot be read.

    Raises:
        ConfigError: the project is no longer labelled with what the model predicts.
        MissingAssetError: the model is gone.
    """
    _, spec = store.of_round(chosen).load_model()
    task = snapshot.format.task()
    if (spec.kind, spec.classes) != (task.kind, tuple(task.classes)):
        raise ConfigError(f"the model of round {chosen} predicts other classes than the project now has")
    order = order_of(snapshot, _order(store, chosen), _order(store, before), seed=snapshot.policy.seed + store.number)
    wanted = set(order.tasks[: snapshot.policy.served])
    shards = shard_count(snapshot)
    for shard in range(shards):
        refs = [ref for ref in snapshot.pool[shard * SHARD : (shard + 1) * SHARD] if ref.task_id in wanted]
        store.write_shard(shard, **_predicted(resources, store, snapshot, chosen, refs, report))
        report.progress((shard + 1) / shards)
    store.save_order(order, np.array(order.tasks[: order.selected], dtype=np.int64), np.zeros(order.selected))
    queue.carry_reasons(store, chosen, order.tasks)
    return {"ordered": order.selected}


def order_of(snapshot: Snapshot, own: Order | None, last: Order | None, *, seed: int) -> Order:
    """A round's pool in the order of an earlier round.

    Args:
        snapshot: of the round.
        own: the order of the model's round.
        last: the order in force, for tasks that the first does not have.
        seed: of the order of tasks that neither has.
    """
    waiting = {ref.task_id for ref in snapshot.pool}
    ranked = _kept(own, waiting)
    ranked += _kept(last, waiting - set(ranked))
    new = np.array(sorted(waiting - set(ranked)), dtype=np.int64)
    ranked += np.random.default_rng(seed).permutation(new).tolist()
    tasks, budget, estimates = [*ranked, *snapshot.skipped], snapshot.policy.budget, list[float]()
    if snapshot.policy.budget_unit == "objects" and tasks:
        known = {} if own is None else dict(zip(own.tasks, own.estimates, strict=bool(own.estimates)))
        usual = float(np.mean(list(known.values()))) if known else 1.0
        estimates = [round(known.get(task, usual), 2) for task in tasks]
        budget = images_for(np.array(estimates), budget)
    drawn = {task for order in (own, last) if order is not None for task in order.explored}
    return Order(
        tasks=tasks,
        budget=min(budget, len(tasks)),
        selected=len(ranked),
        explored=[task for task in ranked if task in drawn],
        estimates=estimates,
    )


def _kept(order: Order | None, wanted: Iterable[int]) -> list[int]:
    """What a strategy ordered of these tasks."""
    there = set(wanted)
    return [] if order is None else [task for task in order.tasks[: order.selected] if task in there]


def _order(store: RoundStore, number: int | None) -> Order | None:
    try:
        return None if number is None else store.of_round(number).order()
    except MissingAssetError:
        return None


def _predicted(
    resources: Resources,
    store: RoundStore,
    snapshot: Snapshot,
    chosen: int,
    refs: Sequence[ImageRef],
    report: StepReport,
) -> Arrays:
    """What the chosen model makes of images of the pool, as a shard holds it."""
    tasks: NDArray[Any] = np.array([ref.task_id for ref in refs], dtype=np.int64)
    if not len(tasks):
        return {"tasks": tasks}
    by_task = {ref.task_id: ref for ref in refs}
    model = store.of_round(chosen)
    if snapshot.backbones is not None:
        images = RoundImages.load(store, snapshot, tasks)
        if not len(images.tasks):
            return {"tasks": images.tasks}
        found = heads.predictions_of(resources, model, snapshot, images, by_task)
        return {"tasks": images.tasks, "predictions": found, "sizes": images.sizes}
    network, spec = model.load_model()
    loaded = resources.images.load(refs, spec.image_size)
    report.unusable({refs[i].task_id: why for i, why in loaded.reasons.items()})
    if not loaded.kept:
        return {"tasks": tasks[:0]}
    task = get_task(spec.kind, spec.classes, **spec.options)
    predictions = infer(task, network, loaded.images, device=resources.settings.device).predictions
    sizes = np.array(loaded.sizes, dtype=np.int64)
    return {"tasks": tasks[loaded.kept], "predictions": predictions, "sizes": sizes}
