"""How each project stands: for `kdal status`, and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdal.aliases import Json
from kdal.resources import Resources
from kdal.rounds.query_log import account_of
from kdal.storage.database import Storage
from kdal.storage.tables import Project, Round
from kdal_core.distillation.ledger import NANO

SHOWN = 10
"""Tasks that were set aside whose reasons people are shown."""


def status(storage: Storage) -> Json:
    """Everything that an owner or an operator asks for, as JSON."""
    waiting = storage.waiting_events()
    return {
        "projects": [_project(storage, project) for project in storage.projects()],
        "events_waiting": len(waiting),
        "oldest_event": _time(waiting[0].received_at) if waiting else None,
    }


def table(report: Json) -> RenderableType:
    """The same for people: a block for each project, which fits into any terminal."""
    if not report["projects"]:
        return Text("No project is connected: run `kdal connect --project N`.")
    return Group(*(_block(project) for project in report["projects"]))


def _block(project: Json) -> RenderableType:
    block = Table(title=f"Project {project['id']}", title_justify="left", show_header=False, box=box.SIMPLE_HEAD)
    block.add_column(style="bold", no_wrap=True)
    block.add_column(overflow="fold")

    def say(name: str, value: str) -> None:
        block.add_row(name, Text(value))  # as it is: brackets in a message are no markup

    last = project["rounds"][-1] if project["rounds"] else None
    say("round", f"{last['number']}, {last['state']}" if last else "waiting for a worker")
    if last and last["state"] == "computing":
        say("step", f"{last['step']}, {last['progress']:.0%}")
    if project["budget"] is not None:
        say("labels", f"{project['counted']} of {project['budget']}")
    if project["serving"]:
        say("serving", project["serving"])
    if last and (score := last["facts"].get("held_out_score")) is not None:
        say("held out", f"{score:.1%} {last['facts']['metric']} on {last['facts']['held_out']} labels")
    if teacher := project["teacher"]:
        say("teacher", f"{teacher['name']}, {_spent(teacher)}")
    if problem := project["problem"] or (last or {}).get("error"):
        say("problem", problem)
    if aside := project["set_aside"]:
        say("set aside", f"{len(aside)} tasks")
        for item in aside[:SHOWN]:
            say("", item["reason"])
        if len(aside) > SHOWN:
            say("", f"and {len(aside) - SHOWN} more: --json shows all")
    return block


def _spent(teacher: Json) -> str:
    """What a project's teacher has cost: "120 of 5,000 queries, 0.24 of 8.00 EUR"."""
    text = f"{teacher['queries']:,} of {teacher['budget']:,} queries"
    if teacher["cost"]:
        most = "" if teacher["money"] is None else f" of {teacher['money']:,.2f}"
        text += f", {teacher['cost']:,.2f}{most} {teacher['currency']}".rstrip()
    return text


class StatusCollector(Collector):
    """The same for Prometheus."""

    def __init__(self, resources: Resources) -> None:
        self._storage = resources.storage

    def describe(self) -> list[GaugeMetricFamily]:
        """No names in advance: nothing has to be read to register."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the tables."""
        report = status(self._storage)
        families = {
            "round": ("kdal_round", "Number of the newest round."),
            "counted": ("kdal_labels_counted", "Labels counted for the open round."),
            "budget": ("kdal_labels_budget", "Labels that end the open round."),
            "failed": ("kdal_round_failed", "1 while the newest round is failed."),
            "set_aside": ("kdal_tasks_set_aside", "Tasks that the newest round could not use."),
            "queries": ("kdal_teacher_queries", "Images that count as asked to the project's black-box teacher."),
            "query_budget": ("kdal_teacher_budget", "Images that it may be asked about at most."),
            "cost": ("kdal_teacher_cost", "Money that counts as spent on it, in the unit of its price."),
            "seconds": ("kdal_round_seconds", "Seconds that the newest finished round took to compute."),
        }
        gauges = {name: GaugeMetricFamily(*family, labels=["project"]) for name, family in families.items()}
        for project in report["projects"]:
            labels = [str(project["id"])]
            gauges["set_aside"].add_metric(labels, len(project["set_aside"]))
            gauges["counted"].add_metric(labels, project["counted"] or 0)
            gauges["budget"].add_metric(labels, project["budget"] or 0)
            if teacher := project["teacher"]:
                gauges["queries"].add_metric(labels, teacher["queries"])
                gauges["query_budget"].add_metric(labels, teacher["budget"])
                gauges["cost"].add_metric(labels, teacher["cost"])
            if project["rounds"]:
                gauges["round"].add_metric(labels, project["rounds"][-1]["number"])
                gauges["failed"].add_metric(labels, project["rounds"][-1]["state"] == "failed")
            opened = [row for row in project["rounds"] if row["opened_at"]]
            if opened:
                gauges["seconds"].add_metric(labels, sum(opened[-1]["seconds"].values()))
        yield GaugeMetricFamily("kdal_events_waiting", "Events in the inbox.", value=report["events_waiting"])
        yield from gauges.values()


def _project(storage: Storage, project: Project) -> Json:
    rounds = storage.rounds(project.id)
    opened = [row for row in rounds if row.opened_at is not None]
    return {
        "id": project.id,
        "connected_at": _time(project.connected_at),
        "policy": project.policy,
        "problem": project.problem,
        "serving": f"kdal-r{project.serving_round}" if project.serving_round is not None else None,
        "version": opened[-1].version if opened else None,
        "counted": opened[-1].counted if opened else None,
        "budget": opened[-1].budget if opened else None,
        "teacher": _teacher(storage, project, rounds),
        "set_aside": [{"task": row.task_id, "reason": row.reason} for row in storage.unusable_tasks(project.id)],
        "rounds": [_round(row) for row in rounds],
    }


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
        "cost": account.nanos / NANO,
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
