"""The order of the tasks, written to Label Studio.

Label Studio serves tasks by ascending score of the predictions of its project's model version. So an order is
pushed as predictions (the pre-annotations) whose score is the rank, under a name that nothing else bears, and
comes into force at once with one PATCH. See "Queue order" in the measurements of Label Studio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from kdal.aliases import Json
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from kdal.storage.database import Storage
from kdal.storage.tables import Project

CHUNK = 5000
"""Predictions a request: Label Studio recounts all tasks at each one, so few are faster than many."""
PREFIX = "kdal-"
VERSION = re.compile(re.escape(PREFIX) + r"r(\d+)(?:\.\d+)?")
SAMPLING = "Uncertainty sampling"
log = structlog.get_logger()


class StaleOrderError(LabelStudioError):
    """Label Studio did not take all predictions of an order: tasks are gone, or regions fit its config no longer."""


class OrderInForce:
    """Which version orders the queue of a project. The one place that decides it, and tells Label Studio.

    It is written down before Label Studio is told: whoever looks at the project in between, or after a crash, puts
    the new version right and not the one before. And whoever has told Label Studio looks afterwards whether it is
    still the one: of two that tell it at once, the slower would otherwise leave an old version in force. A version
    whose predictions somebody has deleted in Label Studio is in force no longer: there is none until the next.

    Args:
        storage: where it is written down.
        client: of the Label Studio that serves the queue.
    """

    def __init__(self, storage: Storage, client: LabelStudioClient) -> None:
        self._storage, self._client = storage, client

    def put(self, project: int, version: str) -> None:
        """Serve the queue in the order of a version from now on."""
        self._storage.update_project(project, version=version)
        self._switch(project)

    def ensure(self, project: Project, row: Json, titles: Collection[str], *, insist: bool) -> None:
        """Put right what Label Studio serves the queue by.

        Args:
            project: whose order it is.
            row: the project as Label Studio has it.
            titles: of the project's ML backends, after which Label Studio names the model version by itself.
            insist: also when somebody chose something else on purpose; otherwise only what Label Studio did by
                itself, or a version of ours that is not in force, is undone.
        """
        version = self._version(project.id)
        if version is None:
            return
        served = row["model_version"] or ""
        if served == version:
            if insist and row["sampling"] != SAMPLING:
                self._switch(project.id)
        elif insist or served in {*titles, ""} or VERSION.fullmatch(served):
            self._switch(project.id)

    def confirm(self, project: Project) -> Json:
        """Make sure that Label Studio serves the queue by the version in force, whatever has happened since `put`.

        Returns:
            The project as Label Studio had it before.
        """
        row = self._client.project(project.id)
        self.ensure(project, row, (), insist=True)
        return row

    def remove_others(self, project: Project, kept: Collection[str]) -> list[str]:
        """Delete every other version of ours; returns their names.

        Args:
            project: whose version in force stays.
            kept: versions that stay, too: what a later round may be pushing just now.
        """
        names = self._client.prediction_counts(project.id)
        stays = {self._version(project.id), *kept}
        others = [name for name in names if VERSION.fullmatch(name) and name not in stays]
        for name in others:
            self._client.delete_predictions(project.id, name)
        return others

    def give_back(self, project: int, row: Json, before: Json, titles: Collection[str]) -> Json:
        """Put back what the queue was served by before kdal; what somebody has chosen since stays chosen.

        Args:
            project: its number.
            row: the project as Label Studio has it.
            before: its "sampling" and "model_version" before kdal.
            titles: as in `ensure`.

        Returns:
            What was put back.
        """
        fields = {}
        if row["sampling"] == SAMPLING:
            fields["sampling"] = before["sampling"]
        if VERSION.fullmatch(row["model_version"] or "") or row["model_version"] in titles:
            fields["model_version"] = before["model_version"]
        if not fields:
            return fields
        try:
            self._client.update_project(project, **fields)
        except LabelStudioError as error:
            if error.status != 400 or not fields.get("model_version"):
                raise
            fields["model_version"] = ""  # its predictions were deleted meanwhile: Label Studio takes no such name
            self._client.update_project(project, **fields)
        return fields

    def _version(self, project: int) -> str | None:
        """The version in force as it is now: since a step or a look began, it may have become another one."""
        row = self._storage.project(project)
        return None if row is None or row.disconnected_at is not None else row.version

    def _switch(self, project: int) -> None:
        told = None
        while (version := self._version(project)) not in (None, told):
            try:
                self._client.update_project(project, model_version=version, sampling=SAMPLING)
            except LabelStudioError as error:
                if error.status != 400 or version in self._client.prediction_counts(project):
                    raise
                # Somebody has deleted its predictions, and Label Studio takes no name under which it holds nothing.
                log.warning("the order in force was deleted in Label Studio", project=project, version=version)
                self._storage.forget_version(project, version)
            told = version
        row = self._storage.project(project)
        if told is not None and row is not None and row.disconnected_at is not None and row.before is not None:
            # kdal was taken out of the project while this was on its way.
            self.give_back(project, self._client.project(project), row.before, ())


def version_name(number: int, attempt: int) -> str:
    """Model version of a round's order; a push that was interrupted is repeated under another name."""
    return f"{PREFIX}r{number}" if attempt <= 1 else f"{PREFIX}r{number}.{attempt}"


def unused_version(number: int, attempt: int, held: Collection[str]) -> str:
    """The first name, from an attempt on, under which Label Studio holds nothing.

    It may hold predictions of an earlier life: the project was copied, or kdal's database was lost. Pushed under the
    same name, the two orders would be served as one.

    >>> unused_version(1, 1, held=["kdal-r1", "kdal-r1.2"])
    'kdal-r1.3'
    """
    while (name := version_name(number, attempt)) in held:
        attempt += 1
    return name


def rank_score(rank: int, total: int) -> float:
    """Score of the task at a rank (0 is first): distinct, never null, in (0, 1)."""
    return (rank + 1) / (total + 1)


def publish(
    client: LabelStudioClient,
    project: int,
    version: str,
    order: Sequence[int],
    scores: Mapping[int, float],
    results: Mapping[int, list[Json]],
    put_in_force: Callable[[], None],
    progress: Callable[[float], None] | None = None,
) -> int:
    """Push an order and put it in force; returns how many tasks were pushed.

    It comes into force after the first chunk, which holds more tasks than annotators can label before the others are
    there. From then on it stays: a later chunk that Label Studio does not take whole leaves tasks behind the order.

    Args:
        order: task ids, first to be labelled first.
        scores: task id -> score, ascending along the order.
        results: task id -> regions of its pre-annotation; a task that is missing gets an empty one.
        put_in_force: serves the queue by the version.

    Raises:
        StaleOrderError: Label Studio did not take the whole first chunk. What it took is removed again; nothing may
            be repeated under the same name.
    """
    pushed = 0
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        predictions = [
            {"task": task, "result": results.get(task, []), "score": scores[task], "model_version": version}
            for task in chunk
        ]
        try:
            pushed += _push(client, project, predictions)
        except StaleOrderError as error:
            if start > 0:
                log.warning("part of an order was not taken", project=project, version=version, reason=str(error))
                continue
            client.delete_predictions(project, version)
            raise
        if start == 0:
            put_in_force()
        if progress is not None:
            progress(min(1.0, (start + len(chunk)) / len(order)))
    return pushed


def _push(client: LabelStudioClient, project: int, predictions: list[Json]) -> int:
    try:
        created = client.import_predictions(project, predictions)
    except LabelStudioError as error:
        if error.status == 400:  # one task that is gone makes Label Studio refuse them all
            raise StaleOrderError(str(error), 400) from error
        raise
    if created != len(predictions):  # what it finds invalid it leaves out in silence
        raise StaleOrderError(
            f"Label Studio took {created} of {len(predictions)} pre-annotations: tasks are gone, or a label was "
            "renamed or removed in its labelling config"
        )
    return created
