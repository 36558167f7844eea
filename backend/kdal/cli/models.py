"""`kdal models`: the model of each round, which one serves, and how another one takes its place."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kdal.console import out, progress
from kdal.logs import printable, redacted
from kdal_core.errors import ConfigError

if TYPE_CHECKING:
    from kdal.resources import Resources
    from kdal.rounds.models import Choice, ModelVersion
    from kdal.storage.database import Storage

LOOK = 0.5
"""Seconds between two looks at a round that is waited for."""
models = typer.Typer(no_args_is_help=True, help="The models of a project: one a round.")
Project = Annotated[int, typer.Option(help="Number of the Label Studio project.", min=1)]
Number = Annotated[int, typer.Argument(help="Number of the model's round: 7 for kdal-r7.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="All of it, for programs.")]
Wait = Annotated[bool, typer.Option(help="Wait until the model serves.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `kdal` command."""
    app.add_typer(models, name="models")


@models.command("list")
def list_models(project: Project, as_json: AsJson = False) -> None:
    """All models of a project, first to last."""
    from kdal.rounds.models import versions

    with _tables() as storage:
        found = versions(storage, project)
    if as_json:
        typer.echo(json.dumps([_as_json(one) for one in found], indent=2))
    else:
        out.print(_table(found) if found else f"Project {project} has no model yet: it trains the first on labels.")


@models.command()
def show(number: Number, project: Project, as_json: AsJson = False) -> None:
    """What one model was made from, what it scored, and what became of it."""
    from kdal.rounds.models import version

    with _tables() as storage:
        found = version(storage, project, number)
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2))
    else:
        out.print(_details(found))


@models.command()
def promote(number: Number, project: Project, wait: Wait = True) -> None:
    """Let a model serve: a round brings its order and its suggestions into force, and nothing is trained.

    It serves until a later model scores higher on labels that neither was trained on, or you promote another one.
    """
    from kdal.rounds import models as of_project

    with _resources() as resources:
        _follow(resources, project, of_project.promote(resources, project, number), wait)


@models.command()
def rollback(project: Project, wait: Wait = True) -> None:
    """Go back to the model that served while the one that serves now was trained; see `promote`."""
    from kdal.rounds import models as of_project

    with _resources() as resources:
        _follow(resources, project, of_project.rollback(resources, project), wait)


@models.command()
def export(
    project: Project,
    to: Annotated[Path, typer.Option(help="A folder that is not there yet.")],
    number: Annotated[int | None, typer.Argument(help="Number of the model's round; default: the one that serves.")] = (
        None
    ),
) -> None:
    """Write a model for other programs: one ONNX file with all of it, and a short program that predicts files."""
    from kdal.rounds.export import EXAMPLE, MODEL, export_model

    with _resources() as resources:
        row = resources.storage.project(project)
        wanted = number if number is not None or row is None else row.serving_round
        if wanted is None:
            raise ConfigError(f"project {project}: no model serves yet; `kdal models list` shows which there are")
        done = export_model(resources, project, wanted, to)
    out.print(
        f"Wrote {done.model.name} to {to / MODEL}; its answers differ from kdal's by {done.difference:.1g} at most."
    )
    out.print(f"To try it: python {to / EXAMPLE} photo.jpg", soft_wrap=True)


@models.command()
def prune(
    project: Project,
    keep: Annotated[int, typer.Option(help="How many of the newest models stay at least.", min=0)] = 10,
) -> None:
    """Delete the weights of old models. What serves, what a rollback leads to, and open rounds keep theirs."""
    from kdal.rounds import models as of_project

    with _resources() as resources:
        gone = of_project.prune(resources, project, keep)
    names = ", ".join(f"kdal-r{number}" for number in gone)
    out.print(f"Deleted the weights of {names}." if gone else "Nothing to delete: all models that are there stay.")


@contextmanager
def _tables() -> Iterator[Storage]:
    from kdal.settings import Settings
    from kdal.storage.database import Storage

    storage = Storage.of_running_kdal(Settings.load())
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def _resources() -> Iterator[Resources]:
    from kdal.resources import Resources
    from kdal.settings import Settings

    with _tables():
        pass  # there is a kdal here
    resources = Resources.open(Settings.load())
    try:
        yield resources
    finally:
        resources.storage.close()


def _follow(resources: Resources, project: int, choice: Choice, wait: bool) -> None:
    """Wait until the round of a choice is open."""
    from kdal.rounds.status import alive

    name, number = f"kdal-r{choice.model}", choice.round
    if not any(alive(worker) for worker in resources.storage.workers()):
        out.print(
            f"Round {number} of project {project} will bring {name} into force once a worker runs: `kdal worker`."
        )
        return
    if not wait:
        out.print(f"Round {number} of project {project} brings {name} into force; `kdal status` shows how far it is.")
        return
    with progress(out, f"Bringing {name} into force") as report:
        while (row := resources.storage.round(project, number)).state == "computing":
            report(row.progress, 1, row.step)
            time.sleep(LOOK)
    if row.state == "failed":
        raise ConfigError(
            f"project {project}: {name} does not serve, round {number} failed: {row.error}. It is tried again; give it "
            f"up with `kdal cancel --project {project}`"
        )
    if row.state == "cancelled":
        raise ConfigError(f"project {project}: round {number} was cancelled, so everything is served as before")
    out.print(
        f"{name} serves project {project}, with its order and its suggestions ({row.version or 'none to order'})."
    )


def _as_json(model: ModelVersion) -> dict[str, object]:
    return {"name": model.name, **asdict(model), "created_at": f"{model.created_at.isoformat(timespec='seconds')}Z"}


def _table(found: list[ModelVersion]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model")
    table.add_column("labels", justify="right")
    table.add_column("held out", justify="right")
    table.add_column("parent")
    table.add_column("state")
    for one in found:
        table.add_row(
            one.name,
            f"{one.labels:,}",
            _score(one),
            "" if one.parent is None else f"kdal-r{one.parent}",
            Text(_state(one)),
        )
    return table


def _state(model: ModelVersion) -> str:
    """What became of a model, in words."""
    if model.serves:
        return "serves, chosen by you" if model.chosen else "serves"
    if not model.kept:
        return "weights deleted"
    return "" if model.promoted else "refused by the gate"


def _score(model: ModelVersion) -> str:
    return "" if model.score is None else f"{model.score:.1%} {model.metric} on {model.held_out}"


def _details(model: ModelVersion) -> RenderableType:
    table = Table(title=model.name, title_justify="left", show_header=False, box=box.SIMPLE_HEAD)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")

    def say(name: str, value: object) -> None:
        if value not in (None, ""):
            table.add_row(name, Text(printable(redacted(str(value)))))

    say("state", _state(model) or "kept")
    say("begun", f"{model.created_at.isoformat(sep=' ', timespec='seconds')} UTC")
    trained = "" if model.trained_on is None else f", trained on {model.trained_on:,}"
    say("labels", f"{model.labels:,}{trained}; {model.pool:,} tasks without one")
    say("newest label", model.moment)
    say("student", model.student)
    say("teacher", model.teacher)
    say("backbones", model.backbones)
    say("held out", _score(model))
    say("gate", model.verdict)
    say("parent", "none, it is the first" if model.parent is None else f"kdal-r{model.parent}")
    say("made by", model.code)
    say("seed", model.seed)
    for name, digest in model.weights.items():
        say(name, f"sha256 {digest}")
    return Group(table)
