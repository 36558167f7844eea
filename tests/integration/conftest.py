"""Real servers and a real browser for the integration tests.

Nothing here is skipped: a test that needs Label Studio, S3 or Chromium fails when it is not installed, with the
message of whoever looked for it.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Page, sync_playwright

from kdal.processes.child import free_port
from kdal.processes.embedded import LABEL_STUDIO_VERSION, EmbeddedLabelStudio, EmbeddedS3
from tests.integration import harness
from tests.integration.harness import Api, Bucket, Digits, Member, Project

EMAIL, PASSWORD, TOKEN = "owner@example.com", "a-test-password", "0123456789abcdef0123456789abcdef01234567"
_CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lives here is an integration test, so that `-m "not integration"` leaves it out."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="package")
def label_studio_template(request: pytest.FixtureRequest) -> Path:
    """A migrated data folder with its first user, made once and kept in pytest's cache."""
    cache = Path(request.config.cache.mkdir("label-studio"))
    template = cache / f"{LABEL_STUDIO_VERSION}-{TOKEN[:8]}"
    # The run's other processes, and other runs, wait for whoever is first: a folder is complete when it has its name.
    with FileLock(cache / f"{template.name}.lock"):
        if not template.is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                fresh = Path(scratch) / "data"
                with EmbeddedLabelStudio(fresh, free_port(), email=EMAIL, password=PASSWORD, token=TOKEN):
                    pass
                fresh.rename(template)
    return template


@pytest.fixture(scope="package")
def label_studio(
    label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedLabelStudio]:
    """A running Label Studio: `.url`, `.token`, `.email`, `.password`.

    One for each process of a run: SQLite refuses some of what several clients write at the same time.
    """
    data = tmp_path_factory.mktemp("label-studio") / "data"
    shutil.copytree(label_studio_template, data)
    with EmbeddedLabelStudio(data, free_port(), email=EMAIL, password=PASSWORD, token=TOKEN) as server:
        yield server


@pytest.fixture(scope="package")
def ls_api(label_studio: EmbeddedLabelStudio) -> Iterator[Api]:
    """The API as the owner sees it."""
    with Api(label_studio.url, label_studio.token) as api:
        yield api


@pytest.fixture
def make_project(ls_api: Api, request: pytest.FixtureRequest) -> Iterator[Callable[..., Project]]:
    """`make_project(label_config=DIGITS_CONFIG, images=(), **fields) -> Project`, deleted after the test."""
    made: list[Project] = []

    def make(label_config: str = harness.DIGITS_CONFIG, images: Sequence[bytes] = (), **fields: Any) -> Project:
        # Label Studio's titles end at 50 characters.
        fields.setdefault("title", request.node.name[:50])
        made.append(harness.create_project(ls_api, label_config, images, **fields))
        return made[-1]

    yield make
    for project in made:
        answer = ls_api.session.delete(ls_api.url + project.path, timeout=60)
        assert answer.ok or answer.status_code == 404, answer.text  # a test may have deleted it itself


@pytest.fixture(scope="package")
def digits() -> Callable[..., Digits]:
    """`digits(n, *, seed=None, size=8) -> Digits(images, labels)`: real handwritten digits as PNG files."""
    return harness.real_digits


@pytest.fixture(scope="package")
def second_user(ls_api: Api) -> Iterator[Member]:
    """A second member of the organisation, who came through the invite link: `.api`, `.token`, `.email`."""
    member = harness.sign_up(ls_api, "annotator@example.com", "another-test-password")
    with member.api:
        yield member


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """A running S3 server. One for each file that needs it: idle, it takes a tenth of a processor."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3"), free_port()) as server:
        yield server


@pytest.fixture
def s3(s3_server: EmbeddedS3) -> Iterator[Bucket]:
    """An empty bucket for this test: `.url`, `.name`, `.client` (boto3), `.env` (the AWS_* variables)."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_server.url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name=s3_server.env["AWS_DEFAULT_REGION"],
    )
    name = f"kdal-{secrets.token_hex(8)}"
    client.create_bucket(Bucket=name)
    yield Bucket(s3_server.url, name, client, s3_server.env)
    client.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium, nobody logged in: the system's own, not one that Playwright downloads.

    One a test: while Playwright's synchronous API is open, its event loop counts as running in this thread, and
    asyncio would refuse to work for any other test.
    """
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert executable, "no chromium on the PATH: apt-get install chromium (make venv-test does it for root)"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=_CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, label_studio: EmbeddedLabelStudio) -> Page:
    """A browser's page whose user is logged in to Label Studio as the owner; addresses may start with "/"."""
    context = browser.new_context(base_url=label_studio.url, viewport={"width": 1400, "height": 900})
    with harness.sign_in(label_studio.url, label_studio.email, label_studio.password) as session:
        context.add_cookies(
            [{"name": cookie.name, "value": cookie.value or "", "url": label_studio.url} for cookie in session.cookies]
        )
    return context.new_page()
