"""A project of photos on a real Label Studio: pretrained features, rounds of seconds, suggestions with a confidence."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page
from sklearn.datasets import load_sample_images

from kdal.rounds.store import RoundStore
from tests.integration.harness import Api, Project
from tests.integration.loop.editor import next_ticked
from tests.integration.loop.running import RunningKdal, drain

CONFIG = """<View>
  <Header value="What is in the photo?"/>
  <Image name="image" value="$image" maxWidth="420px"/>
  <Choices name="what" toName="image" choice="single" showInline="true">
    <Choice value="temple"/><Choice value="flower"/>
  </Choices>
</View>"""
CLASSES = ("temple", "flower")


def crops(count: int) -> tuple[list[bytes], list[str]]:
    """Crops of the two photos that scikit-learn carries, and what each shows."""
    rng, photos = np.random.default_rng(0), load_sample_images().images
    files, labels = [], []
    for number in range(count):
        kind = number % 2
        y, x = rng.integers(0, photos[kind].shape[0] - 210), rng.integers(0, photos[kind].shape[1] - 280)
        file = io.BytesIO()
        Image.fromarray(photos[kind][y : y + 210, x : x + 280]).save(file, "PNG")
        files.append(file.getvalue())
        labels.append(CLASSES[kind])
    return files, labels


def test_photos_are_suggested_right_after_one_batch_and_with_a_confidence(
    kdal: RunningKdal, ls_api: Api, page: Page, make_project: Callable[..., Project], tmp_path: Path
) -> None:
    images, labels = crops(40)
    project = make_project(CONFIG, images, title="Photos")
    truth = dict(zip(project.task_ids, labels, strict=True))
    kdal.connect(project, budget=8, suggest_above=0.0, explore=0.25)
    first = kdal.wait_open(project, 0, timeout=240)
    assert "mobilenet_v2" in first.facts["backbones"]
    assert "mobilenet_v2" in kdal.cli("status").stdout

    labelled = drain(project, [ls_api], 8, truth.__getitem__)
    assert {truth[task] for task in labelled} == set(CLASSES)  # the first batch covers what there is
    second = kdal.wait_open(project, 1)
    assert second.facts["trains"]
    assert (second.facts["student"], second.facts["confidence"]["round"]) == ("frozen/mobilenet_v2", 1)
    order = RoundStore(kdal.assets, kdal.uid(project), 1).order()
    assert len(order.explored) == 8  # a quarter of each of the four batches that are left
    assert set(order.explored) <= set(order.tasks)

    suggestions = {task["id"]: task["predictions"][0] for task in project.tasks() if task["id"] not in labelled}
    right = [p["result"][0]["value"]["choices"] == [truth[task]] for task, p in suggestions.items()]
    assert np.mean(right) > 0.9
    for prediction in suggestions.values():
        (region,) = prediction["result"]
        assert 0.5 <= region["score"] <= 1
        assert "sure" in region["meta"]["text"][0]

    # KDAL_PICTURES=docs/pictures renews the README's picture.
    picture = Path(os.environ.get("KDAL_PICTURES") or tmp_path) / "photos.png"
    ticked = next_ticked(page, project, "What is in the photo?", picture)
    task = order.tasks[0]
    assert ticked == suggestions[task]["result"][0]["value"]["choices"][0]
    page.locator("button", has_text="Submit").first.click()
    kdal.wait_counted(project, 1)
