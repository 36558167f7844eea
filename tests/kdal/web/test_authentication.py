import base64

import pytest

from kdal.labelstudio.connection import SECRET_HEADER
from kdal.web.app import create_app
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import EVENT, POSTS, SETUP, UID, error_of


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def guarded(open_resources):
    opened = open_resources(auth_user="owner", auth_password="pass:wörd")
    app = create_app(opened).test_client()
    opened.storage.put_project(3, UID, DIGITS_CONFIG, {})
    assert app.post("/setup", json=SETUP, headers=basic("owner", "pass:wörd")).status_code == 200
    app.secret = opened.settings.secret
    app.storage = opened.storage
    return app


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("owner", "wrong"),
        basic("wrong", "pass:wörd"),
        basic("", ""),
        basic("owner", ""),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"Authorization": "Bearer owner"},
        {"Authorization": "Digest username=owner"},
        {"Authorization": "\xff"},
    ],
)
def test_without_user_and_password_nothing_is_told(guarded, headers):
    for path in ("/setup", "/predict", "/webhook", "/versions", "/metrics", "/", "/nothing"):
        response = guarded.open(path, method="POST" if path in POSTS else "GET", json=SETUP, headers=headers)
        assert "KDAL_AUTH_USER" in error_of(response, 401)
        assert response.headers["WWW-Authenticate"].startswith("Basic")


def test_with_user_and_password_everything_is_answered(guarded):
    headers = basic("owner", "pass:wörd")
    assert guarded.get("/versions", headers=headers).status_code == 200
    assert guarded.get("/metrics", headers=headers).status_code == 200
    assert guarded.post("/predict", json={"project": UID, "tasks": []}, headers=headers).status_code == 200
    assert guarded.post("/webhook", json=EVENT, headers=headers).status_code == 200


def test_health_is_told_to_anyone(guarded):
    assert guarded.get("/health").status_code == 200


def test_label_studios_events_come_with_the_secret_alone(guarded):
    """Its webhooks know no password."""
    assert guarded.post("/webhook", json=EVENT, headers={SECRET_HEADER: guarded.secret}).status_code == 200
    error_of(guarded.post("/webhook", json=EVENT, headers={SECRET_HEADER: "wrong"}), 403)
    error_of(guarded.post("/webhook", json=EVENT | {"action": "START_TRAINING"}), 401)
    assert [event.action for event in guarded.storage.events(3)] == ["ANNOTATION_CREATED"]


def test_the_secret_opens_no_other_route(guarded):
    error_of(guarded.get("/metrics", headers={SECRET_HEADER: guarded.secret}), 401)


def test_a_user_and_a_password_are_asked_for_unless_somebody_sets_others(resources):
    app = create_app(resources).test_client()
    assert "`kdal credentials`" in error_of(app.post("/setup", json=SETUP), 401)
    settings = resources.settings
    assert app.get("/versions", headers=basic(settings.auth_user, settings.auth_password)).status_code == 200
    error_of(app.get("/versions", headers=basic("", "")), 401)
