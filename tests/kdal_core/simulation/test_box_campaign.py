"""A tiny campaign on boxes, from folders of each form to its points."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kdal_core.datasets import BOX_FOLDERS, BoxScene, Mark
from kdal_core.errors import ConfigError
from kdal_core.simulation import Campaign, simulate, write_report
from kdal_core.simulation.annotator import make_annotator
from kdal_core.simulation.campaign import DataSettings
from kdal_core.simulation.datasets import load_dataset, load_split
from kdal_core.simulation.runner import Setting, run_arm, training_setup
from kdal_core.tasks import Box, BoxTask

BOXES = {
    "name": "plates",
    "task": "boxes",
    "data": {"name": "voc", "root": "plates", "image_size": 48},
    "budget": 4,
    "rounds": 2,
    "seeds": [0],
    "models": {"student": "tiny_boxes", "teacher": "small_boxes"},
    "training": {"epochs": 1, "batch_size": 4, "min_steps": 3, "max_steps": 3, "device": "cpu"},
    "strategies": ["random", "kd_gap"],
}
ALL = [
    "entropy",
    "least_confidence",
    "margin",
    "ensemble",
    "acd",
    "learning_loss",
    "badge",
    "coreset",
    "typiclust",
    "ppal",
]


def campaign(**changes):
    return Campaign.parse({**BOXES, **changes})


def scenes_in(folder, lists):
    """Images of 64 x 48 pixels with up to three bright rectangles; two marks of the first are no boxes."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(lists):
        image, marks = Image.new("RGB", (64, 48), tuple(rng.integers(0, 100, 3).tolist())), []
        for column in range(int(rng.integers(1, 4))):
            x, y = 21 * column + int(rng.integers(0, 6)), int(rng.integers(0, 28))
            wide, high = int(rng.integers(8, 15)), int(rng.integers(8, 17))
            ImageDraw.Draw(image).rectangle([x, y, x + wide - 1, y + high - 1], fill=(230, 230, 230))
            marks.append(Mark(["plate", "tray"][column % 2], (x / 64, y / 48, (x + wide) / 64, (y + high) / 48)))
        if number == 0:
            marks += [Mark("plate", (0.5, 0.5, 0.5 + 1 / 64, 0.5 + 1 / 48)), Mark("plate", (1.5, 0, 2, 1))]
        path = f"JPEGImages/{number:03d}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / path)
        yield BoxScene(
            path, tuple(marks), lists={f"ImageSets/Main/{name}.txt": (number, f"{number:03d}")}, size=(64, 48)
        )


@pytest.fixture(scope="session")
def plates(tmp_path_factory):
    """A folder that holds `plates`, a box data set in Pascal VOC's form: 24 images to label, 6 for testing."""
    folder = tmp_path_factory.mktemp("data")
    BOX_FOLDERS["voc"].write(scenes_in(folder / "plates", ["train"] * 24 + ["test"] * 6), folder / "plates")
    return folder


def setting(settings, data, seed=0):
    split = load_split(settings, seed, data)
    annotator = make_annotator(settings.annotator, settings.noise, split.pool.labels, 2, seed)
    return Setting(training_setup(settings, split), split, annotator, seed)


def test_the_boxes_of_a_folder_are_those_of_its_files_and_what_is_no_box_is_left_out(plates):
    data = load_dataset(DataSettings(name="voc", root="plates"), plates)
    assert (data.task, data.classes, len(data.training), len(data.test)) == ("boxes", ("plate", "tray"), 24, 6)
    images = data.training.resized(48)
    assert images.images.shape == (24, 3, 36, 48)
    assert images.traits["boxes"].tolist() == [len(boxes) for boxes in images.labels]
    for picture, boxes in zip(images.images, images.labels, strict=True):
        assert 1 <= len(boxes) <= 3  # of the first image two are none: a single pixel, and beside the image
        for box in boxes:
            assert isinstance(box, Box)
            left, top, right, bottom = (round(v) for v in np.array(box.corners) * [48, 36, 48, 36])
            assert picture[:, top + 2 : bottom - 2, left + 2 : right - 2].min() > 200


def test_the_objects_of_a_folder_cut_out_are_images_with_a_class_each(plates):
    boxes = load_dataset(DataSettings(name="voc", root="plates"), plates)
    data = load_dataset(DataSettings(name="voc_objects", root="plates"), plates)
    assert (data.task, data.classes) == ("classification", ("plate", "tray"))
    for objects, whole in ((data.training, boxes.training), (data.test, boxes.test)):
        labels = [box.label for scene in whole.resized(64).labels for box in scene]
        assert objects.labels.tolist() == labels
        assert objects.images.shape == (len(labels), 3, 96, 96)
        # A bright rectangle in the middle, and the dark ground around it.
        middle, rim = objects.images[:, :, 40:56, 40:56], objects.images[:, :, [0, -1]]
        assert (middle > 200).float().mean() > 0.95
        assert (rim < 150).float().mean() > 0.6


def test_objects_of_a_folder_without_any_for_testing_are_refused(tmp_path):
    scenes = list(scenes_in(tmp_path, ["train"] * 4 + ["test"]))
    BOX_FOLDERS["voc"].write([*scenes[:4], replace(scenes[4], marks=())], tmp_path)
    with pytest.raises(ConfigError, match="has a box"):
        load_dataset(DataSettings(name="voc_objects"), tmp_path)


@pytest.mark.parametrize(
    ("lists", "training", "test"),
    [
        (["train"] * 6 + ["val"] * 4, 6, 4),
        (["train"] * 6 + ["val"] * 3 + ["test"], 9, 1),
        (["trainval"] * 10, 8, 2),
    ],
)
def test_test_images_are_those_that_a_list_calls_so_else_validation_else_a_fifth(lists, training, test, tmp_path):
    BOX_FOLDERS["voc"].write(scenes_in(tmp_path, lists), tmp_path)
    data = load_dataset(DataSettings(name="voc"), tmp_path)
    assert (len(data.training), len(data.test)) == (training, test)


@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_other_forms_give_the_same_images_and_boxes(form, plates, tmp_path):
    scenes = [scene for scene in BOX_FOLDERS["voc"].read(plates / "plates", ()) if scene.marks is not None]
    plain = [BoxScene(s.path, tuple(Mark(m.label, m.corners) for m in s.marks), size=s.size) for s in scenes]
    BOX_FOLDERS[form].write(plain, tmp_path)
    for scene in plain:
        (tmp_path / scene.path).parent.mkdir(exist_ok=True)
        (tmp_path / scene.path).write_bytes((plates / "plates" / scene.path).read_bytes())
    data = load_dataset(DataSettings(name=form), tmp_path)
    assert (len(data.training), len(data.test), data.classes) == (24, 6, ("plate", "tray"))
    labels = [label for part in (data.training, data.test) for label in part.resized(None).labels]
    assert sum(map(len, labels)) == sum(len(scene.marks) for scene in scenes) - 2


def test_a_campaign_on_boxes_goes_from_its_settings_to_its_page(plates, tmp_path):
    results = simulate(campaign(), tmp_path, data=plates, workers=1)
    assert results.metric == "mAP@.5"
    assert results.full_labels == 24
    assert [[point.labels for point in run.points] for run in results.runs] == [[4, 8], [4, 8]]
    assert all(0 <= point.score <= 1 for run in results.runs for point in run.points)
    assert set(results.runs[1].points[0].correlations) >= {"entropy", "entropy of boxes", "D_SS + D_ST"}
    assert "mAP@.5" in write_report(results, tmp_path).read_text()


def test_runs_are_not_mixed_with_those_from_before_box_tasks_were_trained_otherwise(plates, tmp_path, monkeypatch):
    few = campaign(rounds=1, strategies=["random"])
    simulate(few, tmp_path, data=plates, workers=1)
    changed = replace(BoxTask.defaults, training={**BoxTask.defaults.training, "kd_weight": 5.0})
    monkeypatch.setattr(BoxTask, "defaults", changed)
    with pytest.raises(ConfigError, match="other settings"):
        list(run_arm(setting(few, plates), few.strategies[0], next(tmp_path.glob("runs/random*/seed-0.json"))))


def test_a_teacher_on_a_pretrained_backbone_is_named_after_it(plates, tmp_path):
    models = {"student": "tiny_boxes", "teacher": "mobilenet_v2", "weights": "auto"}
    found = setting(campaign(models=models, rounds=1, strategies=["random"]), plates)
    spec = found.setup.spec
    assert (spec.student, spec.teacher) == ("tiny_boxes", "pretrained/mobilenet_v2")
    assert (spec.student_weights, spec.teacher_weights) == ("none", "auto")
    (point,) = run_arm(found, found.setup.campaign.strategies[0], tmp_path / "run.json")
    assert point.scores.keys() == {"teacher", "distilled"}


@pytest.mark.parametrize("name", [*ALL, "ppal"])
def test_every_strategy_orders_a_pool_of_boxes(name, plates, tmp_path):
    found = setting(campaign(strategies=["random", name], ensemble=2), plates)
    points = list(run_arm(found, found.setup.campaign.strategies[1], tmp_path / "run.json"))
    assert [point.labels for point in points] == [4, 8]
    labelled = json.loads((tmp_path / "run.json").read_text())["labelled"]
    assert len(set(labelled)) == 8


def test_a_budget_of_boxes_buys_images_until_their_boxes_fill_it(plates, tmp_path):
    found = setting(campaign(budget=5, budget_unit="objects", rounds=3, annotator={"seconds": 2, "spread": 0}), plates)
    for number, arm in enumerate(found.setup.campaign.strategies):
        points = list(run_arm(found, arm, tmp_path / f"{number}.json"))
        assert [point.labels for point in points] == [5, 10, 15]
        labelled = json.loads((tmp_path / f"{number}.json").read_text())["labelled"]
        boxes = [len(found.split.pool.labels[image]) for image in labelled]
        assert sum(boxes) >= 15 > sum(boxes[:-1])
        assert points[-1].annotator_seconds == pytest.approx(2 * sum(boxes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget_unit": "objects", "annotator": {"ahead": 1}}, "annotator.ahead: 0"),
        ({"noise": {"kind": "uniform", "rate": 0.1}}, "there is no noise for them"),
        ({"strategies": ["random", "bald"]}, "a network for boxes has no head over its features"),
    ],
)
def test_what_boxes_have_no_meaning_for_is_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        campaign(**change)


def test_a_folder_without_boxes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="There is no folder"):
        load_dataset(DataSettings(name="voc", root="nowhere"), tmp_path)
    BOX_FOLDERS["voc"].write([BoxScene("JPEGImages/a.png", (), size=(8, 8))], tmp_path)
    with pytest.raises(ConfigError, match="has a box"):
        load_dataset(DataSettings(name="voc"), tmp_path)


def test_an_image_with_clicks_alone_is_not_one_without_boxes(tmp_path):
    scenes = list(scenes_in(tmp_path, ["train"] * 6))
    click = BoxScene(scenes[1].path, (Mark("plate", (0.5, 0.5, 0.5, 0.5)),), lists=scenes[1].lists, size=(64, 48))
    BOX_FOLDERS["voc"].write([scenes[0], click, *scenes[2:]], tmp_path)
    data = load_dataset(DataSettings(name="voc"), tmp_path)
    assert len(data.training) + len(data.test) == 5
