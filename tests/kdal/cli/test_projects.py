"""`kdal connect`, `disconnect` and `cancel` where no kdal was started."""

import json

import pytest

from tests.kdal.conftest import DIGITS_CONFIG, TOKEN
from tests.kdal.servers import Answer


@pytest.fixture
def label_studio(web):
    """A Label Studio that knows project 3, as far as a reader of it can see."""
    project = {"id": 3, "title": "Digits", "label_config": DIGITS_CONFIG, "created_at": "2026-11-27T23:17:10Z"}
    project |= {"model_version": "", "sampling": "Sequential sampling"}
    lists = {"/api/webhooks/": [], "/api/ml": []}
    for path, value in {"/api/projects/3": project, **lists, **{f"POST {path}": {"id": 1} for path in lists}}.items():
        web.answers[path] = Answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})
    return web


def test_a_project_is_not_connected_with_a_secret_that_no_server_knows(kdal, tmp_path, label_studio):
    done = kdal("connect", "--project", "3", LABEL_STUDIO_URL=label_studio.url, LABEL_STUDIO_API_KEY=TOKEN)
    assert done.returncode == 1
    assert done.stderr.startswith(f"kdal: no kdal has been started here: KDAL_HOME is {tmp_path}/.kdal")
    assert "KDAL_WEBHOOK_SECRET" in done.stderr
    assert {seen.method for seen in label_studio.seen} == {"GET"}
    assert list(tmp_path.iterdir()) == []


def test_a_project_is_connected_without_loading_what_training_needs(loaded_by, tmp_path, label_studio):
    (tmp_path / ".kdal").mkdir()
    variables = {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": TOKEN}
    shown, loaded = loaded_by("connect", "--project", "3", **variables)
    assert 'Project 3 "Digits" is connected' in shown
    assert loaded == []


@pytest.mark.parametrize("command", ["disconnect", "cancel"])
def test_a_project_of_no_kdal_cannot_be_left_and_nothing_is_made(kdal, tmp_path, command):
    done = kdal(command, "--project", "3", LABEL_STUDIO_URL="http://127.0.0.1:1", LABEL_STUDIO_API_KEY=TOKEN)
    assert done.returncode == 1
    assert done.stderr.startswith(f"kdal: no kdal has been started here: KDAL_HOME is {tmp_path}/.kdal")
    assert list(tmp_path.iterdir()) == []


def test_credentials_are_shown_to_whoever_may_read_kdals_folder(kdal, tmp_path):
    nothing = kdal("credentials")
    assert nothing.returncode == 1
    assert "no kdal has been started here" in nothing.stderr
    (tmp_path / ".kdal").mkdir()
    shown = kdal("credentials")
    assert shown.returncode == 0
    user, _, password = (tmp_path / ".kdal" / "credentials").read_text().strip().partition(":")
    assert shown.stdout.splitlines() == [f"User:     {user}", f"Password: {password}"]
    assert "http://127.0.0.1:9090" in shown.stderr
    told = kdal("credentials", KDAL_AUTH_USER="me", KDAL_AUTH_PASSWORD="a password")
    assert told.stdout.splitlines() == ["User:     me", "Password: a password"]


def test_connecting_tells_label_studio_what_credentials_shows(kdal, tmp_path, label_studio):
    (tmp_path / ".kdal").mkdir()
    variables = {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": TOKEN}
    assert kdal("connect", "--project", "3", **variables).returncode == 0
    (sent,) = [json.loads(seen.body) for seen in label_studio.seen if (seen.method, seen.path) == ("POST", "/api/ml")]
    shown = kdal("credentials").stdout
    assert sent["auth_method"] == "BASIC_AUTH"
    assert (f"User:     {sent['basic_auth_user']}" in shown, f"Password: {sent['basic_auth_pass']}" in shown) == (
        True,
        True,
    )
