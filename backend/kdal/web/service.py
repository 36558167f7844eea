"""What the plugin does for Label Studio, free of any web framework: both front doors call this.

Everything here answers at once. Whatever takes time, or asks Label Studio something back, goes through the
inbox to the worker: Label Studio calls us in the middle of its own requests.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any

from kdal.aliases import Json
from kdal.images.refs import ImageRef
from kdal.labelstudio.connection import PROJECT_HEADER, SECRET_HEADER
from kdal.labelstudio.formats import format_for
from kdal.labelstudio.task_data import image_address, why_no_address
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds.suggestions import Confidence, Suggestions
from kdal.storage.tables import SETUP, START_TRAINING, Project, Round
from kdal.web.predictor import ServingModel, ServingModels
from kdal_core.errors import ConfigError, KdalError

UNRANKED = 1.0
"""Score of a task that is not in the order: after all that are."""
NO_VERSION = "kdal"
"""Model version before the first order is published."""


class BadRequestError(KdalError):
    """A request that cannot be understood."""


class UnknownProjectError(KdalError):
    """A project that is not connected to kdal."""


class ForbiddenError(KdalError):
    """A wrong or missing secret."""


class Service:
    """The plugin's answers to Label Studio.

    Args:
        resources: what it works with.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._models = ServingModels(resources)

    def setup(self, payload: Any) -> Json:
        """Take note of a project, its labelling config and its policy; Label Studio calls this often.

        Args:
            payload: ``{"project": "<id>.<created>", "schema": <labelling config>, "extra_params": <policy>}``.

        Returns:
            ``{"model_version": <the version of the order in force>}``, or "kdal" before there is one.

        Raises:
            ConfigError: a labelling config or a policy that kdal cannot serve; names the tag or the key.
            BadRequestError: the payload is something else.
        """
        body = _object(payload)
        number, uid = _project_uid(body.get("project"))
        schema = body.get("schema")
        if not isinstance(schema, str):
            raise BadRequestError('"schema" must be the labelling config as a text')
        try:
            policy = Policy.parse(body.get("extra_params"))
            task = format_for(schema, policy).task()
            self._resources.teachers.check(policy, task)
            policy.check(task)
        except ConfigError as error:
            if (known := self._resources.storage.project(number)) is not None and known.uid == uid:
                self._resources.storage.update_project(number, refusal=str(error))
            raise
        storage = self._resources.storage
        storage.put_project(number, uid, schema, policy.model_dump(mode="json", exclude_unset=True), event=SETUP)
        row = storage.project(number)
        return {"model_version": (row.version if row is not None and row.uid == uid else None) or NO_VERSION}

    def predict(self, payload: Any) -> Json:
        """Pre-annotate tasks with the serving model.

        Args:
            payload: ``{"project": "<id>.<created>", "tasks": [...]}``.

        Returns:
            ``{"results": [...]}``, one result per task in their order; where a task's image cannot be read,
            its result is empty and says why under "error".
        """
        body = _object(payload)
        number, uid = _project_uid(body.get("project"))
        tasks = body.get("tasks")
        if not isinstance(tasks, list):
            raise BadRequestError('"tasks" must be a list')
        project, published = self._resources.storage.serving(number)
        claimed = project is not None and project.claim is not None and project.claim["uid"] == uid
        if project is not None and project.uid != uid and claimed:
            why = f"kdal has known another project {number} and asks Label Studio which is right: try again in a minute"
            empty = {"result": [], "score": UNRANKED, "model_version": NO_VERSION, "error": why}
            return {"results": [empty] * len(tasks)}
        if project is None or project.uid != uid or project.disconnected_at is not None:
            raise UnknownProjectError(_not_connected(number, uid))
        version = project.version or NO_VERSION
        scores = self._models.scores(project, published.number) if published is not None else {}
        regions, errors = self._regions(project, published, tasks)
        return {
            "results": [
                {
                    "result": regions.get(position, []),
                    "score": scores.get(_task_id(task), UNRANKED),
                    "model_version": version,
                    **({"error": errors[position]} if position in errors else {}),
                }
                for position, task in enumerate(tasks)
            ]
        }

    def _regions(
        self, project: Project, published: Round | None, tasks: list[Any]
    ) -> tuple[dict[int, list[Json]], dict[int, str]]:
        """What the serving model is sure of, by position in ``tasks``, and why it sees nothing at other positions."""
        model = self._models.model(project)
        if model is None:
            return {}, {}
        key = model.format.image_key
        refs: dict[int, ImageRef] = {}
        errors: dict[int, str] = {}
        for position, task in enumerate(tasks):
            address = image_address(task, key)
            if address is None:
                errors[position] = why_no_address(task, key)
            else:
                refs[position] = ImageRef(_task_id(task), address)
        if not refs:
            return {}, errors
        positions = list(refs)
        suggestions = self._suggestions(project, published, model)
        found, unread = self._models.predict(model, list(refs.values()), suggestions)
        errors |= {positions[i]: why for i, why in unread.items()}
        return {positions[i]: result for i, result in found.items()}, errors

    def _suggestions(self, project: Project, published: Round | None, model: ServingModel) -> Suggestions:
        """How the serving model's predictions are shown, by the policy as it is now."""
        # The round whose order is in force has judged the model last, and on more labels than its own round.
        facts = {} if published is None else published.facts
        known = Confidence.of_model(project.serving_round, facts)
        if known is None and project.serving_round is not None:
            earlier = [row.facts for row in self._resources.storage.rounds(project.id)]
            known = Confidence.of_model(project.serving_round, *reversed(earlier))
        return Suggestions.by_policy(model.format, Policy.stored(project.policy), known)

    def versions(self, project: str | None = None) -> Json:
        """``{"versions": [...]}``: the orders published for a project (or for all), newest first."""
        uid = None if project is None else _project_uid(project)[1]
        storage = self._resources.storage
        named = [p for p in storage.projects() if p.disconnected_at is None and uid in (None, p.uid)]
        rows = [row for p in named for row in storage.rounds(p.id)]
        return {"versions": [row.version for row in reversed(rows) if row.version is not None]}

    def webhook(self, payload: Any, headers: Mapping[str, str], *, trusted: bool = False) -> Json:
        """Put an event into the inbox; it is on disk when this returns.

        Args:
            payload: ``{"action": ..., "project": {"id": ...}}``; the project may be named by a header instead.
            headers: of the request, with the secret.
            trusted: the caller has checked who calls (basic authentication, or a front door of its own).

        Raises:
            ForbiddenError: the secret is wrong or missing. Label Studio's "Start training" button cannot send
                it and is accepted without; a wrong one is refused there, too.
            UnknownProjectError: the project is not connected.
            BadRequestError: no action, or no project.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        secret = lower.get(SECRET_HEADER.lower())
        body = _object(payload)
        action = body.get("action")
        if not isinstance(action, str) or not re.fullmatch(r"[A-Z_]{1,64}", action):
            raise BadRequestError('"action" must be the name of an event')
        if secret is not None and not hmac.compare_digest(secret.encode(), self._resources.settings.secret.encode()):
            raise ForbiddenError(f"wrong {SECRET_HEADER}: connect the project again with `kdal connect`")
        if secret is None and not trusted and action != START_TRAINING:
            raise ForbiddenError(f"no {SECRET_HEADER}: connect the project with `kdal connect`")
        number = _event_project(body, lower.get(PROJECT_HEADER.lower()))
        self.uid(number)
        if action == "PROJECT_UPDATED":  # our own change of the order sends it
            return {"status": "ignored"}
        self._resources.storage.add_event(number, action)
        return {"status": "accepted"}

    def uid(self, number: int) -> str:
        """The uid under which a project is connected, for whoever is told its number alone.

        Raises:
            UnknownProjectError: it is not connected.
        """
        project = self._resources.storage.project(number)
        if project is None or project.disconnected_at is not None:
            raise UnknownProjectError(_not_connected(number))
        return project.uid


def _not_connected(number: int, uid: str | None = None) -> str:
    return f"project {uid or number} is not connected to kdal: run `kdal connect --project {number}`"


def _object(payload: Any) -> Json:
    if not isinstance(payload, dict):
        raise BadRequestError(f"expected a JSON object, got {type(payload).__name__}")
    return payload


def _project_uid(value: Any) -> tuple[int, str]:
    """("3.1795301030") -> (3, "3.1795301030")."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,12}", value):
        raise BadRequestError('"project" must be "<id>.<created>", as Label Studio sends it')
    return int(value.partition(".")[0]), value


def _event_project(body: Json, header: str | None) -> int:
    value = body.get("project")
    number = value.get("id") if isinstance(value, dict) else value
    if number is None and header is not None and header.isdecimal() and len(header) < 10:
        number = int(header)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 10**9:
        raise BadRequestError('the event names no project: {"project": {"id": ...}}')
    return number


def _task_id(task: Any) -> int:
    number = task.get("id") if isinstance(task, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else -1
