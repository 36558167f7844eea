"""A PostgreSQL of its own for a test, which restarts it as an administrator does."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Self

from kdal.processes.child import free_port

USER = "postgres"
"""Debian's package makes it; as root, the server is run by it: PostgreSQL refuses root."""


def programs() -> Path:
    """The folder of the newest PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("pg_ctl")
    assert found or on_path, "no PostgreSQL: apt-get install postgresql (make venv-test does it for root)"
    return found[-1].parent if found else Path(str(on_path)).parent


class PostgreSQL:
    """A server on 127.0.0.1 with an empty database `kdal`, while the block runs.

    Args:
        folder: of its data; it must be one that other users may enter.
    """

    def __init__(self, folder: Path) -> None:
        self._data, self.port = folder / "data", free_port()

    @property
    def url(self) -> str:
        """As KDAL_DATABASE_URL."""
        return f"postgresql+psycopg://kdal@127.0.0.1:{self.port}/kdal"

    def __enter__(self) -> Self:
        self._data.mkdir(parents=True)
        if os.getuid() == 0:
            user = pwd.getpwnam(USER)
            os.chown(self._data, user.pw_uid, user.pw_gid)
        self._run("initdb", "--auth", "trust", "--username", "kdal", "--no-sync", "--pgdata", str(self._data))
        self._control("start")
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", "kdal", "kdal")
        return self

    def __exit__(self, *_: object) -> None:
        self._control("stop")

    def restart(self) -> None:
        """End every connection in the middle of whatever it does, and come back a moment later."""
        self._control("restart")

    def _control(self, what: str) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k '' -c fsync=off"
        log = str(self._data / "server.log")
        self._run("pg_ctl", what, "-w", "-m", "immediate", "-o", options, "-l", log, "-D", str(self._data))

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(programs() / program), *arguments]
        if os.getuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        # Its output would be held open by the server that it starts.
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/", timeout=120)
        assert done.returncode == 0, f"{command} ended with {done.returncode}"
