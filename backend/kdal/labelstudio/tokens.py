"""Label Studio's two kinds of tokens, as requests wants them: an object that signs each request.

A legacy token goes along as it is. A personal access token is a refresh token (a JWT): it is exchanged for a bearer
token, which Label Studio 1.23.2 accepts for 300 seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from requests import PreparedRequest
from requests.auth import AuthBase

from kdal.labelstudio.errors import LabelStudioError

MARGIN = 30.0
"""Seconds before its end at which a bearer token is replaced: a request takes time to arrive."""


class TokenAuth(AuthBase):
    """Signs requests to Label Studio; may be used by several threads at once.

    Args:
        api_key: a legacy token or a personal access token.
        exchange: returns a bearer token for a personal access token; raises `LabelStudioError`.

    Raises:
        LabelStudioError: the token is missing, damaged or has expired. No message holds the token.
    """

    def __init__(self, api_key: str, exchange: Callable[[str], str]) -> None:
        if not api_key:
            raise LabelStudioError(
                "LABEL_STUDIO_API_KEY is not set: copy a token from Label Studio, Account & Settings", 401
            )
        claims = _claims(api_key)
        if claims is not None and (reason := _why_useless(claims)) is not None:
            raise LabelStudioError(
                f"LABEL_STUDIO_API_KEY is of no use: {reason}. Make a new token in Label Studio, Account & Settings",
                401,
            )
        self._api_key, self._exchange = api_key, exchange
        self.renewable = claims is not None
        """Whether the token that goes along is one that can be replaced by a new one."""
        self._lock = Lock()
        self._bearer, self._good_until = "", 0.0

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request."""
        request.headers["Authorization"] = self.header()
        return request

    def header(self) -> str:
        """Value of the Authorization header."""
        if not self.renewable:
            return f"Token {self._api_key}"
        with self._lock:
            if not self._bearer or time.monotonic() >= self._good_until:
                self._bearer = self._exchange(self._api_key)
                self._good_until = time.monotonic() + _lifetime(self._bearer) - MARGIN
            return f"Bearer {self._bearer}"

    def forget(self) -> None:
        """Ask for a new bearer token next time: Label Studio refused the one at hand."""
        with self._lock:
            self._bearer = ""


def _claims(token: str) -> dict[str, Any] | None:
    """What a JWT says; None for anything else."""
    if token.count(".") != 2:
        return None
    import jwt  # a legacy token does not need it

    try:
        return dict(jwt.decode(token, options={"verify_signature": False}))
    except jwt.InvalidTokenError:
        return None


def _why_useless(claims: dict[str, Any]) -> str | None:
    try:
        ends = datetime.fromtimestamp(claims["exp"], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return "it is damaged"
    return "it has expired" if ends < datetime.now(UTC) else None


def _lifetime(bearer: str) -> float:
    """Seconds that a bearer token is good for.

    Label Studio's clock may differ from ours, so its end is compared with when it was issued, by the same clock.
    """
    claims = _claims(bearer) or {}
    ends, issued = claims.get("exp"), claims.get("iat", time.time())
    if not isinstance(ends, int | float) or not isinstance(issued, int | float):
        return 0.0
    return float(ends - issued)
