"""Which projects kdal serves is what Label Studio's API says, whoever calls /setup."""

from __future__ import annotations

import pytest
from flask import Response, abort, request

from kdal.storage.set_ups import note_set_up, set_up_waits
from tests.kdal.conftest import DIGITS_CONFIG

NUMBER = 7


@pytest.fixture
def kdal(loop):
    """A worker whose database knows project 3; Label Studio has project 7, too, where kdal is no ML backend yet."""
    loop.look()
    loop.other = loop.label_studio.project(NUMBER, DIGITS_CONFIG, ["a", "b"])
    return loop


def note(kdal, number=NUMBER, uid=None):
    note_set_up(kdal.resources.storage, number, uid or kdal.label_studio.projects[number].uid)


def add_backend(kdal, url=None, **fields):
    return kdal.label_studio.add_backend(kdal.other, url or kdal.resources.settings.url, **fields)


def served(kdal, number=NUMBER):
    return kdal.resources.storage.project(number)


def test_a_confirmed_set_up_is_noted_as_label_studio_has_it(kdal):
    add_backend(kdal, extra_params={"budget": 20})
    note(kdal)
    kdal.look()
    project = served(kdal)
    assert (project.uid, project.label_config, project.policy) == (kdal.other.uid, DIGITS_CONFIG, {"budget": 20})
    assert not set_up_waits(kdal.resources.storage, NUMBER, kdal.other.uid)
    kdal.look()
    assert kdal.resources.storage.last_round(NUMBER).number == 0


def test_label_studio_calls_before_its_api_shows_the_backend(kdal):
    note(kdal)
    kdal.look()
    assert served(kdal) is None
    add_backend(kdal)
    kdal.look()
    assert served(kdal) is not None


def test_a_set_up_that_is_never_confirmed_is_forgotten(kdal):
    note(kdal)
    for _ in range(10):
        kdal.look(30)
    assert served(kdal) is None
    assert not set_up_waits(kdal.resources.storage, NUMBER, kdal.other.uid)
    assert kdal.label_studio.count(f"PATCH .*{NUMBER}|POST .*") == kdal.label_studio.count("POST .*")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9091", "http://evil.example:9090", "http://127.0.0.1:9090/other"])
def test_another_ml_backend_is_none_of_kdals_business(kdal, url):
    add_backend(kdal, url, title="theirs")
    note(kdal)
    kdal.look()
    assert served(kdal) is None


@pytest.mark.parametrize("url", ["http://localhost:9090/", "http://127.0.0.1:9090//", "HTTP://127.0.0.1:9090"])
def test_our_address_is_known_however_it_is_written(kdal, url):
    add_backend(kdal, url, title="by hand")
    note(kdal)
    kdal.look()
    assert served(kdal) is not None


def test_many_invented_projects_cost_one_question_and_are_forgotten_at_once(kdal):
    for number in range(1000, 1600):
        note(kdal, number, f"{number}.1795301030")
    note(kdal, NUMBER, f"{NUMBER}.1")  # a real number under an invented date
    add_backend(kdal)
    note(kdal)
    before = len(kdal.label_studio.asked)
    kdal.look(1)
    assert served(kdal) is not None
    assert [p.id for p in kdal.resources.storage.projects()] == [3, NUMBER]
    assert not set_up_waits(kdal.resources.storage, 1000, "1000.1795301030")
    assert len(kdal.label_studio.asked) - before < 20


def test_a_stranger_changes_neither_policy_nor_owner_of_a_served_project(kdal):
    policy = served(kdal, 3).policy
    note(kdal, 3, "3.1")
    note(kdal, 3)
    kdal.look()
    assert (served(kdal, 3).uid, served(kdal, 3).policy) == (kdal.project.uid, policy)
    assert kdal.resources.storage.waiting_events() == []
    assert len(kdal.rounds) == 1


def test_a_changed_policy_is_read_from_label_studio(kdal):
    (backend,) = kdal.project.backends.values()
    backend["extra_params"] = {"budget": 9}
    note(kdal, 3)
    kdal.look()
    assert served(kdal, 3).policy == {"budget": 9}


def test_a_config_that_can_no_longer_be_served_is_said_in_the_status(kdal):
    kdal.project.label_config = "<View/>"
    note(kdal, 3)
    kdal.look()
    assert "no control tag" in served(kdal, 3).refusal
    kdal.project.label_config = DIGITS_CONFIG
    note(kdal, 3)
    kdal.look()
    assert served(kdal, 3).refusal is None


def test_a_new_project_under_a_known_number_starts_from_nothing(kdal):
    kdal.project.created_at = "2027-01-01T00:00:00Z"
    note(kdal, 3)
    kdal.look()
    assert served(kdal, 3).uid == kdal.project.uid
    assert kdal.rounds == []


def test_while_label_studio_is_down_set_ups_wait(kdal):
    add_backend(kdal)
    note(kdal)
    kdal.label_studio.on["GET", "/api/projects/"] = lambda: abort(Response(status=503))
    for _ in range(12):
        kdal.look(30)
    assert served(kdal) is None
    kdal.label_studio.on.clear()
    kdal.look(30)
    assert served(kdal) is not None


def test_a_project_that_was_left_is_served_again_only_with_a_backend_of_ours(kdal):
    kdal.project.backends.clear()
    kdal.resources.storage.disconnect_project(3)
    note(kdal, 3)
    kdal.look()
    assert served(kdal, 3).disconnected_at is not None
    kdal.label_studio.add_backend(kdal.project, kdal.resources.settings.url)
    note(kdal, 3)
    kdal.look()
    assert served(kdal, 3).disconnected_at is None


def test_a_project_whose_backends_our_token_may_not_see_is_not_asked_about_for_ever(kdal):
    note(kdal)
    kdal.label_studio.on["GET", "/api/ml"] = lambda: (
        abort(Response(status=403)) if request.args["project"] == "7" else None
    )
    for _ in range(10):
        kdal.look(30)
    assert served(kdal) is None
    assert not set_up_waits(kdal.resources.storage, NUMBER, kdal.other.uid)
