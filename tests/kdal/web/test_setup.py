import pytest

from kdal.storage import set_ups
from kdal.storage.set_ups import set_ups_due
from kdal.storage.tables import now
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import SETUP, UID, error_of

POLYGONS = DIGITS_CONFIG.replace("Choices", "PolygonLabels").replace("Choice ", "Label ")
LANES = {"task": "lanes"}
MULTIPLE = DIGITS_CONFIG.replace("toName", 'choice="multiple" toName')


def noted(resources):
    """The uids of the set-ups that the worker is to ask Label Studio about."""
    return [row.uid for row in set_ups_due(resources.storage, now())]


def test_setting_up_notes_only_that_it_was_asked_for(app, resources):
    response = app.post("/setup", json=SETUP | {"extra_params": '{"budget": 20}'})
    assert (response.status_code, response.get_json()) == (200, {"model_version": "kdal"})
    assert noted(resources) == [UID]
    assert (resources.storage.projects(), resources.storage.waiting_events()) == ([], [])


@pytest.mark.parametrize("change", [{"extra_params": {"budget": 1}}, {"schema": POLYGONS, "extra_params": LANES}])
def test_what_a_set_up_says_of_a_known_project_changes_nothing_of_it(connected, resources, change):
    resources.storage.update_project(3, connected_at=now())
    assert connected.post("/setup", json=SETUP | change).status_code == 200
    project = resources.storage.project(3)
    assert (project.policy, project.label_config) == ({}, DIGITS_CONFIG)
    assert noted(resources) == [UID]


def test_a_set_up_under_another_uid_changes_nothing_of_the_project(connected, resources):
    assert connected.post("/setup", json=SETUP | {"project": "3.1"}).status_code == 200
    assert [project.uid for project in resources.storage.projects()] == [UID]
    assert noted(resources) == ["3.1"]


def test_setting_up_again_what_is_unchanged_asks_for_nothing(connected, resources):
    for _ in range(3):
        assert connected.post("/setup", json=SETUP).status_code == 200
    assert noted(resources) == []
    assert len(resources.storage.waiting_events()) == 1


def test_no_more_invented_projects_are_noted_than_can_be_asked_about(app, resources, monkeypatch):
    monkeypatch.setattr(set_ups, "MOST", 5)
    for number in range(5):
        assert app.post("/setup", json=SETUP | {"project": f"{number}.1"}).status_code == 200
    assert "Try again" in error_of(app.post("/setup", json=SETUP), 429)
    assert app.post("/setup", json=SETUP | {"project": "2.1"}).status_code == 200  # known already
    assert len(noted(resources)) == 5


def test_who_sets_up_cannot_have_words_hidden_in_what_kdal_says(app):
    assert app.post("/setup", json=SETUP | {"access_token": "labelling config"}).status_code == 200
    refused = app.post("/setup", json=SETUP | {"schema": "<View>"})
    assert error_of(refused, 400).startswith("labelling config: not valid XML")


@pytest.mark.parametrize("params", [None, "", "{}", {}, "null"])
def test_setting_up_without_a_policy_takes_the_defaults(app, resources, params):
    resources.storage.put_project(3, UID, DIGITS_CONFIG, {})
    assert app.post("/setup", json=SETUP | {"extra_params": params}).status_code == 200
    assert noted(resources) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": '<View><Text name="t" value="$t"/></View>'}, "found no control tag at all"),
        ({"schema": DIGITS_CONFIG.replace("Choices", "Größen")}, "kdal serves <Choices>"),
        (
            {"schema": DIGITS_CONFIG.replace("toName", 'choice="multiple" toName')},
            '<Choices name="digit"> allows several',
        ),
        ({"schema": "<View>"}, "labelling config: not valid XML"),
        ({"schema": ""}, "labelling config: not valid XML"),
        ({"schema": None}, '"schema" must be'),
        ({"schema": {"a": 1}}, '"schema" must be'),
        ({"extra_params": '{"buget": 5}'}, 'unknown key "buget"'),
        ({"extra_params": {"budget": "5"}}, '"budget"'),
        ({"extra_params": {"budget\n\n": 5}}, "unknown key"),
        ({"extra_params": "[1, 2]"}, "expected an object"),
        ({"extra_params": {"student": "no_such_net"}}, "There is no model 'no_such_net'"),
        ({"extra_params": {"student": "wide_cnn", "teacher": "small_cnn"}}, "at least 4 times"),
        ({"project": None}, '"project" must be'),
        ({"project": 3}, '"project" must be'),
        ({"project": "3"}, '"project" must be'),
        ({"project": "3.1/../../etc"}, '"project" must be'),
        ({"project": "3.1\n"}, '"project" must be'),
        ({"project": "-3.1"}, '"project" must be'),
        ({"project": "٣.1"}, '"project" must be'),
        ({"project": "1" * 50 + ".1"}, '"project" must be'),
    ],
)
def test_a_set_up_that_cannot_be_served_is_a_400_that_says_why_and_notes_nothing(app, resources, change, message):
    assert message in error_of(app.post("/setup", json=SETUP | change), 400)
    assert resources.storage.projects() == []
    assert resources.storage.waiting_events() == []
    assert noted(resources) == []


@pytest.mark.parametrize(
    ("schema", "params", "message"),
    [
        (POLYGONS, {}, 'only if the extra params say so, {"task": "lanes"}'),
        (DIGITS_CONFIG, {"task": "boxes"}, '"task": "boxes" needs <RectangleLabels>'),
        (DIGITS_CONFIG, {"strategy": "entropy", "beta": 1}, '"beta" does nothing with "strategy": "entropy"'),
        (
            DIGITS_CONFIG,
            {"weights": "defualt"},
            '"weights": "defualt" is not "auto", "none", "default" or a .safetensors or .pth file',
        ),
        (DIGITS_CONFIG, {"weights": "/gone.safetensors"}, '"weights": there is no file "/gone.safetensors"'),
        (POLYGONS, {"task": "lanes", "eps": 1}, '"eps" does nothing with the formula that lanes have'),
        (DIGITS_CONFIG.replace('"$image"', '"$a/$b"'), {}, 'its value is "$a/$b"'),
    ],
)
def test_what_would_be_read_wrongly_or_do_nothing_is_a_400_that_says_what_to_write(
    app, resources, schema, params, message
):
    assert message in error_of(app.post("/setup", json=SETUP | {"schema": schema, "extra_params": params}), 400)
    assert resources.storage.projects() == []


@pytest.mark.parametrize(
    ("schema", "params"),
    [
        (POLYGONS, {"task": "lanes"}),
        (DIGITS_CONFIG.replace('"$image"', '"$meta.image"'), {}),
        (DIGITS_CONFIG.replace("</View>", '<Rating name="stars" toName="image"/></View>'), {"task": "classification"}),
    ],
)
def test_what_kdal_can_read_is_set_up(app, resources, schema, params):
    assert app.post("/setup", json=SETUP | {"schema": schema, "extra_params": params}).status_code == 200
    assert noted(resources) == [UID]


@pytest.mark.parametrize("missing", ["project", "schema"])
def test_a_set_up_without_a_key_that_it_needs_is_a_400_that_names_it(app, missing):
    body = {key: value for key, value in SETUP.items() if key != missing}
    assert f'"{missing}"' in error_of(app.post("/setup", json=body), 400)


def test_a_known_project_that_can_no_longer_be_served_is_looked_at(connected, resources):
    error_of(connected.post("/setup", json=SETUP | {"schema": "<View/>"}), 400)
    assert noted(resources) == [UID]
    assert resources.storage.project(3).refusal is None


def test_the_access_token_of_the_set_up_is_not_kept(app, tmp_path):
    app.post("/setup", json=SETUP | {"access_token": "5ec4e7-of-the-owner"})
    files = [path for path in (tmp_path / "kdal").rglob("*") if path.is_file()]
    assert [path for path in files if b"5ec4e7-of-the-owner" in path.read_bytes()] == []
    assert files != []
