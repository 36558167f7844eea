"""`make demo`, shortened: the program that it runs, twice, as a person would run it."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import requests

from kdal.demo import State
from kdal.processes.child import KDAL, free_port

DEMO = [*KDAL, "demo"]


def processes_of(folder: Path) -> list[str]:
    """Processes that have to do with a demo's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        text = " ".join(process.info["cmdline"] or []) + str((process.info["environ"] or {}).get("KDAL_HOME", ""))
        text += str((process.info["environ"] or {}).get("LABEL_STUDIO_BASE_DATA_DIR", ""))
        if str(folder) in text and process.pid != os.getpid():
            found.append(text)
    return found


@pytest.fixture(scope="module")
def folder(label_studio_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demos of this file live, beside each other as in a person's working directory.

    Its Label Studio has its tables already: to make them takes most of a minute, and has been done for the template.
    Its ports are not the usual ones, for which demos that other files start at the same time would compete.
    """
    folder = tmp_path_factory.mktemp("demos") / "demo"
    shutil.copytree(label_studio_template, folder / "label-studio")
    State("a-demo's-password", secrets.token_hex(20), free_port(), free_port()).save(folder / "demo.json")
    return folder


@pytest.mark.timeout(1800)
def test_the_demo_labels_learns_shows_its_curve_and_a_second_start_goes_on(folder: Path, tmp_path: Path) -> None:
    command = [*DEMO, "--folder", str(folder), "--rounds", "2", "--budget", "30"]
    # Settings of a kdal in earnest have no part in it.
    (tmp_path / ".env").write_text("KDAL_AUTH_USER=owner\nKDAL_AUTH_PASSWORD=secret\n")
    earnest = {**os.environ, "KDAL_DATABASE_URL": f"sqlite:///{tmp_path / 'earnest.sqlite'}"}
    first = subprocess.run(
        [*command, "--autopilot", "--once"], capture_output=True, text=True, timeout=1200, cwd=tmp_path, env=earnest
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".env"]
    # There is no terminal: each piece of work says when it begins and how long it took, the end what is kept.
    for work in ("Starting Label Studio", "Uploading digits: 1,797 of 1,797,", "Round 0: a program labels: 30 of 30,"):
        assert re.search(rf"^{work}.* done in \d+ ", first.stdout, re.MULTILINE), first.stdout
    assert re.search(r"^Round 2: kdal trains and puts the queue in order: done in \d+ ", first.stdout, re.MULTILINE)
    assert f"Saved in {folder}:" in first.stdout
    assert "digits-curve.png" in first.stdout
    rows = re.findall(r"│\s*(\d+) │\s*([\d.]+)% │\s*([\d.]+)% │\s*([+-][\d.]+) │", first.stdout)
    assert [int(row[0]) for row in rows] == [30, 60]
    # Not a claim about learning, which one run cannot make: only that both have learnt.
    assert all(float(row[1]) > 50 and float(row[2]) > 50 for row in rows)
    assert (folder / "digits-curve.png").stat().st_size > 10_000
    assert processes_of(folder) == []

    # Again, without the program: it waits for people, with all labels still there, until Ctrl-C.
    state = json.loads((folder / "demo.json").read_text())
    with (tmp_path / "second.log").open("w") as log:
        second = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 300
        while "until Ctrl-C" not in (text := (tmp_path / "second.log").read_text()):
            assert second.poll() is None, text
            assert time.monotonic() < deadline, text
            time.sleep(0.5)
        address = re.search(r"Label Studio: (http://\S+)/projects/(\d+)/data", text)
        assert address, text
        headers = {"Authorization": f"Token {state['token']}"}
        project = requests.get(f"{address[1]}/api/projects/{address[2]}", headers=headers, timeout=60).json()
        assert (project["task_number"], project["num_tasks_with_annotations"]) == (1797, 60)
        assert project["model_version"] == "kdal-r2"
        assert state["password"] in text
    finally:
        second.send_signal(signal.SIGINT)
        assert second.wait(60) == 0
    assert "goes on from here" in (tmp_path / "second.log").read_text()
    assert processes_of(folder) == []


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "title"), [("lanes", "Lane F1"), ("boxes", "mAP@.5")])
def test_the_demos_of_rendered_images_learn_them_in_projects_of_their_own(
    name: str, title: str, folder: Path, tmp_path: Path
) -> None:
    command = [*DEMO, name, "--folder", str(folder), "--autopilot", "--once", "--images", "24", "--rounds", "2"]
    command += ["--budget", "8", "--params", '{"epochs": 2, "image_size": 100}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{title} on images nobody labelled" in done.stdout
    rows = re.findall(r"│\s*(\d+) │\s*[\d.]+% │\s*[\d.]+% │\s*[+-][\d.]+ │", done.stdout)
    assert rows == ["8", "16"]
    assert (folder / f"{name}-curve.png").stat().st_size > 10_000
    assert name in json.loads((folder / "demo.json").read_text())["projects"]
    assert processes_of(folder) == []


def test_an_unknown_demo_is_refused_with_those_there_are(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "cats"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "kdal: there is no demo 'cats', only digits, photos, lanes, boxes\n"
