import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from kdal_core.acquisition import PoolScores, strategy
from kdal_core.acquisition.strategies.typiclust import DENSE, cluster_order, clusters, typical_rounds, typicality
from kdal_core.errors import KdalError


def blobs(sizes, seed=0, spread=0.3):
    """Far apart, one after the other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([20.0 * i + spread * rng.normal(size=(size, 2)) for i, size in enumerate(sizes)])


def grid(seed, size, width=3):
    return np.random.default_rng(seed).integers(-50, 51, (size, width)).astype(float)


@pytest.mark.parametrize(("size", "k"), [(2, 20), (7, 3), (40, 20), (DENSE, 20), (DENSE + 1, 20)])
def test_typicality_is_the_inverse_of_the_mean_distance_to_neighbours_as_scikit_learn_measures_it(size, k):
    rows = np.random.default_rng(0).integers(-1000, 1001, (size, 4)).astype(float)
    distances = NearestNeighbors(n_neighbors=min(k, size - 1)).fit(rows).kneighbors()[0]
    np.testing.assert_allclose(typicality(rows, k), 1 / distances.mean(axis=1), rtol=1e-9)


def test_a_cluster_of_one_or_of_copies_has_a_finite_typicality():
    assert np.isfinite(typicality(np.zeros((1, 2)), 20)).all()
    assert len(set(typicality(np.zeros((30, 2)), 20).tolist())) == 1
    assert np.isfinite(typicality(np.zeros((DENSE + 5, 2)), 20)).all()
    assert typicality(np.zeros((0, 2)), 20).tolist() == []


def test_clusters_without_labels_come_first_then_the_larger_ones_and_small_ones_last():
    labels = np.repeat([0, 1, 2, 3], [6, 9, 8, 2])
    order = [(labels[members[0]], small) for members, small in cluster_order(labels, np.array([1, 1, 2]), min_size=5)]
    assert order == [(0, False), (2, False), (1, False), (3, True)]


def test_equally_large_clusters_go_by_their_lowest_image_whatever_their_names():
    for labels in ([0, 1, 0, 1], [1, 0, 1, 0], [7, 3, 7, 3]):
        queue = cluster_order(np.array(labels), np.zeros(0, dtype=np.int64), min_size=1)
        assert [members.tolist() for members, _ in queue] == [[0, 2], [1, 3]]


@given(st.integers(0, 10_000), st.integers(0, 30))
def test_rounds_take_the_most_typical_image_left_in_one_cluster_after_the_other(seed, picks):
    """Brute force of the official code's loop."""
    rng = np.random.default_rng(seed)
    rows, labels, labelled = grid(seed, 30), rng.integers(0, 4, 30), rng.integers(0, 4, 3)
    order, _ = typical_rounds(rows, labels, labelled, picks, k=4, min_size=1)
    counts = [(np.sum(labelled == c), -np.sum(labels == c) - np.sum(labelled == c), i) for i, c in enumerate(labels)]
    queue = sorted(set(labels.tolist()), key=lambda c: min(counts[i] for i in np.flatnonzero(labels == c)))
    expected, taken = [], set()
    while len(expected) < picks:
        for c in queue:
            left = [i for i in np.flatnonzero(labels == c).tolist() if i not in taken]
            if left and len(expected) < picks:
                best = left[int(typicality(rows[left], 4).argmax())]
                expected.append(best)
                taken.add(best)
    assert order[:picks].tolist() == expected
    assert sorted(order.tolist()) == list(range(30))


@given(st.integers(0, 10_000))
def test_the_pools_order_does_not_matter_once_the_clusters_are_given(seed):
    rng = np.random.default_rng(seed)
    rows, labels = np.round(rng.normal(size=(40, 3)) * 1e4), np.repeat([0, 1, 2], [20, 12, 8])
    moved = rng.permutation(40)
    plain, _ = typical_rounds(rows, labels, labels[:0], 6)
    permuted, _ = typical_rounds(rows[moved], labels[moved], labels[:0], 6)
    assert moved[permuted].tolist() == plain.tolist()


def test_a_batch_of_as_many_as_there_are_blobs_takes_one_of_each_the_largest_first():
    rows = blobs([30, 60, 10, 45])
    order = strategy("typiclust")(PoolScores(features=rows, budget=4)).indices
    assert np.digitize(order[:4], np.cumsum([30, 60, 10])).tolist() == [1, 3, 0, 2]


def test_blobs_with_a_label_wait_for_those_without():
    rows = blobs([30, 60, 10, 45])
    known = np.array([[20.0, 20.0], [60.0, 60.0]])
    order = strategy("typiclust")(PoolScores(features=rows, labelled_features=known, budget=2)).indices
    assert np.digitize(order[:2], np.cumsum([30, 60, 10])).tolist() == [0, 2]


def test_an_outlier_is_a_small_cluster_and_comes_last():
    rows = np.concatenate([[[1000.0, 1000.0]], blobs([20, 20])])
    order = strategy("typiclust")(PoolScores(features=rows, budget=3)).indices
    assert order[-1] == 0


def test_the_middle_of_a_blob_is_more_typical_than_its_rim():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 2))
    first = strategy("typiclust")(PoolScores(features=rows, budget=1)).indices[0]
    assert np.linalg.norm(rows[first]) < np.median(np.linalg.norm(rows, axis=1))


@pytest.mark.parametrize("count", [3, 70])
def test_there_are_never_more_clusters_than_distinct_images(count):
    rows = np.repeat(np.arange(2.0)[:, None], 60, axis=0)
    assert len(np.unique(clusters(rows, count, np.random.default_rng(0)))) == 2


def test_more_than_fifty_clusters_are_found_in_mini_batches():
    rows = blobs([10] * 60, spread=0.01)
    found = clusters(rows, 60, np.random.default_rng(0))
    assert len(np.unique(found)) > 50


@pytest.mark.parametrize("bad", [{"k": 0}, {"max_clusters": 0}, {"min_size": 0}, {"k": 1.5}])
def test_a_parameter_out_of_range_is_refused(bad):
    with pytest.raises(KdalError):
        strategy("typiclust", **bad)(PoolScores(features=np.zeros((5, 2))))
