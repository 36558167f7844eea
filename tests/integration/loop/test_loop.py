"""The labelling loop on a real Label Studio: what a team does in a day."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.harness import Api, Member, Project
from tests.integration.loop.running import RunningKdal, drain

Make = Callable[[int], tuple[Project, dict[int, int]]]


def versions(api: Api, project: Project) -> dict[str, int]:
    return dict(api.get(f"/api/projects/{project.id}/model-versions/"))


def test_connecting_sets_the_project_up_and_doing_it_again_changes_nothing(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, _ = digits_project(12)

    def set_up() -> Any:
        hooks = [h for h in ls_api.get("/api/webhooks/") if h["project"] == project.id]
        backends = ls_api.get("/api/ml/", project=project.id)
        row = project.read()
        return hooks, [(b["id"], b["url"], b["extra_params"]) for b in backends], row["sampling"], row["model_version"]

    kdal.connect(project)
    kdal.wait_open(project, 0)
    first = set_up()
    hooks, backends, sampling, version = first
    assert [hook["url"] for hook in hooks] == [f"{kdal.url}/webhook"]
    assert hooks[0]["headers"]["X-Kdal-Secret"]
    assert not hooks[0]["send_for_all_actions"]
    assert "PROJECT_UPDATED" not in hooks[0]["actions"]
    assert len(backends) == 1
    assert backends[0][1] == kdal.url
    assert (sampling, version) == ("Uncertainty sampling", "kdal-r0")

    kdal.connect(project)
    kdal.wait(lambda: None if kdal.report(project) is None or kdal.storage.waiting_events() else True, "the inbox")
    second = set_up()
    assert [h["id"] for h in second[0]] == [h["id"] for h in hooks]
    assert second[1:] == first[1:]
    assert [r.number for r in kdal.settled(project)] == [0]


def test_a_backend_added_with_label_studios_own_button_is_put_right(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, _ = digits_project(12)
    body = {"project": project.id, "url": kdal.url, "title": "my model", "extra_params": {"budget": 5}}
    ls_api.post("/api/ml/", body | kdal.form)
    round_ = kdal.wait_open(project, 0)
    assert round_.budget == 5
    hooks = [h for h in ls_api.get("/api/webhooks/") if h["project"] == project.id]
    kdal.wait(
        lambda: (
            [h for h in ls_api.get("/api/webhooks/") if h["project"] == project.id and not h["headers"]] == [] or None
        ),
        f"the webhook without secret to go: {hooks}",
    )
    assert project.read()["model_version"] == "kdal-r0"


def test_the_queue_is_served_as_computed_and_a_full_batch_retrains_and_reorders(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(60)
    kdal.connect(project, budget=20)
    kdal.wait_open(project, 0)
    cold = kdal.order(project, 0)
    assert sorted(cold) == sorted(truth)
    assert cold != sorted(cold)
    assert kdal.rounds(project)[0].facts["why_untrained"] == "no labels yet"

    assert drain(project, [ls_api], 20, truth.__getitem__) == cold[:20]

    opened = kdal.wait_open(project, 1)
    assert opened.trigger == "budget"
    assert opened.facts["labels"] == 20
    assert opened.facts["trained_on"] == 20
    order = kdal.order(project, 1)
    assert sorted(order) == sorted(set(truth) - set(cold[:20]))
    assert order != [task for task in cold if task in set(order)]
    assert versions(ls_api, project) == {"kdal-r1": 40}
    assert project.read()["model_version"] == "kdal-r1"
    assert drain(project, [ls_api], 10, truth.__getitem__) == order[:10]
    assert [r.state for r in kdal.rounds(project)] == ["closed", "open"]


def test_a_project_may_choose_a_rival_strategy(kdal: RunningKdal, ls_api: Api, digits_project: Make) -> None:
    orders = []
    for name in ("badge", "margin"):
        project, truth = digits_project(40)
        kdal.connect(project, budget=20, strategy=name)
        kdal.wait_open(project, 0)
        first = drain(project, [ls_api], 20, truth.__getitem__)
        kdal.wait_open(project, 1)
        order = kdal.order(project, 1)
        assert sorted(order) == sorted(set(truth) - set(first))
        assert drain(project, [ls_api], 5, truth.__getitem__) == order[:5]
        places = {task: place for place, task in enumerate(sorted(truth))}
        orders.append([places[task] for task in order])
    assert orders[0] != orders[1]


def test_every_task_behind_the_batch_is_pre_annotated_with_scores_of_all_classes(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(40)
    kdal.connect(project, budget=20, suggest_above=0.0)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 20, truth.__getitem__)
    kdal.wait_open(project, 1)
    order = kdal.order(project, 1)
    predictions = {t["id"]: t["predictions"] for t in project.tasks() if not t["annotations"]}
    assert sorted(predictions) == sorted(order)
    for rank, task in enumerate(order):
        (prediction,) = predictions[task]
        assert prediction["score"] == (rank + 1) / (len(order) + 1)
        (region,) = prediction["result"]
        scores = region["meta"]["scores"]
        assert set(scores) == {str(digit) for digit in range(10)}
        assert abs(sum(scores.values()) - 1) < 0.01
        assert region["value"]["choices"] == [max(scores, key=scores.__getitem__)]
        assert region["score"] == max(scores.values())


def test_two_members_get_the_order_exactly_and_never_the_same_task(
    kdal: RunningKdal, ls_api: Api, second_user: Member, digits_project: Make
) -> None:
    project, truth = digits_project(40)
    kdal.connect(project, budget=20)
    kdal.wait_open(project, 0)
    served = drain(project, [ls_api, second_user.api], 20, truth.__getitem__)
    assert served == kdal.order(project, 0)[:20]
    kdal.wait_open(project, 1)
    served = drain(project, [second_user.api, ls_api], 12, truth.__getitem__)
    assert served == kdal.order(project, 1)[:12]

    # Both hold a task at once: locks keep them apart, and nobody is given a later task than there is.
    mine, theirs = project.next_task(ls_api), project.next_task(second_user.api)
    assert [mine, theirs] == kdal.order(project, 1)[12:14]


def test_a_skipped_task_does_not_count_and_the_next_in_rank_takes_its_place(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(30)
    kdal.connect(project, budget=6, count_outside=False)
    kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    for task in order[:2]:
        assert project.next_task() == task
        project.annotate(task, 0, was_cancelled=True)
    outside = order[20]
    project.annotate(outside, truth[outside])  # not in the batch: does not count under this policy
    assert drain(project, [ls_api], 5, truth.__getitem__) == order[2:7]
    kdal.wait_counted(project, 5)
    assert [r.number for r in kdal.settled(project)] == [0]
    assert drain(project, [ls_api], 1, truth.__getitem__) == order[7:8]
    assert kdal.wait_open(project, 1).facts["labels"] == 7
    assert kdal.order(project, 1)[-2:] == sorted(order[:2])  # still servable, after all others


def test_labels_outside_the_batch_count_each_task_once_whoever_labels_it(
    kdal: RunningKdal, ls_api: Api, second_user: Member, digits_project: Make
) -> None:
    project, truth = digits_project(30)
    kdal.connect(project, budget=6)
    kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    for task in order[-3:]:
        project.annotate(task, truth[task])
        project.annotate(task, truth[task], api=second_user.api)
    kdal.wait_counted(project, 3)
    drain(project, [ls_api], 2, truth.__getitem__)
    kdal.wait_counted(project, 5)
    assert [r.number for r in kdal.settled(project)] == [0]
    drain(project, [ls_api], 1, truth.__getitem__)
    kdal.wait_open(project, 1)
    assert [r.number for r in kdal.settled(project)] == [0, 1]


def test_an_edit_does_not_count_again_and_is_what_the_models_learn(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(24)
    kdal.connect(project, budget=6)
    kdal.wait_open(project, 0)
    (first,) = drain(project, [ls_api], 1, lambda task: (truth[task] + 1) % 10)
    annotation = next(t for t in project.tasks() if t["id"] == first)["annotations"][0]["id"]
    for choice in ((truth[first] + 2) % 10, truth[first]):
        ls_api.patch(f"/api/annotations/{annotation}/", {"result": project.choice(choice)})
    drain(project, [ls_api], 4, truth.__getitem__)
    kdal.wait_counted(project, 5)
    assert [r.number for r in kdal.settled(project)] == [0]
    drain(project, [ls_api], 1, truth.__getitem__)
    kdal.wait_open(project, 1)
    targets = {item["ref"]["task_id"]: item["target"] for item in kdal.snapshot(project, 1)["labelled"]}
    assert targets == {task: truth[task] for task in targets}
    assert first in targets


def test_a_deleted_annotation_un_counts_until_the_round_begins(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(24)
    kdal.connect(project, budget=6)
    kdal.wait_open(project, 0)
    served = drain(project, [ls_api], 5, truth.__getitem__)
    kdal.wait_counted(project, 5)
    annotation = next(t for t in project.tasks() if t["id"] == served[2])["annotations"][0]["id"]
    ls_api.delete(f"/api/annotations/{annotation}/")
    # One by one, Label Studio sends nothing for this; its list action does.
    project.annotate(kdal.order(project, 0)[10], truth[kdal.order(project, 0)[10]])
    kdal.wait_counted(project, 5)
    assert [r.number for r in kdal.settled(project)] == [0]
    assert drain(project, [ls_api], 1, truth.__getitem__) == [served[2]]  # back at its old rank
    kdal.wait_open(project, 1)


def test_start_training_in_label_studio_begins_a_round_now(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(30)
    kdal.connect(project, budget=25)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 12, truth.__getitem__)
    (backend,) = ls_api.get("/api/ml/", project=project.id)
    ls_api.request("POST", f"/api/ml/{backend['id']}/train")
    opened = kdal.wait_open(project, 1)
    assert (opened.trigger, opened.facts["labels"]) == ("button", 12)


def test_annotators_go_on_in_the_last_order_while_a_round_computes(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(60)
    kdal.connect(project, budget=10, epochs=400)
    kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    drain(project, [ls_api], 10, truth.__getitem__)
    kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.number == 1 and "train" in r.step), None),
        "training to begin",
    )
    meanwhile = drain(project, [ls_api], 5, truth.__getitem__)
    assert next(r for r in kdal.rounds(project) if r.number == 1).opened_at is None
    assert meanwhile == order[10:15]
    opened = kdal.wait_open(project, 1)
    assert opened.facts["labels"] == 10
    kdal.wait_counted(project, 5)  # labels made meanwhile count for the next round


def test_a_round_ends_when_nothing_is_left_and_new_tasks_begin_another(
    kdal: RunningKdal, ls_api: Api, digits_project: Make, digits: Callable[..., Any]
) -> None:
    project, truth = digits_project(10)
    kdal.connect(project, budget=8)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 8, truth.__getitem__)
    kdal.wait_open(project, 1)
    order = kdal.order(project, 1)
    assert len(order) == 2
    project.annotate(order[0], 0, was_cancelled=True)  # nobody will label it: must not hold the last batch up
    project.annotate(order[1], truth[order[1]])
    kdal.wait_open(project, 2)
    assert kdal.order(project, 2) == [order[0]]


def test_labels_that_were_there_before_kdal_train_the_first_round(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(30)
    for task in list(truth)[:15]:
        project.annotate(task, truth[task])
    kdal.connect(project)
    opened = kdal.wait_open(project, 0)
    assert opened.facts["trains"]
    assert opened.facts["labels"] == 15
    assert sorted(kdal.order(project, 0)) == sorted(list(truth)[15:])


def test_a_long_queue_is_pushed_in_part_and_what_is_behind_it_stays_servable(
    kdal: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    project, truth = digits_project(30)
    kdal.connect(project, budget=6, queue=1)
    kdal.wait_open(project, 0)
    order = kdal.order(project, 0)
    assert len(order) == 30
    assert versions(ls_api, project) == {"kdal-r0": 12}
    hook = next(h for h in ls_api.get("/api/webhooks/") if h["project"] == project.id)
    ls_api.patch(f"/api/webhooks/{hook['id']}/", {**hook, "is_active": False})  # no round in the meantime
    served = drain(project, [ls_api], 30, truth.__getitem__)
    assert served[:12] == order[:12]
    assert sorted(served[12:]) == sorted(order[12:])
