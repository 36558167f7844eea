"""Nearest neighbours of a pool in itself, and how often each point is somebody's neighbour."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.acquisition.exhaustive import Points, exhaustive_neighbors
from kdal_core.validation import InvalidInput, as_count, as_matrix, as_neighbors

LARGEST = 1e100  # squares of larger numbers leave float64
SMALL = 1_000  # points whose distances float64 has sooner than blocks are laid out
EXACT_UP_TO = 200_000  # points that "auto" searches exactly: a minute or so on two cores, 128 numbers a point
WORTH_IT = 1 / 16  # of all lists: an inverted file that must look into more is slower than the exact search

Method = Literal["auto", "exact", "ivf"]


@dataclass(frozen=True)
class Neighbors:
    """The neighbours of every point, and how they were found.

    Attributes:
        indices: (N, k) row numbers, ordered by (float64 distance, index).
        method: "exact" or "ivf".
        recall: share of the true neighbours found; 1 when exact, else over the sample of 1,000 points by
            which the search was tuned.
    """

    indices: NDArray[np.int64]
    method: Literal["exact", "ivf"]
    recall: float


def nearest_neighbors(
    features: ArrayLike, k: int, *, method: Method = "auto", device: str = "auto", memory: int | None = None
) -> NDArray[np.int64]:
    """The k nearest other points of every point: `neighbor_search(...).indices`.

    >>> nearest_neighbors([[0], [1], [3], [6], [10]], k=2).tolist()
    [[1, 2], [0, 2], [1, 0], [2, 4], [3, 2]]
    """
    return neighbor_search(features, k, method=method, device=device, memory=memory).indices


def neighbor_search(
    features: ArrayLike, k: int, *, method: Method = "auto", device: str = "auto", memory: int | None = None
) -> Neighbors:
    """The k nearest other points of every point, and how surely these are they.

    Args:
        features: (N, D) finite numbers; float32 is not copied.
        k: 0 to N - 1; a pool of N points offers each of them N - 1 neighbours.
        method: "exact"; "ivf", faiss's inverted file searched as far as a recall of .99 needs; or "auto",
            exact up to 200,000 points, and above these where an inverted file would not be faster.
        device: where exact products are computed: "auto" (CUDA when there is one), "cpu", "cuda", "cuda:1".
        memory: bytes of working space, beside features and result; None: half the machine's memory. On CUDA the
            tiles on the device, and rows whose neighbours float32 cannot tell apart (two float64 copies of the
            features), come on top.

    Returns:
        Neighbors, ordered by (Euclidean distance, index), each point left out of its own row. Distances are
        of float64 differences, so duplicates tie exactly: lowest index first.

    Raises:
        InvalidInput: NaN, infinite or huge (> 1e100) features, k out of range, an unknown method, or less
            memory than the method needs.
        ConfigError: a device that does not exist.

    Exact search takes O(N² D) time and O(N (D + k)) memory, see `blocked`; the inverted file about
    O(N^1.5 D), see `inverted_file`. Source of the latter: Jégou et al., Product quantization for nearest
    neighbor search, 2011, section 4; Johnson et al., Billion-scale similarity search with GPUs, 2019.
    """
    # These import torch, which takes seconds: not before somebody searches.
    from kdal_core.acquisition import blocked, inverted_file
    from kdal_core.training.config import resolve_device

    points = _as_points(features)
    size = len(points)
    k = as_count("k", k, low=0, high=max(size - 1, 0))
    if method not in ("auto", "exact", "ivf"):
        raise InvalidInput(f"method must be 'auto', 'exact' or 'ivf', not {method!r}.")
    where = resolve_device(device)
    if k == 0:
        return Neighbors(np.empty((size, 0), dtype=np.int64), "exact", 1.0)
    spare, originals = _spare_copies(points, k)
    kept = np.delete(np.arange(size), spare)
    searched = points[kept] if len(spare) else points
    if method == "ivf" or (method == "auto" and len(kept) > EXACT_UP_TO):
        _require(memory, inverted_file.bytes_needed(len(searched), searched.shape[1], searched.dtype.itemsize), "ivf")
        file = inverted_file.build_inverted_file(searched, k)
        if method == "ivf" or file.share <= WORTH_IT:
            found = inverted_file.search_inverted_file(searched, file, k)
            return Neighbors(_with_spare(found, kept, spare, originals), "ivf", file.recall)
    if len(kept) <= SMALL:
        found = exhaustive_neighbors(searched, k)
    else:
        _require(memory, blocked.bytes_needed(len(searched), searched.shape[1], k), "exact")
        found = blocked.blocked_neighbors(searched, k, where)
    return Neighbors(_with_spare(found, kept, spare, originals), "exact", 1.0)


def half_of_memory() -> int:
    """Half the machine's memory in bytes; 8 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 2**33


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


def _as_points(features: ArrayLike) -> Points:
    """Checked features, float32 as they came and all others as float64."""
    if isinstance(features, np.ndarray) and features.dtype == np.float32 and features.ndim == 2:
        # The sum is finite only if all entries are (or are so large that the full check must see them).
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(features.sum()):
                return np.ascontiguousarray(features)
    points = np.ascontiguousarray(as_matrix("features", features))
    if points.size and max(points.max(), -points.min()) > LARGEST:
        raise InvalidInput(f"features holds numbers above {LARGEST:g}; scale them down.")
    return points


def _require(memory: int | None, needed: int, method: str) -> None:
    memory = half_of_memory() if memory is None else memory
    if memory < needed:
        raise InvalidInput(f"memory is {memory} bytes; method {method!r} needs {needed} for these features.")


def _spare_copies(points: Points, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that can be nobody's neighbour, as k + 1 equal points stand before them; and who their own are.

    Without this, in a pool of which half is one blank image, each of these has half the pool as candidates.

    Returns:
        (S,) row numbers, ascending, and (S, k) the first k rows equal to each.
    """
    suspects = _often(_fingerprints(points), k + 1)
    if not len(suspects):
        return np.empty(0, dtype=np.int64), np.empty((0, k), dtype=np.int64)
    chosen = points[suspects]
    order = np.lexsort(chosen.T[::-1])  # stable: equal points stay in the order of their index
    ordered = chosen[order]
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    start = np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    late = np.flatnonzero(np.arange(len(order)) - start > k)
    spare = suspects[order[late]]
    originals = suspects[order[start[late, None] + np.arange(k)]]
    ascending = np.argsort(spare)
    return spare[ascending], originals[ascending]


def _fingerprints(points: Points) -> NDArray[np.uint64]:
    """(N,) numbers, equal for equal points and seldom for others."""
    weights = np.random.default_rng(0).integers(1, 2**63, points.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    prints = np.empty(len(points), dtype=np.uint64)
    for start in range(0, len(points), 4_096):
        part = points[start : start + 4_096] + points.dtype.type(0)  # -0.0 becomes 0.0
        bits = part.view(np.uint32 if points.dtype == np.float32 else np.uint64).astype(np.uint64)
        bits ^= bits >> np.uint64(29)  # round numbers have zeros below; products never carry downwards
        prints[start : start + 4_096] = (bits * weights).sum(axis=1, dtype=np.uint64)
    return prints


def _often(values: NDArray[np.uint64], times: int) -> NDArray[np.int64]:
    """Where the values are that occur more than `times` times, ascending."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(values)])
    return np.sort(order[np.repeat(counts > times, counts)])


def _with_spare(
    found: NDArray[np.int64], kept: NDArray[np.int64], spare: NDArray[np.int64], originals: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The result for all rows, of that among the kept ones."""
    if not len(spare):
        return found
    result = np.empty((len(kept) + len(spare), found.shape[1]), dtype=np.int64)
    result[kept], result[spare] = kept[found], originals
    return result
