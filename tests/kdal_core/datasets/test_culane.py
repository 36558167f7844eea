import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.datasets import LaneScene, detect, read_culane, write_culane
from kdal_core.errors import ConfigError, LabelFormatError

OFFICIAL = "-20.4835 580 19.3893 570 58.1682 560 \n532.893 590 542.567 580 \n1679.87 560 1626.23 550 1574.15 540 \n"
IMAGE = "driver_23_30frame/05151649_0422.MP4/00000.jpg"


def put(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_lanes_come_as_they_are_written(tmp_path):
    put(tmp_path, {IMAGE.replace(".jpg", ".lines.txt"): OFFICIAL, "list/train.txt": f"/{IMAGE}\n"})
    (scene,) = read_culane(tmp_path)
    assert scene.path == IMAGE
    assert [lane.tolist() for lane in scene.lanes] == [
        [[-20.4835, 580], [19.3893, 570], [58.1682, 560]],
        [[532.893, 590], [542.567, 580]],
        [[1679.87, 560], [1626.23, 550], [1574.15, 540]],
    ]
    assert scene.lists == {"list/train.txt": (0, f"/{IMAGE}")}


def test_an_official_folder_comes_back_byte_for_byte(tmp_path):
    files = {
        "list/train.txt": "/b/00000.jpg\n/a/00000.jpg\n",
        "list/train_gt.txt": "/a/00000.jpg /laneseg_label_w16/a/00000.png 1 1 1 1\n/b/00000.jpg /x.png 0 1 1 0\n",
        "list/test_split/test0_normal.txt": "c/00030.jpg\n",
        "a/00000.lines.txt": OFFICIAL,
        "b/00000.lines.txt": "",
        "c/00030.lines.txt": "9.88654 300 1e-05 290 0.5 280 \n",
        "unlisted/1.lines.txt": "1 2 3 4 \n",
    }
    write_culane(reversed(read_culane(put(tmp_path / "once", files))), tmp_path / "again")
    assert files_of(tmp_path / "again") == files


numbers = st.floats(-2000, 4000) | st.integers(-100, 2000).map(float)
lanes = st.lists(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5), max_size=4)


@given(st.lists(lanes, max_size=4))
def test_all_values_come_back(tmp_path_factory, scenes):
    folder = tmp_path_factory.mktemp("culane")
    written = [
        LaneScene(f"{i}.jpg", tuple(np.array(lane) for lane in found), lists={"list/all.txt": (i, f"{i}.jpg")})
        for i, found in enumerate(scenes)
    ]
    write_culane(written, folder)
    if not written:
        return
    again = read_culane(folder)
    assert [scene.path for scene in again] == [scene.path for scene in written]
    assert [[lane.tolist() for lane in scene.lanes] for scene in again] == [
        [np.array(lane).tolist() for lane in found] for found in scenes
    ]


def test_a_listed_image_without_a_label_file_has_no_label_and_one_with_an_empty_file_no_lanes(tmp_path):
    put(tmp_path, {"list/all.txt": "a.jpg\n\nb.jpg\n", "b.lines.txt": "\n"})
    assert [(scene.path, scene.lanes) for scene in read_culane(tmp_path)] == [("a.jpg", None), ("b.jpg", ())]


def test_only_the_lists_asked_for_are_read(tmp_path):
    put(tmp_path, {"list/a.txt": "a.jpg\n", "list/b.txt": "b.jpg\na.jpg\n", "c.lines.txt": ""})
    assert [scene.path for scene in read_culane(tmp_path)] == ["a.jpg", "b.jpg", "c.jpg"]
    only = read_culane(tmp_path, ["list/b.txt"])
    assert [(scene.path, scene.lists) for scene in only] == [
        ("b.jpg", {"list/b.txt": (0, "b.jpg")}),
        ("a.jpg", {"list/b.txt": (1, "a.jpg")}),
    ]


def test_the_image_beside_a_label_may_be_a_png(tmp_path):
    put(tmp_path, {"a.lines.txt": "", "a.png": "", "b.lines.txt": ""})
    assert [scene.path for scene in read_culane(tmp_path)] == ["a.png", "b.jpg"]


@pytest.mark.parametrize("line", ["1 2 3", "1 x", "1 nan", "inf 2", "1,2", "0x10 2"])
def test_a_damaged_line_is_named_by_file_and_line_and_its_image_has_no_label(tmp_path, line):
    put(tmp_path, {"a.lines.txt": f"1 2 3 4\n{line}\n", "b.lines.txt": "5 6 7 8\n"})
    notes = []
    a, b = read_culane(tmp_path, (), notes.append)
    assert (a.lanes, len(b.lanes)) == (None, 1)
    (note,) = notes
    assert "a.lines.txt:2: it is no line of" in note
    assert "the label of a.jpg is unknown" in note


def test_a_label_that_is_no_text_is_named_and_its_image_has_no_label(tmp_path, caplog):
    put(tmp_path, {"b.lines.txt": "5 6 7 8\n"})
    (tmp_path / "a.lines.txt").write_bytes(b"1 2 \xff\xff 4\n\x80")
    assert [scene.lanes is None for scene in read_culane(tmp_path)] == [True, False]
    assert "a.lines.txt: it is no text" in caplog.text


@pytest.mark.parametrize(
    "text", ["1 2 3 4\r\n5 6 7 8\r\n", "\ufeff1 2 3 4\n", "1.0 2.50 3 4", "1 2 3 4\n\n5 6 7 8 \n", "\n", "1e1 2\t3 4\n"]
)
def test_labels_come_back_byte_for_byte_however_they_are_written(tmp_path, text):
    (tmp_path / "a.lines.txt").write_bytes(text.encode())
    write_culane(read_culane(tmp_path), tmp_path / "again")
    assert (tmp_path / "again/a.lines.txt").read_bytes() == text.encode()


def test_lists_of_windows_come_back_as_they_were(tmp_path):
    put(tmp_path, {"d/a.lines.txt": "1 2 3 4 \n", "d/b.lines.txt": ""})
    (tmp_path / "list").mkdir()
    text = b"\xef\xbb\xbf/d\\b.jpg\r\n\r\nd/a.jpg\r\n"
    (tmp_path / "list/all.txt").write_bytes(text)
    scenes = read_culane(tmp_path)
    assert [(scene.path, len(scene.lanes)) for scene in scenes] == [("d/b.jpg", 0), ("d/a.jpg", 1)]
    write_culane(scenes, tmp_path / "again")
    assert (tmp_path / "again/list/all.txt").read_bytes() == text.replace(b"\r\n\r\n", b"\r\n")


def test_files_that_a_mac_leaves_behind_are_no_labels(tmp_path):
    put(tmp_path, {"a.lines.txt": "", "._a.lines.txt": "\0\5", "__MACOSX/b.lines.txt": "", ".trash/c.lines.txt": ""})
    assert [scene.path for scene in read_culane(tmp_path)] == ["a.jpg"]


@pytest.mark.parametrize("name", ["../a.jpg", "/a/../../b.jpg", "/"])
def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    put(tmp_path, {"list/a.txt": f"{name}\n"})
    with pytest.raises(LabelFormatError, match=r"list/a\.txt:1: .* is no file of the data set's folder"):
        read_culane(tmp_path)
    put(tmp_path, {"b.lines.txt": ""})
    notes = []
    assert [scene.path for scene in read_culane(tmp_path, (), notes.append)] == ["b.jpg"]
    assert "is no file of the data set's folder" in notes[0]


@pytest.mark.parametrize("scene", [LaneScene("../a.jpg", ()), LaneScene("a.jpg", (), lists={"../x.txt": (0, "")})])
def test_nothing_is_written_outside_the_folder(tmp_path, scene):
    with pytest.raises(LabelFormatError, match="is no file of the data set's folder"):
        write_culane([scene], tmp_path / "folder")
    assert set(files_of(tmp_path)) <= {"folder/a.lines.txt"}


def test_data_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no CULane labels here"):
        read_culane(tmp_path)
    with pytest.raises(ConfigError, match=r"absent\.txt: cannot be read"):
        read_culane(tmp_path, ["list/absent.txt"])


def test_the_form_of_a_folder_is_told_by_what_it_holds(tmp_path):
    put(tmp_path / "t", {"train.jsonl": '{"raw_file": "a.jpg"}'})
    put(tmp_path / "listed", {"list/a.txt": ""})
    put(tmp_path / "labels", {"x/a.lines.txt": ""})
    put(tmp_path / "other", {"readme.txt": "", "package.json": "{}"})
    assert [detect(tmp_path / name) for name in ("t", "listed", "labels")] == ["tusimple", "culane", "culane"]
    with pytest.raises(ConfigError, match=r"neither TuSimple .* CULane"):
        detect(tmp_path / "other")
    with pytest.raises(ConfigError, match="no such folder"):
        detect(tmp_path / "nothing")
