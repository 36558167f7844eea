"""The steps of a round, one after another, for tests of what tasks make of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdal.resources import Resources
from kdal.rounds import scoring
from kdal.rounds.progress import StepReport
from kdal.rounds.publishing import regions
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import RoundStore
from kdal_core.errors import AssetError

PROJECT = 4


def score(resources: Resources, snapshot: Snapshot) -> None:
    """Score the whole pool as one shard of round 0."""
    scoring.score_shard(resources, RoundStore(resources.assets, snapshot.uid, 0), snapshot, 0, True, 0, StepReport())


def order(resources: Resources, snapshot: Snapshot) -> list[int]:
    """The tasks of the pool, as the snapshot's strategy would have them labelled."""
    score(resources, snapshot)
    scoring.select(RoundStore(resources.assets, snapshot.uid, 0), snapshot, True)
    return RoundStore(resources.assets, snapshot.uid, 0).order().tasks


def pre_annotations(resources: Resources, snapshot: Snapshot) -> list[dict[str, Any]]:
    """All regions of the pool's tasks; that each task has an entry is asserted."""
    score(resources, snapshot)
    found = regions(RoundStore(resources.assets, snapshot.uid, 0), snapshot, [ref.task_id for ref in snapshot.pool])
    assert sorted(found) == [ref.task_id for ref in snapshot.pool]
    return [region for regions in found.values() for region in regions]


def assert_refused_when_damaged(resources: Resources, snapshot: Snapshot, target: Any) -> None:
    """A stored snapshot is refused whose first label is overwritten with this one."""
    snapshot.save(RoundStore(resources.assets, snapshot.uid, 0))
    key = RoundStore(resources.assets, snapshot.uid, 0).key("snapshot.json")
    value = json.loads(resources.assets.read(key))
    value["labelled"][0]["target"] = target
    resources.assets.write_json(key, value)
    with pytest.raises(AssetError, match="damaged"):
        Snapshot.load(RoundStore(resources.assets, snapshot.uid, 0))
