"""What the plugin does for Label Studio, free of any web framework: both front doors call this.

Everything here answers at once. Whatever takes time, or asks Label Studio something back, goes through the
inbox to the worker: Label Studio calls us in the middle of its own requests.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from datetime import timedelta
from itertools import islice
from typing import Any

from kdal.aliases import Json
from kdal.images.refs import ImageRef
from kdal.labelstudio.connection import PROJECT_HEADER, SECRET_HEADER
from kdal.labelstudio.task_data import image_address, why_no_address
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds.set_ups import checked_policy
from kdal.rounds.store import LOST
from kdal.rounds.suggestions import Confidence, Suggestions
from kdal.storage.set_ups import TooManyError, note_set_up, set_up_waits
from kdal.storage.tables import FILES_LOST, START_TRAINING, Project, Round, now
from kdal.web.predictor import ServingModel, ServingModels
from kdal_core.errors import ConfigError, KdalError

WRONG_SECRET = f"wrong secret under {SECRET_HEADER}; connect the project again with `kdal connect`"
MOST_TASKS = 50_000
"""Tasks of one request for predictions."""
MOST_REASONS = 1000
"""Tasks of a request whose reasons, why nothing is predicted, are told: an answer shall not dwarf its request."""
UNRANKED = 1.0
"""Score of a task that is not in the order: after all that are."""
STARTS, STARTS_WITHIN = 6, timedelta(minutes=10)
"""How often "Start training" may be pressed for a project, and within which time: each may cost hours of computing."""
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
        """Check a project's labelling config and policy, and have the worker look at it; Label Studio calls this often.

        Nothing of the payload is kept: what Label Studio's API says of the project is what counts, and the worker asks
        it, once Label Studio has come to the end of what it is doing.

        Args:
            payload: ``{"project": "<id>.<created>", "schema": <labelling config>, "extra_params": <policy>}``.

        Returns:
            ``{"model_version": <the version of the order in force>}``, or "kdal" before there is one.

        Raises:
            ConfigError: a labelling config or a policy that kdal cannot serve; names the tag or the key.
            BadRequestError: the payload is something else.
            TooManyError: too many projects wait to be looked at.
        """
        body = _object(payload)
        number, uid = _project_uid(body.get("project"))
        schema = body.get("schema")
        if not isinstance(schema, str):
            raise BadRequestError('"schema" must be the labelling config as a text')
        storage = self._resources.storage
        row = storage.project(number)
        known = row is not None and row.uid == uid
        try:
            policy = checked_policy(self._resources, schema, body.get("extra_params"))
        except ConfigError:
            if known:
                note_set_up(storage, number, uid)  # to be seen in its status
            raise
        told = policy.model_dump(mode="json", exclude_unset=True)
        if row is None or not known or _has_changed(row, schema, told):
            note_set_up(storage, number, uid)
        return {"model_version": (row.version if row is not None and known else None) or NO_VERSION}

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
        if len(tasks) > MOST_TASKS:
            raise BadRequestError(f'"tasks" are {len(tasks):,}, and kdal answers {MOST_TASKS:,} at once at most')
        project, published = self._resources.storage.serving(number)
        served = project is not None and project.uid == uid and project.disconnected_at is None
        if not served and set_up_waits(self._resources.storage, number, uid):
            why = f"kdal asks Label Studio whether project {number} has it as its ML backend: try again in a minute"
            empty = {"result": [], "score": UNRANKED, "model_version": NO_VERSION, "error": why}
            return {"results": [empty] * len(tasks)}
        if project is None or not served:
            raise UnknownProjectError(_not_connected(number, uid))
        version = project.version or NO_VERSION
        try:
            scores = self._models.scores(project, published.number) if published is not None else {}
            regions, errors = self._regions(project, published, tasks)
        except LOST:
            self._tell_once(number, FILES_LOST)  # the worker makes them again
            raise
        told = set(islice(errors, MOST_REASONS))
        return {
            "results": [
                {
                    "result": regions.get(position, []),
                    "score": scores.get(_task_id(task), UNRANKED),
                    "model_version": version,
                    **({"error": errors[position]} if position in told else {}),
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
        sources = self._models.sources(project, None if published is None else published.number)
        found, unread = self._models.predict(model, list(refs.values()), suggestions, sources)
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
            ForbiddenError: the secret is wrong; or it is missing, and nobody has checked who calls.
            UnknownProjectError: the project is not connected.
            BadRequestError: no action, or no project.
            TooManyError: "Start training" was pressed too often.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        secret = lower.get(SECRET_HEADER.lower())
        body = _object(payload)
        action = body.get("action")
        if not isinstance(action, str) or not re.fullmatch(r"[A-Z_]{1,64}", action):
            raise BadRequestError('"action" must be the name of an event')
        if secret is not None and not hmac.compare_digest(secret.encode(), self._resources.settings.secret.encode()):
            raise ForbiddenError(WRONG_SECRET)
        if secret is None and not trusted:
            raise ForbiddenError(f"no {SECRET_HEADER}: connect the project with `kdal connect`")
        number = _event_project(body, lower.get(PROJECT_HEADER.lower()))
        self.uid(number)
        if action == "PROJECT_UPDATED":  # our own change of the order sends it
            return {"status": "ignored"}
        if action == START_TRAINING and not self._may_start(number):
            return {"status": "accepted"}
        self._resources.storage.add_event(number, action)
        return {"status": "accepted"}

    def _tell_once(self, number: int, action: str) -> None:
        """Put an event into the inbox, unless such a one waits there."""
        lately = self._resources.storage.events_since(number, action, now() - STARTS_WITHIN)
        if all(event.done_at is not None for event in lately):
            self._resources.storage.add_event(number, action)

    def _may_start(self, number: int) -> bool:
        """Whether "Start training" says anything new: not while an earlier one waits, and not too often."""
        lately = self._resources.storage.events_since(number, START_TRAINING, now() - STARTS_WITHIN)
        if len(lately) >= STARTS:
            minutes = STARTS_WITHIN.seconds // 60
            raise TooManyError(f'"Start training" was pressed {STARTS} times within {minutes} minutes: wait a while')
        return all(event.done_at is not None for event in lately)

    def uid(self, number: int) -> str:
        """The uid under which a project is connected, for whoever is told its number alone.

        Raises:
            UnknownProjectError: it is not connected.
        """
        project = self._resources.storage.project(number)
        if project is None or project.disconnected_at is not None:
            raise UnknownProjectError(_not_connected(number))
        return project.uid


def _has_changed(row: Project, label_config: str, policy: Json) -> bool:
    """Whether a set-up may say anything new of a project that is served."""
    same = row.label_config == label_config and row.policy == policy
    return not same or row.disconnected_at is not None or row.refusal is not None


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
