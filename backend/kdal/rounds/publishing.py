"""Step 7 of a round: its order, with pre-annotations, written to Label Studio."""

from __future__ import annotations

from collections.abc import Collection

from kdal.aliases import Json
from kdal.labelstudio import task_order
from kdal.resources import Resources
from kdal.rounds.progress import StepReport
from kdal.rounds.scoring import shard_count
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import RoundStore
from kdal.storage.tables import Project


def publish(resources: Resources, project: Project, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Push the first tasks of a round's order and switch Label Studio to it."""
    client, storage, number = resources.label_studio, resources.storage, store.number
    attempt = storage.round(project.id, number).attempts + 1
    version = task_order.version_name(number, attempt)
    # Noted before the push: if it breaks off half-way, the next one takes another name.
    storage.update_round(project.id, number, attempts=attempt)
    order = store.order()
    tasks = order.tasks
    if attempt > 1:
        alive = {task["id"] for task in client.tasks(project.id)}
        tasks = [task for task in tasks if task in alive]
    tasks = tasks[: snapshot.policy.served]
    found = regions(store, snapshot, tasks)
    pushed = task_order.publish(
        client, project.id, version, tasks, order.scores, lambda task: found.get(task, []), report.progress
    )
    storage.update_round(project.id, number, version=version)
    return {"pushed": pushed}


def regions(store: RoundStore, snapshot: Snapshot, wanted: Collection[int]) -> dict[int, list[Json]]:
    """Pre-annotations of these tasks, as Label Studio regions by task id; tasks that were not scored have none.

    Regions are made for the tasks that are pushed alone: of a large pool they would take minutes and gigabytes.
    """
    form, tasks = snapshot.format, set(wanted)
    found: dict[int, list[Json]] = {}
    for shard in range(shard_count(snapshot)):
        arrays = store.read_shard(shard)
        if "predictions" not in arrays:
            continue
        sizes = arrays.get("sizes")  # those of an older kdal have none
        for row, task in enumerate(arrays["tasks"].tolist()):
            if task in tasks:
                size = None if sizes is None else (int(sizes[row][0]), int(sizes[row][1]))
                found[task] = form.result(arrays["predictions"][row], size)
    return found
