import pytest

from kdal.labelstudio.connection import PROJECT_HEADER, SECRET_HEADER
from kdal.web.app import create_app
from kdal.web.service import STARTS, ForbiddenError, Service
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import EVENT, UID, error_of

START = {"action": "START_TRAINING", "project": {"id": 3}}


def test_an_event_with_the_secret_is_on_disk_when_it_is_acknowledged(connected, resources, secret):
    response = connected.post("/webhook", json=EVENT, headers=secret)
    assert (response.status_code, response.get_json()) == (200, {"status": "accepted"})
    assert [event.action for event in resources.storage.waiting_events()] == ["SETUP", "ANNOTATION_CREATED"]


def test_the_same_event_twice_is_two_rows_and_nothing_else(connected, resources, secret, tmp_path):
    def files():
        return sorted(str(path) for path in (tmp_path / "kdal" / "assets").rglob("*"))

    before = (files(), resources.storage.projects()[0].policy, resources.storage.rounds(3))
    for _ in range(2):
        assert connected.post("/webhook", json=EVENT, headers=secret).status_code == 200
    assert [event.action for event in resources.storage.events(3)] == ["SETUP", *["ANNOTATION_CREATED"] * 2]
    assert (files(), resources.storage.projects()[0].policy, resources.storage.rounds(3)) == before


@pytest.mark.parametrize("headers", [{SECRET_HEADER: ""}, {SECRET_HEADER: "wrong"}, {SECRET_HEADER: "größe"}])
def test_an_event_with_a_wrong_secret_is_a_403_and_leaves_nothing(connected, resources, headers):
    message = error_of(connected.post("/webhook", json=EVENT, headers=headers), 403)
    assert "kdal connect" in message
    assert resources.settings.secret not in message
    assert [event.action for event in resources.storage.waiting_events()] == ["SETUP"]


def test_the_secret_may_come_under_a_header_of_any_case(connected, resources):
    headers = {SECRET_HEADER.upper(): resources.settings.secret}
    assert connected.post("/webhook", json=EVENT, headers=headers).status_code == 200


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "START_TRAINING"])
def test_an_event_with_neither_secret_nor_password_leaves_nothing(resources, action):
    resources.storage.put_project(3, UID, DIGITS_CONFIG, {})
    error_of(create_app(resources).test_client().post("/webhook", json=EVENT | {"action": action}), 401)
    with pytest.raises(ForbiddenError):
        Service(resources).webhook(EVENT | {"action": action}, {})
    assert resources.storage.waiting_events() == []


def test_training_starts_once_however_often_the_button_is_pressed_meanwhile(connected, resources):
    for _ in range(20):
        assert connected.post("/webhook", json=START).get_json() == {"status": "accepted"}
    assert [event.action for event in resources.storage.waiting_events()] == ["SETUP", "START_TRAINING"]


def test_who_presses_the_button_again_and_again_is_told_to_wait(connected, resources):
    for _ in range(STARTS):
        assert connected.post("/webhook", json=START).status_code == 200
        resources.storage.finish_events([event.id for event in resources.storage.waiting_events()])
    assert "wait a while" in error_of(connected.post("/webhook", json=START), 429)
    assert resources.storage.waiting_events() == []
    assert connected.post("/webhook", json=EVENT).status_code == 200  # labels are always welcome


def test_start_training_comes_without_the_secret_but_never_with_a_wrong_one(connected, resources):
    event = START
    assert connected.post("/webhook", json=event).get_json() == {"status": "accepted"}
    error_of(connected.post("/webhook", json=event, headers={SECRET_HEADER: "wrong"}), 403)
    assert [event.action for event in resources.storage.waiting_events()] == ["SETUP", "START_TRAINING"]


def test_our_own_change_of_the_order_is_not_taken_for_news(connected, resources, secret):
    response = connected.post("/webhook", json={"action": "PROJECT_UPDATED", "project": {"id": 3}}, headers=secret)
    assert response.get_json() == {"status": "ignored"}
    assert [event.action for event in resources.storage.waiting_events()] == ["SETUP"]


def test_the_project_may_be_named_by_the_header(connected, resources, secret):
    """Label Studio's events without payload do not always name it."""
    response = connected.post("/webhook", json={"action": "TASKS_CREATED"}, headers=secret | {PROJECT_HEADER: "3"})
    assert response.status_code == 200
    assert [event.project_id for event in resources.storage.waiting_events()] == [3, 3]


@pytest.mark.parametrize(
    "project", [None, {}, {"id": None}, {"id": "3"}, {"id": 3.0}, {"id": True}, {"id": -3}, [3], "3", 10**30]
)
def test_an_event_that_names_no_project_is_a_400(connected, secret, project):
    response = connected.post("/webhook", json={"action": "TASKS_CREATED", "project": project}, headers=secret)
    assert "names no project" in error_of(response, 400)


@pytest.mark.parametrize("header", ["", "x", "-3", "3.0", "²", "9" * 30])
def test_a_header_that_names_no_project_is_a_400(connected, secret, header):
    response = connected.post("/webhook", json={"action": "X"}, headers=secret | {PROJECT_HEADER: header})
    assert "names no project" in error_of(response, 400)


@pytest.mark.parametrize("action", [None, 5, [], {}, "", "lower", "X" * 65, "DROP TABLE", "X\n"])
def test_an_event_whose_action_is_none_is_a_400(connected, secret, action):
    response = connected.post("/webhook", json={"action": action, "project": {"id": 3}}, headers=secret)
    assert '"action" must be' in error_of(response, 400)


def test_an_event_of_a_project_that_is_not_connected_is_a_404(connected, resources, secret):
    response = connected.post("/webhook", json=EVENT | {"project": {"id": 4}}, headers=secret)
    assert "project 4 is not connected" in error_of(response, 404)
    assert resources.storage.events(4) == []


def test_nothing_is_read_of_who_does_not_know_the_secret(resources):
    """Else a stranger could have kdal take megabytes of nested JSON apart."""
    client = create_app(resources).test_client()
    error_of(client.post("/webhook", data=b"[" * 1_000_000, headers={SECRET_HEADER: "wrong"}), 403)
