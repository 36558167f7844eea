"""What kdal builds on in Label Studio, on the version that is installed: a change there fails here first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import requests
from playwright.sync_api import Page, expect

from kdal.processes.embedded import LABEL_STUDIO_VERSION, EmbeddedLabelStudio
from tests.integration.harness import Api, Digits, Member, Project, push_order


def test_the_server_is_of_the_version_that_the_design_was_measured_on(ls_api: Api) -> None:
    assert ls_api.get("/api/version")["label-studio-os-package"]["version"] == LABEL_STUDIO_VERSION


def test_uploaded_images_become_tasks_in_their_order_and_come_back_byte_for_byte(
    make_project: Callable[..., Project], digits: Callable[..., Digits], ls_api: Api
) -> None:
    images = digits(105, seed=0).images  # more than the 100 files of one request
    project = make_project(images=images)
    tasks = {task["id"]: task for task in project.tasks()}
    assert len(tasks) == 105
    for task_id, image in list(zip(project.task_ids, images, strict=True))[::26]:
        address = tasks[task_id]["data"]["image"]
        assert address.startswith("/data/upload/")
        assert ls_api.request("GET", address).content == image


def test_two_members_drain_the_queue_in_the_order_of_the_pushed_scores(
    make_project: Callable[..., Project], digits: Callable[..., Digits], ls_api: Api, second_user: Member
) -> None:
    some = digits(20)
    project = make_project(images=some.images)
    order = [project.task_ids[index] for index in (index * 7 % 20 for index in range(20))]
    push_order(project, order, "order-1", [0] * 20)

    served: list[int] = []
    people = [ls_api, second_user.api]
    # Each holds the lock of a task while the other asks, and they submit in turns.
    held = [project.next_task(api) for api in people]
    while any(task is not None for task in held):
        for turn, api in enumerate(people):
            task = held[turn]
            if task is not None:
                served.append(task)
                project.annotate(task, some.labels[project.task_ids.index(task)], api=api)
                held[turn] = project.next_task(api)

    assert served == order
    annotators = {annotation["completed_by"] for task in project.tasks() for annotation in task["annotations"]}
    assert len(annotators) == 2


def test_a_new_model_version_switches_the_order_at_once(
    make_project: Callable[..., Project], digits: Callable[..., Digits]
) -> None:
    project = make_project(images=digits(6).images)
    push_order(project, project.task_ids, "order-1", [0] * 6)
    assert project.next_task() == project.task_ids[0]
    push_order(project, project.task_ids[::-1], "order-2", [0] * 6)
    # The task that was served stays with its annotator until it is done.
    project.annotate(project.task_ids[0], 0)
    assert project.next_task() == project.task_ids[-1]


def test_a_member_who_signed_up_has_a_token_and_the_same_projects(
    make_project: Callable[..., Project], second_user: Member, label_studio: EmbeddedLabelStudio
) -> None:
    project = make_project()
    assert second_user.token != label_studio.token
    assert second_user.api.get("/api/current-user/whoami")["email"] == second_user.email
    assert second_user.api.get(project.path)["id"] == project.id


def test_the_api_refuses_a_wrong_token(label_studio: EmbeddedLabelStudio) -> None:
    answer = requests.get(
        f"{label_studio.url}/api/projects", headers={"Authorization": f"Token {'0' * 40}"}, timeout=30
    )
    assert answer.status_code == requests.codes.unauthorized


def test_a_person_sees_the_image_and_submits_a_label_in_the_browser(
    make_project: Callable[..., Project], digits: Callable[..., Digits], page: Page
) -> None:
    project = make_project(images=digits(2, size=64).images)
    page.goto(f"/projects/{project.id}/data?task={project.task_ids[1]}")
    page.locator("input[type=checkbox][name='7']").check(timeout=60_000)
    page.locator("button", has_text="Submit").first.click()
    expect(page.locator("button", has_text="Update").first).to_be_visible(timeout=60_000)
    (annotation,) = project.tasks()[1]["annotations"]
    assert annotation["result"][0]["value"] == {"choices": ["7"]}


def test_asyncio_works_after_a_test_with_a_browser() -> None:
    async def answer() -> int:
        return 42

    assert asyncio.run(answer()) == 42
