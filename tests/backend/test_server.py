import base64
import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface
from prometheus_client.parser import text_string_to_metric_families

from backend.connecting import PROJECT_HEADER, SECRET_HEADER
from backend.images import ImageRef
from backend.policy import Policy
from backend.resources import round_key
from backend.scoring import Order
from backend.server import create_app
from backend.snapshots import Snapshot
from backend.tables import now
from kdal_core.training import load_checkpoint
from tests.backend.conftest import DIGITS_CONFIG
from tests.backend.values import json_values

UID = "3.1795301030"
SETUP = {"project": UID, "schema": DIGITS_CONFIG, "hostname": "http://ls", "access_token": "t", "extra_params": None}
MULTIPLE = DIGITS_CONFIG.replace("toName", 'choice="multiple" toName')
POSTS = ["/setup", "/predict", "/webhook"]
PAYLOADS = json.loads((Path(__file__).parent / "payloads" / "label-studio-1.23.2.json").read_text())
"""What a real Label Studio 1.23.2 sent, one request of each kind."""


@pytest.fixture
def app(resources):
    return create_app(resources).test_client()


@pytest.fixture
def secret(resources):
    return {SECRET_HEADER: resources.settings.secret}


@pytest.fixture
def connected(app):
    """A project that Label Studio has set up."""
    assert app.post("/setup", json=SETUP).status_code == 200
    return app


@pytest.fixture
def serving(connected, resources, trained):
    """The project with a published round 0 and a model, as `kdal worker` leaves them: tasks 5, 3, 9, 1 in order."""
    storage = resources.storage
    resources.assets.write(round_key(UID, 0, "distilled.safetensors"), trained.checkpoint)
    Snapshot(UID, DIGITS_CONFIG, Policy(), (8, 8), [], [ImageRef(5, "x")], [], None).save(resources, 0)
    Order(tasks=[5, 3, 9, 1], budget=2, selected=4).save(resources, UID, 0)
    storage.begin_round(3, 0, "connect")
    storage.update_round(3, 0, state="open", version="kdal-r0", opened_at=now(), budget=2, counted=1)
    storage.merge_round(3, 0, facts={"labels": 300}, seconds={"snapshot": 0.5, "select": 1.25})
    storage.update_project(3, serving_round=0)
    return connected


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


# ---------------------------------------------------------------------- every route


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
    error_of(flask.test_client().post("/predict", data=b" " * 1001), 413)


# ---------------------------------------------------------------------- what Label Studio really sends


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


# ---------------------------------------------------------------------- /setup


def test_setting_up_notes_the_project_and_leaves_the_rest_to_the_worker(app, resources):
    response = app.post("/setup", json=SETUP | {"extra_params": '{"budget": 20}'})
    assert (response.status_code, response.get_json()) == (200, {"model_version": "kdal"})
    project = resources.storage.project(3)
    assert (project.uid, project.label_config, project.policy) == (UID, DIGITS_CONFIG, {"budget": 20})
    assert [event.action for event in resources.storage.waiting_events()] == ["SETUP"]


def test_setting_up_again_what_is_connected_and_unchanged_leaves_no_event(connected, resources):
    resources.storage.update_project(3, connected_at=now())
    for _ in range(3):
        assert connected.post("/setup", json=SETUP).status_code == 200
    assert len(resources.storage.waiting_events()) == 1


@pytest.mark.parametrize("params", [None, "", "{}", {}, "null"])
def test_setting_up_without_a_policy_takes_the_defaults(app, resources, params):
    assert app.post("/setup", json=SETUP | {"extra_params": params}).status_code == 200
    assert resources.storage.project(3).policy == {}


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


@pytest.mark.parametrize("missing", ["project", "schema"])
def test_a_set_up_without_a_key_that_it_needs_is_a_400_that_names_it(app, missing):
    body = {key: value for key, value in SETUP.items() if key != missing}
    assert f'"{missing}"' in error_of(app.post("/setup", json=body), 400)


def test_a_known_project_that_can_no_longer_be_served_says_so_in_its_status(connected, resources):
    error_of(connected.post("/setup", json=SETUP | {"schema": "<View/>"}), 400)
    assert "no control tag" in resources.storage.project(3).problem
    assert resources.storage.project(3).label_config == DIGITS_CONFIG


def test_the_access_token_of_the_set_up_is_not_kept(app, tmp_path):
    app.post("/setup", json=SETUP | {"access_token": "5ec4e7-of-the-owner"})
    files = [path for path in (tmp_path / "kdal").rglob("*") if path.is_file()]
    assert [path for path in files if b"5ec4e7-of-the-owner" in path.read_bytes()] == []
    assert files != []


# ---------------------------------------------------------------------- /predict


def test_before_the_first_model_every_task_gets_an_empty_result(connected):
    empty = {"result": [], "score": 1.0, "model_version": "kdal"}
    assert predict(connected, [task(1), task(2)]) == [empty, empty]


def test_a_project_that_is_not_connected_is_a_404_that_says_how_to_connect_it(app):
    response = app.post("/predict", json={"project": "8.1", "tasks": []})
    assert "kdal connect --project 8" in error_of(response, 404)


@pytest.mark.parametrize(
    "change", [{"tasks": None}, {"tasks": {}}, {"tasks": "all"}, {"tasks": 3}, {"project": None}, {"project": ["3.1"]}]
)
def test_a_request_for_predictions_of_the_wrong_types_is_a_400(connected, change):
    (key,) = change
    assert f'"{key}" must be' in error_of(connected.post("/predict", json={"project": UID, "tasks": []} | change), 400)


def test_the_serving_model_answers_each_task_in_order(serving, trained):
    """The numbers come from the network itself, run on scikit-learn's pixels without kdal's loader and formats."""
    tasks = [task(number, trained.files[i]) for i, number in enumerate([5, 3, 9, 1])]
    results = predict(serving, tasks)
    network, _ = load_checkpoint(trained.checkpoint)
    with torch.no_grad():
        expected = network(trained.images[:4].float() / 255).softmax(1)
    for result, row in zip(results, expected, strict=True):
        (region,) = result["result"]
        assert region["value"] == {"choices": [str(int(row.argmax()))]}
        assert region["score"] == pytest.approx(float(row.max()), abs=1e-3)
        assert result["model_version"] == "kdal-r0"
        assert LabelInterface(DIGITS_CONFIG).validate_prediction(
            {key: result[key] for key in ("result", "score", "model_version")}
        )


def test_the_model_that_serves_knows_digits(serving, trained):
    """Chance is 10 in 100; 200 steps on 300 digits give far more."""
    results = predict(serving, [task(i, file) for i, file in enumerate(trained.files)])
    right = sum(r["result"][0]["value"]["choices"] == [str(d)] for r, d in zip(results, trained.labels, strict=True))
    assert right > 60


def test_the_score_of_a_task_is_its_rank_and_unranked_tasks_come_last(serving, trained):
    results = predict(serving, [task(number, trained.files[0]) for number in (1, 9, 3, 5, 777)])
    assert [result["score"] for result in results] == [0.8, 0.6, 0.4, 0.2, 1.0]


def test_a_task_that_cannot_be_read_is_told_and_fails_no_other(serving, trained):
    good = task(5, trained.files[0])
    bad = [
        task(3, b"no image"),
        {"id": 9, "data": {"image": "http://127.0.0.1:1/a.png"}},
        {"id": 9, "data": {"image": None}},
        {"id": 9, "data": {"picture": "a.png"}},
        {"id": 9, "data": []},
        {"id": 9},
        {"data": good["data"], "id": None},
        {"id": True, "data": {"image": ""}},
        {},
        None,
        "task",
        5,
        [good],
    ]
    results = predict(serving, [good, *bad, good])
    assert results[0] == results[-1]
    assert results[0]["result"][0]["type"] == "choices"
    assert "error" not in results[0]
    told = results[1:-1]
    assert [i for i, result in enumerate(told) if ("error" in result) == bool(result["result"])] == []
    assert "task 3: image data:" in told[0]["error"]
    assert "task 9: image http://127.0.0.1:1/a.png" in told[1]["error"]
    assert 'no image address under "image"' in told[3]["error"]
    assert told[7]["score"] == 1.0  # true is not task 1
    assert {result["model_version"] for result in results} == {"kdal-r0"}


def test_no_tasks_get_no_results(serving):
    assert predict(serving, []) == []


def test_a_thousand_tasks_in_one_request_get_a_thousand_results(serving, trained):
    """Label Studio's "retrieve predictions" sends all tasks at once."""
    tasks = [task(i, trained.files[i % 100]) for i in range(1000)]
    results = predict(serving, tasks)
    assert results[7]["result"] == results[107]["result"] == results[907]["result"]


def test_assets_that_are_out_of_reach_are_a_503_not_the_callers_fault(serving, resources, trained):
    Path(resources.assets.root, round_key(UID, 0, "distilled.safetensors")).unlink()
    response = serving.post("/predict", json={"project": UID, "tasks": [task(5, trained.files[0])]})
    assert "distilled.safetensors" in error_of(response, 503)


# ---------------------------------------------------------------------- /versions and /metrics


def test_versions_are_the_published_orders_newest_first(serving, resources):
    resources.storage.begin_round(3, 1, "budget")
    assert serving.get("/versions").get_json() == {"versions": ["kdal-r0"]}
    resources.storage.update_round(3, 1, version="kdal-r1")
    assert serving.get("/versions").get_json() == {"versions": ["kdal-r1", "kdal-r0"]}
    assert serving.get("/versions", query_string={"project": UID}).get_json() == {"versions": ["kdal-r1", "kdal-r0"]}
    assert serving.get("/versions", query_string={"project": "4.1"}).get_json() == {"versions": []}
    assert serving.post("/setup", json=SETUP).get_json() == {"model_version": "kdal-r0"}  # round 1 is not open yet


@pytest.mark.parametrize("project", ["", "3", "x", "3.1.1", "3.1'--"])
def test_versions_of_what_is_no_project_are_a_400(app, project):
    error_of(app.get("/versions", query_string={"project": project}), 400)


def metrics(app):
    response = app.get("/metrics")
    assert response.status_code == 200
    samples = [sample for family in text_string_to_metric_families(response.text) for sample in family.samples]
    return {(sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value for sample in samples}


def test_the_metrics_carry_the_figures_of_the_requests_and_of_the_projects(serving, resources, secret):
    serving.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": 3}}, headers=secret)
    serving.post("/predict", data=b"{")
    serving.get("/nothing")
    resources.storage.set_aside(3, 0, {7: "damaged", 8: "missing"})
    found = metrics(serving)
    assert found["kdal_requests_total", "/setup", "200"] == 1
    assert found["kdal_requests_total", "/predict", "400"] == 1
    assert found["kdal_requests_total", "/webhook", "200"] == 1
    assert found["kdal_requests_total", "unknown", "404"] == 1
    assert found["kdal_request_seconds_count", "/setup"] == 1
    assert found["kdal_round", "3"] == 0
    assert found["kdal_labels_counted", "3"] == 1
    assert found["kdal_labels_budget", "3"] == 2
    assert found["kdal_round_failed", "3"] == 0
    assert found["kdal_tasks_set_aside", "3"] == 2
    assert found["kdal_round_seconds", "3"] == 1.75
    assert found["kdal_events_waiting",] == 2


def test_a_failed_round_shows_in_the_metrics(serving, resources):
    resources.storage.begin_round(3, 1, "budget")
    resources.storage.update_round(3, 1, state="failed", error="no")
    found = metrics(serving)
    assert (found["kdal_round", "3"], found["kdal_round_failed", "3"]) == (1, 1)
    assert found["kdal_labels_budget", "3"] == 2  # annotators still work through round 0


# ---------------------------------------------------------------------- /webhook


EVENT = {"action": "ANNOTATION_CREATED", "project": {"id": 3}}


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


@pytest.mark.parametrize("headers", [{}, {SECRET_HEADER: ""}, {SECRET_HEADER: "wrong"}, {SECRET_HEADER: "größe"}])
def test_an_event_without_the_right_secret_is_a_403_and_leaves_nothing(connected, resources, headers):
    message = error_of(connected.post("/webhook", json=EVENT, headers=headers), 403)
    assert "kdal connect" in message
    assert resources.settings.secret not in message
    assert [event.action for event in resources.storage.waiting_events()] == ["SETUP"]


def test_the_secret_may_come_under_a_header_of_any_case(connected, resources):
    headers = {SECRET_HEADER.upper(): resources.settings.secret}
    assert connected.post("/webhook", json=EVENT, headers=headers).status_code == 200


def test_start_training_comes_without_the_secret_but_never_with_a_wrong_one(connected, resources):
    event = {"action": "START_TRAINING", "project": {"id": 3}}
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


# ---------------------------------------------------------------------- basic authentication


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def guarded(open_resources):
    opened = open_resources(auth_user="owner", auth_password="pass:wörd")
    app = create_app(opened).test_client()
    assert app.post("/setup", json=SETUP, headers=basic("owner", "pass:wörd")).status_code == 200
    app.secret = opened.settings.secret
    app.storage = opened.storage
    return app


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("owner", "wrong"),
        basic("wrong", "pass:wörd"),
        basic("", ""),
        basic("owner", ""),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()},
        {"Authorization": "Bearer owner"},
        {"Authorization": "Digest username=owner"},
        {"Authorization": "\xff"},
    ],
)
def test_without_user_and_password_nothing_is_told(guarded, headers):
    for path in ("/setup", "/predict", "/webhook", "/versions", "/metrics", "/", "/nothing"):
        response = guarded.open(path, method="POST" if path in POSTS else "GET", json=SETUP, headers=headers)
        assert "KDAL_AUTH_USER" in error_of(response, 401)
        assert response.headers["WWW-Authenticate"].startswith("Basic")


def test_with_user_and_password_everything_is_answered(guarded):
    headers = basic("owner", "pass:wörd")
    assert guarded.get("/versions", headers=headers).status_code == 200
    assert guarded.get("/metrics", headers=headers).status_code == 200
    assert guarded.post("/predict", json={"project": UID, "tasks": []}, headers=headers).status_code == 200
    assert guarded.post("/webhook", json=EVENT, headers=headers).status_code == 200


def test_health_is_told_to_anyone(guarded):
    assert guarded.get("/health").status_code == 200


def test_label_studios_events_come_with_the_secret_alone(guarded):
    """Its webhooks know no password."""
    assert guarded.post("/webhook", json=EVENT, headers={SECRET_HEADER: guarded.secret}).status_code == 200
    error_of(guarded.post("/webhook", json=EVENT, headers={SECRET_HEADER: "wrong"}), 403)
    error_of(guarded.post("/webhook", json=EVENT | {"action": "START_TRAINING"}), 401)
    assert [event.action for event in guarded.storage.events(3)] == ["SETUP", "ANNOTATION_CREATED"]


def test_the_secret_opens_no_other_route(guarded):
    error_of(guarded.get("/metrics", headers={SECRET_HEADER: guarded.secret}), 401)


# ---------------------------------------------------------------------- anything at all

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
