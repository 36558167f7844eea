"""What commands print while they work: a bar on a terminal; lines in a pipe or a log, where a bar leaves nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

EVERY = 10.0
"""Seconds between two lines about the same work, where there is no terminal."""
CLEANING_UP = 7.0
"""Seconds that a command has to leave in order, once it was told to end."""
BAR = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TextColumn("{task.fields[note]}"),
)
SPINNER = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
"""For work that has no end that could be counted to."""

out = Console(highlight=False, markup=False)
"""Standard output. Messages hold addresses and other programs' words: nothing in them is taken for markup."""


class Report(Protocol):
    """Tells how far the work is."""

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        """Note that `done` of `total` (None: not known yet) is done; `note` says what is going on, in words."""


@contextmanager
def progress(
    console: Console, what: str, columns: Sequence[ProgressColumn] = BAR, *, estimate_over: float = 30.0
) -> Iterator[Report]:
    """Show how far the work is until the block ends.

    On a terminal a bar shows it, and is gone afterwards. Elsewhere there is a line when the work begins, one each
    `EVERY` seconds that says how far it is, and one at its end that says how long it took.

    Args:
        console: where to.
        what: the work, for example "Importing".
        columns: of the bar; they may show ``{task.fields[note]}``.
        estimate_over: seconds of work from which the bar estimates the time that is left.
    """
    if console.is_terminal:
        with Progress(*columns, console=console, transient=True, speed_estimate_period=estimate_over) as bar:
            row = bar.add_task(what, total=None, note="")
            yield lambda done, total=None, note="": bar.update(row, completed=done, total=total, note=note)
        return
    lines = _Lines(console, what)
    yield lines
    lines.end()


class _Lines:
    def __init__(self, console: Console, what: str) -> None:
        self._console, self._what = console, what
        self._began = self._last = time.monotonic()
        self._count = ""
        self._print(f"{what} ...")

    def __call__(self, done: float, total: float | None = None, note: str = "") -> None:
        share = total is not None and total <= 1  # says nothing once all is done
        self._count = "" if share else f"{done:,.0f}" if total is None else f"{done:,.0f} of {total:,.0f}"
        if (now := time.monotonic()) - self._last >= EVERY:
            self._last = now
            facts = [f"{done:.0%}" if share else self._count, note, f"{duration(now - self._began)} so far"]
            self._print(f"{self._what}: {', '.join(fact for fact in facts if fact)}")

    def end(self) -> None:
        took = f"done in {duration(time.monotonic() - self._began)}"
        self._print(f"{self._what}: {', '.join(fact for fact in (self._count, took) if fact)}")

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)
        self._console.file.flush()  # a pipe would keep it back until much more has come


def duration(seconds: float) -> str:
    """How long something took, for people.

    >>> duration(0.4), duration(75), duration(3700)
    ('0 s', '1 min 15 s', '1 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """End the program with `message` and exit status 130 on Ctrl-C; SIGTERM ends it too, with what it has started.

    It ends in a few seconds even if whatever it has to close does not come to an end.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=_end_anyway, args=(128 + number,), name="end anyway", daemon=True).start()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, end)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
        before[signal.SIGINT] = signal.signal(signal.SIGINT, end)
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"{message}\n")
        sys.exit(130)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_anyway(status: int) -> None:
    time.sleep(CLEANING_UP)
    os._exit(status)
