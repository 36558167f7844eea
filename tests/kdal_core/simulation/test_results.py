import json
from dataclasses import replace
from datetime import date

import pytest

from kdal_core.errors import ConfigError
from kdal_core.simulation.results import Point, Results, Run

MEASURED = {
    "scores": {"student": 0.75, "teacher": 0.875},
    "picked": {"worn": 0.5},
    "offered": {"worn": 0.25},
    "correlations": {"uncr": {"worn": -0.5}},
}
RESULTS = Results(
    campaign="digits",
    description="What ü says: 8 × 8.",
    metric="accuracy",
    baseline="random",
    full={0: 0.97, 7: 0.96},
    full_labels=1000,
    runs=(
        Run("random", 0, (Point(0, 50, 0.5, 1, 150.0, 2.5), Point(1, 100, 0.75, 3, 310.0, 2.75, 0.8, **MEASURED))),
        Run("kd_gap", 7, ()),
    ),
    environment={"date": "2026-11-22"},
    settings={"budget": 50, "noise": {"rate": 0.05}, "seeds": [0, 7]},
)


def changed(path, value):
    """The file with one entry replaced, or removed where the value is `...`."""
    data = json.loads(RESULTS.to_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data)


def test_what_is_written_is_what_is_read():
    assert Results.from_json(RESULTS.to_json()) == RESULTS


def test_files_from_before_something_was_measured_are_read():
    data = json.loads(RESULTS.to_json())
    for name in MEASURED:
        del data["runs"][0]["points"][1][name]
    (random, _) = Results.from_json(json.dumps(data)).runs
    assert random.points[1] == replace(RESULTS.runs[0].points[1], scores={}, picked={}, offered={}, correlations={})


def test_a_date_in_the_campaign_file_becomes_text():
    read = Results.from_json(replace(RESULTS, settings={"day": date(2026, 11, 22)}).to_json())
    assert read.settings == {"day": "2026-11-22"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["metric"], ..., "The results: missing metric"),
        (["colour"], "red", "The results: unknown colour; known are campaign"),
        (["runs", 0, "seed"], ..., r"runs\[0\]: missing seed"),
        (["runs", 0, "points", 1, "lables"], 3, r"runs\[0\].points\[1\]: unknown lables"),
        (["runs", 0, "points", 1, "noise_auroc"], ..., r"runs\[0\].points\[1\]: missing noise_auroc"),
        (["runs", 0, "points", 0, "labels"], True, r"runs\[0\].points\[0\].labels must be a whole number, not True"),
        (["runs", 0, "points", 0, "labels"], 50.0, "labels must be a whole number, not 50.0"),
        (["runs", 0, "points", 0, "score"], "0.5", "score must be a finite number"),
        (["runs", 0, "points", 0, "score"], float("nan"), "score must be a finite number, not nan"),
        (["runs", 0, "points", 0, "score"], 50.0, r"score 50.0; it must lie in \[0, 1\]"),
        (["runs", 0, "points", 1, "scores", "teacher"], 2, r"score of teacher 2.0; it must lie in \[0, 1\]"),
        (["runs", 0, "points", 0, "wrong"], 51, "51 wrong labels among 50"),
        (["runs", 0, "points", 0, "annotator_seconds"], -1, "annotator_seconds -1.0"),
        (
            ["runs", 0, "points", 0, "labels"],
            100,
            "must grow from point to point; those of arm 'random', seed 0 do not",
        ),
        (["runs", 1], {"arm": "random", "seed": 0, "points": []}, "two runs of arm 'random', seed 0"),
        (["runs"], {}, "runs must be a list"),
        (["full", "first"], 0.9, "'first' is no seed"),
        (["full", "0"], 97, r"full score of seed 0 is 97.0"),
        (["environment", "date"], 2026, "environment.date must be text"),
        (["settings"], [], "settings must be a JSON object"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place_and_the_reason(path, value, message):
    with pytest.raises(ConfigError, match=message):
        Results.from_json(changed(path, value))


@pytest.mark.parametrize(("text", "message"), [("{", "no JSON"), ("[]", "must be a JSON object")])
def test_what_is_no_results_file_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        Results.from_json(text)
