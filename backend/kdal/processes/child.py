"""Child processes that are healthy before they are used and gone when they should be."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

import requests

from kdal.processes import guard
from kdal_core.errors import ConfigError, KdalError

KDAL = (sys.executable, "-P", "-m", "kdal")
"""The `kdal` command in a process of its own. Without -P, a folder `kdal` in the working directory (the demo's data, or
a KDAL_HOME of that name) would be taken for the package where kdal is installed editable."""
_TAIL_LINES = 30
_SERVER_PORTS = range(10_000, 32_768)
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ProcessError(KdalError):
    """A child process that did not start, did not become healthy or ended early; quotes its last output."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of `host` that is free now; another process may still be faster to take it.

    It is one that Linux gives to no outgoing connection: a server that takes seconds to start still finds it free.

    Raises:
        ProcessError: hundreds were tried and none was free.
    """
    tried = random.SystemRandom().sample(_SERVER_PORTS, 500)
    for port in tried:
        if port_is_free(port, host):
            return port
    raise ProcessError(f"no free port on {host} between {_SERVER_PORTS.start} and {_SERVER_PORTS.stop}: stop a program")


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on that port now."""
    try:
        check_port(port, host)
    except ConfigError:
        return False
    return True


def check_port(port: int, host: str = "127.0.0.1") -> None:
    """Check that a server could listen there now.

    Args:
        port: TCP port.
        host: a name or an address of this machine; "0.0.0.0" or "::" for all of them.

    Raises:
        ConfigError: it could not; says why, and what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise ConfigError(f"there is no host {host!r}: give an address of this machine, such as 127.0.0.1") from error
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of a predecessor that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            reasons = {
                errno.EADDRINUSE: f"port {port} is taken at {host}: stop the other program or choose another port",
                errno.EACCES: f"port {port} may not be used without more rights: choose one above 1023",
                errno.EADDRNOTAVAIL: f"{host} is no address of this machine: 0.0.0.0 stands for all that it has",
            }
            reason = reasons.get(error.errno or 0, f"cannot listen on port {port} of {host}: {error.strerror}")
            raise ConfigError(reason) from error


class Child:
    """One running command with everything that it forks, in a session of its own.

    It ends when `stop` is called, when this process ends, however it ends (SIGKILL included), or by itself.
    Output goes to the file `log` (appended), or, without one, to stderr, the child's name before each line.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        grace: float = 10.0,
    ) -> None:
        """Start `command`.

        Args:
            name: how messages call it.
            command: the program and its arguments.
            env: variables to add to this process's environment.
            cwd: its working folder.
            log: the file for its output.
            grace: seconds between SIGTERM and SIGKILL.
        """
        self.name = name
        self.log = log
        self._grace = grace
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        argv = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(grace), *map(str, command)]
        output: int | IO[bytes] = subprocess.PIPE
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        try:
            # The guard gets a session too: a Ctrl-C in the terminal is ours to hand on, in order.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        finally:
            if not isinstance(output, int):
                output.close()
        self._reader = threading.Thread(target=self._forward, name=f"output of {name}", daemon=True)
        if log is None:
            self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the guard, the root of the child's process tree."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of its output."""
        if self.log is None:
            return "\n".join(list(self._tail)[-lines:])
        with self.log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 32_768))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def answers(self, url: str) -> bool:
        """Whether a GET of `url` answers 200 now."""
        try:
            return _status_of(url) == 200
        except requests.RequestException:
            return False

    def wait_until_healthy(self, url: str, *, timeout: float = 60.0) -> None:
        """Wait until a GET of `url` answers 200.

        Raises:
            ProcessError: it ended, or was not healthy after `timeout` seconds; the message quotes its output.
        """
        deadline = time.monotonic() + timeout
        problem = "no answer"
        while time.monotonic() < deadline:
            status = self.poll()
            if status is not None:
                raise ProcessError(self._report(f"ended with status {status} before {url} answered"))
            try:
                answer = _status_of(url)
            except requests.RequestException as error:
                problem = type(error).__name__
            else:
                if answer == 200:
                    return
                problem = f"status {answer}"
            time.sleep(0.1)
        raise ProcessError(self._report(f"was not healthy at {url} after {timeout:g} s ({problem})"))

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit status, or None when it still runs after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def ask_to_stop(self) -> None:
        """SIGTERM for the command and all that it forked, SIGKILL after the grace period; returns at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Ask it to stop, and wait until all of it is gone."""
        if self._process.poll() is None:
            self.ask_to_stop()
            # The guard does the killing; it is killed itself only if it hangs, and takes the command along.
            if self.wait(self._grace + 5) is None:
                self._process.kill()
                self._process.wait()
        if self._reader.is_alive():
            self._reader.join(timeout=2)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _report(self, what: str) -> str:
        source = f"; its log {self.log} ends with" if self.log else "; its output ends with"
        return f"{self.name} {what}{source}:\n{self.tail() or '(nothing)'}"

    def _forward(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            self._tail.append(line)
            sys.stderr.write(f"{self.name:>12} | {line}\n")


def _status_of(url: str) -> int:
    with requests.Session() as session:
        session.trust_env = False  # a proxy of the environment has no business with a child of ours
        return session.get(url, timeout=2, allow_redirects=False).status_code


class Supervisor:
    """The children of one program: started in order, stopped together when the `with` block ends."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
        grace: float = 10.0,
    ) -> Child:
        """Start one more child, see `Child`."""
        child = Child(name, command, env=env, cwd=cwd, log=log, grace=grace)
        self._children.append(child)
        return child

    def ended(self) -> Child | None:
        """A child that has ended, if one has."""
        return next((child for child in self._children if child.poll() is not None), None)

    def wait(self, timeout: float | None = None) -> Child | None:
        """Wait until one child ends and return it.

        None after `timeout` seconds, or when SIGTERM or SIGINT asks this process to stop. To be called from
        the main thread, the only one that may receive signals.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with _stop_requested() as stop:
            while not stop.is_set() and (deadline is None or time.monotonic() < deadline):
                if (child := self.ended()) is not None:
                    return child
                stop.wait(0.2)
        return None

    def stop(self) -> None:
        """Stop all children at the same time: to end takes as long as the slowest of them, not as all of them."""
        for child in self._children:
            child.ask_to_stop()
        while self._children:
            self._children.pop().stop()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, instead of ending the process with its children half stopped."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = {number: signal.signal(number, handle) for number in _STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
