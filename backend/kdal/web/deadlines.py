"""Clients that send or read too slowly: how long they may hold a connection."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

HEAD = 10.0
"""Seconds that the head of a request may take to arrive."""
PATIENCE = 30.0
"""Seconds that the body of a request may take to arrive, and an answer to be taken."""
RATE = 1_000_000
"""Bytes a second at which a body should come, at least: a large one has more time."""
EVERY = 0.25
"""Seconds between two looks at the connections."""


class Deadlines:
    """The connections that threads are busy with, and until when.

    Args:
        patience: seconds for the head of a request, see `HEAD`.
    """

    def __init__(self, patience: float = HEAD) -> None:
        self.patience = patience
        self._held: dict[int, tuple[socket.socket, float | None]] = {}
        self._lock = threading.Lock()
        self._watching = False

    @contextmanager
    def held(self, connection: socket.socket) -> Iterator[None]:
        """This thread reads a request from a connection, and answers it; it has to have come in time."""
        thread = threading.get_ident()
        with self._lock:
            self._held[thread] = (connection, time.monotonic() + self.patience)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="deadlines", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(thread, None)

    def extend(self, seconds: float | None) -> None:
        """This thread's connection may be held for so long from now on; None: as long as the answer takes."""
        thread = threading.get_ident()
        with self._lock:
            if thread in self._held:  # else another server than ours has called
                end = None if seconds is None else time.monotonic() + seconds
                self._held[thread] = (self._held[thread][0], end)

    def _watch(self) -> None:
        while True:
            time.sleep(EVERY)
            with self._lock:  # a connection is let go of by its thread under the same lock: it is never another's
                late = [held for held, end in self._held.values() if end is not None and time.monotonic() > end]
                for connection in late:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)  # whoever waits for it is woken


DEADLINES = Deadlines()
"""Those of this process."""
