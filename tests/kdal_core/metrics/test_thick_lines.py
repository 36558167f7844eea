import numpy as np
import pytest

from kdal_core.metrics.thick_lines import Spans, cover, merge


def pixels(start, end, width, image_size=(100, 200)):
    """Columns and rows of the pixels that one line covers."""
    spans = cover(np.array([start]), np.array([end]), np.array([0]), width, image_size)
    places = np.concatenate([np.arange(0), *(np.arange(a, b + 1) for a, b in zip(*spans, strict=True))])
    return places % (image_size[1] + 1), places // (image_size[1] + 1)


# Made with OpenCV 4.10.0: number of pixels, sum of their columns and of their rows after cv2.line on a canvas of
# 100 x 200. 3.4.18 gives the same; 5.0.0 cuts lines that leave the image before it widens them, and differs there.
@pytest.mark.parametrize(
    ("start", "end", "width", "number", "columns", "rows"),
    [
        ((60, 40), (60, 40), 30, 709, 42540, 28360),
        ((60, 40), (61, 40), 30, 740, 44770, 29600),
        ((60, 40), (61, 39), 30, 756, 45738, 29862),
        ((60, 40), (90, 75), 30, 2144, 160800, 123280),
        ((20, 20), (140, 31), 9, 1396, 111680, 35598),
        ((60, 40), (60, 90), 31, 2332, 139920, 147312),
        ((60, 40), (75, 90), 2, 150, 10125, 9750),
        ((-300, -100), (500, 210), 30, 6486, 632109, 348427),
        ((-5, 50), (-5, 50), 30, 223, 859, 11150),
        ((150, -400), (10, 500), 16, 1718, 137576, 85050),
        ((-40, 97), (203, 90), 30, 4405, 457716, 389496),
        ((199, 99), (240, 140), 30, 193, 37215, 17915),
        ((-99, 30), (-40, 60), 30, 0, 0, 0),
    ],
)
def test_a_line_covers_the_pixels_that_opencv_paints(start, end, width, number, columns, rows):
    x, y = pixels(start, end, width)
    assert (len(x), x.sum(), y.sum()) == (number, columns, rows)


def test_a_line_near_the_border_is_the_part_inside_of_what_it_is_in_a_larger_image():
    x, y = pixels((120, 140), (330, 220), 30, (400, 600))
    inner = (x >= 100) & (x < 300) & (y >= 100) & (y < 200)
    nearer = set(zip(*pixels((20, 40), (230, 120), 30), strict=True))
    parted = nearer ^ set(zip(x[inner] - 100, y[inner] - 100, strict=True))
    assert len(parted) < 0.05 * len(nearer)  # its outline is rounded again where it is cut


def test_lines_of_several_owners_do_not_mix_and_those_of_one_count_once():
    starts, ends = np.array([[50, 50], [60, 50], [50, 50]]), np.array([[50, 80], [60, 80], [50, 80]])
    spans = cover(starts, ends, np.array([0, 0, 2]), 10, (100, 200))
    owner = spans.first // (100 * 201)
    areas = np.bincount(owner, spans.last - spans.first + 1)
    alone = len(pixels((50, 50), (50, 80), 10)[0])
    assert areas[1] == 0
    assert areas[2] == alone
    assert alone < areas[0] < 2 * alone  # two lines 11 wide and 10 apart share a column


def test_spans_that_overlap_or_touch_become_one():
    merged = merge(Spans(np.array([20, 0, 3, 8, 31]), np.array([25, 4, 6, 9, 33])))
    assert [part.tolist() for part in merged] == [[0, 8, 20, 31], [6, 9, 25, 33]]
    assert [len(part) for part in merge(Spans(np.arange(0), np.arange(0)))] == [0, 0]
