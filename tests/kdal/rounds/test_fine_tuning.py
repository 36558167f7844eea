"""Rounds that train the student whole: one in which it wins over its head, and one in which it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kdal.rounds import fine_tuning, gate, heads
from kdal.rounds.features import RoundImages
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import RoundStore
from kdal_core.models import FrozenClassifier, TunedClassifier
from kdal_core.training import Head, HeadPool, HeadTrio, infer
from tests.kdal.rounds.test_feature_rounds import PHOTOS, answer, crop, stored

LABELS, PICTURES = 20, 24
POLICY = {
    "train": "full",
    "student": "mobilenet_v2",
    "teacher": "mobilenet_v2",
    "image_size": 160,
    "budget": LABELS,
    "holdout": 0.5,
    "seed": 17,
    "epochs": 4,
    "lr": 0.01,
    "batch_size": 8,
}


class OneSided(HeadPool):
    """Heads of which S-KD's says the same of every image."""

    def fit(self, *arguments) -> HeadTrio:
        trio = super().fit(*arguments)
        blank = Head(np.zeros_like(trio.distilled.weight), np.array([0.1, 0.0], dtype=np.float32))
        return replace(trio, distilled=blank)


@pytest.fixture(scope="module")
def pictures() -> list[str]:
    return [crop(i % 2, i) for i in range(PICTURES)]


@pytest.fixture
def labelled_loop(make_loop, pictures, monkeypatch):
    """A project with 20 labels of 24; ten of them are held out, seven of which say "flower"."""
    monkeypatch.setattr(fine_tuning, "LABELS", 2)
    loop = make_loop(computes=True, config=PHOTOS, pictures=pictures, **POLICY)
    loop.look()
    loop.wait_open(0)
    for task in sorted(loop.project.tasks)[:LABELS]:
        loop.label_studio.annotate(loop.project, task, answer(task))
        loop.event("ANNOTATION_CREATED")
    return loop


def shard(store: RoundStore) -> tuple[Snapshot, dict]:
    return Snapshot.load(store), store.read_shard(0)


def test_a_student_that_wins_over_its_head_serves_and_all_that_follows_is_its_own(labelled_loop, monkeypatch):
    monkeypatch.setattr(heads, "HeadPool", OneSided)
    monkeypatch.setattr(fine_tuning, "HELD_OUT", 5)  # the ten held-out labels decide alone
    done = labelled_loop.wait_open(1, looks=2400)
    assert done.facts["fine_tuning"].startswith("the whole network serves"), done.facts
    assert done.facts["fine_tuned_score"] > done.facts["head_score"]
    assert (done.facts["student"], done.facts["promoted"]) == ("tuned/mobilenet_v2", True)
    assert labelled_loop.row.serving_round == 1

    store = stored(labelled_loop, 1)
    resources, (snapshot, arrays) = labelled_loop.resources, shard(store)
    network, spec = store.load_model()
    assert isinstance(network, TunedClassifier)
    refs = {ref.task_id: ref for ref in snapshot.pool}
    images = resources.images.load([refs[t] for t in arrays["tasks"].tolist()], spec.image_size).images
    seen = infer(snapshot.format.task(), network, images)
    np.testing.assert_allclose(arrays["predictions"], seen.predictions, atol=1e-5)
    np.testing.assert_array_equal(arrays["predictions"], arrays["probabilities"])
    np.testing.assert_allclose(arrays["features"], seen.features, atol=0.01)  # kept as float16
    # The order is made of its features, and of the teacher's as they were.
    found = heads.spaces(resources, store, snapshot, arrays["tasks"], arrays["features"])
    as_frozen = heads.spaces(resources, store, snapshot, arrays["tasks"])
    assert not np.allclose(found["features"], as_frozen["features"], atol=0.01)
    np.testing.assert_array_equal(found["teacher_features"], as_frozen["teacher_features"])
    assert found["labelled_probabilities"].shape == (LABELS, 2)
    assert sorted(labelled_loop.project.queue()) == sorted(arrays["tasks"].tolist())
    # Later rounds, which may compare with it, hear the same; and nothing that its head said speaks for it.
    later = heads.predictions_of(resources, store, snapshot, RoundImages.load(store, snapshot, arrays["tasks"]), refs)
    np.testing.assert_allclose(later, seen.predictions, atol=1e-5)
    assert len(store.read_arrays(gate.OUT_OF_FOLD)["tasks"]) == 0


def test_a_student_that_does_not_win_over_its_head_does_not_serve(labelled_loop):
    done = labelled_loop.wait_open(1, looks=2400)
    assert done.facts["fine_tuning"].startswith("the last layer alone serves"), done.facts
    assert done.facts["student"] == "frozen/mobilenet_v2"
    store = stored(labelled_loop, 1)
    snapshot, arrays = shard(store)
    assert isinstance(store.load_model()[0], FrozenClassifier)
    assert "features" not in arrays
    assert heads.fine_tuned(store, snapshot) is None
    assert len(store.read_arrays(gate.OUT_OF_FOLD)["tasks"]) == len(snapshot.training)
    # Few labels are held out: all others were judged too, by students that had learnt the other half.
    assert f"on {LABELS} labels not shown to them" in done.facts["fine_tuning"]


def test_with_few_labels_it_is_not_tried_and_the_round_says_why(make_loop, pictures):
    loop = make_loop(computes=True, config=PHOTOS, pictures=pictures[:8], **POLICY | {"budget": 4, "holdout": 0.0})
    loop.look()
    loop.wait_open(0)
    for task in sorted(loop.project.tasks)[:4]:
        loop.label_studio.annotate(loop.project, task, answer(task))
        loop.event("ANNOTATION_CREATED")
    done = loop.wait_open(1)
    assert done.facts["student"] == "frozen/mobilenet_v2"
    assert "4 labels to train on are too few" in done.facts["fine_tuning"]


def test_how_long_it_takes_is_said_in_words():
    assert fine_tuning.estimate(6.0, 0.01, "cpu") == (
        'under way on the CPU, about 10 minutes in all; "train": "heads" does without it'
    )
    assert fine_tuning.estimate(0.3, 0.01, "cuda") == "under way on a GPU, about 30 seconds in all"
