"""The `kdal` command as a person runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def kdal(env, tmp_path) -> Run:
    """`kdal("status", "--json", cwd=..., KDAL_HOME=...)`: output as text, without a terminal."""

    def run(*arguments: str, cwd=tmp_path, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kdal", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **variables},
            check=False,
        )

    return run
