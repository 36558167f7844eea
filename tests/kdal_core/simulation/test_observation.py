import pytest

from kdal_core.acquisition import prediction_gap
from kdal_core.errors import ConfigError
from kdal_core.simulation.campaign import Campaign
from kdal_core.simulation.observation import Lesson
from kdal_core.tasks import ClassificationTask, LearningLossTask
from kdal_core.training import TrioSpec

CAMPAIGN = Campaign.parse(
    {"name": "two", "data": {"name": "digits"}, "budget": 2, "rounds": 1, "strategies": ["random"], "seeds": [0]}
)
TASK = ClassificationTask(("cat", "dog"))


def lesson(task):
    return Lesson(CAMPAIGN, task, TrioSpec("tiny_cnn", "mid_cnn", (8, 8)))


def test_an_arm_may_compare_class_probabilities_in_its_own_way():
    unsure = [[0.5, 0.5]]
    chosen = {kind: lesson(TASK).with_gap(kind).task for kind in (None, "disagreement", "total_variation")}
    gaps = {kind: prediction_gap(task, unsure, unsure).item() for kind, task in chosen.items()}
    assert gaps == {None: 0.5, "disagreement": 0.5, "total_variation": 0.0}


def test_a_task_without_class_probabilities_has_no_such_choice():
    with pytest.raises(ConfigError, match="classification\\+loss"):
        lesson(LearningLossTask(TASK)).with_gap("disagreement")


def test_an_unknown_comparison_is_refused_when_the_campaign_is_read():
    arm = {"strategy": "kd_gap", "gap": "cosine"}
    with pytest.raises(ConfigError, match="total_variation"):
        Campaign.parse({**CAMPAIGN.model_dump(), "strategies": [arm, "random"]})
