"""`kdal doctor`: what is wrong with an installation, and what mends it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from kdal.console import out
from kdal.logs import printable, redacted


def add_to(app: typer.Typer) -> None:
    """Add this command to the `kdal` command."""
    app.command()(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False) -> None:
    """Look at everything that kdal needs; each thing that is wrong is told with what mends it. Exit status 1 then."""
    from kdal.doctor import examine
    from kdal.settings import Settings

    wrong, told = 0, []
    for found in examine(Settings.load()):
        wrong += not found.ok
        told.append(asdict(found))
        if not as_json:
            mark = "ok   " if found.ok else "WRONG"
            out.print(_line(f"{mark} {found.part}: {found.said}"), soft_wrap=True)
            if found.fix:
                out.print(_line(f"      what to do: {found.fix}"), soft_wrap=True)
    if as_json:
        typer.echo(redacted(json.dumps(told, indent=2)))
    else:
        things = "thing is" if wrong == 1 else "things are"
        out.print(f"{wrong} {things} wrong." if wrong else "Nothing is wrong.")
    if wrong:
        raise typer.Exit(1)


def _line(text: str) -> str:
    return printable(redacted(text))
