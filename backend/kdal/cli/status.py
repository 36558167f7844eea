"""`kdal status`: how each project stands, as a table for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdal.aliases import Json
from kdal.console import out
from kdal.logs import printable, redacted

SHOWN = 10
"""Unusable tasks whose reasons people are shown."""


def add_to(app: typer.Typer) -> None:
    """Add this command to the `kdal` command."""
    app.command("status")(show_status)


def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False,
) -> None:
    """How each project stands: round, labels counted, progress, problems, and what labels tell of the model."""
    from kdal.rounds.status import status
    from kdal.settings import Settings
    from kdal.storage.assets import Assets
    from kdal.storage.database import Storage

    settings = Settings.load()
    storage = Storage.of_running_kdal(settings)
    try:
        report = status(storage, Assets(settings.assets_root))
    finally:
        storage.close()
    if as_json:
        typer.echo(redacted(json.dumps(report, indent=2)))
    else:
        out.print(table(report))


def table(report: Json) -> RenderableType:
    """The same for people: a block for each project, which fits into any terminal."""
    if not report["projects"]:
        return Text("No project is connected: run `kdal connect --project N`.")
    blocks = [_block(project) for project in report["projects"]]
    served = any(project["disconnected_at"] is None for project in report["projects"])
    if served and not any(worker["alive"] for worker in report["workers"]):
        blocks.insert(0, _no_worker(report["workers"]))
    return Group(*blocks)


def _no_worker(workers: list[Json]) -> RenderableType:
    """That nothing computes rounds."""
    last = f" The last one, {workers[0]['name']}, gave a sign of life at {workers[0]['seen_at']}." if workers else ""
    return Text(f"No worker is running: rounds wait for one.{last} Start it with `kdal worker`, or `kdal up`.")


def _block(project: Json) -> RenderableType:
    block = Table(title=f"Project {project['id']}", title_justify="left", show_header=False, box=box.SIMPLE_HEAD)
    block.add_column(style="bold", no_wrap=True)
    block.add_column(overflow="fold")

    def say(name: str, value: str) -> None:
        # As it is: brackets in a message are no markup, and what it quotes may come from anybody.
        block.add_row(name, Text(printable(redacted(value))))

    if project["disconnected_at"]:
        say("disconnected", f"since {project['disconnected_at']}; `kdal connect --project {project['id']}` goes on")
    last = project["rounds"][-1] if project["rounds"] else None
    say("round", f"{last['number']}, {last['state']}" if last else "waiting for a worker")
    if last and last["state"] == "computing":
        say("step", f"{last['step']}, {last['progress']:.0%}")
    if project["budget"] is not None:
        unit = "objects" if project["policy"].get("budget_unit") == "objects" else "labels"
        say(unit, f"{project['counted']} of {project['budget']}")
    if project["serving"]:
        say("serving", project["serving"])
    if last and (score := last["facts"].get("held_out_score")) is not None:
        say("held out", f"{score:.1%} {last['facts']['metric']} on {last['facts']['held_out']} labels")
    facts = (last or {}).get("facts", {})
    if backbones := facts.get("backbones"):
        say("backbones", backbones)
    elif why := facts.get("why_no_backbones"):
        say("weights", f"none, networks are trained from nothing: {why}")
    if fine_tuning := facts.get("fine_tuning"):
        say("fine-tuning", fine_tuning)
    if last and "p_value" in last["facts"]:
        say("new model", last["facts"]["verdict"])
    for name, sentence in _estimated(project):
        say(name, sentence)
    if teacher := project["teacher"]:
        say("teacher", f"{teacher['name']}, {_spent(teacher)}")
    if problem := project["problem"] or (last or {}).get("error"):
        say("problem", problem)
    for note in project["notes"]:
        say("note", note)
    if unusable := project["unusable"]:
        say("unusable", f"{len(unusable)} tasks")
        for item in unusable[:SHOWN]:
            say("", item["reason"])
        if len(unusable) > SHOWN:
            say("", f"and {len(unusable) - SHOWN} more: --json shows all")
    return block


def _estimated(project: Json) -> Iterator[tuple[str, str]]:
    """What labels tell: of the model, of suggestions, of the labels themselves."""
    told = project.get("estimates") or {}
    if "error" in told:
        yield "estimates", f"cannot be read: {told['error']}"
    elif told.get("model") is not None:
        yield "score", told["curve"]["sentence"]
        yield "stopping", told["stopping"]["sentence"]
        yield "suggested", told["suggestions"]["sentence"]
        suspects = told["label_errors"]["suspects"]
        if told["label_errors"]["expected"]:
            first = ", ".join(str(each["task"]) for each in suspects[:SHOWN])
            yield "suspicious", f"{told['label_errors']['sentence']} Tasks {first}."
    accepted = [row["facts"]["accepted"] for row in project["rounds"] if "accepted" in row["facts"]]
    for each in accepted[-1:]:
        yield (
            "accepted",
            f"{each['images']:,} suggestions on {each['at']}, {100 * each['target']:.3g}% or more of them right; "
            f"`kdal accept --project {project['id']} --undo` takes them back",
        )


def _spent(teacher: Json) -> str:
    """What a project's teacher has cost: "120 of 5,000 queries, 0.24 of 8.00 EUR"."""
    text = f"{teacher['queries']:,} of {teacher['budget']:,} queries"
    if teacher["cost"]:
        most = "" if teacher["money"] is None else f" of {teacher['money']:,.2f}"
        text += f", {teacher['cost']:,.2f}{most} {teacher['currency']}".rstrip()
    return text
