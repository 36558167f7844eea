"""The Label Studio API, as far as kdal needs it.

label-studio-sdk is passed by: importing it takes seconds, its typed methods parse a thousand tasks field by field, and
it leaves out the routes that order the queue.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from kdal.aliases import Json
from kdal.labelstudio.addresses import Addresses
from kdal.labelstudio.errors import LabelStudioError
from kdal.labelstudio.transport import Transport

if TYPE_CHECKING:
    from kdal.settings import Settings

__all__ = ["FILES", "FILE_BYTES", "PAGE", "LabelStudioClient", "LabelStudioError"]

PAGE = 500
"""Tasks asked for at once. On SQLite, Label Studio answers 500 to a page of 1000: its expression is too deep."""
PROJECTS = 100
"""Projects asked for at once: Label Studio answers with no more."""
FILES, FILE_BYTES = 100, 64 * 1024**2
"""Files, and bytes of files, handed over at once: Label Studio refuses more files, and four times as many bytes."""


class LabelStudioClient:
    """Label Studio, seen by kdal. Several threads may use one.

    Args:
        url: base URL, for example ``http://127.0.0.1:8080``.
        api_key: legacy token or personal access token.
        timeout: seconds that Label Studio may be silent during one request.
        public_url: where people reach Label Studio, if that differs from `url`.

    Raises:
        LabelStudioError: the token is missing, damaged or has expired. Each method raises it, too: see there.
    """

    def __init__(self, url: str, api_key: str, timeout: float = 120.0, public_url: str = "") -> None:
        self.url, self._public_url = url, public_url
        self._transport = Transport(url, api_key, timeout)
        self.auth = self._transport.auth
        """Signs requests of other sessions to the same Label Studio."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The Label Studio that the settings name."""
        return cls(
            settings.label_studio_url, settings.label_studio_api_key, public_url=settings.label_studio_public_url
        )

    def version(self) -> str:
        """The version of Label Studio, for example ``1.23.2``."""
        return str(self._field(self._get("api/version"), "release", str))

    def user(self) -> Json:
        """Whose token it is: "email", "username" and more."""
        return self._get("api/current-user/whoami")

    # ------------------------------------------------------------------ projects

    def project(self, project: int) -> Json:
        """One project with its counters."""
        try:
            return self._get(f"api/projects/{project}")
        except LabelStudioError as error:
            if error.status != 404:
                raise
            raise LabelStudioError(
                f"Label Studio at {self.url} has no project {project}, or LABEL_STUDIO_API_KEY may not see it: {error}",
                404,
            ) from error

    def project_fields(self, project: int, *names: str) -> Json:
        """Some of a project's own fields, without its counters: 16 ms of Label Studio's CPU at 15,000 tasks, not 77.

        Only its list of projects can leave them out. A Label Studio that does not know how is asked for the whole.
        """
        asked = {"ids": project, "include": ",".join(("id", *names))}
        for row in self._field(self._get("api/projects/", **asked), "results", list):
            if isinstance(row, dict) and row.get("id") == project and all(name in row for name in names):
                return row
        return self.project(project)

    def creation_dates(self, projects: Sequence[int]) -> dict[int, str]:
        """Number -> ``created_at`` of those of these projects that are there and that our token may see."""
        found: dict[int, str] = {}
        for start in range(0, len(projects), PROJECTS):
            ids = ",".join(map(str, projects[start : start + PROJECTS]))
            answer = self._get("api/projects/", ids=ids, include="id,created_at", page_size=PROJECTS)
            for row in self._field(answer, "results", list):
                found[int(self._field(row, "id", int))] = str(self._field(row, "created_at", str))
        return found

    def update_project(self, project: int, **fields: Any) -> Json:
        """PATCH a project."""
        result: Json = self._transport.request("PATCH", f"api/projects/{project}", body=fields)
        return result

    def create_project(self, title: str, label_config: str, **fields: Any) -> Json:
        """A new project."""
        result: Json = self._transport.request(
            "POST", "api/projects", body={"title": title, "label_config": label_config, **fields}
        )
        return result

    # ------------------------------------------------------------------ tasks

    def tasks(
        self, project: int, *, labelled: bool | None = None, changed_after: datetime | None = None, full: bool = False
    ) -> Iterator[Json]:
        """The tasks of a project by ascending id, page by page.

        Pages follow the last id seen rather than a page number: what is labelled or deleted meanwhile
        moves no task across a page's border.

        Args:
            project: its id.
            labelled: only tasks with (True) or without (False) a finished, non-cancelled annotation.
            changed_after: only tasks that changed after this moment, see `labelled_after`.
            full: with annotations, rather than the task's own fields alone.

        Raises:
            ValueError: the moment has no time zone.
        """
        wanted = {None: [], True: [LABELLED], False: [_count("total_annotations", "equal", 0)]}[labelled]
        if changed_after is not None:
            wanted = [*wanted, _changed_after(changed_after)]
        return self._walk(project, wanted, full)

    def labelled_ids(self, project: int) -> set[int]:
        """Tasks that have a finished, non-cancelled annotation."""
        return {task["id"] for task in self.tasks(project, labelled=True)}

    def skipped_ids(self, project: int) -> set[int]:
        """Tasks that somebody skipped (a cancelled annotation), labelled later or not."""
        return {task["id"] for task in self._walk(project, [SKIPPED], False)}

    def open_count(self, project: int) -> int:
        """How many tasks nobody has labelled or skipped."""
        return self._total(
            project, _count("total_annotations", "equal", 0), _count("cancelled_annotations", "equal", 0)
        )

    def labelled_count(self, project: int) -> int:
        """How many tasks have a finished, non-cancelled annotation: 30 ms of Label Studio's CPU at 5,000 of them."""
        return self._total(project, LABELLED)

    def skipped_count(self, project: int) -> int:
        """How many tasks somebody skipped (a cancelled annotation), labelled later or not."""
        return self._total(project, SKIPPED)

    def labelled_after(self, project: int, when: datetime) -> set[int]:
        """Labelled tasks that changed after a moment: all that were labelled since, and those whose label was edited.

        Measured on Label Studio 1.23.2: a task's ``updated_at`` moves when an annotation is made, imported, edited,
        cancelled or restored, or when one of several is deleted. kdal's own predictions and drafts leave it alone.
        (``completed_at``, the created_at of the newest annotation, is no substitute: edits leave it alone, and it is
        empty for all tasks that have fewer annotations than the project's overlap asks for.) A task whose only
        annotation was deleted or cancelled is no longer labelled, and is not among them: `labelled_count` tells.

        Args:
            when: by Label Studio's clock, exclusive, to the microsecond. A margin of minutes does no harm, and is
                needed where the moment comes from another clock, or imports take long to be committed.

        Raises:
            ValueError: the moment has no time zone.
        """
        return {task["id"] for task in self.tasks(project, labelled=True, changed_after=when)}

    def _total(self, project: int, *filters: Json) -> int:
        return int(self._field(self._task_page(project, list(filters), 1, False), "total", int))

    def _walk(self, project: int, filters: list[Json], full: bool) -> Iterator[Json]:
        last = 0
        while True:
            answer = self._task_page(project, [*filters, _count("id", "greater", last)], PAGE, full)
            page = self._field(answer, "tasks", list)
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1]["id"]

    def _task_page(self, project: int, filters: list[Json], size: int, full: bool) -> Json:
        query = {"filters": {"conjunction": "and", "items": filters}, "ordering": ["tasks:id"]}
        return self._get(
            "api/tasks",
            project=project,
            page_size=size,
            page=1,
            fields="all" if full else "task_only",
            resolve_uri="false",
            query=json.dumps(query),
        )

    # ------------------------------------------------------------------ new tasks

    def upload_files(self, project: int, files: Sequence[tuple[str, bytes]]) -> list[str]:
        """Hand files over to Label Studio without making tasks of them; returns their addresses in task data.

        Args:
            project: its id.
            files: name and content of each, `FILES` and `FILE_BYTES` at most (or a single larger one).
        """
        # Each file in a field of its own: of several under one name Label Studio keeps the last.
        fields = {f"file{i}": file for i, file in enumerate(files)}
        path, params = f"api/projects/{project}/import", {"commit_to_project": "false"}
        answer = self._transport.request("POST", path, params=params, files=fields)
        numbers = self._field(answer, "file_upload_ids", list)
        uploads = self._list(f"api/projects/{project}/file-uploads", ids=json.dumps(numbers))
        names = {upload.get("id"): upload.get("file") for upload in uploads}
        if len(numbers) != len(files) or not all(isinstance(names.get(number), str) for number in numbers):
            raise self._transport.unexpected("an upload")
        addresses = Addresses(self.url, self._public_url)
        return [addresses.stored(f"/data/{names[number]}") for number in numbers]

    def import_tasks(self, project: int, tasks: Sequence[Json]) -> int:
        """Make tasks, with annotations or predictions where they bring some; returns how many.

        Not retried: a request whose answer got lost may have imported, and a second would import twice.
        """
        answer = self._transport.request("POST", f"api/projects/{project}/import", body=list(tasks))
        return int(self._field(answer, "task_count", int))

    # ------------------------------------------------------------------ predictions, the queue

    def import_predictions(self, project: int, predictions: Sequence[Json]) -> int:
        """Insert predictions; returns how many were created.

        Not retried: a request whose answer got lost may have inserted, and a second would insert twice.
        """
        answer = self._transport.request("POST", f"api/projects/{project}/import/predictions", body=list(predictions))
        return int(self._field(answer, "created", int))

    def prediction_counts(self, project: int) -> dict[str, int]:
        """Number of predictions by model version."""
        answer = self._get(f"api/projects/{project}/model-versions/")
        return {str(version): int(count) for version, count in answer.items() if isinstance(count, int)}

    def delete_predictions(self, project: int, version: str) -> None:
        """Remove all predictions of a model version."""
        self._transport.request("DELETE", f"api/projects/{project}/model-versions/", body={"model_version": version})

    # ------------------------------------------------------------------ annotations

    def annotate_from_predictions(self, project: int, tasks: Sequence[int], version: str) -> None:
        """Make annotations of these tasks' predictions of a model version; a prediction that has become one stays it.

        It is Label Studio's action "Create annotations from predictions". Of what it makes, "updated_by" is empty.
        """
        body = {"selectedItems": {"all": False, "included": list(tasks)}, "model_version": version}
        params = {"id": "predictions_to_annotations", "project": project}
        self._transport.request("POST", "api/dm/actions", params=params, body=body)

    def annotation(self, annotation: int) -> Json | None:
        """One annotation, or None when it is gone."""
        try:
            return self._get(f"api/annotations/{annotation}/")
        except LabelStudioError as error:
            if error.status != 404:
                raise
            return None

    def delete_annotation(self, annotation: int) -> None:
        """Remove an annotation, unless it is gone already."""
        with _gone_is_gone():
            self._transport.request("DELETE", f"api/annotations/{annotation}/")

    # ------------------------------------------------------------------ storages

    def s3_storages(self, project: int) -> list[Json]:
        """The project's source storages on S3, each with ``bucket`` and ``s3_endpoint``; those that we may see."""
        try:
            return self._list("api/storages/s3", project=project)
        except LabelStudioError as error:
            if error.status in (403, 404):
                return []
            raise

    # ------------------------------------------------------------------ webhooks, backends

    def webhooks(self, project: int) -> list[Json]:
        """The project's webhooks."""
        answer = self._list("api/webhooks/", project=project)
        return [hook for hook in answer if hook.get("project") == project]

    def create_webhook(self, **fields: Any) -> Json:
        """Register a webhook."""
        result: Json = self._transport.request("POST", "api/webhooks/", body=fields)
        return result

    def update_webhook(self, webhook: int, **fields: Any) -> None:
        """Change a webhook."""
        self._transport.request("PATCH", f"api/webhooks/{webhook}/", body=fields)

    def delete_webhook(self, webhook: int) -> None:
        """Remove a webhook, unless it is gone already."""
        with _gone_is_gone():
            self._transport.request("DELETE", f"api/webhooks/{webhook}/")

    def backends(self, project: int) -> list[Json]:
        """The ML backends connected to a project."""
        return self._list("api/ml", project=project)

    def create_backend(self, **fields: Any) -> Json:
        """Connect an ML backend: Label Studio calls its /health and /setup before it answers."""
        result: Json = self._transport.request("POST", "api/ml", body=fields)
        return result

    def update_backend(self, backend: int, **fields: Any) -> None:
        """Change an ML backend (Label Studio wants url and project among the fields)."""
        self._transport.request("PATCH", f"api/ml/{backend}", body=fields)

    def delete_backend(self, backend: int) -> None:
        """Disconnect an ML backend, unless it is gone already. A webhook that came with it stays behind."""
        with _gone_is_gone():
            self._transport.request("DELETE", f"api/ml/{backend}")

    # ------------------------------------------------------------------ people

    def people(self) -> dict[int, str]:
        """The members of the organisation: their numbers, and how to call them."""
        names = {}
        for user in self._list("api/users/"):
            full = f"{user.get('first_name') or ''} {user.get('last_name') or ''}".strip()
            names[int(user["id"])] = full or str(user.get("username") or user.get("email") or user["id"])
        return names

    # ------------------------------------------------------------------ files

    def authorization(self) -> dict[str, str]:
        """Headers that let us read files from Label Studio itself.

        Raises:
            LabelStudioError: a personal access token cannot be exchanged for a bearer token.
        """
        return {"Authorization": self.auth.header()}

    # ------------------------------------------------------------------ answers

    def _get(self, path: str, **params: Any) -> Json:
        answer = self._transport.request("GET", path, params=params)
        if not isinstance(answer, dict):
            raise self._transport.unexpected(path)
        return answer

    def _list(self, path: str, **params: Any) -> list[Json]:
        answer = self._transport.request("GET", path, params=params)
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise self._transport.unexpected(path)
        return answer

    def _field(self, answer: Any, name: str, kind: type) -> Any:
        value = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(value, kind):
            raise self._transport.unexpected(f'"{name}"')
        return value


@contextmanager
def _gone_is_gone() -> Iterator[None]:
    """For deletions: what is not there any more need not be deleted."""
    try:
        yield
    except LabelStudioError as error:
        if error.status != 404:
            raise


def _filter(field: str, operator: str, kind: str, value: Any) -> Json:
    return {"filter": f"filter:tasks:{field}", "operator": operator, "type": kind, "value": value}


def _changed_after(when: datetime) -> Json:
    if when.tzinfo is None:
        raise ValueError("the moment needs a time zone")
    # Anything but this very form, in UTC, is answered with 500.
    moment = when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return _filter("updated_at", "greater", "Datetime", moment)


def _count(field: str, operator: str, value: int) -> Json:
    return _filter(field, operator, "Number", value)


LABELLED = _count("total_annotations", "greater", 0)
SKIPPED = _count("cancelled_annotations", "greater", 0)
