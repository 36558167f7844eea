import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kdal_core.tasks import Lane
from kdal_core.tasks.lane import row_anchors, x_at
from kdal_core.tasks.lane_rows import (
    IMPOSSIBLE,
    LEAP,
    POINTS,
    REACH,
    STEP,
    as_distributions,
    as_points,
    from_distributions,
    in_slots,
    likeliest_path,
)

SLOTS, ROWS, COLUMNS = 8, 36, 64
FLOAT = 2e-6  # share of the width that float32 may cost
seeds = st.integers(0, 10_000)


def straight(foot, top, first=0.0, last=1.0, label=0):
    """A straight lane through (top, 0) and (foot, 1), from height `first` to `last`."""
    ends = np.array([first, last])
    return Lane(np.stack([top + ends * (foot - top), ends], axis=1), label)


def slots_of(lanes, slots=SLOTS, rows=ROWS):
    """x (S, R) and classes (S,) that a network should predict."""
    x, kinds = in_slots(*as_points([lanes]), slots, rows)
    return x[0].numpy(), kinds[0].tolist()


def placed(lanes, slots=SLOTS):
    """The number of the slot that each lane is put in, none if it is in no slot; lanes are told apart by class."""
    kinds = slots_of([Lane(lane.points, number) for number, lane in enumerate(lanes)], slots)[1]
    return [kinds.index(number) if number in kinds else None for number in range(len(lanes))]


@given(seeds, st.integers(2, 5))
@example(9421, 4)  # leaps far to the right for one row, and back
def test_lanes_come_back_from_slots_and_distributions_where_they_were_drawn(seed, vertices):
    rng = np.random.default_rng(seed)
    y = np.sort(rng.uniform(0, 1, vertices))
    assume(np.diff(y).min() > 0.02)
    x = rng.uniform(1 / COLUMNS, 1 - 1 / COLUMNS, vertices)
    lane = Lane(np.stack([x, y], axis=1))
    expected = x_at(lane, row_anchors(ROWS))
    assume(np.isfinite(expected).sum() >= 2)
    found, kinds = slots_of([lane])
    slot = kinds.index(0)
    decoded, there = from_distributions(as_distributions(torch.from_numpy(found[slot]), COLUMNS))
    covered = np.isfinite(expected)
    assert there.numpy()[covered].tolist() == [1.0] * covered.sum()
    # between two of its 64 points a lane is taken to be straight: off by a quarter of the bend at most
    bend = np.ptp(np.diff(x) / np.diff(y)) * (y[-1] - y[0]) / (POINTS - 1)
    np.testing.assert_allclose(decoded.numpy()[covered], expected[covered], atol=bend / 4 + FLOAT * 10)


@given(seeds)
def test_a_gently_bent_lane_is_kept_within_a_twentieth_of_a_pixel_of_1000(seed):
    rng = np.random.default_rng(seed)
    y = np.linspace(rng.uniform(0.1, 0.4), 1, 30)
    x = 0.5 + rng.uniform(-0.2, 0.2) * y + rng.uniform(-0.2, 0.2) * y**2
    lane = Lane(np.stack([x, y], axis=1))
    found, kinds = slots_of([lane])
    decoded = from_distributions(as_distributions(torch.from_numpy(found[kinds.index(0)]), COLUMNS))[0].numpy()
    expected = x_at(lane, row_anchors(ROWS))
    assert np.nanmax(np.abs(decoded - expected)) < 0.05 / 1000


def test_a_lane_ends_at_the_rows_nearest_its_ends_and_at_the_images_sides():
    anchors = row_anchors(10)  # 0.05, 0.15, ..., 0.95
    found, kinds = slots_of([straight(0.4, 0.4, 0.21, 0.69)], rows=10)
    assert np.isfinite(found[kinds.index(0)]).tolist() == [0.16 < anchor < 0.74 for anchor in anchors]
    found, kinds = slots_of([straight(-1.0, 1.0)], rows=10)  # enters at the middle of the image, leaves at its left
    assert np.isfinite(found[kinds.index(0)]).tolist() == [anchor <= 0.5 for anchor in anchors]
    found, kinds = slots_of([straight(1.0, 1.0)], rows=10)
    assert found[kinds.index(0)].tolist() == [1.0] * 10


def test_a_lane_that_one_row_alone_sees_is_none():
    assert set(slots_of([straight(0.4, 0.4, 0.44, 0.46)], rows=10)[1]) == {-1}
    assert set(slots_of([straight(0.4, 0.4, 0.44, 0.56)], rows=10)[1]) == {-1, 0}


def test_the_lanes_beside_the_middle_have_the_slots_in_the_middle():
    lanes = [straight(foot, 0.5) for foot in (0.1, 0.4, 0.6, 0.9)]
    assert placed(lanes) == [2, 3, 4, 5]
    assert placed(lanes, slots=4) == [0, 1, 2, 3]


@given(seeds, st.sampled_from([2, 4, 8]))
def test_slots_are_numbered_outwards_from_the_middle_whatever_the_order_of_the_labels(seed, slots):
    rng = np.random.default_rng(seed)
    feet = rng.choice(np.linspace(-0.4, 1.4, 61), rng.integers(0, 12), replace=False)  # no two alike, none at 0.5
    feet = feet[np.abs(feet - 0.5) > 0.01]
    lanes = [straight(foot, rng.uniform(0.2, 0.8)) for foot in feet]
    expected = []
    for foot in feet:
        between = (foot < feet) & (feet < 0.5) if foot < 0.5 else (feet > 0.5) & (feet < foot)
        slot = slots // 2 - 1 - between.sum() if foot < 0.5 else slots // 2 + between.sum()
        expected.append(slot if 0 <= slot < slots else None)
    order = rng.permutation(len(lanes))
    assert placed(lanes, slots) == expected
    assert placed([lanes[i] for i in order], slots) == [expected[i] for i in order]


@given(seeds)
def test_a_lanes_slot_does_not_depend_on_lanes_further_out_or_on_the_other_side(seed):
    rng = np.random.default_rng(seed)
    feet = rng.uniform(-0.2, 1.2, 7)
    lanes = [straight(foot, rng.uniform(0.2, 0.8)) for foot in feet]
    kept = rng.integers(0, 7)
    matter = [
        i
        for i in range(7)
        if i == kept or ((feet[i] < 0.5) == (feet[kept] < 0.5) and abs(feet[i] - 0.5) < abs(feet[kept] - 0.5))
    ]
    assert placed([lanes[i] for i in matter])[matter.index(kept)] == placed(lanes)[kept]


def test_the_outermost_lanes_are_left_out_where_there_are_more_than_slots():
    lanes = [straight(foot, 0.5) for foot in (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65)]
    assert placed(lanes, slots=4) == [None, None, None, 0, 1, 2, 3]


def test_a_lane_across_the_middle_belongs_to_the_side_of_its_foot():
    assert placed([straight(0.3, 0.9), straight(0.7, 0.1)]) == [3, 4]


def test_a_lane_that_ends_above_the_edge_is_drawn_on_in_the_direction_of_its_end():
    """Its lower end is left of the middle, but it would meet the edge right of it, and right of the other lane."""
    assert placed([straight(0.7, 0.1, 0.2, 0.5), straight(0.55, 0.55)]) == [5, 4]


def test_a_lane_that_reaches_below_the_image_counts_where_it_meets_the_edge():
    y = np.linspace(0, 1.5, 40)
    bent = Lane(np.stack([0.2 + 0.3 * y**4, y], axis=1))  # 0.5 at the edge, then sharply to the right
    assert placed([bent, straight(0.45, 0.45)]) == [4, 3]
    assert placed([bent, straight(0.55, 0.55)]) == [4, 5]


def test_lanes_that_meet_at_the_edge_are_ordered_by_where_they_lie_whatever_the_order_of_the_labels():
    left, right = straight(0.7, 0.2), straight(0.7, 0.8)
    assert placed([left, right]) == [4, 5]
    assert placed([right, left]) == [5, 4]
    left, right = straight(0.3, 0.2), straight(0.3, 0.8)
    assert placed([left, right]) == [2, 3]
    assert placed([right, left]) == [3, 2]


def test_lanes_drawn_twice_have_a_slot_each():
    assert sorted(placed([straight(0.3, 0.5)] * 3)) == [1, 2, 3]


def test_a_lane_that_is_not_in_the_image_any_more_takes_no_slot():
    points, labels = as_points([[straight(0.6, 0.6), straight(0.8, 0.8)]])
    points[0, 0, :, 0] += 2  # as if moved out of the view
    x, kinds = in_slots(points, labels, SLOTS, ROWS)
    assert kinds[0].tolist() == [-1, -1, -1, -1, 0, -1, -1, -1]
    torch.testing.assert_close(x[0, 4], torch.full((ROWS,), 0.8))


@given(seeds)
def test_an_image_is_the_same_in_any_batch(seed):
    rng = np.random.default_rng(seed)
    images = [
        [
            straight(rng.uniform(-0.2, 1.2), rng.uniform(0.2, 0.8), 0.3, 1.0, int(rng.integers(0, 3)))
            for _ in range(rng.integers(0, 6))
        ]
        for _ in range(4)
    ]
    x, kinds = in_slots(*as_points(images), SLOTS, ROWS)
    for number, lanes in enumerate(images):
        alone, own = slots_of(lanes)
        np.testing.assert_array_equal(x[number].numpy(), alone)
        assert kinds[number].tolist() == own


def test_images_without_lanes_have_points_that_are_none_and_empty_slots():
    points, labels = as_points([[], []])
    assert points.shape == (2, 1, POINTS, 2)
    assert torch.isnan(points).all()
    x, kinds = in_slots(points, labels, SLOTS, ROWS)
    assert torch.isnan(x).all()
    assert (kinds == -1).all()
    assert as_points([])[0].shape == (0, 1, POINTS, 2)
    assert in_slots(*as_points([]), SLOTS, ROWS)[0].shape == (0, SLOTS, ROWS)


def test_points_run_from_end_to_end_and_carry_the_class():
    points, labels = as_points([[straight(0.2, 0.4, 0.5, 1.0, label=3)], [straight(0.5, 0.5), straight(0.6, 0.6)]])
    np.testing.assert_allclose(points[0, 0, [0, -1]], [[0.3, 0.5], [0.2, 1.0]], atol=FLOAT)
    np.testing.assert_allclose(np.diff(points[0, 0, :, 1]), 0.5 / (POINTS - 1), atol=FLOAT)
    assert torch.isnan(points[0, 1]).all()
    assert labels.tolist() == [[3, 0], [0, 0]]


def test_a_lane_with_a_level_piece_is_kept_beside_it():
    lane = Lane(np.array([[0.2, 0.0], [0.2, 0.5], [0.4, 0.5], [0.4, 1.0]]))
    found, kinds = slots_of([lane], rows=10)
    np.testing.assert_allclose(found[kinds.index(0)], [0.2] * 5 + [0.4] * 5, atol=FLOAT)


@given(st.lists(st.one_of(st.floats(0, 1, width=32), st.just(np.nan)), min_size=1, max_size=20), st.integers(2, 70))
def test_a_distribution_has_the_mean_that_it_stands_for_at_most_two_columns_and_the_sum_one(xs, columns):
    x = torch.tensor(xs, dtype=torch.float32)
    weights = as_distributions(x, columns)
    assert weights.shape == (len(xs), columns + 1)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(len(xs)))
    absent = torch.isnan(x)
    assert torch.equal(weights[:, -1], absent.float())
    middles = (torch.arange(columns) + 0.5) / columns
    mean = (weights[:, :-1] * middles).sum(dim=-1)
    half = 0.5 / columns
    torch.testing.assert_close(mean[~absent], x[~absent].clamp(half, 1 - half), atol=FLOAT, rtol=0)
    assert ((weights > 0).sum(dim=-1) <= 2).all()


@given(seeds, st.integers(2, 12))
def test_of_a_single_row_x_is_the_mean_over_the_columns_next_to_the_likeliest(seed, columns):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(columns + 1, 0.3), size=(2, 3, 1)).astype(np.float32)
    x, there = from_distributions(torch.from_numpy(probabilities))
    for place in np.ndindex(2, 3, 1):
        columns_only = probabilities[place][:-1]
        top = int(columns_only.argmax())
        near = np.arange(max(0, top - 2), min(columns, top + 3))
        weights = columns_only[near].astype(np.float64)
        if weights.sum() > 1e-6:
            expected = (weights * (near + 0.5)).sum() / weights.sum() / columns
            assert x[place].item() == pytest.approx(expected, abs=1e-5)
        assert there[place].item() == pytest.approx(1 - probabilities[place][-1], abs=1e-6)
    assert ((x >= 0) & (x <= 1)).all()


def test_a_row_that_is_surely_empty_has_a_finite_x():
    x, there = from_distributions(torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    assert torch.isfinite(x).all()
    assert there.tolist() == [0.0]


@given(seeds, st.integers(1, 4), st.integers(1, 6))
def test_the_path_is_the_best_of_all(seed, rows, columns):
    rng = np.random.default_rng(seed)
    places = rng.dirichlet(np.full(columns, 0.2), size=rows).astype(np.float32)
    scores = np.log(places + np.float32(IMPOSSIBLE))

    def value(path):
        moves = np.abs(np.diff(path))
        return (
            scores[np.arange(rows), list(path)].sum()
            - np.where(moves <= REACH, np.minimum(STEP * moves, LEAP), LEAP).sum()
        )

    found = likeliest_path(torch.from_numpy(places)[None])[0].tolist()
    best = max(value(path) for path in itertools.product(range(columns), repeat=rows))
    assert value(found) == pytest.approx(best, abs=1e-4)


def test_one_doubtful_row_does_not_throw_a_lane_across_the_image_but_a_sure_one_does():
    places = torch.full((2, 12, COLUMNS), 1e-7)
    places[:, torch.arange(12), torch.arange(20, 32)] = 0.45
    places[0, 5, 60] = 0.5
    places[1, 5] = 0.0
    places[1, 5, 60] = 1.0
    path = likeliest_path(places).tolist()
    assert path[0] == list(range(20, 32))
    assert path[1] == [*range(20, 25), 60, *range(26, 32)]


def test_where_x_is_not_asked_for_there_is_none_and_the_others_do_not_change():
    probabilities = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(9, 0.3), size=(2, 3, 5)))
    wanted = torch.tensor([[True, False, True], [False, False, True]])
    x, there = from_distributions(probabilities, wanted)
    whole, whole_there = from_distributions(probabilities)
    assert torch.equal(torch.isnan(x).all(dim=-1), ~wanted)
    assert torch.equal(x[wanted], whole[wanted])
    assert torch.equal(there, whole_there)
    nothing, _ = from_distributions(probabilities, torch.zeros(2, 3, dtype=torch.bool))
    assert torch.isnan(nothing).all()
