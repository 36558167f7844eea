"""The steps of a round on lanes: what is stored between them, the order by any strategy, the pre-annotations."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdal.demo.examples.road_scenes import render
from kdal.images.refs import ImageRef
from kdal.policy import Policy, usable_strategies
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Labelled, Snapshot
from kdal.rounds.store import DISTILLED, STUDENT, TEACHER, RoundStore
from kdal.rounds.training import promote, train_distilled, train_student_and_teacher
from kdal_core.tasks import Lane, get_task
from kdal_core.tasks.lane import clean_lane
from kdal_core.training import ModelSpec, save_checkpoint
from tests.kdal.conftest import png
from tests.kdal.rounds.steps import PROJECT, assert_refused_when_damaged, order, pre_annotations

UID = "4.1795301030"
SIZE = (36, 100)
CONFIG = (
    '<View><Image name="image" value="$image"/><VectorLabels name="lane" toName="image" closable="false">'
    '<Label value="dashed"/><Label value="solid"/></VectorLabels></View>'
)
STRATEGIES = [name for name in usable_strategies() if name != "ppal"]  # which is for boxes


def picture(number: int) -> ImageRef:
    data = base64.b64encode(png(render(number, SIZE).image)).decode()
    return ImageRef(number, f"data:image/png;base64,{data}")


def lanes_of(number: int) -> tuple[Lane, ...]:
    return tuple(clean_lane(lane.points / SIZE[::-1], i % 2) for i, lane in enumerate(render(number, SIZE).lanes))


@pytest.fixture
def make_snapshot(resources):
    """`make_snapshot(**policy)`: six held-out labels, one of them without lanes, and 14 unlabelled images."""
    resources.storage.put_project(PROJECT, UID, CONFIG, {})
    resources.storage.begin_round(PROJECT, 0, "connect")

    def make(**policy):
        labelled = [Labelled(picture(i), lanes_of(i), held_out=True) for i in range(5)]
        labelled += [Labelled(picture(5), (), held_out=True), Labelled(picture(6), None, held_out=False)]
        pool = [picture(i) for i in range(10, 24)]
        return Snapshot(UID, CONFIG, Policy.parse(policy), SIZE, labelled, pool, [], None)

    return make


@pytest.fixture
def trio(resources):
    """A trio of round 0 that was never trained: what is tested does not depend on what they know."""
    task = get_task("lanes", ("dashed", "solid"))
    for seed, role in enumerate((STUDENT, TEACHER, DISTILLED)):
        name = "mid_rows" if role == TEACHER else "tiny_rows"
        spec = ModelSpec("lanes", name, task.classes, SIZE, task.options)
        checkpoint = save_checkpoint(task.build(name, SIZE, seed=seed), spec)
        resources.assets.write(RoundStore(resources.assets, UID, 0).key(f"{role}.safetensors"), checkpoint)


def test_lanes_come_out_of_a_stored_snapshot_with_every_digit(resources, make_snapshot):
    snapshot = make_snapshot(budget=3)
    snapshot.save(RoundStore(resources.assets, UID, 0))
    loaded = Snapshot.load(RoundStore(resources.assets, UID, 0))
    assert (loaded.policy, loaded.image_size, loaded.pool) == (snapshot.policy, SIZE, snapshot.pool)
    assert len(loaded.held_out) == 6
    for before, after in zip(snapshot.labelled, loaded.labelled, strict=True):
        assert (after.ref, after.held_out) == (before.ref, before.held_out)
        assert (after.target is None) == (before.target is None)
        for a, b in zip(before.target or (), after.target or (), strict=True):
            assert np.array_equal(a.points, b.points)
            assert a.label == b.label


@pytest.mark.parametrize("target", [5, [{}], [{"label": 2, "points": [[0, 0], [1, 1]]}], [{"label": 0, "points": [1]}]])
def test_a_stored_snapshot_with_damaged_lanes_is_refused(resources, make_snapshot, target):
    assert_refused_when_damaged(resources, make_snapshot(), target)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_of_a_policy_orders_a_pool_of_roads(resources, make_snapshot, trio, strategy):
    snapshot = make_snapshot(strategy=strategy)
    assert sorted(order(resources, snapshot)) == [ref.task_id for ref in snapshot.pool]


def test_roads_are_pre_annotated_with_editable_lines_and_measured_by_lanes_found(resources, make_snapshot, trio):
    snapshot = make_snapshot()
    facts = promote(resources, RoundStore(resources.assets, snapshot.uid, 0), snapshot, serving=None)
    assert (facts["metric"], facts["held_out"], facts["promoted"]) == ("lane F1", 6, True)
    assert 0 <= facts["held_out_score"] <= 1
    lanes = pre_annotations(resources, snapshot)
    assert lanes
    for lane in lanes:
        assert (lane["type"], lane["from_name"]) == ("vectorlabels", "lane")
        assert 0 <= lane["score"] <= 1
        assert (lane["original_width"], lane["original_height"]) == SIZE[::-1]
        assert lane["value"]["vectorlabels"][0] in ("dashed", "solid")
        assert 2 <= len(lane["value"]["vertices"]) <= 40


def test_the_distilled_student_of_a_round_hears_about_the_pool_unless_the_owner_says_no(resources, make_snapshot):
    def learnt(pool, **policy):
        found = make_snapshot(student="tiny_rows", teacher="mid_rows", epochs=1, batch_size=2, **policy)
        labelled = [Labelled(picture(i), lanes_of(i), held_out=False) for i in range(4)]
        snapshot = replace(found, labelled=labelled, pool=found.pool[:pool])
        for step in (train_student_and_teacher, train_distilled):
            step(resources, RoundStore(resources.assets, UID, 0), snapshot, StepReport())
        model, _ = RoundStore(resources.assets, UID, 0).load_model()
        return torch.cat([value.flatten() for value in model.parameters()])

    alone = learnt(pool=0)
    assert torch.equal(learnt(pool=14, unlabelled=False), alone)
    assert not torch.equal(learnt(pool=14), alone)
