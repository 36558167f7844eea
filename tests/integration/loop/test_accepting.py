"""`kdal accept` on a real Label Studio: what it writes, what takes no notice of it, and what takes it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdal.labelstudio.accepted import VERSION
from tests.integration.harness import Api, Member, Project
from tests.integration.loop.running import RunningKdal, drain
from tests.integration.loop.test_photos import CONFIG, crops


def annotations(project: Project) -> dict[int, list[dict[str, Any]]]:
    return {task["id"]: task["annotations"] for task in project.tasks()}


def kdals(found: dict[int, list[dict[str, Any]]]) -> list[int]:
    """Tasks whose annotation says that it is kdal's."""
    told = {task: [a["result"][0].get("meta", {}).get("kdal") for a in rows] for task, rows in found.items() if rows}
    return [task for task, marks in told.items() if "accepted" in marks]


def test_sure_suggestions_are_accepted_ignored_and_taken_back_and_people_keep_theirs(
    kdal: RunningKdal, ls_api: Api, second_user: Member, make_project: Callable[..., Project]
) -> None:
    images, labels = crops(24)
    project = make_project(CONFIG, images, title="Photos")
    truth = dict(zip(project.task_ids, labels, strict=True))
    backbones = {"student": "mobilenet_v2", "teacher": "mobilenet_v2"}
    kdal.connect(project, budget=8, explore=0.5, suggest_above=0.0, target=0.9, **backbones)
    kdal.wait_open(project, 0, timeout=240)
    labelled = drain(project, [ls_api], 8, truth.__getitem__)
    kdal.wait_open(project, 1)
    ls_api.post(f"/api/projects/{project.id}/import", [{"data": {"image": "later.png"}}])
    asked = ("accept", "--project", str(project.id), "--target", "0.3", "--alpha", "0.5")

    said = kdal.cli(*asked, "--dry-run")
    assert "would be accepted" in said.stdout, said.stdout + said.stderr
    assert kdals(annotations(project)) == []
    said = kdal.cli(*asked)
    assert "suggestions" in said.stdout, said.stdout + said.stderr
    accepted = kdals(before := annotations(project))
    assert len(accepted) >= 5
    assert all(len(before[task]) == 1 for task in accepted)
    assert not set(accepted) & set(labelled)
    assert VERSION not in ls_api.get(f"/api/projects/{project.id}/model-versions/")
    assert project.read()["model_version"] == "kdal-r1"
    assert "0 are left to be accepted" in kdal.cli(*asked).stdout
    text = kdal.status_text()
    assert "accepted" in text
    assert "You may stop" in text or "cannot be told yet" in text

    # A person labels one anew, and makes another one theirs; they count, and nothing else does.
    a, b = accepted[:2]
    project.annotate(a, truth[a], api=second_user.api)
    (theirs,) = before[b]
    second_user.api.patch(f"/api/annotations/{theirs['id']}/", {"result": theirs["result"], "lead_time": 2.0})
    kdal.wait_counted(project, 2)
    assert [row.number for row in kdal.settled(project)] == [0, 1]

    kdal.storage.add_event(project.id, "START_TRAINING")
    second = kdal.wait_open(project, 2)
    assert (second.facts["labels"], second.facts["trained_on"]) == (10, 10)
    assert not set(accepted) & set(kdal.order(project, 2))
    assert sorted(kdal.snapshot(project, 2)["accepted"]) == sorted(set(accepted) - {a, b})

    said = kdal.cli("accept", "--project", str(project.id), "--undo")
    assert f"Took back {len(accepted) - 1:,} " in said.stdout, said.stdout + said.stderr
    left = annotations(project)
    assert {task for task, rows in left.items() if rows} == {*labelled, a, b}
    assert [row["completed_by"] for row in left[a]] != [theirs["completed_by"]]
    assert left[b][0]["id"] == theirs["id"]

    kdal.storage.add_event(project.id, "START_TRAINING")
    third = kdal.wait_open(project, 3)
    assert third.facts["labels"] == 10
    assert set(accepted) - {a, b} <= set(kdal.order(project, 3))
