"""The greedy pass that joins uncertainty and diversity, picking after picking."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_count, as_neighbors, as_nonnegative, as_vector


@dataclass(frozen=True)
class Selection:
    """Picks in their order. `scores` and `diversity` are those at the moment of the pick."""

    indices: NDArray[np.int64]
    scores: NDArray[np.float64]
    diversity: NDArray[np.int64]


class _Rule(Protocol):
    """What picking a point does to the diversity of the others (it only ever falls)."""

    def __call__(self, picked: int, diversity: list[int]) -> None: ...


def greedy_select(
    uncertainty: ArrayLike, neighbors: ArrayLike, budget: int, beta: float, mode: str = "score"
) -> Selection:
    """Pick `budget` points, each time the one with the highest Uncr + beta · Div given the picks before it.

    Args:
        uncertainty: (N,) Uncr, any real number; inf is ranked before all others, these by beta · Div.
        neighbors: (N, k) nearest neighbours of each point, itself left out.
        budget: number of picks, 0 to N; N orders the whole pool.
        beta: >= 0, what one point of diversity is worth in units of uncertainty.
        mode: how Div of p falls with the set V of points picked so far:
            "score"     |RNN(p) - V|, the paper's;
            "marginal"  |RNN(p) - V| - |NN(p) & V|, the true gain of the paper's objective (may be negative);
            "coverage"  |RNN(p) - union of RNN(v) over V|;
            "static"    |RNN(p)|, never recomputed.

    Returns:
        Selection of three arrays of length budget. Equal scores: the lowest index first.

    Raises:
        InvalidInput: NaN, shapes that do not fit, neighbours out of range, a budget above N, an unknown mode.

    Div only ever falls, so a lazy heap is exact: a popped point whose score has fallen is put back. A pick
    costs O(k + log N). Source: lane paper, greedy selection; modes: methods.md, section 2.

    >>> neighbors = [[1, 2], [0, 2], [0, 1], [2, 4], [2, 3]]
    >>> picks = greedy_select([0, 0, 0, 0, 0], neighbors, budget=3, beta=1.0)
    >>> picks.indices.tolist(), picks.diversity.tolist()
    ([2, 0, 3], [4, 1, 1])
    """
    values = as_vector("uncertainty", uncertainty)
    graph = as_neighbors("neighbors", neighbors)
    if len(graph) != len(values):
        raise InvalidInput(f"uncertainty has {len(values)} entries, neighbors {len(graph)} rows.")
    if np.isneginf(values).any():
        raise InvalidInput("uncertainty holds -inf; use a finite number for points that come last.")
    budget = as_count("budget", budget, low=0, high=len(values))
    beta = as_nonnegative("beta", beta)
    if mode not in MODES:
        raise InvalidInput(f"mode must be one of {', '.join(MODES)}, not {mode!r}.")
    return _lazy_greedy(values, graph, budget, beta, mode)


def _lazy_greedy(
    values: NDArray[np.float64], graph: NDArray[np.int64], budget: int, beta: float, mode: str
) -> Selection:
    diversity: list[int] = np.bincount(graph.ravel(), minlength=len(values)).tolist()
    update = MODES[mode](graph)
    base: list[float] = np.where(np.isinf(values), 0.0, values).tolist()
    tier: list[int] = np.where(np.isinf(values), 0, 1).tolist()  # infinite uncertainty comes first

    def entry(point: int) -> tuple[int, float, int]:
        return tier[point], -(base[point] + beta * diversity[point]), point

    heap = [entry(point) for point in range(len(base))]
    heapq.heapify(heap)
    indices: list[int] = []
    scores: list[float] = []
    gains: list[int] = []
    while len(indices) < budget:
        point = heap[0][2]
        fresh = entry(point)
        if fresh != heap[0]:  # its diversity fell since it was put in
            heapq.heapreplace(heap, fresh)
            continue
        heapq.heappop(heap)
        indices.append(point)
        scores.append(-fresh[1] if tier[point] else math.inf)
        gains.append(diversity[point])
        update(point, diversity)
    return Selection(
        np.array(indices, dtype=np.int64), np.array(scores, dtype=np.float64), np.array(gains, dtype=np.int64)
    )


def _score_rule(graph: NDArray[np.int64]) -> _Rule:
    """The picked point leaves RNN(u) of each of its neighbours u."""
    neighbors: list[list[int]] = graph.tolist()

    def update(picked: int, diversity: list[int]) -> None:
        for point in neighbors[picked]:
            diversity[point] -= 1

    return update


def _marginal_rule(graph: NDArray[np.int64]) -> _Rule:
    """As `score`; and each point that has the picked one as its neighbour loses one more."""
    neighbors: list[list[int]] = graph.tolist()
    reverse = _reverse(graph)

    def update(picked: int, diversity: list[int]) -> None:
        for point in neighbors[picked]:
            diversity[point] -= 1
        for point in reverse[picked]:
            diversity[point] -= 1

    return update


def _coverage_rule(graph: NDArray[np.int64]) -> _Rule:
    """Each point of RNN(picked) is now covered and counts for nobody any more."""
    neighbors: list[list[int]] = graph.tolist()
    reverse = _reverse(graph)
    covered = [False] * len(neighbors)

    def update(picked: int, diversity: list[int]) -> None:
        for q in reverse[picked]:
            if not covered[q]:
                covered[q] = True
                for point in neighbors[q]:
                    diversity[point] -= 1

    return update


def _static_rule(graph: NDArray[np.int64]) -> _Rule:
    def update(picked: int, diversity: list[int]) -> None:
        return

    return update


def _reverse(graph: NDArray[np.int64]) -> list[list[int]]:
    """RNN of every point: rows that list it, ascending."""
    size, k = graph.shape
    order = np.argsort(graph.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(graph.ravel(), minlength=size))
    return [part.tolist() for part in np.split(order // max(k, 1), ends[:-1])] if size else []


MODES = {"score": _score_rule, "marginal": _marginal_rule, "coverage": _coverage_rule, "static": _static_rule}
