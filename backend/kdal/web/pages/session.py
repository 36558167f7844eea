"""Who is signed in: a signed cookie, a token for each form, and a limit on guesses."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from flask import Response
from itsdangerous import BadData, URLSafeTimedSerializer

from kdal.settings import Settings

COOKIE = "kdal_session"
LASTS = 12 * 3600
"""Seconds after which one has to sign in again."""
GUESSES, PAUSE = 8, 30.0
"""Wrong passwords that an address may try in a row, and seconds until it gets another try."""
ADDRESSES = 1024
"""Addresses whose guesses are remembered."""


@dataclass(frozen=True)
class Session:
    """A browser's session; before somebody has signed in it has no user, and only guards the form."""

    user: str | None
    form_token: str
    """Comes with each form, so that no other site can post one in the user's name."""

    @classmethod
    def begin(cls, user: str | None = None) -> Session:
        """A new one; signing in always makes a new one."""
        return cls(user, secrets.token_urlsafe(24))

    def owns(self, form_token: str) -> bool:
        """Whether a form that brings this token was made for this session."""
        return hmac.compare_digest(form_token.encode(), self.form_token.encode())


class Sessions:
    """Reads and writes sessions, and checks passwords.

    A cookie is signed with a key made of the server's secret and the password: when either is changed, everybody is
    signed out.

    Args:
        settings: with the user and password.
        clock: seconds by a clock that only goes forward.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._secure = settings.url.startswith("https://")
        self._guesses = Guesses(clock)

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; none of one that is not ours, too old, or of another user."""
        if not cookie or len(cookie) > 1024:
            return None
        try:
            user, form_token = self._signer.loads(cookie, max_age=LASTS)
        except (BadData, ValueError, TypeError):
            return None
        if not isinstance(form_token, str) or user not in (None, self._settings.auth_user):
            return None
        return Session(user, form_token)

    def write(self, response: Response, session: Session) -> None:
        """Give the session to the browser."""
        response.set_cookie(
            COOKIE,
            self._signer.dumps([session.user, session.form_token]),
            max_age=LASTS,
            httponly=True,
            samesite="Lax",
            secure=self._secure,
        )

    def end(self, response: Response) -> None:
        """Let the browser forget its session."""
        response.delete_cookie(COOKIE)

    def sign_in(self, user: str, password: str, address: str) -> Session | None:
        """A new session for whoever knows the password; none for others, and for addresses that have guessed enough.

        Args:
            user: as typed.
            password: as typed.
            address: where the request comes from.
        """
        if self._guesses.wait(address) > 0:
            return None
        wanted = (self._settings.auth_user, self._settings.auth_password)
        # Both are compared whatever the first says: the time that it takes tells nothing.
        right = [hmac.compare_digest(a.encode(), b.encode()) for a, b in zip((user, password), wanted, strict=True)]
        if all(right):
            self._guesses.forget(address)
            return Session.begin(self._settings.auth_user)
        self._guesses.add(address)
        return None

    def wait(self, address: str) -> float:
        """Seconds until an address may try a password again; 0: now."""
        return self._guesses.wait(address)

    @cached_property
    def _signer(self) -> URLSafeTimedSerializer:
        parts = (self._settings.secret, self._settings.auth_user, self._settings.auth_password)
        key = hashlib.sha256("\0".join(parts).encode()).digest()
        return URLSafeTimedSerializer(key, salt="kdal.web.pages")


class Guesses:
    """Wrong passwords by address: each costs one of `GUESSES` tries, and a try comes back every `PAUSE` seconds.

    Behind a proxy all requests come from its address, and all users share its tries.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def add(self, address: str) -> None:
        """Note a wrong one."""
        with self._lock:
            self._spent[address] = (self._now_spent(address) + 1, self._clock())
            self._spent.move_to_end(address)
            while len(self._spent) > ADDRESSES:
                self._spent.popitem(last=False)

    def wait(self, address: str) -> float:
        """Seconds until there is a try; 0: now."""
        with self._lock:
            return max(0.0, (self._now_spent(address) - GUESSES + 1) * PAUSE)

    def forget(self, address: str) -> None:
        """All tries are back."""
        with self._lock:
            self._spent.pop(address, None)

    def _now_spent(self, address: str) -> float:
        spent, when = self._spent.get(address, (0.0, 0.0))
        return max(0.0, spent - (self._clock() - when) / PAUSE)
