"""Connecting a project, keeping it connected, and taking kdal out again, seen from Label Studio's side."""

from __future__ import annotations

import json

import pytest

from kdal.labelstudio import connection
from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.connection import (
    BEFORE,
    SECRET_HEADER,
    DisconnectedError,
    connect_backend,
    connection_notes,
    disconnect,
    ensure_connected,
    project_uid,
)
from kdal_core.errors import ConfigError
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.label_studio import StandInLabelStudio


@pytest.fixture
def label_studio():
    with StandInLabelStudio() as server:
        yield server


@pytest.fixture
def kdal(open_resources, label_studio):
    return open_resources(label_studio_url=label_studio.url)


@pytest.fixture
def project(label_studio):
    """A project with two tasks, and with the predictions of another model in force."""
    made = label_studio.project(3, DIGITS_CONFIG, ["a", "b"], sampling="Uniform sampling", model_version="theirs-1")
    made.predictions = [{"task": t, "score": 0.5, "model_version": "theirs-1", "result": []} for t in made.tasks]
    return made


def connect(kdal, project, params=None):
    connect_backend(kdal.settings, kdal.label_studio, project.id, params)
    kdal.storage.put_project(project.id, project.uid, project.label_config, {})


def ensure(kdal, *, insist=False):
    ensure_connected(kdal.settings, kdal.label_studio, kdal.storage, kdal.storage.project(3), insist=insist)


def put_in_force(kdal, project, version="kdal-r0"):
    project.predictions += [{"task": t, "score": 0.5, "model_version": version, "result": []} for t in project.tasks]
    project.model_version, project.sampling = version, "Uncertainty sampling"
    kdal.storage.update_project(3, version=version)


def leave(kdal, **arguments):
    return disconnect(kdal.settings, kdal.label_studio, kdal.storage, 3, **arguments)


def test_connecting_makes_a_backend_and_one_webhook_with_the_secret_and_twice_changes_nothing(kdal, project):
    connect(kdal, project, {"budget": 7})
    (backend,), (hook,) = project.backends.values(), project.webhooks.values()
    assert (backend["url"], backend["title"], backend["extra_params"]) == (kdal.settings.url, "kdal", {"budget": 7})
    assert hook["headers"][SECRET_HEADER] == kdal.settings.secret
    assert hook["send_payload"] is False
    connect(kdal, project)
    assert (list(project.backends), list(project.webhooks)) == ([backend["id"]], [hook["id"]])
    assert project.backends[backend["id"]]["extra_params"] == {"budget": 7}


def test_basic_authentication_is_told_to_label_studio(open_resources, label_studio, project):
    kdal = open_resources(label_studio_url=label_studio.url, auth_user="me", auth_password="of course")
    connect(kdal, project)
    (backend,) = project.backends.values()
    assert (backend["basic_auth_user"], backend["basic_auth_pass"]) == ("me", "of course")


def test_a_user_and_password_that_kdal_made_are_told_to_label_studio(kdal, project):
    connect(kdal, project)
    (backend,) = project.backends.values()
    made = kdal.settings.with_credentials()
    assert backend["auth_method"] == "BASIC_AUTH"
    assert (backend["basic_auth_user"], backend["basic_auth_pass"]) == (made.auth_user, made.auth_password)


def test_a_backend_of_a_kdal_that_asked_for_no_password_is_put_right_once(kdal, project, label_studio):
    label_studio.add_backend(project, kdal.settings.url, extra_params={"budget": 7})
    kdal.storage.put_project(project.id, project.uid, project.label_config, {})
    for _ in range(3):
        ensure(kdal)
    (backend,) = project.backends.values()
    assert (backend["basic_auth_user"], backend["basic_auth_pass"]) == ("kdal", kdal.settings.auth_password)
    assert (backend["extra_params"], backend["url"]) == ({"budget": 7}, kdal.settings.url)
    assert label_studio.count("PATCH /api/ml/.*") == 1


def test_a_password_that_was_changed_is_told_to_label_studio_and_what_somebody_took_out_is_put_back(
    kdal, open_resources, project, label_studio
):
    connect(kdal, project)
    ensure(kdal)
    (backend,) = project.backends.values()
    changed = open_resources(label_studio_url=label_studio.url, auth_user="me", auth_password="another")
    ensure(changed)
    assert (backend["basic_auth_user"], backend["basic_auth_pass"]) == ("me", "another")
    backend["auth_method"] = "NONE"
    ensure(changed)
    assert backend["auth_method"] == "BASIC_AUTH"


def test_what_cannot_be_served_is_refused_before_anything_is_made(kdal, label_studio, project):
    with pytest.raises(ConfigError):
        connect(kdal, project, {"bugdet": 7})
    project.label_config = "<View/>"
    with pytest.raises(ConfigError):
        connect(kdal, project)
    with pytest.raises(LabelStudioError, match="404"):
        connect_backend(kdal.settings, kdal.label_studio, 99)
    assert (project.backends, project.webhooks) == ({}, {})


def test_webhooks_of_label_studios_own_and_of_an_older_address_are_replaced_by_ours(kdal, project):
    project.webhooks = {
        1: {"id": 1, "project": 3, "url": f"{kdal.settings.url}/webhook", "headers": {}},
        2: {"id": 2, "project": 3, "url": "http://old:9090/webhook", "headers": {SECRET_HEADER: "old"}},
        3: {"id": 3, "project": 3, "url": "http://elsewhere/hook", "headers": {}},
    }
    connect(kdal, project)
    assert sorted(hook["url"] for hook in project.webhooks.values()) == [
        f"{kdal.settings.url}/webhook",
        "http://elsewhere/hook",
    ]
    ours = next(h for h in project.webhooks.values() if h["url"] == f"{kdal.settings.url}/webhook")
    assert ours["headers"][SECRET_HEADER] == kdal.settings.secret


def test_what_label_studio_does_by_itself_is_undone_and_what_people_choose_only_on_a_set_up(kdal, project):
    connect(kdal, project)
    put_in_force(kdal, project)
    for version in ("kdal", "", "kdal-r9"):
        project.model_version = version
        ensure(kdal)
        assert project.model_version == "kdal-r0"
    project.model_version = "theirs-1"
    ensure(kdal)
    assert project.model_version == "theirs-1"
    ensure(kdal, insist=True)
    assert project.model_version == "kdal-r0"
    project.sampling = "Sequential sampling"
    ensure(kdal)
    assert project.sampling == "Sequential sampling"
    ensure(kdal, insist=True)
    assert project.sampling == "Uncertainty sampling"


def test_before_anything_was_published_the_order_is_left_alone(kdal, project):
    connect(kdal, project)
    ensure(kdal, insist=True)
    assert (project.sampling, project.model_version) == ("Uniform sampling", "kdal")
    assert kdal.storage.project(3).connected_at is not None


@pytest.mark.parametrize("by", ["command", "button"])
def test_leaving_puts_back_what_was_there_before_and_keeps_what_kdal_knows(kdal, label_studio, project, by):
    if by == "command":
        connect(kdal, project)
    else:  # Label Studio has forgotten the model version by then
        label_studio.add_backend(project, kdal.settings.url, title="kdal")
        kdal.storage.put_project(3, project.uid, project.label_config, {})
    ensure(kdal, insist=True)
    put_in_force(kdal, project)
    left = leave(kdal)
    before = "theirs-1" if by == "command" else ""
    assert left == {"sampling": "Uniform sampling", "model_version": before, "removed": []}
    assert (project.sampling, project.model_version) == ("Uniform sampling", before)
    assert (project.backends, project.webhooks) == ({}, {})
    assert project.versions() == {"theirs-1": 2, "kdal-r0": 2}
    row = kdal.storage.project(3)
    assert (row.version, row.connected_at, row.backend_id) == ("kdal-r0", None, None)
    assert row.disconnected_at is not None
    assert kdal.storage.projects() == []
    assert [p.id for p in kdal.storage.projects(disconnected=True)] == [3]


def test_leaving_removes_the_predictions_where_that_is_asked_for_and_nobody_elses(kdal, project):
    connect(kdal, project)
    put_in_force(kdal, project, "kdal-r0")
    put_in_force(kdal, project, "kdal-r1.2")
    assert leave(kdal, remove_predictions=True)["removed"] == ["kdal-r0", "kdal-r1.2"]
    assert project.versions() == {"theirs-1": 2}
    assert kdal.storage.project(3).version is None


def test_what_somebody_has_chosen_since_stays_chosen(kdal, project):
    connect(kdal, project)
    put_in_force(kdal, project)
    project.sampling, project.model_version = "Sequential sampling", "theirs-1"
    leave(kdal)
    assert (project.sampling, project.model_version) == ("Sequential sampling", "theirs-1")


def test_what_was_before_is_known_from_label_studio_when_kdals_database_is_lost(
    kdal, open_resources, project, tmp_path
):
    connect(kdal, project)
    put_in_force(kdal, project)
    other = open_resources(label_studio_url=kdal.label_studio.url, home=tmp_path / "another")
    disconnect(other.settings, other.label_studio, other.storage, 3)
    assert (project.sampling, project.model_version, project.backends) == ("Uniform sampling", "theirs-1", {})


@pytest.mark.parametrize("text", ["", "my notes", BEFORE + "{", BEFORE + "[1]", BEFORE + json.dumps({"sampling": 1})])
def test_a_description_that_somebody_edited_leads_back_to_label_studios_own_order(kdal, project, text):
    connect(kdal, project)
    for backend in project.backends.values():
        backend["description"] = text
    put_in_force(kdal, project)
    leave(kdal)
    assert (project.sampling, project.model_version) == ("Sequential sampling", "")


def test_leaving_twice_or_where_kdal_never_was_is_no_error(kdal, project):
    connect(kdal, project)
    leave(kdal)
    first = project.sampling, project.model_version
    leave(kdal)
    assert (project.sampling, project.model_version) == first
    assert len(kdal.storage.projects(disconnected=True)) == 1


def test_a_backend_that_was_deleted_is_told_but_not_while_label_studio_sets_one_up(kdal, project):
    connect(kdal, project)
    ensure(kdal)
    project.backends.clear()
    ensure(kdal, insist=True)  # Label Studio asks /setup before it keeps the backend
    with pytest.raises(DisconnectedError):
        ensure(kdal)


def test_a_backend_under_another_name_and_address_is_not_taken_for_a_deleted_one(kdal, label_studio, project):
    label_studio.add_backend(project, "http://kdal:9090", title="our model")
    kdal.storage.put_project(3, project.uid, project.label_config, {})
    ensure(kdal)
    assert kdal.storage.project(3).connected_at is not None


def test_a_projects_uid_is_what_label_studio_sends(kdal, project):
    assert project_uid(kdal.label_studio.project(3)) == project.uid
    assert connection.TITLE == "kdal"


POLYGONS = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="area" toName="image"><Label value="cell"/>'
    "</PolygonLabels></View>"
)


@pytest.mark.parametrize(
    ("config", "params", "why"),
    [
        (POLYGONS, None, "only if the extra params say so"),
        (POLYGONS, {"budget": 5}, '{"task": "lanes"}'),
        (POLYGONS, {"task": "boxes"}, '"task": "boxes" needs <RectangleLabels>'),
        (DIGITS_CONFIG, {"task": "boxes"}, '"task": "boxes" needs <RectangleLabels>'),
        (DIGITS_CONFIG, {"strategy": "entropy", "beta": 1}, '"beta" does nothing with "strategy": "entropy"'),
        (DIGITS_CONFIG, {"weights": "defualt"}, '"weights": "defualt"'),
        (DIGITS_CONFIG.replace('value="$image"', 'valueList="$images"'), None, "a list of images"),
    ],
)
def test_a_config_or_policy_that_kdal_cannot_serve_is_refused_before_anything_is_made(
    kdal, project, config, params, why
):
    project.label_config = config
    with pytest.raises(ConfigError) as caught:
        connect(kdal, project, params)
    assert why in str(caught.value)
    assert (project.backends, project.webhooks) == ({}, {})


def test_polygons_that_the_owner_calls_lanes_stay_connected_without_saying_so_again(kdal, project):
    project.label_config = POLYGONS
    connect(kdal, project, '{"task": "lanes"}')
    connect(kdal, project)
    (backend,) = project.backends.values()
    assert backend["extra_params"] == {"task": "lanes"}


def test_a_project_that_an_older_kdal_took_polygons_for_lanes_in_is_told_what_to_write(kdal, project, label_studio):
    project.label_config = POLYGONS
    label_studio.add_backend(project, kdal.settings.url, extra_params={"budget": 5})
    with pytest.raises(ConfigError, match=r'only if the extra params say so, \{"task": "lanes"\}'):
        connect(kdal, project)
    connect(kdal, project, {"budget": 5, "task": "lanes"})


def test_what_kdal_leaves_alone_is_said_when_a_project_is_connected(kdal, project):
    project.label_config = DIGITS_CONFIG.replace("</View>", '<TextArea name="note" toName="image"/></View>')
    row = connect_backend(kdal.settings, kdal.label_studio, 3, None)
    assert connection_notes(kdal.settings, kdal.label_studio, row) == (
        'kdal serves <Choices name="digit"> and leaves <TextArea name="note"> alone',
    )
