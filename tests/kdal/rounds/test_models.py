"""A project's models: listed, rolled back to, promoted, pruned; on rounds computed for real."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from kdal.rounds import models
from kdal.rounds.chosen import order_of
from kdal.rounds.gate import Unseen, verdict
from kdal.rounds.lineage import CHOSEN
from kdal.rounds.store import Order, RoundStore
from kdal.storage.tables import now
from kdal_core.errors import AssetError, ConfigError
from kdal_core.tasks import get_task
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.rounds.conftest import DIGITS
from tests.kdal.rounds.states import open_round
from tests.kdal.rounds.test_feature_rounds import PHOTOS, crop
from tests.kdal.rounds.test_feature_rounds import label as label_photos

PUSH = ("POST", "/api/projects/3/import/predictions")


def store(loop, number):
    return RoundStore(loop.resources.assets, loop.row.uid, number)


def trained_loop(make_loop, rounds=2, **fields):
    """A project of digits whose rounds 1 to so many have trained a model, the last of which serves."""
    loop = make_loop(computes=True, images=24, suggest_above=0.0, **fields)
    loop.look()
    loop.wait_open(0)
    for number in range(1, rounds + 1):
        loop.label(3)
        loop.wait_open(number)
    assert loop.row.serving_round == rounds
    return loop


def predicted(loop, number, tasks):
    """Task id -> the digit that a round's model reads, without kdal's loader and formats."""
    network, _ = store(loop, number).load_model()
    pixels = torch.from_numpy((DIGITS.images * 15).astype(np.uint8).astype(np.float32) / 255)
    with torch.no_grad():
        found = network(pixels[[(task - 1) % 1000 for task in tasks], None].expand(-1, 3, -1, -1)).argmax(1)
    return dict(zip(tasks, map(str, found.tolist()), strict=True))


def suggested(loop):
    """Task id -> the digit that Label Studio suggests."""
    return {
        p["task"]: p["result"][0]["value"]["choices"][0]
        for p in loop.project.predictions
        if p["model_version"] == loop.project.model_version
    }


def test_models_are_listed_with_what_they_were_made_from_and_which_one_serves(make_loop):
    loop = trained_loop(make_loop)
    first, second = models.versions(loop.resources.storage, 3)
    assert (first.number, first.name, first.parent, first.serves) == (1, "kdal-r1", None, False)
    assert (second.number, second.parent, second.serves, second.chosen) == (2, 1, True, False)
    assert (first.labels, second.labels, second.trained_on, second.pool) == (3, 6, 6, 18)
    assert second.code.startswith("kdal ")
    assert second.seed == 0
    assert (second.student, second.teacher, second.metric) == ("tiny_cnn", "mid_cnn", "accuracy")
    assert second.moment == loop.resources.assets.read_json(store(loop, 2).key("header.json"))["moment"]
    assert set(second.weights) == {"student.safetensors", "teacher.safetensors", "distilled.safetensors"}
    assert second.weights["distilled.safetensors"] == store(loop, 2).digest("distilled.safetensors")
    assert models.version(loop.resources.storage, 3, 1) == first
    with pytest.raises(ConfigError, match="round 0 has no model; rounds that have one: 1, 2"):
        models.version(loop.resources.storage, 3, 0)
    with pytest.raises(ConfigError, match="does not know project 9; projects that it knows: 3"):
        models.versions(loop.resources.storage, 9)


def test_a_rollback_brings_the_order_and_the_suggestions_of_the_model_before_and_goes_on_counting(make_loop):
    loop = trained_loop(make_loop)
    labelled = loop.label(2)
    loop.wait(lambda: loop.rounds[-1].counted == 2, "labels are not counted")
    assert models.rollback(loop.resources, 3) == models.Choice(round=3, model=1)
    opened = loop.wait_open(3)
    assert (loop.row.serving_round, loop.row.version, loop.project.model_version) == (1, "kdal-r3", "kdal-r3")
    assert loop.project.versions() == {"kdal-r3": 16}
    waiting = [t for t, row in loop.project.tasks.items() if not row["annotations"]]
    own = [task for task in store(loop, 1).order().tasks if task in waiting]
    assert loop.project.queue() == own
    assert suggested(loop) == predicted(loop, 1, waiting) != predicted(loop, 2, waiting)
    assert set(labelled).isdisjoint(own)
    serving = models.version(loop.resources.storage, 3, 1)
    assert (serving.serves, serving.chosen) == (True, True)
    # No look undoes it, and the batch that had begun goes on.
    loop.look(3600)
    loop.wait(lambda: loop.rounds[-1].counted == 2, "labels of the batch that had begun are not counted")
    assert (len(loop.rounds), loop.row.serving_round, opened.budget) == (4, 1, 3)


def test_a_choice_holds_until_the_owner_promotes_another_model(make_loop):
    loop = trained_loop(make_loop)
    models.rollback(loop.resources, 3)
    loop.wait_open(3)
    loop.label(3)
    trained = loop.wait_open(4)
    assert (trained.facts["promoted"], loop.row.serving_round) == (False, 1)
    assert "kdal-r1 goes on serving: you chose it" in trained.facts["verdict"]
    assert suggested(loop) == predicted(loop, 1, list(suggested(loop)))
    models.promote(loop.resources, 3, 4)
    loop.wait_open(5)
    assert (loop.row.serving_round, loop.project.model_version) == (4, "kdal-r5")
    assert suggested(loop) == predicted(loop, 4, list(suggested(loop)))
    assert [one.parent for one in models.versions(loop.resources.storage, 3)] == [None, 1, 1]
    assert models.rollback(loop.resources, 3).model == 1


def test_a_rollback_among_rounds_on_features_needs_no_image_again(make_loop):
    pictures = [crop(i % 2, i) for i in range(16)]
    policy = dict.fromkeys(("student", "teacher", "epochs", "batch_size"))
    loop = make_loop(
        computes=True, config=PHOTOS, pictures=pictures, budget=4, holdout=0.0, suggest_above=0.0, **policy
    )
    loop.look()
    loop.wait_open(0, looks=3000)  # backbones are loaded
    for number in (1, 2):
        label_photos(loop, 4)
        loop.wait_open(number)
    if loop.row.serving_round == 1:
        models.promote(loop.resources, 3, 2)
        loop.wait_open(3)
    loop.project.tasks[next(iter(suggested(loop)))]["data"] = {"image": pictures[0]}
    last = models.rollback(loop.resources, 3).round
    loop.wait_open(last)
    assert loop.row.serving_round == 1
    expected = store(loop, 1).read_shard(0)
    of_model = dict(zip(expected["tasks"].tolist(), expected["predictions"].argmax(1), strict=True))
    found = suggested(loop)
    assert len(found) == 8
    changed = next(iter(found))
    same = {task: digit for task, digit in found.items() if task != changed}
    assert all(["temple", "flower"][of_model[task]] == name for task, name in same.items())


def test_a_choice_is_refused_while_a_round_computes_or_waits_to_be_tried_again(make_loop):
    loop = trained_loop(make_loop)
    held = threading.Event()
    loop.label_studio.on[PUSH] = lambda: held.wait(60) and None
    loop.label(3)
    loop.wait(lambda: loop.rounds[-1].step == "publish", "the round does not publish")
    with pytest.raises(ConfigError, match=r"round 3 is being computed.*kdal cancel --project 3"):
        models.rollback(loop.resources, 3)
    held.set()
    loop.wait_open(3)
    assert models.rollback(loop.resources, 3) == models.Choice(4, 2)
    with pytest.raises(ConfigError, match="round 4 is being computed"):
        models.promote(loop.resources, 3, 1)
    loop.wait_open(4)
    assert loop.row.serving_round == 2


def test_a_choice_survives_that_its_round_is_begun_again(make_loop):
    loop = trained_loop(make_loop)
    storage = loop.resources.storage
    models.rollback(loop.resources, 3)
    begun = storage.restart_round(3, 3)
    assert begun.facts[CHOSEN] == 1
    loop.wait_open(3)
    assert loop.row.serving_round == 1


def test_a_choice_that_is_cancelled_changes_nothing(make_loop):
    loop = trained_loop(make_loop)
    held = threading.Event()
    loop.label_studio.on[PUSH] = lambda: held.wait(60) and None
    models.rollback(loop.resources, 3)
    loop.wait(lambda: loop.rounds[-1].step == "publish", "the round does not publish")
    loop.resources.storage.cancel_round(3)
    held.set()
    loop.event("ROUND_CANCELLED")
    loop.look()
    loop.wait(lambda: loop.rounds[-1].state == "cancelled", "the round is not cancelled")
    assert (loop.row.serving_round, loop.row.version, loop.project.model_version) == (2, "kdal-r2", "kdal-r2")


@pytest.fixture
def served(loop, trained):
    """Rounds 0 to 3, not computed: each has a model, that of round 3 serves, and that of 2 was refused."""
    for number in range(4):
        open_round(loop, number)
        loop.resources.assets.write(store(loop, number).key("distilled.safetensors"), trained.checkpoint)
        facts = {"promoted": number != 2, "weights": {}, "labels": number}
        loop.resources.storage.merge_round(3, number, facts=facts)
    return loop


def test_what_cannot_serve_is_refused_in_words(served):
    resources = served.resources
    with pytest.raises(ConfigError, match="kdal-r3 serves already"):
        models.promote(resources, 3, 3)
    resources.storage.merge_round(3, 1, facts={"weights": {"distilled.safetensors": "0" * 64}})
    with pytest.raises(AssetError, match="is not what round 1 wrote"):
        models.promote(resources, 3, 1)
    resources.assets.delete(store(served, 2).key("distilled.safetensors"))
    with pytest.raises(AssetError, match="cannot read"):
        models.promote(resources, 3, 2)
    other = DIGITS_CONFIG.replace('value="3"', 'value="three"')
    resources.storage.update_project(3, label_config=other)
    with pytest.raises(ConfigError, match=r"kdal-r0 predicts classification of 0, 1, 2, 3.*labelled with.*three"):
        models.promote(resources, 3, 0)
    resources.storage.update_project(3, disconnected_at=now())
    with pytest.raises(ConfigError, match="kdal connect --project 3"):
        models.promote(resources, 3, 0)
    assert [row.number for row in served.rounds] == [0, 1, 2, 3]


def test_a_project_without_a_model_before_has_nothing_to_roll_back_to(served):
    storage = served.resources.storage
    storage.update_project(3, serving_round=0)
    with pytest.raises(ConfigError, match="kdal-r0 is the first model that served"):
        models.rollback(served.resources, 3)
    storage.update_project(3, serving_round=None)
    with pytest.raises(ConfigError, match="no model serves yet"):
        models.rollback(served.resources, 3)


def test_pruning_keeps_what_serves_and_what_a_rollback_needs(served):
    resources = served.resources
    parent = models.version(resources.storage, 3, 3).parent
    assert parent == 1
    assert models.prune(resources, 3, keep=1) == [0, 2]
    assert [one.kept for one in models.versions(resources.storage, 3)] == [False, True, False, True]
    assert not resources.assets.exists(store(served, 0).key("distilled.safetensors"))
    assert store(served, 0).order().tasks
    with pytest.raises(ConfigError, match="kdal-r0 were deleted by `kdal models prune`"):
        models.promote(resources, 3, 0)
    assert models.prune(resources, 3, keep=0) == []
    assert models.rollback(resources, 3) == models.Choice(4, 1)
    # While that round is not open: what serves, and what will.
    assert models.prune(resources, 3, keep=0) == []
    with pytest.raises(ConfigError, match="keep -1"):
        models.prune(resources, 3, keep=-1)


def test_each_round_deletes_models_beyond_those_that_are_kept(make_loop):
    loop = trained_loop(make_loop, rounds=3, settings={"keep_models": 1})
    assert [one.kept for one in models.versions(loop.resources.storage, 3)] == [False, True, True]
    models.rollback(loop.resources, 3)
    loop.wait_open(4)
    # 3 is the newest, 2 serves, and a model that is gone cannot serve again.
    assert [one.kept for one in models.versions(loop.resources.storage, 3)] == [False, True, True]
    with pytest.raises(ConfigError, match="kdal-r1 were deleted"):
        models.rollback(loop.resources, 3)


def test_of_two_choices_at_once_one_begins_a_round(served):
    outcomes = []

    def choose(number):
        try:
            outcomes.append(models.promote(served.resources, 3, number).model)
        except ConfigError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=choose, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [said for said in outcomes if isinstance(said, str)]
    assert len(outcomes) == 2
    assert len(refused) == 1
    assert "round 4 is being computed" in refused[0]
    assert [row.facts[CHOSEN] for row in served.rounds if CHOSEN in row.facts] == [
        said for said in outcomes if isinstance(said, int)
    ]


def test_tasks_that_the_models_round_did_not_have_follow_its_order(served):
    from kdal.rounds.snapshot import Snapshot

    snapshot = Snapshot.load(store(served, 0))
    tasks = [ref.task_id for ref in snapshot.pool]
    own = Order([tasks[4], tasks[1], 7, tasks[0]], budget=2, selected=3, explored=[tasks[1], 7])
    last = Order([tasks[5], tasks[4], tasks[2]], budget=2, selected=2, explored=[tasks[5]])
    found = order_of(snapshot, own, last, seed=1)
    assert found.tasks[:3] == [tasks[4], tasks[1], tasks[5]]
    assert sorted(found.tasks) == sorted(tasks)
    assert (found.selected, found.budget, found.explored) == (len(tasks), 3, [tasks[1], tasks[5]])
    assert found == order_of(snapshot, own, last, seed=1)
    assert order_of(snapshot, None, None, seed=1).tasks != sorted(tasks)


def test_a_chosen_model_gives_way_to_a_higher_score_alone():
    task = get_task("classification", ("a", "b"))
    targets = dict.fromkeys(range(10), 0)

    def unseen(right):
        rows = {i: np.array([0.9, 0.1] if i < right else [0.1, 0.9], dtype=np.float32) for i in range(10)}
        return Unseen(task, rows, {})

    assert verdict(unseen(7), unseen(8), targets, "kdal-r1")["promoted"]
    for right, promoted in ((7, False), (8, False), (9, True)):
        said = verdict(unseen(right), unseen(8), targets, "kdal-r1", chosen=True)
        assert said["promoted"] is promoted
        assert "you chose" in said["verdict"] or "which you chose" in said["verdict"]
