import pytest
import torch

from kdal_core.errors import ConfigError
from kdal_core.tasks import ClassificationTask, LaneTask
from kdal_core.training import TrainConfig, resolve_device
from kdal_core.training.config import use_amp


def test_few_labels_get_enough_steps_and_many_get_a_bounded_number():
    config = TrainConfig()
    steps = [config.steps(n) for n in (2, 50, 500, 5_000, 1_000_000)]
    assert steps == sorted(steps)
    assert steps[0] == steps[1] == config.min_steps
    assert steps[-1] == config.max_steps


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"temperature": -1.0},
        {"kd_weight": -0.1},
        {"weight_decay": float("inf")},
        {"beta2": 1.0},
        {"beta2": float("nan")},
        {"amp": "maybe"},
        {"max_steps": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        TrainConfig(**bad)


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto").type == "cpu"


@pytest.mark.parametrize("name", ["tpu9", "mps", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError):
        resolve_device(name)


def test_mixed_precision_is_for_cuda_unless_asked_for():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert not use_amp("auto", cpu)
    assert use_amp("auto", cuda)
    assert use_amp("on", cpu)
    assert not use_amp("off", cuda)


def test_a_task_has_defaults_of_its_own_and_settings_win_over_both():
    classes, lanes = ClassificationTask(("cat", "dog")), LaneTask(("lane",))
    assert TrainConfig.suited(classes) == TrainConfig()
    assert TrainConfig.suited(classes, lr=0.5) == TrainConfig(lr=0.5)
    assert TrainConfig.suited(lanes) == TrainConfig(**lanes.training) != TrainConfig()
    assert TrainConfig.suited(lanes, temperature=3.0) == TrainConfig(**{**lanes.training, "temperature": 3.0})
