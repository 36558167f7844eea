"""YOLO folders as people's tools write them: what is read, what is left out by name, what comes back."""

import json

import pytest
import yaml

from kdal_core.datasets import BoxScene, Mark, detect, read_yolo, write_yolo
from kdal_core.errors import ConfigError, KdalError, LabelFormatError
from tests.kdal_core.datasets.folders import differing, labels, put

LINE = "0 0.5 0.5 0.2 0.2\n"
CORNERS = pytest.approx((0.4, 0.4, 0.6, 0.6))
SETTINGS = "train: images\nval: images\nnames: [cell]\n"


def read(folder, lists=()):
    """What is read, and what is said about it."""
    notes = []
    return labels(read_yolo(folder, lists, notes.append)), notes


def splits(folder):
    return {scene.path: sorted(scene.lists) for scene in read_yolo(folder)}


@pytest.mark.parametrize(
    ("settings", "train", "val"),
    [
        ("train: ../train/images\nval: ../valid/images\n", "train", "valid"),
        ("train: ./train/images\nval: ./valid\n", "train", "valid"),
        ("path: ../datasets/x\ntrain: train/images\nval: valid/images\n", "train", "valid"),
        ("path: set\ntrain: train/images\nval: valid/images\n", "set/train", "set/valid"),
        ("path: ./set/\ntrain: train/images\nval:\n- valid/images\n", "set/train", "set/valid"),
        ("train: C:\\data\\set\\train\\images\nval: 'D:\\valid\\images'\n", "train", "valid"),
        ("train: /home/somebody/set/train/images\nval: /x/valid\n", "train", "valid"),
        ("train: /content/x/train/images/\nval: ['../valid/images']\ntest:\n", "train", "valid"),
    ],
)
def test_splits_are_found_wherever_the_folder_came_from(tmp_path, settings, train, val):
    put(tmp_path, {"data.yaml": f"{settings}names: [cell]\n"})
    put(tmp_path, {f"{train}/labels/a.txt": LINE, f"{val}/labels/b.txt": LINE})
    put(tmp_path, images=[f"{train}/images/a.jpg", f"{val}/images/b.jpg"])
    assert read(tmp_path) == ({f"{train}/images/a.jpg": ["cell"], f"{val}/images/b.jpg": ["cell"]}, [])
    assert splits(tmp_path) == {f"{train}/images/a.jpg": ["train"], f"{val}/images/b.jpg": ["val"]}


@pytest.mark.parametrize(
    "test", ["../test/images", "C:\\data\\test\\images", "/elsewhere/images", "test.txt", "../../etc"]
)
def test_a_split_that_is_not_there_is_named_and_the_others_are_read(tmp_path, test):
    put(tmp_path, {"data.yaml": f"{SETTINGS}test: {json.dumps(test)}\n", "labels/a.txt": LINE}, ["images/a.jpg"])
    found, (note,) = read(tmp_path)
    assert found == {"images/a.jpg": ["cell"]}
    assert splits(tmp_path) == {"images/a.jpg": ["train", "val"]}
    assert f"its split 'test' is said to be in {test!r}, which is not there: left out" in note
    with pytest.raises(ConfigError, match="its split 'test'"):
        read_yolo(tmp_path, ["test"])


def test_a_folder_without_any_of_its_splits_is_refused(tmp_path):
    put(tmp_path, {"data.yaml": "names: [a]\ntrain: nowhere"}, ["images/a.jpg"])
    with pytest.raises(ConfigError, match="'train' is said to be in 'nowhere'"):
        read_yolo(tmp_path)


@pytest.mark.parametrize("name", ["data.yaml", "data.yml", "dataset.yaml", "coco128.yaml"])
@pytest.mark.parametrize(
    "names",
    ["[cell, 'blood cell']", "{0: cell, 1: blood cell}", "\n- cell\n- blood cell", "\n  '1': blood cell\n  0: cell"],
)
def test_names_are_a_list_or_a_mapping_in_whichever_file(tmp_path, name, names):
    put(tmp_path, {name: f"train: images\nnc: 2\nnames: {names}\n", "labels/a.txt": LINE + LINE.replace("0", "1", 1)})
    put(tmp_path, {"hyp.yaml": "lr0: 0.01\n", "broken.yml": "a: [\n"}, ["images/a.jpg"])
    assert detect(tmp_path) == "yolo"
    assert read(tmp_path) == ({"images/a.jpg": ["cell", "blood cell"]}, [])


def test_names_that_yaml_reads_as_other_things_stay_names_and_come_back(tmp_path):
    names = ["yes", "no", "null", "1", "1.0", "~x", "2026-11-21", "0x10"]
    lines = "".join(f"{number} 0.5 0.5 0.1 0.1\n" for number in range(len(names)))
    put(
        tmp_path,
        {"data.yaml": f"train: images\nnames: [{', '.join(names)}]\n", "labels/a.txt": lines},
        ["images/a.jpg"],
    )
    assert read(tmp_path)[0] == {"images/a.jpg": names}
    (scene,) = read_yolo(tmp_path)
    plain = BoxScene(scene.path, tuple(Mark(mark.label, mark.corners) for mark in scene.marks))
    write_yolo([plain], put(tmp_path / "again", images=["images/a.jpg"]))
    assert read(tmp_path / "again")[0] == {"images/a.jpg": names}
    written = yaml.safe_load((tmp_path / "again/data.yaml").read_text())["names"]
    assert sorted(written.values()) == sorted(names)  # as texts, for whoever else reads them


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (LINE, ["cell"]),
        ("0 0.5 0.5 0.2 0.2", ["cell"]),
        ("0.0 0.5 0.5 0.2 0.2\n", ["cell"]),
        ("\ufeff" + LINE, ["cell"]),
        ((LINE * 2).replace("\n", "\r\n"), ["cell"] * 2),
        (f"\n# a comment\n{LINE}\n\n{LINE}", ["cell"] * 2),
        ("  0\t0.5  .5 2e-1 0.2 \n", ["cell"]),
        ("", []),
        ("\n\n", []),
        ("0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6\n", ["cell"]),
        ("0 0.4 0.4 0.6 0.5 0.5 0.6\n", ["cell"]),
        ("0 0.5 0.5 0.2 0.2 0.91\n", ["cell"]),
        ("0 0.5 0.5 0 0\n", ["cell"]),
    ],
)
def test_label_files_are_read_however_they_are_written_and_come_back_byte_for_byte(tmp_path, text, names):
    put(tmp_path, {"data.yaml": SETTINGS.replace("\n", "\r\n"), "labels/a.txt": text}, ["images/a.jpg"])
    (scene,) = read_yolo(tmp_path)
    assert [mark.label for mark in scene.marks] == names
    if "0 0\n" not in text:
        assert all(mark.corners == CORNERS for mark in scene.marks)
    write_yolo([scene], tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_of_windows_is_read_and_comes_back_byte_for_byte(tmp_path, encoding):
    files = {"classes.txt": "Zürich\r\nBern".encode(encoding), "labels/a.txt": LINE.encode(encoding)}
    put(tmp_path, files, ["images/a.jpg"])
    assert read(tmp_path) == ({"images/a.jpg": ["Zürich"]}, [])
    write_yolo(read_yolo(tmp_path), tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []


def test_confidences_are_ignored_with_a_word(tmp_path):
    files = {"data.yaml": SETTINGS, "labels/a.txt": "0 0.5 0.5 0.2 0.2 0.91\n" * 3, "labels/b.txt": LINE}
    put(tmp_path, files, ["images/a.jpg", "images/b.jpg"])
    found, (note,) = read(tmp_path)
    assert found == {"images/a.jpg": ["cell"] * 3, "images/b.jpg": ["cell"]}
    assert "labels/a.txt: a sixth number, a confidence, is ignored (and 2 more)" in note


def test_key_points_behind_a_box_are_no_outline(tmp_path):
    pose = "0 0.5 0.5 0.2 0.2 0.1 0.1 0.9 0.9\n"
    put(tmp_path, {"data.yaml": SETTINGS + "kpt_shape: [2, 2]\n", "labels/a.txt": pose}, ["images/a.jpg"])
    (scene,) = read_yolo(tmp_path)
    assert scene.marks[0].corners == CORNERS
    write_yolo([scene], tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "no class number and four shares"),
        ("0", "no class number and four shares"),
        ("cell 0.5 0.5 0.5 0.5", "no class number and four shares"),
        ("0 0.5 0.5 0.5 x", "no class number and four shares"),
        ("0 0,5 0,5 0,2 0,2", "no class number and four shares"),
        ("0.5 0.5 0.5 0.5 1", "no class number and four shares"),
        ("-1 0.5 0.5 0.5 1", "no class number and four shares"),
        ("nan 0.5 0.5 0.5 1", "no class number and four shares"),
        ("1_0 0.5 0.5 0.5 1", "no class number and four shares"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.3", "8 words"),
        ("0 0.5 nan 0.5 0.5", "four finite shares"),
        ("0 0.5 0.5 inf 0.5", "four finite shares"),
        ("0 50 40 20 16", "four finite shares of the image's width and height"),
        ("0 1 2 30 40 50 6", "four finite shares of the image's width and height"),
        ("0 0.5 0.5 -0.1 0.5", "its box has a negative size"),
        ("3 0.5 0.5 0.5 0.5", "class 3 has no name"),
        ("1 0.5 0.5 0.5 0.5", "class 1 has no name"),
    ],
)
def test_a_line_that_cannot_be_read_leaves_its_image_without_a_label_by_file_and_line(tmp_path, line, message):
    files = {"classes.txt": "cell\n\nthird\n", "labels/a.txt": f"{LINE}\n{line}\n", "labels/b.txt": LINE}
    put(tmp_path, files, ["images/a.jpg", "images/b.jpg"])
    found, (note,) = read(tmp_path)
    assert found == {"images/a.jpg": None, "images/b.jpg": ["cell"]}
    assert "labels/a.txt:3: " in note
    assert message in note
    assert "the label of images/a.jpg is unknown" in note


def test_a_label_file_that_is_no_text_leaves_its_image_without_a_label(tmp_path):
    files = {"data.yaml": SETTINGS, "labels/a.txt": b"\xff\x00\xff", "labels/b.txt": LINE}
    put(tmp_path, files, ["images/a.jpg", "images/b.jpg"])
    found, (note,) = read(tmp_path)
    assert found == {"images/a.jpg": None, "images/b.jpg": ["cell"]}
    assert "labels/a.txt: it is no text in UTF-8" in note


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("images/train/a.jpg", "images/train/a.txt"),
        ("JPEGImages/a.jpg", "labels/a.txt"),
        ("images/train/images/a.jpg", "images/train/labels/a.txt"),
        ("a.JPG", "a.txt"),
        ("images/a.v1.2.png", "labels/a.v1.2.txt"),
    ],
)
def test_a_label_lies_in_a_folder_that_mirrors_the_images_or_beside_its_image(tmp_path, image, label):
    put(tmp_path, {"classes.txt": "cell\n", label: LINE}, [image])
    assert read(tmp_path) == ({image: ["cell"]}, [])
    write_yolo(read_yolo(tmp_path), tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []


def test_an_image_without_a_label_file_has_no_label(tmp_path):
    put(tmp_path, {"data.yaml": SETTINGS, "labels/a.txt": LINE, "labels/b.txt": ""})
    put(tmp_path, images=["images/a.jpg", "images/b.jpg", "images/c.jpg", "images/._a.jpg", "images/.x/d.jpg"])
    put(tmp_path, {"images/Thumbs.db": b"\0", "images/._b.txt": b"\0"})
    assert read(tmp_path) == ({"images/a.jpg": ["cell"], "images/b.jpg": [], "images/c.jpg": None}, [])


def test_a_label_that_may_be_of_two_images_is_of_none(tmp_path):
    put(tmp_path, {"data.yaml": SETTINGS, "labels/a.txt": LINE}, ["images/a.jpg", "images/a.png", "images/b.jpg"])
    found, notes = read(tmp_path)
    assert set(found.values()) == {None}
    assert all("labels/a.txt: it may be of images/a.jpg or of images/a.png" in note for note in notes)


def test_labels_without_an_image_are_counted(tmp_path):
    put(tmp_path, {"data.yaml": SETTINGS, "labels/a.txt": LINE, "labels/x.txt": LINE, "labels/y.txt": LINE})
    put(tmp_path, {"labels/classes.txt": "cell\n", "labels/readme.txt": "hello\n"}, ["images/a.jpg"])
    found, (note,) = read(tmp_path)
    assert found == {"images/a.jpg": ["cell"]}
    assert "labels/x.txt: a label file without an image (and 1 more)" in note


@pytest.mark.parametrize(
    "line", ["{}", "./{}", "/home/x/set/{}", "C:\\set\\{}", "../set/{}", "data/{}", "\ufeff{}", "{}\r"]
)
def test_lists_name_images_as_other_computers_did(tmp_path, line):
    text = f"# ours\n\n{line.format('images/a.jpg')}\n"
    put(tmp_path, {"data.yaml": "train: train.txt\nnames: [cell]\n", "labels/a.txt": LINE}, ["images/a.jpg"])
    put(tmp_path, {"train.txt": text if not text.endswith("\r\n") else text.replace("\n", "\r\n")})
    assert read(tmp_path) == ({"images/a.jpg": ["cell"]}, [])


def test_a_list_never_leads_out_of_the_folder(tmp_path):
    put(tmp_path, images=["secret.jpg"])
    inside = put(tmp_path / "inside", {"data.yaml": "train: train.txt\nnames: [cell]\n"}, ["a.jpg"])
    put(inside, {"train.txt": "../secret.jpg\na.jpg\n/../secret.jpg\n"})
    found, notes = read(inside)
    assert found == {"a.jpg": None}
    assert "train.txt:1: '../secret.jpg' is no file of the data set's folder: it is left out" in notes[0]
    put(inside, {"data.yaml": "train: ..\nval: ../\ntest: a.jpg\nnames: [cell]\n"})
    assert all((inside / path).resolve().is_relative_to(inside) for path in read(inside)[0])


def bomb():
    """A billion entries, as YAML writes them in a few lines."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a\n", "it is no YAML"),
        ("names: {0: a, 0: b}\n", "a key is there twice"),
        ("names: [a]\nnames: [b]\n", "a key is there twice"),
        ("[1]", "it is no mapping"),
        ("", "it is no mapping"),
        ("names: {x: a}\ntrain: images", "class numbers with a name each"),
        ("names: {-1: a}\ntrain: images", "class numbers with a name each"),
        ("names: cell\ntrain: images", "class numbers with a name each"),
        ("names: [[a]]\ntrain: images", "class numbers with a name each"),
        ("names: [a, a]\ntrain: images", "two classes have the same name"),
        (bomb() + "\nnames: *a8\n", "class numbers with a name each"),
        ("a: " + "[" * 2000 + "\n", "it is no YAML"),
        ("a: &a [*a]\nnames: *a\n", "it is no YAML"),
        (b"names: [Z\xfcrich]\n", "it is no text in UTF-8"),
        ("x" * (5 * 1024**2), "more than any settings"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(tmp_path, text, message):
    put(tmp_path, {"data.yaml": text}, ["images/a.jpg"])
    with pytest.raises(LabelFormatError, match=message) as caught:
        read_yolo(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_what_yaml_would_run_is_text(tmp_path):
    text = "names: !!python/object/apply:os.mkdir [" + str(tmp_path / "made") + "]\ntrain: images\n"
    put(tmp_path, {"data.yaml": text, "labels/a.txt": LINE}, ["images/a.jpg"])
    assert read(tmp_path) == ({"images/a.jpg": [str(tmp_path / "made")]}, [])
    assert not (tmp_path / "made").exists()


def test_what_names_no_classes_is_no_yolo_folder(tmp_path):
    put(tmp_path, {"hyp.yaml": "lr0: 0.01\n", "docker-compose.yml": "services: {}\n"}, ["images/a.jpg"])
    with pytest.raises(KdalError, match="neither TuSimple"):
        detect(tmp_path)
    with pytest.raises(ConfigError, match="nothing says what the classes are called"):
        read_yolo(tmp_path)


def test_boxes_keep_their_numbers_where_the_names_went_with_another_image(tmp_path):
    """Of images that are written again, the one may be missing that kept the names."""
    put(tmp_path, {"data.yaml": "train: images\nnames: [zebra, ant, bee]\n"}, ["images/a.jpg", "images/b.jpg"])
    put(tmp_path, {"labels/a.txt": LINE, "labels/b.txt": LINE + LINE.replace("0", "2", 1)})
    write_yolo(read_yolo(tmp_path)[1:], put(tmp_path / "again", images=["images/b.jpg"]))
    assert (tmp_path / "again/labels/b.txt").read_text() == (tmp_path / "labels/b.txt").read_text()
    assert read(tmp_path / "again")[0] == {"images/b.jpg": ["zebra", "bee"]}


def test_very_many_lines_are_read(tmp_path):
    put(tmp_path, {"data.yaml": SETTINGS, "labels/a.txt": LINE * 100_000}, ["images/a.jpg"])
    (scene,) = read_yolo(tmp_path)
    assert len(scene.marks) == 100_000
