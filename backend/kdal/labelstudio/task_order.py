"""The order of the tasks, written to Label Studio.

Label Studio serves tasks by ascending score of the predictions of its project's model version. So an order is
pushed as predictions (the pre-annotations) whose score is the rank, under a name that nothing else bears, and
comes into force at once with one PATCH. See "Queue order" in the measurements of Label Studio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from kdal.aliases import Json
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError

CHUNK = 5000
"""Predictions a request: Label Studio recounts all tasks at each one, so few are faster than many."""
PREFIX = "kdal-"
VERSION = re.compile(re.escape(PREFIX) + r"r(\d+)(?:\.\d+)?")
SAMPLING = "Uncertainty sampling"


class StaleOrderError(LabelStudioError):
    """Some tasks of an order are gone: push what is left of it under another name."""


def version_name(number: int, attempt: int) -> str:
    """Model version of a round's order; a push that was interrupted is repeated under another name."""
    return f"{PREFIX}r{number}" if attempt <= 1 else f"{PREFIX}r{number}.{attempt}"


def rank_score(rank: int, total: int) -> float:
    """Score of the task at a rank (0 is first): distinct, never null, in (0, 1)."""
    return (rank + 1) / (total + 1)


def publish(
    client: LabelStudioClient,
    project: int,
    version: str,
    order: Sequence[int],
    scores: Mapping[int, float],
    results: Callable[[int], list[Json]],
    progress: Callable[[float], None] | None = None,
) -> int:
    """Push an order and switch to it; returns how many tasks were pushed.

    The switch comes after the first chunk, which holds more
    tasks than annotators can label before the others are there.

    Args:
        order: task ids, first to be labelled first.
        scores: task id -> score, ascending along the order.
        results: task id -> regions of its pre-annotation.

    Raises:
        StaleOrderError: Label Studio did not take all; nothing may be repeated under the same name.
    """
    switched = False
    pushed = 0
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        predictions = [
            {
                "task": task,
                "result": results(task),
                "score": scores[task],
                "model_version": version,
            }
            for task in chunk
        ]
        pushed += _push(client, project, predictions)
        if not switched:
            switch(client, project, version)
            switched = True
        if progress is not None:
            progress(pushed / len(order))
    if not switched:
        switch(client, project, version)
    return pushed


def switch(client: LabelStudioClient, project: int, version: str) -> None:
    """Serve the queue in the order of a version from now on."""
    client.update_project(project, model_version=version, sampling=SAMPLING)


def remove_old_versions(client: LabelStudioClient, project: int, number: int, current: str) -> list[str]:
    """Delete what kdal pushed in earlier rounds, and in broken-off attempts at this one; returns the names.

    Args:
        number: the round in force; what a later one may be pushing just now is left alone.
        current: the version in force.
    """
    names = client.prediction_counts(project)
    old = [v for v in names if v != current and (found := VERSION.fullmatch(v)) and int(found[1]) <= number]
    for version in old:
        client.delete_predictions(project, version)
    return old


def _push(client: LabelStudioClient, project: int, predictions: list[Json]) -> int:
    try:
        created = client.import_predictions(project, predictions)
    except LabelStudioError as error:
        if error.status == 400:  # one task that is gone makes Label Studio refuse them all
            raise StaleOrderError(str(error), 400) from error
        raise
    if created != len(predictions):  # what it finds invalid it leaves out in silence
        raise StaleOrderError(f"project {project}: Label Studio took {created} of {len(predictions)} predictions")
    return created
