"""Sure suggestions written to Label Studio as annotations of kdal's, and taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kdal.aliases import Json
from kdal.labelstudio.accepted import VERSION, accepted_in, is_accepted, marked
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError

CHUNK = 500
"""Annotations at once: what is served to annotators meanwhile waits for one chunk at most, a second or two."""


def write(
    client: LabelStudioClient,
    project: int,
    results: Mapping[int, list[Json]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write suggestions as annotations that bear kdal's mark; returns how many.

    They go in as predictions first, of which Label Studio itself makes annotations: thousands take a minute, one by one
    they would take an hour, and a prediction that has become an annotation does not become a second one.

    Args:
        client: of the Label Studio that has the tasks.
        project: its number there.
        results: task id -> regions; tasks that nobody has labelled.
        progress: told how many of how many are written.

    Raises:
        LabelStudioError: what was written stays written; whoever goes on writes the others.
    """
    sweep(client, project)
    tasks = list(results)
    for start in range(0, len(tasks), CHUNK):
        chunk = tasks[start : start + CHUNK]
        predictions = [
            {"task": task, "result": [marked(region) for region in results[task]], "model_version": VERSION}
            for task in chunk
        ]
        created = client.import_predictions(project, predictions)
        if created != len(chunk):
            sweep(client, project)
            raise LabelStudioError(
                f"Label Studio took {created} of {len(chunk)} suggestions: a class was renamed or removed in its "
                "labelling config; run this again after the next round"
            )
        client.annotate_from_predictions(project, chunk, VERSION)
        client.delete_predictions(project, VERSION)
        progress(start + len(chunk), len(tasks))
    return len(tasks)


def sweep(client: LabelStudioClient, project: int) -> None:
    """Remove predictions that were to become annotations when a run was killed."""
    if VERSION in client.prediction_counts(project):
        client.delete_predictions(project, VERSION)


def take_back(
    client: LabelStudioClient,
    project: int,
    rows: Iterable[Json] | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> int:
    """Remove the annotations that kdal has written and nobody has touched; returns how many.

    Each is looked at once more before it goes: somebody may just have made it theirs.

    Args:
        client: of the Label Studio that has the tasks.
        project: its number there.
        rows: tasks to look at, with annotations; all that are labelled by default.
        progress: told how many are gone.
    """
    sweep(client, project)
    gone = 0
    for row in client.tasks(project, labelled=True, full=True) if rows is None else rows:
        for annotation in accepted_in(row):
            now = client.annotation(annotation["id"])
            if now is not None and is_accepted(now):
                client.delete_annotation(annotation["id"])
                gone += 1
                progress(gone, None)
    return gone
