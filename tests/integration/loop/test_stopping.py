"""SIGTERM and Ctrl-C end all processes of kdal within ten seconds, whatever they do, and nothing goes on behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from kdal.processes.child import free_port
from tests.integration.harness import Api, Project
from tests.integration.loop.running import ENDLESS, KDAL, RunningKdal, drain
from tests.integration.proxy import Proxy

Make = Callable[[int], tuple[Project, dict[int, int]]]
MakeKdal = Callable[..., RunningKdal]
LIMIT = 10.0
"""Seconds from the signal to the end of every process: what is promised, not how fast it is."""
ROUND_1 = 40
"""Tasks of the projects here."""


@pytest.fixture
def stopped_kdal(make_kdal: MakeKdal, proxy: Proxy) -> RunningKdal:
    """A kdal behind the proxy whose server runs; each test starts and ends its workers."""
    kdal = make_kdal(LABEL_STUDIO_URL=proxy.url)
    kdal.start_server()
    return kdal


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`started(folder, *arguments, **environment)`: a kdal command as a person starts it, gone after the test."""
    made: list[subprocess.Popen[str]] = []

    def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        folder.mkdir(exist_ok=True)
        with (folder / "output.log").open("a") as log:
            process = subprocess.Popen(
                [*KDAL, *arguments],
                stdout=log,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        made.append(process)
        return process

    yield start
    for process in made:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ends(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """The process, and all that it started, are gone within the limit once it is told."""
    all_ = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    process.send_signal(number)
    reaper = threading.Thread(target=process.wait)  # nobody else would collect it, and it would count as alive
    reaper.start()
    _, alive = psutil.wait_procs(all_, timeout=LIMIT)
    assert not alive, f"{[p.cmdline() for p in alive]} {LIMIT} s after {number.name}"
    reaper.join()


def in_step(kdal: RunningKdal, project: Project, step: str, number: int = 1) -> None:
    """Wait until a round is in a step."""
    kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.number == number and r.step == step), None),
        f"round {number} to be in step {step!r}",
    )


def test_a_worker_ends_from_any_step_and_what_follows_computes_the_same_order(
    stopped_kdal: RunningKdal,
    proxy: Proxy,
    ls_api: Api,
    digits_project: Make,
    started: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    kdal = stopped_kdal

    def worker() -> subprocess.Popen[str]:
        return started(tmp_path / "worker", "worker", **kdal.environment)

    for seconds in (0.5, 2.0, 4.0):  # while it imports, and while it opens its database
        process = worker()
        time.sleep(seconds)
        ends(process, signal.SIGTERM)

    # Undisturbed, for comparison.
    process = worker()
    calm, calm_truth = digits_project(ROUND_1)
    kdal.connect(calm, epochs=60, budget=20)
    kdal.wait_open(calm, 0)
    drain(calm, [ls_api], 20, calm_truth.__getitem__)
    kdal.wait_open(calm, 1)

    project, truth = digits_project(ROUND_1)
    with proxy.rule("GET", f"/data/upload/{project.id}/", hold="before") as image:
        kdal.connect(project, epochs=60, budget=20)
        assert image.reached.wait(60)
        ends(process, signal.SIGINT)  # in the middle of the snapshot
        process = worker()
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 20, truth.__getitem__)
    in_step(kdal, project, "train S and T")
    ends(process, signal.SIGTERM)
    with proxy.rule("POST", f"/api/projects/{project.id}/import/predictions", hold="before") as push:
        process = worker()
        assert push.reached.wait(120)
        ends(process, signal.SIGTERM)
    process = worker()
    opened = kdal.wait_open(project, 1)
    ends(process, signal.SIGINT)  # idle
    places = [
        [sorted(t).index(task) for task in kdal.order(p, number)]
        for number in (0, 1)
        for p, t in ((calm, calm_truth), (project, truth))
    ]
    assert places[0] == places[1]
    assert places[2] == places[3]
    assert ls_api.get(f"/api/projects/{project.id}/model-versions/") == {opened.version: 20}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_trains_holds_its_name_until_it_is_gone(
    number: signal.Signals,
    stopped_kdal: RunningKdal,
    ls_api: Api,
    digits_project: Make,
    started: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    kdal = stopped_kdal
    process = started(tmp_path / "worker", "worker", **kdal.environment)
    project, truth = digits_project(24)
    for task in list(truth)[:12]:
        project.annotate(task, truth[task])
    kdal.connect(project, **ENDLESS)
    in_step(kdal, project, "train S and T", number=0)
    refused = kdal.cli("worker")
    assert (refused.returncode, "KDAL_WORKER_ID" in refused.stderr) == (1, True)
    freed: list[bool] = []

    def watch() -> None:
        with (kdal.home / "worker-1.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            time.sleep(1)  # the kernel may take a moment to clear away what has ended
            freed.append(psutil.pid_exists(process.pid) and psutil.Process(process.pid).status() != "zombie")

    watcher = threading.Thread(target=watch)
    watcher.start()
    ends(process, number)
    watcher.join()
    assert freed == [False]


def test_a_server_ends_in_the_middle_of_a_prediction(
    stopped_kdal: RunningKdal,
    proxy: Proxy,
    ls_api: Api,
    digits_project: Make,
    started: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    kdal = stopped_kdal
    kdal.start_worker()
    project, truth = digits_project(24)
    for task in list(truth)[:12]:
        project.annotate(task, truth[task])
    kdal.connect(project, epochs=1)
    kdal.wait_open(project, 0)
    late = "/data/upload/1/later.png"
    body = {"project": kdal.uid(project), "tasks": [{"id": 1, "data": {"image": late}}], "label_config": ""}

    def predict(port: int) -> None:
        try:
            requests.post(f"http://127.0.0.1:{port}/predict", json=body, auth=kdal.user, timeout=60)
        except requests.RequestException:
            return

    for number in (signal.SIGTERM, signal.SIGINT):
        port = free_port()
        process = started(tmp_path / "server", "serve", "--port", str(port), **kdal.environment)
        kdal.wait(lambda port=port: healthy(port), "the server to answer")
        with proxy.rule("GET", late, hold="before") as image:
            asking = threading.Thread(target=predict, args=(port,))
            asking.start()
            assert image.reached.wait(60)
            ends(process, number)
            asking.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_kdal_up_ends_with_server_and_worker_while_the_worker_trains(
    number: signal.Signals,
    make_kdal: MakeKdal,
    ls_api: Api,
    digits_project: Make,
    started: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
) -> None:
    kdal = make_kdal()
    process = started(tmp_path / "up", "up", "--port", str(kdal.port), **kdal.environment)
    kdal.wait(lambda: healthy(kdal.port), "the server to answer", timeout=120)
    project, truth = digits_project(24)
    for task in list(truth)[:12]:
        project.annotate(task, truth[task])
    kdal.connect(project, **ENDLESS)
    in_step(kdal, project, "train S and T", number=0)
    ends(process, number)


def healthy(port: int) -> bool | None:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok or None
    except requests.RequestException:
        return None


def test_a_simulation_ends_with_its_processes(started: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process = started(tmp_path / "simulate", "simulate", "digits", "--workers", "2", "--out", number.name)
        deadline = time.monotonic() + 120
        while not list((tmp_path / "simulate" / number.name).rglob("*.json*")):
            assert process.poll() is None, (tmp_path / "simulate" / "output.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        ends(process, number)
    assert "Traceback" not in (tmp_path / "simulate" / "output.log").read_text()
