import pytest
import torch

from kdal_core.acquisition import prediction_gap
from kdal_core.errors import ConfigError
from kdal_core.simulation.campaign import Campaign, ModelSettings
from kdal_core.simulation.observation import TrainingSetup, train_models
from kdal_core.simulation.runner import run_fingerprint
from kdal_core.tasks import ClassificationTask, LearningLossTask
from kdal_core.training import TrainConfig, TrioSpec, train_student

CAMPAIGN = Campaign.parse(
    {"name": "two", "data": {"name": "digits"}, "budget": 2, "rounds": 1, "strategies": ["random"], "seeds": [0]}
)
OTHER_ARM = CAMPAIGN.strategies[0].model_copy(update={"scored": "student"})
TASK = ClassificationTask(("cat", "dog"))


def setup(task):
    return TrainingSetup(CAMPAIGN, task, TrioSpec("tiny_cnn", "mid_cnn", (8, 8)))


def test_an_arm_may_compare_class_probabilities_in_its_own_way():
    unsure = [[0.5, 0.5]]
    chosen = {kind: setup(TASK).with_gap(kind).task for kind in (None, "disagreement", "total_variation")}
    gaps = {kind: prediction_gap(task, unsure, unsure).item() for kind, task in chosen.items()}
    assert gaps == {None: 0.5, "disagreement": 0.5, "total_variation": 0.0}


def test_a_task_without_class_probabilities_has_no_such_choice():
    with pytest.raises(ConfigError, match="classification\\+loss"):
        setup(LearningLossTask(TASK)).with_gap("disagreement")


def test_an_unknown_comparison_is_refused_when_the_campaign_is_read():
    arm = {"strategy": "kd_gap", "gap": "cosine"}
    with pytest.raises(ConfigError, match="total_variation"):
        Campaign.parse({**CAMPAIGN.model_dump(), "strategies": [arm, "random"]})


def test_where_the_student_is_scored_a_rival_waits_for_no_teacher_and_all_see_the_same_student():
    campaign = CAMPAIGN.model_copy(update={"models": ModelSettings(scored="student")})
    spec, config = TrioSpec("tiny_cnn", "mid_cnn", (8, 8)), TrainConfig(min_steps=2, max_steps=2)
    images, targets = torch.arange(4 * 3 * 64).remainder(251).byte().reshape(4, 3, 8, 8), [0, 1, 0, 1]
    alone = parameters(train_student(TASK, spec, images, targets, config))

    def models(*needs):
        return train_models(TrainingSetup(campaign, TASK, spec), images, targets, config, frozenset(needs))

    rival, ours = models("ensemble"), models("d_ss", "d_st")
    assert (rival.teacher, rival.distilled, rival.reader) == (None, None, rival.scored)
    assert torch.equal(parameters(rival.scored), alone)
    assert torch.equal(parameters(ours.scored), alone)
    assert ours.reader is ours.distilled is not ours.scored
    assert len(rival.ensemble) == campaign.ensemble - 1
    assert not any(torch.equal(parameters(member), alone) for member in rival.ensemble)


def test_an_arm_may_score_another_model_than_the_campaign():
    arm = CAMPAIGN.strategies[0]
    assert setup(TASK).of_arm(arm).campaign.models.scored == "distilled"
    other = setup(TASK).of_arm(arm.model_copy(update={"scored": "student"}))
    assert other.campaign.models.scored == "student"
    assert other.campaign.data == CAMPAIGN.data


def test_runs_of_before_there_was_a_choice_of_the_scored_model_are_taken_up_again():
    arm = CAMPAIGN.strategies[0]
    chosen = CAMPAIGN.model_copy(update={"models": ModelSettings(scored="student")})
    assert "scored" not in run_fingerprint(CAMPAIGN, arm, 0)
    prints = {run_fingerprint(campaign, one, 0) for campaign in (CAMPAIGN, chosen) for one in (arm, OTHER_ARM)}
    assert len(prints) == 4


def parameters(model):
    return torch.cat([value.flatten() for value in model.parameters()])
