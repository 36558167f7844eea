"""A real HTTP server on 127.0.0.1 for one test: its answers are set path by path, its requests are kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    with_length: bool = True
    """Whether the answer says how long it is."""
    pause: float = 0.0
    """Seconds between two bytes of the body."""
    before: Callable[[], object] = lambda: None
    """Called before anything is answered."""


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Web:
    """`web.answers["/path"] = Answer(...)`; `web.seen` lists what was asked. Paths are without their query; one
    of "POST /path" goes before that of "/path"."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | list[Answer]] = {}
        """A list is answered one by one, its last for good."""
        self.seen: list[Seen] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                web.seen.append(Seen(self.command, self.path, dict(self.headers), body))
                path = self.path.partition("?")[0]
                answer = web.next_answer(f"{self.command} {path}" if f"{self.command} {path}" in web.answers else path)
                answer.before()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.with_length:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                try:
                    for start in range(len(answer.body)) if answer.pause else ():
                        self.wfile.write(answer.body[start : start + 1])
                        time.sleep(answer.pause)
                    self.wfile.write(b"" if answer.pause else answer.body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client had enough

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def next_answer(self, path: str) -> Answer:
        found = self.answers.get(path, Answer(b"no such path", 404))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
