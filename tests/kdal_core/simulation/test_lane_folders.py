import json
import shutil

import numpy as np
import pytest
from PIL import Image

from kdal_core.errors import ConfigError
from kdal_core.simulation.campaign import DataSettings
from kdal_core.simulation.datasets import load_dataset, load_split
from kdal_core.tasks.lane import x_at
from tests.kdal_core.simulation.conftest import ROWS, draw_road


def records(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_the_lanes_of_a_folder_are_those_of_its_records_whatever_the_images_size(lanes_campaign, roads):
    split = load_split(lanes_campaign(), 0, roads)
    assert split.classes == ("lane",)
    assert split.pool.images.shape == (24, 3, 24, 48)
    assert split.held_out.images.shape == (6, 3, 24, 48)
    for lanes, record in zip(split.held_out.labels, records(roads / "roads", "test.jsonl"), strict=True):
        assert len(lanes) == len(record["lanes"])
        for lane, x in zip(lanes, record["lanes"], strict=True):
            known = np.array(x) >= 0
            found = x_at(lane, np.array(ROWS) / 32) * 64
            np.testing.assert_allclose(found[known], np.array(x)[known], atol=0.02)


def test_images_are_the_files_made_smaller(lanes_campaign, roads):
    split = load_split(lanes_campaign(), 0, roads)
    with Image.open(roads / "roads" / "test" / "000.png") as image:
        expected = np.array(image.resize((48, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(split.held_out.images[0].permute(1, 2, 0).numpy(), expected)


def test_numbers_for_each_lane_are_attributes_and_their_means_traits(lanes_campaign, roads):
    split = load_split(lanes_campaign(), 0, roads)
    assert set(split.held_out.attributes) == {"occluded", "worn"}
    for place, record in enumerate(records(roads / "roads", "test.jsonl")):
        assert split.held_out.attributes["worn"][place] == tuple(record["worn"])
        assert split.held_out.traits["worn"][place] == pytest.approx(np.mean(record["worn"]))
        assert split.held_out.traits["lanes"][place] == len(record["lanes"])
    taken = split.held_out.take(np.array([3, 1]))
    assert taken.traits["lanes"].tolist() == split.held_out.traits["lanes"][[3, 1]].tolist()
    assert taken.attributes["worn"][1] == split.held_out.attributes["worn"][1]


def test_pool_validation_and_test_never_meet_and_a_split_is_a_function_of_the_seed(lanes_campaign, roads):
    data = {"name": "tusimple", "root": "roads", "image_size": 48, "pool": 16, "validation": 6}
    first, again, other = (load_split(lanes_campaign(data=data), seed, roads) for seed in (3, 3, 4))
    validation = load_split(lanes_campaign(data=data, score_on="validation"), 3, roads).held_out
    assert first.pool.images.equal(again.pool.images)
    assert not first.pool.images.equal(other.pool.images)
    pool, kept, test = (
        {image.numpy().tobytes() for image in part.images} for part in (first.pool, validation, first.held_out)
    )
    assert len(pool) == 16
    assert len(kept) == 6
    assert not pool & kept
    assert not (pool | kept) & test


def test_what_is_no_lane_is_left_out_with_its_attributes(lanes_campaign, tmp_path):
    lanes = draw_road(tmp_path / "roads" / "a.png", np.random.default_rng(1))
    absent, point = [-2] * len(ROWS), [-2] * (len(ROWS) - 1) + [5]
    kept = {"raw_file": "a.png", "h_samples": ROWS, "lanes": [absent, lanes[0], point], "worn": [0.1, 0.2, 0.3]}
    empty = {"raw_file": "b.png", "h_samples": ROWS, "lanes": [], "worn": []}
    shutil.copy(tmp_path / "roads" / "a.png", tmp_path / "roads" / "b.png")
    (tmp_path / "roads" / "train.jsonl").write_text(f"{json.dumps(kept)}\n{json.dumps(empty)}\n")
    data = load_dataset(DataSettings(name="tusimple", root="roads"), tmp_path)
    part = data.training.resized(None)
    order = np.argsort([-len(lanes) for lanes in part.labels])
    assert [len(lanes) for lanes in part.labels[order]] == [1, 0]
    assert part.attributes["worn"][order].tolist() == [(0.2,), ()]
    assert part.traits["lanes"][order].tolist() == [1, 0]
    assert np.isnan(part.traits["worn"][order][1])


def test_tusimples_own_files_are_told_apart(tmp_path):
    """label_data_*.json are for training, test_label.json for testing; test_tasks_*.json repeats it without lanes."""
    rng = np.random.default_rng(2)
    names = {"label_data_0313.json": 3, "label_data_0601.json": 2, "test_label.json": 4}
    for name, count in names.items():
        lines = []
        for number in range(count):
            image = f"clips/{name[:15]}-{number}/20.jpg"
            lines.append({"raw_file": image, "h_samples": ROWS, "lanes": draw_road(tmp_path / image, rng)})
        (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    tasks = [{"raw_file": line["raw_file"], "h_samples": ROWS, "lanes": []} for line in lines]
    (tmp_path / "test_tasks_0627.json").write_text("".join(f"{json.dumps(line)}\n" for line in tasks))
    data = load_dataset(DataSettings(name="tusimple"), tmp_path)
    assert (len(data.training), len(data.test)) == (5, 4)
    assert data.training.resized(32).images.shape == (5, 3, 16, 32)


@pytest.mark.parametrize("lists", [True, False])
def test_culanes_folders_are_read_with_their_lists_or_without(lists, lanes_campaign, tmp_path):
    rng = np.random.default_rng(3)
    for number in range(10):
        image = tmp_path / "roads" / f"driver/{number}.jpg"
        lines = [" ".join(f"{x} {y}" for x, y in zip(lane, ROWS, strict=True)) for lane in draw_road(image, rng)]
        image.with_suffix(".lines.txt").write_text("\n".join(lines))
    if lists:
        folder = tmp_path / "roads" / "list"
        (folder / "test_split").mkdir(parents=True)
        (folder / "train.txt").write_text("".join(f"/driver/{number}.jpg\n" for number in range(7)))
        (folder / "train_gt.txt").write_text("".join(f"/driver/{n}.jpg /mask/{n}.png 1 1 0 0\n" for n in range(7)))
        (folder / "test.txt").write_text("".join(f"/driver/{number}.jpg\n" for number in range(7, 10)))
        (folder / "test_split" / "test0_normal.txt").write_text("/driver/8.jpg\n")
    campaign = lanes_campaign(data={"name": "culane", "root": "roads", "image_size": 32}, budget=2)
    split = load_split(campaign, 0, tmp_path)
    assert (len(split.pool), len(split.held_out)) == ((7, 3) if lists else (8, 2))
    assert split.pool.attributes == {}
    assert set(split.pool.traits) == {"lanes"}
    assert all(len(lanes) >= 1 for lanes in split.pool.labels)


def test_a_relative_root_lies_in_the_data_folder_and_an_absolute_one_stands_alone(lanes_campaign, roads, monkeypatch):
    for root, data in (("roads", roads), (roads / "roads", None), (roads / "roads", roads / "elsewhere")):
        assert len(load_split(lanes_campaign(data={"name": "tusimple", "root": root}), 0, data).pool) == 24
    monkeypatch.setenv("KDAL_DATA", str(roads))
    assert len(load_split(lanes_campaign(), 0).pool) == 24


def test_data_that_is_not_there_or_is_none_is_named(lanes_campaign, roads, tmp_path):
    with pytest.raises(ConfigError, match=f"no folder '{tmp_path}/roads'"):
        load_split(lanes_campaign(), 0, tmp_path)
    (tmp_path / "roads").mkdir()
    with pytest.raises(ConfigError, match="no TuSimple labels"):
        load_split(lanes_campaign(), 0, tmp_path)
    with pytest.raises(ConfigError, match="no CULane labels"):
        load_split(lanes_campaign(data={"name": "culane", "root": "roads"}), 0, tmp_path)
    shutil.copy(roads / "roads" / "test.jsonl", tmp_path / "roads")
    with pytest.raises(ConfigError, match="test images only"):
        load_split(lanes_campaign(), 0, tmp_path)
    shutil.copy(roads / "roads" / "train.jsonl", tmp_path / "roads")
    with pytest.raises(ConfigError, match=r"000\.png"):
        load_split(lanes_campaign(), 0, tmp_path)


def test_a_task_and_data_labelled_for_another_are_refused(lanes_campaign, roads):
    with pytest.raises(ConfigError, match="digits is labelled for task: classification"):
        load_split(lanes_campaign(data={"name": "digits"}), 0, roads)
    with pytest.raises(ConfigError, match="tusimple is labelled for task: lanes"):
        load_split(lanes_campaign(task="classification"), 0, roads)
