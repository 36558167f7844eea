"""Files fetched over HTTP: from anybody without a token, from Label Studio with it."""

from __future__ import annotations

import time
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, TimeoutError
from urllib3.util import Retry

from kdal.images.allowed import Allowed
from kdal.images.errors import UnreachableError
from kdal.images.guard import GuardedAdapter
from kdal.labelstudio.addresses import Addresses
from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.tokens import TokenAuth
from kdal_core.errors import AssetError

TIMEOUT = (5, 30)
"""Seconds to connect, and between two pieces of a file."""
DEADLINE = 60.0
"""Seconds that a file may take in all: a server that sends a byte now and then would hold a thread for days."""
CHUNK = 1 << 16
MOST_REDIRECTS = 10
PASSING = (401, 403, 408, 429)
"""What says nothing of the file: no permission, or too busy. So does every fault of the server's."""


class Downloads:
    """Fetches files from public hosts and those that are allowed, up to a size; threads may share one.

    Args:
        limit: bytes of a file.
        too_large: what is wrong with a larger one.
        allowed: which hosts may be on private networks.
    """

    def __init__(self, limit: int, too_large: str, allowed: Allowed) -> None:
        self._limit, self._too_large = limit, too_large
        self._session = _session(GuardedAdapter(allowed, pool_maxsize=16, max_retries=_retry()))

    def get(self, url: str) -> bytes:
        """The file at an address, wherever it redirects to.

        Raises:
            AssetError: there is no such file, or it is too large.
            UnreachableError: its server does not answer, or does not want to.
        """
        try:
            with self._session.get(url, stream=True, timeout=TIMEOUT) as response:
                return self.body(response)
        except requests.RequestException as error:
            raise UnreachableError(f"cannot be fetched: {_reason(error)}") from error

    def body(self, response: requests.Response) -> bytes:
        """What a server answers, if it is a file."""
        if not 200 <= response.status_code < 300:
            away = response.status_code in PASSING or response.status_code >= 500
            kind = UnreachableError if away else AssetError
            raise kind(f"{response.status_code} {response.reason}")
        data, ends = bytearray(), time.monotonic() + DEADLINE
        try:
            while piece := response.raw.read1(CHUNK, decode_content=True):  # what has come, rather than a whole chunk
                data += piece
                if len(data) > self._limit:
                    raise AssetError(self._too_large)
                if time.monotonic() > ends:
                    raise UnreachableError(f"cannot be fetched: its server took more than {DEADLINE:.0f} s to send it")
        except HTTPError as error:
            why = "its server does not answer in time" if isinstance(error, TimeoutError) else "it breaks off"
            raise UnreachableError(f"cannot be fetched: {why}") from error
        return bytes(data)


class LabelStudioDownloads:
    """Fetches Label Studio's files. The token goes along to Label Studio's own addresses, and nowhere else.

    Label Studio may redirect: to a storage that holds the file (it answers 303 and a presigned address), or to another
    of its own addresses. Once a chain of redirects has left Label Studio it goes on without the token, wherever it
    leads: else a stranger could choose what kdal asks of Label Studio.

    Args:
        addresses: which addresses are Label Studio's.
        auth: signs requests; none leaves them unsigned.
        others: fetches what others hold.
    """

    def __init__(self, addresses: Addresses, auth: TokenAuth | None, others: Downloads) -> None:
        self._addresses, self._auth, self._others = addresses, auth, others
        self._session = _session(HTTPAdapter(pool_maxsize=16, max_retries=_retry()))

    def get(self, path: str) -> bytes:
        """The file at a path below Label Studio's address, ``/data/upload/1/a.png``; raises as `Downloads.get`."""
        try:
            for _ in range(MOST_REDIRECTS):
                with self._ask(path) as response:
                    if response.next is None:
                        return self._others.body(response)
                    target = str(response.next.url)
                there = self._addresses.path(target)
                if there is None:
                    self._refuse_moved(path, target)
                    return self._others.get(target)
                path = there
        except LabelStudioError as error:  # no bearer token
            raise UnreachableError(str(error)) from error
        except requests.RequestException as error:
            raise UnreachableError(f"cannot be fetched: {_reason(error)}") from error
        raise UnreachableError("cannot be fetched: it is redirected without end")

    def _ask(self, path: str) -> requests.Response:
        url = self._addresses.url + path
        auth = self._auth or _unsigned
        response = self._session.get(url, auth=auth, stream=True, allow_redirects=False, timeout=TIMEOUT)
        if response.status_code == 401 and self._auth is not None and self._auth.renewable:
            response.close()
            self._auth.forget()
            response = self._session.get(url, auth=auth, stream=True, allow_redirects=False, timeout=TIMEOUT)
        return response

    def _refuse_moved(self, path: str, target: str) -> None:
        """An address that differs in its beginning alone is Label Studio's own, under a name that we were not told."""
        asked, found = urlsplit(path), urlsplit(target)
        if found.path.endswith(asked.path) and found.query == asked.query:
            base = f"{found.scheme}://{found.netloc.rpartition('@')[2]}{found.path.removesuffix(asked.path)}"
            raise UnreachableError(
                f"{self._addresses.url} redirects to {base}: set LABEL_STUDIO_URL to it, "
                "or LABEL_STUDIO_PUBLIC_URL if kdal reaches Label Studio under another address"
            )


def _retry() -> Retry:
    """Connections are kept; one that broke while it was idle is replaced."""
    return Retry(total=1, connect=0, read=1, status=0, other=0, allowed_methods=("GET",), backoff_factor=0)


def _session(adapter: HTTPAdapter) -> requests.Session:
    """A session for all threads, without cookies."""
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # what one host sets, no other gets to know
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _reason(error: requests.RequestException) -> str:
    # requests' own words hold the whole address, and with it a presigned URL's signature.
    if isinstance(error, requests.Timeout):
        return "its server does not answer in time"
    if isinstance(error, requests.ConnectionError):  # one answer for all that might be behind it
        return "its server cannot be reached, or is on a private network that KDAL_IMAGE_SOURCES does not name"
    if isinstance(error, requests.TooManyRedirects):
        return "it is redirected without end"
    return type(error).__name__
