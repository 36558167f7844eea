"""kdal is taken out of a project: by its own command, and by whoever deletes the backend in Label Studio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from tests.integration.harness import Api, Project, push_order
from tests.integration.loop.running import ENDLESS, RunningKdal, drain
from tests.integration.proxy import Proxy

Make = Callable[[int], tuple[Project, dict[int, int]]]
QUICK = {"epochs": 1}


def hooks(api: Api, project: Project) -> list[dict[str, Any]]:
    return [hook for hook in api.get("/api/webhooks/") if hook["project"] == project.id]


def backends(api: Api, project: Project) -> list[dict[str, Any]]:
    return list(api.get("/api/ml/", project=project.id))


def versions(api: Api, project: Project) -> dict[str, int]:
    return dict(api.get(f"/api/projects/{project.id}/model-versions/"))


def queue(project: Project) -> tuple[str, str]:
    """What a project's queue is served by."""
    row = project.read()
    return row["sampling"], row["model_version"] or ""


def is_out(kdal: RunningKdal, api: Api, project: Project, before: tuple[str, str]) -> None:
    """kdal is out of a project, and stays out while the timer runs again and again."""
    kdal.wait(lambda: kdal.report(project)["disconnected_at"], "kdal to note that it is out")
    kdal.wait(lambda: True if queue(project) == before else None, f"the queue to be as before: {before}")
    rounds = [(row.number, row.state, row.restarts) for row in kdal.rounds(project)]
    assert [(row.number, row.state, row.restarts) for row in kdal.settled(project, 4)] == rounds
    assert (hooks(api, project), backends(api, project)) == ([], [])
    assert queue(project) == before
    assert kdal.report(project)["disconnected_at"] is not None
    assert "disconnected" in kdal.status_text()
    body = {"project": kdal.uid(project), "tasks": [{"id": 1, "data": {"image": "x"}}], "label_config": "<View/>"}
    answer = requests.post(f"{kdal.url}/predict", json=body, auth=kdal.user, timeout=10)
    assert (answer.status_code, f"kdal connect --project {project.id}" in answer.text) == (404, True)
    event = {"action": "START_TRAINING", "project": {"id": project.id}}
    assert requests.post(f"{kdal.url}/webhook", json=event, auth=kdal.user, timeout=10).status_code == 404


@pytest.mark.parametrize("predictions", ["keep", "remove"])
def test_disconnecting_puts_the_project_back_as_it_was_and_connecting_goes_on_from_there(
    predictions: str, kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(32)
    push_order(project, list(truth), "another model", [1] * 32)
    ls_api.patch(project.path, {"sampling": "Uniform sampling"})
    foreign = {"project": project.id, "url": "http://127.0.0.1:9/elsewhere", "send_payload": False}
    ls_api.post("/api/webhooks/", {**foreign, "actions": ["TASKS_CREATED"], "send_for_all_actions": False})
    before = queue(project)
    assert before == ("Uniform sampling", "another model")

    kdal.connect(project, **QUICK)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 8, truth.__getitem__)
    version = kdal.wait_open(project, 1).version
    assert queue(project) == ("Uncertainty sampling", version)
    drain(project, [ls_api], 3, truth.__getitem__)
    kdal.wait_counted(project, 3)

    answer = kdal.cli("disconnect", "--project", str(project.id), "--predictions", predictions)
    assert answer.returncode == 0, answer.stderr
    assert "uniform sampling" in answer.stdout
    left = {"another model": 32}
    assert versions(ls_api, project) == (left if predictions == "remove" else {**left, version: 24})
    (hook,) = hooks(ls_api, project)
    assert hook["url"] == foreign["url"]
    ls_api.delete(f"/api/webhooks/{hook['id']}/")
    is_out(kdal, ls_api, project, before)
    again = kdal.cli("disconnect", "--project", str(project.id))
    assert again.returncode == 0, again.stderr
    is_out(kdal, ls_api, project, before)

    ls_api.patch(project.path, {"sampling": "Sequential sampling"})
    kdal.connect(project, **QUICK)
    number = 2 if predictions == "remove" else 1
    opened = kdal.wait_open(project, number)
    kdal.wait(lambda: True if queue(project) == ("Uncertainty sampling", opened.version) else None, "the order")
    assert opened.facts["labels"] == (11 if predictions == "remove" else 8)
    assert kdal.report(project)["serving"] is not None
    assert kdal.report(project)["counted"] == (0 if predictions == "remove" else 3)
    order = [task for task in kdal.order(project, number) if not kdal_labelled(project, task)]
    assert drain(project, [ls_api], 3, truth.__getitem__) == order[:3]
    assert kdal.cli("disconnect", "--project", str(project.id)).returncode == 0
    assert queue(project) == ("Sequential sampling", "another model")


def kdal_labelled(project: Project, task: int) -> bool:
    return bool(project.api.get(f"/api/tasks/{task}/")["annotations"])


def test_deleting_the_backend_in_label_studio_takes_kdal_out_for_good(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(24)
    before = queue(project)
    kdal.connect(project, **QUICK)
    opened = kdal.wait_open(project, 0)
    (backend,) = backends(ls_api, project)
    ls_api.delete(f"/api/ml/{backend['id']}")
    is_out(kdal, ls_api, project, before)
    assert versions(ls_api, project) == {opened.version: 24}
    # Label Studio's own button brings it back.
    body = {"project": project.id, "url": kdal.url, "title": "kdal", "extra_params": {"budget": 8, "epochs": 1}}
    ls_api.post("/api/ml/", body | kdal.form)
    kdal.wait(lambda: True if kdal.report(project)["disconnected_at"] is None else None, "kdal to be back")
    kdal.wait(lambda: True if queue(project) == ("Uncertainty sampling", opened.version) else None, "its order")
    drain(project, [ls_api], 8, truth.__getitem__)
    assert kdal.wait_open(project, 1).facts["labels"] == 8


def test_disconnecting_while_a_round_computes_stops_it(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(24)
    before = queue(project)
    kdal.connect(project, epochs=1)
    kdal.wait_open(project, 0)
    kdal.connect(project, **ENDLESS)
    drain(project, [ls_api], 8, truth.__getitem__)
    kdal.wait(lambda: next((r for r in kdal.rounds(project) if r.step == "train S and T"), None), "training to begin")
    assert kdal.cli("disconnect", "--project", str(project.id)).returncode == 0
    given_up = f"project={project.id} round=1 step='train S and T'"
    kdal.wait(lambda: True if gave_up(kdal, given_up) else None, "the worker to give the training up")
    is_out(kdal, ls_api, project, before)
    kdal.connect(project, epochs=1)
    assert kdal.wait_open(project, 2).facts["labels"] == 8


def gave_up(kdal: RunningKdal, step: str) -> bool:
    return any("step given up" in line and step in line for line in (kdal.home / "worker.log").read_text().splitlines())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_disconnecting_while_an_order_comes_into_force_leaves_the_project_as_it_was(
    moment: str, kdal_behind_proxy: RunningKdal, proxy: Proxy, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, _ = digits_project(12)
    before = queue(project)
    with proxy.rule("PATCH", f"/api/projects/{project.id}$", "kdal-r0", hold=moment) as switch:
        kdal.connect(project, **QUICK)
        assert switch.reached.wait(60)
        kdal.environment["LABEL_STUDIO_URL"] = proxy.target  # not to be held itself
        try:
            assert kdal.cli("disconnect", "--project", str(project.id)).returncode == 0
        finally:
            kdal.environment["LABEL_STUDIO_URL"] = proxy.url
        assert queue(project) == before
    kdal.wait(lambda: True if gave_up(kdal, f"project={project.id} round=0") else None, "the round to be given up")
    is_out(kdal, ls_api, project, before)


def test_disconnecting_while_label_studio_is_down_says_so_and_the_same_call_works_later(
    kdal_behind_proxy: RunningKdal, proxy: Proxy, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, _ = digits_project(12)
    before = queue(project)
    kdal.connect(project, **QUICK)
    kdal.wait_open(project, 0)
    command = ("disconnect", "--project", str(project.id))
    down = (502, "")
    with proxy.rule("GET", f"/api/projects/{project.id}$", answer=down):
        refused = kdal.cli(*command)
        assert (refused.returncode, "502" in refused.stderr) == (1, True)
        assert "Traceback" not in refused.stderr
    assert len(backends(ls_api, project)) == 1
    # It breaks off half-way: the backend is gone, and the rest is not done yet. The worker does it, or the next call.
    with proxy.rule("PATCH", f"/api/projects/{project.id}$", answer=down) as patch:
        assert kdal.cli(*command).returncode == 1
        assert patch.seen > 0
    is_out(kdal, ls_api, project, before)
    assert kdal.cli(*command).returncode == 0


def test_disconnecting_a_project_that_is_not_there_or_was_never_connected(
    kdal_behind_proxy: RunningKdal, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    missing = kdal.cli("disconnect", "--project", "999999")
    assert (missing.returncode, "404" in missing.stderr) == (1, True)
    project, _ = digits_project(2)
    before = queue(project)
    assert kdal.cli("disconnect", "--project", str(project.id)).returncode == 0
    assert queue(project) == before
