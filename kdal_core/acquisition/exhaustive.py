"""Exact nearest neighbours in float64: the measure that decides, and the search for rows that need it whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32] | NDArray[np.float64]

BLOCK = 4_000_000  # estimates held at a time, 32 MB
DIFFERENCES = 250_000  # numbers held at a time when candidates are measured, 2 MB: they stay in the cache


def exhaustive_neighbors(points: Points, k: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The k nearest other points of some rows, by (float64 distance, index).

    Args:
        points: (N, D) float32 or float64, finite.
        k: 1 to N - 1.
        rows: (R,) row numbers, each once; None is all.

    Returns:
        (R, k) row numbers.

    A first pass estimates all distances with float64 products, a block of rows at a time; the few candidates
    within the estimate's rounding error are then measured directly. Time is O(R N D), memory two float64
    copies of the points.
    """
    size, dimensions = points.shape
    rows = np.arange(size) if rows is None else rows
    result = np.empty((len(rows), k), dtype=np.int64)
    centred = points - points.mean(axis=0, dtype=np.float64)
    norms = np.einsum("nd,nd->n", centred, centred)
    # |computed - true| of n_i + n_j - 2 x_i·x_j, generously (Higham, Accuracy and Stability, section 3.1)
    slack = 8 * (dimensions + 8) * np.finfo(np.float64).eps * (norms + norms.max())
    targets = np.ascontiguousarray(centred.T)
    step = max(1, BLOCK // size)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        estimate = (-2 * centred[block]) @ targets  # (B, N)
        estimate += norms
        estimate += norms[block, None]
        estimate[np.arange(len(block)), block] = np.inf  # nobody is its own neighbour
        bound = _upper_bound_of_kth(estimate, k) + 2 * slack[block]
        row, column = np.nonzero(estimate <= bound[:, None])
        result[start : start + step] = nearest_of_candidates(points, block, row, column, k)
    return result


def nearest_of_candidates(
    points: Points,
    block: NDArray[np.int64],
    row: NDArray[np.int64],
    candidate: NDArray[np.int64],
    k: int,
) -> NDArray[np.int64]:
    """The k nearest candidates of each row of a block by (directly measured float64 distance, index).

    Args:
        points: (N, D).
        block: (B,) row numbers of the points whose neighbours are wanted.
        row: (P,) ascending positions in `block`, each at least k times.
        candidate: (P,) row numbers of points that may be neighbours of `block[row]`.

    Returns:
        (B, k) row numbers.
    """
    distance = np.empty(len(row))
    step = max(1, DIFFERENCES // max(points.shape[1], 1))
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        difference = np.subtract(points[block[row[part]]], points[candidate[part]], dtype=np.float64)
        np.multiply(difference, difference, out=difference)
        difference.sum(axis=1, out=distance[part])
    order = np.lexsort((candidate, distance, row))
    first = np.searchsorted(row, np.arange(len(block)))
    nearest: NDArray[np.int64] = candidate[order[first[:, None] + np.arange(k)]]
    return nearest


def _upper_bound_of_kth(estimate: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The k-th smallest group minimum of each row: at least its k-th smallest entry, and close to it."""
    rows, columns = estimate.shape
    groups = min(columns, max(64, 32 * k))
    whole = columns // groups * groups
    minima = estimate[:, :whole].reshape(rows, whole // groups, groups).min(axis=1)  # (B, groups)
    return np.partition(minima, k - 1, axis=1)[:, k - 1]
