"""COCO files as people's tools write them: what is read, what is left out by name, and what is refused."""

import json

import pytest

from kdal_core.datasets import detect, read_coco, write_coco
from kdal_core.errors import ConfigError, KdalError, LabelFormatError
from tests.kdal_core.datasets.folders import labels, put, turned

CATEGORIES = [{"id": 1, "name": "cell"}]


def image(number, name, **fields):
    return {"id": number, "file_name": name, "width": 100, "height": 80} | fields


def box(number, of, category=1, **fields):
    return {"id": number, "image_id": of, "category_id": category, "bbox": [10, 10, 20, 20], "iscrowd": 0} | fields


def data(images=None, annotations=None, categories=None, **more):
    return {
        "images": [image(1, "a.jpg"), image(2, "b.jpg")] if images is None else images,
        "annotations": [box(1, 1), box(2, 2)] if annotations is None else annotations,
        "categories": CATEGORIES if categories is None else categories,
    } | more


def write(folder, content, name="instances.json", images=("a.jpg", "b.jpg"), **options):
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    return put(folder, {name: text}, images, **options)


def read(folder, lists=()):
    """What is read, and what is said about it."""
    notes = []
    scenes = read_coco(folder, lists, notes.append)
    return labels(scenes), notes


BOTH = {"a.jpg": ["cell"], "b.jpg": ["cell"]}


def test_two_images_with_one_id_are_refused_by_both_names(tmp_path):
    write(tmp_path, data([image(1, "a.jpg"), image(1, "b.jpg")]))
    with pytest.raises(LabelFormatError, match=r"instances\.json: a\.jpg and b\.jpg have the same id, 1"):
        read_coco(tmp_path)


@pytest.mark.parametrize("again", [1, 3])
def test_an_image_that_is_listed_twice_is_one_image_with_all_its_boxes(tmp_path, again):
    content = data([image(1, "a.jpg"), image(2, "b.jpg"), image(again, "a.jpg", license=4)])
    content["annotations"] = [box(1, 1), box(2, 2), box(3, again, bbox=[1, 2, 3, 4])]
    write(tmp_path, content)
    assert read(tmp_path) == ({"a.jpg": ["cell", "cell"], "b.jpg": ["cell"]}, [])
    write_coco(read_coco(tmp_path), tmp_path / "again")
    assert json.loads((tmp_path / "again/instances.json").read_text()) == content


def test_numbers_and_text_that_mean_the_same_record_are_one(tmp_path):
    write(tmp_path, data([image("1", "a.jpg"), image(2.0, "b.jpg")], [box(1, 1), box(2, "2", "1")]))
    assert read(tmp_path) == (BOTH, [])


def test_a_root_category_that_no_box_uses_may_be_called_like_a_class(tmp_path):
    root = {"id": 0, "name": "cell", "supercategory": "none"}
    content = data(categories=[root, {"id": 1, "name": "cell", "supercategory": "cell"}])
    write(tmp_path, content)
    assert read(tmp_path) == (BOTH, [])
    write_coco(read_coco(tmp_path), tmp_path / "again")
    assert json.loads((tmp_path / "again/instances.json").read_text()) == content


def test_two_classes_of_one_name_are_refused(tmp_path):
    write(tmp_path, data(annotations=[box(1, 1), box(2, 2, 5)], categories=[*CATEGORIES, {"id": 5, "name": "cell"}]))
    with pytest.raises(LabelFormatError, match="categories must have distinct names, found 'cell' for both 1 and 5"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("name", "images"),
    [
        ("train/_annotations.coco.json", ("train/a.jpg", "train/b.jpg")),
        ("annotations/instances_train2017.json", ("train2017/a.jpg", "train2017/b.jpg")),
        ("annotations/instances_default.json", ("images/default/a.jpg", "images/default/b.jpg")),
        ("set/annotations/x.json", ("set/images/a.jpg", "set/images/b.jpg")),
        ("labels.json", ("data/a.jpg", "data/b.jpg")),
    ],
)
def test_folders_of_other_tools_are_known_and_their_images_found(tmp_path, name, images):
    write(tmp_path, data(), name, images)
    assert detect(tmp_path) == "coco"
    assert read(tmp_path) == ({name: ["cell"] for name in images}, [])


def test_roboflows_splits_are_read_together(tmp_path):
    for split in ("train", "valid", "test"):
        write(tmp_path, data([image(0, f"{split}.jpg")], [box(0, 0)]), f"{split}/_annotations.coco.json", ())
        put(tmp_path, images=[f"{split}/{split}.jpg"])
    assert set(read(tmp_path)[0]) == {"train/train.jpg", "valid/valid.jpg", "test/test.jpg"}
    assert set(read(tmp_path, ["train/_annotations.coco.json"])[0]) == {"train/train.jpg"}


@pytest.mark.parametrize(
    "said",
    [
        "images\\{}",
        "../../label-studio/data/media/upload/4/{}",
        "..\\..\\media\\upload\\4\\{}",
        "C:\\data\\{}",
        "/home/somebody/images/{}",
        "https://somewhere/data/upload/4/{}",
        "/data/local-files/?d=set/images/{}",
        "s3://bucket/set/{}",
    ],
)
def test_paths_of_another_computer_mean_the_images_of_these_names_below_the_folder(tmp_path, said):
    content = data([image(0, said.format("a.jpg")), image(1, said.format("b.jpg"))], [box(0, 0), box(1, 1)])
    write(tmp_path, content, "result.json", ("images/a.jpg", "images/b.jpg"))
    assert read(tmp_path) == ({"images/a.jpg": ["cell"], "images/b.jpg": ["cell"]}, [])


def test_an_image_is_not_taken_for_another_of_its_name(tmp_path):
    """Two of one name below the folder, or one that another record names by its path."""
    content = data([image(1, "../x/a.jpg"), image(2, "../y/b.jpg"), image(3, "two/b.jpg")], [box(1, 1), box(2, 2)])
    write(tmp_path, content, images=("one/a.jpg", "two/a.jpg", "two/b.jpg"))
    found, notes = read(tmp_path)
    assert found == {"two/b.jpg": []}
    assert "'../x/a.jpg' is no file of the data set's folder; 2 images below the folder have its name" in notes[0]
    assert "'../y/b.jpg' is no file of the data set's folder" in notes[1]


def test_images_of_the_same_name_elsewhere_are_not_both_the_one_that_is_here(tmp_path):
    content = data([image(1, "../3/a.jpg"), image(2, "../4/a.jpg"), image(3, "b.jpg")], [box(1, 1), box(2, 2)])
    write(tmp_path, content)
    found, notes = read(tmp_path)
    assert found == {"b.jpg": []}
    assert len(notes) == 2


def test_a_path_never_leads_out_of_the_folder(tmp_path):
    put(tmp_path, images=["secret.jpg"])
    inside = tmp_path / "inside"
    write(
        inside,
        data([image(1, "../secret.jpg"), image(2, str(tmp_path / "secret.jpg")), image(3, "a.jpg")], [box(1, 1)]),
    )
    found, notes = read(inside)
    assert all(not path.startswith("..") and not path.startswith("/") for path in found)
    assert [path for path in found if (inside / path).is_file()] == ["a.jpg"]
    assert "'../secret.jpg' is no file of the data set's folder: it is left out" in notes[0]


def test_a_list_of_images_has_no_labels_and_is_written_as_one(tmp_path):
    content = {"images": [image(1, "a.jpg"), image(2, "b.jpg")], "categories": CATEGORIES, "info": {}}
    write(tmp_path, content)
    assert detect(tmp_path) == "coco"
    assert read(tmp_path) == ({"a.jpg": None, "b.jpg": None}, [])
    write_coco(read_coco(tmp_path), tmp_path / "again")
    assert json.loads((tmp_path / "again/instances.json").read_text()) == content


def test_an_unlabelled_image_is_not_written_where_it_would_show_no_object(tmp_path):
    write(tmp_path, data(annotations=[box(1, 1), box(2, 2, bbox="here")]))
    write_coco(read_coco(tmp_path), put(tmp_path / "again", images=("a.jpg", "b.jpg")))
    assert read(tmp_path / "again") == ({"a.jpg": ["cell"]}, [])


OUTLINE = [[1, 1, 50, 1, 50, 41]]


@pytest.mark.parametrize("empty", [{"bbox": []}, {"bbox": None}, {}])
def test_an_object_without_a_bbox_is_the_box_around_its_outline(tmp_path, empty):
    annotation = box(2, 2, segmentation=OUTLINE)
    del annotation["bbox"]
    content = data(annotations=[box(1, 1), annotation | empty])
    write(tmp_path, content)
    _, b = read_coco(tmp_path)
    assert b.marks[0].corners == pytest.approx((0.01, 1 / 80, 0.5, 41 / 80))
    write_coco(read_coco(tmp_path), tmp_path / "again")
    assert json.loads((tmp_path / "again/instances.json").read_text()) == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": []}, "it has no bbox, and no outline"),
        ({"bbox": [], "segmentation": {"counts": "x", "size": [80, 100]}}, "it has no bbox, and no outline"),
        ({"bbox": [], "segmentation": [[1, 2, 3]]}, "it has no bbox, and no outline"),
        ({"bbox": [], "segmentation": [[]]}, "it has no bbox, and no outline"),
        ({"bbox": [1, 2, 3]}, "its bbox is no list of four numbers"),
        ({"bbox": [1, 2, 3, "4"]}, "its bbox is no list of four numbers"),
        ({"bbox": [1, 2, 3, True]}, "its bbox is no list of four numbers"),
        ({"bbox": {"x": 1}}, "its bbox is no list of four numbers"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "one is not finite"),
        ({"bbox": [1, 2, float("inf"), 4]}, "one is not finite"),
        ({"bbox": [1, 2, 10**400, 4]}, "one is not finite, or far from the image"),
        ({"bbox": [1, 2, -3, 4]}, "its bbox has a negative size"),
        ({"category_id": 77}, "its category 77 is none"),
        ({"category_id": None}, "its category None is none"),
        ({"iscrowd": 1}, "it shows crowds only"),
    ],
)
def test_an_object_that_cannot_be_read_leaves_its_image_without_a_label_by_name(tmp_path, change, message):
    write(tmp_path, data(annotations=[box(1, 1), box(2, 2) | change]))
    found, (note,) = read(tmp_path)
    assert found == {"a.jpg": ["cell"], "b.jpg": None}
    assert "instances.json: b.jpg: " in note
    assert message in note
    assert "label is unknown" in note


def test_a_bbox_without_size_is_told_as_it_is(tmp_path):
    write(tmp_path, data(annotations=[box(1, 1), box(2, 2, bbox=[5, 5, 0, 0])]))
    assert read(tmp_path) == (BOTH, [])


def test_a_crowd_beside_objects_is_kept_and_is_no_box(tmp_path):
    content = data(annotations=[box(1, 1), box(2, 2), box(3, 2, iscrowd=1)])
    write(tmp_path, content)
    assert read(tmp_path) == (BOTH, [])
    write_coco(read_coco(tmp_path), tmp_path / "again")
    assert json.loads((tmp_path / "again/instances.json").read_text()) == content


def test_annotations_of_images_that_are_not_listed_are_left_out_and_counted(tmp_path):
    write(tmp_path, data(annotations=[box(1, 1), box(2, 2), box(3, 77), box(4, 78), box(5, None)]))
    found, (note,) = read(tmp_path)
    assert found == BOTH
    assert "annotation 3 is of image 77, which is none, and 2 more of such images: left out" in note


def test_annotations_that_are_all_of_other_images_do_not_mean_that_these_show_nothing(tmp_path):
    write(tmp_path, data(annotations=[box(1, 71), box(2, 72)]))
    with pytest.raises(LabelFormatError, match="annotation 1 is of image 71, which is none, and so are all others"):
        read_coco(tmp_path)


def test_a_size_that_is_not_the_images_is_said_by_name(tmp_path):
    images = [image(1, "a.jpg", width=80, height=100), image(2, "b.jpg", width=50, height=50), image(3, "c.jpg")]
    images.append(image(4, "d.jpg", width=50, height=40))  # a smaller copy of the picture: shares are the same
    write(tmp_path, data(images, [box(n, n) for n in range(1, 5)]), images=("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    found, notes = read(tmp_path)
    assert found == {"a.jpg": None, "b.jpg": None, "c.jpg": ["cell"], "d.jpg": ["cell"]}
    assert (
        "a.jpg: its label is for 80 x 100 pixels, the picture has 100 x 80 as it is shown: width and height" in notes[0]
    )
    assert "b.jpg: its label is for 50 x 50 pixels" in notes[1]


@pytest.mark.parametrize(
    "sizes", [{}, {"width": 0, "height": 0}, {"width": None, "height": None}, {"width": "80", "height": 100.0}]
)
def test_an_image_whose_camera_was_turned_has_the_size_that_people_see(tmp_path, sizes):
    record = {"id": 1, "file_name": "a.jpg"} | sizes
    write(tmp_path, data([record], [box(1, 1)]), images=("a.jpg",), exif=turned())
    (scene,) = read_coco(tmp_path)
    assert scene.size == (80, 100)
    assert scene.marks[0].corners == pytest.approx((0.125, 0.1, 0.375, 0.3))


def test_an_image_without_a_size_that_cannot_be_read_leaves_the_others(tmp_path):
    record = {"file_name": "b.jpg", "id": 2}
    write(tmp_path, data([image(1, "a.jpg"), record]), images=("a.jpg",))
    found, (note,) = read(tmp_path)
    assert found == {"a.jpg": ["cell"], "b.jpg": None}
    assert "b.jpg: nobody says how large the image is" in note


@pytest.mark.parametrize(
    "record", [{"id": 2}, {"file_name": "b.jpg"}, {"id": None, "file_name": "b.jpg"}, {"id": 2, "file_name": 5}]
)
def test_a_record_that_names_no_image_is_left_out(tmp_path, record):
    write(tmp_path, data([image(1, "a.jpg"), record]))
    found, notes = read(tmp_path)
    assert found == {"a.jpg": ["cell"]}
    assert "image 2 has no id and file_name" in notes[0]


@pytest.mark.parametrize("name", ["", "a\0.jpg", "\ud800.jpg", "x" * 5000 + ".jpg", ".", "..", "a\n.jpg"])
def test_names_that_are_no_files_leave_the_others(tmp_path, name):
    write(tmp_path, data([image(1, "a.jpg"), image(2, name)]))
    found, _ = read(tmp_path)
    assert found.pop("a.jpg") == ["cell"]
    assert not any((tmp_path / path).exists() for path in found)


def test_the_second_label_file_of_the_published_data_set_is_left_out(tmp_path):
    write(tmp_path, data(), "annotations/instances_val2017.json")
    write(tmp_path, data(annotations=[box(9, 1)]), "annotations/person_keypoints_val2017.json")
    found, (note,) = read(tmp_path)
    assert found == BOTH
    assert "person_keypoints_val2017.json: it labels the images of another file a second time" in note


def test_an_image_with_two_labels_is_refused_by_both_files_and_with_the_same_one_read_once(tmp_path):
    write(tmp_path, data(), "all.json")
    write(tmp_path, data([image(5, "a.jpg")], [box(7, 5)]), "part.json")
    found, (note,) = read(tmp_path)
    assert found == BOTH
    assert "part.json: a.jpg: it has the same label in all.json" in note
    write(tmp_path, data([image(5, "a.jpg")], [box(7, 5, bbox=[0, 0, 9, 9])]), "part.json")
    with pytest.raises(LabelFormatError, match=r"part\.json: a\.jpg has a label in all\.json too, and another one"):
        read_coco(tmp_path)
    assert read(tmp_path, ["part.json"]) == ({"a.jpg": ["cell"]}, [])


def test_a_damaged_file_beside_a_good_one_is_named_and_alone_refused(tmp_path):
    write(tmp_path, json.dumps(data())[:-9], "train.json")
    with pytest.raises(LabelFormatError, match=r"train\.json: it is no JSON"):
        read_coco(tmp_path)
    write(tmp_path, data(), "val.json")
    found, notes = read(tmp_path)
    assert found == BOTH
    assert "train.json: it is no JSON" in notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "images": [], "annotations": [], "categories": []}', "the key 'images' is there twice"),
        ('{"images": [{"id": 1, "id": 2}], "annotations": []}', "the key 'id' is there twice"),
        ('{"images": ' + "[" * 200_000 + ', "annotations"', "it is no JSON"),
        ('{"images": [], "annotations": 5, "categories": []}', "it has no list of annotations"),
        ('{"images": [3], "annotations": [], "categories": []}', "it has no list of images"),
        ('{"images": [], "annotations": [{}], "categories": null}', "it has no list of categories"),
        ('{"images": [{"id": ' + "9" * 6000 + '}], "annotations": []}', "it is no JSON"),
        ("[]", "it has no list of images"),
        ("\udcff", "it is no JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(LabelFormatError, match=message) as caught:
        read_coco(tmp_path, ["x.json"])
    assert "x.json" in str(caught.value)


def test_files_with_a_byte_order_mark_or_in_utf_16_are_read(tmp_path):
    for place, encoding in enumerate(("utf-8-sig", "utf-16")):
        folder = write(tmp_path / str(place), json.dumps(data()).encode(encoding))
        assert detect(folder) == "coco"
        assert read(folder) == (BOTH, [])


def test_what_is_no_coco_file_is_none(tmp_path):
    put(
        tmp_path,
        {"package.json": '{"images": 1}', "._x.json": json.dumps(data()), ".x/annotations/y.json": json.dumps(data())},
    )
    put(tmp_path, {"results.json": json.dumps([box(1, 1)]), "train/1.json": json.dumps(data())})
    with pytest.raises(ConfigError, match="no COCO labels here"):
        read_coco(tmp_path)
    with pytest.raises(KdalError, match="neither TuSimple"):
        detect(tmp_path)


def test_boxes_keep_their_category_where_the_file_s_head_went_with_another_image(tmp_path):
    """Of images that are written again, the one may be missing that kept the categories."""
    categories = [{"id": 5, "name": "zebra"}, {"id": 9, "name": "ant"}]
    write(tmp_path, data(annotations=[box(1, 1, 5), box(2, 2, 5), box(3, 2, 9)], categories=categories))
    write_coco(read_coco(tmp_path)[1:], tmp_path / "again")
    again = json.loads((tmp_path / "again/instances.json").read_text())
    names = {category["id"]: category["name"] for category in again["categories"]}
    assert [names[a["category_id"]] for a in again["annotations"]] == ["zebra", "ant"]
