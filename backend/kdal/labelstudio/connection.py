"""Connecting a Label Studio project: backend, webhook, sampling, model version. All of it idempotent."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from kdal.aliases import Json
from kdal.labelstudio import task_order
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.settings import Settings
from kdal.storage.tables import Project, now

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


def connect_backend(settings: Settings, client: LabelStudioClient, project: int, extra_params: Any = None) -> Json:
    """Make kdal a project's ML backend, as the button in Label Studio does; returns the project.

    The webhook is registered first: Label Studio then adds none of its own, which would be for all actions
    and without the secret.

    Args:
        extra_params: the policy (JSON text or object); none leaves what the project has.

    Raises:
        ConfigError: the labelling config or the policy cannot be served.
        LabelStudioError: no such project, or kdal's server is not reachable from Label Studio.
    """
    row = client.project(project)
    format_for(row["label_config"])
    fields: Json = {"url": settings.url, "project": project, "title": TITLE, "is_interactive": False}
    if extra_params is not None:
        policy = Policy.parse(extra_params)
        fields["extra_params"] = policy.model_dump(exclude_unset=True)
    if settings.auth_user:
        fields |= {
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": settings.auth_user,
            "basic_auth_pass": settings.auth_password,
        }
    ensure_webhook(settings, client, project)
    ours = [b for b in client.backends(project) if b.get("title") == TITLE or str(b["url"]).rstrip("/") == settings.url]
    if ours:
        client.update_backend(int(ours[0]["id"]), **fields)
    else:
        client.create_backend(**fields)
    return row


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


def ensure_connected(resources: Resources, project: Project, *, insist: bool) -> Json:
    """Put webhook, sampling and model version right; returns the project as Label Studio has it.

    Args:
        insist: also when somebody chose another order on purpose (after a set-up); otherwise only what
            Label Studio does by itself is undone: it names the model version after the backend.
    """
    client = resources.label_studio
    ensure_webhook(resources.settings, client, project.id)
    row = client.project(project.id)
    published = resources.storage.published_round(project.id)
    if published is not None and published.version is not None and row["model_version"] != published.version:
        titles = {str(backend.get("title")) for backend in client.backends(project.id)}
        if insist or row["model_version"] in titles | {"", None}:
            task_order.switch(client, project.id, published.version)
    elif insist and row["sampling"] != task_order.SAMPLING:
        client.update_project(project.id, sampling=task_order.SAMPLING)
    resources.storage.update_project(project.id, connected_at=now())
    return row


def _has_secret(hook: Json) -> bool:
    return bool((hook.get("headers") or {}).get(SECRET_HEADER))


def _comparable(value: Any) -> Any:
    return json.dumps(sorted(value) if isinstance(value, list) else value, sort_keys=True)
