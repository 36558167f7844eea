import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from kdal.labelstudio.connection import PROJECT_HEADER
from kdal.web.app import SMALL_BODY, create_app
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.values import json_values
from tests.kdal.web.requests import POSTS, UID, error_of, signed_in


@pytest.mark.parametrize("path", ["/", "/health"])
def test_health_is_up_at_once(app, path):
    response = app.get(path)
    assert (response.status_code, response.get_json()) == (200, {"status": "UP", "model_class": "kdal"})


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"not json", b"\xff\xfe", b"\x00", b"[" * 100_000, b'{"project": ' + b"1" * 5000 + b"}", b"'a'"]
)
def test_a_body_that_is_no_json_is_a_400(app, path, body):
    assert "not JSON" in error_of(app.post(path, data=body, content_type="application/json"), 400)


@pytest.mark.parametrize("path", ["/setup", "/predict"])
@pytest.mark.parametrize("body", [None, [], "text", 5, 1.5, True, [{}]])
def test_json_that_is_no_object_is_a_400(app, path, body):
    assert "expected a JSON object" in error_of(app.post(path, data=json.dumps(body)), 400)


@pytest.mark.parametrize("path", POSTS)
def test_json_is_read_whatever_content_type_it_comes_under(connected, secret, path):
    body = {"project": UID, "schema": DIGITS_CONFIG, "tasks": [], "action": "X"} | (
        {"project": {"id": 3}} if path == "/webhook" else {}
    )
    assert connected.post(path, data=json.dumps(body), content_type="text/plain", headers=secret).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/setup", "POST"), ("GET", "/predict", "POST"), ("PUT", "/webhook", "POST"), ("POST", "/health", "GET")],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(app, method, path, allowed):
    response = app.open(path, method=method)
    error_of(response, 405)
    assert allowed in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/train", "/nothing", "/setup/", "/predict/../etc", "/%00", "/%ff"])
def test_an_unknown_route_is_a_404(app, path):
    error_of(app.post(path, json={}), 404)


def test_a_body_that_is_too_large_is_a_413(resources):
    flask = create_app(resources)
    assert flask.config["MAX_CONTENT_LENGTH"] == 256 * 1024**2
    flask.config["MAX_CONTENT_LENGTH"] = 1000
    error_of(signed_in(flask.test_client(), resources).post("/predict", data=b" " * 1001), 413)


def test_only_requests_for_predictions_may_be_large(app):
    assert "exceeds" in error_of(app.post("/setup", data=b" " * (SMALL_BODY + 1)), 413)


policies = st.fixed_dictionaries({}, optional={"budget": json_values, "student": json_values})
tasks = st.fixed_dictionaries({}, optional={"id": json_values, "data": json_values})
images = st.fixed_dictionaries({"data": st.fixed_dictionaries({"image": json_values})})
bodies = json_values | st.fixed_dictionaries(
    {},
    optional={
        "project": json_values | st.sampled_from([UID, {"id": 3}, "4.1"]),
        "schema": json_values | st.sampled_from([DIGITS_CONFIG, "<View/>", "<View>"]),
        "extra_params": json_values | policies,
        "tasks": json_values | st.lists(json_values | tasks | images, max_size=3),
        "action": json_values | st.sampled_from(["ANNOTATION_CREATED", "START_TRAINING", "PROJECT_UPDATED"]),
    },
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=bodies, path=st.sampled_from(POSTS), project=st.sampled_from([None, "3"]))
@example(body={"project": UID, "tasks": [{"id": 10**30, "data": {"image": "\ud800"}}]}, path="/predict", project=None)
@example(body={"project": UID, "schema": DIGITS_CONFIG, "extra_params": {"\ud800": 1}}, path="/setup", project=None)
@example(body={"project": UID, "schema": "<View>\ud800</View>"}, path="/setup", project=None)
def test_any_json_is_answered_and_never_with_a_5xx(serving, secret, body, path, project):
    headers = secret | ({PROJECT_HEADER: project} if project else {})
    response = serving.post(path, data=json.dumps(body), content_type="application/json", headers=headers)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        error_of(response, response.status_code)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=st.binary(), path=st.sampled_from(POSTS))
def test_any_bytes_are_answered_and_never_with_a_5xx(app, secret, body, path):
    assert 400 <= app.post(path, data=body, headers=secret).status_code < 500


def test_a_database_that_takes_nothing_is_a_503_and_no_traceback(connected, resources, secret):
    with resources.storage.engine.connect() as connection:
        connection.execute(text("PRAGMA query_only = ON"))  # as on a disk that is full
        connection.commit()
    with resources.storage.engine.connect() as connection:
        assert connection.execute(text("PRAGMA query_only")).scalar() == 1
    event = {"action": "ANNOTATION_CREATED", "project": {"id": 3}}
    assert "database" in error_of(connected.post("/webhook", json=event, headers=secret), 503)
    assert connected.get("/health").status_code == 200
