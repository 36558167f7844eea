"""The panels that show what rounds have found out: how good, when to stop, suggestions, mistakes, classes."""

import numpy as np
import pytest

from kdal.rounds.estimates import statements
from kdal.rounds.estimates.kept import FACT, FILE
from kdal.rounds.store import RoundStore
from kdal_core.evaluation import CurvePoint, LearningCurve
from tests.kdal.web.requests import UID

MARKUP = "<b>rust</b>"
NAMES = ["crack", MARKUP, "ok"]


def unseen(count=60):
    """Of 60 images each tenth is labelled as the next class; the model is sure of the right one."""
    right = np.arange(count) % 3
    labels = np.where(np.arange(count) % 10 == 0, (right + 1) % 3, right)
    return np.arange(count), labels, np.eye(3)[right] * 0.9 + 0.1 / 3


@pytest.fixture
def keep(add_round, resources):
    """`keep(told, points)`: round 1 has written these estimates."""

    def write(points=(), **told):
        add_round(0, state="closed")
        add_round(1)
        models, images = list(range(1, len(points) + 1)), sum(point.images for point in points)
        told = {"stopping": {}} | statements.nothing() | {"round": 1, "metric": "accuracy"} | told
        told["curve"] = statements.curve(LearningCurve(tuple(points), images, 0, 0.95), models)
        kept = {"told": told, "models": models, "points": [vars(point) for point in points], "left": 400, "labels": 100}
        RoundStore(resources.assets, UID, 1).write_json(FILE, {"at_random": []} | kept)
        resources.storage.merge_round(3, 1, facts={FACT: {"model": 1}})

    return write


def panel(site, name):
    return site.get(f"/projects/3/panels/{name}")


@pytest.mark.parametrize("name", ["quality", "suggestions", "errors", "classes", "confusion", "queue"])
def test_before_anything_is_known_a_panel_says_so_in_a_sentence(site, add_round, name):
    add_round(0)
    page = panel(site, name)
    assert page.of("table") == []
    assert page.of("svg") == []
    assert len(page.text) > 30
    assert "cannot be shown" not in page.text


def test_the_curve_shows_each_model_with_its_interval(site, keep):
    keep([CurvePoint(50, 40, 0.6, 0.45, 0.74, 40), CurvePoint(100, 40, 0.8, 0.65, 0.9, 40)])
    page = panel(site, "quality")
    assert len(page.of("circle")) == 2
    assert "kdal-r2, 100 labels: 80.0% (65.0% to 90.0%) on 40 images" in page.text
    assert "kdal-r1 50 60.0% 45.0% to 74.0% 40" in page.text
    (chart,) = page.of("svg")
    assert chart["aria-label"].startswith("Learning curve: accuracy by number of labels.")
    heights = [float(mark["cy"]) for mark in page.of("circle")]
    assert heights[0] > heights[1]
    assert page.of("line", **{"class": "target"}) == []


def test_the_target_is_a_line_and_the_advice_a_word(site, keep, resources):
    keep([CurvePoint(50, 40, 0.6, 0.45, 0.74, 40), CurvePoint(100, 40, 0.8, 0.65, 0.9, 40)])
    assert "When to stop no target set" in panel(site, "quality").text
    resources.storage.update_project(3, policy={"target": 0.95})
    page = panel(site, "quality")
    assert len(page.of("line", **{"class": "target"})) == 1
    assert "no target set" not in page.text


def test_one_model_makes_no_curve_but_is_told(site, keep):
    keep([CurvePoint(50, 40, 0.6, 0.45, 0.74, 40)])
    page = panel(site, "quality")
    assert page.of("svg") == []
    assert "60.0%" in page.text


def test_suggestions_are_told_by_class(site, keep):
    keep(suggestions=statements.suggestions([["crack", 1, 30, 5, 1], [MARKUP, 1, 4, 8, 3]]))
    text = panel(site, "suggestions").text
    assert "crack 30 5 1 83%" in text
    assert f"{MARKUP} 4 8 3 27%" in text


def test_labels_that_look_wrong_come_with_pictures_and_links(site, keep):
    keep(label_errors=statements.errors(unseen(), NAMES))
    page = panel(site, "errors")
    assert {image["src"] for image in page.of("img")} == {f"/projects/3/tasks/{i}/small.jpg" for i in range(0, 60, 10)}
    assert f"labelled {MARKUP} → looks like crack ?" in page.text
    links = [a for a in page.of("a") if "task=" in a["href"]]
    assert {a["href"] for a in links} == {f"http://127.0.0.1:9/projects/3/data?task={i}" for i in range(0, 60, 10)}
    assert all(a["rel"] == "noopener" for a in links)


def test_the_confusion_matrix_opens_the_pictures_of_a_cell(site, keep):
    keep(confusion=statements.confusion(unseen(), NAMES))
    page = panel(site, "confusion")
    (cell,) = [a for a in page.of("button") if a["aria-label"] == f"2 labelled {MARKUP}, taken for crack"]
    opened = site.get(cell["hx-get"])
    assert [image["src"] for image in opened.of("img")] == [f"/projects/3/tasks/{i}/small.jpg" for i in (0, 30)]
    assert f"2 images that people call {MARKUP}, and the model crack." in opened.text
    assert opened.of("b") == []
    site.get("/projects/3/cell?label=ok&predicted=nothing", status=404)


def test_of_many_classes_the_most_confused_are_shown(site, keep):
    count, names = 400, [f"class {i}" for i in range(40)]
    labels = np.arange(count) % 40
    predicted = np.where((labels < 3) & (np.arange(count) > 200), (labels + 1) % 40, labels)
    keep(confusion=statements.confusion((np.arange(count), labels, np.eye(40)[predicted]), names))
    page = panel(site, "confusion")
    assert "28 more classes" in page.text
    assert len(page.of("tr")) == 13


def test_the_balance_of_classes_is_shown_with_bars(site, keep):
    keep(classes=statements.classes([["crack"]] * 9 + [[MARKUP]], NAMES))
    page = panel(site, "classes")
    bars = {bar["aria-label"]: bar["value"] for bar in page.of("progress")}
    assert bars == {"crack: 9": "9", f"{MARKUP}: 1": "1", "ok: 0": "0"}


def test_of_a_thousand_classes_the_ends_are_shown(site, keep):
    keep(classes=statements.classes([[f"c{i}"] * (i + 1) for i in range(1000)]))
    page = panel(site, "classes")
    assert len(page.of("progress")) == 14
    assert "986 classes between" in page.text.replace("\u202f", "")


def test_damaged_estimates_leave_the_other_panels_in_peace(site, keep, resources):
    keep()
    RoundStore(resources.assets, UID, 1).write_json(
        FILE, {"told": {"curve": 1, "stopping": {}}, "points": [], "at_random": []}
    )
    text = site.get("/projects/3").text
    assert "This cannot be shown now" in text
    assert "0 of 50 labels in round 1" in text
