from pathlib import Path

import pytest
import torch
from label_studio_sdk.label_interface import LabelInterface

from kdal.rounds.store import RoundStore
from kdal.web.service import MOST_REASONS, MOST_TASKS
from kdal_core.training import load_checkpoint
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import UID, error_of, predict, task


def test_before_the_first_model_every_task_gets_an_empty_result(connected):
    empty = {"result": [], "score": 1.0, "model_version": "kdal"}
    assert predict(connected, [task(1), task(2)]) == [empty, empty]


def test_a_project_that_is_not_connected_is_a_404_that_says_how_to_connect_it(app):
    response = app.post("/predict", json={"project": "8.1", "tasks": []})
    assert "kdal connect --project 8" in error_of(response, 404)


@pytest.mark.parametrize(
    "change", [{"tasks": None}, {"tasks": {}}, {"tasks": "all"}, {"tasks": 3}, {"project": None}, {"project": ["3.1"]}]
)
def test_a_request_for_predictions_of_the_wrong_types_is_a_400(connected, change):
    (key,) = change
    assert f'"{key}" must be' in error_of(connected.post("/predict", json={"project": UID, "tasks": []} | change), 400)


def test_the_serving_model_answers_each_task_in_order(serving, trained):
    """The numbers come from the network itself, run on scikit-learn's pixels without kdal's loader and formats."""
    tasks = [task(number, trained.files[i]) for i, number in enumerate([5, 3, 9, 1])]
    results = predict(serving, tasks)
    network, _ = load_checkpoint(trained.checkpoint)
    with torch.no_grad():
        expected = network(trained.images[:4].float() / 255).softmax(1)
    for result, row in zip(results, expected, strict=True):
        (region,) = result["result"]
        assert region["value"] == {"choices": [str(int(row.argmax()))]}
        assert region["score"] == pytest.approx(float(row.max()), abs=1e-3)
        assert result["model_version"] == "kdal-r0"
        assert LabelInterface(DIGITS_CONFIG).validate_prediction(
            {key: result[key] for key in ("result", "score", "model_version")}
        )


def test_the_model_that_serves_knows_digits(serving, trained):
    """Chance is 10 in 100; 200 steps on 300 digits give far more."""
    results = predict(serving, [task(i, file) for i, file in enumerate(trained.files)])
    right = sum(r["result"][0]["value"]["choices"] == [str(d)] for r, d in zip(results, trained.labels, strict=True))
    assert right > 60


def sure(results):
    return [result["result"][0]["score"] if result["result"] else None for result in results]


def test_what_the_model_is_not_sure_of_is_left_open_and_keeps_its_place_in_the_order(serving, resources, trained):
    tasks = [task(i, file) for i, file in enumerate(trained.files)]
    everything = predict(serving, tasks)
    resources.storage.update_project(3, policy={})
    told = predict(serving, tasks)
    assert [result["score"] for result in told] == [result["score"] for result in everything]
    assert sure(told) == [score if score >= 2 / 3 else None for score in sure(everything)]
    assert 5 < sum(score is None for score in sure(told)) < 90
    resources.storage.update_project(3, policy={"suggest_above": 0.9})
    assert sure(predict(serving, tasks)) == [score if score >= 0.9 else None for score in sure(everything)]


def test_confidences_are_those_of_the_calibration_of_the_model_that_serves(serving, resources, trained):
    tasks = [task(i, file) for i, file in enumerate(trained.files[:20])]
    raw = sure(predict(serving, tasks))
    told = {"round": 0, "temperature": 2.0, "offset": 0.0, "labels": 30}
    resources.storage.merge_round(3, 0, facts={"confidence": told | {"round": 7}})  # of another model
    assert sure(predict(serving, tasks)) == raw
    resources.storage.merge_round(3, 0, facts={"confidence": told})
    assert all(after < before for before, after in zip(raw, sure(predict(serving, tasks)), strict=True))


def test_the_score_of_a_task_is_its_rank_and_unranked_tasks_come_last(serving, trained):
    results = predict(serving, [task(number, trained.files[0]) for number in (1, 9, 3, 5, 777)])
    assert [result["score"] for result in results] == [0.8, 0.6, 0.4, 0.2, 1.0]


def test_a_task_that_cannot_be_read_is_told_and_fails_no_other(serving, trained):
    good = task(5, trained.files[0])
    bad = [
        task(3, b"no image"),
        {"id": 9, "data": {"image": "http://127.0.0.1:1/a.png"}},
        {"id": 9, "data": {"image": None}},
        {"id": 9, "data": {"picture": "a.png"}},
        {"id": 9, "data": []},
        {"id": 9},
        {"data": good["data"], "id": None},
        {"id": True, "data": {"image": ""}},
        {},
        None,
        "task",
        5,
        [good],
    ]
    results = predict(serving, [good, *bad, good])
    assert results[0] == results[-1]
    assert results[0]["result"][0]["type"] == "choices"
    assert "error" not in results[0]
    told = results[1:-1]
    assert [i for i, result in enumerate(told) if ("error" in result) == bool(result["result"])] == []
    assert "task 3: image data:" in told[0]["error"]
    assert "task 9: image http://127.0.0.1:1/a.png" in told[1]["error"]
    assert 'no image address under "image"' in told[3]["error"]
    assert told[7]["score"] == 1.0  # true is not task 1
    assert {result["model_version"] for result in results} == {"kdal-r0"}


def test_no_tasks_get_no_results(serving):
    assert predict(serving, []) == []


def test_a_thousand_tasks_in_one_request_get_a_thousand_results(serving, trained):
    """Label Studio's "retrieve predictions" sends all tasks at once."""
    tasks = [task(i, trained.files[i % 100]) for i in range(1000)]
    results = predict(serving, tasks)
    assert results[7]["result"] == results[107]["result"] == results[907]["result"]


def test_assets_that_are_out_of_reach_are_a_503_not_the_callers_fault(serving, resources, trained):
    Path(resources.assets.root, RoundStore(resources.assets, UID, 0).key("distilled.safetensors")).unlink()
    response = serving.post("/predict", json={"project": UID, "tasks": [task(5, trained.files[0])]})
    assert "distilled.safetensors" in error_of(response, 503)


def test_an_answer_does_not_dwarf_its_request(serving):
    results = predict(serving, [{}] * (MOST_REASONS + 500))
    assert sum("error" in result for result in results) == MOST_REASONS
    body = {"project": UID, "tasks": [1] * (MOST_TASKS + 1)}
    assert f"{MOST_TASKS:,} at once" in error_of(serving.post("/predict", json=body), 400)
