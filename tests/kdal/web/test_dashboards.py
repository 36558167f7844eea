"""The dashboard, the alerts and the page on operations name metrics that there are, and all of them."""

from __future__ import annotations

import json
import re
import runpy

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.paths import ROOT

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "kdal.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus" / "kdal-alerts.yaml").read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs" / "operations.md").read_text()
NAME = re.compile(r"\bkdal_\w+")
LABELS = re.compile(r"[({,]\s*(\w+)\s*(?:=~|=|!=)\s*\"|by \(([^)]*)\)")


@pytest.fixture
def shown(serving):
    """The types that /metrics names, by metric, and the samples with their labels."""
    text = serving.get("/metrics").text
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return types, samples


def expressions():
    of_panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return of_panels + [rule["expr"] for rule in RULES]


def ends(name):
    """A histogram's samples have names of their own."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def test_every_metric_that_is_named_exists_and_each_is_told_on_the_page(shown):
    types, _ = shown
    named = {ends(name) for expression in expressions() for name in NAME.findall(expression)}
    assert named
    assert named <= set(types)
    told = set(re.findall(r"^\| `(kdal_\w+)` \|", PAGE, re.MULTILINE))
    assert told == {name for name in types if not name.endswith("_created")}
    # What nobody looks at need not be told to Prometheus.
    assert {name for name in told if name.startswith("kdal_")} <= named


def test_every_label_that_is_named_is_one_of_its_metric(shown):
    _, samples = shown
    for expression in expressions():
        names = NAME.findall(expression)
        there = set().union(*(samples.get(name, set()) for name in names)) | {"job", "le"}
        if not any(name in samples for name in names):
            continue  # of GPUs and teachers there is no sample here
        asked = {label for one, several in LABELS.findall(expression) for label in [one, *several.split(", ")] if label}
        assert asked <= there, expression


def test_alerts_say_what_to_do_and_stand_on_the_page():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert re.search(r"[<>=]", rule["expr"])
        assert rule["labels"]["severity"] in ("page", "ticket", "info")
        assert {"summary", "description"} <= rule["annotations"].keys()
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "5m"))
    told = re.findall(r"^\| `(Kdal\w+)` \|", PAGE, re.MULTILINE)
    assert told == [rule["alert"] for rule in RULES]


def test_the_dashboard_is_what_its_program_writes_and_panels_do_not_overlap():
    made = runpy.run_path(str(DEPLOY / "grafana" / "write_dashboard.py"))["dashboard"]()
    assert json.loads(json.dumps(made)) == DASHBOARD, "run deploy/grafana/write_dashboard.py"
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
