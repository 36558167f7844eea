"""`kdal serve`, `kdal worker` and `kdal up`: the processes that do the work."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from kdal.console import interruptible, out
from kdal_core.errors import ConfigError

if TYPE_CHECKING:
    from kdal.settings import Settings

DEFAULT_URL = "http://127.0.0.1:9090"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""What stands for all addresses of this machine, and the one at which the machine reaches itself."""
LEAVING = 5.0
"""Seconds that server and worker have to end what they are doing, once they are told to stop."""
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all that this machine has.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `kdal` command."""
    app.command()(serve)
    app.command()(worker)
    app.command()(up)


def serve(
    host: Host = "127.0.0.1",
    port: Port = 9090,
    threads: Annotated[int, typer.Option(help="Requests for predictions answered at the same time.", min=1)] = 8,
    quiet: Annotated[bool, typer.Option("--quiet", hidden=True)] = False,
) -> None:
    """Answer Label Studio: the ML-backend protocol. Rounds are computed by `kdal worker`."""
    settings = _prepare(host, port)
    from gunicorn.app.base import BaseApplication

    from kdal.resources import Resources
    from kdal.web.app import create_app
    from kdal.web.patient_worker import ROOM

    Resources.open(settings).storage.close()  # what is wrong with the settings is said here, not by gunicorn

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            # One process: models are in memory once. Threads: torch and the database wait outside the GIL. Those to
            # spare are for slow clients, see kdal.web.patient_worker.
            self.cfg.set("bind", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            self.cfg.set("workers", 1)
            self.cfg.set("threads", threads + ROOM)
            self.cfg.set("worker_class", "kdal.web.patient_worker.PatientWorker")
            self.cfg.set("timeout", 120)
            self.cfg.set("graceful_timeout", int(LEAVING))
            self.cfg.set("keepalive", 75)
            self.cfg.set("loglevel", "warning")
            self.cfg.set("control_socket_disable", True)
            if not quiet:
                self.cfg.set("when_ready", lambda _server: _announce(settings, host, port, worker=False))

        def load(self) -> Any:
            # In the worker process, after the fork: CUDA and database connections do not survive one.
            return create_app(Resources.open(settings), predictions=threads)

    Server().run()


def worker() -> None:
    """Compute rounds: train, score, order, publish. Goes on with whatever an earlier worker left unfinished."""
    stop = _told_to_stop()

    from kdal.resources import Resources
    from kdal.rounds.engine import Engine
    from kdal.rounds.worker import Worker, only_worker
    from kdal.settings import Settings

    resources = Resources.open(Settings.load())
    with only_worker(resources.settings):
        Worker(resources, Engine(resources)).run(stop)
        # With the lock in hand, and without waiting for threads that train: the step under way is repeated by the
        # next start, as after a power cut.
        sys.stderr.flush()
        os._exit(0)


def _told_to_stop() -> threading.Event:
    """An event that SIGTERM and SIGINT set. A few seconds later this process ends, whatever its threads are doing."""
    stop = threading.Event()
    woken, wakes = socket.socketpair()
    wakes.setblocking(False)
    # Python runs a signal's handler in the main thread, once that is back from whatever it waits for: a database
    # that is locked, say. This is written to at once, and read by a thread of its own.
    signal.set_wakeup_fd(wakes.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def leave() -> None:
        with woken, wakes:
            woken.recv(1)
            stop.set()
            time.sleep(LEAVING)
            os._exit(0)

    threading.Thread(target=leave, name="leave when told", daemon=True).start()
    return stop


def up(host: Host = "127.0.0.1", port: Port = 9090) -> None:
    """Server and worker together, until Ctrl-C."""
    from kdal.processes.child import KDAL, ProcessError, Supervisor

    settings = _prepare(host, port)
    environment = {"KDAL_URL": settings.url}
    with interruptible("Stopped."), Supervisor() as children:
        serve = [*KDAL, "serve", "--host", host, "--port", str(port), "--quiet"]
        server = children.start("kdal serve", serve, env=environment, grace=LEAVING + 2)
        children.start("kdal worker", [*KDAL, "worker"], env=environment, grace=LEAVING + 2)
        while children.ended() is None and not server.answers(f"{_own_address(host, port)}/health"):
            time.sleep(0.2)
        if children.ended() is None:
            _announce(settings, host, port, worker=True)
        ended = children.wait()
    if ended is not None:
        raise ProcessError(f"{ended.name} ended by itself: what it wrote last says why")


def _prepare(host: str, port: int) -> Settings:
    """The settings of a server, once all that can be checked quickly has been.

    Raises:
        KdalError: something is missing or taken; says what to do.
    """
    from kdal.labelstudio.client import LabelStudioClient
    from kdal.processes.child import check_port
    from kdal.settings import Settings
    from kdal.storage.database import Storage

    settings = Settings.load()
    if "url" not in settings.model_fields_set:  # the default is for the default port
        settings = settings.model_copy(update={"url": _own_address(host, port)})
    missing = [name for name in ("flask", "gunicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the server needs {' and '.join(missing)}: pip install 'kdal[server]'")
    LabelStudioClient.of(settings)
    check_port(port, host)
    _ = settings.home_folder
    Storage(settings.sqlalchemy_url).close()
    _ = settings.secret, settings.with_credentials()  # made by whoever comes first: `kdal connect` comes after us
    return settings


def _own_address(host: str, port: int) -> str:
    """How this machine reaches a server that listens there."""
    name = EVERYWHERE.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def _announce(settings: Settings, host: str, port: int, worker: bool) -> None:
    """Say where kdal is, and what to do next."""
    address = urlsplit(settings.url)
    variable = "" if settings.url == DEFAULT_URL else f"KDAL_URL={settings.url} "
    notes = []
    if (address.port or {"https": 443}.get(address.scheme, 80)) != port:
        notes.append(f"It listens on port {port}: what is between must forward KDAL_URL to it.")
    if host in EVERYWHERE and address.hostname in ("127.0.0.1", "localhost", "::1"):
        notes.append("If Label Studio is on another machine, set KDAL_URL to an address of this one.")
    if not worker:
        notes.append(f"Rounds are computed by another command, in the same folder: {variable}kdal worker")
    lines = [
        "kdal is up.",
        f"  Server:       {settings.url} (KDAL_URL: where Label Studio reaches kdal)",
        f"  Projects:     {settings.url}/projects (a page for each; `kdal credentials` shows user and password)",
        f"  Label Studio: {settings.label_studio_url} (LABEL_STUDIO_URL)",
        f"  Data:         {settings.home_path} (KDAL_HOME)",
        *notes,
        "To connect a project, in the same folder; N is the number in the project's address in Label Studio:",
        f"  {variable}kdal connect --project N",
        "Ctrl-C stops kdal.",
    ]
    for line in lines:
        out.print(line, soft_wrap=True)  # a command to be copied stays in one piece
    out.file.flush()
