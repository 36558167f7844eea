import numpy as np
import pytest
from label_studio_sdk.converter.brush import mask2rle

from kdal.labelstudio.formats import format_for
from kdal_core.errors import LabelFormatError
from kdal_core.tasks.lane import x_at
from tests.kdal.labelstudio.formats.lanes import LANES, config, region, task

WIDTH, HEIGHT = 200, 100


@pytest.fixture(scope="module")
def form():
    return format_for(config("BrushLabels"), LANES)


def blank():
    return np.zeros((HEIGHT, WIDTH), dtype=np.uint8)


def painted(mask, **fields):
    height, width = mask.shape
    size = {"original_width": width, "original_height": height}
    return region("BrushLabels", {"format": "rle", "rle": mask2rle(mask)}, "lane", **(size | fields))


def stroke(mask, left, width=6, rows=range(20, 90)):
    for row in rows:
        start = left + row // 2
        mask[row, start : start + width] = 255
    return mask


def test_the_centre_of_what_is_painted_is_the_lane(form):
    (lane,) = form.target(task(painted(stroke(blank(), 50))))
    rows = (np.array([20, 40, 60, 89]) + 0.5) / HEIGHT
    assert x_at(lane, rows) == pytest.approx([63 / 200, 73 / 200, 83 / 200, 97 / 200], abs=0.005)


def test_a_dashed_marking_is_one_lane(form):
    mask = stroke(stroke(blank(), 50, rows=range(10, 30)), 50, rows=range(60, 90))
    (lane,) = form.target(task(painted(mask)))
    assert x_at(lane, [0.455])[0] == pytest.approx((53 + 22.5) / 200, abs=0.01)


def test_a_hole_and_a_stray_dab_do_not_count(form):
    mask = stroke(blank(), 50)
    mask[50:53, 77:79] = 0
    mask[30:33, 150] = 255
    assert len(form.target(task(painted(mask)))) == 1


def test_two_lines_in_one_region_are_refused(form):
    mask = stroke(stroke(blank(), 20), 120)
    with pytest.raises(LabelFormatError, match="task 12: region abc: two lines are painted side by side"):
        form.target(task(painted(mask)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"original_width": 100}, "holds 80,000 values where an image of 100 x 100 needs"),
        ({"original_width": None}, "does not say how large its image is"),
        ({"original_width": 60_000, "original_height": 60_000}, "larger than 50,000,000 pixels"),
    ],
)
def test_a_mask_of_another_size_than_its_label_says_is_refused(form, change, message):
    with pytest.raises(LabelFormatError, match=f"^task 12: region abc: .*{message}"):
        form.target(task(painted(stroke(blank(), 50), **change)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"format": "png", "rle": []}, "its format is 'png'"),
        ({"format": "rle"}, "no list of bytes"),
        ({"format": "rle", "rle": [1, 2, 300]}, "no list of bytes"),
        ({"format": "rle", "rle": []}, "holds 0 values"),
        ({"format": "rle", "rle": mask2rle(stroke(blank(), 50))[:40]}, "is damaged"),
        ({"format": "rle", "rle": mask2rle(blank())}, "it has no vertices"),
    ],
)
def test_a_damaged_or_empty_mask_is_refused_by_its_region(form, value, message):
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    with pytest.raises(LabelFormatError, match=f"^task 12: region abc: .*{message}"):
        form.target(task(region("BrushLabels", value, "lane", **size)))
