"""Which model is promoted, and whose predictions the annotators see."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kdal.images.refs import ImageRef
from kdal.policy import Policy
from kdal.rounds import scoring
from kdal.rounds.progress import StepReport
from kdal.rounds.publishing import regions
from kdal.rounds.snapshot import Labelled, Snapshot, held_out
from kdal.rounds.store import DISTILLED, STUDENT, TEACHER, RoundStore
from kdal.rounds.training import promote
from kdal_core.errors import AssetError
from kdal_core.models import build_model
from kdal_core.tasks import Lane, LaneTask
from kdal_core.training import ModelSpec, save_checkpoint
from tests.kdal.conftest import DIGITS_CONFIG

UID = "3.1795301030"
DIGITS = load_digits()
SPEC = ModelSpec("classification", "small_cnn", tuple("0123456789"), (8, 8))


def picture(index):
    file = io.BytesIO()
    Image.fromarray((DIGITS.images[index] * 255 / 16).round().astype(np.uint8)).save(file, "PNG")
    return ImageRef(index, "data:image/png;base64," + base64.b64encode(file.getvalue()).decode())


@pytest.fixture
def snapshot(resources):
    """60 held-out labels, and 20 unlabelled images."""
    labelled = [Labelled(picture(i), int(DIGITS.target[i]), held_out=True) for i in range(400, 460)]
    pool = [picture(i) for i in range(500, 520)]
    resources.storage.put_project(3, UID, DIGITS_CONFIG, {})
    for number in range(2):
        resources.storage.begin_round(3, number, "connect")
    return Snapshot(UID, DIGITS_CONFIG, Policy(), (8, 8), labelled, pool, [], None)


@pytest.fixture
def good(trained):
    """Bytes of a trained model."""
    return trained.checkpoint


@pytest.fixture
def bad():
    """Bytes of a model that was never trained."""
    return save_checkpoint(build_model("small_cnn", 10, (8, 8)), SPEC)


def put(resources, number, data, role=DISTILLED):
    resources.assets.write(RoundStore(resources.assets, UID, number).key(f"{role}.safetensors"), data)


def test_a_model_that_scores_worse_on_held_out_labels_is_kept_but_not_promoted(resources, snapshot, good, bad):
    put(resources, 0, good)
    put(resources, 1, bad)
    facts = promote(resources, RoundStore(resources.assets, UID, 1), snapshot, serving=0)
    assert (facts["promoted"], facts["held_out"]) == (False, 60)
    assert facts["held_out_score"] < facts["serving_score"]
    assert (facts["compared"], facts["p_value"] < 1e-6) == (60, True)
    assert facts["verdict"].startswith("kdal-r0 goes on serving, the new model is worse: ")
    assert "accuracy on 60 labels" in facts["verdict"]
    assert resources.assets.read(RoundStore(resources.assets, UID, 1).key("distilled.safetensors")) == bad


def test_a_model_that_scores_better_or_alike_is_promoted(resources, snapshot, good, bad):
    put(resources, 0, bad)
    put(resources, 1, good)
    assert promote(resources, RoundStore(resources.assets, UID, 1), snapshot, serving=0)["promoted"]
    put(resources, 0, good)
    facts = promote(resources, RoundStore(resources.assets, UID, 1), snapshot, serving=0)
    assert facts["promoted"]
    assert facts["held_out_score"] == facts["serving_score"]


def test_the_first_model_and_one_after_a_lost_or_damaged_model_are_promoted(resources, snapshot, bad):
    put(resources, 1, bad)
    assert promote(resources, RoundStore(resources.assets, UID, 1), snapshot, serving=None)["promoted"]
    assert promote(resources, RoundStore(resources.assets, UID, 1), snapshot, serving=0)["promoted"]
    put(resources, 0, b"damaged")
    assert promote(resources, RoundStore(resources.assets, UID, 1), snapshot, serving=0)["promoted"]


def test_assets_out_of_reach_promote_nothing(resources, snapshot, good, bad):
    put(resources, 1, bad)
    folder = resources.assets.root + "/" + RoundStore(resources.assets, UID, 0).key("distilled.safetensors")
    Path(folder).mkdir(parents=True)  # neither missing nor readable
    with pytest.raises(AssetError):
        promote(resources, RoundStore(resources.assets, UID, 1), snapshot, serving=0)


def test_without_held_out_labels_there_is_nothing_to_compare(resources, snapshot, good, bad):
    put(resources, 0, good)
    put(resources, 1, bad)
    none = Snapshot(UID, DIGITS_CONFIG, Policy(), (8, 8), [], snapshot.pool, [], None)
    facts = promote(resources, RoundStore(resources.assets, UID, 1), none, serving=0)
    assert (facts["promoted"], facts["held_out"], facts["compared"]) == (True, 0, 0)
    assert not {"held_out_score", "serving_score", "p_value"} & facts.keys()
    assert facts["verdict"] == "No label tells the new model from kdal-r0: it serves."


def test_a_serving_model_that_was_trained_for_other_rows_is_compared_by_its_own(resources):
    config = (
        '<View><Image name="image" value="$image"/><PolygonLabels name="lane" toName="image">'
        '<Label value="lane"/></PolygonLabels></View>'
    )
    labelled = [Labelled(picture(i), (Lane(np.array([[0.5, 0.0], [0.5, 1.0]])),), held_out=True) for i in range(3)]
    lanes = Snapshot(UID, config, Policy(task="lanes"), (8, 8), labelled, [], [], None)
    for number, task in enumerate([LaneTask(("lane",), rows=12), LaneTask(("lane",))]):
        spec = ModelSpec("lanes", "tiny_rows", ("lane",), (8, 8), task.options)
        put(resources, number, save_checkpoint(task.build("tiny_rows", (8, 8)), spec))
    facts = promote(resources, RoundStore(resources.assets, lanes.uid, 1), lanes, serving=0)
    assert (facts["held_out"], facts["metric"]) == (3, "lane F1")
    assert {"held_out_score", "serving_score"} <= facts.keys()


def test_annotators_see_the_serving_models_predictions_when_the_new_one_is_not_promoted(resources, snapshot, good, bad):
    for role in (STUDENT, TEACHER, DISTILLED):
        put(resources, 0, good, role)
        put(resources, 1, bad, role)
    store = RoundStore(resources.assets, UID, 1)
    found = {}
    for serving in (0, 1):
        scoring.score_shard(resources, store, snapshot, 0, True, serving, StepReport())
        drawn = regions(store, snapshot, [ref.task_id for ref in snapshot.pool])
        found[serving] = [drawn[ref.task_id][0]["value"]["choices"][0] for ref in snapshot.pool]
    truth = [str(DIGITS.target[ref.task_id]) for ref in snapshot.pool]
    right = {serving: sum(a == b for a, b in zip(choices, truth, strict=True)) for serving, choices in found.items()}
    assert right[0] > right[1] + 5


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_which_labels_are_held_out_never_changes_and_has_the_share_asked_for(share):
    policy = Policy(holdout=share)
    held = [held_out(policy, task) for task in range(20_000)]
    assert held == [held_out(policy, task) for task in range(20_000)]
    assert abs(sum(held) / len(held) - share) < 0.012  # four standard errors of a draw of 20,000


def test_the_order_does_not_depend_on_how_the_pool_was_cut_into_shards(resources, snapshot, good, monkeypatch):
    student = save_checkpoint(build_model("small_cnn", 10, (8, 8), seed=1), SPEC)
    for role, data in ((STUDENT, student), (TEACHER, good), (DISTILLED, good)):
        put(resources, 1, data, role)
    store = RoundStore(resources.assets, UID, 1)
    orders = []
    for size in (7, 20):
        monkeypatch.setattr(scoring, "SHARD", size)
        for shard in range(scoring.shard_count(snapshot)):
            scoring.score_shard(resources, store, snapshot, shard, True, 1, StepReport())
        scoring.select(store, snapshot, True)
        orders.append(store.order().tasks)
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == [ref.task_id for ref in snapshot.pool]
    assert orders[0] != sorted(orders[0])
