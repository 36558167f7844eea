"""Pascal VOC folders as people's tools write them: what is read, what is left out by name, what comes back."""

import os

import pytest

from kdal_core.datasets import detect, read_voc, write_voc
from kdal_core.errors import ConfigError, KdalError, LabelFormatError
from tests.kdal_core.datasets.folders import differing, labels, put, turned

SIZE = "<size><width>100</width><height>80</height><depth>3</depth></size>"
BOX = "<xmin>11</xmin><ymin>9</ymin><xmax>30</xmax><ymax>40</ymax>"
CORNERS = (0.1, 0.1, 0.3, 0.5)
A, IMAGE = "Annotations/a.xml", "JPEGImages/a.jpg"
CELL = {IMAGE: ["cell"]}


def xml(name="cell", size=SIZE, file="a.jpg", box=f"<bndbox>{BOX}</bndbox>", head="", objects=1):
    one = f"\t<object>\n\t\t<name>{name}</name>\n\t\t{box}\n\t</object>\n"
    return f"{head}<annotation>\n\t<filename>{file}</filename>\n\t{size}\n{one * objects}</annotation>\n"


def read(folder, lists=()):
    """What is read, and what is said about it."""
    notes = []
    return labels(read_voc(folder, lists, notes.append)), notes


def declared(encoding):
    return f'<?xml version="1.0" encoding="{encoding}"?>\n'


@pytest.mark.parametrize(
    ("label", "image", "file"),
    [
        (A, "images/a.jpg", "a.jpg"),
        (A, "a.jpg", "a.jpg"),
        ("a.xml", "a.jpg", "a.jpg"),
        ("xml/a.xml", "img/a.jpg", "a.jpg"),
        ("labels/train/a.xml", "pictures/train/a.jpg", "a.jpg"),
        ("VOC2007/Annotations/a.xml", "VOC2007/JPEGImages/a.jpg", "a.jpg"),
        (A, IMAGE, "a"),
        (A, IMAGE, ""),
        (A, IMAGE, "C:\\data\\a.jpg"),
        (A, IMAGE, "../../../etc/a.jpg"),
        (A, IMAGE, "renamed.png"),
        (A, "JPEGImages/a.JPG", "a.jpg"),
        (A, "JPEGImages/a.JPEG", "a"),
        ("Annotations/1.xml", IMAGE, "a.jpg"),
        ("Annotations/a.v1.2.xml", "JPEGImages/a.v1.2.jpg", "a.v1.2"),
        ("Annotations/a.XML", IMAGE, "a.jpg"),
    ],
)
def test_a_label_finds_its_image_in_the_folders_of_other_tools(tmp_path, label, image, file):
    put(tmp_path, {label: xml(file=file)}, [image])
    assert detect(tmp_path) == "voc"
    assert read(tmp_path) == ({image: ["cell"]}, [])
    write_voc(read_voc(tmp_path), tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []


@pytest.mark.parametrize(
    "content",
    [
        xml("汽车", head=declared("gb2312")).encode("gb2312"),
        xml("朱镕基", head=declared("gb2312")).encode("gb18030"),
        xml("größe", head=declared("ISO-8859-1")).encode("latin-1"),
        xml("größe", head=declared("windows-1252")).encode("cp1252"),
        xml("größe", head=declared("utf-16")).encode("utf-16"),
        b"\xfe\xff" + xml("größe", head=declared("utf-16")).encode("utf-16-be"),
        xml("größe", head=declared("utf-16")).encode(),
        xml("größe").encode("utf-16"),
        xml("größe", head=declared("utf-8")).encode("utf-8-sig"),
        xml("größe").replace("\n", "\r\n").encode(),
        xml("größe").strip().encode(),
        b"\n\n" + xml("größe", head=declared("utf-8")).encode(),
    ],
)
def test_labels_are_read_in_the_encoding_that_they_declare_and_come_back_byte_for_byte(tmp_path, content):
    put(tmp_path, {A: content}, [IMAGE])
    assert detect(tmp_path) == "voc"
    found, notes = read(tmp_path)
    assert found[IMAGE][0] in ("汽车", "朱镕基", "größe")
    assert notes == []
    write_voc(read_voc(tmp_path), tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []


@pytest.mark.parametrize("size", ["", "<size><width>0</width><height>0</height></size>", "<size>x</size>"])
@pytest.mark.parametrize(("exif", "seen"), [(None, (100, 80)), (turned(), (80, 100))])
def test_a_label_without_a_size_is_for_the_picture_as_people_see_it(tmp_path, size, exif, seen):
    put(tmp_path, {A: xml(size=size)}, [IMAGE], **({"exif": exif} if exif else {}))
    (scene,) = read_voc(tmp_path)
    assert scene.size == seen
    assert scene.marks[0].corners == pytest.approx((10 / seen[0], 8 / seen[1], 30 / seen[0], 40 / seen[1]))


def test_a_label_for_the_turned_picture_is_read_and_one_for_the_stored_picture_named(tmp_path):
    upright = "<size><width>80</width><height>100</height></size>"
    files = {A: xml(size=upright), "Annotations/b.xml": xml(file="b.jpg")}
    put(tmp_path, files, [IMAGE, "JPEGImages/b.jpg"], exif=turned())
    found, (note,) = read(tmp_path)
    assert found == CELL | {"JPEGImages/b.jpg": None}
    assert "b.xml: its label is for 100 x 80 pixels, the picture has 80 x 100 as it is shown" in note
    assert "EXIF" in note


def test_other_xml_files_in_the_tree_are_no_labels(tmp_path):
    others = {".idea/workspace.xml": "<project/>", "pom.xml": "<project/>", "x/a.jpg.aux.xml": "<PAMDataset/>"}
    put(tmp_path, {A: xml(), "Annotations/._a.xml": b"\0\5\x16", "__MACOSX/a.xml": xml(), **others}, [IMAGE])
    assert read(tmp_path) == (CELL, [])


def test_a_folder_of_other_xml_files_is_none(tmp_path):
    put(tmp_path, {"pom.xml": "<project/>"}, ["a.jpg"])
    with pytest.raises(KdalError, match="neither TuSimple"):
        detect(tmp_path)
    with pytest.raises(ConfigError, match="no Pascal VOC labels here"):
        read_voc(tmp_path)


def replaced(old, new):
    text = xml(objects=2)
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is no XML"),
        ("<annotation>", "it is no XML"),
        ('<!DOCTYPE annotation [<!ENTITY x "y">]><annotation/>', "it is no XML"),
        ('<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + xml("&x;"), "it is no XML"),
        ("<x/>", "it is no <annotation> but <x>"),
        (replaced("<name>cell</name>", ""), "object 1 has no name"),
        (replaced("<name>cell</name>", "<name> </name>"), "object 1 has no name"),
        (replaced("<xmin>11</xmin>", "<xmin>one</xmin>"), "object 1 has no box of four numbers"),
        (replaced("<xmin>11</xmin>", "<xmin>nan</xmin>"), "object 1 has no box of four numbers"),
        (replaced("<xmin>11</xmin>", "<xmin>1e300</xmin>"), "object 1 has no box of four numbers"),
        (replaced("<xmin>11</xmin>", ""), "object 1 has no box of four numbers"),
        (xml(box=""), "none of its 1 objects has a box"),
        (xml(box="<polygon/>"), "none of its 1 objects has a box"),
        (xml(head=declared("no-such-thing")), "no text in the encoding that it declares"),
        (xml(head=declared("idna")), "no text in the encoding that it declares"),
        (xml("größe", head=declared("ascii")), "no text in the encoding that it declares"),
        (b"<annotation>\xff</annotation>", "no text in the encoding that it declares"),
        (xml(size="<size><width>10</width><height>90</height></size>"), "its label is for 10 x 90 pixels"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_label_that_cannot_be_used_leaves_its_image_without_one_by_name(tmp_path, text, message, listed):
    put(tmp_path, {A: text, "Annotations/b.xml": xml(file="b.jpg")}, [IMAGE, "JPEGImages/b.jpg"])
    if listed:
        put(tmp_path, {"ImageSets/Main/train.txt": "a\nb\n"})
    found, (note,) = read(tmp_path)
    assert found == {IMAGE: None, "JPEGImages/b.jpg": ["cell"]}
    assert f"{tmp_path / A}: " in note
    assert message in note


def test_a_damaged_label_of_no_image_is_left_out_by_name_and_alone_refused(tmp_path):
    put(tmp_path, {"Annotations/b.xml": "<annotation>"})
    with pytest.raises(LabelFormatError, match=r"b\.xml: it is no XML"):
        read_voc(tmp_path)
    put(tmp_path, {A: xml()}, [IMAGE])
    found, notes = read(tmp_path)
    assert found == CELL
    assert "b.xml: it is no XML" in notes[0]


def test_an_image_without_a_label_file_has_no_label_and_an_empty_one_shows_nothing(tmp_path):
    put(tmp_path, {A: xml(), "Annotations/b.xml": xml(file="b.jpg", objects=0)})
    put(tmp_path, images=[IMAGE, "JPEGImages/b.jpg", "JPEGImages/c.png", "docs/d.png", "JPEGImages/._a.jpg"])
    assert read(tmp_path) == (CELL | {"JPEGImages/b.jpg": [], "JPEGImages/c.png": None}, [])
    write_voc(read_voc(tmp_path), tmp_path / "again")
    assert sorted(path.name for path in (tmp_path / "again/Annotations").iterdir()) == ["a.xml", "b.xml"]


def test_an_object_without_a_box_is_left_out_of_those_with_one_and_said(tmp_path):
    put(tmp_path, {A: xml().replace("</annotation>", "<object><name>x</name></object></annotation>")}, [IMAGE])
    found, (note,) = read(tmp_path)
    assert found == CELL
    assert "an object without a box or an outline" in note


@pytest.mark.parametrize(
    "polygon",
    [
        "<polygon><pt><x>11</x><y>40</y></pt><pt><x>30</x><y>9</y></pt><pt><x>20</x><y>20</y></pt></polygon>",
        "<polygon><x1>11</x1><y1>40</y1><x2>30</x2><y2>9</y2></polygon>",
    ],
)
def test_an_outline_is_read_as_the_box_around_it(tmp_path, polygon):
    put(tmp_path, {A: xml(box=polygon)}, [IMAGE])
    (scene,) = read_voc(tmp_path)
    assert scene.marks[0].corners == pytest.approx(CORNERS)
    write_voc([scene], tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []


@pytest.mark.parametrize("line", ["a", "a.jpg", "JPEGImages/a.jpg", "a\r", "a.xml"])
def test_lists_may_name_images_and_come_back_as_they_were(tmp_path, line):
    put(tmp_path, {A: xml(), "ImageSets/Main/train.txt": f"# ours\n{line}\n", "ImageSets/Main/cat_train.txt": "a  1\n"})
    put(tmp_path, images=[IMAGE])
    (scene,) = read_voc(tmp_path)
    assert (scene.path, scene.lists) == (IMAGE, {"ImageSets/Main/train.txt": (1, line)})


def test_lists_below_a_devkit_are_read_and_say_whose_they_are(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        put(tmp_path / year, {A: xml(year), "ImageSets/Main/test.txt": "a\n"}, [IMAGE])
    found = {scene.path: (scene.marks[0].label, list(scene.lists)) for scene in read_voc(tmp_path)}
    assert found == {
        f"{year}/JPEGImages/a.jpg": (year, [f"{year}/ImageSets/Main/test.txt"]) for year in ("VOC2007", "VOC2012")
    }


@pytest.mark.parametrize("line", ["../a", "/", "a/../../b", "\0"])
def test_a_list_never_leads_out_of_the_folder(tmp_path, line):
    put(tmp_path, {A: xml(), "ImageSets/Main/train.txt": f"{line}\n"}, [IMAGE])
    found, (note,) = read(tmp_path)
    assert found == CELL
    assert "train.txt:1: " in note


def test_an_image_with_two_labels_that_differ_has_none_and_both_are_named(tmp_path):
    put(tmp_path, {A: xml(), "JPEGImages/a.xml": xml("other")}, [IMAGE])
    found, (note,) = read(tmp_path)
    assert found == {IMAGE: None}
    assert "Annotations/a.xml and JPEGImages/a.xml both label it" in note
    put(tmp_path, {"JPEGImages/a.xml": xml()})
    assert read(tmp_path) == (CELL, [])


def test_a_label_that_may_be_of_two_images_is_of_none(tmp_path):
    put(tmp_path, {A: xml(file="b.jpg"), "Annotations/c.xml": xml(file="c")})
    put(tmp_path, images=[IMAGE, "JPEGImages/b.jpg", "JPEGImages/c.jpg", "JPEGImages/c.png"])
    found, notes = read(tmp_path)
    assert all(marks is None for marks in found.values())
    assert "a.xml: it says that it is of JPEGImages/b.jpg, and its name says JPEGImages/a.jpg" in notes[0]
    assert "c.xml: it may be of any of 2 images" in notes[1]


def test_a_label_in_a_namespace_is_read_and_changed_within_it(tmp_path):
    text = xml(objects=2).replace("<annotation>", '<annotation xmlns="http://example.org/voc">')
    put(tmp_path, {A: text}, [IMAGE])
    (scene,) = read_voc(tmp_path)
    assert [mark.corners for mark in scene.marks] == [pytest.approx(CORNERS)] * 2
    write_voc([scene], tmp_path / "again")
    assert differing(tmp_path, tmp_path / "again") == []
    first, second = scene.marks
    moved = type(first)("dog", (0.5, 0.5, 0.75, 1.0), first.extra)
    changed = type(scene)(scene.path, (moved, second), scene.extra, scene.lists, scene.size)
    write_voc([changed], put(tmp_path / "changed", images=[IMAGE]))
    (again,) = read_voc(tmp_path / "changed")
    assert [(mark.label, mark.corners) for mark in again.marks] == [
        ("dog", pytest.approx((0.5, 0.5, 0.75, 1.0))),
        ("cell", pytest.approx(CORNERS)),
    ]
    assert "ns0" not in (tmp_path / "changed" / A).read_text()


def test_a_pipe_in_the_tree_is_no_label(tmp_path):
    put(tmp_path, {A: xml()}, [IMAGE])
    os.mkfifo(tmp_path / "Annotations/b.xml")
    os.mkfifo(tmp_path / "JPEGImages/c.jpg")
    found, _ = read(tmp_path)
    assert found.pop(IMAGE) == ["cell"]
