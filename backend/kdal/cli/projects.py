"""`kdal connect`, `disconnect`, `cancel` and `credentials`: which Label Studio projects kdal works for."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kdal.console import out
from kdal_core.errors import ConfigError

if TYPE_CHECKING:
    from kdal.settings import Settings


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `kdal` command."""
    app.command()(connect)
    app.command("disconnect")(disconnect_project)
    app.command()(cancel)
    app.command()(credentials)


class Predictions(StrEnum):
    """What becomes of kdal's predictions in a project that it leaves."""

    keep = "keep"
    remove = "remove"


def connect(
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.", min=1)],
    params: Annotated[
        str | None, typer.Option(help="The project's policy as JSON, for example '{\"budget\": 100}'.")
    ] = None,
) -> None:
    """Make kdal the ML backend of a project: backend, webhook, order of the queue."""
    from kdal.labelstudio.client import LabelStudioClient
    from kdal.labelstudio.connection import connect_backend, connection_notes
    from kdal.settings import Settings

    settings = Settings.load()
    client = LabelStudioClient.of(settings)
    client.project(project)  # what is wrong with Label Studio is said first
    if not settings.webhook_secret or not settings.auth_user:
        _check_home(settings)
    row = connect_backend(settings, client, project, params)
    out.print(f'Project {project} "{row["title"]}" is connected to {settings.url}.')
    for note in connection_notes(settings, client, row):
        out.print(f"{note}.", markup=False)
    out.print("A worker (`kdal worker`, or `kdal up`) now orders its queue; `kdal status` shows how it stands.")


def credentials() -> None:
    """The user and password that kdal's server asks for, for Label Studio's form and for its own pages."""
    from kdal.settings import Settings

    settings = Settings.load()
    if not settings.auth_user:
        _check_home(settings)
    settings = settings.with_credentials()
    typer.echo(f"User:     {settings.auth_user}")
    typer.echo(f"Password: {settings.auth_password}")
    typer.echo(
        "`kdal connect` tells Label Studio both. To add kdal by hand: Settings > Model > Connect Model, "
        f"{settings.url}, Basic Authentication.",
        err=True,
    )


def _check_home(settings: Settings) -> None:
    """What is made by itself is the server's only if its folder is the server's, too."""
    if not settings.home_path.exists():
        raise ConfigError(
            f"no kdal has been started here: KDAL_HOME is {settings.home_path}, which is not there. It would hold "
            "password and secret of the server: run this in the folder where `kdal up` was started, or set KDAL_HOME "
            "to the server's, or KDAL_AUTH_USER, KDAL_AUTH_PASSWORD and KDAL_WEBHOOK_SECRET for both"
        )


def disconnect_project(
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.", min=1)],
    predictions: Annotated[
        Predictions, typer.Option(help="What becomes of the suggestions that kdal has pushed.")
    ] = Predictions.keep,
) -> None:
    """Take kdal out of a project: its queue, model version, backend and webhooks are as they were before."""
    from kdal.labelstudio.client import LabelStudioClient
    from kdal.labelstudio.connection import disconnect
    from kdal.settings import Settings
    from kdal.storage.database import Storage

    settings = Settings.load()
    client = LabelStudioClient.of(settings)
    storage = Storage.of_running_kdal(settings)
    left = disconnect(settings, client, storage, project, remove_predictions=predictions is Predictions.remove)
    out.print(f"kdal is out of project {project}. Its queue is served by {left['sampling'].lower()}, as before kdal.")
    if left["removed"]:
        out.print(f"Removed the predictions of {', '.join(left['removed'])}.")
    out.print(f"What kdal has learnt is kept: `kdal connect --project {project}` goes on from there.")


def cancel(project: Annotated[int, typer.Option(help="Number of the Label Studio project.", min=1)]) -> None:
    """Cancel the round that is being computed. Annotators go on in the order they have."""
    from kdal.settings import Settings
    from kdal.storage.database import Storage

    storage = Storage.of_running_kdal(Settings.load())
    number = storage.cancel_round(project)
    if number is None:
        raise ConfigError(f"project {project}: no round is being computed, so there is nothing to cancel")
    storage.add_event(project, "ROUND_CANCELLED")
    out.print(f"Round {number} of project {project} is cancelled; annotators go on in the order they have.")
    out.print('The next round begins with a full batch from now on, or with "Start training" in Label Studio.')
