import pytest
import yaml

from kdal.distill.config import Distillation, load_distillation
from kdal_core.errors import ConfigError

PLAN = {
    "name": "digits",
    "data": {"name": "digits", "count": 100},
    "teacher": {"kind": "checkpoint", "path": "teacher.safetensors"},
    "budget": 300,
}


def plan(**fields):
    return Distillation.parse({**PLAN, **fields})


def test_what_is_not_said_is_the_cores_default():
    config = plan().mixup_config()
    assert config == plan(mixup={}, training={}).mixup_config()
    assert config.training.stages == 10
    assert config.random_share == 0


def test_what_is_said_reaches_the_core():
    mixup = {"stages": 3, "random_share": 0.5, "selectivity": 1, "lambdas": [0.5]}
    config = plan(mixup=mixup, training={"epochs": 2}, seed=7)
    found = config.mixup_config("cpu")
    assert (found.training.stages, found.random_share, found.selectivity, found.lambdas) == (3, 0.5, 1, (0.5,))
    assert (found.training.train.epochs, found.training.train.device, found.training.seed) == (2, "cpu", 7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget"),
        ({"budgets": 3}, "budgets"),
        ({"name": "a/b"}, "name"),
        ({"mixup": {"lambdas": [1.5]}}, "mixup.lambdas"),
        ({"mixup": {"selectivity": 2}}, "mixup.selectivity"),
        ({"training": {"speed": 1}}, "training:.*speed"),
        ({"training": {"lr": -1}}, "lr must be"),
        ({"exports": ["pickle"]}, "exports"),
        ({"teacher": {"kind": "http", "url": "http://host"}}, "classes"),
        ({"teacher_accuracy": 0.9, "ask_about_tests": True}, "nothing to ask_about_tests for"),
        ({"data": {"name": "digits", "count": 1}}, "data.count"),
        ({"price": float("inf")}, "price"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_their_name(fields, message):
    with pytest.raises(ConfigError, match=message):
        plan(**fields)


def test_the_fingerprint_is_of_what_the_result_hangs_on():
    same = [{}, {"description": "words"}, {"currency": "EUR"}, {"exports": ["torchscript"]}]
    other = [{"budget": 301}, {"seed": 1}, {"student": "lenet5"}, {"mixup": {"stages": 2}}, {"training": {"epochs": 9}}]
    assert len({plan(**fields).fingerprint for fields in same}) == 1
    assert len({plan(**fields).fingerprint for fields in [{}, *other]}) == 6


def test_a_file_is_read_and_one_that_is_none_is_refused(tmp_path):
    path = tmp_path / "distill.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    assert load_distillation(path) == plan()
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="no YAML"):
        load_distillation(path)
    path.write_text("- 3")
    with pytest.raises(ConfigError, match="a mapping of settings, not list"):
        load_distillation(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_distillation(tmp_path / "nothing.yaml")
