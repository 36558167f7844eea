import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from kdal_core.errors import KdalError
from kdal_core.metrics import box_gap, class_gap, lane_distance, lane_gap, row_gap

SIZE = (300, 400)  # diagonal 500
seeds = st.integers(0, 10_000)


def random_lanes(rng, most=4):
    return [rng.uniform(0, 60, (rng.integers(2, 5), 2)) for _ in range(rng.integers(0, most))]


def random_boxes(rng, most=5):
    corners = rng.integers(0, 8, (rng.integers(0, most), 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 6, corners.shape)], axis=1).astype(float)
    return {"boxes": boxes, "labels": rng.integers(1, 3, len(boxes)), "scores": rng.random(len(boxes))}


def shuffled(rng, boxes):
    order = rng.permutation(len(boxes["labels"]))
    return {key: value[order] for key, value in boxes.items()}


def test_the_class_gap_needs_no_certain_number_of_classes_but_the_same_in_both():
    assert class_gap([[1.0], [1.0]], [[1.0], [1.0]]).tolist() == [0, 0]
    for b in ([[0.5, 0.5]], [1.0, 1.0], [[1.0], [np.nan]]):
        with pytest.raises(KdalError):
            class_gap([[1.0], [1.0]], b)


@given(seeds, st.sampled_from(["rows", "dtw"]))
def test_the_lane_gap_is_the_farthest_of_the_nearest_lanes(seed, method):
    rng = np.random.default_rng(seed)
    a, b = ([random_lanes(rng) for _ in range(3)] for _ in range(2))
    for ours, first, second in zip(lane_gap(a, b, SIZE, method=method), a, b, strict=True):
        if first and second:
            expected = max(min(lane_distance(x, y, method=method) for y in second) for x in first)
        else:
            expected = 500 if first or second else 0
        assert ours == pytest.approx(expected, abs=1e-9)


@given(seeds)
def test_the_order_and_direction_of_lanes_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    a, b = random_lanes(rng), random_lanes(rng)
    turned = [[lane[::-1] for lane in reversed(lanes)] for lanes in (a, b)]
    assert lane_gap([turned[0]], [turned[1]], SIZE)[0] == pytest.approx(lane_gap([a], [b], SIZE)[0], abs=1e-9)
    assert lane_gap([a], [a[::-1]], SIZE)[0] == 0


def test_only_lanes_of_the_first_model_without_a_counterpart_count():
    left, right = [[10, 0], [10, 99]], [[90, 0], [90, 99]]
    assert lane_gap([[left]], [[left, right]], SIZE)[0] == 0
    assert lane_gap([[left, right]], [[left]], SIZE)[0] == pytest.approx(80)


def test_bad_lanes_are_refused_by_argument_and_image():
    good = [[10, 0], [10, 99]]
    with pytest.raises(KdalError, match=r"^b\[1\]\[0\] must hold at least two"):
        lane_gap([[good], [good]], [[good], [[[1, 2]]]], SIZE)
    with pytest.raises(KdalError, match="2 images and b 1"):
        lane_gap([[good], [good]], [[good]], SIZE)
    for size in ((0, 10), (10,), (np.nan, 10)):
        with pytest.raises(KdalError, match="image_size"):
            lane_gap([[good]], [[good]], size)


def random_slots(rng, images=3, slots=4, rows=5):
    """(N, S, R): x at rows, some absent, some slots empty, some images without a lane."""
    x = rng.uniform(0, 100, (images, slots, rows))
    x[rng.random(x.shape) < 0.3] = np.nan
    x[rng.random((images, slots)) < 0.3] = np.nan
    x[rng.random(images) < 0.2] = np.nan
    return x


@given(seeds, st.floats(0, 200))
def test_the_row_gap_is_that_of_its_definition_row_by_row(seed, cap):
    rng = np.random.default_rng(seed)
    a, b = random_slots(rng), random_slots(rng, slots=3)
    for ours, first, second in zip(row_gap(a, b, farthest=999.0, cap=cap), a, b, strict=True):
        lanes, others = ([lane for lane in image if np.isfinite(lane).any()] for image in (first, second))
        expected = 999.0 if bool(lanes) != bool(others) else 0.0
        for lane in lanes if others else []:
            means = []
            for other in others:
                costs = []
                for x, y in zip(lane, other, strict=True):
                    if np.isfinite(x) and np.isfinite(y):
                        costs.append(abs(x - y))
                    elif np.isfinite(x) or np.isfinite(y):
                        costs.append(cap)
                means.append(sum(costs) / len(costs))
            expected = max(expected, min(means))
        assert ours == pytest.approx(expected, abs=1e-9)


@given(seeds)
def test_the_slots_that_lanes_stand_in_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    a, b = random_slots(rng), random_slots(rng)
    shuffled_a, shuffled_b = a[:, rng.permutation(4)], b[:, rng.permutation(4)]
    np.testing.assert_array_equal(row_gap(shuffled_a, shuffled_b, farthest=1.0), row_gap(a, b, farthest=1.0))
    assert row_gap(a, shuffled_a, farthest=1.0).tolist() == [0, 0, 0]
    more = np.concatenate([b, np.full((3, 2, 5), np.nan)], axis=1)
    np.testing.assert_array_equal(row_gap(a, more, farthest=1.0), row_gap(a, b, farthest=1.0))


def test_only_slots_of_the_first_model_without_a_counterpart_count():
    left, right = [10.0, 10, 10], [90.0, 90, 90]
    one, two = np.array([[left, [np.nan] * 3]]), np.array([[left, right]])
    assert row_gap(one, two, farthest=1000).tolist() == [0]
    assert row_gap(two, one, farthest=1000).tolist() == [80]


def test_images_in_which_one_model_alone_sees_a_lane_are_farthest_apart():
    seen, none = np.full((1, 2, 3), 5.0), np.full((1, 2, 3), np.nan)
    assert row_gap(seen, none, farthest=7).tolist() == row_gap(none, seen, farthest=7).tolist() == [7]
    assert row_gap(none, none, farthest=7).tolist() == [0]
    assert row_gap(seen, seen[:, :0], farthest=7).tolist() == row_gap(seen[:, :0], seen, farthest=7).tolist() == [7]
    assert row_gap(seen[:0], none[:0], farthest=7).shape == (0,)


@given(seeds)
def test_where_lanes_have_no_holes_the_row_gap_is_the_lane_gap_at_the_same_rows(seed):
    rng = np.random.default_rng(seed)
    a, b = np.full((2, 3, 4, 6), np.nan)
    for x in (a, b):
        for slot in np.ndindex(3, 4):
            first = rng.integers(0, 5)
            last = rng.integers(first + 2, 7)
            if rng.random() < 0.6:
                x[slot][first:last] = rng.uniform(0, 100, last - first)
    drawn = [
        [[np.stack([lane, np.arange(6.0)], axis=1)[np.isfinite(lane)] for lane in image] for image in x] for x in (a, b)
    ]
    lanes = [[[lane for lane in image if len(lane)] for image in x] for x in drawn]
    np.testing.assert_allclose(row_gap(a, b, farthest=500.0), lane_gap(*lanes, SIZE), atol=1e-9)


def test_slots_of_other_images_or_rows_are_refused():
    for b in (np.zeros((2, 1, 3)), np.zeros((1, 1, 4)), np.zeros((1, 3))):
        with pytest.raises(KdalError, match="of the same images and rows"):
            row_gap(np.zeros((1, 1, 3)), b, farthest=1.0)
    for name in ("farthest", "cap"):
        with pytest.raises(KdalError, match=name):
            row_gap(np.zeros((1, 1, 3)), np.zeros((1, 1, 3)), **{"farthest": 1.0, name: -1.0})


@given(seeds, st.sampled_from([None, 0.0, 0.1, 0.3]))
def test_the_box_gap_is_that_of_its_definition_class_by_class(seed, least):
    rng = np.random.default_rng(seed)
    a, b = ([random_boxes(rng) for _ in range(3)] for _ in range(2))

    def of(found, label, score):
        return torch.tensor(found["boxes"][(found["labels"] == label) & (found["scores"] >= score)])

    low = 0.3 if least is None else least
    for ours, first, second in zip(box_gap(a, b, score=0.3, least=least), a, b, strict=True):
        expected = 0.0
        for label in (1, 2):
            x, y = of(first, label, 0.3), of(second, label, low)
            if len(x) and len(y):
                expected = max(expected, float((1 - box_iou(x, y)).min(dim=1).values.max()))
            elif len(x) or (len(of(second, label, 0.3)) and not len(of(first, label, low))):
                expected = 1.0
        assert ours == pytest.approx(expected, abs=1e-12)


@given(seeds, st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_order_place_and_size_of_boxes_do_not_matter(seed, right, down):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng), random_boxes(rng)
    moved = [
        {**p, "boxes": (p["boxes"] + [right, down, right, down]) * 4} for p in (shuffled(rng, a), shuffled(rng, b))
    ]
    assert box_gap([moved[0]], [moved[1]])[0] == pytest.approx(box_gap([a], [b])[0], abs=1e-12)
    assert box_gap([a], [shuffled(rng, a)])[0] == 0


def boxes(*rows):
    """(x1, y1, x2, y2, label, score) each."""
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return {"boxes": table[:, :4], "labels": table[:, 4].astype(int), "scores": table[:, 5]}


def test_boxes_below_the_score_are_no_predictions():
    sure, unsure = boxes((0, 0, 4, 4, 1, 0.9)), boxes((0, 0, 4, 4, 1, 0.4))
    assert box_gap([sure, unsure, sure], [unsure, unsure, sure]).tolist() == [1, 0, 0]
    assert box_gap([sure], [unsure], score=0.4).tolist() == [0]


def test_an_unsure_box_may_answer_a_sure_one_and_is_asked_for_none():
    sure, unsure, aside = boxes((0, 0, 4, 4, 1, 0.9)), boxes((0, 0, 4, 4, 1, 0.2)), boxes((2, 0, 6, 4, 1, 0.2))
    found = box_gap([sure, sure, unsure, unsure, boxes()], [unsure, aside, sure, boxes(), sure], least=0.1)
    assert found.tolist() == pytest.approx([0, 2 / 3, 0, 0, 1])
    assert box_gap([sure], [unsure], least=0.3).tolist() == [1]
    with pytest.raises(KdalError, match="least must be at most score"):
        box_gap([sure], [sure], score=0.3, least=0.4)


def test_a_class_that_one_model_alone_sees_is_the_largest_gap_either_way():
    one, two = boxes((0, 0, 4, 4, 1, 1)), boxes((0, 0, 4, 4, 1, 1), (8, 8, 9, 9, 2, 1))
    assert box_gap([one, two, boxes(), one], [two, one, one, boxes()]).tolist() == [1, 1, 1, 1]


def test_more_boxes_of_a_class_in_the_second_model_do_not_count():
    one, two = boxes((0, 0, 4, 4, 1, 1)), boxes((0, 0, 4, 4, 1, 1), (8, 8, 9, 9, 1, 1))
    assert box_gap([one, two], [two, one]).tolist() == [0, 1]


def test_a_box_without_area_overlaps_nothing():
    flat = boxes((1, 1, 1, 5, 1, 1))
    assert box_gap([flat], [flat]).tolist() == [1]


def test_torchvisions_own_tensors_are_taken():
    found = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    assert box_gap([found], [found]).tolist() == [0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"boxes": [], "labels": []}, r"^a\[1\] must map .* lacks scores"),
        ([[0, 0, 1, 1]], r"^a\[1\] must map"),
        ({"boxes": [[0, 0, 1]], "labels": [1], "scores": [1]}, r"^a\[1\]\['boxes'\] must be \(1, 4\)"),
        ({"boxes": [[2, 0, 1, 1]], "labels": [1], "scores": [1]}, r"^a\[1\]\['boxes'\] must be x1"),
        ({"boxes": [[0, 0, np.inf, 1]], "labels": [1], "scores": [1]}, r"^a\[1\]\['boxes'\]"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [1, 2], "scores": [1]}, r"^a\[1\]\['labels'\]"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [1.5], "scores": [1]}, r"^a\[1\]\['labels'\]"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [1], "scores": [np.nan]}, r"^a\[1\]\['scores'\]"),
    ],
)
def test_bad_boxes_are_refused_by_argument_and_image(bad, message):
    with pytest.raises(KdalError, match=message):
        box_gap([boxes(), bad], [boxes(), boxes()])


def test_boxes_of_another_number_of_images_are_refused():
    with pytest.raises(KdalError, match="1 images and b 2"):
        box_gap([boxes()], [boxes(), boxes()])
