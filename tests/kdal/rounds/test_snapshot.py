"""What a round reads of its project at one moment, and what of it is read again later."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Snapshot, SnapshotHeader, changed_at, take_snapshot
from kdal.rounds.store import RoundStore
from kdal.storage.assets import MissingAssetError
from kdal_core.errors import AssetError, ConfigError
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.rounds.conftest import choice, picture


@pytest.fixture
def store(loop):
    return RoundStore(loop.resources.assets, loop.row.uid, 0)


def take(loop, store, report=None):
    return take_snapshot(loop.resources, loop.row, store, report or StepReport())


def test_a_snapshot_holds_labels_pool_and_skipped_tasks_and_names_what_cannot_be_read(loop, store):
    a, b, c, d, *others = loop.project.tasks
    loop.label_studio.annotate(loop.project, a, choice(3))
    loop.label_studio.annotate(loop.project, b, choice(5))
    loop.label_studio.annotate(loop.project, c, choice("eleven"))
    loop.label_studio.annotate(loop.project, d, [], was_cancelled=True)
    unusable = {}
    snapshot = take(loop, store, StepReport(unusable=unusable.update))
    assert [(item.ref.task_id, item.target) for item in snapshot.labelled] == [(a, 3), (b, 5), (c, None)]
    assert [ref.task_id for ref in snapshot.pool] == others
    assert snapshot.skipped == [d]
    assert (snapshot.image_size, snapshot.why_untrained) == ((8, 8), None)
    assert list(unusable) == [c]
    assert Snapshot.load(store) == snapshot


def test_its_header_says_what_is_asked_most_often_without_reading_all_of_it(loop, store):
    a, *_ = loop.project.tasks
    loop.label_studio.annotate(loop.project, a, choice(3))
    snapshot = take(loop, store)
    header = SnapshotHeader.load(store)
    assert (header.label_config, header.policy, header.image_size) == (
        snapshot.label_config,
        snapshot.policy,
        snapshot.image_size,
    )
    assert header.labelled == {a}
    assert header.moment == loop.label_studio.clock
    assert type(header.format) is type(snapshot.format)
    store.assets.write(store.key("snapshot.json"), b"damaged")
    assert SnapshotHeader.load(store) == header


def test_a_snapshot_of_an_older_kdal_has_no_header_and_is_read_itself(loop, store):
    a, *_ = loop.project.tasks
    loop.label_studio.annotate(loop.project, a, choice(3))
    snapshot = take(loop, store)
    older = store.of_round(1)
    replace(snapshot).save(older)
    header = SnapshotHeader.load(older)
    assert (header.labelled, header.moment) == ({a}, None)


def test_without_labels_there_is_no_moment_and_without_images_a_size_all_the_same(make_loop):
    loop = make_loop(images=0)
    store = RoundStore(loop.resources.assets, loop.row.uid, 0)
    snapshot = take(loop, store)
    assert (snapshot.why_untrained, snapshot.pool) == ("no labels yet", [])
    assert min(snapshot.image_size) > 0
    assert SnapshotHeader.load(store).moment is None


@pytest.mark.parametrize("value", [[], {}, {"label_config": 1}, {"policy": {}, "image_size": [1]}])
def test_a_damaged_header_is_told_by_its_name(loop, store, value):
    take(loop, store)
    store.write_json("header.json", value)
    with pytest.raises(AssetError, match=r"header\.json is damaged"):
        SnapshotHeader.load(store)


def test_a_round_without_a_snapshot_has_no_header(store):
    with pytest.raises(MissingAssetError):
        SnapshotHeader.load(store)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("2026-11-27T10:00:00.5Z", [datetime(2026, 11, 27, 10, 0, 0, 500_000, UTC)]),
        ("2026-11-27T10:00:00", [datetime(2026, 11, 27, 10, tzinfo=UTC)]),
        (None, []),
        ("yesterday", []),
        (5, []),
    ],
)
def test_when_a_task_changed_is_read_from_what_label_studio_says(said, read):
    assert changed_at({"updated_at": said}) == read


NESTED = DIGITS_CONFIG.replace('"$image"', '"$meta.image"')
POLYGONS = (
    '<View><Image name="image" value="$image"/><PolygonLabels name="area" toName="image"><Label value="lane"/>'
    "</PolygonLabels></View>"
)


def test_the_address_of_an_image_is_read_at_the_end_of_a_path(make_loop):
    loop = make_loop(config=NESTED)
    first, second, *_ = loop.project.tasks
    for row in loop.project.tasks.values():
        row["data"] = {"meta": {"image": row["data"]["image"]}}
    literal = loop.project.tasks[second]["data"]["meta.image"] = picture(5)  # spelled like the path, it comes first
    snapshot = take(loop, RoundStore(loop.resources.assets, loop.row.uid, 0))
    assert {ref.task_id: ref.uri for ref in snapshot.pool} == {
        task: literal if task == second else row["data"]["meta"]["image"] for task, row in loop.project.tasks.items()
    }
    assert len(loop.resources.images.load(snapshot.pool, (8, 8)).kept) == len(loop.project.tasks)
    assert first in {ref.task_id for ref in snapshot.pool}


def test_polygons_are_refused_with_what_to_write_when_a_round_begins(loop, store):
    loop.project.label_config = POLYGONS
    with pytest.raises(ConfigError, match=r'\{"task": "lanes"\}'):
        take(loop, store)


def test_a_snapshot_of_an_older_kdal_took_polygons_for_lanes_and_is_read_so(loop, store):
    loop.set_up(POLYGONS, task="lanes")
    loop.project.label_config = POLYGONS
    snapshot = take(loop, store)
    for name in ("snapshot.json", "header.json"):
        value = store.read_json(name)
        assert value["policy"].pop("task") == "lanes"
        store.write_json(name, value)
    assert Snapshot.load(store) == snapshot
    assert Snapshot.load(store).format.task().kind == SnapshotHeader.load(store).format.task().kind == "lanes"


def test_a_policy_of_an_older_kdal_with_a_key_that_does_nothing_is_no_damage(loop, store):
    loop.resources.storage.update_project(3, policy={"strategy": "entropy", "beta": 1.0})
    snapshot = take(loop, store)
    assert (snapshot.policy.strategy, snapshot.policy.beta) == ("entropy", 1.0)
    assert Snapshot.load(store) == snapshot
    assert SnapshotHeader.load(store).policy == snapshot.policy


def test_a_list_of_images_is_named_where_the_images_are_read(loop, store):
    first, second, *_ = loop.project.tasks
    loop.project.tasks[first]["data"]["image"] = [picture(0), picture(1)]
    loop.project.tasks[second]["data"] = {"photo": picture(1)}
    snapshot = take(loop, store)
    loaded = loop.resources.images.load(Snapshot.load(store).pool, (8, 8))
    told = {snapshot.pool[position].task_id: why for position, why in loaded.reasons.items()}
    assert told == {
        first: f'task {first}: its data holds a list of 2 images under "image", and kdal takes one image a task: '
        "import each image as a task of its own",
        second: f'task {second}: its data holds no image address under "image"',
    }
