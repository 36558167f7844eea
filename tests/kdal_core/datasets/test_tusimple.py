import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kdal_core.datasets import LaneScene, read_tusimple, write_tusimple
from kdal_core.datasets.tusimple import at_rows, gaps_of, label_files, rows_of
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.validation import InvalidInput

OFFICIAL = (
    '{"lanes": [[-2, -2, 632, 625, 617], [-2, 719, 734, -2, -2], [-2, -2, -2, -2, -2]], '
    '"h_samples": [240, 250, 260, 270, 280], "raw_file": "clips/0313-1/6040/20.jpg"}\n'
)


def write(folder, text, name="label_data.json"):
    (folder / name).write_text(text)
    return folder


def test_a_lane_is_its_points_at_the_rows_where_it_is_present(tmp_path):
    (scene,) = read_tusimple(write(tmp_path, OFFICIAL))
    assert scene.path == "clips/0313-1/6040/20.jpg"
    assert [lane.tolist() for lane in scene.lanes] == [
        [[632, 260], [625, 270], [617, 280]],
        [[719, 250], [734, 260]],
        [],
    ]
    assert scene.extra == {"h_samples": [240, 250, 260, 270, 280]}
    assert scene.lists == {"label_data.json": (0, "")}


def test_an_official_file_comes_back_byte_for_byte(tmp_path):
    text = OFFICIAL + OFFICIAL.replace("6040", "5320").replace("632", "-2")
    write_tusimple(read_tusimple(write(tmp_path, text)), tmp_path / "again")
    assert (tmp_path / "again" / "label_data.json").read_text() == text


xs = st.one_of(st.just(-2), st.integers(0, 1280), st.integers(0, 12_800).map(lambda i: i / 10), st.floats(0, 1280))


@st.composite
def records(draw):
    rows = draw(st.lists(st.integers(0, 720), unique=True, max_size=8).map(sorted))
    lanes = draw(st.lists(st.lists(xs, min_size=len(rows), max_size=len(rows)), max_size=4))
    extra = draw(st.dictionaries(st.sampled_from(["tag", "occluded", "run_time"]), st.integers() | st.text(max_size=3)))
    unlabelled = draw(st.booleans()) and draw(st.booleans())
    return {"h_samples": rows, "tag": "night"} | ({} if unlabelled else {"lanes": lanes}) | extra


@given(st.lists(records(), max_size=4), st.lists(records(), max_size=2))
def test_all_values_files_and_lines_come_back(tmp_path_factory, training, test):
    folder = tmp_path_factory.mktemp("tusimple")
    for name, found in (("train.jsonl", training), ("test.json", test)):
        lines = [json.dumps(record | {"raw_file": f"{name}/{i}.jpg"}) for i, record in enumerate(found)]
        (folder / name).write_text("\n".join(lines))
    if not (training or test):
        return
    write_tusimple(reversed(read_tusimple(folder)), folder / "again")
    for name, found in (("train.jsonl", training), ("test.json", test)):
        if found:
            again = [json.loads(line) for line in (folder / "again" / name).read_text().splitlines()]
            assert again == [record | {"raw_file": f"{name}/{i}.jpg"} for i, record in enumerate(found)]


def test_only_the_files_asked_for_are_read(tmp_path):
    write(tmp_path, OFFICIAL, "a.json")
    write(tmp_path, OFFICIAL.replace("6040", "1"), "b.jsonl")
    write(tmp_path, '{"something": "else"}', "c.json")
    write(tmp_path, "no json", "d.json")
    write(tmp_path, "", "e.json")
    assert label_files(tmp_path) == ["a.json", "b.jsonl"]
    assert len(read_tusimple(tmp_path)) == 2
    assert [scene.path for scene in read_tusimple(tmp_path, ["b.jsonl"])] == ["clips/0313-1/1/20.jpg"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no raw_file"),
        ('{"raw_file": 5}', "no raw_file"),
        ('{"raw_file": ""}', "is no file of the data set's folder"),
        ('{"raw_file": "../a.jpg"}', "is no file of the data set's folder"),
        ('{"raw_file": "a/../../b.jpg"}', "is no file of the data set's folder"),
        ('{"raw_file": "a.jpg", "lanes": []}', "h_samples is no list of numbers"),
        ('{"raw_file": "a.jpg", "lanes": [], "h_samples": [1, "2"]}', "h_samples is no list of numbers"),
        ('{"raw_file": "a.jpg", "lanes": [], "h_samples": [1, true]}', "h_samples is no list of numbers"),
        ('{"raw_file": "a.jpg", "lanes": [], "h_samples": [2, 1]}', "h_samples must rise"),
        ('{"raw_file": "a.jpg", "lanes": [], "h_samples": [1, 1]}', "h_samples must rise"),
        ('{"raw_file": "a.jpg", "lanes": 5, "h_samples": [1]}', "lanes is no list"),
        ('{"raw_file": "a.jpg", "lanes": [5], "h_samples": [1]}', "lane 1 is no list of numbers"),
        ('{"raw_file": "a.jpg", "lanes": [[5], [5, 6]], "h_samples": [1]}', "lane 2 has 2 numbers for 1 rows"),
        ('{"raw_file": "a.jpg", "lanes": [[NaN]], "h_samples": [1]}', "lane 1 holds a number that is not finite"),
        ('{"raw_file": "a.jpg", "lanes": [[' + "9" * 400 + ']], "h_samples": [1]}', "too large"),
    ],
)
def test_a_damaged_record_is_named_by_file_and_line_and_gives_no_label(tmp_path, line, message):
    notes = []
    good, *damaged = read_tusimple(write(tmp_path, OFFICIAL + "\n" + line), (), notes.append)
    assert len(good.lanes) == 3
    assert all((scene.path, scene.lanes) == ("a.jpg", None) for scene in damaged)
    assert bool(damaged) == line.startswith('{"raw_file": "a.jpg"')
    (note,) = notes
    assert f"{tmp_path / 'label_data.json'}:3: " in note
    assert message in note


@pytest.mark.parametrize("line", ["[]", '{"raw_file": "../a.jpg", "lanes": [], "h_samples": [1]}'])
def test_a_file_of_damaged_records_alone_is_refused(tmp_path, line):
    with pytest.raises(LabelFormatError, match=r"label_data\.json:1: "):
        read_tusimple(write(tmp_path, line), ["label_data.json"])


TASKS = [{"h_samples": [240, 250], "lanes": [], "run_time": 1000, "raw_file": f"clips/0530/{k}/20.jpg"} for k in (1, 2)]
LABELS = [{"lanes": [[-2, 7]], "h_samples": [240, 250], "raw_file": f"clips/0530/{k}/20.jpg"} for k in (1, 2)]


def lines(records):
    return "".join(f"{json.dumps(record)}\n" for record in records)


@pytest.mark.parametrize("name", ["test_tasks_0627.json", "tasks.jsonl", "test.json"])
@pytest.mark.parametrize("timed", [True, False])
def test_a_list_of_images_to_be_labelled_does_not_say_that_they_show_no_lane(tmp_path, name, timed, caplog):
    records = TASKS if timed else [{k: v for k, v in task.items() if k != "run_time"} for task in TASKS]
    scenes = read_tusimple(write(tmp_path, lines(records), name))
    assert [scene.lanes for scene in scenes] == [None, None]
    assert f"{name}:1: clips/0530/1/20.jpg: no image of this file has a lane" in caplog.text
    assert "and 1 more" in caplog.text
    write_tusimple(scenes, tmp_path / "again")
    assert [json.loads(line) for line in (tmp_path / "again" / name).read_text().splitlines()] == records


@pytest.mark.parametrize("names", [("a_label.json", "b_tasks.json"), ("b_label.json", "a_tasks.json")])
def test_the_lanes_of_a_label_file_count_beside_the_list_of_its_images(tmp_path, names, caplog):
    label, tasks = names
    write(tmp_path, lines(LABELS), label)
    write(tmp_path, lines([*TASKS, TASKS[0] | {"raw_file": "clips/0530/3/20.jpg"}]), tasks)
    found = {scene.path: scene for scene in read_tusimple(tmp_path)}
    lanes = {path: None if scene.lanes is None else len(scene.lanes) for path, scene in found.items()}
    assert lanes == {"clips/0530/1/20.jpg": 1, "clips/0530/2/20.jpg": 1, "clips/0530/3/20.jpg": None}
    assert set(found["clips/0530/1/20.jpg"].lists) == {label}
    assert "clips/0530/3/20.jpg: no image of this file has a lane" in caplog.text
    assert "more" not in caplog.text


def test_an_image_without_lanes_shows_none_where_its_file_tells_lanes_of_others(tmp_path):
    write(tmp_path, lines([LABELS[0], LABELS[1] | {"lanes": []}]), "train.json")
    assert [len(scene.lanes) for scene in read_tusimple(tmp_path)] == [1, 0]


def test_lanes_that_are_null_are_no_label(tmp_path):
    write(tmp_path, lines([LABELS[0], LABELS[1] | {"lanes": None}]), "train.json")
    assert [scene.lanes is None for scene in read_tusimple(tmp_path)] == [False, True]


def test_a_file_of_windows_with_a_line_separator_in_a_name_is_read(tmp_path):
    text = "\ufeff" + OFFICIAL.replace("\n", "\r\n") + OFFICIAL.replace("6040", "60\u202840")
    (tmp_path / "label.json").write_bytes(text.encode())
    assert label_files(tmp_path) == ["label.json"]
    assert [scene.path.split("/")[2] for scene in read_tusimple(tmp_path)] == ["6040", "60\u202840"]


def test_a_damaged_first_line_does_not_hide_the_file(tmp_path):
    write(tmp_path, '{"raw_file": \n' + OFFICIAL)
    notes = []
    assert len(read_tusimple(tmp_path, (), notes.append)) == 1
    assert "label_data.json:1: it is no JSON" in notes[0]


def test_an_image_with_two_labels_is_refused_by_both_places(tmp_path):
    write(tmp_path, OFFICIAL, "a.json")
    write(tmp_path, "\n" + OFFICIAL, "b.json")
    with pytest.raises(LabelFormatError, match=r"b\.json:2: clips/0313-1/6040/20\.jpg has a label in a\.json:1 too"):
        read_tusimple(tmp_path)


def test_data_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no TuSimple labels here"):
        read_tusimple(tmp_path)
    with pytest.raises(ConfigError, match="no TuSimple labels here"):
        read_tusimple(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"absent\.json: cannot be read"):
        read_tusimple(tmp_path, ["absent.json"])
    (tmp_path / "latin.json").write_bytes(b'{"raw_file": "stra\xdfe.jpg"}')
    with pytest.raises(LabelFormatError, match=r"latin\.json: it is no text"):
        read_tusimple(tmp_path, ["latin.json"])


def test_points_on_no_row_and_scenes_without_rows_cannot_be_written(tmp_path):
    lane = np.array([[5.0, 10.0], [6.0, 15.0]])
    with pytest.raises(InvalidInput, match="none of the rows"):
        write_tusimple([LaneScene("a.jpg", (lane,), {"h_samples": [10, 20]})], tmp_path)
    with pytest.raises(InvalidInput, match="h_samples"):
        write_tusimple([LaneScene("a.jpg", (lane,))], tmp_path)


def test_extra_keys_do_not_replace_lanes_or_path(tmp_path):
    write_tusimple([LaneScene("a.jpg", (), {"h_samples": [10], "raw_file": "../b.jpg", "lanes": [[1]]})], tmp_path)
    (scene,) = read_tusimple(tmp_path)
    assert (scene.path, scene.lanes) == ("a.jpg", ())


def test_scenes_of_no_file_go_into_label_data_json(tmp_path):
    write_tusimple([LaneScene("a.jpg", (), {"h_samples": [10, 20]})], tmp_path)
    assert [scene.lanes for scene in read_tusimple(tmp_path)] == [()]
    assert label_files(tmp_path) == ["label_data.json"]


@given(
    st.lists(st.integers(0, 60).map(lambda i: i * 10), min_size=2, max_size=20, unique=True).map(sorted),
    st.data(),
)
def test_a_lane_with_gaps_comes_back_from_its_polyline(rows, data):
    x = data.draw(arrays(np.float64, len(rows), elements=st.integers(0, 1280)))
    present = data.draw(arrays(np.bool_, len(rows)))
    lane = np.stack([x, rows], axis=1)[present]
    if len(lane) < 2:
        return
    for drawn in (lane, lane[::-1]):
        assert at_rows(drawn, rows, gaps_of(lane, rows)).tolist() == lane.tolist()


def test_a_lane_between_rows_is_told_where_it_crosses_them_and_not_beside_the_image():
    assert at_rows([[0, 5], [30, 35]], [0, 10, 20, 30, 40]).tolist() == [[5, 10], [15, 20], [25, 30]]
    assert at_rows([[-10, 0], [30, 40]], [0, 5, 10, 20]).tolist() == [[0, 10], [10, 20]]
    assert at_rows([[0, 11], [30, 19]], [10, 20]).shape == (0, 2)


def test_rows_are_tusimples_own_for_its_height_and_inside_any_other():
    assert rows_of(720) == list(range(160, 720, 10))
    for height in (1, 2, 8, 144, 590, 1080):
        assert all(0 <= row < height for row in rows_of(height))
    assert not math.isnan(sum(rows_of(590)))
