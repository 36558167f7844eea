import json
from pathlib import Path

import pytest

from kdal.labelstudio.connection import PROJECT_HEADER
from tests.kdal.web.requests import SETUP

PAYLOADS = json.loads((Path(__file__).parent / "payloads" / "label-studio-1.23.2.json").read_text())
"""What a real Label Studio 1.23.2 sent, one request of each kind."""


@pytest.fixture
def real(app):
    assert app.post("/setup", json=PAYLOADS["LS->ML POST /setup"]).get_json() == {"model_version": "kdal"}
    return app


def test_a_real_set_up_notes_the_project(real, resources):
    (project,) = resources.storage.projects()
    assert (project.id, project.uid, project.policy) == (1, "1.1795301030", {})


def test_a_real_request_for_predictions_is_answered(real):
    response = real.post("/predict", json=PAYLOADS["LS->ML POST /predict"])
    assert response.get_json() == {"results": [{"result": [], "score": 1.0, "model_version": "kdal"}]}


@pytest.mark.parametrize("name", [name for name in PAYLOADS if "webhook" in name])
def test_a_real_event_is_acknowledged(app, resources, secret, name):
    event = PAYLOADS[name]
    number = event.get("project", {"id": 51})["id"]  # without payload an event names its project by our header alone
    app.post("/setup", json=SETUP | {"project": f"{number}.1795301030"})
    headers = {} if event["action"] == "START_TRAINING" else secret | {PROJECT_HEADER: str(number)}
    response = app.post("/webhook", json=event, headers=headers)
    ours = event["action"] == "PROJECT_UPDATED"
    assert (response.status_code, response.get_json()) == (200, {"status": "ignored" if ours else "accepted"})
    noted = [row.action for row in resources.storage.events(number)]
    assert noted == (["SETUP"] if ours else ["SETUP", event["action"]])
