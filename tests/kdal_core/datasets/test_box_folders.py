"""COCO, Pascal VOC and YOLO folders: what is read, and that what is read is written back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdal_core.datasets import BOX_FOLDERS, BoxScene, Mark, detect, read_coco, read_voc, read_yolo
from kdal_core.errors import ConfigError

WIDTH, HEIGHT = 64, 40
VOC = """<annotation verified="yes">
\t<folder>whatever</folder>
\t<filename>a.jpg</filename>
\t<source><database>Unknown</database></source>
\t<size>
\t\t<width>64</width>
\t\t<height>40</height>
\t\t<depth>3</depth>
\t</size>
\t<object>
\t\t<name>cat</name>
\t\t<pose>Left</pose>
\t\t<difficult>1</difficult>
\t\t<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>32</xmax><ymax>20</ymax></bndbox>
\t\t<part><name>head</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></part>
\t</object>
\t<object><name>dog</name><bndbox><ymin>8.5</ymin><xmin>33.25</xmin><ymax>40</ymax><xmax>64</xmax></bndbox></object>
\t<object><name>mask</name><polygon/></object>
</annotation>
"""
COCO = {
    "info": {"year": 2026},
    "licenses": [],
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT, "license": 2},
        {"id": 3, "file_name": "sub/b.jpg", "width": WIDTH, "height": HEIGHT},
    ],
    "annotations": [
        {"id": 11, "image_id": 3, "category_id": 5, "bbox": [0, 0, 16, 10.5], "area": 168, "iscrowd": 0},
        {
            "id": 4,
            "image_id": 7,
            "category_id": 9,
            "bbox": [1.333333333, 2, 3, 4],
            "segmentation": [[1, 2, 3, 4, 5, 6]],
        },
        {"id": 5, "image_id": 7, "category_id": 9, "bbox": [0, 0, 64, 40], "iscrowd": 1},
        {"id": 6, "image_id": 3, "category_id": 9, "bbox": [8, 8, 8, 8], "attributes": {"occluded": True}},
    ],
    "categories": [
        {"id": 5, "name": "cat", "supercategory": "animal"},
        {"id": 9, "name": "dog"},
        {"id": 1, "name": "owl"},
    ],
}
YOLO = {
    "data.yaml": "# ours\ntrain: images/train\nval: images/val\nnc: 3\nnames: [cat, dog, owl]\n",
    "labels/train/a.txt": "0 0.25 0.25 0.5 0.4817708333333333\n2 0.5 0.5 1 1\n",
    "labels/train/b.txt": "",
    "labels/val/d.txt": "1 .5 .5 .25 .125\n",
}


def put_image(path, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


@pytest.fixture
def voc(tmp_path):
    folder = tmp_path / "voc"
    for name in ("a", "b", "c"):
        put_image(folder / f"JPEGImages/{name}.jpg")
    (folder / "Annotations").mkdir()
    (folder / "Annotations/a.xml").write_text(VOC)
    (folder / "Annotations/b.xml").write_text(
        VOC.partition("\t<object>")[0].replace("a.jpg", "b.jpg") + "</annotation>\n"
    )
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("b\na\n")
    (folder / "ImageSets/Main/test.txt").write_text("c\n")
    (folder / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\n")
    return folder


@pytest.fixture
def coco(tmp_path):
    folder = tmp_path / "coco"
    put_image(folder / "train2017/a.jpg")
    put_image(folder / "train2017/sub/b.jpg")
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_train2017.json").write_text(json.dumps(COCO))
    return folder


@pytest.fixture
def yolo(tmp_path):
    folder = tmp_path / "yolo"
    for name in ("train/a", "train/b", "train/c", "val/d"):
        put_image(folder / f"images/{name}.jpg")
    for name, text in YOLO.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def texts(folder):
    """What all label files of a folder say."""
    found = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".jpg"]
    return {p.relative_to(folder).as_posix(): p.read_text() for p in found}


def pixels(scene):
    """Labels and corners in pixels."""
    scale = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return [(mark.label, (np.array(mark.corners) * scale).round(9).tolist()) for mark in scene.marks]


def test_pascal_voc_counts_pixels_from_one_and_a_box_holds_both_its_borders(voc):
    b, a, c = sorted(read_voc(voc), key=lambda scene: "bac".index(Path(scene.path).stem))
    assert (a.path, a.size) == ("JPEGImages/a.jpg", (WIDTH, HEIGHT))
    assert pixels(a) == [("cat", [0, 0, 32, 20]), ("dog", [32.25, 7.5, 64, 40])]
    assert (b.marks, c.marks) == ((), None)
    assert a.lists == {"ImageSets/Main/train.txt": (1, "a")}
    assert [scene.path for scene in read_voc(voc, ["ImageSets/Main/test.txt"])] == ["JPEGImages/c.jpg"]


def test_coco_counts_from_zero_and_crowds_are_no_boxes(coco):
    a, b = read_coco(coco)
    assert (a.path, b.path) == ("train2017/a.jpg", "train2017/sub/b.jpg")
    assert pixels(a) == [("dog", [1.333333333, 2, 4.333333333, 6])]
    assert pixels(b) == [("cat", [0, 0, 16, 10.5]), ("dog", [8, 8, 16, 16])]


def test_yolo_tells_middles_and_sizes_as_shares(yolo):
    a, b, c, d = read_yolo(yolo)
    assert [mark.label for mark in a.marks] == ["cat", "owl"]
    assert a.marks[1].corners == (0, 0, 1, 1)
    np.testing.assert_allclose(d.marks[0].corners, (0.375, 0.4375, 0.625, 0.5625))
    assert (b.marks, c.marks) == ((), None)
    assert (a.lists, d.lists) == ({"train": (0, "")}, {"val": (0, "")})
    assert [scene.path for scene in read_yolo(yolo, ["val"])] == ["images/val/d.jpg"]


@pytest.mark.parametrize("form", ["voc", "yolo"])
def test_folders_of_text_come_back_byte_for_byte(form, request, tmp_path):
    folder = request.getfixturevalue(form)
    assert detect(folder) == form
    BOX_FOLDERS[form].write(BOX_FOLDERS[form].read(folder, ()), tmp_path / "again")
    wanted = {name: text for name, text in texts(folder).items() if not name.endswith("cat_train.txt")}
    assert texts(tmp_path / "again") == wanted


def test_coco_comes_back_value_for_value_and_in_its_order(coco, tmp_path):
    assert detect(coco) == "coco"
    BOX_FOLDERS["coco"].write(read_coco(coco), tmp_path / "again")
    again = (tmp_path / "again/annotations/instances_train2017.json").read_text()
    assert json.loads(again) == COCO
    assert list(json.loads(again)) == list(COCO)


def changed(scene, number, **change):
    marks = list(scene.marks)
    marks[number] = replace(marks[number], **change)
    return replace(scene, marks=tuple(marks))


def test_a_moved_box_keeps_what_still_holds_of_it_in_each_form(voc, coco, yolo, tmp_path):
    for form, folder in (("voc", voc), ("coco", coco), ("yolo", yolo)):
        scenes = BOX_FOLDERS[form].read(folder, ())
        place = next(i for i, scene in enumerate(scenes) if scene.path.endswith("a.jpg"))
        scenes[place] = changed(scenes[place], 0, corners=(0.25, 0.25, 0.5, 0.75))
        BOX_FOLDERS[form].write(scenes, tmp_path / form)
    text = texts(tmp_path / "voc")["Annotations/a.xml"]
    assert "<pose>Left</pose>" in text
    assert "<name>head</name>" in text
    for side, value in zip(("xmin", "ymin", "xmax", "ymax"), (17, 11, 32, 30), strict=True):
        assert f"<{side}>{value}</{side}>" in text
    assert "<xmin>33.25</xmin>" in text
    record = json.loads((tmp_path / "coco/annotations/instances_train2017.json").read_text())
    assert record["annotations"][1] == {
        "id": 4,
        "image_id": 7,
        "category_id": 9,
        "bbox": [16, 10, 16, 20],
        "area": 320,
        "iscrowd": 0,
    }  # its old outline no longer holds
    assert [record["annotations"][i] for i in (0, 2, 3)] == [COCO["annotations"][i] for i in (0, 2, 3)]
    lines = texts(tmp_path / "yolo")["labels/train/a.txt"].splitlines()
    assert lines == ["0 0.375000 0.500000 0.250000 0.500000", "2 0.5 0.5 1 1"]


def test_a_box_that_was_renamed_added_or_taken_away_is_written_so(voc, coco, yolo, tmp_path):
    new = Mark("zebra", (0.5, 0.5, 0.75, 1.0))
    for form, folder in (("voc", voc), ("coco", coco), ("yolo", yolo)):
        scenes = BOX_FOLDERS[form].read(folder, ())
        place = next(i for i, scene in enumerate(scenes) if scene.path.endswith("a.jpg"))
        scenes[place] = changed(scenes[place], 0, label="owl")
        scenes[place] = replace(scenes[place], marks=(*scenes[place].marks[:1], new))
        BOX_FOLDERS[form].write(scenes, tmp_path / form)
        for name in ("a", "b", "c", "d"):  # the readers look for the images
            for file in folder.rglob(f"{name}.jpg"):
                put_image(tmp_path / form / file.relative_to(folder))
        again = next(s for s in BOX_FOLDERS[form].read(tmp_path / form, ()) if s.path.endswith("a.jpg"))
        assert [mark.label for mark in again.marks] == ["owl", "zebra"]
        np.testing.assert_allclose(again.marks[0].corners, scenes[place].marks[0].corners, atol=1e-6)
        np.testing.assert_allclose(again.marks[1].corners, new.corners, atol=1e-6)


shares = st.tuples(*[st.integers(0, 31)] * 2, *[st.integers(32, 64)] * 2).map(lambda c: tuple(v / 64 for v in c))
marks = st.lists(st.builds(Mark, st.sampled_from(["cat", "dog", "ärger & <x>"]), shares), max_size=4).map(tuple)


@pytest.mark.parametrize("form", ["voc", "coco", "yolo"])
@given(found=st.lists(marks, min_size=1, max_size=3))
@settings(max_examples=15)
def test_scenes_that_came_from_no_folder_are_written_and_read_again(form, found, tmp_path_factory):
    folder = tmp_path_factory.mktemp(form)
    scenes = [BoxScene(f"images/{i}.jpg", boxes, size=(WIDTH, HEIGHT)) for i, boxes in enumerate(found)]
    for scene in scenes:
        put_image(folder / scene.path)
    BOX_FOLDERS[form].write(scenes, folder)
    again = {scene.path: scene for scene in BOX_FOLDERS[form].read(folder, ())}
    assert set(again) == {scene.path for scene in scenes}
    for scene in scenes:
        other = again[scene.path]
        assert [mark.label for mark in other.marks] == [mark.label for mark in scene.marks]
        for a, b in zip(other.marks, scene.marks, strict=True):
            np.testing.assert_allclose(a.corners, b.corners, atol=2e-6)  # YOLO's six digits
    shutil.rmtree(folder)


def test_darknets_lists_and_names_are_read(tmp_path):
    put_image(tmp_path / "pictures/a.png")
    (tmp_path / "pictures/a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (scene,) = read_yolo(tmp_path)
    assert (scene.path, scene.marks[0].label) == ("pictures/a.png", "dog")
    (tmp_path / "list.txt").write_text("./pictures/a.png\n")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": "list.txt", "names": {0: "x", 1: "y"}}))
    (scene,) = read_yolo(tmp_path)
    assert (scene.path, scene.marks[0].label) == ("pictures/a.png", "y")


def test_a_folder_of_no_form_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"neither TuSimple .* nor YOLO"):
        detect(tmp_path)
    for read in (read_voc, read_coco, read_yolo):
        with pytest.raises(ConfigError):
            read(tmp_path)
