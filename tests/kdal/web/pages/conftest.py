import pytest

from kdal.storage.tables import now
from kdal.web.app import create_app
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.pages.site import PASSWORD, USER, Site
from tests.kdal.web.requests import UID


@pytest.fixture
def resources(open_resources):
    # Label Studio is not there: what the page asks it in the background, it does without.
    return open_resources(auth_user=USER, auth_password=PASSWORD, label_studio_url="http://127.0.0.1:9")


@pytest.fixture
def stranger(resources):
    return Site(create_app(resources).test_client())


@pytest.fixture
def site(stranger):
    assert stranger.sign_in().status_code == 303
    return stranger


@pytest.fixture
def project(resources):
    """Project 3, which Label Studio has set up and no worker has seen."""
    resources.storage.put_project(3, UID, DIGITS_CONFIG, {"budget": 50})
    return 3


@pytest.fixture
def add_round(resources, project):
    """`add_round(2, state="open", facts={...}, counted=3)`: round 2 after whichever there are."""

    def add(number, state="open", facts=None, seconds=None, **fields):
        storage = resources.storage
        assert storage.begin_round(project, number, "connect" if number == 0 else "budget")
        opened = now() if state in ("open", "closed") else None
        storage.update_round(project, number, **{"state": state, "opened_at": opened, "budget": 50} | fields)
        storage.merge_round(project, number, facts=facts or {}, seconds=seconds or {})

    return add
