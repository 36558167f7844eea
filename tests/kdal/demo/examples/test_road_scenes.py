"""Rendered road scenes: the same each time, with lanes that lie on paint."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kdal.demo.examples.road_scenes import KINDS, SIZE, render
from kdal_core.datasets import LANE_FOLDERS, detect

AROUND = 8  # pixels either side in which the brightest place of a row is looked for


@pytest.fixture(scope="module")
def scenes():
    return [render(seed) for seed in range(80)]


def brightest(scene, lane):
    """(n,) pixels from the lane to its row's brightest place, and (n,) by how much that is, for the nearer half."""
    grey = scene.image.mean(axis=2)
    across = np.cos(np.arctan(np.gradient(lane.points[:, 0])))  # lines that lie flat in the image are wide in each row
    found = []
    for (x, y), share in list(zip(lane.points, across, strict=True))[len(lane.points) // 2 :]:
        left = int(x) - AROUND
        if left < 0 or int(x) + AROUND >= grey.shape[1]:
            continue
        window = grey[int(y), left : int(x) + AROUND + 1]
        found.append(((window.argmax() + left + 0.5 - x) * share, window.max() - np.median(window)))
    return np.array(found).reshape(-1, 2).T


def test_a_seed_draws_the_same_scene_each_time_and_another_seed_another(scenes):
    again = render(3)
    assert np.array_equal(again.image, scenes[3].image)
    assert again.kind == scenes[3].kind
    for a, b in zip(again.lanes, scenes[3].lanes, strict=True):
        assert np.array_equal(a.points, b.points)
        assert (a.occluded, a.worn) == (b.occluded, b.worn)
    assert len({scene.image.tobytes() for scene in scenes}) == len(scenes)


def test_scenes_of_all_kinds_and_of_two_to_five_lines_occur(scenes):
    assert {scene.kind for scene in scenes} == set(KINDS)
    assert {2, 3, 4, 5} <= {len(scene.lanes) for scene in scenes} <= {1, 2, 3, 4, 5}
    assert all(scene.image.shape == (*SIZE, 3) and scene.image.dtype == np.uint8 for scene in scenes)


def test_lanes_run_down_row_by_row_inside_the_image_from_left_to_right(scenes):
    for scene in scenes:
        for lane in scene.lanes:
            x, y = lane.points.T
            assert np.diff(y) == pytest.approx(1)
            assert x.min() >= 0
            assert x.max() < SIZE[1]
            assert 0 < y[0] < y[-1] < SIZE[0]
        for left, right in zip(scene.lanes, scene.lanes[1:], strict=False):
            rows = sorted({*left.points[:, 1]} & {*right.points[:, 1]})
            a, b = (np.interp(rows, lane.points[:, 1], lane.points[:, 0]) for lane in (left, right))
            assert (a < b).all()


def test_lanes_lie_on_painted_pixels(scenes):
    offsets = []
    for scene in scenes:
        for lane in scene.lanes:
            if scene.kind == "day" and lane.worn < 0.1 and lane.occluded == 0:
                places, contrast = brightest(scene, lane)
                offsets.extend(places[contrast > 40])
    assert len(offsets) > 300
    assert abs(np.median(offsets)) < 0.5
    assert np.mean(np.abs(offsets) < 2.5) > 0.95  # a line near the car is five pixels wide


def test_worn_and_occluded_are_shares_and_mean_what_they_say(scenes):
    lanes = [(scene, lane) for scene in scenes for lane in scene.lanes]
    for name in ("occluded", "worn"):
        shares = np.array([getattr(lane, name) for _, lane in lanes])
        assert shares.min() >= 0
        assert shares.max() <= 1
        assert np.ptp(shares) > 0.5
    painted = {False: [], True: []}
    for scene, lane in lanes:
        if scene.kind == "day" and lane.occluded == 0 and not 0.1 < lane.worn < 0.5:
            painted[lane.worn >= 0.5].extend(brightest(scene, lane)[1] > 40)
    assert np.mean(painted[True]) < 0.6 * np.mean(painted[False])


@pytest.mark.parametrize("size", [(72, 200), (288, 800)])
def test_a_scene_may_be_of_any_size(size):
    scene = render(1, size)
    assert scene.image.shape == (*size, 3)
    assert len(scene.lanes) >= 2
    # The same road through the same camera, so the same shares of the image.
    shares = [lane.points[-1] / size[::-1] for lane in scene.lanes]
    assert np.abs(np.array(shares) - [lane.points[-1] / SIZE[::-1] for lane in render(1).lanes]).max() < 0.02


def test_the_written_folder_is_one_that_kdal_imports(tmp_path):
    command = [
        sys.executable,
        "-m",
        "kdal.demo.examples.road_scenes",
        str(tmp_path / "roads"),
        "--count",
        "3",
        "--first-seed",
        "7",
    ]
    subprocess.run(command, check=True, timeout=120)
    assert detect(tmp_path / "roads") == "tusimple"
    found = LANE_FOLDERS["tusimple"].read(tmp_path / "roads", ())
    assert [scene.path for scene in found] == [f"images/{seed:06d}.png" for seed in (7, 8, 9)]
    for seed, record in zip((7, 8, 9), found, strict=True):
        scene = render(seed)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "roads" / record.path)), scene.image)
        for lane, read in zip(scene.lanes, record.lanes, strict=True):
            x = np.interp(read[:, 1], lane.points[:, 1], lane.points[:, 0])
            assert read[:, 0] == pytest.approx(x, abs=0.01)
