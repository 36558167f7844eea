"""Processes that are there at once: forked from one that has imported what takes any other process seconds."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["kdal.datasets.exporter", "kdal.datasets.importer", "kdal.distill.run", "kdal.labelstudio.connection"]
)


class ForkedKdal:
    """`kdal ARGUMENTS` in a process, a working folder and an environment of its own; used like a `subprocess.Popen`.

    Args:
        arguments: of the command.
        cwd: its working folder.
        env: all of its environment.
    """

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str]) -> None:
        self._outputs = tempfile.TemporaryDirectory()
        self._paths = [Path(self._outputs.name) / name for name in ("stdout", "stderr")]
        self._process = FORKED.Process(target=_kdal, args=(arguments, cwd, dict(env), self._paths))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, -n when signal n ended it, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit status, see `returncode`."""
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to stdout and to stderr, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"it had not ended after {timeout} s: {[path.read_text() for path in self._paths]}")
        out, errors = (path.read_text() for path in self._paths)
        self._outputs.cleanup()
        return out, errors


def run_kdal(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` would give for `kdal ARGUMENTS`; a working folder that is not named is the current one."""
    child = ForkedKdal(*arguments, cwd=cwd or Path.cwd(), env=env)
    out, errors = child.communicate(timeout)
    assert child.returncode is not None
    return subprocess.CompletedProcess(arguments, child.returncode, out, errors)


def _kdal(arguments: tuple[str, ...], cwd: Path, env: dict[str, str], outputs: list[Path]) -> None:
    for descriptor, path in enumerate(outputs, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["kdal", *arguments]
    from kdal.cli.main import main

    main()
