"""One request to Label Studio: signed, repeated where that is safe, its failures told in kdal's words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from kdal.labelstudio.errors import LabelStudioError
from kdal.labelstudio.tokens import TokenAuth

Method = Literal["GET", "POST", "PATCH", "DELETE"]
CONNECT_SECONDS = 10.0
CONNECTIONS = 16
"""Connections that are kept open: images are fetched in several threads."""
REPEATABLE = ("GET", "PATCH", "DELETE")
"""Twice is once. A POST whose answer got lost may have imported, and a second one would import twice."""
TRY_AGAIN = (408, 409, 429, 500, 502, 503, 504)
"""Too busy or broken for the moment: a SQLite that is locked answers 500."""
BANNED = ("reserved network address", "local or private network addresses")
"""In Label Studio's refusal of an address that its SSRF protection bans."""


def session() -> requests.Session:
    """A session for threads to share: connections are kept, reads repeated twice; redirects are the caller's matter."""
    retry = Retry(
        total=2,
        read=1,  # one that ran out of time has kept us waiting long enough
        status_forcelist=TRY_AGAIN,
        allowed_methods=REPEATABLE,
        backoff_factor=0.5,
        raise_on_status=False,
        respect_retry_after_header=False,  # it may name hours
    )
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=retry))
    return made


class Transport:
    """Requests to one Label Studio; may be used by several threads at once.

    Args:
        url: base URL, without a slash at its end.
        api_key: legacy token or personal access token.
        timeout: seconds that Label Studio may be silent during one request.

    Raises:
        LabelStudioError: the token is missing, damaged or has expired.
    """

    def __init__(self, url: str, api_key: str, timeout: float) -> None:
        self.url = url
        self._timeout = (min(CONNECT_SECONDS, timeout), timeout)
        self._session = session()
        self.auth = TokenAuth(api_key, self._exchange)

    def request(
        self,
        method: Method,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Any = None,
        files: dict[str, tuple[str, bytes]] | None = None,
    ) -> Any:
        """The JSON that Label Studio answers; {} when it answers nothing.

        Args:
            path: below the base URL, without a slash at its start.
            body: sent as JSON.
            files: sent as a form: field -> name and content.

        Raises:
            LabelStudioError: no answer, a refusal, a redirect, or an answer that is not JSON.
        """
        response = self._send(method, path, auth=self.auth, params=params, json=body, files=files)
        if response.status_code == 401 and self.auth.renewable:  # nothing was done, so nothing is done twice
            self.auth.forget()
            response = self._send(method, path, auth=self.auth, params=params, json=body, files=files)
        if response.status_code == 401:
            raise LabelStudioError(
                f"Label Studio at {self.url} refuses LABEL_STUDIO_API_KEY: it is wrong, or a legacy token while "
                "legacy tokens are switched off (Organization > API Tokens Settings)",
                401,
            )
        if not response.ok:
            reason = _detail(response)
            raise LabelStudioError(
                f"{method} /{path}: {response.status_code} {_advice(reason) or reason}", response.status_code
            )
        return self._json(response, f"/{path}") if response.content else {}

    def unexpected(self, what: str) -> LabelStudioError:
        """The error for an answer that no Label Studio gives."""
        return LabelStudioError(f"{self.url} answers {what} as no Label Studio does: is LABEL_STUDIO_URL right?", 502)

    def _send(self, method: Method, path: str, **arguments: Any) -> requests.Response:
        try:
            response = self._session.request(
                method, f"{self.url}/{path}", timeout=self._timeout, allow_redirects=False, **arguments
            )
        except (requests.RequestException, HTTPError, ValueError) as error:  # ValueError: redirected to no address
            raise LabelStudioError(
                f"Label Studio at {self.url} does not answer ({reason_of(error)}): is it running, and is "
                "LABEL_STUDIO_URL right?"
            ) from error
        if 300 <= response.status_code < 400:
            raise self._redirected(method, path, response)
        return response

    def _redirected(self, method: Method, path: str, response: requests.Response) -> LabelStudioError:
        # Not followed: on the way a POST becomes a GET, and its answer looks like success.
        # Told without its query, which may hold a token.
        found = urlsplit(urljoin(response.url, response.headers.get("Location", "")))
        target = found._replace(query="", fragment="").geturl()
        base = target.rstrip("/").removesuffix("/" + path.rstrip("/"))
        moved = base not in (target.rstrip("/"), self.url)
        right = base if moved else "the address at which Label Studio answers without a redirect"
        return LabelStudioError(
            f"{self.url} redirects {method} /{path} to {target[:500]} ({response.status_code}): "
            f"set LABEL_STUDIO_URL to {right[:500]}",
            response.status_code,
        )

    def _json(self, response: requests.Response, what: str) -> Any:
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise self.unexpected(what) from error

    def _exchange(self, personal: str) -> str:
        """A bearer token for a personal access token. What Label Studio says of it is never repeated."""
        # Not signed, and not by ~/.netrc either, in which requests looks for want of another signature.
        response = self._send("POST", "api/token/refresh/", auth=lambda request: request, json={"refresh": personal})
        answer = self._json(response, "a request for a bearer token")
        if response.status_code >= 500:
            raise LabelStudioError(
                f"Label Studio at {self.url} answers {response.status_code} when asked for a bearer token",
                response.status_code,
            )
        if not response.ok:
            raise LabelStudioError(
                f"Label Studio at {self.url} refuses LABEL_STUDIO_API_KEY ({response.status_code}): "
                "make a new token in Account & Settings",
                response.status_code,
            )
        bearer = answer.get("access") if isinstance(answer, dict) else None
        if not isinstance(bearer, str):
            raise self.unexpected("a request for a bearer token")
        return bearer


def _detail(response: requests.Response) -> str:
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return response.reason or ""
    reasons = answer.get("validation_errors") or answer.get("detail") or answer if isinstance(answer, dict) else answer
    return (reasons if isinstance(reasons, str) else json.dumps(reasons))[:2000]


def reason_of(error: BaseException) -> str:
    """Why there was no answer, in the operating system's words: those of the libraries name their own objects."""
    words = str(error) or type(error).__name__
    causes: list[object] = [error]
    while causes:
        cause = causes.pop()
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(cause, requests.Timeout | TimeoutError):
            words = "it took too long"
        if isinstance(cause, BaseException):
            causes += [*cause.args, getattr(cause, "reason", None), cause.__cause__]
    return words


def _advice(reason: str) -> str:
    """What to do about the refusals of kdal's own address, which Label Studio words for its own administrators."""
    if _holds(reason, BANNED):
        return (
            f"{reason}. Label Studio protects itself from addresses of private networks: set "
            "USE_DEFAULT_BANNED_SUBNETS=false in Label Studio's environment and restart it, or give kdal a public "
            "address (KDAL_URL)"
        )
    if _holds(reason, ("Can't resolve hostname",)):
        return f"{reason}. Label Studio does not know that host: set KDAL_URL to an address at which it reaches kdal"
    if found := re.search(r"Can't connect to ML backend (\S+), health check failed", reason):
        return (
            f"Label Studio gets no answer from kdal at {found[1]}: start `kdal up`, and set KDAL_URL to an address at "
            "which Label Studio reaches it"
        )
    return ""


def _holds(reason: str, parts: Sequence[str]) -> bool:
    return any(part in reason for part in parts)
