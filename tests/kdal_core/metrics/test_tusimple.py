import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from kdal_core.errors import KdalError
from kdal_core.metrics import TuSimple, tusimple

ROWS = list(range(160, 720, 10))
FAST = 10.0


def by_the_rules(pred, gt, rows, run_time):
    """The official rules, lane by lane, with the line fitted by scikit-learn as there."""
    if run_time > 200 or len(pred) > len(gt) + 2:
        return 0.0, 0.0, 1.0
    accuracies = []
    for lane in gt:
        points = [(y, x) for y, x in zip(rows, lane, strict=True) if x >= 0]
        slope = 0.0
        if len(points) > 1:
            y, x = np.array(points, dtype=float).T
            slope = LinearRegression().fit(y[:, None], x).coef_[0]
        near = 20 / np.cos(np.arctan(slope))
        wanted = [x if x >= 0 else -100 for x in lane]
        shares = [0.0]
        for guess in pred:
            placed = [x if x >= 0 else -100 for x in guess]
            shares.append(sum(abs(a - b) < near for a, b in zip(placed, wanted, strict=True)) / len(rows))
        accuracies.append(max(shares))
    misses = sum(share < 0.85 for share in accuracies)
    fp = (len(pred) - (len(gt) - misses)) / len(pred) if pred else 0.0
    if len(gt) > 4:
        accuracies.remove(min(accuracies))
        misses = max(misses - 1, 0)
    labelled = max(1, min(4, len(gt)))
    return sum(accuracies) / labelled, fp, misses / labelled


def random_image(rng):
    """Up to seven labelled lanes, straight or bent, and predictions near most of them; gaps in all."""
    rows = np.array(ROWS) if rng.random() < 0.5 else np.sort(rng.choice(720, int(rng.integers(1, 30)), replace=False))
    down = (rows - rows[0]) / 720
    gt = [
        rng.uniform(-200, 1480) + rng.normal(0, 900) * down + rng.normal(0, 600) * down**2
        for _ in range(rng.integers(0, 8))
    ]
    pred = [x + rng.normal(0, 12) + rng.normal(0, rng.choice([0, 5, 15]), len(rows)) for x in gt if rng.random() < 0.8]
    pred += [rng.uniform(0, 1280) + 0 * down for _ in range(rng.integers(0, 4))]
    lanes = []
    for part in (pred, gt):
        part = [np.where((x >= 0) & (x < 1280) & (rng.random(len(rows)) < 0.95), np.round(x, 1), -2.0) for x in part]
        lanes.append([x.tolist() for x in part])
    return *lanes, rows.tolist(), float(rng.choice([FAST, FAST, FAST, 200.0, 200.5]))


@pytest.mark.parametrize("seed", range(4))
def test_every_image_scores_as_by_the_official_rules(seed):
    rng = np.random.default_rng(seed)
    for _ in range(150):
        image = random_image(rng)
        assert tusimple(*image) == pytest.approx(by_the_rules(*image), abs=1e-12), image


def lane(x, rows=ROWS):
    return [float(x)] * len(rows)


def test_a_perfect_prediction_finds_all():
    lanes = [lane(300), lane(500), lane(700)]
    assert tusimple(lanes, lanes, ROWS, FAST) == (1.0, 0.0, 0.0)
    assert tusimple(lanes[::-1], lanes, ROWS, FAST) == (1.0, 0.0, 0.0)


def test_a_point_exactly_20_pixels_from_an_upright_lane_is_not_found():
    assert tusimple([lane(319.9)], [lane(300)], ROWS, FAST) == (1.0, 0.0, 0.0)
    assert tusimple([lane(320)], [lane(300)], ROWS, FAST) == (0.0, 1.0, 1.0)


def test_on_a_slanted_lane_the_distance_along_the_row_may_be_longer():
    slanted = [0.75 * y for y in ROWS]  # cos(a) = 0.8
    for distance, accuracy in ((24.9, 1.0), (25.1, 0.0)):
        assert tusimple([[x + distance for x in slanted]], [slanted], ROWS, FAST)[0] == accuracy


def test_the_line_is_fitted_to_the_points_that_the_label_has():
    slanted = [0.75 * y if y >= 600 else -2.0 for y in ROWS]
    off = [x + 24.9 if x >= 0 else -2.0 for x in slanted]
    assert tusimple([off], [slanted], ROWS, FAST)[0] == 1.0


@pytest.mark.parametrize("absent", [-2.0, -1e-9, -500.0])
def test_any_negative_number_is_no_point(absent):
    some = [300.0 if y < 400 else absent for y in ROWS]
    assert tusimple([some], [[300.0 if y < 400 else -2.0 for y in ROWS]], ROWS, FAST) == (1.0, 0.0, 0.0)


def test_rows_where_neither_lane_has_a_point_are_rows_found():
    nowhere = [-2.0] * len(ROWS)
    assert tusimple([nowhere], [nowhere], ROWS, FAST) == (1.0, 0.0, 0.0)


def test_near_the_left_border_a_point_may_pass_for_the_missing_point_of_a_flat_lane():
    flat = [10.0 * y for y in (0, 10, 20)]  # 20 / cos(a) is 201 pixels
    assert tusimple([[-2.0, 100.0, 200.0]], [flat], [0, 10, 20], FAST)[0] == 1.0


def test_a_label_with_one_point_counts_as_upright():
    one = [-2.0, 300.0, -2.0]
    assert tusimple([[-2.0, 319.0, -2.0]], [one], [0, 10, 20], FAST)[0] == 1.0
    assert tusimple([[-2.0, 321.0, -2.0]], [one], [0, 10, 20], FAST)[0] == pytest.approx(2 / 3)


def test_a_lane_is_found_from_85_percent_of_its_rows_on():
    rows = list(range(20))
    for found, missed in ((17, 0.0), (16, 1.0)):
        guess = [100.0] * found + [500.0] * (20 - found)
        assert tusimple([guess], [lane(100, rows)], rows, FAST) == (found / 20, missed, missed)


def test_without_labels_accuracy_is_nothing_and_each_prediction_false():
    assert tusimple([], [], ROWS, FAST) == (0.0, 0.0, 0.0)
    assert tusimple([lane(300)], [], ROWS, FAST) == (0.0, 1.0, 0.0)


def test_without_predictions_all_is_missed():
    assert tusimple([], [lane(300), lane(500)], ROWS, FAST) == (0.0, 0.0, 1.0)


def test_one_prediction_may_find_two_labels_and_then_false_positives_are_negative():
    assert tusimple([lane(300)], [lane(295), lane(305)], ROWS, FAST) == (1.0, -1.0, 0.0)


def test_of_five_labels_the_worst_is_forgiven():
    lanes = [lane(x) for x in (100, 300, 500, 700, 900)]
    assert tusimple(lanes[:4], lanes, ROWS, FAST) == (1.0, 0.0, 0.0)
    assert tusimple(lanes[:3], lanes, ROWS, FAST) == (0.75, 0.0, 0.25)
    assert tusimple(lanes[:3], lanes[:4], ROWS, FAST) == (0.75, 0.0, 0.25)


def test_too_slow_or_over_two_lanes_too_many_fails_the_image():
    three = [lane(100), lane(300), lane(500)]
    assert tusimple(three[:1], three[:1], ROWS, 200.0) == (1.0, 0.0, 0.0)
    assert tusimple(three[:1], three[:1], ROWS, 200.1) == (0.0, 0.0, 1.0)
    assert tusimple(three, three[:1], ROWS, FAST) == (1.0, 2 / 3, 0.0)
    assert tusimple([*three, lane(900)], three[:1], ROWS, FAST) == (0.0, 0.0, 1.0)


@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_the_lanes_does_not_matter(seed, random):
    pred, gt, rows, run_time = random_image(np.random.default_rng(seed))
    score = tusimple(pred, gt, rows, run_time)
    random.shuffle(pred)
    random.shuffle(gt)
    assert tusimple(pred, gt, rows, run_time) == pytest.approx(score, abs=1e-12)


def test_arrays_serve_as_well_as_lists():
    lanes = np.array([lane(300), lane(500)])
    assert tusimple(lanes, lanes + 1, np.array(ROWS), FAST) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (r"pred\[1\]", ([lane(1), lane(1)[1:]], [lane(1)], ROWS, FAST)),
        (r"gt\[0\]", ([lane(1)], [lane(1)[1:]], ROWS, FAST)),
        (r"gt\[0\]", ([lane(1)], [[[1.0, 2.0]] * len(ROWS)], ROWS, FAST)),
        (r"pred\[0\]", ([["far left"] * len(ROWS)], [lane(1)], ROWS, FAST)),
        (r"pred\[0\]", ([[np.nan] * len(ROWS)], [lane(1)], ROWS, FAST)),
        ("finite", ([[np.inf] * len(ROWS)], [lane(1)], ROWS, FAST)),
        ("y_samples", ([], [], [], FAST)),
        ("y_samples", ([], [], [[1.0]], FAST)),
        ("run_time", ([], [], ROWS, -1.0)),
        ("run_time", ([], [], ROWS, np.nan)),
    ],
)
def test_bad_input_is_refused_by_the_name_of_the_argument(name, arguments):
    with pytest.raises(KdalError, match=name):
        tusimple(*arguments)


def test_a_data_set_scores_the_mean_of_its_images_and_the_f1_of_the_means():
    metric = TuSimple()
    scores = []
    rng = np.random.default_rng(5)
    for _ in range(40):
        image = random_image(rng)
        metric.update(*image)
        scores.append(tusimple(*image))
    accuracy, fp, fn = np.mean(scores, axis=0)
    precision, recall = 1 - fp, (1 - fp) / (1 - fp + fn)
    f1 = 2 * precision * recall / (precision + recall)
    assert metric.compute() == pytest.approx((accuracy, fp, fn, f1))


def test_a_data_set_where_all_is_false_has_no_f1_rather_than_nan():
    metric = TuSimple()
    metric.update([lane(300)], [lane(900)], ROWS, FAST)
    assert metric.compute() == (0.0, 1.0, 1.0, 0.0)


def test_no_image_has_no_score():
    with pytest.raises(KdalError, match="update"):
        TuSimple().compute()
