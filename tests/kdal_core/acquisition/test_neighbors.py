import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from kdal_core.acquisition import nearest_neighbors, neighbors, reverse_neighbor_counts
from kdal_core.errors import KdalError

# A coarse grid: many equal distances and duplicates.
grids = st.integers(2, 30).flatmap(
    lambda n: arrays(np.float64, st.tuples(st.just(n), st.integers(1, 3)), elements=st.integers(-3, 3))
)


def brute_force(points, k):
    rows = []
    for i, point in enumerate(points):
        others = [(float(((point - other) ** 2).sum()), j) for j, other in enumerate(points) if j != i]
        rows.append([j for _, j in sorted(others)[:k]])
    return np.array(rows, dtype=np.int64).reshape(len(points), k)


def test_neighbours_on_a_line_are_the_printed_ones():
    found = nearest_neighbors([[0], [1], [3], [6], [10]], k=2)
    assert [sorted(row) for row in found.tolist()] == [[1, 2], [0, 2], [0, 1], [2, 4], [2, 3]]
    assert reverse_neighbor_counts(found).tolist() == [2, 2, 4, 1, 1]


@given(grids, st.integers(1, 12))
def test_ties_and_duplicates_are_ordered_by_distance_then_index(points, k):
    k = min(k, len(points) - 1)
    assert np.array_equal(nearest_neighbors(points, k), brute_force(points, k))


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e12])
def test_neighbours_are_those_of_sklearn_far_from_the_origin_too(offset):
    points = np.random.default_rng(1).normal(size=(500, 8)) + offset
    _, expected = NearestNeighbors(n_neighbors=6, algorithm="kd_tree").fit(points).kneighbors(points)
    found = nearest_neighbors(points, 5)
    if offset == 0:
        assert np.array_equal(found, expected[:, 1:])
    assert np.array_equal(found, brute_force(points, 5))


def test_blocks_of_rows_do_not_change_the_result(monkeypatch):
    points = np.round(np.random.default_rng(2).normal(size=(300, 3)), 1)
    whole = nearest_neighbors(points, 7)
    monkeypatch.setattr("kdal_core.acquisition.neighbors.BLOCK", 1000)
    assert np.array_equal(nearest_neighbors(points, 7), whole)
    assert np.array_equal(whole, brute_force(points, 7))


def test_a_pool_of_one_image_many_times_over_is_ordered_by_index():
    points = np.ones((1000, 4))
    points[500:] = 2
    found = nearest_neighbors(points, 3)
    assert found[0].tolist() == [1, 2, 3]
    assert found[1].tolist() == [0, 2, 3]
    assert found[999].tolist() == [500, 501, 502]


def test_one_far_outlier_does_not_disturb_the_others():
    points = np.random.default_rng(3).normal(size=(200, 4))
    points[17] *= 1e9
    assert np.array_equal(nearest_neighbors(points, 4), brute_force(points, 4))


def test_signed_zeros_are_equal_points():
    assert nearest_neighbors([[0.0], [-0.0], [0.0], [0.0]], 1).tolist() == [[1], [0], [0], [0]]


@given(st.integers(0, 1000), st.integers(1, 6))
def test_renumbering_the_points_renumbers_the_neighbours(seed, k):
    rng = np.random.default_rng(seed)
    points, order = rng.normal(size=(20, 3)), rng.permutation(20)  # no ties
    assert np.array_equal(order[nearest_neighbors(points[order], k)], nearest_neighbors(points, k)[order])


@given(grids, st.integers(1, 8))
def test_the_counts_of_all_points_sum_to_k_times_n(points, k):
    k = min(k, len(points) - 1)
    assert reverse_neighbor_counts(nearest_neighbors(points, k)).sum() == k * len(points)


@given(grids, st.integers(0, 1000))
def test_excluded_points_are_nobodys_reverse_neighbours(points, seed):
    graph = nearest_neighbors(points, min(3, len(points) - 1))
    excluded = np.random.default_rng(seed).random(len(points)) < 0.4
    expected = [sum(p in graph[q] for q in range(len(points)) if not excluded[q]) for p in range(len(points))]
    assert reverse_neighbor_counts(graph, excluded).tolist() == expected


def test_no_neighbour_is_a_valid_wish_of_a_pool_of_one():
    assert nearest_neighbors([[1.0, 2.0]], 0).shape == (1, 0)
    assert nearest_neighbors(np.empty((0, 3)), 0).shape == (0, 0)
    assert reverse_neighbor_counts(np.empty((3, 0), dtype=np.int64)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("k", [-1, 3, 10, 1.5, True])
def test_more_neighbours_than_other_points_are_refused(k):
    with pytest.raises(KdalError, match="k must"):
        nearest_neighbors(np.zeros((3, 2)), k)


@pytest.mark.parametrize("features", [[[np.nan], [1]], [[np.inf], [1]], [[1e200], [1]], [1, 2], [["a"], ["b"]]])
def test_features_that_have_no_distance_are_refused(features):
    with pytest.raises(KdalError, match="features"):
        nearest_neighbors(features, 1)


@pytest.mark.parametrize("graph", [[[5]], [[-1], [0]], [[0.5], [0]], [0, 1], [[0], [0]], [[1, 1], [0, 0]]])
def test_a_graph_that_is_none_is_refused(graph):
    with pytest.raises(KdalError, match="neighbors"):
        reverse_neighbor_counts(graph)


@pytest.mark.parametrize("excluded", [[True], [0, 1], [[True], [False]]])
def test_an_excluded_set_of_another_form_is_refused(excluded):
    with pytest.raises(KdalError, match="excluded"):
        reverse_neighbor_counts([[1], [0]], excluded)


def test_the_module_keeps_memory_bounded_by_a_named_block():
    assert neighbors.BLOCK * 8 <= 64 * 2**20
