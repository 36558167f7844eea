"""Sure suggestions that `kdal accept` makes annotations of: which, what counts them, and how they are taken back."""

from __future__ import annotations

import pytest
from flask import Response

from kdal.labelstudio import accepting
from kdal.labelstudio.accepted import VERSION, is_accepted, marked, only_accepted
from kdal.labelstudio.client import LabelStudioError
from kdal.rounds.accepting import FACT, alone, forget, sure_suggestions
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Snapshot, take_snapshot
from kdal.rounds.store import RoundStore
from kdal_core.errors import ConfigError
from tests.kdal.rounds.conftest import choice
from tests.kdal.rounds.states import open_round
from tests.kdal.rounds.test_estimates import label, photo_loop

__all__ = ["photo_loop"]


def written(loop, count: int, digit: int = 3) -> list[int]:
    """Accept suggestions for the first free tasks."""
    tasks = [t for t, row in loop.project.tasks.items() if not row["annotations"]][:count]
    accepting.write(loop.resources.label_studio, 3, {task: choice(digit) for task in tasks})
    return tasks


def kdals(loop) -> list[int]:
    return [t for t, row in loop.project.tasks.items() if any(is_accepted(a) for a in row["annotations"])]


def taken(loop, number: int) -> Snapshot:
    return take_snapshot(
        loop.resources, loop.row, RoundStore(loop.resources.assets, loop.row.uid, number), StepReport()
    )


def test_what_is_accepted_is_neither_a_label_nor_asked_for(loop):
    a, b = written(loop, 2)
    loop.label_studio.annotate(loop.project, loop.project.queue()[0] if loop.project.queue() else 3005, choice(1))
    snapshot = taken(loop, 0)
    assert snapshot.accepted == [a, b]
    assert [item.ref.task_id for item in snapshot.labelled] == [3005]
    assert not {a, b} & {ref.task_id for ref in snapshot.pool}
    assert snapshot.skipped == []


def test_a_persons_annotation_of_an_accepted_task_is_its_label(loop):
    a, b, c = written(loop, 3)
    loop.label_studio.annotate(loop.project, a, choice(7), updated_by=2)
    loop.label_studio.edit(loop.project, b, loop.project.tasks[b]["annotations"][0]["result"])
    snapshot = taken(loop, 0)
    assert {item.ref.task_id: item.target for item in snapshot.labelled} == {a: 7, b: 3}
    assert snapshot.accepted == [c]


def test_what_is_accepted_counts_for_no_batch_and_a_persons_label_of_it_does(loop):
    open_round(loop)
    loop.look()
    accepted = written(loop, 4)
    loop.event("ANNOTATIONS_CREATED")
    loop.look()
    assert [(r.number, r.state, r.counted) for r in loop.rounds] == [(0, "open", 0)]
    loop.label_studio.annotate(loop.project, accepted[0], choice(5), updated_by=2)
    loop.event("ANNOTATION_CREATED")
    loop.look()
    assert loop.rounds[0].counted == 1
    accepting.take_back(loop.resources.label_studio, 3)
    loop.event("ANNOTATIONS_DELETED")
    loop.look()
    assert loop.rounds[0].counted == 1
    loop.label(2)
    loop.look()
    assert [r.number for r in loop.rounds] == [0, 1]


def test_a_batch_that_holds_accepted_tasks_is_filled_by_the_next_in_rank(make_loop):
    loop = make_loop(count_outside=False)
    open_round(loop)
    loop.look()
    written(loop, 2)  # of the batch of three
    loop.event("ANNOTATIONS_CREATED")
    loop.look()
    loop.label(3)
    loop.look()
    assert [r.number for r in loop.rounds] == [0, 1]


def test_a_label_of_a_task_that_was_accepted_before_the_round_counts(loop):
    (a,) = written(loop, 1)
    open_round(loop)
    loop.look()
    assert loop.rounds[0].counted == 0
    loop.label_studio.annotate(loop.project, a, choice(5), updated_by=2)
    loop.event("ANNOTATION_CREATED")
    loop.look()
    assert loop.rounds[0].counted == 1


def test_taking_back_removes_what_nobody_has_touched_and_nothing_else(loop):
    a, b, c = written(loop, 3)
    loop.label_studio.edit(loop.project, b, choice(3))
    loop.label_studio.annotate(loop.project, c, choice(8), updated_by=2)
    assert accepting.take_back(loop.resources.label_studio, 3) == 2
    left = {task: [x["result"] for x in loop.project.tasks[task]["annotations"]] for task in (a, b, c)}
    assert left == {a: [], b: [choice(3)], c: [choice(8)]}
    assert accepting.take_back(loop.resources.label_studio, 3) == 0


def test_somebody_who_makes_one_theirs_while_they_are_taken_back_keeps_it(loop):
    a, b = written(loop, 2)
    number = loop.project.tasks[b]["annotations"][0]["id"]
    loop.label_studio.on["GET", f"/api/annotations/{number}/"] = lambda: loop.label_studio.edit(
        loop.project, b, choice(4)
    )
    assert accepting.take_back(loop.resources.label_studio, 3) == 1
    assert loop.project.tasks[a]["annotations"] == []
    assert loop.project.tasks[b]["annotations"][0]["result"] == choice(4)


@pytest.mark.parametrize("path", ["/api/dm/actions", "/api/projects/3/model-versions/"])
def test_killed_half_way_the_next_run_goes_on_and_none_is_accepted_twice(loop, path, monkeypatch):
    monkeypatch.setattr(accepting, "CHUNK", 2)
    free = list(loop.project.tasks)
    answers = iter([None])  # the first is answered as ever

    method = "POST" if "actions" in path else "DELETE"
    loop.label_studio.on[method, path] = lambda: next(answers, Response(status=400))
    with pytest.raises(LabelStudioError):
        accepting.write(loop.resources.label_studio, 3, {task: choice(3) for task in free[:6]})
    del loop.label_studio.on[method, path]
    done = kdals(loop)
    assert 0 < len(done) < 6
    assert VERSION in loop.project.versions()
    left = [task for task in free[:6] if task not in done]
    assert accepting.write(loop.resources.label_studio, 3, {task: choice(3) for task in left}) == len(left)
    assert kdals(loop) == free[:6]
    assert all(len(loop.project.tasks[task]["annotations"]) == 1 for task in free[:6])
    assert VERSION not in loop.project.versions()


def test_the_mark_alone_makes_no_annotation_kdals():
    region = marked({**choice(3)[0], "meta": {"text": ["97% sure"]}})
    assert region["meta"]["text"] == ["accepted by kdal, not seen by anybody", "97% sure"]
    ours = {"id": 1, "result": [region], "updated_by": None, "lead_time": None, "ground_truth": False}
    assert is_accepted(ours)
    for touched in ({"updated_by": 4}, {"lead_time": 3.2}, {"ground_truth": True}, {"result": choice(3)}):
        assert not is_accepted(ours | touched)
    assert only_accepted({"annotations": [ours, {**ours, "was_cancelled": True, "result": []}]})
    assert not only_accepted({"annotations": [ours, ours | {"updated_by": 4}]})
    assert not only_accepted({"annotations": []})


def test_only_one_accepts_at_a_time(loop):
    settings = loop.resources.settings
    with alone(settings, 3), pytest.raises(ConfigError, match="another `kdal accept`"), alone(settings, 3):
        pass


def test_where_no_model_serves_there_is_nothing_to_accept(loop):
    with pytest.raises(ConfigError, match="no model serves yet"):
        sure_suggestions(loop.resources, 3, 0.9, 0.05)
    with pytest.raises(ConfigError, match="not connected"):
        sure_suggestions(loop.resources, 99, 0.9, 0.05)


def test_sure_suggestions_stand_on_labels_drawn_at_random_and_are_found_again(photo_loop):
    loop = photo_loop
    loop.look()
    loop.wait_open(0)
    label(loop, 6)
    loop.wait_open(1)
    explored = set(RoundStore(loop.resources.assets, loop.row.uid, 0).order().explored)
    sure = sure_suggestions(loop.resources, 3, 0.6, 0.3)
    assert sure.found.labels == 3 == len(explored & {t for t, r in loop.project.tasks.items() if r["annotations"]})
    assert sure.found.threshold is not None, sure.found.sentence
    assert sure.results
    assert sure_suggestions(loop.resources, 3, 0.99, 0.05).found.threshold is None

    # A few are written, as if it was killed then: the same ones are found, less those that are written.
    some = dict(list(sure.results.items())[:2])
    loop.resources.storage.merge_round(3, 1, facts=sure.as_fact())
    accepting.write(loop.resources.label_studio, 3, some)
    again = sure_suggestions(loop.resources, 3, 0.6, 0.3)
    assert again.found == sure.found
    assert again.already == 2
    assert again.results.keys() == sure.results.keys() - some.keys()
    accepting.write(loop.resources.label_studio, 3, again.results)
    assert sure_suggestions(loop.resources, 3, 0.6, 0.3).results == {}

    # A later round's promise does not stand on labels drawn before the easy ones were taken out.
    loop.event("START_TRAINING")
    second = loop.wait_open(2)
    assert second.facts["labels"] == 6
    assert sure_suggestions(loop.resources, 3, 0.6, 0.3).found.labels == 0

    assert accepting.take_back(loop.resources.label_studio, 3) == len(sure.results)
    forget(loop.resources, 3)
    assert not any(FACT in row.facts for row in loop.rounds)
    assert sure_suggestions(loop.resources, 3, 0.6, 0.3).found.labels == 3
