"""The order that annotators see is the one kdal computed last, whatever happens to the project meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kdal.storage.tables import Round
from tests.integration.harness import Api, Project, push_order
from tests.integration.loop.running import FAST, RunningKdal, drain
from tests.integration.proxy import Proxy

Make = Callable[[int], tuple[Project, dict[int, int]]]
QUICK = {"epochs": 1}


def versions(api: Api, project: Project) -> dict[str, int]:
    return dict(api.get(f"/api/projects/{project.id}/model-versions/"))


def edit_extra_params(kdal: RunningKdal, api: Api, project: Project, **policy: Any) -> None:
    """As the owner does in Label Studio's form of the ML backend; Label Studio then sets kdal up with them.

    It gives a backend one second to say that it is healthy, and sets it up with a later look else.
    """
    (backend,) = api.get("/api/ml/", project=project.id)
    wanted = {**FAST, **QUICK, **policy}
    fields = {"url": kdal.url, "project": project.id, "title": "kdal", "extra_params": wanted}
    api.patch(f"/api/ml/{backend['id']}", fields | kdal.form)

    def heard() -> bool | None:
        row = kdal.storage.project(project.id)
        return True if row is not None and row.policy == wanted else api.get("/api/ml/", project=project.id) and None

    kdal.wait(heard, "kdal to be set up")


def served_as_computed(kdal: RunningKdal, api: Api, project: Project, truth: dict[int, int], opened: Round) -> None:
    """The open round's order is what annotators are served, and no other of kdal's is left."""
    order = kdal.order(project, opened.number)
    assert versions(api, project) == {opened.version: len(order)}
    assert project.read()["model_version"] == opened.version
    assert drain(project, [api], 5, truth.__getitem__) == order[:5]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("policy", [{"budget": 9}, {"seed": 5}], ids=["which goes on", "which begins again"])
def test_extra_params_edited_while_an_order_comes_into_force_leave_the_new_one_in_force(
    moment: str,
    policy: dict[str, int],
    kdal_behind_proxy: RunningKdal,
    proxy: Proxy,
    ls_api: Api,
    digits_project: Make,
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(24)
    kdal.connect(project, **QUICK)
    kdal.wait_open(project, 0)
    with proxy.rule("PATCH", f"/api/projects/{project.id}$", "kdal-r1", hold=moment) as switch:
        drain(project, [ls_api], 8, truth.__getitem__)
        assert switch.reached.wait(60)
        edit_extra_params(kdal, ls_api, project, **policy)
        kdal.wait(lambda: True if not kdal.storage.waiting_events() else None, "the set-up to be seen to")
        kdal.settled(project)  # the timer looks at it, too
    opened = kdal.wait_open(project, 1)
    assert kdal.settled(project)[-1].version == opened.version
    assert opened.restarts == (0 if "budget" in policy else 1)
    served_as_computed(kdal, ls_api, project, truth, opened)


def test_a_class_that_is_renamed_while_a_round_computes_begins_it_again_from_a_fresh_snapshot(
    kdal_behind_proxy: RunningKdal, proxy: Proxy, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(40)
    kdal.connect(project, budget=20, **QUICK)
    kdal.wait_open(project, 0)
    with proxy.rule("POST", f"/api/projects/{project.id}/import/predictions", hold="before") as push:
        drain(project, [ls_api], 20, truth.__getitem__)
        assert push.reached.wait(60)
        # Label Studio tells nobody of the new config, and may take the order: the models need not predict that class.
        config = str(project.read()["label_config"])
        for task in project.tasks():  # Label Studio lets no class go that annotations have
            for annotation in task["annotations"]:
                if annotation["result"][0]["value"]["choices"] == ["3"]:
                    ls_api.delete(f"/api/annotations/{annotation['id']}/")
        ls_api.patch(project.path, {"label_config": config.replace('value="3"', 'value="three"')})
    opened = kdal.wait_open(project, 1)
    assert opened.restarts >= 1
    assert 'value="three"' in kdal.snapshot(project, 1)["label_config"]
    assert kdal.report(project)["problem"] is None
    assert [row.number for row in kdal.settled(project)] == [0, 1]
    drain(project, [ls_api], 0, truth.__getitem__)
    order = kdal.order(project, 1)
    assert versions(ls_api, project) == {opened.version: len(order)}
    assert project.next_task() == order[0]


def test_an_order_that_label_studio_refuses_for_good_is_named_and_leaves_nothing_behind(
    kdal_behind_proxy: RunningKdal, proxy: Proxy, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(24)
    kdal.connect(project, **QUICK)
    opened = kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    refusal = (400, '{"detail": "predictions are not welcome here"}')
    with proxy.rule("POST", f"/api/projects/{project.id}/import/predictions", answer=refusal) as push:
        drain(project, [ls_api], 8, truth.__getitem__)
        kdal.wait(
            lambda: next((r for r in kdal.rounds(project) if r.state == "failed" and r.restarts == 1), None),
            "the round to fail again after it was begun again",
        )
        pushed = push.seen
        kdal.settled(project, 5)
        assert push.seen == pushed
        (backend,) = ls_api.get("/api/ml/", project=project.id)
        ls_api.request("POST", f"/api/ml/{backend['id']}/train")
        kdal.wait(
            lambda: next((r for r in kdal.rounds(project) if r.state == "failed" and r.restarts == 2), None),
            "the button's round to fail",
        )
        assert push.seen <= pushed + 2
        assert "not welcome" in kdal.status_text()
        assert versions(ls_api, project) == {opened.version: 24}
        # Served and labelled: a task that was served only would be kept for its annotator, ahead of the next order.
        assert drain(project, [ls_api], 1, truth.__getitem__) == order[8:9]
        ls_api.request("POST", f"/api/ml/{backend['id']}/train")
        kdal.wait(lambda: kdal.rounds(project)[1].state == "computing" or None, "the round to begin again")
    again = kdal.wait_open(project, 1)
    served_as_computed(kdal, ls_api, project, truth, again)


def test_predictions_of_an_earlier_kdal_do_not_mix_with_its_orders(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(24)
    tasks = list(truth)
    for name in ("kdal-r1", "kdal-r0", "kdal-r0.2"):  # a copy of a project that kdal had ordered
        push_order(project, tasks[:18], name, [0] * 18)
    push_order(project, tasks, "another model", [1] * 24)
    kdal.connect(project, **QUICK)
    first = kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    assert versions(ls_api, project) == {first.version: 24, "another model": 24}
    assert drain(project, [ls_api], 8, truth.__getitem__) == order[:8]
    second = kdal.wait_open(project, 1)
    order = kdal.order(project, 1)
    assert versions(ls_api, project) == {second.version: 16, "another model": 24}
    assert drain(project, [ls_api], 5, truth.__getitem__) == order[:5]


def test_a_kdal_that_has_lost_its_memory_orders_the_queue_again(
    make_kdal: Callable[..., RunningKdal], ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(32)
    kdal = make_kdal().start()
    kdal.connect(project, **QUICK)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 8, truth.__getitem__)
    kdal.wait_open(project, 1)
    kdal.stop()
    # The same address, and a new home.
    fresh = make_kdal(KDAL_URL=kdal.url)
    fresh.port, fresh.url = kdal.port, kdal.url
    fresh.start()
    fresh.connect(project, **QUICK)
    opened = fresh.wait_open(project, 0)
    assert opened.version not in {"kdal-r1"}
    assert opened.facts["labels"] == 8
    served_as_computed(fresh, ls_api, project, truth, opened)
    drain(project, [ls_api], 3, truth.__getitem__)
    second = fresh.wait_open(project, 1)
    assert second.version != "kdal-r1" or versions(ls_api, project) == {second.version: 16}
    served_as_computed(fresh, ls_api, project, truth, second)


def test_a_project_in_which_everything_is_labelled_comes_to_rest_and_goes_on_with_new_tasks(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make, digits: Callable[..., Any]
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(6)
    kdal.connect(project, budget=3, **QUICK)
    for number in (0, 1):
        kdal.wait_open(project, number)
        drain(project, [ls_api], 3, truth.__getitem__)
    kdal.wait_open(project, 2)
    assert kdal.order(project, 2) == []
    assert [row.state for row in kdal.settled(project)] == ["closed", "closed", "open"]
    assert kdal.report(project)["problem"] is None
    files = {"file": ("later.png", digits(7).images[6], "image/png")}
    ls_api.request("POST", f"/api/projects/{project.id}/import", files=files)
    third = kdal.wait_open(project, 3)
    assert third.trigger == "tasks"
    assert versions(ls_api, project) == {third.version: 1}
    assert [project.next_task()] == kdal.order(project, 3)


def test_a_project_that_was_labelled_before_kdal_came_is_left_as_it_is(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(6)
    for task, digit in truth.items():
        project.annotate(task, digit)
    kdal.connect(project, **QUICK)
    kdal.wait_open(project, 0)
    assert [row.state for row in kdal.settled(project)] == ["open"]
    assert kdal.report(project)["problem"] is None
    assert kdal.report(project)["serving"] == "kdal-r0"  # predictions are asked of a model that has learnt


def test_an_order_that_somebody_deletes_in_label_studio_is_replaced_by_a_new_one(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    project, truth = digits_project(24)
    kdal.connect(project, **QUICK)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 3, truth.__getitem__)
    ls_api.delete(f"/api/projects/{project.id}/model-versions/", {"model_version": "kdal-r0"})
    opened = kdal.wait_open(project, 1)
    assert kdal.report(project)["problem"] is None
    served_as_computed(kdal, ls_api, project, truth, opened)
