"""One request to a teacher: at its pace, sent again only when that cannot cost twice, and its failures in words."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3
from requests.auth import HTTPBasicAuth
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from kdal.teachers.config import TransportSettings
from kdal_core.errors import TeacherError

CONNECT = 10.0  # seconds until a connection must stand
MOST_BYTES = 256 * 2**20
REFUSED = (429, 503)
"""Statuses by which a server says that it did nothing: too many requests, unavailable."""
FAILED = (408, 500, 502, 504)
"""Statuses by which a server says that something went wrong on the way; it may have worked, and charged."""


class NoAnswerError(TeacherError):
    """A request that failed.

    Attributes:
        after: seconds that the teacher asked to be left alone for; none when it did not say.
    """

    def __init__(self, message: str, *, charged: bool, worth_repeating: bool, after: float | None = None) -> None:
        super().__init__(message, charged=charged, worth_repeating=worth_repeating)
        self.after = after


class RateLimiter:
    """Never more than this many images a second, and nothing while the teacher asked to be left alone; for all threads.

    Args:
        images_per_second: None: as fast as it goes.
    """

    def __init__(self, images_per_second: float | None) -> None:
        self._seconds = 0.0 if images_per_second is None else 1 / images_per_second
        self._lock, self._free = threading.Lock(), 0.0

    def wait(self, images: int) -> None:
        """Wait for the turn of a request with this many images."""
        with self._lock:
            turn = max(self._free, time.monotonic())
            self._free = turn + images * self._seconds
        time.sleep(max(0.0, turn - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Let nobody begin for so long."""
        with self._lock:
            self._free = max(self._free, time.monotonic() + seconds)


class Transport:
    """Sends requests to one teacher, from any number of threads.

    Args:
        settings: address, secret, patience.

    Raises:
        ConfigError: the secret's environment variable is not set.
    """

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._secret = None if settings.auth is None else settings.auth.secret()
        self._limiter = RateLimiter(settings.images_per_second)
        self._threads = threading.local()

    def post(self, url: str, images: int, key: str, **body: Any) -> Any:
        """Send a POST and give its JSON answer; again and again within bounds as long as that costs nothing.

        Args:
            url: where to.
            images: that it asks about.
            key: the same for the same request: what an idempotent teacher knows it by.
            body: `json`, `data`, `files` as `requests` takes them, and `headers`.

        Raises:
            TeacherError: no answer; it says whether the images may have been charged.
        """
        header = self._settings.idempotency_header
        headers = {**self._settings.headers, **body.pop("headers", {}), **({} if header is None else {header: key})}

        def free_of_charge(error: BaseException) -> bool:
            return (
                isinstance(error, TeacherError) and error.worth_repeating and (header is not None or not error.charged)
            )

        retrying = Retrying(
            retry=retry_if_exception(free_of_charge),
            stop=stop_after_attempt(self._settings.attempts),
            wait=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._once, url, images, headers, body)
        except TeacherError as error:
            if free_of_charge(error):
                error.worth_repeating = False  # it has been, as often as our settings say
            raise

    def _once(self, url: str, images: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        """One attempt."""
        self._limiter.wait(images)
        deadline = time.monotonic() + self._settings.timeout
        timeout = (min(CONNECT, self._settings.timeout), self._settings.timeout)
        try:
            with self._session().post(
                url, headers=dict(headers), timeout=timeout, stream=True, allow_redirects=False, **body
            ) as response:
                content = _content(response, deadline)
        except (requests.ConnectTimeout, requests.ConnectionError) as error:
            if isinstance(error, requests.ConnectTimeout) or _never_connected(error):
                raise self._failure("cannot be reached", error, charged=False) from error
            raise self._failure("broke the connection off", error) from error
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
            raise self._failure(f"did not answer within {self._settings.timeout:g} s", error) from error
        except (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
            raise self._failure("broke its answer off", error) from error
        except requests.RequestException as error:
            raise self._failure("cannot be asked", error, charged=False, again=False) from error
        return self._read(response, content)

    def _read(self, response: requests.Response, content: bytes) -> Any:
        """The JSON of an answer with status 200, or what the status means."""
        status, said = response.status_code, self._excerpt(response, content)
        if status in REFUSED:
            after = _retry_after(response.headers.get("Retry-After"))
            if after is not None and after > self._settings.patience:
                why = f"asks to be left alone for {after:,.0f} s (status {status}): run again then"
                raise self._failure(why, charged=False, again=False)
            if after is not None:
                self._limiter.hold(after)  # it means all of us, not only this thread
            raise self._failure(f"refuses, status {status}: {said}", charged=False, after=after)
        if status in FAILED:
            raise self._failure(f"failed, status {status}: {said}")
        if 300 <= status < 400:
            where = response.headers.get("Location", "nowhere")
            raise self._failure(f"redirects to {self._scrubbed(where)}: give that address", charged=False, again=False)
        if status != 200:
            charged = not 400 <= status < 500  # a request that it would not take is not worked on
            raise self._failure(f"answers with status {status}: {said}", charged=charged, again=False)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            kind = response.headers.get("Content-Type", "no content type")
            raise self._failure(f"does not answer in JSON but {kind}: {said}", again=False) from error

    def _failure(
        self,
        what: str,
        error: Exception | None = None,
        *,
        charged: bool = True,
        again: bool = True,
        after: float | None = None,
    ) -> NoAnswerError:
        reason = "" if error is None else f" ({self._scrubbed(_reason(error))})"
        message = f"The teacher {self._settings.url} {what}{reason}."
        return NoAnswerError(message, charged=charged, worth_repeating=again, after=after)

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt."""
        error = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, NoAnswerError) and error.after is not None:
            return error.after
        return min(self._settings.pause * 2.0 ** (state.attempt_number - 1), self._settings.patience)

    def _session(self) -> requests.Session:
        """A session of this thread's own: they are not made to be shared."""
        found: requests.Session | None = getattr(self._threads, "session", None)
        if found is None:
            found = self._threads.session = requests.Session()
            found.trust_env = False  # no password from ~/.netrc, no proxy that nobody named
            if self._settings.auth is not None and self._secret is not None:
                if self._settings.auth.user is not None:
                    found.auth = HTTPBasicAuth(self._settings.auth.user, self._secret)
                else:
                    found.headers[self._settings.auth.header] = self._settings.auth.prefix + self._secret
        return found

    def _excerpt(self, response: requests.Response, content: bytes) -> str:
        """How an answer begins; of HTML its text."""
        text = content[:4000].decode(response.encoding or "utf-8", errors="replace")
        text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE)
        text = self._scrubbed(" ".join(text.split()))
        return (text[:197] + "..." if len(text) > 200 else text) or "(nothing)"

    def _scrubbed(self, text: str) -> str:
        return text if self._secret is None else text.replace(self._secret, "***")


def _content(response: requests.Response, deadline: float) -> bytes:
    """The body, as long as it comes in time: requests' own timeout starts again with each packet."""
    data = bytearray()
    while chunk := response.raw.read1(1 << 16, decode_content=True):
        data += chunk
        if time.monotonic() > deadline:
            raise TimeoutError("it answers too slowly")
        if len(data) > MOST_BYTES:
            raise requests.RequestException(f"its answer is larger than {MOST_BYTES:,} bytes")
    return bytes(data)


def _never_connected(error: requests.RequestException) -> bool:
    """Whether no byte can have reached the teacher: no route, no name, refused, no TLS."""
    reason = getattr(error.args[0], "reason", error.args[0]) if error.args else None
    before = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return isinstance(error, requests.exceptions.SSLError) or isinstance(reason, before)


def _reason(error: Exception) -> str:
    """The innermost cause; requests' own words hold addresses of objects."""
    while isinstance(inner := getattr(error, "reason", None) or (error.args[0] if error.args else None), Exception):
        error = inner
    text = str(error.args[-1]) if error.args else type(error).__name__
    return text.partition(": ")[2] or text


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date."""
    if value is None:
        return None
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
