"""The gunicorn worker of `kdal serve`: threads, and deadlines for clients that are slow.

gunicorn's threaded worker reads a request in the thread that answers it, and waits for its next byte for ever: eight
clients that send half a request each hold eight threads. So there are threads to spare for such clients, and a
connection is shut down whose request has not come, or whose answer is not taken, in time. The other worker classes bear
slow clients as well, but gevent's replaces what torch and database drivers wait with, and those on asyncio do not run
WSGI applications.
"""

from __future__ import annotations

from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from kdal.web.deadlines import DEADLINES

ROOM = 248
"""Threads for clients that are slow, beside those that answer."""


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with deadlines."""

    def handle(self, conn: Any) -> Any:
        """Read a request and answer it, in a thread of the pool."""
        with DEADLINES.held(conn.sock):
            return super().handle(conn)
