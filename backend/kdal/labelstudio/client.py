"""The Label Studio API, as far as kdal needs it, over label-studio-sdk.

The SDK brings what is hard: both kinds of tokens (a legacy token, or a personal access token that is
exchanged for a bearer token each five minutes), connection reuse, retries of reads. Its typed methods are
passed by: they parse a thousand tasks field by field, and leave out the routes that order the queue.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from kdal.aliases import Json
from kdal_core.errors import KdalError

PAGE = 500
"""Tasks asked for at once. On SQLite, Label Studio answers 500 to a page of 1000: its expression is too deep."""
FILES, FILE_BYTES = 100, 64 * 1024**2
"""Files, and bytes of files, handed over at once: Label Studio refuses more files, and four times as many bytes."""


class LabelStudioError(KdalError):
    """Label Studio is down, refuses us, or answers what we cannot use."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same call may work later: no answer at all, too busy, or a fault of the server's."""
        return self.status is None or self.status in (408, 409, 429) or self.status >= 500


class LabelStudioClient:
    """Label Studio, seen by kdal.

    Args:
        url: base URL, for example ``http://127.0.0.1:8080``.
        api_key: legacy token or personal access token.
        timeout: seconds that one request may take.
    """

    def __init__(self, url: str, api_key: str, timeout: float = 120.0) -> None:
        self.url = url
        self._timeout = timeout
        if not api_key:
            raise LabelStudioError(
                "LABEL_STUDIO_API_KEY is not set: copy a token from Label Studio, Account & Settings", 401
            )
        try:
            self._sdk = LabelStudio(base_url=url, api_key=api_key, timeout=timeout)  # type: ignore[no-untyped-call]
        except (ApiError, ValueError, OverflowError, TypeError) as error:
            # The SDK looks into a personal access token. Not chained: nobody should see what it holds.
            reason = _detail_of(error.body) if isinstance(error, ApiError) else "it is damaged"
            raise LabelStudioError(
                f"LABEL_STUDIO_API_KEY is of no use: {reason}. Make a new token in Label Studio, Account & Settings",
                401,
            ) from None

    # ------------------------------------------------------------------ projects

    def project(self, project: int) -> Json:
        """One project with its counters."""
        return self._get(f"api/projects/{project}")

    def update_project(self, project: int, **fields: Any) -> Json:
        """PATCH a project."""
        result: Json = self._request("PATCH", f"api/projects/{project}", body=fields)
        return result

    def create_project(self, title: str, label_config: str, **fields: Any) -> Json:
        """A new project."""
        result: Json = self._request(
            "POST", "api/projects", body={"title": title, "label_config": label_config, **fields}
        )
        return result

    # ------------------------------------------------------------------ tasks

    def tasks(self, project: int, *, labelled: bool | None = None, full: bool = False) -> Iterator[Json]:
        """The tasks of a project by ascending id, page by page.

        Pages follow the last id seen rather than a page number: what is labelled or deleted meanwhile
        moves no task across a page's border.

        Args:
            project: its id.
            labelled: only tasks with (True) or without (False) a finished, non-cancelled annotation.
            full: with annotations, rather than the task's own fields alone.
        """
        filters = [] if labelled is None else [_count("total_annotations", "greater" if labelled else "equal", 0)]
        return self._walk(project, filters, full)

    def labelled_ids(self, project: int) -> set[int]:
        """Tasks that have a finished, non-cancelled annotation."""
        return {task["id"] for task in self.tasks(project, labelled=True)}

    def skipped_ids(self, project: int) -> set[int]:
        """Tasks that somebody skipped (a cancelled annotation), labelled later or not."""
        skipped = [_count("cancelled_annotations", "greater", 0)]
        return {task["id"] for task in self._walk(project, skipped, False)}

    def open_count(self, project: int) -> int:
        """How many tasks nobody has labelled or skipped."""
        filters = [_count("total_annotations", "equal", 0), _count("cancelled_annotations", "equal", 0)]
        return int(self._field(self._task_page(project, filters, 1, False), "total", int))

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
        answer = self._request("POST", path, params=params, files=fields, retries=0)
        numbers = self._field(answer, "file_upload_ids", list)
        uploads = self._list(f"api/projects/{project}/file-uploads", ids=json.dumps(numbers))
        names = {upload.get("id"): upload.get("file") for upload in uploads}
        if len(numbers) != len(files) or not all(isinstance(names.get(number), str) for number in numbers):
            raise self._unexpected("an upload")
        return [f"/data/{names[number]}" for number in numbers]

    def import_tasks(self, project: int, tasks: Sequence[Json]) -> int:
        """Make tasks, with annotations or predictions where they bring some; returns how many.

        Not retried: a request whose answer got lost may have imported, and a second would import twice.
        """
        answer = self._request("POST", f"api/projects/{project}/import", body=list(tasks), retries=0)
        return int(self._field(answer, "task_count", int))

    # ------------------------------------------------------------------ predictions, the queue

    def import_predictions(self, project: int, predictions: Sequence[Json]) -> int:
        """Insert predictions; returns how many were created.

        Not retried: a request whose answer got lost may have inserted, and a second would insert twice.
        """
        answer = self._request("POST", f"api/projects/{project}/import/predictions", body=list(predictions), retries=0)
        return int(self._field(answer, "created", int))

    def prediction_counts(self, project: int) -> dict[str, int]:
        """Number of predictions by model version."""
        answer = self._get(f"api/projects/{project}/model-versions/")
        return {str(version): int(count) for version, count in answer.items() if isinstance(count, int)}

    def delete_predictions(self, project: int, version: str) -> None:
        """Remove all predictions of a model version."""
        self._request("DELETE", f"api/projects/{project}/model-versions/", body={"model_version": version})

    # ------------------------------------------------------------------ webhooks, backends

    def webhooks(self, project: int) -> list[Json]:
        """The project's webhooks."""
        answer = self._list("api/webhooks/", project=project)
        return [hook for hook in answer if hook.get("project") == project]

    def create_webhook(self, **fields: Any) -> Json:
        """Register a webhook."""
        result: Json = self._request("POST", "api/webhooks/", body=fields)
        return result

    def update_webhook(self, webhook: int, **fields: Any) -> None:
        """Change a webhook."""
        self._request("PATCH", f"api/webhooks/{webhook}/", body=fields)

    def delete_webhook(self, webhook: int) -> None:
        """Remove a webhook."""
        self._request("DELETE", f"api/webhooks/{webhook}/")

    def backends(self, project: int) -> list[Json]:
        """The ML backends connected to a project."""
        return self._list("api/ml", project=project)

    def create_backend(self, **fields: Any) -> Json:
        """Connect an ML backend: Label Studio calls its /health and /setup before it answers."""
        result: Json = self._request("POST", "api/ml", body=fields)
        return result

    def update_backend(self, backend: int, **fields: Any) -> None:
        """Change an ML backend (Label Studio wants url and project among the fields)."""
        self._request("PATCH", f"api/ml/{backend}", body=fields)

    # ------------------------------------------------------------------ files

    def authorization(self) -> dict[str, str]:
        """Headers that let us read files from Label Studio itself.

        Raises:
            LabelStudioError: a personal access token cannot be exchanged for a bearer token.
        """
        with self._faults():
            return {"Authorization": self._sdk._client_wrapper.get_headers()["Authorization"]}

    # ------------------------------------------------------------------ the one way out

    def _get(self, path: str, **params: Any) -> Json:
        answer = self._request("GET", path, params=params)
        if not isinstance(answer, dict):
            raise self._unexpected(path)
        return answer

    def _list(self, path: str, **params: Any) -> list[Json]:
        answer = self._request("GET", path, params=params)
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise self._unexpected(path)
        return answer

    def _field(self, answer: Any, name: str, kind: type) -> Any:
        value = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(value, kind):
            raise self._unexpected(f'"{name}"')
        return value

    def _unexpected(self, what: str) -> LabelStudioError:
        return LabelStudioError(f"{self.url} answers {what} as no Label Studio does: is LABEL_STUDIO_URL right?", 502)

    def _request(
        self,
        method: Literal["GET", "POST", "PATCH", "DELETE"],
        path: str,
        *,
        params: Json | None = None,
        body: Any = None,
        files: Json | None = None,
        retries: int = 2,
    ) -> Any:
        with self._faults():
            response = self._sdk._client_wrapper.httpx_client.request(
                path,
                method=method,
                params=params,
                json=body,
                files=files,
                headers={"content-type": "application/json"} if body is not None else None,
                request_options={"max_retries": retries},
            )
        if response.status_code == 401:
            raise LabelStudioError(
                f"Label Studio at {self.url} refuses LABEL_STUDIO_API_KEY: it is wrong, or a legacy token while "
                "legacy tokens are switched off (Organization > API Tokens Settings)",
                401,
            )
        if response.is_error:
            raise LabelStudioError(
                f"{method} /{path}: {response.status_code} {_detail(response)}", response.status_code
            )
        try:
            return response.json() if response.content else {}
        except ValueError as error:
            raise self._unexpected(f"/{path}") from error

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What the SDK and its HTTP client raise, in our words."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LabelStudioError(
                f"Label Studio at {self.url} does not answer: {str(error) or type(error).__name__}"
            ) from error
        except ApiError as error:  # the SDK's own, when it cannot exchange a personal access token
            if error.status_code is not None and error.status_code >= 500:
                raise LabelStudioError(
                    f"Label Studio at {self.url} answers {error.status_code} when asked for a bearer token",
                    error.status_code,
                ) from error
            raise LabelStudioError(
                f"Label Studio at {self.url} refuses LABEL_STUDIO_API_KEY ({error.status_code}): "
                "make a new token in Account & Settings",
                error.status_code,
            ) from error
        except ValueError as error:  # the SDK again: what should be a bearer token is not even JSON
            raise self._unexpected("a request for a bearer token") from error


def _count(field: str, operator: str, value: int) -> Json:
    return {"filter": f"filter:tasks:{field}", "operator": operator, "type": "Number", "value": value}


def _detail(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return response.reason_phrase
    return _detail_of(answer)


def _detail_of(answer: Any) -> str:
    reasons = answer.get("validation_errors") or answer.get("detail") or answer if isinstance(answer, dict) else answer
    return (reasons if isinstance(reasons, str) else json.dumps(reasons))[:2000]
