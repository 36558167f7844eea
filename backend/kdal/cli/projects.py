"""`kdal connect`: which Label Studio projects kdal works for."""

from __future__ import annotations

from typing import Annotated

import typer

from kdal.console import log_to_stderr, out


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `kdal` command."""
    app.command()(connect)


def connect(
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.")],
    params: Annotated[
        str | None, typer.Option(help="The project's policy as JSON, for example '{\"budget\": 100}'.")
    ] = None,
) -> None:
    """Make kdal the ML backend of a project: backend, webhook, order of the queue."""
    from kdal.labelstudio.client import LabelStudioClient
    from kdal.labelstudio.connection import connect_backend
    from kdal.settings import Settings

    log_to_stderr()
    settings = Settings.load()
    client = LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key)
    row = connect_backend(settings, client, project, params)
    out.print(f'Project {project} "{row["title"]}" is connected to {settings.url}.')
    out.print("A worker (`kdal worker`, or `kdal up`) now orders its queue; `kdal status` shows how it stands.")
