"""Campaigns on pretrained features, for crops of two photos that scikit-learn carries."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from kdal_core.models import Backbone
from kdal_core.simulation import simulate
from kdal_core.simulation.campaign import Campaign
from kdal_core.simulation.heads import pool_features


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 20 crops of each of two photos."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (root / kind).mkdir()
        for number in range(20):
            y, x = rng.integers(0, photo.shape[0] - 150), rng.integers(0, photo.shape[1] - 150)
            Image.fromarray(photo[y : y + 150, x : x + 150]).resize((80, 80)).save(root / kind / f"{number}.png")
    return root


def campaign(strategies, **settings):
    return Campaign.parse(
        {
            "name": "crops",
            "data": {"name": "folder", "image_size": 80},
            "budget": 3,
            "rounds": 2,
            "seeds": [0],
            "baseline": strategies[0],
            "models": {"student": "mobilenet_v2", "teacher": "mobilenet_v2+tf_efficientnet_lite0", "weights": "auto"},
            "strategies": strategies,
            **settings,
        }
    )


@pytest.fixture
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


ARMS = ["random", "kd_gap", "uherding", "maxherding", "dropquery", "pcoreset", "tcm", "badge", "coreset", "entropy"]


def test_every_order_is_served_by_heads_and_each_image_is_looked_at_once(photos, cache, tmp_path, monkeypatch):
    found = simulate(campaign(ARMS), tmp_path, data=photos, workers=1)
    assert [run.arm for run in found.runs] == ARMS
    for run in found.runs:
        assert [point.labels for point in run.points] == [3, 6]
        assert set(run.points[0].scores) == {"student", "teacher", "distilled"}
    by_arm = {run.arm: run.points[0].score for run in found.runs}
    assert by_arm["maxherding"] > 0.9  # the first batch covers both photos
    assert found.full[0] > 0.9
    monkeypatch.setattr(Backbone, "features", None)  # all that is asked from now on is kept
    again = simulate(campaign(ARMS[:2], rounds=3), tmp_path, data=photos, workers=1)
    assert [len(run.points) for run in again.runs] == [3, 3]


def test_the_features_that_are_kept_are_those_of_the_images_whatever_their_order(photos, cache, tmp_path):
    from kdal_core.simulation.datasets import load_split

    asked = campaign(["random"])
    split = load_split(asked, 0, photos)
    found = pool_features(asked, split, tmp_path)
    other = load_split(asked, 1, photos)
    again = pool_features(asked, other, tmp_path)
    places = {image.numpy().tobytes(): i for i, image in enumerate(split.pool.images)}
    order = [places[image.numpy().tobytes()] for image in other.pool.images if image.numpy().tobytes() in places]
    shared = [i for i, image in enumerate(other.pool.images) if image.numpy().tobytes() in places]
    np.testing.assert_array_equal(again.student[shared], found.student[order])


def test_wrong_labels_are_suspected(photos, cache, tmp_path):
    noisy = campaign(["random"], noise={"kind": "uniform", "rate": 0.3}, budget=12)
    points = simulate(noisy, tmp_path, data=photos, workers=1).runs[0].points
    assert sum(point.wrong for point in points) > 0
    assert all(point.noise_auroc is None or 0 <= point.noise_auroc <= 1 for point in points)
