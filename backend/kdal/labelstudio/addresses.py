"""Which addresses are Label Studio's: those that kdal may sign with its token, and where it fetches them.

Addresses come out of task data, which whoever imports tasks writes, and the token must go to nobody else. So they are
recognised by their parts rather than by how they begin, and what kdal asks for is built afresh from
LABEL_STUDIO_URL and a path without anything in it that could lead out of there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

PORTS = {"http": 80, "https": 443}
ROUTES = frozenset({"api", "data", "projects", "static", "storage-data", "tasks"})
"""How the paths begin at which Label Studio has files."""
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
MOST_ENCODINGS = 5
"""A path that is encoded more often is nobody's file."""


@dataclass(frozen=True)
class _Base:
    """One of the names of a Label Studio."""

    origin: tuple[str, str, int]
    """Scheme, host and port."""
    prefix: tuple[str, ...]
    """The path below which it is mounted, part by part."""

    @classmethod
    def of(cls, url: str) -> _Base:
        parts = urlsplit(url)
        origin, segments = _origin(parts), _segments(parts.path)
        if origin is None or segments is None:
            raise ValueError(f"{url} is no address of a Label Studio")
        return cls(origin, tuple(unquote(part) for part in segments if part))

    def below(self, segments: list[str]) -> list[str] | None:
        """What is left of a path without the prefix; None for a path that does not begin with it."""
        count = len(self.prefix)
        found = tuple(unquote(part) for part in segments[:count])
        return segments[count:] if found == self.prefix and len(segments) > count else None


class Addresses:
    """The names of one Label Studio.

    Args:
        url: where kdal reaches it, ``http://label-studio:8080`` for example, or ``https://host/ls`` under a prefix.
        public_url: where people reach it, if that differs; Label Studio calls it LABEL_STUDIO_HOST.

    Raises:
        ValueError: one of them is no http or https address, or holds a user or password.
    """

    def __init__(self, url: str, public_url: str = "") -> None:
        self.url = url.rstrip("/")
        self._public = _Base.of(public_url or url)
        # The longer prefix first: what lies below /ls/data lies below /ls, too.
        self._bases = sorted({_Base.of(url), self._public}, key=lambda base: -len(base.prefix))

    def path(self, address: str) -> str | None:
        """The path and query of an address below Label Studio's own, such as ``/data/upload/1/a.png``.

        None for an address of anybody else's, for one with a user or password in it, and for one whose path cannot be
        told for sure: backslashes, control characters, dot segments that are disguised.

        >>> ls = Addresses("http://label-studio:8080", "https://host/ls")
        >>> ls.path("https://HOST:443/ls/data/upload/1/a.png"), ls.path("/ls/data/upload/1/a.png")
        ('/data/upload/1/a.png', '/data/upload/1/a.png')
        >>> ls.path("https://host/ls/../other"), ls.path("https://host@evil/ls/data/upload/1/a.png")
        (None, None)
        """
        if _has_controls(address) or address != address.strip():
            return None
        if address.startswith("//"):  # a browser takes the scheme of the page that shows it
            address = f"{self._public.origin[0]}:{address}"
        try:
            parts = urlsplit(address)
            origin = _origin(parts)
        except ValueError:
            return None
        segments = _segments(parts.path)
        if segments is None:
            return None
        if address.startswith("/"):
            found: list[str] | None = self._of_path(segments)
        else:
            below = [base.below(segments) for base in self._bases if base.origin == origin]
            found = next((rest for rest in below if rest is not None), None)
        if found is None:
            return None
        return "/" + "/".join(found) + (f"?{parts.query}" if parts.query else "")

    def stored(self, path: str) -> str:
        """How Label Studio names a path of its own in task data: below the prefix that people see.

        >>> Addresses("http://127.0.0.1:8080", "https://host/ls").stored("/data/upload/1/a.png")
        '/ls/data/upload/1/a.png'
        """
        return "".join(f"/{part}" for part in self._public.prefix) + path

    def _of_path(self, segments: list[str]) -> list[str]:
        """The path without the prefix, where it has one: kdal 0.1 wrote addresses without."""
        for base in self._bases:
            rest = base.below(segments)
            if rest is not None and (rest[0] in ROUTES or segments[0] not in ROUTES):
                return rest
        return segments


def _origin(parts: SplitResult) -> tuple[str, str, int] | None:
    """Scheme, host and port; None unless it is http or https to a host, without user and password."""
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    return parts.scheme, parts.hostname, port


def _segments(path: str) -> list[str] | None:
    """The parts of a path, ``.`` and ``..`` followed; None where what they are depends on who decodes it."""
    found: list[str] = []
    parts = path.removeprefix("/").split("/")
    for number, part in enumerate(parts):
        if part not in (".", ".."):
            if not _harmless(part):
                return None
            found.append(part)
            continue
        if part == ".." and found:
            found.pop()
        if number == len(parts) - 1:
            found.append("")
    return found


def _harmless(part: str) -> bool:
    """Whether a part of a path leads nowhere else, however often somebody on the way decodes it."""
    for _ in range(MOST_ENCODINGS):
        # Some servers take ..;x for .. with a parameter, and Windows a backslash for a slash.
        if "\\" in part or any(piece.partition(";")[0] in (".", "..") for piece in part.split("/")):
            return False
        once = unquote(part)
        if once == part:
            return not _has_controls(part)
        part = once
    return False


def _has_controls(text: str) -> bool:
    """Whether some readers drop a part of it: urlsplit drops line breaks, C programs stop at a zero."""
    return CONTROLS.search(text) is not None
