"""A teacher behind a real HTTP server in a process of its own, which tests slow down, break and kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from kdal.processes.child import free_port
from tests.paths import PYTHONPATH

SERVED = Path(__file__).with_name("served.py")
CLASSES = ("cat", "dog", "hen")


class Endpoint:
    """The server process; starts again on the same port after it was killed."""

    script = SERVED
    classes: tuple[str, ...] = CLASSES

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()  # and it is kept from outgoing connections while the server is down
        self.behave()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/classify"

    def start(self) -> None:
        command = [sys.executable, str(self.script), str(self.folder), str(self.port)]
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def reset(self) -> Self:
        """As it was before anybody asked it anything."""
        if self._process.poll() is not None:
            self.start()
        self.behave()
        for name in ("asked", "requests"):
            (self.folder / name).unlink(missing_ok=True)
        return self

    def behave(self, **mode: Any) -> None:
        """How it answers from now on, see served.py."""
        draft = self.folder / "mode.part"
        draft.write_text(json.dumps(mode))
        draft.rename(self.folder / "mode.json")

    @property
    def asked(self) -> list[int]:
        """Numbers of the images that it worked on."""
        path = self.folder / "asked"
        return list(path.read_bytes()) if path.exists() else []

    @property
    def requests(self) -> list[dict[str, Any]]:
        path = self.folder / "requests"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def settings(self, **fields: Any) -> dict[str, Any]:
        """Of a teacher at this address, in a hurry."""
        quick = {"timeout": 10, "pause": 0.02, "attempts": 4, "patience": 2, "batch_size": 8, "workers": 2}
        return {"kind": "http", "url": self.url, "classes": list(self.classes), **quick, **fields}


@pytest.fixture
def endpoint(tmp_path):
    server = Endpoint(tmp_path)
    yield server
    server.kill()


def pictures(count: int, start: int = 0, size: tuple[int, int] = (5, 4)) -> Tensor:
    """Images whose upper left pixel tells their number, all other pixels noise."""
    images = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, :, 0, 0] = torch.arange(start, start + count, dtype=torch.uint8)[:, None]
    return images


def truth(images: Tensor) -> Tensor:
    share = images[:, 1, 0, 0].float() / 256
    return torch.stack([share, 1 - share, 0 * share], dim=1)
