import json
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdal.policy import OF_STRATEGY, SCORED, Policy, usable_strategies
from kdal.policy.rules import OF_THREE_NETWORKS
from kdal_core.acquisition import strategy, strategy_names
from kdal_core.errors import ConfigError
from kdal_core.tasks import BoxTask, ClassificationTask, LaneTask
from kdal_core.training import fine_tuning_config
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.values import json_values, outcome, scalars


@pytest.mark.parametrize("nothing", [None, "", "null", "{}", {}])
def test_nothing_gives_the_defaults(nothing):
    policy = Policy.parse(nothing)
    assert policy == Policy()
    assert (policy.budget, policy.strategy, policy.holdout, policy.seed) == (50, "kd_gap", 0.1, 0)


@pytest.mark.parametrize("name", strategy_names())
def test_a_policy_may_name_each_strategy_that_needs_no_more_than_a_round_scores(name):
    if strategy(name).needs <= SCORED:
        assert Policy.parse({"strategy": name}).chosen_strategy(ClassificationTask(("cat", "dog"))).name == name
    else:
        with pytest.raises(ConfigError, match=f'"strategy": "{name}" needs what a round does not compute .*kd_gap'):
            Policy.parse({"strategy": name})


def test_objects_are_counted_where_labels_have_them():
    policy = Policy.parse({"budget_unit": "objects"})
    for task in (BoxTask(("cat",)), LaneTask(("lane",))):
        policy.check(task)
    with pytest.raises(ConfigError, match='"budget_unit": "objects" counts boxes or lanes'):
        policy.check(ClassificationTask(("cat", "dog")))


def test_a_strategy_for_boxes_is_refused_where_there_are_none():
    Policy.parse({"strategy": "ppal"}).check(BoxTask(("cat", "dog")))
    for task in (ClassificationTask(("cat", "dog")), LaneTask(("lane",))):
        with pytest.raises(ConfigError, match=f'"strategy": "ppal" compares boxes, and these labels are {task.kind}'):
            Policy.parse({"strategy": "ppal"}).check(task)


def test_a_strategy_that_does_not_exist_is_refused_and_those_that_a_round_can_use_are_named():
    with pytest.raises(ConfigError, match='"strategy": there is no "magic"') as caught:
        Policy.parse({"strategy": "magic"})
    named = str(caught.value).partition("may name ")[2].split(", ")
    assert named == [name for name in strategy_names() if strategy(name).needs <= SCORED]
    assert {"kd_gap", "random", "margin", "badge"} <= set(named)
    assert "bald" not in named


def test_what_an_owner_sets_of_kd_gap_reaches_it():
    chosen = {"k": 3, "beta": 0.5, "eps": 0.0, "mode": "score", "formula": "published", "rarity": 0.5}
    for task in (ClassificationTask(("cat", "dog")), LaneTask(("lane",)), BoxTask(("cat", "dog"))):
        assert Policy.parse(chosen).chosen_strategy(task).parameters == chosen
        assert Policy.parse({}).chosen_strategy(task).parameters == task.acquisition


OF_KD_GAP = {"k": 3, "beta": 0.5, "eps": 0.0, "mode": "score", "formula": "published", "rarity": 0.5}


@pytest.mark.parametrize("key", OF_KD_GAP)
@pytest.mark.parametrize("name", usable_strategies())
def test_a_parameter_that_the_strategy_does_not_take_is_refused_with_those_it_takes(name, key):
    params = {"strategy": name, key: OF_KD_GAP[key]}
    if key in strategy(name).accepts:
        assert getattr(Policy.parse(params), key) == OF_KD_GAP[key]
    else:
        with pytest.raises(ConfigError, match=f'extra params: "{key}" does nothing with "strategy": "{name}"'):
            Policy.parse(params)


def test_each_parameter_of_kd_gap_is_a_key_of_the_policy_and_none_else_is_said_to_be():
    assert set(OF_KD_GAP) == set(OF_STRATEGY) == set(strategy("kd_gap").accepts)


@pytest.mark.parametrize(
    "params",
    [
        {"strategy": "entropy", "beta": 1},
        {"strategy": "random", "k": 5},
        {"strategy": "margin", "rarity": 1},
        {"formula": "four_case", "eps": 0.5},
        {"beta": 0, "mode": "score"},
        {"kd_weight": 0, "temperature": 2.0},
        {"kd_weight": 0, "unlabelled": True},
        {"queries": 100},
        {"black_box": "pets", "beta": 1},
        {"black_box": "pets", "formula": "published"},
        {"weights": "defualt"},
        {"weights": "/models/student.bin"},
        {"weights": "https://models.example/student.safetensors"},
        {"weights": "s3://models/student.safetensors"},
        {"weights": ""},
        {"weights": "None"},
        {"weights": "student.safetensors.bak"},
        {"backbone_lr": 1e-4},
        {"train": "heads", "backbone_lr": 1e-4},
        {"task": "segmentation"},
        {"task": "Lanes"},
        {"task": ""},
    ],
)
def test_a_key_that_would_do_nothing_is_refused_with_the_reason(params):
    with pytest.raises(ConfigError, match=f'extra params: "{[*params][-1]}"'):
        Policy.parse(params)


@pytest.mark.parametrize(
    "params",
    [
        {"formula": "published", "eps": 0.5},
        {"beta": 0, "k": 3},
        {"beta": 0.5, "mode": "static", "eps": 2},
        {"kd_weight": 0.5, "temperature": 2.0, "unlabelled": True},
        {"strategy": "random", "epochs": 3, "lr": 0.01, "batch_size": 8, "student": "small_cnn"},
        {"black_box": "pets", "queries": 100, "student": "small_cnn", "epochs": 3},
        {"weights": "default"},
        {"weights": "none", "strategy": "margin", "beta": None, "k": None},
        {"black_box": "pets", "weights": "none", "temperature": None},
        {"weights": "/models/student.safetensors"},
        {"train": "full"},
        {"train": "full", "weights": "/models/student.safetensors", "student": "mobilenet_v2"},
        {"train": "full", "backbone_lr": 1e-4, "lr": 0.002, "epochs": 3},
        {"task": "lanes"},
        {"task": None},
    ],
)
def test_a_key_that_does_something_or_says_the_default_is_taken(params):
    policy = Policy.parse(params)
    assert {key: getattr(policy, key) for key in params} == params


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"parameters": {"delta": 1}}, '"parameters": "kd_gap" takes no "delta" (it takes none)'),
        ({"strategy": "margin", "parameters": {"x": 1}}, '"parameters": "margin" takes no "x"'),
        ({"parameters": {"k": 5}}, '"parameters": "k" has a key of its own'),
        ({"parameters": {"a": [1]}}, '"parameters'),
        ({"parameters": [1]}, '"parameters"'),
        ({"parameters": None}, '"parameters"'),
    ],
)
def test_parameters_that_the_strategy_does_not_take_are_refused(params, why):
    with pytest.raises(ConfigError) as caught:
        Policy.parse(params)
    assert why in str(caught.value)


def test_a_policy_of_an_older_kdal_that_holds_keys_without_effect_is_read_as_it_is():
    stored = {"strategy": "entropy", "beta": 1.0, "kd_weight": 0.0, "temperature": 2.0}
    policy = Policy.stored(stored)
    assert policy.chosen_strategy(ClassificationTask(("cat", "dog"))).parameters == {}
    assert policy.model_dump(exclude_unset=True) == stored


@pytest.mark.parametrize("value", [{"of_a_newer_kdal": 1}, {"budget": "many"}, [], None, 5])
def test_a_stored_policy_that_cannot_be_read_is_a_config_error(value):
    with pytest.raises(ConfigError, match="extra params: "):
        Policy.stored(value)


def test_the_file_of_weights_must_be_there(tmp_path):
    task = ClassificationTask(("cat", "dog"))
    path = tmp_path / "student.safetensors"
    with pytest.raises(ConfigError, match=f'"weights": there is no file "{str(path)[:20]}'):
        Policy.parse({"weights": str(path)}).check(task)
    path.mkdir()
    with pytest.raises(ConfigError, match='"weights": there is no file'):
        Policy.parse({"weights": str(path)}).check(task)
    path.rmdir()
    for name in ("a" * 5000, "a\0b", "\ud800"):
        with pytest.raises(ConfigError, match='"weights": there is no file'):
            Policy.parse({"weights": f"/{name}.safetensors"}).check(task)
    path.write_bytes(b"")
    Policy.parse({"weights": str(path)}).check(task)


def test_eps_does_nothing_with_the_formula_that_lanes_have_by_default():
    policy = Policy.parse({"eps": 0.5})
    policy.check(ClassificationTask(("cat", "dog")))
    with pytest.raises(ConfigError, match=r'"eps" does nothing .*"formula": "published"'):
        policy.check(LaneTask(("lane",)))
    Policy.parse({"eps": 0.5, "formula": "published"}).check(LaneTask(("lane",)))


def test_lanes_are_ordered_away_from_worn_paint_unless_the_owner_says_otherwise():
    task = LaneTask(("lane",))
    assert Policy.parse({"k": 3}).chosen_strategy(task).parameters == {"k": 3, "formula": "four_case"}
    assert Policy.parse({"formula": "published"}).chosen_strategy(task).parameters == {"formula": "published"}


@pytest.mark.parametrize("name", usable_strategies())
def test_with_a_black_box_teacher_there_is_one_network_and_a_strategy_that_needs_more_is_refused(name):
    if name == "kd_gap":
        with pytest.raises(ConfigError, match=r'"strategy": "kd_gap" compares three networks.*least_confidence'):
            Policy.parse({"black_box": "pets", "strategy": name})
    else:
        assert Policy.parse({"black_box": "pets", "strategy": name}).strategy == name
        assert strategy(name).needs <= SCORED - OF_THREE_NETWORKS


def test_with_a_black_box_teacher_the_least_sure_come_first_unless_the_owner_says_otherwise():
    policy = Policy.parse({"black_box": "pets", "queries": 200})
    assert policy.strategy == "least_confidence"
    assert policy.model_dump(exclude_unset=True) == {"black_box": "pets", "queries": 200}
    assert Policy.model_validate(policy.model_dump()) == policy


@pytest.mark.parametrize(
    "params",
    [
        {"queries": 100},
        {"black_box": "pets", "teacher": "resnet50"},
        {"black_box": "pets", "weights": "default"},
        {"black_box": "pets", "temperature": 2.0},
        {"black_box": "pets", "kd_weight": 0.5},
        {"black_box": "pets", "unlabelled": True},
        {"black_box": "pets", "train": "full"},
    ],
)
def test_a_key_that_would_have_no_effect_beside_a_black_box_teacher_is_refused(params):
    with pytest.raises(ConfigError, match=f'extra params: "{[*params][-1]}"'):
        Policy.parse(params)


def test_a_json_text_and_an_object_say_the_same():
    params = {"budget": 20, "beta": 2, "student": "small_cnn", "count_outside": False}
    assert Policy.parse(json.dumps(params)) == Policy.parse(params)
    assert Policy.parse(params).beta == 2.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("budget", 0),
        ("budget", -1),
        ("budget", 100_001),
        ("budget", 10**400),
        ("budget", 1.5),
        ("budget", 50.0),
        ("budget", "50"),
        ("budget", True),
        ("budget", None),
        ("budget", [50]),
        ("budget", {"labels": 50}),
        ("count_outside", 1),
        ("count_outside", "yes"),
        ("strategy", "badge!"),
        ("strategy", None),
        ("black_box", "http://127.0.0.1:9090/"),
        ("black_box", "../../etc/passwd"),
        ("black_box", "two words"),
        ("black_box", ""),
        ("black_box", {"url": "http://127.0.0.1"}),
        ("queries", 3),
        ("queries", 10.5),
        ("mode", "sum"),
        ("formula", "slides"),
        ("beta", -0.1),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("beta", "1"),
        ("beta", True),
        ("k", 0),
        ("k", False),
        ("eps", -1),
        ("eps", float("-inf")),
        ("student", 3),
        ("teacher", ["resnet50"]),
        ("weights", None),
        ("image_size", 7),
        ("image_size", 2049),
        ("image_size", [64, 64]),
        ("epochs", 0),
        ("batch_size", 1),
        ("lr", 0),
        ("lr", float("nan")),
        ("temperature", 0),
        ("kd_weight", -1),
        ("holdout", 0.51),
        ("queue", 0),
        ("seed", -1),
        ("seed", 2**31),
    ],
)
def test_a_value_out_of_range_or_of_the_wrong_type_is_refused_by_its_key(key, value):
    with pytest.raises(ConfigError, match=f'extra params: "{key}"'):
        Policy.parse({key: value})


def test_of_very_many_wrong_keys_a_few_are_named():
    with pytest.raises(ConfigError, match="and 49,995 more") as caught:
        Policy.parse({f"key{number}": 1 for number in range(50_000)})
    assert len(str(caught.value)) < 10_000


def test_an_unknown_key_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigError, match=r'unknown key "buget" \(known: .*budget'):
        Policy.parse({"buget": 50})


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError, match=r'(?s)(?=.*"budget")(?=.*"beta")(?=.*"colour")'):
        Policy.parse({"budget": 0, "beta": -1, "colour": "red"})


@pytest.mark.parametrize("text", ["budget: 50", "{", "{'budget': 50}", "[" * 100_000, "1" * 5000])
def test_a_text_that_is_no_json_is_a_config_error(text):
    with pytest.raises(ConfigError, match="extra params: "):
        Policy.parse(text)


@pytest.mark.parametrize("value", [[], [{"budget": 5}], 5, True, "7", '"budget"', "[1]", 1.5])
def test_json_that_is_no_object_is_a_config_error_with_an_example(value):
    with pytest.raises(ConfigError, match=r'expected an object such as \{"budget": 50\}'):
        Policy.parse(value)


def test_a_message_never_repeats_a_huge_value():
    with pytest.raises(ConfigError) as caught:
        Policy.parse({"strategy": "x" * 100_000, "y" * 100_000: 1})
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("key", ["strategy", "task", "weights", "student", "mode"])
def test_half_a_surrogate_pair_is_refused_like_any_other_wrong_text(key):
    if key != "student":  # which is looked for when the project's kind of labels is known
        with pytest.raises(ConfigError, match=f'extra params: "{key}"'):
            Policy.parse({key: "\ud800"})
    assert str(outcome(ConfigError, lambda: Policy.parse({key: "\ud800", "\udfff": 1}))).encode()


@given(json_values)
@example("1" * 5000)
@example({"budget": 10**5000})
@example({"seed": 10**5000, "lr": 10**5000})
def test_any_json_gives_a_policy_or_a_config_error(value):
    found = outcome(ConfigError, lambda: Policy.parse(value))
    if isinstance(found, ConfigError):
        assert str(found).startswith("extra params: ")
    else:
        assert Policy.parse(found.model_dump(mode="json", exclude_unset=True)) == found


@given(st.dictionaries(st.sampled_from(sorted(Policy.model_fields)), scalars, min_size=1))
def test_any_values_under_the_known_keys_give_a_policy_or_name_a_key(params):
    found = outcome(ConfigError, lambda: Policy.parse(params))
    if isinstance(found, ConfigError):
        assert any(f'"{key}"' in str(found) for key in params)
    else:
        assert found.budget >= 1


@pytest.mark.parametrize("task", [ClassificationTask(("cat", "dog")), LaneTask(("lane",))], ids=lambda task: task.kind)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "epochs": st.integers(-1, 20_000),
            "batch_size": st.integers(-1, 5000),
            "lr": st.floats(-1, 20),
            "temperature": st.floats(-1, 200),
            "kd_weight": st.floats(-1, 200),
            "unlabelled": st.booleans(),
        },
    )
)
def test_whatever_a_policy_allows_the_training_accepts(task, params):
    """Refused at once, where the owner sees it, rather than in the middle of a round."""
    policy = outcome(ConfigError, lambda: Policy.parse(params))
    if isinstance(policy, Policy):
        config = policy.training(task, "cpu")
        assert {name: getattr(config, name) for name in params} == params


def test_a_whole_student_begins_on_features_with_what_the_owner_says_of_its_training():
    task = ClassificationTask(("cat", "dog"))
    policy = Policy.parse({"train": "full", "backbone_lr": 3e-5, "batch_size": 8, "seed": 4})
    assert policy.on_features(task, (168, 224))
    assert policy.on_features(task, (8, 8))  # asked for by name
    assert not Policy.parse({"train": "full", "weights": "none"}).on_features(task, (168, 224))
    config = policy.fine_tuning("cpu")
    assert (config.backbone_lr, config.batch_size, config.seed, config.device) == (3e-5, 8, 4, "cpu")
    assert config.lr == fine_tuning_config().lr
    assert Policy.parse({"train": "full", "epochs": 1}).fine_tuning("cpu").steps(32) == 1


def test_lanes_have_no_pretrained_layers_with_a_learning_rate_of_their_own():
    policy = Policy.parse({"train": "full", "backbone_lr": 1e-4})
    policy.check(ClassificationTask(("cat", "dog")))
    with pytest.raises(ConfigError, match='"backbone_lr" is about pretrained networks of classes'):
        policy.check(LaneTask(("lane",)))


def test_a_policy_survives_the_way_through_the_tables():
    policy = Policy.parse({"budget": 7, "lr": 0.01})
    stored = json.loads(json.dumps(policy.model_dump(mode="json", exclude_unset=True)))
    assert stored == {"budget": 7, "lr": 0.01}
    assert Policy.model_validate(stored) == policy


def test_reading_a_policy_and_a_labelling_config_imports_nothing_heavy():
    """`kdal connect` does no more than that before it calls Label Studio."""
    read = f"""
import sys
from kdal.labelstudio.formats import format_for, notes
from kdal.policy import Policy
policy = Policy.parse({{"budget": 20, "task": "classification", "weights": "default"}})
format_for({DIGITS_CONFIG!r}, policy), notes({DIGITS_CONFIG!r}, policy)
heavy = {{"torch", "torchvision", "sklearn", "scipy", "matplotlib", "label_studio_sdk", "boto3"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("told", "meant"), [(None, None), (0, 0), (0.0, 0), (1, 1), (0.9, 0.9)])
def test_how_sure_a_suggestion_must_be_may_be_told(told, meant):
    assert Policy.parse({"suggest_above": told}).suggest_above == meant


@pytest.mark.parametrize("told", [-0.1, 1.01, "0.5", True, 90])
def test_what_is_no_confidence_is_refused(told):
    with pytest.raises(ConfigError, match='"suggest_above"'):
        Policy.parse({"suggest_above": told})


def test_a_price_is_asked_for_together_with_what_a_point_is_worth():
    with pytest.raises(ConfigError, match="give both"):
        Policy.parse({"price": 0.2})
    with pytest.raises(ConfigError, match='"target"'):
        Policy.parse({"target": 1.0})
    policy = Policy.parse({"price": 0.2, "worth": 30, "target": 0.9})
    assert (policy.price, policy.worth, policy.target) == (0.2, 30, 0.9)
