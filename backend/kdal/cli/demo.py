"""`kdal demo`: all of it on one machine, with images whose labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdal.console import interruptible


def add_to(app: typer.Typer) -> None:
    """Add this command to the `kdal` command."""
    app.command()(demo)


def demo(
    project: Annotated[str, typer.Argument(help="What is labelled: digits, photos, lanes or boxes.")] = "digits",
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path(".kdal-demo"),
    autopilot: Annotated[
        bool, typer.Option(envvar="AUTOPILOT", help="Let a program label, through Label Studio's API.")
    ] = False,
    once: Annotated[bool, typer.Option(envvar="ONCE", help="End instead of waiting for Ctrl-C.")] = False,
    rounds: Annotated[int | None, typer.Option(help="Rounds that the autopilot labels.", min=1)] = None,
    budget: Annotated[int | None, typer.Option(help="Labels of a round.", min=1)] = None,
    params: Annotated[str, typer.Option(help="More of the project's policy as JSON, as `kdal connect` takes it.")] = "",
    images: Annotated[int | None, typer.Option(help="Take only this many of the images.", min=1)] = None,
) -> None:
    """Label Studio, kdal and digits, photos (of PHOTOS=folder, or fetched), rendered roads or blood cells in one."""
    from kdal.demo import run
    from kdal.demo.example import example
    from kdal.policy import Policy

    shown, policy = example(project), Policy.parse(params).model_dump(exclude_unset=True)
    policy |= {} if budget is None else {"budget": budget}
    with interruptible("Stopped. The same command goes on from here."):
        run(shown, folder, autopilot_on=autopilot, once=once, rounds=rounds, params=policy, images=images)
