"""The second front door: `label-studio-ml start backend`, in an environment with label-studio-ml from PyPI."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import requests

from kdal.processes.child import Child
from kdal.processes.embedded import EmbeddedLabelStudio
from tests.integration.harness import Api, Project
from tests.integration.loop.running import FAST, RunningKdal, drain
from tests.paths import ROOT

ENVIRONMENT = ROOT / ".venv-label-studio-ml"
Make = Callable[[int], tuple[Project, dict[int, int]]]


@pytest.fixture(scope="module")
def second_door(label_studio: EmbeddedLabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKdal]:
    """A kdal whose server is label-studio-ml's; its worker is our own, as always."""
    executable = ENVIRONMENT / "bin" / "label-studio-ml"
    assert executable.exists(), f"{executable} is missing: make venv-test"
    kdal = RunningKdal(tmp_path_factory.mktemp("kdal"), label_studio)
    command = [executable, "start", "backend", "--port", str(kdal.port)]
    environment = {**kdal.environment, "PATH": f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    with Child("label-studio-ml", command, env=environment, cwd=ROOT, log=kdal.home / "label-studio-ml.log") as child:
        child.wait_until_healthy(f"{kdal.url}/health", timeout=120)
        kdal.start_worker()
        yield kdal
        kdal.stop()


def test_a_project_goes_through_a_round_behind_label_studio_mls_own_server(
    second_door: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = second_door
    project, truth = digits_project(30)
    policy = {**FAST, "suggest_above": 0.0}
    body = {"project": project.id, "url": kdal.url, "title": "label-studio-ml", "extra_params": policy}
    backend = ls_api.post("/api/ml/", body | kdal.form)
    kdal.wait_open(project, 0)
    assert kdal.report(project)["policy"] == policy
    kdal.wait(
        lambda: True if project.read()["model_version"] == "kdal-r0" else None,
        "the order to be in force in Label Studio",
    )
    assert drain(project, [ls_api], 8, truth.__getitem__) == kdal.order(project, 0)[:8]
    assert "ANNOTATION_CREATED" in {event.action for event in kdal.storage.events(project.id)}
    kdal.wait_open(project, 1)
    assert drain(project, [ls_api], 3, truth.__getitem__) == kdal.order(project, 1)[:3]

    tasks = [*[t for t in project.tasks() if not t["annotations"]][:5], {"id": 0, "data": {"image": "/data/gone.png"}}]
    uid = kdal.uid(project)
    answer = requests.post(f"{kdal.url}/predict", json={"project": uid, "tasks": tasks}, auth=kdal.user, timeout=60)
    results = answer.json()["results"]
    assert [bool(result["result"]) for result in results] == [True] * 5 + [False]
    assert {result["model_version"] for result in results} == {"kdal-r1"}

    ls_api.request("POST", f"/api/ml/{backend['id']}/train")
    assert kdal.wait_open(project, 2).trigger == "button"


def test_bad_input_gets_a_4xx_there_too(second_door: RunningKdal) -> None:
    for path in ("setup", "predict", "webhook"):
        for body in (b"{", b"[]", b'"text"', b'{"project": 7, "action": "x"}', b'{"project": "1.1"}'):
            answer = requests.post(f"{second_door.url}/{path}", data=body, auth=second_door.user, timeout=30)
            assert answer.status_code == 400, (path, body, answer.text)
            assert answer.json()["error"]
