"""Both front doors, `kdal serve` and `label-studio-ml start backend`, give the same answers to the same requests."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from kdal.processes.child import Child, free_port
from kdal.storage.database import Storage
from tests.integration.harness import DIGITS_CONFIG
from tests.paths import PYTHONPATH, ROOT

BIN = ROOT / ".venv-label-studio-ml" / "bin"
"""Where label-studio-ml from PyPI is, with the Flask 1.1 and Werkzeug 2.0 that it pins."""
USER = ("owner", "a-password")
SECRET = {"X-Kdal-Secret": "a-secret"}
UID = "3.1795301030"
SETUP = {"project": UID, "schema": DIGITS_CONFIG, "extra_params": None}
EVENT = {"action": "ANNOTATION_CREATED", "project": {"id": 3}}


@dataclass(frozen=True)
class Case:
    """A request and what it gets: a status, and the whole JSON or a part of the error's message."""

    name: str
    method: str
    path: str
    status: int
    answer: Any
    body: Any = None
    user: tuple[str, str] | None = USER
    headers: dict[str, str] | None = None


EMPTY = {"result": [], "score": 1.0, "model_version": "kdal"}
CASES = [
    Case("health", "GET", "/health", 200, {"status": "UP", "model_class": "kdal"}, user=None),
    Case("root", "GET", "/", 200, {"status": "UP", "model_class": "kdal"}),
    Case("setup", "POST", "/setup", 200, {"model_version": "kdal"}, SETUP),
    Case(
        "setup with a policy as text", "POST", "/setup", 200, {"model_version": "kdal"}, SETUP | {"extra_params": "{}"}
    ),
    Case("setup with an unknown key", "POST", "/setup", 400, "bugdet", SETUP | {"extra_params": {"bugdet": 3}}),
    Case("setup without a config", "POST", "/setup", 400, '"schema" must be', {"project": UID}),
    Case("setup of no project", "POST", "/setup", 400, '"project" must be', SETUP | {"project": 3}),
    Case("setup without JSON", "POST", "/setup", 400, "not JSON", b"{"),
    Case("setup with a list", "POST", "/setup", 400, "expected a JSON object", b"[]"),
    Case("setup by GET", "GET", "/setup", 405, "not allowed"),
    Case(
        "predict", "POST", "/predict", 200, {"results": [EMPTY] * 2}, {"project": UID, "tasks": [{"id": 1}, {"id": 2}]}
    ),
    Case("predict for nobody", "POST", "/predict", 404, "kdal connect", {"project": "8.1", "tasks": []}),
    Case("predict for a namesake", "POST", "/predict", 404, "kdal connect", {"project": "3.1", "tasks": []}),
    Case("predict without tasks", "POST", "/predict", 400, '"tasks" must be', {"project": UID}),
    Case("predict without JSON", "POST", "/predict", 400, "not JSON", b"\xff\xfe"),
    Case("versions", "GET", "/versions?project=" + UID, 200, {"versions": []}),
    Case("versions of all", "GET", "/versions", 200, {"versions": []}),
    Case("versions of no project", "GET", "/versions?project=x", 400, '"project" must be'),
    Case("event with the secret", "POST", "/webhook", 200, {"status": "accepted"}, EVENT, None, SECRET),
    Case("event with the password", "POST", "/webhook", 200, {"status": "accepted"}, EVENT),
    Case("event with a wrong secret", "POST", "/webhook", 403, "wrong", EVENT, None, {"X-Kdal-Secret": "no"}),
    Case("event without either", "POST", "/webhook", 401, "KDAL_AUTH_USER", EVENT, None),
    Case("event of nobody", "POST", "/webhook", 404, "kdal connect", {"action": "A", "project": {"id": 8}}),
    Case("event without a name", "POST", "/webhook", 400, '"action" must be', {"project": {"id": 3}}),
    Case("our own event", "POST", "/webhook", 200, {"status": "ignored"}, EVENT | {"action": "PROJECT_UPDATED"}),
    Case("train", "POST", "/train", 404, "not found", {}),
    Case("no password", "POST", "/setup", 401, "KDAL_AUTH_USER", SETUP, None),
    Case("a wrong password", "GET", "/metrics", 401, "KDAL_AUTH_USER", user=("owner", "no")),
]


def serve(name: str, home: Path) -> tuple[list[str | Path], str]:
    """The command of a front door, and where it will answer."""
    port = str(free_port())
    command: list[str | Path] = [sys.executable, "-m", "kdal", "serve", "--port", port]
    if name == "label-studio-ml":
        command = [BIN / "label-studio-ml", "start", "backend", "--port", port]
        assert (BIN / "label-studio-ml").exists(), f"{command[0]} is missing: make venv-test"
    return command, f"http://127.0.0.1:{port}"


def connect(home: Path) -> None:
    """Leave a project in the tables, as a worker does that Label Studio's API has confirmed it to."""
    storage = Storage(f"sqlite:///{home / 'kdal.sqlite'}")
    storage.put_project(3, UID, DIGITS_CONFIG, {})
    storage.close()


@pytest.fixture(scope="module", params=["kdal serve", "label-studio-ml"])
def door(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a front door, set up by nothing but the environment."""
    home = tmp_path_factory.mktemp("door")
    command, url = serve(request.param, home)
    environment = {
        "LABEL_STUDIO_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "KDAL_HOME": str(home / "kdal"),
        "KDAL_WEBHOOK_SECRET": SECRET["X-Kdal-Secret"],
        "KDAL_AUTH_USER": USER[0],
        "KDAL_AUTH_PASSWORD": USER[1],
    }
    if request.param == "label-studio-ml":
        environment["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    with Child(request.param, command, env=environment, cwd=ROOT, log=home / "log") as child:
        child.wait_until_healthy(f"{url}/health", timeout=240)
        connect(home / "kdal")
        answer = requests.post(f"{url}/setup", json=SETUP, auth=USER, timeout=60)
        assert answer.status_code == 200, answer.text
        yield url


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_gets_the_same_answer_at_either_door(door: str, case: Case) -> None:
    data = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    answer = requests.request(
        case.method, door + case.path, data=data, headers=case.headers, auth=case.user, timeout=60
    )
    assert answer.status_code == case.status, answer.text
    if case.status == 200:
        assert answer.json() == case.answer
        return
    assert list(answer.json()) == ["error"]
    assert case.answer in answer.json()["error"]
    assert case.answer in answer.reason  # all that Label Studio shows
    if case.status == 401:
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="kdal"'
    if case.status == 405:
        assert "POST" in answer.headers["Allow"]


def test_prometheus_finds_requests_and_projects_at_either_door(door: str) -> None:
    text = requests.get(f"{door}/metrics", auth=USER, timeout=60).text
    assert 'kdal_requests_total{route="/setup",status="200"}' in text
    assert 'kdal_labels_counted{project="3"}' in text


def test_sixty_four_clients_that_send_half_a_request_hold_nobody_up(door: str) -> None:
    place = ("127.0.0.1", int(door.rpartition(":")[2]))
    halves = (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Le", b"GET /hea", b"")
    with ExitStack() as slow:
        for number in range(64):
            client = slow.enter_context(socket.create_connection(place))
            client.sendall(halves[number % len(halves)])
        for _ in range(3):
            assert requests.get(f"{door}/health", timeout=30).status_code == 200
            assert requests.post(f"{door}/webhook", json=EVENT, headers=SECRET, timeout=30).status_code == 200


@pytest.mark.parametrize("chunk", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}oops", b"-2\r\n{}\r\n", b"1000\r\n{"])
def test_a_body_in_chunks_that_are_none_is_the_callers_fault(door: str, chunk: bytes) -> None:
    user = base64.b64encode(":".join(USER).encode()).decode()
    head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {user}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(door.rpartition(":")[2])), timeout=30) as client:
        client.sendall(head.encode() + chunk)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(10_000)
    assert answer.split(b" ")[1:2] in ([b"400"], []), answer


BEHIND_LABEL_STUDIO_MLS_SERVER = f"""
import json
from label_studio_ml import api
from model import KDALModel, service
app = api.init_app(model_class=KDALModel).test_client()
uid = {UID!r}
tasks = [{{"id": 1, "project": 3, "data": {{"image": "a.png"}}}}]
print(json.dumps([
    app.post("/setup", json={SETUP!r}).status_code,
    service().uid(3),
    app.post("/predict", json={{"project": uid, "tasks": tasks}}).get_json()["results"],
    app.post("/predict", json={{"project": "3.1", "tasks": tasks}}).status_code,
    KDALModel().predict(tasks),
    KDALModel().process_event("ANNOTATION_CREATED", {{"project": {{"id": 3}}}}, "job", {{}}),
]))
"""


def test_the_model_class_answers_behind_label_studio_mls_own_server(tmp_path: Path) -> None:
    """For whoever puts it into a `_wsgi.py` of their own; 1.0.9, since 2.x is on no registry."""
    connect(tmp_path / "kdal")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PYTHONPATH,
        "LABEL_STUDIO_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "KDAL_HOME": str(tmp_path / "kdal"),
    }
    done = subprocess.run(
        [BIN / "python", "-c", BEHIND_LABEL_STUDIO_MLS_SERVER],
        capture_output=True, text=True, timeout=240, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert answers == [200, UID, [EMPTY], 500, [EMPTY], {"status": "accepted"}]
