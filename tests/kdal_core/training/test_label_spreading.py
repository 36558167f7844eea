import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from kdal_core.training import label_spreading
from kdal_core.training.label_spreading import neighbor_graph, spread


@pytest.fixture
def points():
    rows = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_each_point_is_joined_to_its_nearest(points):
    """By scikit-learn's neighbours, in dense matrices."""
    one_way = NearestNeighbors(n_neighbors=5).fit(points).kneighbors_graph().toarray()
    both = one_way + one_way.T
    degrees = both.sum(axis=1)
    np.testing.assert_allclose(
        neighbor_graph(points, 5).toarray(), both / np.sqrt(degrees[:, None] * degrees), atol=1e-6
    )


def test_labels_spread_to_the_solution_of_the_linear_system(points):
    graph = neighbor_graph(points, 5)
    seeds = np.zeros((300, 3), dtype=np.float32)
    seeds[[4, 50, 200], [0, 1, 2]] = 1
    exact = np.linalg.solve(np.eye(300) - 0.8 * graph.toarray(), 0.2 * seeds)
    np.testing.assert_allclose(spread(graph, seeds, alpha=0.8, steps=60), exact, atol=1e-5)
    assert seeds.sum() == 3  # what was given is as it was


def test_a_label_reaches_no_farther_than_its_steps():
    points = np.stack([np.cos(np.arange(6) / 10), np.sin(np.arange(6) / 10)], axis=1).astype(np.float32)
    seeds = np.zeros((6, 1), dtype=np.float32)
    seeds[0] = 1
    assert (spread(neighbor_graph(points, 1), seeds, alpha=0.9, steps=1)[:, 0] > 0).tolist() == [True, True] + [
        False
    ] * 4


def test_nothing_comes_to_points_that_no_label_is_joined_to():
    points = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    seeds = np.zeros((10, 2), dtype=np.float32)
    seeds[0, 0] = 1
    found = spread(neighbor_graph(points, 3), seeds, alpha=0.9, steps=30)
    assert (found[:5, 0] > 0).any()
    assert (found[5:] == 0).all()


@pytest.mark.parametrize(("size", "k"), [(1, 10), (2, 10), (4, 3)])
def test_the_smallest_graphs(size, k):
    graph = neighbor_graph(np.eye(4, dtype=np.float32)[:size], k)
    assert graph.shape == (size, size)
    assert np.isfinite(graph.toarray()).all()


def test_equal_points_are_not_their_own_neighbours():
    graph = neighbor_graph(np.ones((50, 4), dtype=np.float32) / 2, 5)
    assert (graph.diagonal() == 0).all()


def test_the_inverted_file_finds_most_neighbours(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((40, 16))[rng.integers(0, 40, 4000)] + 0.5 * rng.standard_normal((4000, 16))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    exact = neighbor_graph(points, 10) > 0
    monkeypatch.setattr(label_spreading, "EXACT_UP_TO", 1000)
    found = neighbor_graph(points, 10) > 0
    assert (found * exact).sum() / exact.sum() > 0.9
    assert ((neighbor_graph(points, 10) > 0) != found).nnz == 0
