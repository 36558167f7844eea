import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from kdal.labelstudio.formats import format_for
from kdal_core.errors import LabelFormatError
from tests.kdal.values import json_values, outcome

CONFIG = (
    '<View><Image name="img" value="$image"/><Choices name="animal" toName="img">'
    '<Choice value="cat"/><Choice value="dog"/><Choice value="bird"/></Choices></View>'
)
CAT, DOG, BIRD = 0, 1, 2


@pytest.fixture(scope="module")
def form():
    return format_for(CONFIG)


def region(*choices, name="animal"):
    return {"from_name": name, "to_name": "img", "type": "choices", "value": {"choices": list(choices)}}


def annotation(*choices, second=0, **fields):
    return {
        "id": second + 1,
        "result": [region(*choices)] if choices else [],
        "was_cancelled": False,
        "ground_truth": False,
        "updated_at": f"2026-11-21T22:43:{second:02d}.000000Z",
    } | fields


def task(*annotations):
    return {"id": 7, "data": {"image": "a.png"}, "annotations": list(annotations)}


def test_one_annotation_decides(form):
    assert form.target(task(annotation("dog"))) == DOG


def test_the_majority_decides(form):
    votes = (annotation("dog", second=1), annotation("cat", second=2), annotation("dog", second=3))
    assert form.target(task(*votes)) == DOG


@pytest.mark.parametrize(("order", "expected"), [(("dog", "cat"), CAT), (("cat", "dog"), DOG)])
def test_among_equals_the_newest_decides(form, order, expected):
    votes = [annotation(choice, second=i) for i, choice in enumerate(order)]
    assert form.target(task(*votes)) == form.target(task(*reversed(votes))) == expected


def test_the_newest_of_the_leaders_decides_not_the_newest_of_all(form):
    names = ("cat", "cat", "dog", "dog", "bird")
    assert form.target(task(*(annotation(name, second=i) for i, name in enumerate(names)))) == DOG


def test_a_ground_truth_wins_over_a_newer_majority(form):
    votes = (annotation("bird", ground_truth=True), annotation("cat", second=1), annotation("cat", second=2))
    assert form.target(task(*votes)) == BIRD


def test_a_skipped_annotation_does_not_vote(form):
    votes = (annotation("cat"), annotation("dog", second=1, was_cancelled=True))
    assert form.target(task(*votes)) == CAT


def test_an_empty_annotation_does_not_vote(form):
    assert form.target(task(annotation("cat"), annotation(second=1))) == CAT


def test_regions_of_other_controls_do_not_vote(form):
    mixed = annotation("dog", result=[region("cat", name="quality"), {"from_name": "note", "value": {}}, region("dog")])
    assert form.target(task(mixed)) == DOG


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], 'no annotation holds a choice of "animal"'),
        ([annotation()], 'no annotation holds a choice of "animal"'),
        ([annotation("cat", was_cancelled=True)], 'no annotation holds a choice of "animal"'),
        ([annotation("zebra")], '"animal" says "zebra", which is no <Choice>'),
        ([annotation("cat", "dog")], '"animal" holds 2 choices'),
        ([annotation(result=[region()])], '"animal" holds 0 choices'),
        ([annotation(result=None)], "no annotation"),
        ([annotation(result=5)], "no annotation"),
        ([annotation(result=["cat"])], "no annotation"),
        ([annotation(result=[{"from_name": "animal", "value": "cat"}])], "no annotation"),
        ([annotation(result=[{"from_name": "animal", "value": {"choices": "cat"}}])], "no annotation"),
        ([None, 3, "x", []], "no annotation"),
    ],
)
def test_a_task_that_cannot_be_read_is_named_with_the_reason(form, annotations, message):
    with pytest.raises(LabelFormatError) as caught:
        form.target(task(*annotations))
    assert str(caught.value).startswith("task 7: ")
    assert message in str(caught.value)


def test_a_choice_that_left_the_config_gives_way_to_one_that_is_there(form):
    assert form.target(task(annotation("cat"), annotation("zebra", second=1))) == CAT


@given(json_values)
def test_any_json_as_annotations_gives_a_class_or_a_label_format_error(value):
    form = format_for(CONFIG)
    found = outcome(LabelFormatError, lambda: form.target({"id": 7, "annotations": value}))
    assert found in (CAT, DOG, BIRD) or str(found).startswith("task 7: ")


values = json_values | st.fixed_dictionaries({"choices": json_values})
regions = st.fixed_dictionaries({"from_name": st.just("animal"), "value": values})


@given(
    st.lists(
        st.fixed_dictionaries(
            {"result": json_values | st.lists(regions)},
            optional=dict.fromkeys(("id", "was_cancelled", "ground_truth", "updated_at"), json_values),
        ),
        max_size=4,
    )
)
def test_any_json_inside_annotations_gives_a_class_or_a_label_format_error(annotations):
    form = format_for(CONFIG)
    found = outcome(LabelFormatError, lambda: form.target(task(*annotations)))
    assert found in (CAT, DOG, BIRD) or str(found).startswith("task 7: ")


@given(st.lists(st.tuples(st.sampled_from(["cat", "dog", "bird"]), st.booleans()), min_size=1, max_size=9))
def test_the_target_does_not_depend_on_the_order_of_the_annotations(votes):
    form = format_for(CONFIG)
    annotations = [annotation(name, second=i, ground_truth=truth) for i, (name, truth) in enumerate(votes)]
    assert form.target(task(*annotations)) == form.target(task(*reversed(annotations)))


# ---------------------------------------------------------------------- what is written


def probabilities():
    return st.lists(st.floats(0.0625, 1, width=32), min_size=3, max_size=3).map(
        lambda values: np.array(values, dtype=np.float32) / np.float32(sum(values))
    )


@given(probabilities())
def test_label_studios_own_validator_takes_every_result(prediction):
    result = format_for(CONFIG).result(prediction)
    errors = LabelInterface(CONFIG).validate_prediction(
        {"result": result, "score": 0.5, "model_version": "kdal-r1"}, return_errors=True
    )
    assert errors == []


def test_that_validator_refuses_a_choice_that_is_not_in_the_config(form):
    """So the test above can fail."""
    result = form.result(np.array([0.2, 0.5, 0.3], dtype=np.float32))
    result[0]["value"]["choices"] = ["zebra"]
    assert not LabelInterface(CONFIG).validate_prediction({"result": result, "score": 0.5, "model_version": "v"})


def test_a_result_says_the_likeliest_class_and_the_probability_of_each(form):
    (written,) = form.result(np.array([0.125, 0.625, 0.25], dtype=np.float32))
    assert written["value"] == {"choices": ["dog"]}
    assert (written["from_name"], written["to_name"], written["type"]) == ("animal", "img", "choices")
    assert written["score"] == 0.625
    assert written["meta"]["scores"] == {"cat": 0.125, "dog": 0.625, "bird": 0.25}
    assert written["meta"]["text"] == ["62% sure; else bird 25%, cat 12%"]


@given(probabilities())
def test_what_is_written_is_read_as_the_same_class_and_is_plain_json(prediction):
    form = format_for(CONFIG)
    result = json.loads(json.dumps(form.result(prediction), allow_nan=False))
    assert form.target(task(annotation(result=result))) == int(np.argmax(prediction))


def test_an_alias_is_written_and_read_as_the_alias():
    config = CONFIG.replace('value="cat"', 'value="Katze" alias="cat"')
    form = format_for(config)
    result = form.result(np.array([0.9, 0.1, 0.0], dtype=np.float32))
    assert result[0]["value"] == {"choices": ["cat"]}
    assert LabelInterface(config).validate_prediction({"result": result, "score": 0.1, "model_version": "v"})
    assert form.target(task(annotation(result=result))) == CAT
