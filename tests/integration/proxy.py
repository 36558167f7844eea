"""A reverse proxy on 127.0.0.1, as nginx is set up in front of Label Studio: it mounts a server below a path."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import requests

HOP = {"connection", "content-length", "content-encoding", "transfer-encoding", "keep-alive", "host"}


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
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if redirects_to:
                    self.reply(301, {"Location": redirects_to + self.path}, b"")
                elif not self.path.startswith(f"{prefix}/"):
                    proxy.refused.append((self.path, self.headers.get("Authorization")))
                    self.reply(404, {}, b"another program of this host")
                else:
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
                    url = proxy.target + self.path.removeprefix(prefix)
                    answer = requests.request(
                        self.command, url, headers=headers, data=body, allow_redirects=False, timeout=120
                    )
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

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}{prefix}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
