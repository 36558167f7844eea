"""Rounds on the features of pretrained backbones, for crops of two photos that scikit-learn carries."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images

from kdal.backbones import RoundBackbones
from kdal.rounds import features, heads
from kdal.rounds.features import RoundImages
from kdal.rounds.map import load_map
from kdal.rounds.queue import QueueFile
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import RoundStore
from kdal.storage.features import FeatureStore
from kdal.storage.tables import ImageFeatures
from kdal_core.models import Backbone, FrozenClassifier

PHOTOS = (
    '<View><Image name="image" value="$image"/><Choices name="what" toName="image">'
    '<Choice value="temple"/><Choice value="flower"/></Choices></View>'
)


def crop(kind: int, number: int) -> str:
    """A crop of one of the photos as a data: address: kind 0 is the temple, 1 the flower."""
    rng = np.random.default_rng(100 * kind + number)
    photo = load_sample_images().images[kind]
    y, x = rng.integers(0, photo.shape[0] - 200), rng.integers(0, photo.shape[1] - 260)
    file = io.BytesIO()
    Image.fromarray(photo[y : y + 200, x : x + 260]).resize((104, 80)).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def pictures() -> list[str]:
    return [crop(i % 2, i) for i in range(16)]


@pytest.fixture
def photo_loop(make_loop, pictures):
    return make_loop(
        computes=True,
        config=PHOTOS,
        pictures=pictures,
        budget=4,
        student=None,
        teacher=None,
        holdout=0.0,
        epochs=None,
        batch_size=None,
    )


def answer(task: int) -> list[dict]:
    return [
        {
            "from_name": "what",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": ["flower" if task % 2 == 0 else "temple"]},
        }
    ]


def label(loop, count: int) -> list[int]:
    chosen = loop.project.queue()[:count]
    for task in chosen:
        loop.label_studio.annotate(loop.project, task, answer(task))
        loop.event("ANNOTATION_CREATED")
    return chosen


def stored(loop, number: int) -> RoundStore:
    return RoundStore(loop.resources.assets, loop.row.uid, number)


def count_rows(loop) -> int:
    with loop.resources.storage.session() as session:
        return session.query(ImageFeatures).count()


def looked_at(monkeypatch) -> list[int]:
    """How many images backbones look at, each time."""
    seen: list[int] = []
    original = Backbone.features

    def features_(self, images):
        seen.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Backbone, "features", features_)
    return seen


def test_photos_are_told_apart_after_one_batch_and_each_is_looked_at_once(photo_loop, monkeypatch):
    seen = looked_at(monkeypatch)
    photo_loop.look()
    first = photo_loop.wait_open(0)
    assert "mobilenet_v2" in first.facts["backbones"]
    assert "package" in first.facts["backbones"]
    assert sum(seen) == 3 * 16
    labelled = label(photo_loop, 4)
    second = photo_loop.wait_open(1)
    assert second.facts["trains"], second.facts
    assert (second.facts["student"], second.facts["trained_on"]) == ("frozen/mobilenet_v2", 4)
    assert sum(seen) == 3 * 16  # nothing was computed again
    assert photo_loop.row.serving_round == 1
    assert sorted(photo_loop.project.queue() + labelled) == sorted(photo_loop.project.tasks)
    found = {
        p["task"]: p["result"][0]["value"]["choices"][0]
        for p in photo_loop.project.predictions
        if p["model_version"] == photo_loop.project.model_version and p["result"]
    }
    right = [choice == answer(task)[0]["value"]["choices"][0] for task, choice in found.items()]
    assert len(right) >= 6
    assert np.mean(right) > 0.9


def test_a_round_keeps_why_its_first_tasks_come_first_and_what_it_suggests_on_them(photo_loop):
    photo_loop.look()
    photo_loop.wait_open(0)
    cold = QueueFile.load(stored(photo_loop, 0))
    assert list(cold.entries) == stored(photo_loop, 0).order().tasks
    assert {entry.why for entry in cold.entries.values()} == {"cold"}  # 10% of 4 labels are none at random
    labelled = label(photo_loop, 4)
    photo_loop.wait_open(1)
    found = QueueFile.load(stored(photo_loop, 1))
    assert found.strategy == "kd_gap"
    assert list(found.entries) == stored(photo_loop, 1).order().tasks
    assert not set(labelled) & found.entries.keys()
    assert {entry.why for entry in found.entries.values()} <= {"gap", "far"}
    assert all(entry.gap is not None and entry.far is not None for entry in found.entries.values())
    pushed = {
        p["task"]: [region["value"]["choices"] for region in p["result"]]
        for p in photo_loop.project.predictions
        if p["model_version"] == photo_loop.project.model_version and p["result"]
    }
    kept = {task: [region["value"]["choices"] for region in regions] for task, regions in found.regions.items()}
    assert kept == pushed
    assert QueueFile.load(stored(photo_loop, 7)) == QueueFile()
    kinds = {point.task: point.kind for point in load_map(stored(photo_loop, 1))}
    assert sorted(kinds) == sorted(photo_loop.project.tasks)
    assert {task for task, kind in kinds.items() if kind == "labelled"} == set(labelled)
    assert {task for task, kind in kinds.items() if kind == "batch"} == set(stored(photo_loop, 1).order().tasks[:4])


def test_the_first_batch_covers_what_the_photos_show(photo_loop):
    photo_loop.look()
    photo_loop.wait_open(0)
    kinds = {task % 2 for task in photo_loop.project.queue()[:4]}
    assert kinds == {0, 1}


def test_what_serves_is_one_network_that_agrees_with_the_heads(photo_loop):
    photo_loop.look()
    photo_loop.wait_open(0)
    label(photo_loop, 4)
    photo_loop.wait_open(1)
    store = stored(photo_loop, 1)
    network, spec = store.load_model()
    assert isinstance(network, FrozenClassifier)
    assert spec.architecture == "frozen/mobilenet_v2"
    snapshot = Snapshot.load(store)
    arrays = store.read_shard(0)
    refs = {ref.task_id: ref for ref in snapshot.pool}
    images = photo_loop.resources.images.load([refs[t] for t in arrays["tasks"].tolist()], spec.image_size).images
    task = snapshot.format.task()
    from kdal_core.training import infer

    told = infer(task, network, images).predictions
    np.testing.assert_allclose(told, arrays["probabilities"], atol=0.02)  # features are kept as float16


def test_a_second_project_with_the_same_photos_computes_nothing(photo_loop, monkeypatch):
    photo_loop.look()
    photo_loop.wait_open(0)
    rows = count_rows(photo_loop)
    seen = looked_at(monkeypatch)
    store = stored(photo_loop, 0)
    snapshot = Snapshot.load(store)
    from dataclasses import replace

    from kdal.rounds.progress import StepReport

    # The same files under other addresses.
    renamed = replace(
        snapshot, pool=[replace(ref, uri=ref.uri.replace("image/jpeg", "image/jpg")) for ref in snapshot.pool]
    )
    features.compute(photo_loop.resources, RoundStore(photo_loop.resources.assets, "9.1", 0), renamed, 0, StepReport())
    assert (sum(seen), count_rows(photo_loop)) == (0, rows)


def test_features_that_were_lost_or_damaged_are_computed_again(photo_loop, monkeypatch):
    photo_loop.look()
    photo_loop.wait_open(0)
    root = photo_loop.resources.settings.assets_root
    from pathlib import Path

    files = sorted(Path(root, "features").rglob("*.npz"))
    assert len(files) == 3
    files[0].unlink()
    files[1].write_bytes(b"damaged")
    label(photo_loop, 4)
    second = photo_loop.wait_open(1)
    assert second.facts["trains"]
    assert second.restarts == 0
    assert count_rows(photo_loop) == 3 * 16


def test_the_backbones_of_a_round_are_those_of_the_one_before_until_the_policy_asks_for_others(photo_loop, monkeypatch):
    photo_loop.look()
    photo_loop.wait_open(0)
    first = RoundBackbones.from_json(stored(photo_loop, 0).read_json("backbones.json"))
    monkeypatch.setattr("kdal_core.models.weights.PACKAGED", ())  # nothing could be found any more
    label(photo_loop, 4)
    photo_loop.wait_open(1)
    assert RoundBackbones.from_json(stored(photo_loop, 1).read_json("backbones.json")) == first


def test_another_worker_gets_the_weights_from_the_assets(photo_loop, tmp_path):
    photo_loop.look()
    photo_loop.wait_open(0)
    told = RoundBackbones.from_json(stored(photo_loop, 0).read_json("backbones.json")).student
    from kdal.backbones import Backbones

    settings = photo_loop.resources.settings.model_copy(update={"home": tmp_path / "elsewhere"})
    found = Backbones(settings, photo_loop.resources.assets).load(json.loads(json.dumps(told)))
    assert found.digest == photo_loop.resources.backbones.load(told).digest


def test_without_weights_networks_are_trained_from_nothing_and_the_round_says_why(make_loop, pictures, monkeypatch):
    monkeypatch.setattr("kdal_core.models.weights.PACKAGED", ())
    loop = make_loop(
        computes=True,
        config=PHOTOS,
        pictures=pictures[:6],
        budget=2,
        image_size=16,
        student=None,
        teacher=None,
        train="heads",
        epochs=1,
        holdout=0.0,
    )
    loop.look()
    first = loop.wait_open(0)
    assert "There are no pretrained weights" in first.facts["why_no_backbones"]


def test_weights_of_another_network_leave_small_networks_that_take_minutes(make_loop, pictures, tmp_path):
    save_file({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    loop = make_loop(
        computes=True,
        config=PHOTOS,
        pictures=pictures,
        budget=6,
        student="mobilenet_v2",
        teacher="mobilenet_v2+tf_efficientnet_lite0",
        weights=str(tmp_path / "other.safetensors"),
        holdout=0.0,
        epochs=1,
    )
    loop.look()
    first = loop.wait_open(0)
    assert "do not fit 'mobilenet_v2'" in first.facts["why_no_backbones"]
    snapshot = Snapshot.load(stored(loop, 0))
    assert max(snapshot.image_size) == 64
    for task in sorted(loop.project.tasks)[:6]:
        loop.label_studio.annotate(loop.project, task, answer(task))
        loop.event("ANNOTATION_CREATED")
    second = loop.wait_open(1)
    assert (second.facts["trains"], second.facts["student"]) == (True, "small_cnn")


def test_a_photo_that_cannot_be_read_is_left_out_and_named(make_loop, pictures):
    loop = make_loop(
        computes=True,
        config=PHOTOS,
        pictures=[*pictures[:6], "data:image/png;base64,AAAA"],
        budget=2,
        student=None,
        teacher=None,
        holdout=0.0,
        epochs=None,
        batch_size=None,
    )
    loop.look()
    loop.wait_open(0)
    assert loop.project.queue()[-1] == 3007
    images = RoundImages.load(stored(loop, 0), Snapshot.load(stored(loop, 0)))
    assert 3007 not in images.tasks
    assert "decoded" in images.reason


def test_held_out_photos_are_not_looked_at_by_the_heads(make_loop, pictures):
    loop = make_loop(
        computes=True,
        config=PHOTOS,
        pictures=pictures,
        budget=8,
        student=None,
        teacher=None,
        holdout=0.5,
        epochs=None,
        batch_size=None,
    )
    loop.look()
    loop.wait_open(0)
    label(loop, 8)
    second = loop.wait_open(1)
    store = stored(loop, 1)
    held_out = {item.ref.task_id for item in Snapshot.load(store).held_out}
    if second.facts["trains"]:
        assert held_out
        assert held_out.isdisjoint(store.read_arrays(heads.HEADS)["tasks"].tolist())


def test_a_store_forgets_nothing_but_what_is_gone(photo_loop):
    photo_loop.look()
    photo_loop.wait_open(0)
    resources, snapshot = photo_loop.resources, Snapshot.load(stored(photo_loop, 0))
    images = RoundImages.load(stored(photo_loop, 0), snapshot)
    found = images.features(resources, snapshot, snapshot.backbones.student)
    assert (found.shape, found.dtype) == ((16, 1280), np.float16)
    key = features.features_key(resources.backbones.load(snapshot.backbones.student), snapshot.image_size)
    store = FeatureStore(resources.storage, resources.assets)
    np.testing.assert_array_equal(store.read(key, [row.tobytes() for row in images.contents[::-1]]), found[::-1])
