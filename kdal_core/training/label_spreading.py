"""Labels spread over a graph of nearest neighbours.

Source: Zhou et al., Learning with local and global consistency, 2003.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

EXACT_UP_TO = 10_000  # points; seconds on one core
PROBED = 8  # lists of the inverted file that are looked into for each point
TRAINING = 48  # points a list for k-means; faiss warns below 39


def neighbor_graph(points: NDArray[np.float32], k: int) -> Any:
    """The graph that joins each point to its k nearest, as a symmetric matrix scaled by the roots of its degrees.

    Args:
        points: (N, D), of length 1 each.
        k: neighbours; at most N - 1 are taken.

    Returns:
        scipy.sparse.csr_array (N, N) float32, D^-1/2 (A + Aᵀ) D^-1/2.

    Up to 10,000 points are searched exactly, O(N² D); more through faiss's inverted file, about O(N^1.5 D), which
    misses some neighbours.
    """
    size = len(points)
    k = min(k, size - 1)
    if k < 1:
        return sparse.csr_array((size, size), dtype=np.float32)
    found = _nearest(np.ascontiguousarray(points), k + 1)
    others = np.argsort(found == np.arange(size)[:, None], axis=1, kind="stable")[:, :k]  # itself last, and out
    neighbors = np.take_along_axis(found, others, axis=1)
    row = np.repeat(np.arange(size), k)[neighbors.ravel() >= 0]
    column = neighbors.ravel()[neighbors.ravel() >= 0]
    one_way = sparse.csr_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=(size, size))
    both = one_way + one_way.T
    scale = sparse.diags_array(np.maximum(both.sum(axis=1), 1).astype(np.float32) ** -0.5)
    return sparse.csr_array(scale @ both @ scale)


def spread(graph: Any, seeds: NDArray[np.float32], *, alpha: float, steps: int) -> NDArray[np.float32]:
    """What the seeds become: F = alpha · graph · F + (1 - alpha) · seeds, `steps` times from F = seeds.

    Args:
        graph: (N, N) from `neighbor_graph`.
        seeds: (N, C); zero where nothing is known.
        alpha: in [0, 1), what a point hears from its neighbours.
        steps: how far, in edges, a label may travel.

    Returns:
        (N, C) float32, zero where no seed has come.
    """
    kept = (1 - alpha) * seeds
    found = seeds
    for _ in range(steps):
        found = graph @ found
        found *= alpha
        found += kept
    return found


def _nearest(points: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(N, k) row numbers of the nearest points, itself among them or not; -1 where an inverted file found too few."""
    import faiss

    size, dimensions = points.shape
    if size <= EXACT_UP_TO:
        return np.asarray(faiss.knn(points, points, k)[1], dtype=np.int64)
    lists = int(2 ** round(np.log2(4 * np.sqrt(size))))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimensions), dimensions, lists)
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = 0, 6, TRAINING
    index.cp.min_points_per_centroid = 1
    index.train(points[np.linspace(0, size - 1, min(size, TRAINING * lists)).astype(np.int64)])
    index.add(points)
    index.nprobe = PROBED
    return np.asarray(index.search(points, k)[1], dtype=np.int64)
