import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pairwise_distances

from kdal_core.acquisition import blocked
from kdal_core.acquisition.blocked import blocked_neighbors
from kdal_core.acquisition.exhaustive import exhaustive_neighbors

CPU = torch.device("cpu")


def by_measuring_all(points, k):
    """Rows sorted by (float64 distance, index)."""
    points = points.astype(np.float64)
    rows = []
    for i, point in enumerate(points):
        distance = ((point - points) ** 2).sum(axis=1)
        distance[i] = np.inf
        rows.append(np.argsort(distance, kind="stable")[:k])
    return np.array(rows)


def pool(kind):
    rng = np.random.default_rng(1)
    plain = rng.normal(size=(700, 6))
    if kind == "one outlier":
        plain[17] *= 1e9
    elif kind == "many outliers":
        plain[::7] *= 1e9
    elif kind == "an outlier beyond float32":
        plain[17] *= 1e60
    elif kind == "far from the origin":
        plain += 1e6
    elif kind == "tiny":
        plain *= 1e-90
    elif kind == "huge":
        plain *= 1e90
    elif kind == "float32":
        plain = plain.astype(np.float32)
    elif kind == "clusters that float32 cannot resolve":
        plain += (1e5 * rng.normal(size=(4, 6)))[rng.integers(0, 4, 700)]
    elif kind == "grid":
        plain = np.unique(rng.integers(-2, 3, (700, 4)).astype(float), axis=0)
    return plain


@pytest.mark.parametrize("tile", [16, 61, 128, 5000])
@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "float32",
        "one outlier",
        "many outliers",
        "an outlier beyond float32",
        "far from the origin",
        "tiny",
        "huge",
        "clusters that float32 cannot resolve",
        "grid",
    ],
)
def test_blocks_find_what_measuring_all_distances_finds(kind, tile):
    points = pool(kind)
    assert np.array_equal(blocked_neighbors(points, 7, CPU, tile), by_measuring_all(points, 7))


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(6, 40), st.integers(1, 60))
def test_ties_are_ordered_by_index_whatever_the_blocks(seed, k, tile, size):
    rng = np.random.default_rng(seed)
    points = np.unique(rng.integers(-3, 4, (size + 20, 3)).astype(float), axis=0)
    rng.shuffle(points)
    k = min(k, len(points) - 1)
    assert np.array_equal(blocked_neighbors(points, k, CPU, tile), by_measuring_all(points, k))


@pytest.mark.parametrize("tile", [50, 64])
def test_the_hits_of_another_device_are_those_of_the_host(monkeypatch, tile):
    points = pool("plain")
    host = blocked_neighbors(points, 5, CPU, tile)
    monkeypatch.setattr(blocked, "_HostHits", lambda *_: blocked._DeviceHits())
    assert np.array_equal(blocked_neighbors(points, 5, CPU, tile), host)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_finds_what_measuring_all_distances_finds():
    points = np.random.default_rng(2).normal(size=(20_000, 16)).astype(np.float32)
    found = blocked_neighbors(points, 10, torch.device("cuda"))
    assert np.array_equal(found, exhaustive_neighbors(points, 10))


def test_the_process_keeps_its_precision_and_threads():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        threads = torch.get_num_threads()
        points = pool("plain")
        assert np.array_equal(blocked_neighbors(points, 5, CPU, 100), by_measuring_all(points, 5))
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_num_threads() == threads
    finally:
        torch.set_float32_matmul_precision(before)


def test_some_rows_by_float64_are_those_of_all_rows():
    points = pool("plain")
    rows = np.array([3, 600, 17])
    expected = np.argsort(pairwise_distances(points) + np.diag(np.full(len(points), np.inf)), axis=1)[rows, :4]
    assert np.array_equal(exhaustive_neighbors(points, 4, rows), expected)
