"""Step 7 of a round: its order, with pre-annotations, written to Label Studio."""

from __future__ import annotations

from collections.abc import Collection

from kdal.aliases import Json
from kdal.labelstudio import task_order
from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.formats import Format
from kdal.labelstudio.task_order import OrderInForce, StaleOrderError
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds.lineage import serving_after
from kdal.rounds.progress import StepReport
from kdal.rounds.queue import save_regions
from kdal.rounds.scoring import shard_count
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import Order, RoundStore
from kdal.rounds.suggestions import Confidence, Suggestions
from kdal.storage.tables import Project

PUSHED = "pushed_version"
"""A round's fact: the version that was pushed last, whole or not."""


class RefusedOrderError(LabelStudioError):
    """Label Studio does not take the order, and would not take it later: the project is no longer what it was."""


def publish(resources: Resources, project: Project, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Push the first tasks of a round's order, and put it in force.

    Raises:
        RefusedOrderError: the labelling config has become another one, or Label Studio did not take the order twice,
            the second time without the tasks that are gone; what it had taken is removed again.
    """
    check_config(resources.label_studio.project(project.id), snapshot)
    order = store.order()
    try:
        pushed = _push(resources, project, store, snapshot, order, order.tasks, report)
    except StaleOrderError:
        alive = {task["id"] for task in resources.label_studio.tasks(project.id)}
        tasks = [task for task in order.tasks if task in alive]
        try:
            pushed = _push(resources, project, store, snapshot, order, tasks, report)
        except StaleOrderError as error:
            raise RefusedOrderError(
                f"{error}; kdal begins this round again with the project as it is now", 400
            ) from error
    return {"pushed": pushed}


def check_config(row: Json, snapshot: Snapshot) -> None:
    """Check that a project is still labelled as it was when the round began.

    Label Studio itself refuses an order only if one of its pre-annotations has a class that was renamed or removed:
    models that predict none of it would go on serving a class fewer until the next round.

    Args:
        row: the project as Label Studio has it.

    Raises:
        RefusedOrderError: its labelling config has become another one.
    """
    if row["label_config"] != snapshot.label_config:
        raise RefusedOrderError(
            "the labelling config was changed while the round was computed; kdal begins it again with the new one", 400
        )


def _push(
    resources: Resources,
    project: Project,
    store: RoundStore,
    snapshot: Snapshot,
    order: Order,
    tasks: list[int],
    report: StepReport,
) -> int:
    """Push tasks under a name that nothing else bears; returns how many."""
    if not tasks:
        # Everything is labelled. Label Studio takes no version under which it holds nothing: the last one stays.
        return 0
    client, storage, number = resources.label_studio, resources.storage, store.number
    attempt = storage.round(project.id, number).attempts + 1
    version = task_order.unused_version(number, attempt, client.prediction_counts(project.id))
    # Noted before the push: if it breaks off half-way, the next one takes another name.
    storage.update_round(project.id, number, attempts=attempt)
    storage.merge_round(project.id, number, facts={PUSHED: version})
    tasks = tasks[: snapshot.policy.served]
    found = regions(store, snapshot, tasks, _suggestions(resources, project, number, snapshot))
    save_regions(store, tasks, found)
    in_force = OrderInForce(storage, client)

    def put_in_force() -> None:
        store.fence()  # a round that was cancelled while it pushed changes no queue
        storage.update_round(project.id, number, version=version)
        in_force.put(project.id, version)

    return task_order.publish(client, project.id, version, tasks, order.scores, found, put_in_force, report.progress)


def _suggestions(resources: Resources, project: Project, number: int, snapshot: Snapshot) -> Suggestions:
    """What annotators are to see of the predictions of the model that serves once this round is open."""
    facts = resources.storage.round(project.id, number).facts
    serving = serving_after(number, facts, project.serving_round)
    return suggestions_of(resources, project, number, serving, snapshot.format)


def suggestions_of(
    resources: Resources, project: Project, number: int, serving: int | None, form: Format
) -> Suggestions:
    """What annotators see, in a round, of the predictions of the model that serves in it."""
    rounds = {row.number: row.facts for row in resources.storage.rounds(project.id)}
    earlier = {} if serving is None else rounds.get(serving, {})
    known = Confidence.of_model(serving, rounds[number], earlier)
    return Suggestions.by_policy(form, Policy.stored(project.policy), known)


def regions(
    store: RoundStore, snapshot: Snapshot, wanted: Collection[int], suggestions: Suggestions | None = None
) -> dict[int, list[Json]]:
    """Pre-annotations of these tasks, as Label Studio regions by task id; tasks that were not scored have none.

    Regions are made for the tasks that are pushed alone: of a large pool they would take minutes and gigabytes.

    Args:
        store: of the round.
        snapshot: the round's.
        wanted: task ids.
        suggestions: makes the regions; none: all that is predicted, confidences as usual.
    """
    made, tasks = suggestions or Suggestions(snapshot.format, snapshot.format.task(), above=0.0), set(wanted)
    found: dict[int, list[Json]] = {}
    for shard in range(shard_count(snapshot)):
        arrays = store.read_shard(shard)
        if "predictions" not in arrays:
            continue
        sizes = arrays.get("sizes")  # those of an older kdal have none
        for row, task in enumerate(arrays["tasks"].tolist()):
            if task in tasks:
                size = None if sizes is None else (int(sizes[row][0]), int(sizes[row][1]))
                found[task] = made.regions(arrays["predictions"][row], size)
    return found
