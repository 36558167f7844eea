"""What an annotator sees in Label Studio, in a real browser."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from kdal.demo.examples.digits import Digits
from tests.integration.harness import Api, Project
from tests.integration.loop.editor import next_ticked
from tests.integration.loop.running import RunningKdal, drain


def test_the_labelling_screen_shows_kdals_pre_annotation_and_submits_it(
    kdal: RunningKdal,
    ls_api: Api,
    page: Page,
    make_project: Callable[..., Project],
    digits: Callable[..., Any],
    tmp_path: Path,
) -> None:
    found = digits(120)
    project = make_project(Digits.label_config, found.images, title="Handwritten digits")
    truth = dict(zip(project.task_ids, found.labels, strict=True))
    kdal.connect(project, budget=60, epochs=100, suggest_above=0.0)
    kdal.wait_open(project, 0)
    drain(project, [ls_api], 60, truth.__getitem__)
    kdal.wait_open(project, 1)
    task = kdal.order(project, 1)[0]
    (prediction,) = next(t for t in project.tasks() if t["id"] == task)["predictions"]
    predicted = prediction["result"][0]["value"]["choices"][0]

    # KDAL_PICTURES=docs/pictures renews the README's picture.
    picture = Path(os.environ.get("KDAL_PICTURES") or tmp_path) / "labelling.png"
    assert next_ticked(page, project, "Which digit is this?", picture) == str(predicted)

    page.locator("button", has_text="Submit").first.click()
    kdal.wait_counted(project, 1)
    (annotation,) = next(t for t in project.tasks() if t["id"] == task)["annotations"]
    assert annotation["result"][0]["value"]["choices"] == [predicted]
    assert annotation["parent_prediction"] == prediction["id"] or annotation["prediction"]
