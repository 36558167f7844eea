"""What readers of data sets say of an item that they cannot use, while they read the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable

Note = Callable[[str], None]
"""Takes a sentence that names a file, and the line or record in it."""

log = logging.getLogger(__name__)


def warn(text: str) -> None:
    """Log it as a warning: what becomes of notes unless a caller collects them."""
    log.warning("%s", text)


class Tally:
    """Counts what occurs too often to be said each time, and says it once for each kind: how often, and where first."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, what: str, where: str) -> None:
        """Count one more `what`, for example "a sixth number, which is ignored", found at `where`."""
        self._counts[what] = self._counts.get(what, 0) + 1
        self._first.setdefault(what, where)

    def say(self) -> None:
        """Note everything that was counted."""
        for what, count in self._counts.items():
            self._note(f"{self._first[what]}: {what}" + (f" (and {count - 1:,} more)" if count > 1 else ""))
