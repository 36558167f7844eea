"""Label Studio on SQLite gives a deleted project's number to the next one: the uid tells them apart."""

import pytest

from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import SETUP, UID, error_of, predict, task

OTHER = "3.1795309999"
"""Another project with the number of the one that is served."""


def answers(app, uid, trained):
    return app.post("/predict", json={"project": uid, "tasks": [task(5, trained.files[0]), task(3, trained.files[1])]})


def test_an_unknown_project_of_a_known_number_gets_no_scores_and_no_model(serving, trained):
    assert predict(serving, [task(5, trained.files[0])])[0]["model_version"] == "kdal-r0"
    assert f"project {OTHER} is not connected" in error_of(answers(serving, OTHER, trained), 404)


def test_a_project_that_is_set_up_under_a_known_number_gets_nothing_of_the_old_one(serving, trained):
    """It is a claim until the worker has asked Label Studio; until then it is a project without an order."""
    answer = serving.post("/setup", json=SETUP | {"project": OTHER})
    assert answer.get_json() == {"model_version": "kdal"}
    results = answers(serving, OTHER, trained).get_json()["results"]
    assert [(r["result"], r["score"], r["model_version"]) for r in results] == [([], 1.0, "kdal")] * 2
    assert all("asks Label Studio" in r["error"] for r in results)


def test_a_claim_takes_nothing_from_the_project_that_is_served(serving, trained):
    serving.post("/setup", json=SETUP | {"project": OTHER})
    ours = SETUP | {"extra_params": {"suggest_above": 0.0}}
    assert serving.post("/setup", json=ours).get_json() == {"model_version": "kdal-r0"}
    (result,) = predict(serving, [task(5, trained.files[0])])
    assert (result["score"], result["model_version"]) == (0.2, "kdal-r0")
    assert result["result"]


def test_a_claim_that_is_accepted_starts_from_nothing(serving, resources, trained):
    resources.storage.put_project(3, OTHER, DIGITS_CONFIG, {})
    resources.storage.accept_project(3, OTHER)
    results = answers(serving, OTHER, trained).get_json()["results"]
    assert [(r["result"], r["score"], r["model_version"]) for r in results] == [([], 1.0, "kdal")] * 2
    assert "is not connected" in error_of(answers(serving, UID, trained), 404)


def test_versions_are_those_of_the_project_that_is_named(serving):
    assert serving.get(f"/versions?project={UID}").get_json() == {"versions": ["kdal-r0"]}
    assert serving.get(f"/versions?project={OTHER}").get_json() == {"versions": []}
    serving.post("/setup", json=SETUP | {"project": OTHER})
    assert serving.get(f"/versions?project={OTHER}").get_json() == {"versions": []}


@pytest.mark.parametrize("uid", ["3.1", "3.0", "03.1795301030", "3.01795301030"])
def test_what_only_looks_like_the_uid_is_another_project(serving, trained, uid):
    assert answers(serving, uid, trained).status_code == 404
    assert serving.post("/setup", json={**SETUP, "project": uid, "schema": DIGITS_CONFIG}).get_json() == {
        "model_version": "kdal"
    }
