"""Exact nearest neighbours of a pool in itself, and how often each point is somebody's neighbour."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_count, as_matrix, as_neighbors

BLOCK = 4_000_000  # distances held at a time, 32 MB
LARGEST = 1e100  # squares of larger numbers leave float64


def nearest_neighbors(features: ArrayLike, k: int) -> NDArray[np.int64]:
    """The k nearest other points of every point, exact.

    Args:
        features: (N, D) finite numbers.
        k: 0 to N - 1; a pool of N points offers each of them N - 1 neighbours.

    Returns:
        (N, k) row numbers, ordered by (Euclidean distance, index), each point left out of its own row.
        Distances are of float64 differences, so duplicates tie exactly: lowest index first.

    Raises:
        InvalidInput: NaN, infinite or huge (> 1e100) features, or k out of range.

    A first pass estimates all distances with matrix products, a block of rows at a time; the few candidates
    within the estimate's rounding error are then measured directly. Memory stays bounded, time is O(N² D).

    >>> nearest_neighbors([[0], [1], [3], [6], [10]], k=2).tolist()
    [[1, 2], [0, 2], [1, 0], [2, 4], [3, 2]]
    """
    points = np.ascontiguousarray(as_matrix("features", features))
    size, dimensions = points.shape
    k = as_count("k", k, low=0, high=max(size - 1, 0))
    if points.size and np.abs(points).max() > LARGEST:
        raise InvalidInput(f"features holds numbers above {LARGEST:g}; scale them down.")
    result = np.empty((size, k), dtype=np.int64)
    if k == 0:
        return result
    columns = _without_spare_copies(points, k)
    centred = points - points.mean(axis=0)
    norms = np.einsum("nd,nd->n", centred, centred)
    # |computed - true| of n_i + n_j - 2 x_i·x_j, generously (Higham, Accuracy and Stability, section 3.1)
    slack = 8 * (dimensions + 8) * np.finfo(np.float64).eps * (norms + norms.max())
    rows = max(1, BLOCK // len(columns))
    targets, target_norms = np.ascontiguousarray(centred[columns].T), norms[columns]
    position = np.full(size, -1)
    position[columns] = np.arange(len(columns))
    for start in range(0, size, rows):
        block = np.arange(start, min(start + rows, size))
        estimate = (-2 * centred[block]) @ targets  # (B, M)
        estimate += target_norms
        estimate += norms[block, None]
        kept = position[block] >= 0
        estimate[np.flatnonzero(kept), position[block][kept]] = np.inf  # nobody is its own neighbour
        bound = _upper_bound_of_kth(estimate, k) + 2 * slack[block]
        row, column = np.nonzero(estimate <= bound[:, None])
        result[block] = _nearest_of_candidates(points, block, row, columns[column], k)
    return result


def reverse_neighbor_counts(neighbors: ArrayLike, excluded: ArrayLike | None = None) -> NDArray[np.int64]:
    """How many points, outside the set V, have p among their k nearest: |RNN_k(p) - V| for every p.

    Args:
        neighbors: (N, k) from `nearest_neighbors`.
        excluded: (N,) bool, the set V; None is the empty set.

    Returns:
        (N,) counts; with nothing excluded their sum is k · N.

    Raises:
        InvalidInput: shapes that do not fit, or neighbours out of range.

    Source: lane paper, diversity by reverse nearest neighbours; methods.md, section 2.

    >>> reverse_neighbor_counts([[1, 2], [0, 2], [0, 1], [2, 4], [2, 3]]).tolist()
    [2, 2, 4, 1, 1]
    """
    graph = as_neighbors("neighbors", neighbors)
    if excluded is not None:
        outside = np.asarray(excluded)
        if outside.shape != (len(graph),) or outside.dtype != np.bool_:
            raise InvalidInput(f"excluded must be {len(graph)} booleans, not {outside.dtype} {outside.shape}.")
        rows = graph[~outside]
    else:
        rows = graph
    return np.bincount(rows.ravel(), minlength=len(graph)).astype(np.int64)


def _without_spare_copies(points: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Rows that can be somebody's neighbour: of many equal points only the first k + 1, ascending.

    Without this, in a pool of which half is one blank image, each of these has half the pool as candidates.
    """
    order = np.lexsort(points.T[::-1])  # stable: equal points stay in the order of their index
    ordered = points[order]
    new = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    starts = np.flatnonzero(new)
    rank = np.arange(len(points)) - starts[np.cumsum(new) - 1]
    return np.sort(order[rank <= k])


def _upper_bound_of_kth(estimate: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """The k-th smallest group minimum of each row: at least its k-th smallest entry, and close to it."""
    rows, columns = estimate.shape
    groups = min(columns, max(64, 32 * k))
    whole = columns // groups * groups
    minima = estimate[:, :whole].reshape(rows, whole // groups, groups).min(axis=1)  # (B, groups)
    return np.partition(minima, k - 1, axis=1)[:, k - 1]


def _nearest_of_candidates(
    points: NDArray[np.float64],
    block: NDArray[np.int64],
    row: NDArray[np.int64],
    candidate: NDArray[np.int64],
    k: int,
) -> NDArray[np.int64]:
    """The k nearest candidates of each row of the block by directly measured distance; `row` ascends."""
    distance = np.empty(len(row))
    for start in range(0, len(row), 65_536):
        part = slice(start, start + 65_536)
        difference = points[block[row[part]]] - points[candidate[part]]
        distance[part] = (difference * difference).sum(axis=1)
    order = np.lexsort((candidate, distance, row))
    first = np.searchsorted(row, np.arange(len(block)))
    nearest: NDArray[np.int64] = candidate[order[first[:, None] + np.arange(k)]]
    return nearest
