"""What an owner changes while a round is computed or labelled: it is cancelled, begun again, or says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdal.storage.tables import Round
from tests.integration.harness import Api, Project
from tests.integration.loop.running import ENDLESS, FAST, RunningKdal, drain

Make = Callable[[int], tuple[Project, dict[int, int]]]


def training(kdal: RunningKdal, project: Project, restarts: int = 0) -> Round:
    """Wait until round 1 trains."""
    return kdal.wait(
        lambda: next(
            (
                r
                for r in kdal.rounds(project)
                if (r.number, r.step, r.restarts) == (1, "train S and T", restarts) and r.progress > 0
            ),
            None,
        ),
        "round 1 to train",
    )


def in_training(kdal: RunningKdal, api: Api, digits_project: Make) -> tuple[Project, dict[int, int]]:
    """A project of 24 digits whose round 1 trains on 8 labels, and would for hours; and the digits by task."""
    project, truth = digits_project(24)
    kdal.connect(project, epochs=1)
    kdal.wait_open(project, 0)
    kdal.connect(project, **ENDLESS)
    drain(project, [api], 8, truth.__getitem__)
    training(kdal, project)
    return project, truth


def given_up(kdal: RunningKdal, project: Project, count: int = 1) -> None:
    """Wait until the worker has stopped computing a start of round 1."""
    line = f"project={project.id} round=1 step='train S and T'"

    def found() -> bool | None:
        lines = (kdal.home / "worker.log").read_text().splitlines()
        return sum("step given up" in text and line in text for text in lines) >= count or None

    kdal.wait(found, "the worker to stop computing", timeout=30)


def set_up(kdal: RunningKdal, api: Api, project: Project, **policy: Any) -> int:
    """Edit the extra params in Label Studio; returns the status that its form shows."""
    (backend,) = api.get("/api/ml/", project=project.id)
    fields = {"url": kdal.url, "project": project.id, "title": "kdal", "extra_params": {**FAST, **policy}, **kdal.form}
    address = f"{api.url}/api/ml/{backend['id']}"
    return api.session.patch(address, json=fields, timeout=60).status_code


def test_a_cancelled_round_is_computed_no_further_and_the_next_begins_with_a_full_batch_more(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(40)
    kdal.connect(project, epochs=1)
    kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    kdal.connect(project, **ENDLESS)
    nothing = kdal.cli("cancel", "--project", str(project.id))
    assert (nothing.returncode, "no round is being computed" in nothing.stderr) == (1, True)
    drain(project, [ls_api], 8, truth.__getitem__)
    training(kdal, project)
    answer = kdal.cli("cancel", "--project", str(project.id))
    assert answer.returncode == 0, answer.stderr
    given_up(kdal, project)
    assert [(row.number, row.state) for row in kdal.settled(project)] == [(0, "closed"), (1, "cancelled")]
    assert "cancelled" in kdal.status_text()
    kdal.connect(project, epochs=1)
    # Annotators go on in the order they have, and what they do counts for the batch to come.
    assert drain(project, [ls_api], 7, truth.__getitem__) == order[8:15]
    kdal.wait_counted(project, 7)
    assert [row.number for row in kdal.settled(project)] == [0, 1]
    assert drain(project, [ls_api], 1, truth.__getitem__) == order[15:16]
    opened = kdal.wait_open(project, 2)
    assert (opened.trigger, opened.facts["labels"]) == ("budget", 16)
    assert [row.state for row in kdal.rounds(project)] == ["closed", "cancelled", "open"]
    assert ls_api.get(f"/api/projects/{project.id}/model-versions/") == {opened.version: 24}


def test_the_button_begins_the_next_round_after_a_cancelled_one(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, _ = in_training(kdal, ls_api, digits_project)
    assert kdal.cli("cancel", "--project", str(project.id)).returncode == 0
    kdal.connect(project, epochs=1)
    (backend,) = ls_api.get("/api/ml/", project=project.id)
    ls_api.request("POST", f"/api/ml/{backend['id']}/train")
    opened = kdal.wait_open(project, 2)
    assert (opened.trigger, opened.facts["labels"]) == ("button", 8)


def test_a_policy_that_trains_otherwise_begins_the_round_again_and_a_larger_budget_does_not(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = in_training(kdal, ls_api, digits_project)
    assert set_up(kdal, ls_api, project, **ENDLESS, budget=9) == 200
    assert [row.restarts for row in kdal.settled(project)] == [0, 0]
    drain(project, [ls_api], 1, truth.__getitem__)
    assert set_up(kdal, ls_api, project, epochs=1, budget=9) == 200
    given_up(kdal, project)
    opened = kdal.wait_open(project, 1)
    assert (opened.restarts, opened.budget, opened.facts["labels"]) == (1, 9, 9)
    assert kdal.snapshot(project, 1)["policy"]["epochs"] == 1
    assert drain(project, [ls_api], 3, truth.__getitem__) == kdal.order(project, 1)[:3]


def test_the_training_of_a_project_that_is_deleted_in_label_studio_is_given_up(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, _ = in_training(kdal, ls_api, digits_project)
    ls_api.delete(project.path)
    given_up(kdal, project)
    assert [(row.number, row.state) for row in kdal.rounds(project)] == [(0, "closed"), (1, "failed")]


def test_a_refused_set_up_stays_in_the_status_until_one_is_accepted(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, _ = digits_project(8)
    kdal.connect(project, epochs=1)
    kdal.wait_open(project, 0)
    config = str(project.read()["label_config"])
    ellipses = '<EllipseLabels name="e" toName="image"><Label value="a"/></EllipseLabels></View>'
    ls_api.patch(project.path, {"label_config": config[: config.index("<Choices")] + ellipses})
    set_up(kdal, ls_api, project, epochs=1)
    kdal.wait(lambda: kdal.report(project)["problem"], "the refusal to be shown")
    kdal.settled(project, 4)  # several looks
    assert "EllipseLabels" in kdal.report(project)["problem"]
    assert "EllipseLabels" in kdal.status_text()
    ls_api.patch(project.path, {"label_config": config})
    assert set_up(kdal, ls_api, project, epochs=1) == 200
    kdal.wait(lambda: True if kdal.report(project)["problem"] is None else None, "the refusal to go")


def test_an_empty_submission_of_a_choice_counts_for_no_batch_until_it_is_made_good(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(24)
    kdal.connect(project, budget=4, epochs=1)
    kdal.wait_open(project, 0)
    empty = kdal.order(project, 0)[0]
    annotation = project.annotate(empty, [])
    drain(project, [ls_api], 3, truth.__getitem__)
    kdal.wait_counted(project, 3)
    kdal.wait(
        lambda: True if [item["task"] for item in kdal.report(project)["unusable"]] == [empty] else None,
        "the empty submission to be named",
    )
    assert f"task {empty}" in kdal.status_text()
    assert [row.number for row in kdal.settled(project)] == [0]
    ls_api.patch(f"/api/annotations/{annotation['id']}/", {"result": project.choice(truth[empty])})
    opened = kdal.wait_open(project, 1)
    assert (opened.facts["labels"], opened.facts["trained_on"]) == (4, 4)
    assert kdal.report(project)["unusable"] == []
