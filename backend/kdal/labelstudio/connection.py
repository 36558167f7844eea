"""Connecting a Label Studio project, and taking kdal out again. All of it idempotent."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import structlog

from kdal.aliases import Json
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from kdal.labelstudio.formats import format_for, notes
from kdal.labelstudio.task_order import SAMPLING, VERSION, OrderInForce
from kdal.policy import Policy
from kdal.settings import Settings
from kdal.storage.database import Storage
from kdal.storage.tables import Project, now
from kdal_core.errors import KdalError

log = structlog.get_logger()
SECRET_HEADER = "X-Kdal-Secret"
PROJECT_HEADER = "X-Kdal-Project"
ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
)
"""What may change a count or the pool. Not PROJECT_UPDATED: our own re-ranking sends it."""
TITLE = "kdal"
PLAIN = "Sequential sampling"
"""Label Studio's own order of a queue."""
BEFORE = "Orders the labelling queue. Before kdal the project had: "
"""Description of our ML backend; the project's sampling and model version follow as JSON. They are kept in Label
Studio, where they belong, so that they are known when kdal's own database is lost."""


class DisconnectedError(KdalError):
    """Somebody took kdal out of the project, in Label Studio."""


def connect_backend(settings: Settings, client: LabelStudioClient, project: int, extra_params: Any = None) -> Json:
    """Make kdal a project's ML backend, as the button in Label Studio does; returns the project.

    The webhook is registered first: Label Studio then does not add one of its own, which would be for all actions
    and without the secret.

    Args:
        extra_params: the policy (JSON text or object); none leaves what the project has.

    Raises:
        ConfigError: the labelling config or the policy cannot be served.
        LabelStudioError: no such project, or kdal's server is not reachable from Label Studio.
    """
    row = client.project(project)
    backends = client.backends(project)
    ours = _ours(settings, backends, None)
    policy = _policy(ours, extra_params)
    format_for(row["label_config"], policy)
    fields: Json = {"url": settings.url, "project": project, "title": TITLE, "is_interactive": False}
    if extra_params is not None:
        fields["extra_params"] = policy.model_dump(exclude_unset=True)
    fields |= _credentials(settings)
    ensure_webhook(settings, client, project)
    if _noted_before(ours) is None:
        # Noted with the backend: connecting it makes Label Studio forget the model version.
        before = _state(row, {str(backend.get("title")) for backend in backends})
        fields["description"] = BEFORE + json.dumps(before)
    if ours:
        client.update_backend(int(ours[0]["id"]), **fields)
    else:
        client.create_backend(**fields)
    return row


def connection_notes(settings: Settings, client: LabelStudioClient, row: Json) -> tuple[str, ...]:
    """What the owner of a connected project should know of how kdal reads its labelling config, one sentence each.

    Args:
        row: the project, as `connect_backend` returns it.
    """
    ours = _ours(settings, client.backends(int(row["id"])), None)
    return notes(row["label_config"], _policy(ours, None))


def project_uid(row: Json) -> str:
    """``<id>.<created>`` of a project as the API shows it: what /setup and /predict name it by."""
    return f"{row['id']}.{int(datetime.fromisoformat(row['created_at']).timestamp())}"


def ensure_webhook(settings: Settings, client: LabelStudioClient, project: int) -> None:
    """Exactly one webhook leads from a project to kdal: with the secret, for the actions that we need."""
    url = f"{settings.url}/webhook"
    # Without payload Label Studio spends nothing on serialising, and the annotator's submit returns sooner.
    wanted: Json = {
        "project": project,
        "url": url,
        "send_payload": False,
        "send_for_all_actions": False,
        "is_active": True,
        "headers": {SECRET_HEADER: settings.secret, PROJECT_HEADER: str(project)},
        "actions": list(ACTIONS),
    }
    # With our secret, wherever it leads (kdal has moved), or to us without it (made by Label Studio itself).
    hooks = [h for h in client.webhooks(project) if _has_secret(h) or str(h["url"]).rstrip("/") == url]
    kept = next((hook for hook in hooks if _has_secret(hook)), None)
    for hook in hooks:
        if hook is not kept:
            client.delete_webhook(int(hook["id"]))
    if kept is None:
        client.create_webhook(**wanted)
    elif any(_comparable(kept.get(name)) != _comparable(value) for name, value in wanted.items()):
        client.update_webhook(int(kept["id"]), **wanted)


def ensure_connected(
    settings: Settings, client: LabelStudioClient, storage: Storage, project: Project, *, insist: bool
) -> None:
    """Put webhook, credentials, sampling and model version right.

    Args:
        insist: after a set-up, which Label Studio asks for only while it has a backend of ours, or is about to: also
            undo what somebody chose on purpose. Otherwise only what Label Studio does by itself is undone: it names
            the model version after the backend.

    Raises:
        DisconnectedError: our backend is no longer among the project's: whoever deleted it wants kdal out. Or
            `disconnect` was called meanwhile, and what was put right here has to be undone.
    """
    backends = client.backends(project.id)
    ours = _ours(settings, backends, project.backend_id)
    if not ours and not insist and (not backends or project.backend_id is not None):
        raise DisconnectedError(f"project {project.id}: its ML backend was deleted in Label Studio")
    ensure_webhook(settings, client, project.id)
    _ensure_credentials(settings, client, storage, project, ours)
    row = client.project_fields(project.id, "sampling", "model_version")
    titles = {str(backend.get("title")) for backend in backends}
    fields: Json = {"connected_at": now()}
    if ours:
        fields["backend_id"] = int(ours[0]["id"])
    if project.before is None:
        fields["before"] = _noted_before(ours) or _state(row, titles)
    storage.update_project(project.id, **fields)
    OrderInForce(storage, client).ensure(project, row, titles, insist=insist)
    current = storage.project(project.id)
    if current is not None and current.disconnected_at is not None:
        raise DisconnectedError(f"project {project.id}: kdal was taken out of it meanwhile")


def disconnect(
    settings: Settings, client: LabelStudioClient, storage: Storage, project: int, *, remove_predictions: bool = False
) -> Json:
    """Take kdal out of a project: backend, webhook, sampling and model version as they were before it came.

    What kdal knows of the project is kept, for a later reconnect. A round that is being computed is cancelled.
    Interrupted, the same call later does the rest; so does the worker, once the backend is gone.

    Args:
        remove_predictions: delete what kdal suggested, too.

    Returns:
        The project's "sampling" and "model_version" from now on, and the names of the "removed" versions.

    Raises:
        LabelStudioError: no such project, or Label Studio is down or refuses us.
    """
    known = storage.project(project)
    row = client.project(project)
    backends = client.backends(project)
    ours = _ours(settings, backends, None if known is None else known.backend_id)
    before = (known.before if known is not None else None) or _noted_before(ours)
    titles = {str(backend.get("title")) for backend in backends} | {TITLE}
    before = before or _state(row, titles)
    been_out = known is not None and known.disconnected_at is not None and not ours
    for backend in ours:  # first: a project page that is loaded meanwhile would set kdal up again
        client.delete_backend(int(backend["id"]))
    # Noted before the rest: a worker that is just telling Label Studio something looks here afterwards, and undoes it.
    storage.disconnect_project(project, before)
    try:
        addresses = {f"{str(backend['url']).rstrip('/')}/webhook" for backend in ours} | {f"{settings.url}/webhook"}
        for hook in client.webhooks(project):
            if _has_secret(hook) or str(hook["url"]).rstrip("/") in addresses:
                client.delete_webhook(int(hook["id"]))
        row = client.project(project)
        fields: Json = {}
        if not been_out or VERSION.fullmatch(row["model_version"] or ""):  # twice, it is not ours to change any more
            fields = OrderInForce(storage, client).give_back(project, row, before, titles)
        removed = []
        if remove_predictions:
            storage.update_project(project, version=None)
            removed = [name for name in client.prediction_counts(project) if VERSION.fullmatch(name)]
            for name in removed:
                client.delete_predictions(project, name)
    except BaseException:
        storage.update_project(project, disconnected_at=None)  # so that the worker looks at it, and does the rest
        raise
    left = {"sampling": row["sampling"], "model_version": row["model_version"]} | fields
    return left | {"removed": removed}


def served_by(settings: Settings, client: LabelStudioClient, project: Project) -> Json | None:
    """Our ML backend in a project, as Label Studio has it; None where it has none."""
    return next(iter(_ours(settings, client.backends(project.id), project.backend_id)), None)


def confirmed_set_up(settings: Settings, client: LabelStudioClient, project: int, known: int | None) -> Json | None:
    """A project's labelling config and extra params as Label Studio's API has them, if kdal is its ML backend.

    Args:
        known: Label Studio's number of our backend in the project, where it is known.

    Returns:
        ``{"uid", "label_config", "extra_params"}``; None where the project has no backend of ours: not yet, or no more.

    Raises:
        LabelStudioError: no such project, or Label Studio is down or refuses us.
    """
    row = client.project(project)
    ours = _ours(settings, client.backends(project), known)
    if not ours:
        return None
    return {"uid": project_uid(row), "label_config": row["label_config"], "extra_params": ours[0].get("extra_params")}


def _ensure_credentials(
    settings: Settings, client: LabelStudioClient, storage: Storage, project: Project, ours: list[Json]
) -> None:
    """Label Studio logs in with our user and password: it was told neither before kdal 0.3, nor when they changed."""
    wanted = _credentials(settings)
    shown = ("auth_method", "basic_auth_user")  # it does not show the password
    wrong = [b for b in ours if project.told != settings.fingerprint or any(b.get(n) != wanted[n] for n in shown)]
    for backend in wrong:
        # Label Studio sets kdal up by what it is sent here alone: without its extra params that might be refused.
        kept = {name: backend[name] for name in ("url", "extra_params") if backend.get(name) is not None}
        try:
            client.update_backend(int(backend["id"]), project=project.id, **kept, **wanted)
        except LabelStudioError as error:
            if error.status != 400:
                raise
            log.warning("Label Studio cannot be told the password", project=project.id, reason=str(error))
            return  # kdal's server is down, most likely: next time
    if ours and project.told != settings.fingerprint:
        storage.update_project(project.id, told=settings.fingerprint)


def _credentials(settings: Settings) -> Json:
    """What makes Label Studio log in: fields of an ML backend."""
    known = settings.with_credentials()
    return {
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": known.auth_user,
        "basic_auth_pass": known.auth_password,
    }


def _ours(settings: Settings, backends: list[Json], known: int | None) -> list[Json]:
    """Those of a project's ML backends that are kdal: by number once it is known, by title or address else."""
    return [
        backend
        for backend in backends
        if backend["id"] == known or backend.get("title") == TITLE or _same_address(str(backend["url"]), settings.url)
    ]


def _same_address(one: str, other: str) -> bool:
    """Whether two addresses lead to the same place, however they are written."""
    try:
        return _place(one) == _place(other)
    except ValueError:  # a port that is no number
        return False


def _place(address: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(address.strip())
    host = "127.0.0.1" if parts.hostname in ("localhost", "::1") else parts.hostname
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, host, port, parts.path.rstrip("/")


def _policy(ours: list[Json], extra_params: Any) -> Policy:
    """The policy that a project gets, or keeps: the one our backend has."""
    return Policy.parse(extra_params if extra_params is not None or not ours else ours[0].get("extra_params"))


def _state(row: Json, titles: set[str]) -> Json:
    """A project's sampling and model version, without what kdal, or Label Studio on connecting it, made of them."""
    version = row["model_version"] or ""
    ours = version in titles or VERSION.fullmatch(version) is not None
    sampling = PLAIN if ours and row["sampling"] == SAMPLING else row["sampling"]
    return {"sampling": sampling, "model_version": "" if ours else version}


def _noted_before(ours: list[Json]) -> Json | None:
    """What the description of our backend says of the project before kdal."""
    for backend in ours:
        _, found, text = str(backend.get("description") or "").partition(BEFORE)
        try:
            value = json.loads(text) if found else None
        except ValueError:  # somebody has edited it
            continue
        if isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("sampling", "model_version")):
            return {"sampling": value["sampling"], "model_version": value["model_version"]}
    return None


def _has_secret(hook: Json) -> bool:
    return bool((hook.get("headers") or {}).get(SECRET_HEADER))


def _comparable(value: Any) -> Any:
    return json.dumps(sorted(value) if isinstance(value, list) else value, sort_keys=True)
