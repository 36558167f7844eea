"""The next tasks as pictures, and pictures of single tasks."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from kdal.images.refs import ImageRef
from kdal.policy import Policy
from kdal.rounds.map import save_map
from kdal.rounds.queue import Entry, save_reasons, save_regions
from kdal.rounds.snapshot import Labelled, Snapshot
from kdal.rounds.store import RoundStore
from kdal.web.pages import drawing
from kdal.web.pages.pictures import SIZES, BusyError, Pictures
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import UID

BOX = {
    "type": "rectanglelabels",
    "score": 0.9,
    "value": {"x": 25, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["crack"]},
}
LANE = {
    "type": "vectorlabels",
    "value": {"vertices": [{"x": 10, "y": 50}, {"x": 90, "y": 50}], "closed": False, "vectorlabels": ["<i>lane</i>"]},
}
CHOICE = {"type": "choices", "score": 0.42, "value": {"choices": ["7"]}}


def address(width=800, height=400, grey=128):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), grey, dtype=np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def queue(add_round, resources):
    """Round 0 is open: tasks 5, 9, 7, 8 in order, 1 is labelled, 8's image is damaged, 9 was labelled since."""
    add_round(0, counted=1, facts={"labelled_first": [9]})
    store = RoundStore(resources.assets, UID, 0)
    pool = [ImageRef(5, address()), ImageRef(7, address(8, 8)), ImageRef(8, "data:image/png;base64,AAAA")]
    labelled = [Labelled(ImageRef(1, address(grey=10)), 3, False)]
    Snapshot(UID, DIGITS_CONFIG, Policy(), (8, 8), labelled, [*pool, ImageRef(9, "", "no image")], [], None).save(store)
    entries = [Entry(5, "gap", gap=0.97), Entry(9, "far", far=0.5), Entry(7, "random"), Entry(8, "behind")]
    save_reasons(store, entries, "kd_gap")
    save_regions(store, [5, 7], {5: [BOX, LANE], 7: [CHOICE]})
    return store


def picture(site, task, size="small", drawn=True):
    response = site.client.get(f"/projects/3/tasks/{task}/{size}.jpg" + ("?drawn" if drawn else ""))
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/jpeg"
    return Image.open(io.BytesIO(response.data)), response


def test_the_next_tasks_are_shown_with_suggestions_and_reasons(site, queue):
    page = site.get("/projects/3/panels/queue")
    assert [image["alt"] for image in page.of("img")] == ["Task 5", "Task 7", "Task 8"]
    assert "without the 1 task labelled since" in page.text
    assert "crack 90% , <i>lane</i> models disagree Task 5" in page.text
    assert "7 42% random Task 7" in page.text
    assert "put back Task 8" in page.text
    (pill,) = page.of("span", **{"class": "pill busy"})
    assert pill["title"] == "The models disagree on it more than on 97% of the images that wait."


def test_when_all_of_the_first_tasks_are_done_it_says_so(site, queue, resources):
    resources.storage.merge_round(3, 0, facts={"labelled_first": [5, 7, 8, 9]})
    assert "are all labelled" in site.get("/projects/3/panels/queue").text


def test_a_task_is_told_in_a_dialog(site, queue):
    page = site.get("/projects/3/tasks/5")
    assert page.of("img")[0]["src"] == "/projects/3/tasks/5/large.jpg?drawn"
    assert "The model sees crack (90% sure)" in page.text
    assert "The models disagree on it more than on 97%" in page.text
    assert page.of("i") == []
    assert "Task 12345" in site.get("/projects/3/tasks/12345").text


def test_a_picture_is_small_and_has_its_suggestions_drawn_in(site, queue):
    drawn, response = picture(site, 5)
    plain, _ = picture(site, 5, drawn=False)
    assert drawn.size == plain.size == (SIZES["small"], SIZES["small"] // 2)
    assert "private" in response.headers["Cache-Control"]
    difference = np.abs(np.asarray(drawn, dtype=int) - np.asarray(plain, dtype=int)).max(axis=2) > 60
    rows, columns = np.nonzero(difference)
    assert rows.min() == pytest.approx(40, abs=4)  # the box, 25% to 75%
    assert rows.max() == pytest.approx(120, abs=4)
    assert columns.min() == pytest.approx(32, abs=4)  # the lane, 10% to 90%
    assert columns.max() == pytest.approx(288, abs=4)


def test_tiny_images_are_enlarged_with_their_pixels_kept(site, queue):
    assert picture(site, 7)[0].size == (160, 160)


def test_pictures_of_labelled_tasks_are_there_too(site, queue):
    assert np.asarray(picture(site, 1)[0]).mean() < 20


@pytest.mark.parametrize("path", ["8/small.jpg", "9/small.jpg", "77/small.jpg", "5/huge.jpg"])
def test_what_has_no_picture_is_not_found(site, queue, path):
    assert site.client.get(f"/projects/3/tasks/{path}").status_code == 404


def test_a_picture_of_another_project_is_not_told(site, queue, resources):
    resources.storage.put_project(4, "4.1", DIGITS_CONFIG, {})
    assert site.client.get("/projects/4/tasks/5/small.jpg").status_code == 404


def test_pictures_need_a_session(stranger, queue):
    assert stranger.client.get("/projects/3/tasks/5/small.jpg").status_code == 303


def test_a_picture_is_made_once(site, queue, resources, tmp_path):
    first = picture(site, 5)[1].data
    kept = list((resources.settings.home_path / "cache" / "pictures").glob("*/*"))
    assert len(kept) == 1
    assert kept[0].read_bytes() == first
    assert picture(site, 5)[1].data == first


def test_while_pictures_are_made_more_of_them_are_refused_at_once(resources, queue):
    pictures = Pictures(resources)
    ref, sources = pictures.ref(UID, 0, 5), pictures.sources(UID, 0)
    pictures._turn.acquire()
    pictures._turn.acquire()
    with pytest.raises(BusyError):
        pictures.jpeg(ref, sources, "small", [])
    pictures._turn.release()
    assert pictures.jpeg(ref, sources, "small", [])


@pytest.mark.parametrize(
    "region",
    [
        {},
        {"value": None},
        {"value": 3},
        {"type": "rectanglelabels", "value": {"x": "a", "y": None, "width": 1, "height": 2}},
        {"type": "vectorlabels", "value": {"vertices": [{"x": 1}]}},
        {"type": "polygonlabels", "value": {"points": [[1], [2, 3]], "polygonlabels": "crack"}},
        {"type": "polygonlabels", "value": {"points": [], "polygonlabels": []}},
        {"type": "choices", "score": "high", "value": {"choices": 7}},
    ],
)
def test_a_region_that_makes_no_sense_draws_nothing(region):
    image = Image.new("RGB", (40, 40))
    assert not np.asarray(drawing.draw(image, [region])).any()
    assert drawing.names([region]) == []


def test_labels_are_counted_surest_first():
    assert drawing.names([LANE, LANE, BOX, CHOICE]) == [("crack", 1, 0.9), ("7", 1, 0.42), ("<i>lane</i>", 2, None)]


def test_without_a_map_the_panel_says_so(site, queue):
    assert "no map yet" in site.get("/projects/3/panels/map").text


def test_points_of_the_map_open_their_pictures(site, queue):
    features = np.arange(12.0).reshape(4, 3) ** 2
    save_map(queue, np.array([5, 7, 8, 9]), [5], {"features": features}, np.array([], dtype=np.int64))
    page = site.get("/projects/3/panels/map")
    points = page.of("circle")
    assert len(points) == 4
    (batch,) = page.of("circle", **{"class": "batch"})
    assert "Task 5" in site.get(batch["hx-get"]).text
    assert all(0 <= float(point["cx"]) <= 720 and 0 <= float(point["cy"]) <= 420 for point in points)
    assert "next batch (1)" in page.text
