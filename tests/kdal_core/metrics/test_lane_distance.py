from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.errors import KdalError
from kdal_core.metrics import lane_distance
from kdal_core.metrics.lane_distance import time_warping

eighths = st.integers(-800, 800).map(lambda eighth: eighth / 8)
any_lanes = st.lists(st.tuples(eighths, eighths), min_size=2, max_size=6).map(np.array)
METHODS = ["rows", "dtw"]


def falling(points):
    """The same vertices from the top down, no two in one row."""
    return points[np.unique(points[:, 1], return_index=True)[1]]


falling_lanes = any_lanes.map(falling).filter(lambda lane: len(lane) >= 2)


def by_the_definition(a, b, cap, rows):
    """Row by row with numpy's own interpolation, for lanes that only fall."""
    costs = []
    for row in rows:
        covered = [lane[0, 1] <= row <= lane[-1, 1] for lane in (a, b)]
        at = [np.interp(row, lane[:, 1], lane[:, 0]) for lane in (a, b)]
        if any(covered):
            costs.append(abs(at[0] - at[1]) if all(covered) else cap)
    return np.mean(costs)


@given(falling_lanes, falling_lanes, st.floats(0, 200))
def test_the_distance_is_the_mean_cost_of_the_rows_that_either_covers(a, b, cap):
    rows = np.arange(-101, 102, 0.5)
    ends = np.concatenate([a[:, 1], b[:, 1]])
    if ((rows >= ends.min()) & (rows <= ends.max())).any() and any(
        ((rows >= lane[0, 1]) & (rows <= lane[-1, 1])).any() for lane in (a, b)
    ):
        expected = by_the_definition(a, b, cap, rows)
        assert lane_distance(a, b, rows=rows, cap=cap) == pytest.approx(expected, abs=1e-9)


@given(falling_lanes, falling_lanes)
def test_by_default_every_whole_row_between_whole_ends_is_compared(a, b):
    for lane in (a, b):
        lane[:, 1] = np.cumsum(np.ones(len(lane))) * 3 + np.floor(lane[0, 1])
    rows = np.arange(min(a[0, 1], b[0, 1]), max(a[-1, 1], b[-1, 1]) + 1)
    assert lane_distance(a, b) == pytest.approx(by_the_definition(a, b, 100.0, rows), abs=1e-9)


def test_slanted_lanes_have_the_mean_of_the_gaps_at_each_row():
    assert lane_distance([[0, 0], [0, 10]], [[0, 0], [10, 10]]) == pytest.approx(5)  # gaps 0, 1, .., 10
    assert lane_distance([[0, 0], [0, 10]], [[0, 0], [10, 10]], step=5) == pytest.approx(5)  # gaps 0, 5, 10


def test_lanes_without_a_common_row_are_the_cap_apart():
    assert lane_distance([[0, 0], [0, 9]], [[0, 20], [0, 29]], cap=70) == 70


def test_rows_that_neither_covers_do_not_count():
    a, b = [[0, 0], [0, 9]], [[0, 5], [0, 9]]
    assert lane_distance(a, b, rows=np.arange(-50, 50), cap=10) == pytest.approx(5)  # rows 0 to 4 of 0 to 9


def test_a_lane_shorter_than_a_row_is_still_compared():
    assert lane_distance([[0, 3.2], [8, 3.4]], [[10, 3.1], [18, 3.3]]) == pytest.approx(10, abs=2)


def test_a_lane_that_meets_a_row_twice_is_taken_between_its_crossings():
    arch = [[0, 10], [10, 0], [20, 10]]  # symmetric about x = 10
    assert lane_distance(arch, [[10, 0], [10, 10]]) == pytest.approx(0)


def test_a_level_lane_is_taken_at_its_middle():
    assert lane_distance([[0, 5], [10, 5]], [[8, 5], [8, 5]]) == pytest.approx(3)


@pytest.mark.parametrize("method", METHODS)
@given(any_lanes, any_lanes)
def test_the_distance_is_symmetric_not_negative_and_zero_to_itself(method, a, b):
    assert lane_distance(a, a, method=method) == 0
    ours = lane_distance(a, b, method=method)
    assert ours >= 0
    assert lane_distance(b, a, method=method) == pytest.approx(ours, abs=1e-9)


@pytest.mark.parametrize("method", METHODS)
@given(any_lanes, any_lanes)
def test_either_drawing_direction_gives_the_same(method, a, b):
    expected = pytest.approx(lane_distance(a, b, method=method), abs=1e-9)
    assert lane_distance(a[::-1], b, method=method) == expected
    assert lane_distance(a, b[::-1], method=method) == expected
    assert lane_distance(a[::-1], b[::-1], method=method) == expected


@pytest.mark.parametrize("method", METHODS)
@given(any_lanes, any_lanes, st.integers(-500, 500), st.integers(-500, 500))
def test_moving_both_lanes_by_whole_pixels_changes_nothing(method, a, b, right, down):
    moved = lane_distance(np.add(a, [right, down]), np.add(b, [right, down]), method=method)
    assert moved == pytest.approx(lane_distance(a, b, method=method), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@given(falling_lanes, eighths)
def test_a_lane_moved_sideways_is_at_most_that_far_apart(method, lane, right):
    distance = lane_distance(lane, np.add(lane, [right, 0]), method=method)
    if method == "rows":
        assert distance == pytest.approx(abs(right), abs=1e-9)
    else:  # warping may find a shorter way than the one straight across
        assert distance <= abs(right) * (1 + 1e-9) + 1e-9


def test_warping_matches_parallel_upright_lanes_point_by_point():
    assert lane_distance([[0, 0], [0, 90]], [[7, 90], [7, 0]], method="dtw") == pytest.approx(7)


def test_more_vertices_on_the_same_line_change_nothing():
    line, dense = np.array([[0.0, 0], [30, 60]]), np.linspace([0.0, 0], [30, 60], 13)
    other = np.array([[5.0, 3], [9, 55]])
    for method in METHODS:
        expected = pytest.approx(lane_distance(line, other, method=method), abs=1e-9)
        assert lane_distance(dense, other, method=method) == expected


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_warping_finds_the_cheapest_of_all_paths(seed, n, m):
    costs = np.random.default_rng(seed).random((2, n, m))

    def cheapest(matrix):
        @cache
        def to(i, j):
            if i == j == 0:
                return 2 * matrix[0, 0]
            ways = [(i - 1, j, 1), (i, j - 1, 1), (i - 1, j - 1, 2)]
            return min(to(r, c) + weight * matrix[i, j] for r, c, weight in ways if r >= 0 and c >= 0)

        return to(n - 1, m - 1) / (n + m)

    np.testing.assert_allclose(time_warping(costs), [cheapest(matrix) for matrix in costs])


@pytest.mark.parametrize(
    ("a", "options", "message"),
    [
        ([[0, 0]], {}, "^a must hold at least two"),
        ([0, 1], {}, "^a must have the shape"),
        ([[0, 0, 0], [1, 1, 1]], {}, "^a must hold"),
        ([[0, 0], [0, np.nan]], {}, "^a holds NaN"),
        ([[0, 0], [0, np.inf]], {}, "^a holds an infinite"),
        ([[0, 0], [0, 9]], {"cap": -1}, "^cap"),
        ([[0, 0], [0, 9]], {"step": 0}, "^step"),
        ([[0, 0], [0, 9]], {"method": "frechet"}, "^method"),
        ([[0, 0], [0, 9]], {"rows": [50, 60]}, "^rows"),
        ([[0, 0], [0, 9]], {"rows": [[5]]}, "^rows"),
        ([[0, 0], [0, 9e9]], {}, "larger step"),
    ],
)
def test_what_is_no_lane_or_no_option_is_refused(a, options, message):
    with pytest.raises(KdalError, match=message):
        lane_distance(a, [[0, 0], [0, 9]], **options)
