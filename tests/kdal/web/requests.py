"""Requests to kdal's server as Label Studio sends them, and its refusals."""

import base64

from tests.kdal.conftest import DIGITS_CONFIG

UID = "3.1795301030"
SETUP = {"project": UID, "schema": DIGITS_CONFIG, "hostname": "http://ls", "access_token": "t", "extra_params": None}
POSTS = ["/setup", "/predict", "/webhook"]
EVENT = {"action": "ANNOTATION_CREATED", "project": {"id": 3}}


def signed_in(client, resources):
    """The client with the user and password that kdal has made."""
    text = f"{resources.settings.auth_user}:{resources.settings.auth_password}"
    client.environ_base["HTTP_AUTHORIZATION"] = "Basic " + base64.b64encode(text.encode()).decode()
    return client


def task(number, data=b"", **fields):
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"id": number, "data": {"image": uri}} | fields


def predict(app, tasks):
    response = app.post("/predict", json={"tasks": tasks, "project": UID, "label_config": DIGITS_CONFIG, "params": {}})
    assert response.status_code == 200, response.text
    results = response.get_json()["results"]
    assert len(results) == len(tasks)
    return results


def error_of(response, status):
    """The message of a refusal, which stands in the body and, in one line of latin-1, in the reason phrase."""
    assert response.status_code == status, response.status
    assert response.content_type == "application/json"
    body = response.get_json()
    assert list(body) == ["error"]
    reason = response.status.partition(" ")[2]
    assert reason.isprintable()
    assert reason.encode("latin-1").decode("latin-1") == reason
    assert 0 < len(reason) <= 1000
    ascii_words = [word for word in body["error"][:900].split() if word.isascii() and word.isprintable()]
    assert [word for word in ascii_words if word not in reason] == []
    return body["error"]
