import json
from pathlib import Path

import pytest

from kdal.labelstudio.connection import PROJECT_HEADER
from kdal.storage.set_ups import set_ups_due
from kdal.storage.tables import now
from tests.kdal.conftest import DIGITS_CONFIG

PAYLOADS = json.loads((Path(__file__).parent / "payloads" / "label-studio-1.23.2.json").read_text())
"""What a real Label Studio 1.23.2 sent, one request of each kind."""


@pytest.fixture
def real(app):
    assert app.post("/setup", json=PAYLOADS["LS->ML POST /setup"]).get_json() == {"model_version": "kdal"}
    return app


def test_a_real_set_up_is_noted_for_the_worker(real, resources):
    (noted,) = set_ups_due(resources.storage, now())
    assert (noted.project_id, noted.uid) == (1, "1.1795301030")
    assert resources.storage.projects() == []


def test_a_real_request_for_predictions_is_answered(real, resources):
    resources.storage.put_project(1, "1.1795301030", PAYLOADS["LS->ML POST /setup"]["schema"], {})
    response = real.post("/predict", json=PAYLOADS["LS->ML POST /predict"])
    assert response.get_json() == {"results": [{"result": [], "score": 1.0, "model_version": "kdal"}]}


@pytest.mark.parametrize("name", [name for name in PAYLOADS if "webhook" in name])
def test_a_real_event_is_acknowledged(app, resources, secret, name):
    event = PAYLOADS[name]
    number = event.get("project", {"id": 51})["id"]  # without payload an event names its project by our header alone
    resources.storage.put_project(number, f"{number}.1795301030", DIGITS_CONFIG, {})
    headers = {} if event["action"] == "START_TRAINING" else secret | {PROJECT_HEADER: str(number)}
    response = app.post("/webhook", json=event, headers=headers)
    ours = event["action"] == "PROJECT_UPDATED"
    assert (response.status_code, response.get_json()) == (200, {"status": "ignored" if ours else "accepted"})
    noted = [row.action for row in resources.storage.events(number)]
    assert noted == ([] if ours else [event["action"]])
