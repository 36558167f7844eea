"""A round with a strategy and with a kind of task that another package brings, installed as pip would put it there."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kdal.images.refs import ImageRef
from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.rounds import scoring, training
from kdal.rounds.progress import StepReport
from kdal.rounds.publishing import regions
from kdal.rounds.snapshot import Labelled, Snapshot
from kdal.rounds.store import DISTILLED, RoundStore
from kdal.web.app import create_app
from kdal_core.errors import ConfigError
from kdal_core.simulation import Campaign, simulate
from kdal_core.tasks import get_task, task_kinds
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.rounds.conftest import DIGITS, picture
from tests.kdal.web.requests import signed_in

UID = "3.1795301030"
STARS = '<View><Image name="image" value="$image"/><Rating name="stars" toName="image" maxRating="5"/></View>'
NETWORKS = {"student": "tiny_cnn", "teacher": "mid_cnn", "epochs": 2, "holdout": 0.2}
SOURCE = '''
from dataclasses import dataclass

import numpy as np

from kdal.labelstudio.formats.base import ControlFormat, finished_annotations
from kdal_core.acquisition import Selection, Strategy
from kdal_core.errors import LabelFormatError
from kdal_core.tasks import ClassificationTask, get_task


def surest(pool, *, power=1.0):
    """The surest image first."""
    if power <= 0:
        raise ValueError("power must be positive")
    scores = pool.averaged("probabilities", lambda p: p.max(axis=1)) ** power
    order = np.argsort(-scores, kind="stable")
    return Selection(order, scores[order], np.zeros(len(order), dtype=np.int64))


STRATEGY = Strategy("surest", surest, frozenset({"probabilities"}))


@dataclass(frozen=True)
class NumberTask(ClassificationTask):
    """A number of steps: predictions are probabilities of each, and what counts is the number that is expected."""

    kind = "number"
    metric_name = "closeness of the expected number"

    def gap(self, a, b):
        return np.abs(self._expected(a) - self._expected(b))

    def score(self, predictions, targets):
        wrong = np.abs(self._expected(predictions) - np.asarray(targets))
        return float(1 - wrong.mean() / (len(self.classes) - 1))

    def _expected(self, predictions):
        return np.asarray(predictions, np.float64) @ np.arange(len(self.classes))


class RatingFormat(ControlFormat):
    """``<Rating>``: its stars are a number."""

    tag = "Rating"
    kind = "number"

    def task(self):
        return get_task("number", ("1", "2", "3", "4", "5"))

    def target(self, task):
        for annotation in reversed(finished_annotations(task)):
            for region in annotation["result"]:
                if region.get("from_name") == self._control.name:
                    return int(region["value"]["rating"]) - 1
        raise LabelFormatError(f"task {task.get('id')}: no annotation holds a rating")

    def result(self, prediction, size=None):
        value = {"rating": int(round(float(np.asarray(prediction) @ np.arange(5)))) + 1}
        return [{"from_name": self._control.name, "to_name": self._image_name, "type": "rating", "value": value,
                 "score": float(prediction.max())}]
'''
ENTRIES = """
[kdal.strategies]
surest = toy_kdal:STRATEGY
[kdal.tasks]
number = toy_kdal:NumberTask
[kdal.formats]
rating = toy_kdal:RatingFormat
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package toy-kdal with its dist-info, on `sys.path` as long as the test lasts."""
    site = tmp_path / "site"
    info = site / "toy_kdal-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "toy_kdal.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-kdal\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("toy_kdal", None)


def set_up(resources, config, **policy):
    """What Label Studio is told when it sets the project up."""
    body = {"project": UID, "schema": config, "extra_params": policy}
    return signed_in(create_app(resources).test_client(), resources).post("/setup", json=body)


def computed(resources, config, targets, **policy):
    """A round's steps from the labels to the order and the pre-annotations: facts, order, regions by task."""
    assert set_up(resources, config, **policy).status_code == 200
    chosen = Policy.parse(policy)
    resources.storage.put_project(3, UID, config, chosen.model_dump(mode="json", exclude_unset=True))
    resources.storage.begin_round(3, 0, "connect")
    labelled = [Labelled(ImageRef(i, picture(i)), targets[i], held_out=i % 5 == 0) for i in range(40)]
    pool = [ImageRef(i, picture(i)) for i in range(100, 112)]
    store = RoundStore(resources.assets, UID, 0)
    Snapshot(UID, config, chosen, (8, 8), labelled, pool, [], None).save(store)
    snapshot = Snapshot.load(store)
    assert [item.target for item in snapshot.labelled] == targets[:40]
    training.train_student_and_teacher(resources, store, snapshot, StepReport())
    training.train_distilled(resources, store, snapshot, StepReport())
    facts = training.promote(resources, store, snapshot, None)
    scoring.score_shard(resources, store, snapshot, 0, True, 0, StepReport())
    scoring.select(store, snapshot, True)
    return facts, store, regions(store, snapshot, [ref.task_id for ref in pool])


def test_a_round_is_ordered_by_the_strategy_of_another_package(resources, package):
    policy = {"strategy": "surest", "parameters": {"power": 2.0}, "explore": 0.0, **NETWORKS}
    facts, store, _ = computed(resources, DIGITS_CONFIG, DIGITS.target.tolist(), **policy)
    shard = store.assets.read_arrays(store.key("shards/00000.npz"))
    surest = shard["tasks"][np.argsort(-shard["probabilities"].max(axis=1), kind="stable")]
    assert store.order().tasks == surest.tolist()
    assert facts["held_out"] == 8


def test_a_campaign_compares_it_with_others(package, tmp_path):
    campaign = Campaign.parse(
        {
            "name": "toy",
            "data": {"name": "digits", "pool": 100, "validation": 50, "test": 50},
            "budget": 10,
            "rounds": 2,
            "seeds": [0],
            "models": {"student": "tiny_cnn", "teacher": "mid_cnn"},
            "training": {"epochs": 1, "min_steps": 4, "max_steps": 4, "device": "cpu"},
            "strategies": ["random", {"strategy": "surest", "parameters": {"power": 2.0}}],
        }
    )
    found = simulate(campaign, tmp_path, workers=1)
    assert [(run.arm.partition(" ")[0], [point.labels for point in run.points]) for run in found.runs] == [
        ("random", [10, 20]),
        ("surest", [10, 20]),
    ]


def test_its_parameters_are_tried_when_the_project_is_set_up(resources, package):
    for parameters, why in (({"power": -1}, "power must be positive"), ({"force": 1}, 'takes no "force"')):
        response = set_up(resources, DIGITS_CONFIG, strategy="surest", parameters=parameters)
        assert response.status_code == 400
        assert why in response.get_json()["error"]


def test_a_round_is_computed_for_the_kind_of_task_of_another_package(resources, package):
    facts, store, drawn = computed(resources, STARS, [int(digit) % 5 for digit in DIGITS.target], **NETWORKS)
    assert (facts["metric"], facts["held_out"]) == ("closeness of the expected number", 8)
    assert 0 <= facts["held_out_score"] <= 1
    _, spec = store.load_model(DISTILLED)
    assert spec.kind == "number"
    assert sorted(store.order().tasks) == sorted(drawn) == list(range(100, 112))
    assert {region["type"] for found in drawn.values() for region in found} == {"rating"}
    assert {region["value"]["rating"] for found in drawn.values() for region in found} <= set(range(1, 6))


def test_a_label_of_that_kind_is_read(package):
    region = {"from_name": "stars", "to_name": "image", "type": "rating", "value": {"rating": 4}}
    assert format_for(STARS).target({"id": 1, "annotations": [{"result": [region]}]}) == 3
    assert Policy.parse({"task": "number"}).task == "number"


def test_without_the_package_nothing_of_it_is_known(resources):
    assert "number" not in task_kinds()
    for policy in ({"strategy": "surest"}, {"task": "number"}):
        with pytest.raises(ConfigError, match="there is no"):
            Policy.parse(policy)
    with pytest.raises(ConfigError, match='found <Rating name="stars">'):
        format_for(STARS)
    with pytest.raises(ConfigError, match="There is no task kind 'number'"):
        get_task("number", ("1", "2"))
