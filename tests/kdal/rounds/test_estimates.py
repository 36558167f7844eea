"""What rounds write down of how good their models are, what suggestions brought, and which labels look wrong."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from kdal.cli.status import table
from kdal.rounds.estimates import at_random_alone, project_estimates
from kdal.rounds.estimates.kept import FILE, Kept
from kdal.rounds.status import status
from kdal.rounds.store import RoundStore
from kdal_core.errors import ConfigError
from tests.kdal.rounds.test_feature_rounds import PHOTOS, answer, crop

WRONG = {"temple": "flower", "flower": "temple"}


@pytest.fixture
def photo_loop(make_loop):
    """Photos of two kinds, half of each batch drawn at random, everything suggested."""
    return make_loop(
        computes=True,
        config=PHOTOS,
        pictures=[crop(i % 2, i) for i in range(24)],
        budget=6,
        explore=0.5,
        suggest_above=0.0,
        student="mobilenet_v2",
        teacher="mobilenet_v2",
        holdout=0.0,
        epochs=None,
        batch_size=None,
    )


def stored(loop, number: int) -> RoundStore:
    return RoundStore(loop.resources.assets, loop.row.uid, number)


def label(loop, count: int, wrong: int = 0) -> list[int]:
    """Label the next tasks, the first ones wrong, at 10 seconds each."""
    chosen = loop.project.queue()[:count]
    for place, task in enumerate(chosen):
        (region,) = answer(task)
        name = region["value"]["choices"][0]
        region["value"]["choices"] = [WRONG[name] if place < wrong else name]
        loop.label_studio.annotate(loop.project, task, [region], lead_time=10.0 + place, completed_by=1)
        loop.event("ANNOTATION_CREATED")
    return chosen


def status_text(loop) -> str:
    console = Console(file=io.StringIO(), width=300)
    console.print(table(status(loop.resources.storage, loop.resources.assets)))
    return " ".join(console.file.getvalue().split())


def told(loop):
    found = project_estimates(loop.resources, 3)
    json.dumps(found, allow_nan=False)
    return found


def test_rounds_tell_of_models_by_the_labels_drawn_at_random_alone(photo_loop):
    loop = photo_loop
    assert told(loop)["round"] is None
    loop.look()
    loop.wait_open(0)
    first = told(loop)
    assert (first["round"], first["model"], first["curve"]["points"]) == (0, None, [])
    assert "yet" in first["stopping"]["sentence"] or "not asked" in first["stopping"]["sentence"]

    before = label(loop, 6)
    loop.wait_open(1)
    assert told(loop)["curve"]["points"] == []  # nobody had said anything of these images

    labelled = label(loop, 6)
    loop.wait_open(2)
    found = told(loop)
    explored = set(stored(loop, 1).order().explored)
    (point,) = found["curve"]["points"]
    assert (point["round"], point["labels"], point["images"]) == (1, 6, len(explored & set(labelled)))
    assert point["images"] == 3
    assert found["curve"]["left_out"] == 3
    arrays = stored(loop, 1).read_shard(0)
    said = dict(zip(arrays["tasks"].tolist(), arrays["predictions"].argmax(axis=1).tolist(), strict=True))
    right = [said[task] == (1 if task % 2 == 0 else 0) for task in explored & set(labelled)]
    assert point["value"] == np.mean(right)
    assert point["low"] <= point["value"] <= point["high"]

    assert found["suggestions"]["all"]["unchanged"] == sum(said[t] == (1 if t % 2 == 0 else 0) for t in labelled)
    assert [row["round"] for row in found["suggestions"]["by_round"]] == [1]
    assert found["time"]["told"] is False
    assert found["classes"]["labels"] == 12
    shown = {row["class"]: row["labels"] for row in found["classes"]["rows"]}
    assert shown == {
        "temple": sum(t % 2 == 1 for t in before + labelled),
        "flower": sum(t % 2 == 0 for t in before + labelled),
    }
    assert found["confusion"]["images"] == 12
    assert sum(cell["count"] for cell in found["confusion"]["cells"]) == 12


def test_a_wrong_label_comes_first_among_those_that_look_wrong_and_changes_suggestions(photo_loop):
    loop = photo_loop
    loop.look()
    loop.wait_open(0)
    label(loop, 6)
    loop.wait_open(1)
    (mistake, *_) = label(loop, 6, wrong=1)
    loop.wait_open(2)
    found = told(loop)
    suspect = found["label_errors"]["suspects"][0]
    assert suspect["task"] == mistake
    assert WRONG[suspect["label"]] == suspect["suggested"]
    assert found["label_errors"]["labels"] == 12
    off = [c for c in found["confusion"]["cells"] if c["label"] != c["predicted"]]
    assert mistake in off[0]["tasks"]
    assert found["suggestions"]["all"]["changed"] >= 1

    text = status_text(loop)
    for name in ("curve", "stopping", "suggestions"):
        assert found[name]["sentence"] in text
    if found["label_errors"]["expected"]:
        assert f"{found['label_errors']['sentence']} Tasks {mistake}" in text
    report = status(loop.resources.storage, loop.resources.assets)["projects"][0]
    assert report["estimates"] == found


def test_a_model_of_the_images_drawn_at_random_alone_is_trained_once_it_can_tell_something(make_loop):
    pictures = [crop(i % 2, i) for i in range(24)]
    networks = {"student": "mobilenet_v2", "teacher": "mobilenet_v2", "epochs": None, "batch_size": None}
    loop = make_loop(computes=True, config=PHOTOS, pictures=pictures, budget=4, explore=0.5, holdout=0.0, **networks)
    loop.look()
    loop.wait_open(0)
    for number in range(1, 5):
        labelled = label(loop, 4)
        loop.wait_open(number)
    exists = [loop.resources.assets.exists(stored(loop, n).key(at_random_alone.FILE)) for n in range(5)]
    assert exists == [False, False, False, True, True]  # 6 images drawn at random are more than 4 labels
    explored = set(stored(loop, 3).order().explored)
    shadow = Kept.load(stored(loop, 4)).shadow
    assert [count for count, _ in shadow] == [6] * len(explored & set(labelled))
    saved = told(loop)["labels_saved"]
    assert (saved["told"], saved["images"], saved["random_labels"]) == (False, len(shadow), 6)
    assert saved["more"] == 20 - len(shadow)


def test_advice_follows_the_policy_as_it_is_now(photo_loop):
    loop = photo_loop
    loop.look()
    loop.wait_open(0)
    assert told(loop)["stopping"]["verdict"] == "not asked"
    policy = {**loop.row.policy, "target": 0.9}
    loop.resources.storage.update_project(3, policy=policy)
    advice = told(loop)["stopping"]
    assert (advice["verdict"], advice["target"]) == ("cannot be told yet", 0.9)
    assert "20 images drawn at random" in advice["sentence"]


def test_a_round_opens_though_its_estimates_cannot_be_made(photo_loop, monkeypatch):
    def broken(*_):
        raise RuntimeError("a statement went wrong")

    loop = photo_loop
    monkeypatch.setattr("kdal.rounds.estimates.statements.classes", broken)
    loop.look()
    opened = loop.wait_open(0)
    assert (opened.state, opened.error) == ("open", None)
    assert opened.facts["no_estimates"] == "a statement went wrong"
    monkeypatch.undo()
    loop.event("START_TRAINING")
    loop.wait_open(1)
    assert told(loop)["round"] == 1
    assert "no_estimates" not in loop.rounds[1].facts


def test_a_damaged_file_leaves_those_of_the_round_before(photo_loop):
    loop = photo_loop
    loop.look()
    loop.wait_open(0)
    loop.event("START_TRAINING")
    loop.wait_open(1)
    assert told(loop)["round"] == 1
    loop.resources.assets.write(stored(loop, 1).key(FILE), b"{")
    assert told(loop)["round"] == 0


def test_a_project_that_kdal_does_not_serve_has_none(photo_loop):
    with pytest.raises(ConfigError, match="project 99 is not connected"):
        project_estimates(photo_loop.resources, 99)
