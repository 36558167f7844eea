"""When a round's model may serve, and what it is made to say of how sure it is."""

import numpy as np
import pytest

from kdal.images.refs import ImageRef
from kdal.policy import Policy
from kdal.rounds import gate
from kdal.rounds.gate import save_out_of_fold
from kdal.rounds.snapshot import Labelled, Snapshot, held_out
from kdal.rounds.store import DISTILLED, RoundStore
from kdal.rounds.suggestions import Confidence
from kdal.rounds.training import promote
from kdal_core.models import build_model
from kdal_core.training import ModelSpec, save_checkpoint
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.rounds.conftest import DIGITS, picture

UID = "3.1795301030"
SPEC = ModelSpec("classification", "small_cnn", tuple("0123456789"), (8, 8))
SURE = Policy(holdout=0.1)


@pytest.fixture
def good(trained):
    """Bytes of a trained model."""
    return trained.checkpoint


@pytest.fixture
def bad():
    """Bytes of a model that was never trained."""
    return save_checkpoint(build_model("small_cnn", 10, (8, 8)), SPEC)


def store_of(resources, number):
    return RoundStore(resources.assets, UID, number)


def put(resources, number, data):
    resources.assets.write(store_of(resources, number).key(f"{DISTILLED}.safetensors"), data)


def snapshot(tasks, policy=SURE, held=None):
    """A snapshot whose labelled tasks are digits of these numbers; held out by the policy, or as told."""
    labelled = [
        Labelled(
            ImageRef(task, picture(task)), int(DIGITS.target[task]), held_out(policy, task) if held is None else held
        )
        for task in tasks
    ]
    return Snapshot(UID, DIGITS_CONFIG, policy, (8, 8), labelled, [], [], None)


def by_rows(tasks, right):
    """Probabilities (N, 10) that name the right class of these tasks, or the next one."""
    classes = DIGITS.target[list(tasks)]
    named = np.where(right, classes, (classes + 1) % 10)
    return np.where(np.eye(10)[named] > 0, 0.91, 0.01).astype(np.float32)


def test_a_worse_score_on_two_held_out_labels_refuses_nothing(resources, good, bad):
    """On two labels any difference may be chance: the old gate refused on one."""
    put(resources, 0, good)
    put(resources, 1, bad)
    facts = promote(resources, store_of(resources, 1), snapshot(range(400, 402), held=True), serving=0)
    assert facts["held_out_score"] < facts["serving_score"]
    assert facts["promoted"]
    assert (facts["compared"], facts["p_value"] >= 0.25) == (2, True)
    assert "it scores lower than kdal-r0" in facts["verdict"]
    assert "may be chance" in facts["verdict"]


def test_a_label_that_the_serving_model_was_trained_on_does_not_speak_for_it(resources, good, bad):
    """Somebody has raised `holdout` since: labels of round 0's training set are held out now."""
    tasks = range(400, 440)
    snapshot(tasks, Policy(holdout=0.0)).save(store_of(resources, 0))
    snapshot(tasks, Policy(holdout=0.0)).header(None).save(store_of(resources, 0))
    put(resources, 0, good)
    put(resources, 1, bad)
    facts = promote(resources, store_of(resources, 1), snapshot(tasks, held=True), serving=0)
    assert (facts["promoted"], facts["held_out"], facts["compared"]) == (True, 40, 0)
    assert "serving_score" not in facts


@pytest.fixture
def rounds(resources, good):
    """Round 0 was trained on tasks 400 to 429; round 1 has those and 430 to 459, with none held out."""
    none = Policy(holdout=0.0)
    before, after = snapshot(range(400, 430), none), snapshot(range(400, 460), none)
    before.save(store_of(resources, 0))
    before.header(None).save(store_of(resources, 0))
    put(resources, 0, good)
    put(resources, 1, good)
    return after


def test_out_of_fold_predictions_are_compared_on_labels_that_the_serving_model_has_not_seen(resources, rounds):
    save_out_of_fold(store_of(resources, 1), range(400, 460), by_rows(range(400, 460), right=False))
    facts = promote(resources, store_of(resources, 1), rounds, serving=0)
    assert (facts["held_out"], facts["compared"], facts["promoted"]) == (0, 30, False)
    assert "worse" in facts["verdict"]


def test_they_promote_a_model_that_is_as_good(resources, rounds):
    save_out_of_fold(store_of(resources, 1), range(400, 460), by_rows(range(400, 460), right=True))
    facts = promote(resources, store_of(resources, 1), rounds, serving=0)
    assert (facts["compared"], facts["promoted"]) == (30, True)


def test_two_rounds_with_out_of_fold_predictions_are_compared_on_all_labels(resources, rounds):
    save_out_of_fold(store_of(resources, 0), range(400, 430), by_rows(range(400, 430), right=True))
    save_out_of_fold(store_of(resources, 1), range(400, 460), by_rows(range(400, 460), right=True))
    assert promote(resources, store_of(resources, 1), rounds, serving=0)["compared"] == 60


def test_out_of_fold_predictions_of_labels_that_are_gone_do_not_count(resources, rounds):
    save_out_of_fold(store_of(resources, 1), range(425, 500), by_rows(range(425, 500), right=True))
    assert promote(resources, store_of(resources, 1), rounds, serving=0)["compared"] == 30


def test_many_held_out_labels_decide_alone(resources, good, monkeypatch):
    monkeypatch.setattr(gate, "FEW", 20)
    put(resources, 0, good)
    put(resources, 1, good)
    save_out_of_fold(store_of(resources, 1), range(500, 560), by_rows(range(500, 560), right=False))
    held = snapshot(range(400, 430), held=True)
    both = Snapshot(
        UID, DIGITS_CONFIG, SURE, (8, 8), held.labelled + snapshot(range(500, 560), held=False).labelled, [], [], None
    )
    facts = promote(resources, store_of(resources, 1), both, serving=0)
    assert (facts["compared"], facts["promoted"]) == (30, True)
    monkeypatch.setattr(gate, "FEW", 100)
    facts = promote(resources, store_of(resources, 1), both, serving=0)
    assert facts["compared"] == 30  # what round 0 was trained on nobody knows: the held-out labels alone are fair
    snapshot(range(300, 310)).header(None).save(store_of(resources, 0))
    facts = promote(resources, store_of(resources, 1), both, serving=0)
    assert (facts["compared"], facts["promoted"]) == (90, False)


def test_what_serves_is_calibrated_on_the_held_out_labels(resources, good, bad):
    put(resources, 0, good)
    held = snapshot(range(400, 460), held=True)
    for number, data, serves in ((1, good, 1), (2, bad, 0)):
        put(resources, number, data)
        facts = promote(resources, store_of(resources, number), held, serving=0)
        assert facts["promoted"] == (serves == number)
        calibration = Confidence.of_model(serves, facts)
        assert calibration.labels == 60
        assert 0.1 < calibration.temperature < 10
        assert Confidence.of_model(serves + 1, facts) is None
    # The owner may let the refused one serve all the same.
    assert Confidence.of_model(2, facts).labels == 60
    assert Confidence.of_model(2, facts) != Confidence.of_model(0, facts)


def test_without_held_out_labels_out_of_fold_predictions_calibrate(resources, rounds):
    half = np.arange(60) % 2 == 0
    save_out_of_fold(store_of(resources, 1), range(400, 460), by_rows(range(400, 460), right=half))
    facts = promote(resources, store_of(resources, 1), rounds, serving=None)
    calibration = Confidence.of_model(1, facts)
    assert calibration.labels == 60
    assert calibration.temperature > 1.5  # right half the time, and 91% sure
