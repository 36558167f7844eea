"""How each project stands, from the tables, and from the assets where they are given: for people and for Prometheus."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from kdal.aliases import Json
from kdal.labelstudio.formats import notes
from kdal.policy import Policy
from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal.storage.tables import Project, Round, WorkerBeat, account_of, now
from kdal_core.errors import AssetError, ConfigError, KdalError

ALIVE = timedelta(minutes=2)
"""How long ago a worker that runs has given its last sign of life, at most."""


def status(storage: Storage, assets: Assets | None = None) -> Json:
    """Everything that an owner or an operator asks for, as JSON.

    Args:
        storage: the tables.
        assets: where the rounds' estimates are; without them, and before the first, "estimates" is None.
    """
    waiting = storage.waiting_events()
    return {
        "workers": [
            {"name": row.name, "seen_at": _time(row.beat_at), "alive": alive(row)} for row in storage.workers()
        ],
        "projects": [_project(storage, assets, project) for project in storage.projects(disconnected=True)],
        "events_waiting": len(waiting),
        "oldest_event": _time(waiting[0].received_at) if waiting else None,
    }


def not_ready(storage: Storage, assets: Assets) -> list[str]:
    """Which of "database", "assets" and "worker" cannot be used at present: none, and kdal is ready."""
    missing = []
    try:
        missing += [] if any(alive(worker) for worker in storage.workers()) else ["worker"]
    except SQLAlchemyError:
        missing.append("database")
    try:
        assets.exists("ready")  # nothing need be there: that the store answers is enough
    except AssetError:
        missing.append("assets")
    return missing


def alive(worker: WorkerBeat) -> bool:
    """Whether a worker has given a sign of life lately."""
    return now() - worker.beat_at < ALIVE


def _project(storage: Storage, assets: Assets | None, project: Project) -> Json:
    rounds = storage.rounds(project.id)
    opened = [row for row in rounds if row.opened_at is not None]
    # The round that labels count for: a cancelled one counts those of the round to come.
    counting = rounds[-1] if opened and rounds[-1].state == "cancelled" else opened[-1] if opened else None
    unusable = [{"task": row.task_id, "reason": row.reason} for row in storage.unusable_tasks(project.id)]
    return {
        "id": project.id,
        "connected_at": _time(project.connected_at),
        "disconnected_at": _time(project.disconnected_at),
        "policy": project.policy,
        "problem": project.refusal or project.problem,
        "notes": _notes(project),
        "serving": f"kdal-r{project.serving_round}" if project.serving_round is not None else None,
        "serving_round": project.serving_round,
        "version": project.version,
        "counted": counting.counted if counting else None,
        "budget": counting.budget if counting else None,
        "teacher": _teacher(storage, project, rounds),
        "unusable": unusable,
        "set_aside": unusable,  # its name before 0.2.0
        "estimates": None if assets is None else _estimates(storage, assets, project),
        "rounds": [_round(row) for row in rounds],
    }


def _estimates(storage: Storage, assets: Assets, project: Project) -> Json | None:
    """`kdal.rounds.estimates.estimates_of`, None before the first; why, under "error", where they cannot be read."""
    from kdal.rounds.estimates import estimates_of
    from kdal.rounds.estimates.kept import FACT

    if not any(FACT in row.facts for row in storage.rounds(project.id)):
        return None
    try:
        return estimates_of(storage, assets, project)
    except KdalError as error:
        return {"error": str(error)}


def _notes(project: Project) -> list[str]:
    """What its owner should know of how kdal reads its labelling config; nothing where it cannot be served."""
    try:
        return list(notes(project.label_config, Policy.stored(project.policy)))
    except ConfigError:
        return []  # which is a problem, and said as one


def _teacher(storage: Storage, project: Project, rounds: list[Round]) -> Json | None:
    """What the project's black-box teacher has cost by now, answered or not; None before it is asked."""
    name = project.policy.get("black_box")
    account = None if name is None else storage.teacher_account(account_of(project.uid, name))
    limits = next((row.facts for row in reversed(rounds) if "query_budget" in row.facts), None)
    if account is None or limits is None:
        return None
    return {
        "name": name,
        "queries": account.images,
        "budget": limits["query_budget"],
        "cost": account.cost,
        "money": limits["money"],
        "currency": limits["currency"],
    }


def _round(row: Round) -> Json:
    return {
        "number": row.number,
        "state": row.state,
        "trigger": row.trigger,
        "step": row.step,
        "progress": row.progress,
        "counted": row.counted,
        "budget": row.budget,
        "version": row.version,
        "facts": row.facts,
        "seconds": row.seconds,
        "error": row.error,
        "created_at": _time(row.created_at),
        "opened_at": _time(row.opened_at),
    }


def _time(value: datetime | None) -> str | None:
    return f"{value.isoformat(timespec='milliseconds')}Z" if value is not None else None
