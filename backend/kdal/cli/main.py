"""The `kdal` command: puts its groups of commands together and says errors in one sentence."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kdal import logs
from kdal.cli import accept, datasets, demo, distill, doctor, models, projects, run, simulate, status
from kdal.settings import Settings
from kdal_core.errors import KdalError

app = typer.Typer(
    name="kdal",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"kdal {version('kdal')}")
        raise typer.Exit


@app.callback()
def kdal(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """A Label Studio ML backend that makes a labelling team need far fewer labels."""
    logs.set_up(sys.stderr)  # standard output is what the command was asked for


for group in (run, projects, status, doctor, accept, models, demo, datasets, simulate, distill):
    group.add_to(app)


def main() -> None:
    """Entry point: an error of ours is a sentence on stderr and exit status 1, never a traceback."""
    try:
        Settings.export_aws()
        app()
    except KdalError as error:
        typer.echo(f"kdal: {logs.printable(logs.redacted(str(error)))}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
