"""Label Studio, as kdal reaches it, and kdal, as Label Studio does."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from kdal.doctor.finding import Trouble
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from kdal.labelstudio.transport import reason_of
from kdal.settings import Settings
from kdal.storage.database import Storage

SECONDS = 10.0
"""That an answer may take."""
TESTED = "1.23.2"
SKEW = 60.0
"""Seconds by which the two clocks may differ: bearer tokens live for 300, and S3 refuses after 900."""
STATES = {"DI": "does not reach it", "ER": "gets errors from it"}
"""What Label Studio says of an ML backend with which something is wrong."""


def own_address(settings: Settings) -> str:
    """Whether KDAL_URL can be the address at which Label Studio reaches kdal."""
    ours, theirs = urlsplit(settings.url).hostname, urlsplit(settings.label_studio_url).hostname
    if _is_loopback(ours) and not _is_loopback(theirs):
        raise Trouble(
            f"KDAL_URL is {settings.url}, which is this machine for whoever asks, and Label Studio is on {theirs}",
            "set KDAL_URL to an address of this machine that Label Studio reaches, for server and worker, and connect "
            "the projects again",
        )
    return settings.url


def own_server(settings: Settings) -> str:
    """Whether kdal's server answers at KDAL_URL."""
    fix = (
        "start `kdal up` (or `kdal serve`), and set KDAL_URL to where it listens, or to where a proxy leads to it, "
        "with the path, if there is one"
    )
    response = _get(f"{settings.url}/health", fix)
    with suppress(ValueError):
        if response.ok and response.json().get("model_class") == "kdal":
            return f"answers at {settings.url}"
    raise Trouble(f"what answers at {settings.url}/health ({response.status_code}) is not kdal", fix)


def answers(settings: Settings) -> str:
    """Whether there is a Label Studio at LABEL_STUDIO_URL, and not a redirect, another path or another program."""
    url = settings.label_studio_url
    response = _get(f"{url}/api/version", "start Label Studio, and set LABEL_STUDIO_URL to where kdal reaches it")
    if response.is_redirect:
        target = response.headers.get("Location", "").split("?")[0].removesuffix("/").removesuffix("/api/version")
        raise Trouble(f"{url} redirects to {target}", f"set LABEL_STUDIO_URL={target}, where no redirect is needed")
    try:
        found = str(response.json()["release"])
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble(
            f"what answers at {url}/api/version ({response.status_code}) is no Label Studio",
            "set LABEL_STUDIO_URL to its address. If it is served below a path, such as /label-studio, that belongs to "
            "the address: it is the LABEL_STUDIO_HOST that Label Studio itself is set to",
        ) from error
    note = "" if found == TESTED else f" (kdal is tested with {TESTED})"
    return f"{found} at {url}{note}"


def clock(settings: Settings) -> str:
    """Whether Label Studio's clock and this machine's agree."""
    sent = datetime.now(UTC)
    response = _get(f"{settings.label_studio_url}/api/version", "start Label Studio")
    try:
        theirs = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError):
        return "Label Studio does not say what time it is"
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    differ = (theirs - sent).total_seconds()
    if abs(differ) > SKEW:
        raise Trouble(
            f"Label Studio's clock is {abs(differ):,.0f} s {'ahead of' if differ > 0 else 'behind'} this machine's: "
            "tokens are refused, and labels are missed or counted late",
            "let both machines keep their time by NTP (`timedatectl set-ntp true`)",
        )
    return f"within {max(1, round(abs(differ)))} s of Label Studio's"


def token(settings: Settings) -> str:
    """Whether Label Studio takes LABEL_STUDIO_API_KEY, and of which kind it is."""
    client = _client(settings)
    user = client.user()
    kind = "personal access token" if client.auth.renewable else "legacy token"
    return f"{kind} of {user.get('email') or user.get('username') or 'a user'}"


def address_allowed(settings: Settings) -> str:
    """Whether Label Studio lets its projects send to KDAL_URL: by default it bans addresses of private networks.

    It is asked to register a webhook of no project, which it refuses after it has looked at the address.
    """
    client = _client(settings)
    try:
        made = client.create_webhook(url=f"{settings.url}/webhook", is_active=False, send_for_all_actions=False)
    except LabelStudioError as error:
        if error.status == 404:  # the address passed: it is the project that is missing
            return f"Label Studio may send to {settings.url}"
        if error.status == 403:
            raise Trouble(
                f"Label Studio refuses to send to {settings.url}: {error}",
                "set USE_DEFAULT_BANNED_SUBNETS=false in Label Studio's environment and restart it, or give kdal a "
                "public address (KDAL_URL)",
            ) from error
        raise
    client.delete_webhook(int(made["id"]))  # of a Label Studio that knows webhooks without a project
    return f"Label Studio may send to {settings.url}"


def way_back(settings: Settings) -> str:
    """Whether Label Studio reaches kdal, in its own words: it asks our server for its health, project by project."""
    client, storage = _client(settings), Storage.of_running_kdal(settings)
    try:
        projects = storage.projects()
    finally:
        storage.close()
    gone = []
    for project in projects:
        try:
            backends = client.backends(project.id)
        except LabelStudioError as error:
            if error.status != 404:
                raise
            gone.append(project.id)  # kdal leaves such a project alone
            continue
        for backend in backends:
            if backend["id"] != project.backend_id or backend.get("state") not in STATES:
                continue
            said = " ".join(str(backend.get("error_message") or "").split())[:300]
            raise Trouble(
                f"of project {project.id}, Label Studio {STATES[backend['state']]}: {said or backend['url']}",
                f"see that {backend['url']} can be reached from Label Studio's machine (curl {backend['url']}/health); "
                f"after a change of KDAL_URL: `kdal connect --project {project.id}`",
            )
    if len(gone) == len(projects):
        return "no project is connected, so Label Studio has nothing to reach: `kdal connect --project N`"
    count = len(projects) - len(gone)
    deleted = f"; {', '.join(map(str, gone))} {'is' if len(gone) == 1 else 'are'} not there any more" if gone else ""
    return f"Label Studio reaches kdal for {count} project{'' if count == 1 else 's'}{deleted}"


def _client(settings: Settings) -> LabelStudioClient:
    return LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key, timeout=SECONDS)


def _get(url: str, fix: str) -> requests.Response:
    """An answer, without any token, redirects not followed."""
    try:
        return requests.get(url, timeout=SECONDS, allow_redirects=False, auth=lambda request: request)
    except requests.RequestException as error:
        raise Trouble(f"nothing answers at {url}: {reason_of(error)}", fix) from error


def _is_loopback(host: str | None) -> bool:
    if host in (None, "localhost"):
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(str(host)).is_loopback
    return False
