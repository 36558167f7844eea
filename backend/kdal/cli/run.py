"""`kdal serve`, `kdal worker` and `kdal up`: the processes that do the work."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Annotated, Any

import typer

from kdal.console import log_to_stderr

LEAVING = 5.0
"""Seconds that server and worker have to end what they are doing, once they are told to stop."""
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `kdal` command."""
    app.command()(serve)
    app.command()(worker)
    app.command()(up)


def serve(
    host: Host = "127.0.0.1",
    port: Port = 9090,
    threads: Annotated[int, typer.Option(help="Requests answered at once.")] = 8,
) -> None:
    """Answer Label Studio: the ML-backend protocol. Rounds are computed by `kdal worker`."""
    from gunicorn.app.base import BaseApplication

    from kdal.resources import Resources
    from kdal.settings import Settings
    from kdal.web.app import create_app

    log_to_stderr()
    settings = Settings.load()
    Resources.open(settings).storage.close()  # what is wrong with the settings is said here, not by gunicorn

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            # One process: models are in memory once. Threads: torch and the database wait outside the GIL.
            self.cfg.set("bind", f"{host}:{port}")
            self.cfg.set("workers", 1)
            self.cfg.set("threads", threads)
            self.cfg.set("worker_class", "gthread")
            self.cfg.set("timeout", 120)
            self.cfg.set("graceful_timeout", int(LEAVING))
            self.cfg.set("keepalive", 75)
            self.cfg.set("loglevel", "warning")
            self.cfg.set("control_socket_disable", True)

        def load(self) -> Any:
            # In the worker process, after the fork: CUDA and database connections do not survive one.
            return create_app(Resources.open(settings))

    Server().run()


def worker() -> None:
    """Compute rounds: train, score, order, publish. Goes on with whatever an earlier worker left unfinished."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def leave_when_told() -> None:
        stop.wait()
        time.sleep(LEAVING)
        os._exit(0)  # whatever the main thread waits for

    threading.Thread(target=leave_when_told, daemon=True).start()

    from kdal.resources import Resources
    from kdal.rounds.engine import Engine
    from kdal.rounds.worker import Worker, only_worker
    from kdal.settings import Settings

    log_to_stderr()
    resources = Resources.open(Settings.load())
    with only_worker(resources.settings):
        Worker(resources, Engine(resources)).run(stop)
        # With the lock in hand, and without waiting for threads that train: the step under way is repeated by the
        # next start, as after a power cut.
        sys.stderr.flush()
        os._exit(0)


def up(host: Host = "127.0.0.1", port: Port = 9090) -> None:
    """Server and worker together, until Ctrl-C."""
    from kdal.processes.child import ProcessError, Supervisor
    from kdal.settings import Settings

    Settings.load()
    kdal = [sys.executable, "-m", "kdal"]
    with Supervisor() as children:
        children.start("kdal serve", [*kdal, "serve", "--host", host, "--port", str(port)])
        children.start("kdal worker", [*kdal, "worker"])
        ended = children.wait()
    if ended is not None:
        raise ProcessError(f"{ended.name} ended by itself")
