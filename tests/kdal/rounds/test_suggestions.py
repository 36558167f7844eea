"""What annotators are shown of a prediction."""

import numpy as np
import pytest

from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.rounds.suggestions import Confidence, Suggestions
from kdal_core.evaluation import Calibration
from tests.kdal.labelstudio.formats.lanes import LANES, config

CHOICES = (
    '<View><Image name="img" value="$image"/><Choices name="animal" toName="img">'
    '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
)
LANES_CONFIG = config("VectorLabels")
BOXES = config("RectangleLabels", ("cell",))


def sure(first):
    return np.array([first, 1 - first], dtype=np.float32)


def shown(label_config, prediction, calibration=None, policy=None, **keys):
    form = format_for(label_config, policy)
    return Suggestions.by_policy(form, Policy.parse(keys), calibration).regions(prediction)


@pytest.mark.parametrize(("confidence", "ticked"), [(0.6, False), (0.66, False), (0.67, True), (0.99, True)])
def test_a_class_is_ticked_when_it_is_right_twice_for_each_time_that_it_is_wrong(confidence, ticked):
    regions = shown(CHOICES, sure(confidence))
    assert len(regions) == ticked
    if ticked:
        assert regions[0]["score"] == pytest.approx(confidence)
        assert regions[0]["meta"]["text"][0].startswith(f"{confidence:.0%} sure; else dog")


def test_the_owner_may_ask_for_more_or_for_all():
    assert shown(CHOICES, sure(0.95), suggest_above=0.97) == []
    assert len(shown(CHOICES, sure(0.95), suggest_above=0.9)) == 1
    assert shown(CHOICES, sure(0.51), suggest_above=0.0)[0]["value"] == {"choices": ["cat"]}


def test_confidences_are_calibrated_first():
    """0.9 is a logit of ln 9; at a temperature of 2 it is ln 3, which is 0.75, and at 4 it is 0.63."""
    (region,) = shown(CHOICES, sure(0.9), Calibration(2.0))
    assert region["score"] == pytest.approx(0.75)
    assert region["meta"]["text"] == ["75% sure; else dog 25%"]
    assert region["meta"]["scores"] == {"cat": pytest.approx(0.75), "dog": pytest.approx(0.25)}
    assert shown(CHOICES, sure(0.9), Calibration(4.0)) == []


def boxes(*scores):
    rows = np.full((6, 6), np.nan, dtype=np.float32)
    for row, score in enumerate(scores):
        rows[row] = [0.1 * row, 0.1, 0.1 * row + 0.1, 0.9, score, 0]
    return rows


def test_boxes_are_left_out_one_by_one():
    regions = shown(BOXES, boxes(0.9, 0.5, 0.46, 0.44, 0.1))
    assert len(regions) == 3  # those of 0.45 and more, as before anything was calibrated
    assert [region["meta"]["text"][0] for region in regions] == ["92% sure", "55% sure", "51% sure"]
    assert len(shown(BOXES, boxes(0.9, 0.5, 0.46, 0.44, 0.1), suggest_above=0.9)) == 1
    assert len(shown(BOXES, boxes(0.9, 0.5, 0.46, 0.44, 0.1), suggest_above=0.0)) == 5
    assert len(shown(BOXES, boxes(0.9, 0.5, 0.46, 0.44, 0.1), Calibration(1.0, -1.0))) == 1


def test_lanes_are_left_out_one_by_one():
    slots = np.array([[0.2, 0.2, 0.2, 0.9, 0], [0.6, 0.6, 0.6, 0.55, 0]], dtype=np.float32)
    assert [r["score"] for r in shown(LANES_CONFIG, slots, policy=LANES)] == [pytest.approx(0.9), pytest.approx(0.55)]
    (region,) = shown(LANES_CONFIG, slots, policy=LANES, suggest_above=0.8)
    assert region["meta"] == {"text": ["90% sure"]}


def test_the_calibration_is_that_of_the_model_that_serves():
    new = Confidence(4, Calibration(2.0, 0.5, 9)).as_facts()
    old = Confidence(3, Calibration(0.5)).as_facts()
    nothing = Confidence(5, None).as_facts()
    assert Confidence.of_model(4, new, old) == Calibration(2.0, 0.5, 9)
    assert Confidence.of_model(3, new, old) == Calibration(0.5)
    assert Confidence.of_model(5, new, nothing) is None
    assert Confidence.of_model(None, {}, new) is None


class Silent:
    """A format of another package whose regions say nothing of how sure they are."""

    def result(self, prediction, size=None):
        return [{"type": "rating", "value": {"rating": 3}}]


class Plain:
    """A kind of task of another package without confidences."""


def test_what_says_nothing_of_how_sure_it_is_is_always_shown():
    for above in (None, 0.9):
        assert len(Suggestions(Silent(), Plain(), None, above).regions(sure(0.1))) == 1
