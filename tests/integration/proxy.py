"""A reverse proxy on 127.0.0.1, as nginx is set up in front of Label Studio: it mounts a server below a path.

At a test's word it also holds a single request, or answers in the server's place.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self

import requests

HOP = {"connection", "content-length", "content-encoding", "transfer-encoding", "keep-alive", "host"}
PATIENCE = 120
"""Seconds that a request is held, or waited for, at most."""


@dataclass
class Rule:
    """What happens to the requests that match it."""

    method: str
    path: re.Pattern[str]
    body: re.Pattern[str]
    hold: Literal["before", "after"] | None
    answer: tuple[int, str] | None
    reached: threading.Event = field(default_factory=threading.Event)
    """Set once a request is held, or was answered."""
    seen: int = 0
    """Requests that matched."""
    _over: threading.Event = field(default_factory=threading.Event)

    def matches(self, method: str, path: str, body: bytes) -> bool:
        """Whether it is about this request."""
        found = method == self.method and self.path.search(path) and self.body.search(body.decode(errors="replace"))
        return bool(found)

    def wait(self, where: Literal["before", "after"]) -> None:
        """Hold the first request, where the rule says so, until the rule is over."""
        if self.hold == where and not self.reached.is_set():
            self.reached.set()
            self._over.wait(PATIENCE)

    def end(self) -> None:
        """Let go of the request that is held."""
        self._over.set()


class Proxy:
    """Forwards what is below `prefix` to `target`, without the prefix; all else answers 404, or is redirected.

    Args:
        prefix: a path such as ``/ls``, or nothing.
        redirects_to: if given, every request is answered with 301 to that address and the path asked for.
    """

    def __init__(self, prefix: str = "", redirects_to: str = "") -> None:
        self.target = ""
        self.refused: list[tuple[str, str | None]] = []
        """Paths outside of the prefix that were asked for, with their Authorization."""
        self._rules: list[Rule] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                rule = next((r for r in list(proxy._rules) if r.matches(self.command, self.path, body)), None)
                if rule is not None:
                    rule.seen += 1
                if redirects_to:
                    self.reply(301, {"Location": redirects_to + self.path}, b"")
                elif not self.path.startswith(f"{prefix}/"):
                    proxy.refused.append((self.path, self.headers.get("Authorization")))
                    self.reply(404, {}, b"another program of this host")
                elif rule is not None and rule.answer is not None:
                    rule.reached.set()
                    self.reply(rule.answer[0], {"Content-Type": "application/json"}, rule.answer[1].encode())
                else:
                    if rule is not None:
                        rule.wait("before")
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
                    url = proxy.target + self.path.removeprefix(prefix)
                    answer = requests.request(
                        self.command, url, headers=headers, data=body, allow_redirects=False, timeout=PATIENCE
                    )
                    if rule is not None:
                        rule.wait("after")
                    self.reply(answer.status_code, dict(answer.headers), answer.content)

            do_GET = do_POST = do_PATCH = do_DELETE = forward

            def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in HOP:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Quiet: whoever asked was killed meanwhile, as its test wanted it."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}{prefix}"

    @contextmanager
    def rule(
        self,
        method: str,
        path: str,
        body: str = "",
        *,
        hold: Literal["before", "after"] | None = None,
        answer: tuple[int, str] | None = None,
    ) -> Iterator[Rule]:
        """Treat requests otherwise while the block runs.

        Args:
            method: "PATCH", for example.
            path: regular expression, searched for in the path with its query.
            body: regular expression, searched for in the request's body.
            hold: hold the first such request "before" the server sees it, or "after" it has answered, while its
                answer is on the way; it goes on when the block ends.
            answer: status and body that are answered in the server's place.
        """
        made = Rule(method, re.compile(path), re.compile(body), hold, answer)
        self._rules.append(made)
        try:
            yield made
        finally:
            self._rules.remove(made)
            made.end()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
