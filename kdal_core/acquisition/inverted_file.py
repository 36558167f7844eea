"""Approximate nearest neighbours of a large pool in itself by faiss's inverted file, with a measured recall."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdal_core.acquisition.exhaustive import Points, nearest_of_candidates

GOAL = 0.99  # recall wanted of the sample
QUERIES = 1_000  # the sample
TRAINING = 48  # points a list for k-means; faiss warns below 39
ROUNDS = 6  # of k-means; more of them find no more neighbours
BATCH = 16_384  # queries searched at a time


@dataclass(frozen=True)
class InvertedFile:
    """A faiss index of points with the number of lists to look into.

    Attributes:
        index: faiss.IndexIVFFlat holding all points.
        vectors: (N, D) float32, what it holds.
        nprobe: lists searched for each point.
        recall: share of the k true neighbours found, over a sample of points.
    """

    index: Any
    vectors: NDArray[np.float32]
    nprobe: int
    recall: float

    @property
    def share(self) -> float:
        """The part of all lists that each search looks into."""
        return self.nprobe / float(self.index.nlist)


def build_inverted_file(points: Points, k: int, *, nprobe: int | None = None) -> InvertedFile:
    """Cluster the points into about 4 √N lists and find how many lists must be searched.

    Args:
        points: (N, D) finite; N - 1 >= k.
        k: neighbours wanted.
        nprobe: lists to search; None takes the fewest that find `GOAL` of the neighbours of a sample, which
            float32 brute force finds too.
    """
    import faiss

    vectors = _float32(points)
    size, dimensions = vectors.shape
    rng = np.random.default_rng(0)
    lists = lists_of(size)
    with _threads_of_torch():
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimensions), dimensions, lists)
        index.cp.seed, index.cp.max_points_per_centroid = 0, TRAINING
        index.cp.niter, index.cp.min_points_per_centroid = ROUNDS, 1
        index.train(vectors[np.sort(rng.choice(size, min(size, TRAINING * lists), replace=False))])
        for start in range(0, size, 10 * BATCH):
            index.add(vectors[start : start + 10 * BATCH])
        sample = np.sort(rng.choice(size, min(size, QUERIES), replace=False))
        truth = _nearest(points, sample, faiss.knn(vectors[sample], vectors, k + 1)[1], k)
        for probed in [nprobe] if nprobe else _tries(lists):
            recall = _overlap(_search(points, vectors, index, probed, sample, k), truth)
            if recall >= GOAL:
                break
    return InvertedFile(index, vectors, probed, recall)


def search_inverted_file(points: Points, file: InvertedFile, k: int) -> NDArray[np.int64]:
    """The k nearest of the other points that share a searched list, by (float64 distance, index).

    Args:
        points: (N, D), those that `file` was built of.
        file: from `build_inverted_file`.
        k: neighbours wanted.

    Returns:
        (N, k) row numbers.
    """
    result = np.empty((len(points), k), dtype=np.int64)
    order = _by_list(file.index)  # neighbouring queries look into the same lists, which stay in the cache
    with _threads_of_torch():
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            result[rows] = _search(points, file.vectors, file.index, file.nprobe, rows, k)
    return result


def lists_of(size: int) -> int:
    """The number of lists for this many points: a power of two near 4 √N, with points enough to train each.

    >>> lists_of(1_000_000), lists_of(100)
    (4096, 2)
    """
    wanted = round(np.log2(4 * np.sqrt(size)))
    return int(2 ** max(0, min(wanted, int(np.log2(max(size / 40, 1))))))


def bytes_needed(size: int, dimensions: int, item: int) -> int:
    """Working space for points of `item` bytes a number: the index, a float32 copy if need be, one batch."""
    copies = 1 if item == 4 else 2
    return size * (4 * dimensions * copies + 16) + TRAINING * lists_of(size) * dimensions * 4 + 128 * 2**20


def _search(
    points: Points, vectors: NDArray[np.float32], index: Any, nprobe: int, rows: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """Neighbours of some rows; a row whose lists hold too few points is searched in all lists."""

    def found_in(lists: int, some: NDArray[np.int64]) -> NDArray[np.int64]:
        index.nprobe = lists
        found: NDArray[np.int64] = index.search(vectors[some], k + 1)[1]
        return found

    found = found_in(nprobe, rows)
    short = np.flatnonzero((found < 0).any(axis=1))
    if len(short):
        found[short] = found_in(index.nlist, rows[short])
    return _nearest(points, rows, found, k)


def _nearest(points: Points, rows: NDArray[np.int64], found: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """(R, k) of (R, k + 1) found: each row without itself, or without the last where it is not there."""
    others = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, :k]
    candidates = np.take_along_axis(found, others, axis=1)
    return nearest_of_candidates(points, rows, np.repeat(np.arange(len(rows)), k), candidates.ravel(), k)


def _overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """The share of the true neighbours that were found."""
    return float((found[:, :, None] == truth[:, None, :]).any(axis=1).mean())


def _tries(lists: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, ... up to all lists."""
    steps = sorted({1} | {2**i for i in range(1, 32)} | {3 * 2**i for i in range(31)})
    return [step for step in steps if step < lists] + [lists]


def _by_list(index: Any) -> NDArray[np.int64]:
    """All row numbers, list after list."""
    import faiss

    sizes = [index.invlists.list_size(i) for i in range(index.nlist)]
    parts = [faiss.rev_swig_ptr(index.invlists.get_ids(i), n).copy() for i, n in enumerate(sizes) if n]
    order: NDArray[np.int64] = np.concatenate(parts).astype(np.int64)
    return order


def _float32(points: Points) -> NDArray[np.float32]:
    """The points as float32; float64 ones are centred and scaled first, for what float32 can hold."""
    if points.dtype == np.float32:
        return np.ascontiguousarray(points, dtype=np.float32)
    centre = np.median(points[:: max(1, len(points) // 1000)], axis=0)
    vectors = np.empty(points.shape, dtype=np.float32)
    scale = max(float(np.abs(points.max(axis=0) - centre).max()), float(np.abs(points.min(axis=0) - centre).max()))
    for start in range(0, len(points), BATCH):
        vectors[start : start + BATCH] = (points[start : start + BATCH] - centre) / (scale or 1.0)
    return vectors


@contextmanager
def _threads_of_torch() -> Iterator[None]:
    """Faiss uses as many threads as the process gave torch; its own number comes back afterwards."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
