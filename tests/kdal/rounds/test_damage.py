"""Files of a round that are damaged on the disk lead back to the step that made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdal.rounds import training
from kdal.rounds.store import RoundStore
from kdal.rounds.worker import Worker
from kdal.storage.tables import FILES_LOST
from kdal.web.service import Service
from kdal_core.errors import AssetError
from tests.kdal.rounds.states import open_round


def damage(loop, name, number=0):
    """Flip a bit of a round's file."""
    store = RoundStore(loop.resources.assets, loop.row.uid, number)
    path = Path(loop.resources.assets.root, store.key(name))
    data = path.read_bytes()
    path.write_bytes(data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])


def put_model(loop, checkpoint, number=0):
    store = RoundStore(loop.resources.assets, loop.row.uid, number)
    loop.resources.assets.write(store.key("distilled.safetensors"), checkpoint)


@pytest.fixture
def opened(loop):
    loop.look()
    open_round(loop)
    return loop


@pytest.mark.parametrize("name", ["order.json", "header.json"])
def test_an_open_round_whose_files_are_damaged_is_followed_by_one_that_makes_them_again(opened, name):
    damage(opened, name)
    opened.worker = Worker(opened.resources, opened.engine, opened.time.clock)  # it has kept nothing in memory
    opened.look()
    assert [(row.number, row.trigger) for row in opened.rounds] == [(0, "connect"), (1, "damage")]
    opened.look()
    assert len(opened.rounds) == 2


def test_files_that_are_missing_may_be_in_a_folder_that_is_not_mounted(opened):
    store = RoundStore(opened.resources.assets, opened.row.uid, 0)
    Path(opened.resources.assets.root, store.key("header.json")).rename(Path(opened.resources.assets.root, "elsewhere"))
    Path(opened.resources.assets.root, store.key("snapshot.json")).unlink()
    opened.worker = Worker(opened.resources, opened.engine, opened.time.clock)
    opened.look()
    assert len(opened.rounds) == 1
    assert "cannot read" in opened.row.problem


def test_a_serving_model_that_is_damaged_is_told_by_the_server_and_made_again_by_the_worker(opened, trained):
    put_model(opened, trained.checkpoint)
    damage(opened, "distilled.safetensors")
    service = Service(opened.resources)
    body = {"project": opened.row.uid, "tasks": [{"id": 3001, "data": {"image": "data:image/png;base64,"}}]}
    for _ in range(3):
        with pytest.raises(AssetError, match="damaged"):
            service.predict(body)
    assert [event.action for event in opened.resources.storage.waiting_events()] == [FILES_LOST]
    opened.look()
    assert [(row.number, row.trigger) for row in opened.rounds] == [(0, "connect"), (1, "damage")]


def test_whoever_says_that_files_are_lost_is_not_believed(opened, trained):
    put_model(opened, trained.checkpoint)
    opened.event(FILES_LOST)
    opened.look()
    assert len(opened.rounds) == 1


def test_a_checkpoint_that_is_damaged_in_mid_round_is_trained_again(make_loop, monkeypatch):
    loop = make_loop(computes=True)
    loop.label(6)
    calls = []
    promote = training.promote

    def damaged_at_first(*arguments, **options):
        if not calls:
            damage(loop, "distilled.safetensors")
        calls.append(arguments)
        return promote(*arguments, **options)

    monkeypatch.setattr(training, "promote", damaged_at_first)
    loop.look()
    opened = loop.wait_open(0)
    assert (opened.restarts, opened.facts["promoted"], len(calls)) == (1, True, 2)
