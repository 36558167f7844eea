"""Which teachers projects may name, and which projects may name them."""

import pytest
import yaml

from kdal.resources import Resources
from kdal.teachers.catalogue import load_catalogue
from kdal.web.app import create_app
from kdal_core.errors import ConfigError
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import signed_in

UID = "3.1795301030"
SECRET = "a-secret-key-of-the-teacher"
DIGITS = {
    "teacher": {
        "kind": "http",
        "url": "http://teacher.example.com/classify",
        "classes": list("9876543210"),
        "auth": {"env": "DIGITS_KEY"},
    },
    "budget": 200,
}
BOXES_CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="b" toName="image"><Label value="0"/>'
    '<Label value="1"/></RectangleLabels></View>'
)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "teachers.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def app(write, open_resources):
    resources = open_resources(teachers=write({"digits": DIGITS, "other": DIGITS}))
    return signed_in(create_app(resources).test_client(), resources)


def set_up(app, schema=DIGITS_CONFIG, **policy):
    body = {"project": UID, "schema": schema, "hostname": "http://ls", "access_token": "t", "extra_params": policy}
    return app.post("/setup", json=body)


def test_teachers_of_all_kinds_are_known_by_name_with_their_terms(write, tmp_path, trained):
    (tmp_path / "teacher.safetensors").write_bytes(trained.checkpoint)
    own = {"kind": "checkpoint", "path": str(tmp_path / "teacher.safetensors")}
    money = {"price": 0.01, "money": 1.5, "currency": "EUR"}
    path = write({"digits": DIGITS, "own": {"teacher": own, "budget": 70, **money, "mixup": {"stages": 3}}})
    catalogue = load_catalogue(path)
    assert catalogue.terms("digits").teacher.url == "http://teacher.example.com/classify"
    found = catalogue.terms("own")
    assert (found.budget, found.price, found.money, found.currency, found.mixup.stages) == (70, 0.01, 1.5, "EUR", 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("pets: [", "is no YAML"),
        ("", "dictionary"),
        ("- pets", "dictionary"),
        ({"pets": 5}, "pets: "),
        ({"two words": DIGITS}, "two words"),
        ({"pets": {"teacher": DIGITS["teacher"]}}, "pets.budget"),
        ({"pets": {**DIGITS, "bugdet": 5}}, "pets.bugdet"),
        ({"pets": {**DIGITS, "price": -1}}, "pets.price"),
        ({"pets": {**DIGITS, "mixup": {"stages": -1}}}, "pets.mixup.stages"),
        ({"pets": {**DIGITS, "teacher": {**DIGITS["teacher"], "url": "ftp://a"}}}, "pets.teacher.http.url"),
        ({"pets": {**DIGITS, "teacher": {**DIGITS["teacher"], "kind": "oracle"}}}, "pets.teacher"),
        ({"pets": {**DIGITS, "teacher": {"kind": "checkpoint", "path": "gone.safetensors"}}}, "gone.safetensors"),
    ],
)
def test_a_bad_file_is_refused_at_the_start_and_the_key_is_named(write, make_settings, content, message):
    path = write(content)
    with pytest.raises(ConfigError, match=r"KDAL_TEACHERS.*" + message):
        Resources.open(make_settings(teachers=path))


def test_a_file_that_is_not_there_is_refused_at_the_start(make_settings, tmp_path):
    with pytest.raises(ConfigError, match=r"KDAL_TEACHERS.*nowhere\.yaml.*No such file"):
        Resources.open(make_settings(teachers=tmp_path / "nowhere.yaml"))


# ---------------------------------------------------------------------- what an owner may ask for


def test_a_project_may_name_a_teacher_whose_classes_are_its_choices_in_any_order(app):
    assert set_up(app, black_box="digits", queries=100).status_code == 200
    assert set_up(app, black_box="digits", student="tiny_cnn").status_code == 200


@pytest.mark.parametrize(
    ("schema", "policy", "words"),
    [
        (DIGITS_CONFIG, {"black_box": "pets"}, ['no teacher "pets"', "known: digits, other", "KDAL_TEACHERS"]),
        (BOXES_CONFIG, {"black_box": "digits"}, ["<Choices>"]),
        (DIGITS_CONFIG.replace('"3"', '"drei"'), {"black_box": "digits"}, ["<Choice> for 3", "not know drei"]),
        (DIGITS_CONFIG.replace('<Choice value="9"/>', ""), {"black_box": "digits"}, ["no <Choice> for 9"]),
        (DIGITS_CONFIG, {"black_box": "digits", "student": "no_such_net"}, ["There is no model 'no_such_net'"]),
        (DIGITS_CONFIG, {"black_box": "digits", "strategy": "kd_gap"}, ["compares three networks"]),
        (DIGITS_CONFIG, {"queries": 100}, ["black_box"]),
    ],
)
def test_a_project_that_a_teacher_cannot_teach_is_a_400_that_says_why(app, schema, policy, words):
    response = set_up(app, schema, **policy)
    assert response.status_code == 400
    assert [word for word in words if word not in response.get_json()["error"]] == []


def test_without_a_file_the_owner_is_told_what_whoever_runs_kdal_has_to_set(resources):
    response = set_up(signed_in(create_app(resources).test_client(), resources), black_box="pets")
    assert response.status_code == 400
    assert "sets KDAL_TEACHERS" in response.get_json()["error"]


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1:9090/steal",
        {"kind": "http", "url": "http://127.0.0.1/", "auth": {"env": "LABEL_STUDIO_API_KEY"}},
        "digits/../other",
    ],
)
def test_no_address_and_no_secret_can_come_from_a_project(app, value):
    response = set_up(app, black_box=value)
    assert response.status_code == 400
    assert '"black_box"' in response.get_json()["error"]


def test_what_owners_are_shown_holds_neither_the_teachers_address_nor_its_secret(app, monkeypatch):
    monkeypatch.setenv("DIGITS_KEY", SECRET)
    for policy in ({"black_box": "pets"}, {"black_box": "digits"}, {"black_box": "digits", "student": "x"}):
        text = set_up(app, **policy).text
        assert SECRET not in text
        assert "teacher.example.com" not in text
        assert "DIGITS_KEY" not in text
