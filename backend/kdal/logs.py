"""What kdal logs: one line an event, tracebacks without the values of variables, and no secret in any of it."""

from __future__ import annotations

import logging
import os
import re
import sys
from typing import Any, TextIO

import structlog

HIDDEN = "***"
SHORTEST = 6
"""Characters of a secret that is looked for anywhere; a shorter one is part of many words."""
PATTERNS = (
    # a user and password in an address
    (re.compile(r"(?<=://)[^/?#\s\"']*@"), f"{HIDDEN}@"),
    # parts of addresses that sign them
    (
        re.compile(
            r"(?i)(?<=[?&])((?:x-amz-(?:signature|credential|security-token)|signature|sig|token|key)=)[^&#\s\"']+"
        ),
        rf"\1{HIDDEN}",
    ),
    # headers, and fields of JSON and of Python's dictionaries
    (
        re.compile(
            r"(?i)(authorization|secret|secret_access_key|access[-_]?token|refresh|api[-_]?key|"
            r"basic_auth_pass|password|passwd)"
            r"([\"']?\s*[:=]\s*[\"']?)(?:(?:token|bearer|basic)\s+)?[^\s\"',;}]+"
        ),
        rf"\1\2{HIDDEN}",
    ),
    # a JSON web token, whatever is around it
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), HIDDEN),
)
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that move a terminal's cursor, colour it, or turn the direction of the text; tabs and line ends do not."""
_secrets: tuple[str, ...] = ()


def keep_secret(*values: str | None) -> None:
    """Show these values nowhere from now on.

    They are those of kdal's own settings: what a stranger could send would hide whatever words he likes.
    """
    global _secrets
    known = {*_secrets, *(value for value in values if value and len(value) >= SHORTEST)}
    _secrets = tuple(sorted(known, key=lambda value: (-len(value), value)))  # one may hold another


def redacted(text: str) -> str:
    """A text without secrets: those that kdal knows, and whatever stands where secrets stand.

    >>> redacted("GET https://me:hunter2@host/a.png?X-Amz-Signature=0f1e (404)")
    'GET https://***@host/a.png?X-Amz-Signature=*** (404)'
    """
    for value in _secrets:
        text = text.replace(value, HIDDEN)
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def printable(text: str) -> str:
    r"""A text that a terminal shows and does not obey: control characters as their numbers.

    >>> print(printable("a.png\x1b[2J"))
    a.png\x1b[2J
    """
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class RedactingFormatter(logging.Formatter):
    """What another formatter makes of a record, without secrets."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return redacted(self._inner.format(record))


def set_up(file: TextIO | None = None) -> None:
    """Log to a file, by default to standard output.

    Servers and libraries that log by Python's own `logging` are asked to leave out the same, see `redact_handlers`.
    """
    stream = sys.stdout if file is None else file
    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback),
            _without_secrets,
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    redact_handlers()


def redact_handlers(*names: str) -> None:
    """Let the handlers of these loggers of Python's `logging`, and of the root, write no secret."""
    for name in ("", *names):
        for handler in logging.getLogger(name).handlers:
            if not isinstance(handler.formatter, RedactingFormatter):
                handler.setFormatter(RedactingFormatter(handler.formatter))


def _without_secrets(_logger: Any, _method: str, rendered: Any) -> str:
    return redacted(rendered)
