"""`kdal demo`: Label Studio, kdal and a project of real images on one machine, with nothing else to set up."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from kdal.demo import autopilot, curve
from kdal.demo.example import Example, import_missing
from kdal.labelstudio.client import LabelStudioClient
from kdal.labelstudio.connection import connect_backend
from kdal.policy import Policy
from kdal.processes.child import Supervisor, free_port, port_is_free
from kdal.processes.embedded import EmbeddedLabelStudio
from kdal.resources import Resources
from kdal.settings import Settings

EMAIL = "demo@example.com"
out = Console(highlight=False)


@dataclass
class State:
    """What a second start needs to go on where the first stopped."""

    password: str
    token: str
    label_studio_port: int = 8080
    kdal_port: int = 9090
    projects: dict[str, int] = field(default_factory=dict)
    """Name of an example -> number of its project in Label Studio."""

    @classmethod
    def load(cls, path: Path) -> State:
        """The state of an earlier start, or a new one; ports that are taken are replaced."""
        if path.exists():
            kept = json.loads(path.read_text())
            if (project := kept.pop("project", None)) is not None:  # of a time when there were only digits
                kept["projects"] = {"digits": project}
            state = cls(**kept)
        else:
            state = cls(password=secrets.token_urlsafe(9), token=secrets.token_hex(20))
        for name in ("label_studio_port", "kdal_port"):
            if not port_is_free(getattr(state, name)):
                setattr(state, name, free_port())
        state.save(path)
        return state

    def save(self, path: Path) -> None:
        """Keep it, readable by its owner only: it holds a password."""
        draft = path.with_suffix(".part")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self), indent=2))
        draft.replace(path)


def run(
    shown: Example,
    folder: Path,
    *,
    autopilot_on: bool,
    once: bool,
    rounds: int | None,
    params: dict[str, Any],
    images: int | None,
) -> None:
    """Start everything, import the example's images, connect its project; then wait, or let a program label.

    Args:
        shown: the example.
        folder: where all of it is kept; a second start goes on from there.
        autopilot_on: a program labels through Label Studio's API and the learning curve is shown.
        once: end after that instead of waiting for Ctrl-C.
        rounds: batches that the program labels; as many as suit the example by default.
        params: more of the project's policy, as in "extra params"; the example's own counts where it says nothing.
        images: how many of the example's images to take; all of them by default.
    """
    policy = Policy.parse(shown.policy | params)
    rounds = rounds or shown.rounds
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "demo.json"
    state = State.load(path)
    server = EmbeddedLabelStudio(
        folder / "label-studio", state.label_studio_port, email=EMAIL, password=state.password, token=state.token
    )
    settings = Settings(
        label_studio_url=server.url,
        label_studio_api_key=state.token,
        url=f"http://127.0.0.1:{state.kdal_port}",
        home=folder / "kdal",
    )
    out.print("Starting Label Studio (the first start sets up its database and takes a minute) ...")
    with server, Supervisor() as children:
        client = LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key)
        _start_kdal(children, settings, folder)
        if (project := state.projects.get(shown.name)) is None:
            project = int(client.create_project(shown.title, shown.label_config)["id"])
            state.projects[shown.name] = project
            state.save(path)
        import_missing(shown, client, project, min(images or len(shown), len(shown)))
        connect_backend(settings, client, project, policy.model_dump(exclude_unset=True))
        resources = Resources.open(settings)
        out.print("kdal is putting the queue in order ...")
        autopilot.wait_for_order(resources, project, children)
        out.print(
            f"\nLabel Studio: [bold]{server.url}/projects/{project}/data[/bold]\n"
            f"User:         [bold]{EMAIL}[/bold]\n"
            f"Password:     [bold]{state.password}[/bold]\n"
            f'Press "Label All Tasks": after each {policy.budget} labels kdal retrains and reorders the queue.\n'
            f"How it stands: KDAL_HOME={settings.home_folder} {Path(sys.executable).parent / 'kdal'} status\n",
            soft_wrap=True,  # a command to be copied stays in one piece
        )
        if autopilot_on:
            autopilot.label(shown, resources, project, rounds=rounds, budget=policy.budget, children=children)
            curve.show(shown, resources, project, rounds=rounds, folder=folder, out=out)
        if not once:
            out.print("Everything runs until Ctrl-C.")
            if (ended := children.wait()) is not None:
                out.print(f"{ended.name} ended by itself: {ended.tail(5)}")
    out.print("Stopped. The same command goes on from here.")


def _start_kdal(children: Supervisor, settings: Settings, folder: Path) -> None:
    environment = {
        "LABEL_STUDIO_URL": settings.label_studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key,
        "KDAL_URL": settings.url,
        "KDAL_HOME": str(settings.home_folder),
        "KDAL_RECONCILE_SECONDS": os.environ.get("KDAL_RECONCILE_SECONDS", "30"),
    }
    port = settings.url.rpartition(":")[2]
    command = [sys.executable, "-m", "kdal"]
    serve = children.start(
        "kdal-serve", [*command, "serve", "--port", port], env=environment, log=folder / "kdal-serve.log"
    )
    children.start("kdal-worker", [*command, "worker"], env=environment, log=folder / "kdal-worker.log")
    serve.wait_until_healthy(f"{settings.url}/health", timeout=120)
