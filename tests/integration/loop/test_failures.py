"""What happens when something is killed, down, lost or broken: everything completes, once."""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from kdal.processes.child import free_port
from kdal.processes.embedded import EmbeddedLabelStudio
from tests.integration import harness
from tests.integration.harness import Api, Project
from tests.integration.loop.running import FAST, RunningKdal, drain

Make = Callable[[int], tuple[Project, dict[int, int]]]
MakeKdal = Callable[..., RunningKdal]


@contextmanager
def image_server(folder: Path, port: int = 0) -> Iterator[str]:
    """Serves a folder's files; yields its address."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def computing(kdal: RunningKdal, project: Project, step: str) -> None:
    """Wait until round 1 is in a step."""
    kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.number == 1 and r.step == step), None),
        f"round 1 to be in step {step!r}",
    )


def test_labels_whose_events_were_lost_are_found_by_the_timer(
    make_kdal: MakeKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = make_kdal(KDAL_RECONCILE_SECONDS="1").start()
    project, truth = digits_project(24)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    kdal.kill(kdal.server)  # nobody listens: Label Studio drops these events for good
    before = len(kdal.storage.events(project.id))
    drain(project, [ls_api], 8, truth.__getitem__)
    opened = kdal.wait_open(project, 1)
    actions = [event.action for event in kdal.storage.events(project.id)[before:]]
    assert set(actions) <= {"ROUND_OPENED"}
    assert (opened.trigger, opened.facts["labels"]) == ("budget", 8)


def test_a_worker_that_was_down_finds_what_waits_in_the_inbox(
    killable_kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = killable_kdal
    project, truth = digits_project(24)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    kdal.kill(kdal.worker)
    drain(project, [ls_api], 9, truth.__getitem__)
    assert [event.action for event in kdal.storage.waiting_events()].count("ANNOTATION_CREATED") == 9
    kdal.start_worker()
    assert kdal.wait_open(project, 1).facts["labels"] == 9
    assert [r.number for r in kdal.settled(project)] == [0, 1]


@pytest.mark.parametrize("step", ["train S and T", "train S-KD", "publish"])
def test_a_worker_killed_in_the_middle_of_a_round_takes_it_up_and_completes_it_once(
    step: str, killable_kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = killable_kdal
    project, truth = digits_project(60)
    kdal.connect(project, epochs=60, budget=20)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 20, truth.__getitem__)
    computing(kdal, project, step)
    kdal.kill(kdal.worker)
    killed = kdal.rounds(project)[1]
    assert killed.opened_at is None or step == "publish"
    done = dict(killed.seconds)
    kdal.start_worker()
    opened = kdal.wait_open(project, 1)
    # The steps that were done are not done again ...
    assert {name: opened.seconds[name] for name in done} == done
    # ... and there is one round, one order in Label Studio, each task in it once, served as computed.
    assert [r.number for r in kdal.settled(project)] == [0, 1]
    counts = ls_api.get(f"/api/projects/{project.id}/model-versions/")
    assert counts == {opened.version: 40}
    assert project.read()["model_version"] == opened.version
    assert drain(project, [ls_api], 6, truth.__getitem__) == kdal.order(project, 1)[:6]


def test_a_server_killed_in_the_middle_of_events_loses_no_label_and_counts_none_twice(
    make_kdal: MakeKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = make_kdal(KDAL_RECONCILE_SECONDS="1").start()
    project, truth = digits_project(40)
    kdal.connect(project, budget=20)
    kdal.wait_open(project, 0)
    served: list[int] = []
    annotator = threading.Thread(target=lambda: served.extend(drain(project, [ls_api], 19, truth.__getitem__)))
    annotator.start()
    for _ in range(2):
        time.sleep(0.5)
        kdal.kill(kdal.server)
        kdal.start_server()
    annotator.join()
    kdal.wait_counted(project, 19)
    assert [r.number for r in kdal.settled(project)] == [0]
    drain(project, [ls_api], 1, truth.__getitem__)
    assert kdal.wait_open(project, 1).facts["labels"] == 20
    assert [r.number for r in kdal.settled(project)] == [0, 1]


def test_a_second_worker_of_the_same_name_is_refused(kdal: RunningKdal) -> None:
    log = kdal.home / "worker.log"
    kdal.wait(lambda: True if "worker started" in log.read_text() else None, "the first worker to have the name")
    second = kdal.cli("worker")
    assert second.returncode == 1
    assert "KDAL_WORKER_ID" in second.stderr
    assert "Traceback" not in second.stderr


def test_events_twice_and_out_of_order_change_nothing(kdal: RunningKdal, ls_api: Api, digits_project: Make) -> None:
    project, truth = digits_project(24)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 7, truth.__getitem__)
    headers = {"X-Kdal-Secret": (kdal.home / "webhook-secret").read_text(), "X-Kdal-Project": str(project.id)}
    for action in ("ANNOTATIONS_DELETED", "ANNOTATION_UPDATED", "ANNOTATION_CREATED", "TASKS_DELETED") * 5:
        answer = requests.post(f"{kdal.url}/webhook", json={"action": action}, headers=headers, timeout=10)
        assert answer.status_code == 200
    kdal.wait_counted(project, 7)
    assert [r.number for r in kdal.settled(project)] == [0]
    drain(project, [ls_api], 1, truth.__getitem__)
    kdal.wait_open(project, 1)
    for _ in range(3):  # the button, pressed in impatience, and a late event
        requests.post(f"{kdal.url}/webhook", json={"action": "ANNOTATION_CREATED"}, headers=headers, timeout=10)
    assert [r.number for r in kdal.settled(project)] == [0, 1]


def test_a_round_outlives_a_label_studio_that_goes_away_and_comes_back(
    make_kdal: MakeKdal, label_studio_template: Any, tmp_path: Any, digits: Callable[..., Any]
) -> None:
    import shutil

    from tests.integration.conftest import EMAIL, PASSWORD, TOKEN

    data = tmp_path / "label-studio"
    shutil.copytree(label_studio_template, data)
    server = EmbeddedLabelStudio(data, free_port(), email=EMAIL, password=PASSWORD, token=TOKEN)
    with server, Api(server.url, server.token) as api:
        found = digits(24)
        project = harness.create_project(api, images=found.images)
        truth = dict(zip(project.task_ids, found.labels, strict=True))
        kdal = RunningKdal(tmp_path / "kdal", server).start()
        try:
            kdal.connect(project, epochs=400)
            kdal.wait_open(project, 0)
            drain(project, [api], 8, truth.__getitem__)
            computing(kdal, project, "train S and T")
            server.stop()
            kdal.wait(
                lambda: True if "step failed" in (kdal.worker.tail(100) if kdal.worker else "") else None,
                "publishing to fail while Label Studio is down",
            )
            assert kdal.rounds(project)[1].opened_at is None
            server.start()
            opened = kdal.wait_open(project, 1)
            assert api.get(f"/api/projects/{project.id}/model-versions/") == {opened.version: 16}
            assert drain(project, [api], 3, truth.__getitem__) == kdal.order(project, 1)[:3]
        finally:
            kdal.stop()


def test_images_that_cannot_be_read_are_set_aside_with_their_reasons_and_come_last(
    kdal: RunningKdal, ls_api: Api, make_project: Callable[..., Project], digits: Callable[..., Any]
) -> None:
    found = digits(24)
    images = list(found.images)
    images[3] = images[3][: len(images[3]) // 2]  # an upload that broke off
    images[7] = b"<html>not an image</html>"
    images[11] = b""
    project = make_project(images=images)
    gone = ls_api.post(f"/api/projects/{project.id}/import", [{"image": "http://127.0.0.1:9/gone.png"}])
    assert gone["task_count"] == 1
    extra = max(task["id"] for task in project.tasks())
    truth = dict(zip(project.task_ids, found.labels, strict=True))
    bad = sorted([project.task_ids[3], project.task_ids[7], project.task_ids[11], extra])
    kdal.connect(project)
    kdal.wait_open(project, 0)
    assert kdal.order(project, 0)[-4:] == bad
    listed = {item["task"]: item["reason"] for item in kdal.report(project)["set_aside"]}
    assert sorted(listed) == bad
    for task, reason in listed.items():
        assert f"task {task}: image " in reason
    shown = kdal.cli("status")
    assert shown.returncode == 0
    assert f"task {project.task_ids[3]}: image" in shown.stdout.replace("\n", " ")

    # One of them is labelled by a person who can see it: the label is kept, and training goes on without.
    project.annotate(bad[0], 5)
    drain(project, [ls_api], 7, truth.__getitem__)
    opened = kdal.wait_open(project, 1)
    assert (opened.facts["labels"], opened.facts["trained_on"]) == (8, 7)


def test_a_label_that_cannot_be_used_does_not_count_and_the_round_goes_on_without_it(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(24)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    (empty, odd, *_) = kdal.order(project, 0)
    ls_api.post(f"/api/tasks/{empty}/annotations/", {"result": []})
    ls_api.post(f"/api/tasks/{odd}/annotations/", {"result": [{"from_name": "digit", "type": "choices", "value": 7}]})
    drain(project, [ls_api], 7, truth.__getitem__)
    kdal.wait_counted(project, 7)
    assert {item["task"] for item in kdal.report(project)["unusable"]} == {empty, odd}
    assert [r.number for r in kdal.settled(project)] == [0]
    drain(project, [ls_api], 1, truth.__getitem__)
    assert kdal.wait_open(project, 1).facts["trained_on"] == 8
    assert {item["task"] for item in kdal.report(project)["unusable"]} == {empty, odd}


def test_labels_of_one_class_cannot_train_and_the_order_goes_on_by_diversity(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, _ = digits_project(24)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 8, lambda task: 3)
    opened = kdal.wait_open(project, 1)
    assert not opened.facts["trains"]
    assert "class" in opened.facts["why_untrained"]
    assert len(kdal.order(project, 1)) == 16


@pytest.mark.parametrize(
    ("config", "tag"),
    [
        (
            '<View><Image name="i" value="$image"/><EllipseLabels name="p" toName="i"><Label value="a"/>'
            "</EllipseLabels></View>",
            "EllipseLabels",
        ),
        (
            '<View><Text name="t" value="$text"/><Choices name="c" toName="t"><Choice value="a"/><Choice value="b"/>'
            "</Choices></View>",
            "Choices",
        ),
    ],
)
def test_label_studio_shows_which_tag_kdal_cannot_serve(
    config: str, tag: str, kdal: RunningKdal, ls_api: Api, make_project: Callable[..., Project]
) -> None:
    project = make_project(config)
    body = {"project": project.id, "url": kdal.url, "title": "kdal"}
    answer = ls_api.session.post(f"{ls_api.url}/api/ml/", json=body | kdal.form, timeout=60)
    assert answer.status_code == 400
    assert tag in answer.text
    refused = kdal.cli("connect", "--project", str(project.id))
    assert refused.returncode == 1
    assert tag in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_policy_that_is_wrong_is_refused_where_the_owner_typed_it(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, _ = digits_project(2)
    for params, word in (({"bugdet": 5}, "bugdet"), ({"budget": 0}, "budget"), ({"student": "resnet9"}, "resnet9")):
        body = {"project": project.id, "url": kdal.url, "title": "kdal", "extra_params": params}
        answer = ls_api.session.post(f"{ls_api.url}/api/ml/", json=body | kdal.form, timeout=60)
        assert answer.status_code == 400
        assert word in answer.text
        refused = kdal.cli("connect", "--project", str(project.id), "--params", json.dumps({**FAST, **params}))
        assert refused.returncode == 1
        assert word in refused.stderr


def test_a_failed_round_says_why_keeps_the_order_and_is_taken_up_by_the_button(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(24)
    kdal.connect(project)
    kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    config = project.read()["label_config"]
    more = '<Choices name="more" toName="image"><Choice value="a"/><Choice value="b"/></Choices></View>'
    ls_api.patch(project.path, {"label_config": config.replace("</View>", more)})
    for task in order[:8]:
        choice = {"choices": [str(truth[task])]}
        region = {"from_name": "digit", "to_name": "image", "type": "choices", "value": choice}
        ls_api.post(f"/api/tasks/{task}/annotations/", {"result": [region]})
    failed = kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.state == "failed"), None), "the round to fail"
    )
    assert failed.number == 1
    assert '<Choices name="more">' in (failed.error or "")
    assert '<Choices name="more">' in kdal.cli("status").stdout.replace("\n", " ")
    assert project.read()["model_version"] == "kdal-r0"
    assert project.next_task() == order[8]

    ls_api.patch(project.path, {"label_config": config})
    (backend,) = ls_api.get("/api/ml/", project=project.id)
    ls_api.request("POST", f"/api/ml/{backend['id']}/train")
    assert kdal.wait_open(project, 1).facts["labels"] == 8
    assert [r.number for r in kdal.settled(project)] == [0, 1]


def test_an_outage_of_the_image_server_while_scoring_fails_the_round_and_the_button_takes_it_up(
    kdal: RunningKdal, ls_api: Api, make_project: Callable[..., Project], digits: Callable[..., Any], tmp_path: Path
) -> None:
    found = digits(30)
    for i, image in enumerate(found.images):
        (tmp_path / f"{i:02}.png").write_bytes(image)
    project = make_project()
    with image_server(tmp_path) as address:
        ls_api.post(f"/api/projects/{project.id}/import", [{"image": f"{address}/{i:02}.png"} for i in range(30)])
        uris = {task["id"]: task["data"]["image"] for task in project.tasks()}
        truth = {task: found.labels[int(uri[-6:-4])] for task, uri in uris.items()}
        kdal.connect(project)
        kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    for task in order[8:]:  # only what will be trained on is still at hand
        digest = hashlib.sha256(uris[task].encode()).hexdigest()
        (kdal.home / "cache" / "images" / digest[:2] / digest).unlink()
    drain(project, [ls_api], 8, truth.__getitem__)
    failed = kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.state == "failed"), None), "the round to fail", timeout=180
    )
    assert "not one of 22 images can be reached" in (failed.error or "")
    assert project.next_task() == order[8]  # the last order stays in force

    with image_server(tmp_path, int(address.rpartition(":")[2])):
        (backend,) = ls_api.get("/api/ml/", project=project.id)
        ls_api.request("POST", f"/api/ml/{backend['id']}/train")
        opened = kdal.wait_open(project, 1)
    assert opened.seconds["train S and T"] == failed.seconds["train S and T"]  # not done again
    assert opened.facts["unreadable"] == 0
    assert sorted(kdal.order(project, 1)) == sorted(order[8:])
