"""`kdal demo`: Label Studio, kdal and a project of real images on one machine, with nothing else to set up."""

from __future__ import annotations

import json
import secrets
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape

from kdal.console import SPINNER, out, progress
from kdal.demo import autopilot, curve
from kdal.demo.example import Example, import_missing
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from kdal.labelstudio.connection import connect_backend
from kdal.policy import Policy
from kdal.processes.child import KDAL, ProcessError, Supervisor, free_port, port_is_free
from kdal.processes.embedded import EmbeddedLabelStudio, find_label_studio
from kdal.resources import Resources
from kdal.settings import Settings
from kdal_core.errors import ConfigError

EMAIL = "demo@example.com"
STATE = "demo.json"
NOT_FOR_THE_DEMO = (
    "LABEL_STUDIO_PUBLIC_URL",
    "KDAL_DATABASE_URL",
    "KDAL_ASSETS",
    "KDAL_WEBHOOK_SECRET",
    "KDAL_AUTH_USER",
    "KDAL_AUTH_PASSWORD",
)
"""Variables that would mix the demo with a kdal that works for people."""


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
        """The state of an earlier start, or a new one; ports that are taken are replaced.

        Raises:
            ConfigError: the file is damaged.
        """
        if path.exists():
            try:
                kept = json.loads(path.read_text())
                if (project := kept.pop("project", None)) is not None:  # of a time when there were only digits
                    kept["projects"] = {"digits": project}
                state = cls(**kept)
            except (ValueError, TypeError, AttributeError) as error:
                raise ConfigError(f"{path} is damaged: delete the folder {path.parent} to start afresh") from error
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
    executable = find_label_studio()
    folder = folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        state = State.load(folder / STATE)
    except OSError as error:
        raise ConfigError(f"the demo keeps its data in {folder}, which cannot be used: {error.strerror}") from error
    settings = _settings(state, folder)
    server = EmbeddedLabelStudio(
        folder / "label-studio",
        state.label_studio_port,
        email=EMAIL,
        password=state.password,
        token=state.token,
        executable=executable,
    )
    with ExitStack() as running:
        with progress(out, "Starting Label Studio, which takes a minute the first time", SPINNER):
            running.enter_context(server)
        children = running.enter_context(Supervisor())
        with progress(out, "Starting kdal", SPINNER):
            _start_kdal(children, settings, folder)
        client = LabelStudioClient.of(settings)
        project = _project(shown, client, state, folder)
        import_missing(shown, client, project, min(images or len(shown), len(shown)))
        connect_backend(settings, client, project, policy.model_dump(exclude_unset=True))
        resources = Resources.open(settings)
        last = autopilot.wait_for_order(resources, project, children)
        _say_how_to_use(state, settings, project, policy)
        if autopilot_on:
            autopilot.label(shown, resources, project, last, rounds=rounds, budget=policy.budget, children=children)
            curve.show(shown, resources, project, rounds=rounds, folder=folder, out=out)
        if not once:
            out.print("Everything runs until Ctrl-C.")
            out.file.flush()
            if (ended := children.wait()) is not None:
                raise ProcessError(f"{ended.name} ended by itself:\n{ended.tail()}")
        labels = len(resources.label_studio.labelled_ids(project))
    _say_what_is_kept(shown, project, labels, folder)


def _settings(state: State, folder: Path) -> Settings:
    """The demo's own: whatever is set for a kdal in earnest, its database above all, has no part in it."""
    return Settings(
        label_studio_url=f"http://127.0.0.1:{state.label_studio_port}",
        label_studio_public_url="",
        label_studio_api_key=state.token,
        url=f"http://127.0.0.1:{state.kdal_port}",
        home=folder / "kdal",
        database_url="",
        assets="",
        webhook_secret="",
        auth_user="",
        auth_password="",
    )


def _start_kdal(children: Supervisor, settings: Settings, folder: Path) -> None:
    environment = {
        "LABEL_STUDIO_URL": settings.label_studio_url,
        "LABEL_STUDIO_API_KEY": settings.label_studio_api_key,
        "KDAL_URL": settings.url,
        "KDAL_HOME": str(settings.home_path),
        "KDAL_DEVICE": settings.device,
        "KDAL_THREADS": str(settings.threads),
        "KDAL_RECONCILE_SECONDS": str(settings.reconcile_seconds),
        "KDAL_KEEP_MODELS": "10000",  # the curve at the end asks the model of each round
        **dict.fromkeys(NOT_FOR_THE_DEMO, ""),
    }
    port = settings.url.rpartition(":")[2]
    # In the demo's folder, where no `.env` sets anything else.
    serve = children.start(
        "kdal-serve", [*KDAL, "serve", "--port", port], env=environment, cwd=folder, log=folder / "kdal-serve.log"
    )
    children.start("kdal-worker", [*KDAL, "worker"], env=environment, cwd=folder, log=folder / "kdal-worker.log")
    serve.wait_until_healthy(f"{settings.url}/health", timeout=120)


def _project(shown: Example, client: LabelStudioClient, state: State, folder: Path) -> int:
    """The example's project in Label Studio: an earlier start's, if it is still there."""
    if (known := state.projects.get(shown.name)) is not None:
        try:
            client.project(known)
        except LabelStudioError as error:
            if error.status != 404:
                raise
        else:
            return known
    project = int(client.create_project(shown.title, shown.label_config)["id"])
    state.projects[shown.name] = project
    state.save(folder / STATE)
    return project


def _say_how_to_use(state: State, settings: Settings, project: int, policy: Policy) -> None:
    command, known = Path(sys.executable).parent / "kdal", settings.with_credentials()
    lines = [
        f"\nLabel Studio: [bold]{settings.label_studio_url}/projects/{project}/data[/bold]",
        f"User:         [bold]{EMAIL}[/bold]",
        f"Password:     [bold]{escape(state.password)}[/bold]",
        f'Press "Label All Tasks": after each {policy.budget} labels kdal retrains and reorders the queue.',
        f"What kdal does, and how well: [bold]{settings.url}/projects/{project}[/bold]",
        f"User:         [bold]{escape(known.auth_user)}[/bold]",
        f"Password:     [bold]{escape(known.auth_password)}[/bold]",
        escape(f"The same here: KDAL_HOME={settings.home_path} {command} status\n"),
    ]
    out.print("\n".join(lines), markup=True, soft_wrap=True)  # a command to be copied stays in one piece


def _say_what_is_kept(shown: Example, project: int, labels: int, folder: Path) -> None:
    kept = {
        "label-studio": f"Label Studio's database and images; project {project} has {labels:,} labels",
        "kdal": "kdal's database and models",
        f"{shown.name}-curve.png": "the learning curve as a picture",
        "kdal-*.log": "what kdal's processes wrote",
    }
    out.print(f"Saved in {folder}:", soft_wrap=True)
    for name, what in kept.items():
        if any(folder.glob(name)):
            out.print(f"  {name:<17} {what}", soft_wrap=True)
    out.print("Stopped. The same command goes on from here.")
