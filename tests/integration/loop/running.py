"""A kdal of its own for a test: server and worker as real processes, killed and started as the test likes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from kdal.processes.child import KDAL, Child, free_port
from kdal.processes.embedded import EmbeddedLabelStudio
from kdal.rounds.status import status
from kdal.rounds.store import RoundStore
from kdal.settings import Settings
from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal.storage.tables import Round
from tests.forked import run_kdal
from tests.integration.harness import Api, Project

T = TypeVar("T")
FAST = {"budget": 8, "epochs": 12, "holdout": 0.0}
"""A policy under which a round takes seconds."""
ENDLESS = {"epochs": 10_000, "batch_size": 2}
"""A training that no test waits for: minutes, on a few labels."""


class RunningKdal:
    """Server and worker on a folder of their own, connected to a Label Studio.

    Args:
        home: KDAL_HOME.
        label_studio: the server it works for.
        extra: more environment variables.
    """

    def __init__(self, home: Path, label_studio: EmbeddedLabelStudio, **extra: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "LABEL_STUDIO_URL": label_studio.url,
            "LABEL_STUDIO_API_KEY": label_studio.token,
            "KDAL_URL": self.url,
            "KDAL_HOME": str(home),
            "KDAL_IMAGE_SOURCES": "127.0.0.1",  # where tests serve images of their own
            # Long, so that what a test sees is the work of events; tests of the timer set it short.
            "KDAL_RECONCILE_SECONDS": "600",
            **extra,
        }
        self.home = home
        self.server: Child | None = None
        self.worker: Child | None = None
        self.settings = Settings(
            home=home, assets=extra.get("KDAL_ASSETS", ""), database_url=extra.get("KDAL_DATABASE_URL", "")
        )
        self.user = self._user()
        self.form = {"auth_method": "BASIC_AUTH", "basic_auth_user": self.user[0], "basic_auth_pass": self.user[1]}
        """What an owner fills in, beside the address, to add kdal by hand."""
        self.storage = Storage(self.settings.sqlalchemy_url)
        self.assets = Assets(self.settings.assets_root)

    def _user(self) -> tuple[str, str]:
        """User and password that the server asks for, as `kdal credentials` shows them."""
        known = self.settings.with_credentials()
        return known.auth_user, known.auth_password

    def start_server(self) -> None:
        """`kdal serve`, healthy."""
        self.server = self._child("server", "serve", "--port", str(self.port))
        self.server.wait_until_healthy(f"{self.url}/health", timeout=120)

    def start_worker(self) -> None:
        """`kdal worker`."""
        self.worker = self._child("worker", "worker")

    def start(self) -> RunningKdal:
        """Whichever of the two does not run."""
        if self.server is None or self.server.poll() is not None:
            self.start_server()
        if self.worker is None or self.worker.poll() is not None:
            self.start_worker()
        return self

    def stop(self) -> None:
        """Stop what runs; whatever a test did meanwhile, no secret was written down."""
        for child in (self.worker, self.server):
            if child is not None:
                child.stop()
        self.storage.close()
        assert self.leaks() == []

    def leaks(self) -> list[str]:
        """The logs and tables that hold one of kdal's secrets."""
        names = ("LABEL_STUDIO_API_KEY", "KDAL_AUTH_PASSWORD", "KDAL_WEBHOOK_SECRET", "AWS_SECRET_ACCESS_KEY")
        hidden = [self.environment[name].encode() for name in names if self.environment.get(name)]
        kept = self.home / "webhook-secret"
        hidden += [kept.read_bytes().strip()] if kept.exists() else []
        hidden.append(self.user[1].encode())
        files = [path for path in self.home.glob("*") if path.suffix == ".log" or ".sqlite" in path.name]
        return [path.name for path in files if any(secret in path.read_bytes() for secret in hidden)]

    def kill(self, child: Child | None) -> None:
        """SIGKILL, as the kernel's out-of-memory killer does it: no process of it gets to say a word."""
        assert child is not None
        # The guard beside the child is not what is being tested: it goes last.
        for process in psutil.Process(child.pid).children(recursive=True):
            os.kill(process.pid, signal.SIGKILL)
        child.stop()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `kdal` command."""
        return run_kdal(*arguments, env={**os.environ, **self.environment}, timeout=120)

    def status_text(self) -> str:
        """What `kdal status` says, on one line."""
        answer = self.cli("status")
        assert answer.returncode == 0, answer.stderr
        return " ".join(answer.stdout.split())

    def connect(self, project: Project, **policy: Any) -> None:
        """`kdal connect`."""
        answer = self.cli("connect", "--project", str(project.id), "--params", json.dumps({**FAST, **policy}))
        assert answer.returncode == 0, answer.stderr

    # ------------------------------------------------------------------ what a test looks at

    def report(self, project: Project) -> dict[str, Any]:
        """The project in `kdal status --json`."""
        return next(p for p in status(self.storage)["projects"] if p["id"] == project.id)

    def rounds(self, project: Project) -> list[Round]:
        """Its rounds."""
        return self.storage.rounds(project.id)

    def uid(self, project: Project) -> str:
        """Its uid."""
        row = self.storage.project(project.id)
        assert row is not None
        return row.uid

    def order(self, project: Project, number: int) -> list[int]:
        """The order that kdal computed in a round, as its manifest has it."""
        manifest = self.assets.read_json(RoundStore(self.assets, self.uid(project), number).key("order.json"))
        return list(manifest["tasks"])

    def snapshot(self, project: Project, number: int) -> dict[str, Any]:
        """What a round was computed from."""
        return dict(self.assets.read_json(RoundStore(self.assets, self.uid(project), number).key("snapshot.json")))

    def wait_open(self, project: Project, number: int, timeout: float = 120) -> Round:
        """Wait until a round is open, and everything that it does after has been done."""
        return self.wait(
            lambda: next(
                (
                    r
                    for r in self.rounds(project)
                    if r.number == number and r.opened_at is not None and "clean up" in r.seconds
                ),
                None,
            ),
            f"round {number} of project {project.id} to be open",
            timeout,
        )

    def wait_counted(self, project: Project, counted: int, timeout: float = 30) -> None:
        """Wait until the open round has counted `counted` labels."""
        self.wait(
            lambda: self.report(project)["counted"] == counted or None, f"{counted} labels to be counted", timeout
        )

    def wait(self, look: Callable[[], T | None], what: str, timeout: float = 60) -> T:
        """Wait until `look` finds something; on time-out show how things stand."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            time.sleep(0.02)
        logs = "\n".join(f"--- {c.name}\n{c.tail()}" for c in (self.server, self.worker) if c is not None)
        raise AssertionError(f"waited {timeout} s for {what}\n{status(self.storage)}\n{logs}")

    def settled(self, project: Project, seconds: float = 2.0) -> list[Round]:
        """The rounds, after some time in which a wrong extra one would have begun."""
        time.sleep(seconds)
        return self.rounds(project)

    def _child(self, name: str, *arguments: str) -> Child:
        return Child(f"kdal {name}", [*KDAL, *arguments], env=self.environment, log=self.home / f"{name}.log")


def drain(
    project: Project, users: list[Api], count: int, choose: Callable[[int], int | str | list[dict[str, Any]]]
) -> list[int]:
    """Users in turn take the next task and label it; returns the tasks in the order they were served."""
    served = []
    for i in range(count):
        api = users[i % len(users)]
        task = project.next_task(api)
        assert task is not None
        served.append(task)
        project.annotate(task, choose(task), api=api)
    return served


def unlabelled(project: Project) -> dict[int, dict[str, Any]]:
    """The prediction of each task that nobody has labelled."""
    found = {task["id"]: task["predictions"] for task in project.tasks() if not task["annotations"]}
    assert {len(predictions) for predictions in found.values()} == {1}
    return {task: predictions[0] for task, predictions in found.items()}
