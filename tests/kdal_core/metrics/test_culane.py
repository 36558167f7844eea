from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from kdal_core.errors import KdalError
from kdal_core.metrics import CULane, culane, f1_score
from kdal_core.metrics.culane import _curves, lane_ious

SIZE = (590, 1640)
SMALL = (144, 400)
LANES = {
    "steep": [(400, 590), (431.5, 500), (470, 420.5), (500, 350), (520, 300)],
    "bent": [(400, 590), (440, 500), (462, 420), (470, 350), (440, 300)],
    "left": [(-80, 560), (40, 480), (181, 400), (305.5, 330), (420, 260)],
    "bottom": [(760, 640), (742.5, 590), (713, 500), (668, 420), (640, 380)],
    "flat": [(900, 480), (1000, 470.5), (1150, 488), (1300, 470), (1500, 474)],
    "hook": [(1200, 300), (1280, 330), (1240, 400), (1150, 370), (1180, 310)],
    "straight": [(1000, -30), (1100, 620)],
    "halves": [(1010.5, 0.5), (1035.5, 150.5), (1060.5, 300.5), (1085.5, 450.5), (1110.5, 600.5)],
    "top": [(1600, 200), (1630, 100), (1660, 20), (1690, -40)],
}


def moved(lane, x=7.5, y=-3.25):
    return [(a + x, b + y) for a, b in lane]


def upright(x, top=20, bottom=140):
    return [(x, top), (x, bottom)]


# Made with OpenCV 4.10.0 (3.4.18 gives the same): the points of the official program's spline, computed apart in plain
# Python, each joined to the next by cv2.line on a canvas of 590 x 1640, 30 wide; common pixels and pixels of either.
# With OpenCV 5.0.0, which cuts lines at the border before they are widened, only the pairs with "straight" differ.
@pytest.mark.parametrize(
    ("pred", "gt", "common", "either"),
    [
        (LANES["steep"], LANES["bent"], 5762, 14143),
        (LANES["left"], moved(LANES["left"]), 14957, 16151),
        (LANES["bottom"], moved(LANES["bottom"]), 5607, 9705),
        (LANES["flat"], moved(LANES["flat"]), 17078, 21446),
        (LANES["hook"], moved(LANES["hook"]), 9610, 13202),
        (LANES["straight"], LANES["halves"], 12877, 24130),
        (LANES["top"], moved(LANES["top"]), 3193, 4946),
        (LANES["flat"], LANES["straight"], 995, 36736),
    ],
)
def test_overlap_is_that_of_the_official_masks_to_the_pixel(pred, gt, common, either):
    assert lane_ious([pred], [gt], SIZE)[0, 0] == common / either
    assert culane([pred], [gt], SIZE) == ((1, 0, 0) if common > either / 2 else (0, 1, 1))


def test_each_pair_of_lanes_overlaps_as_if_alone():
    lanes = list(LANES.values())
    together = lane_ious(lanes, lanes[::-1], SIZE)
    apart = [[lane_ious([a], [b], SIZE)[0, 0] for b in lanes[::-1]] for a in lanes]
    np.testing.assert_array_equal(together, apart)


def test_the_curve_is_a_natural_cubic_spline_over_the_chords():
    lanes = [np.array(lane, dtype=np.float32) for lane in LANES.values()]
    points, owners = _curves(np.concatenate(lanes), np.repeat(np.arange(len(lanes)), [len(lane) for lane in lanes]))
    for number, lane in enumerate(lanes):
        at = np.append(0, np.cumsum(np.linalg.norm(np.diff(lane.astype(float), axis=0), axis=1)))
        wanted = np.concatenate([np.linspace(a, b, 50, endpoint=False) for a, b in pairwise(at)])
        spline = CubicSpline(at, lane, bc_type="natural")
        expected = lane if len(lane) == 2 else spline(np.append(wanted, at[-1]))
        np.testing.assert_allclose(points[owners == number], expected, atol=1e-3)


def by_distance(lane, image_size, width):
    """Pixels no farther than half the width from the lane's vertices joined by straight lines."""
    y, x = np.mgrid[: image_size[0], : image_size[1]]
    mask = np.zeros(image_size, dtype=bool)
    for a, b in pairwise(np.array(lane, dtype=float)):
        along = ((x - a[0]) * (b - a)[0] + (y - a[1]) * (b - a)[1]) / ((b - a) ** 2).sum()
        along = np.clip(along, 0, 1)
        mask |= np.hypot(x - a[0] - along * (b - a)[0], y - a[1] - along * (b - a)[1]) <= width / 2
    return mask


whole = st.integers(-60, 460)
straight_lanes = st.lists(
    st.tuples(whole, st.integers(-40, 60), whole, st.integers(80, 200)).map(lambda v: [v[:2], v[2:]]),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(straight_lanes, straight_lanes, st.integers(12, 40))
def test_overlap_is_close_to_that_of_all_pixels_near_the_line(pred, gt, width):
    masks = [[by_distance(lane, SMALL, width) for lane in lanes] for lanes in (pred, gt)]
    expected = [[(a & b).sum() / max((a | b).sum(), 1) for b in masks[1]] for a in masks[0]]
    few = [[(a | b).sum() < 1000 for b in masks[1]] for a in masks[0]]  # where little is seen, a pixel weighs much
    np.testing.assert_allclose(
        np.where(few, 0, lane_ious(pred, gt, SMALL, width)), np.where(few, 0, expected), atol=0.06
    )


curves = st.lists(
    st.lists(st.tuples(st.integers(30, 370), st.integers(20, 120)), min_size=2, max_size=5, unique=True),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(curves, curves, st.randoms(use_true_random=False))
def test_the_best_pairing_counts_whatever_the_order_of_the_lanes(pred, gt, random):
    overlap = lane_ious(pred, gt, SMALL)
    short = overlap if len(pred) <= len(gt) else overlap.T
    columns = list(permutations(range(short.shape[1]), len(short)))
    pairings = [short[np.arange(len(short)), list(order)] for order in columns]
    best = max(pairing.sum() for pairing in pairings)
    hits = {int((pairing > 0.5).sum()) for pairing in pairings if pairing.sum() >= best - 1e-9}
    tp, fp, fn = culane(pred, gt, SMALL)
    assert (tp + fp, tp + fn) == (len(pred), len(gt))
    assert tp in hits
    if len(hits) == 1:
        random.shuffle(pred)
        random.shuffle(gt)
        assert culane(pred, gt, SMALL) == (tp, fp, fn)
        assert culane(gt, pred, SMALL) == (tp, fn, fp)


@settings(max_examples=40, deadline=None)
@given(curves)
def test_a_lane_overlaps_itself_wholly_however_often_it_crosses_its_own_way(lanes):
    np.testing.assert_array_equal(np.diag(lane_ious(lanes, lanes, SMALL)), 1.0)


@settings(max_examples=30, deadline=None)
@given(curves, curves, st.integers(-500, 900), st.integers(-5, 350))
def test_moving_all_lanes_by_whole_pixels_inside_the_image_changes_nothing(pred, gt, x, y):
    large, roomy = (800, 2200), [[(a + 600, b + 100) for a, b in lane] for lane in pred]
    labels = [[(a + 600, b + 100) for a, b in lane] for lane in gt]
    before = lane_ious(roomy, labels, large)
    after = lane_ious([moved(lane, x, y) for lane in roomy], [moved(lane, x, y) for lane in labels], large)
    np.testing.assert_allclose(after, before, atol=0.01)  # single precision rounds elsewhere


def test_one_prediction_finds_one_label_only():
    assert culane([upright(100)], [upright(98), upright(102)], SMALL) == (1, 0, 1)
    assert culane([upright(98), upright(102)], [upright(100)], SMALL) == (1, 1, 0)


def test_the_sum_of_the_overlaps_decides_neither_the_best_pair_nor_the_number_of_hits():
    # Distances in pixels: 2 and 18 have the best pair, 8 and 8 the better sum.
    assert culane([upright(100), upright(110)], [upright(102), upright(92)], SMALL) == (2, 0, 0)
    # 7 and 9 would be two hits, 1 and 15 have the better sum.
    assert culane([upright(100), upright(92)], [upright(101), upright(107)], SMALL) == (1, 1, 1)


def test_an_overlap_of_exactly_the_threshold_is_a_miss():
    lanes = [[(100, -10), (100, 160)]], [[(101, -10), (101, 160)]]  # three columns each, two in common
    assert lane_ious(*lanes, SMALL, 2)[0, 0] == 0.5
    assert culane(*lanes, SMALL, 2, 0.5) == (0, 1, 1)
    assert culane(*lanes, SMALL, 2, 0.499) == (1, 0, 0)


def test_nothing_predicted_or_nothing_labelled_leaves_the_other_unmatched():
    assert culane([], [], SMALL) == (0, 0, 0)
    assert culane([upright(100)], [], SMALL) == (0, 1, 0)
    assert culane([], [upright(100), upright(200)], SMALL) == (0, 0, 2)
    assert lane_ious([], [upright(100)], SMALL).shape == (0, 1)


@pytest.mark.parametrize("lane", [[(100, 50)], [], np.empty((0, 2))])
def test_a_lane_of_one_vertex_or_none_counts_but_matches_nothing_not_even_itself(lane):
    assert culane([lane], [lane], SMALL) == (0, 1, 1)
    assert culane([lane, upright(100)], [upright(100)], SMALL) == (1, 1, 0)


def test_vertices_repeated_in_a_row_count_once():
    lane = [(100, 20), (110, 60), (130, 100), (160, 140)]
    doubled = [vertex for vertex in lane for _ in range(3)]
    assert lane_ious([lane], [doubled], SMALL)[0, 0] == 1.0


def test_a_lane_that_stays_in_one_place_is_a_disc():
    assert lane_ious([[(100, 50)] * 3], [[(100, 50)] * 2], SMALL)[0, 0] == 1.0
    # 709 pixels; an upright lane through it is 31 columns wide
    assert lane_ious([[(100, 70)] * 2], [[(100, -50), (100, 200)]], SMALL)[0, 0] == 709 / (31 * 144)


def test_lanes_outside_the_image_overlap_nothing_and_do_not_spoil_the_other_pairs():
    outside = upright(-100)
    assert lane_ious([outside], [outside], SMALL)[0, 0] == 0.0
    assert culane([outside, upright(100)], [outside, upright(100)], SMALL) == (1, 1, 1)


def test_only_what_lies_inside_the_image_counts():
    beyond = [[(100, 20), (100, 140), (100, 5000)]], [[(100, 20), (100, 140), (100, 900)]]
    assert lane_ious(*beyond, SMALL)[0, 0] == 1.0


def test_vertices_half_way_between_pixels_go_to_the_even_one():
    for half, even in ((100.5, 100), (101.5, 102)):
        assert lane_ious([upright(half)], [upright(even)], SMALL)[0, 0] == 1.0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (r"pred\[1\]", ([upright(1), [(1, 2, 3)]], [])),
        (r"gt\[0\]", ([], [[(1, 2), (3,)]])),
        (r"gt\[0\]", ([], [[1, 2, 3]])),
        (r"pred\[0\]", ([[(1, np.nan), (2, 2)]], [])),
        (r"pred\[0\]", ([[(1, np.inf), (2, 2)]], [])),
        (r"pred\[0\]", ([[(1, 1), (2, 20_001)]], [])),
        ("image_size", ([], [], (0, 400))),
        ("image_size", ([], [], (144, 400, 3))),
        ("image_size", ([], [], (144.5, 400))),
        ("width", ([], [], SMALL, 1)),
        ("width", ([], [], SMALL, 2.5)),
        ("iou_threshold", ([], [], SMALL, 30, -0.1)),
        ("iou_threshold", ([], [], SMALL, 30, 1.1)),
    ],
)
def test_bad_input_is_refused_by_the_name_of_the_argument(name, arguments):
    with pytest.raises(KdalError, match=name):
        culane(*arguments)


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    precision, recall, f1 = f1_score(30, 10, 20)
    assert (precision, recall) == (0.75, 0.6)
    assert f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)


def test_nothing_over_nothing_is_nothing():
    assert f1_score(0, 0, 0) == f1_score(0, 3, 0) == f1_score(0, 0, 3) == (0.0, 0.0, 0.0)


def test_negative_counts_are_refused():
    with pytest.raises(KdalError, match="fp"):
        f1_score(1, -1, 0)


def test_a_data_set_scores_the_counts_of_all_its_images():
    metric = CULane(SMALL)
    images = [([upright(100)], [upright(100), upright(300)]), ([upright(100), upright(200)], [upright(200)]), ([], [])]
    for pred, gt in images:
        metric.update(pred, gt)
    assert (metric.tp, metric.fp, metric.fn) == tuple(np.sum([culane(*image, SMALL) for image in images], axis=0))
    assert metric.compute() == f1_score(2, 1, 1)
