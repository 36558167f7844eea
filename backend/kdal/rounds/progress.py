"""Where a round is: stored for `kdal status`, and a bar in the worker's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from tqdm import tqdm

from kdal.storage.database import Storage
from kdal_core.errors import KdalError

STORE_EVERY = 1.0
"""Seconds between two notes of the same step's progress in the tables."""


def _ignore(_: Any) -> None:
    pass


@dataclass(frozen=True)
class StepReport:
    """What a step tells while it runs; by default nobody listens."""

    progress: Callable[[float], None] = _ignore
    """Takes the share of the step that is done, 0 to 1."""
    unusable: Callable[[dict[int, str]], None] = _ignore
    """Takes the tasks that the round cannot use, with the reasons in words."""
    facts: Callable[[dict[str, Any]], None] = _ignore
    """Takes what is worth knowing before the step ends."""


class SupersededError(KdalError):
    """The round was cancelled or begun again: what this start of it computes counts for nothing."""


def check_current(storage: Storage, project: int, number: int, restarts: int) -> None:
    """Raise `SupersededError` unless this start of a round still counts."""
    if not storage.is_current(project, number, restarts):
        raise SupersededError(superseded(project, number))


def superseded(project: int, number: int) -> str:
    """What a `SupersededError` says."""
    return f"project {project}: round {number} was cancelled or begun again"


@contextmanager
def step(storage: Storage, project: int, number: int, name: str, restarts: int = 0) -> Iterator[StepReport]:
    """Mark a round as being in a step; what the step reports is stored.

    The seconds that the step took are kept when it ends well.

    Raises:
        SupersededError: from the step's reports, when the round is cancelled or begun again meanwhile.
    """
    check_current(storage, project, number, restarts)
    storage.update_round(project, number, step=name, progress=0.0, error=None)
    started = stored = time.monotonic()
    terminal = sys.stderr.isatty()
    bar = tqdm(
        total=100,
        desc=f"project {project} round {number}: {name}",
        bar_format="{desc} |{bar:20}| {percentage:3.0f}% {elapsed}<{remaining}",
        ascii=not terminal,
        mininterval=0.5 if terminal else 5.0,
        file=sys.stderr if terminal else _Lines(sys.stderr),
    )

    def progress(share: float) -> None:
        nonlocal stored
        bar.update(int(100 * share) - bar.n)
        if time.monotonic() - stored >= STORE_EVERY:
            stored = time.monotonic()
            check_current(storage, project, number, restarts)
            storage.update_round(project, number, progress=share)

    try:
        yield StepReport(
            progress,
            unusable=lambda reasons: storage.note_unusable(project, number, reasons),
            facts=lambda facts: storage.merge_round(project, number, facts=facts),
        )
        progress(1.0)
    finally:
        bar.close()
    storage.merge_round(project, number, seconds={name: round(time.monotonic() - started, 3)})


class _Lines:
    """A log file's view of a progress bar: each drawing is a line of its own, not drawn over the last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write what a terminal would draw in place."""
        line = text.strip("\r\n ")
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        """Write through."""
        self._stream.flush()
