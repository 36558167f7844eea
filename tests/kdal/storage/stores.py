"""A small S3 store over real HTTP, of the kind that is older than S3's checksums, or that grants fewer rights."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

CHECKSUM_HEADERS = ("x-amz-checksum-", "x-amz-sdk-checksum-algorithm", "x-amz-trailer")


class PlainStore:
    """Objects by path, ``/bucket/key``. What it does not know it refuses with 501, as such stores do.

    Args:
        lists: whether its user may list buckets; if not, what is missing is answered with 403.
    """

    def __init__(self, *, lists: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str]] = []
        """Method, host and path of each request."""
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.refused():
                    return
                store.objects[self.key()] = body
                self.reply(200, b"")

            def do_GET(self) -> None:
                if self.refused():
                    return
                if self.key() in store.objects:
                    self.reply(200, store.objects[self.key()])
                elif lists:
                    self.fail(404, "NoSuchKey")
                else:
                    self.fail(403, "AccessDenied")

            def key(self) -> str:
                return unquote(urlsplit(self.path).path)

            def refused(self) -> bool:
                store.seen.append((self.command, str(self.headers.get("Host")), self.path))
                names = [name.lower() for name in self.headers]
                unknown = [name for name in names if name.startswith(CHECKSUM_HEADERS)]
                if unknown or "aws-chunked" in str(self.headers.get("Content-Encoding")):
                    self.fail(501, "NotImplemented")
                    return True
                return False

            def fail(self, status: int, code: str) -> None:
                self.reply(status, f"<Error><Code>{code}</Code><Message>sorry</Message></Error>".encode())

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
