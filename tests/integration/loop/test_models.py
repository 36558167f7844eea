"""An owner goes back to an earlier model: what annotators of a real Label Studio then see."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.integration.harness import Api, Project
from tests.integration.loop.running import RunningKdal, drain, unlabelled


def test_a_rollback_is_one_command_and_annotators_see_that_model_in_its_order(
    kdal: RunningKdal, ls_api: Api, digits_project: Callable[[int], tuple[Project, dict[int, int]]]
) -> None:
    project, truth = digits_project(40)
    kdal.connect(project, epochs=1, suggest_above=0.0)
    kdal.wait_open(project, 0)
    for number in (1, 2):
        drain(project, [ls_api], 8, truth.__getitem__)
        kdal.wait_open(project, number)
    listed = json.loads(kdal.cli("models", "list", "--project", str(project.id), "--json").stdout)
    assert [(one["number"], one["serves"]) for one in listed] == [(1, False), (2, True)]
    answer = kdal.cli("models", "rollback", "--project", str(project.id))
    assert answer.returncode == 0, answer.stderr
    assert "kdal-r1 serves" in answer.stdout
    kdal.wait_open(project, 3)
    assert project.read()["model_version"] == "kdal-r3"
    predictions = unlabelled(project)
    own = [task for task in kdal.order(project, 1) if task in predictions]
    assert sorted(predictions, key=lambda task: float(predictions[task]["score"])) == own
    assert drain(project, [ls_api], 2, truth.__getitem__) == own[:2]
    report = kdal.report(project)
    assert (report["serving"], report["version"]) == ("kdal-r1", "kdal-r3")


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_a_rollback_whose_worker_is_killed_is_whole_once_another_runs(
    killable_kdal: RunningKdal,
    ls_api: Api,
    digits_project: Callable[[int], tuple[Project, dict[int, int]]],
    seconds: float,
) -> None:
    kdal = killable_kdal
    project, truth = digits_project(40)
    kdal.connect(project, epochs=1, suggest_above=0.0)
    kdal.wait_open(project, 0)
    for number in (1, 2):
        drain(project, [ls_api], 8, truth.__getitem__)
        kdal.wait_open(project, number)
    answer = kdal.cli("models", "rollback", "--no-wait", "--project", str(project.id))
    assert answer.returncode == 0, answer.stderr
    time.sleep(seconds)
    kdal.kill(kdal.worker)
    # Whatever it had come to, annotators are served one order, and the server answers by a model that is whole.
    version = project.read()["model_version"]
    assert (version, kdal.report(project)["serving"]) in [
        ("kdal-r2", "kdal-r2"),
        ("kdal-r3", "kdal-r2"),
        ("kdal-r3", "kdal-r1"),
    ]
    kdal.start_worker()
    opened = kdal.wait_open(project, 3)
    assert (kdal.report(project)["serving"], project.read()["model_version"]) == ("kdal-r1", opened.version)
    predictions = unlabelled(project)
    own = [task for task in kdal.order(project, 1) if task in predictions]
    assert sorted(predictions, key=lambda task: float(predictions[task]["score"])) == own
    assert [row.number for row in kdal.rounds(project)] == [0, 1, 2, 3]
