import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.neighbors import NearestNeighbors

from kdal_core.acquisition import nearest_neighbors, reverse_neighbor_counts
from kdal_core.acquisition.neighbors import neighbor_search
from kdal_core.errors import KdalError

# A coarse grid: many equal distances and duplicates.
grids = st.integers(2, 30).flatmap(
    lambda n: arrays(np.float64, st.tuples(st.just(n), st.integers(1, 3)), elements=st.integers(-3, 3))
)


def brute_force(points, k, rows=None):
    rows, wanted = [], range(len(points)) if rows is None else rows
    for i in wanted:
        point = points[i]
        others = [(float(((point - other) ** 2).sum()), j) for j, other in enumerate(points) if j != i]
        rows.append([j for _, j in sorted(others)[:k]])
    return np.array(rows, dtype=np.int64).reshape(len(wanted), k)


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
    monkeypatch.setattr("kdal_core.acquisition.exhaustive.BLOCK", 1000)
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


def test_less_memory_than_a_search_needs_is_refused_with_what_it_needs():
    with pytest.raises(KdalError, match=r"memory is 1000000 bytes; method 'exact' needs \d+"):
        nearest_neighbors(np.random.default_rng(0).normal(size=(2000, 4)), 3, memory=1_000_000)


def test_an_unknown_method_is_refused():
    with pytest.raises(KdalError, match="method must be"):
        nearest_neighbors(np.zeros((3, 2)), 1, method="hnsw")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pool_large_enough_for_blocks_has_the_neighbours_of_sklearn(dtype):
    points = np.random.default_rng(4).normal(size=(5000, 6)).astype(dtype)
    tree = NearestNeighbors(n_neighbors=6, algorithm="kd_tree").fit(points.astype(np.float64))
    _, expected = tree.kneighbors(points.astype(np.float64))
    found = neighbor_search(points, 5)
    assert np.array_equal(found.indices, expected[:, 1:])
    assert (found.method, found.recall) == ("exact", 1.0)


def test_a_pool_of_which_half_is_one_image_has_the_neighbours_of_the_rest_and_the_first_copies():
    points = np.random.default_rng(5).normal(size=(3000, 4))
    points[1::2] = points[1]
    found = nearest_neighbors(points, 4)
    assert (found[9::2] == [1, 3, 5, 7]).all()
    assert found[1].tolist() == [3, 5, 7, 9]
    assert found[3].tolist() == [1, 5, 7, 9]
    assert np.array_equal(found[:50:2], brute_force(points, 4, rows=range(0, 50, 2)))


def test_the_inverted_file_finds_what_it_reports_in_clustered_points():
    rng = np.random.default_rng(6)
    points = (4 * rng.normal(size=(60, 16)))[rng.integers(0, 60, 6000)] + rng.normal(size=(6000, 16))
    points[5000:5020] = points[7]
    exact, found = neighbor_search(points, 5, method="exact"), neighbor_search(points, 5, method="ivf")
    shared = (exact.indices[:, :, None] == found.indices[:, None, :]).any(axis=1).mean()
    assert found.method == "ivf"
    assert found.recall >= 0.99
    assert shared == pytest.approx(found.recall, abs=0.01)
    same = (exact.indices == found.indices).all(axis=1)
    assert same.mean() > 0.95  # in the same order, too
    assert not (found.indices == np.arange(6000)[:, None]).any()


def test_the_inverted_file_serves_a_pool_of_a_few_points_and_float64_far_from_the_origin():
    points = np.random.default_rng(7).normal(size=(30, 3)) + 1e7
    found = neighbor_search(points, 29, method="ivf")
    assert np.array_equal(found.indices, brute_force(points, 29))
    assert found.recall == 1


def test_the_automatic_choice_is_exact_where_an_inverted_file_must_look_everywhere(monkeypatch):
    monkeypatch.setattr("kdal_core.acquisition.neighbors.EXACT_UP_TO", 1500)
    rng = np.random.default_rng(8)
    flat = rng.normal(size=(2000, 40))
    assert neighbor_search(flat, 3).method == "exact"
    apart = (1000 * rng.normal(size=(32, 8)))[np.arange(3200) % 32] + rng.normal(size=(3200, 8))
    assert neighbor_search(apart, 3).method == "ivf"
