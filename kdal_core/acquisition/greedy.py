"""The greedy pass that joins uncertainty and diversity, picking after picking."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_count, as_neighbors, as_nonnegative, as_vector

FACTOR = 3  # points first considered, in units of the budget: one partition finds them, a heap of all would not pay


@dataclass(frozen=True)
class Selection:
    """Picks in their order. `scores` and `diversity` are those at the moment of the pick."""

    indices: NDArray[np.int64]
    scores: NDArray[np.float64]
    diversity: NDArray[np.int64]


class _Rule(Protocol):
    """How the diversity of points falls with the picks (it never rises)."""

    def __init__(self, graph: NDArray[np.int64]) -> None: ...

    def admit(self, points: NDArray[np.int64]) -> None:
        """These may be picked, or asked about, from now on."""

    def lost(self, point: int) -> int:
        """By how much the diversity of an admitted point has fallen."""

    def pick(self, point: int) -> None:
        """An admitted point was picked."""


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

    Div only ever falls, so a lazy heap is exact: a popped point whose score has fallen is put back. For the
    same reason only points whose first score is among the best can be picked: the heap holds a few times the
    budget of them, and takes in more when its best falls below the best one left out. O(N k) to count, then
    O(k + log N) for each pick or fall. Source: lane paper, greedy selection; modes: methods.md, section 2;
    the heap: Minoux, Accelerated greedy algorithms, 1978.

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


@dataclass
class _Pass:
    """A lazy greedy pass on its way: what all points were worth at first, and the picks so far."""

    base: NDArray[np.float64]  # (N,) uncertainty, 0 where infinite
    diversity: NDArray[np.int64]  # (N,) at first
    beta: float
    rule: _Rule
    indices: list[int]
    scores: list[float]
    gains: list[int]

    def run(self, points: NDArray[np.int64], budget: int) -> None:
        """Pick `budget` of `points` (ascending)."""
        cost = -(self.base[points] + self.beta * self.diversity[points])
        heap: list[tuple[float, int, float, int]] = []
        taken = np.zeros(len(points), dtype=np.bool_)
        beyond: tuple[float, int] = (-np.inf, -1)  # no point that is not in the heap comes before this (cost, point)
        while budget:
            while not heap or heap[0][:2] >= beyond:
                wanted = min(len(points), max(2 * int(taken.sum()), FACTOR * budget))
                beyond = self._admit(points, cost, taken, wanted, heap)
            before, point, base, diversity = heap[0]
            left = diversity - self.rule.lost(point)
            now = -(base + self.beta * left)
            if now != before:  # its diversity fell since it was put in
                heapq.heapreplace(heap, (now, point, base, diversity))
                continue
            heapq.heappop(heap)
            self.indices.append(point)
            self.scores.append(-now)
            self.gains.append(left)
            self.rule.pick(point)
            budget -= 1

    def _admit(
        self,
        points: NDArray[np.int64],
        cost: NDArray[np.float64],
        taken: NDArray[np.bool_],
        wanted: int,
        heap: list[tuple[float, int, float, int]],
    ) -> tuple[float, int]:
        """Let the `wanted` points with the lowest cost into the heap; the (cost, point) that is beyond them."""
        inside: NDArray[np.bool_] = np.ones(len(points), dtype=np.bool_)
        beyond = (np.inf, len(self.base))
        if wanted < len(points):
            edge = float(np.partition(cost, wanted - 1)[wanted - 1])
            inside = cost < edge
            ties = np.flatnonzero(cost == edge)
            room = wanted - int(inside.sum())
            inside[ties[:room]] = True
            beyond = (edge, int(points[ties[room]]) if room < len(ties) else len(self.base))
        new = np.flatnonzero(inside & ~taken)
        taken[new] = True
        admitted = points[new]
        self.rule.admit(admitted)
        columns = cost[new], admitted, self.base[admitted], self.diversity[admitted]
        heap.extend(zip(*(column.tolist() for column in columns), strict=True))
        heapq.heapify(heap)
        return beyond


def _lazy_greedy(
    values: NDArray[np.float64], graph: NDArray[np.int64], budget: int, beta: float, mode: str
) -> Selection:
    infinite = np.isinf(values)
    diversity = np.bincount(graph.ravel(), minlength=len(values))
    state = _Pass(np.where(infinite, 0.0, values), diversity, beta, MODES[mode](graph), [], [], [])
    first = min(budget, int(infinite.sum()))
    state.run(np.flatnonzero(infinite), first)
    state.run(np.flatnonzero(~infinite), budget - first)
    scores = np.array(state.scores, dtype=np.float64)
    scores[:first] = np.inf
    return Selection(np.array(state.indices, dtype=np.int64), scores, np.array(state.gains, dtype=np.int64))


class _Static:
    """Nothing is lost."""

    def __init__(self, graph: NDArray[np.int64]) -> None:
        self.graph = graph

    def admit(self, points: NDArray[np.int64]) -> None:
        return

    def lost(self, point: int) -> int:
        return 0

    def pick(self, point: int) -> None:
        return


class _Score(_Static):
    """The picked point leaves RNN(u) of each of its neighbours u."""

    def __init__(self, graph: NDArray[np.int64]) -> None:
        super().__init__(graph)
        self.fallen = [0] * len(graph)

    def lost(self, point: int) -> int:
        return self.fallen[point]

    def pick(self, point: int) -> None:
        for neighbor in self.graph[point].tolist():
            self.fallen[neighbor] += 1


class _Marginal(_Score):
    """As `score`; and each point that has the picked one as its neighbour loses one more."""

    def __init__(self, graph: NDArray[np.int64]) -> None:
        super().__init__(graph)
        self.reverse = _Reverse(graph)

    def admit(self, points: NDArray[np.int64]) -> None:
        self.reverse.admit(points)

    def pick(self, point: int) -> None:
        super().pick(point)
        for other in self.reverse.of(point).tolist():
            self.fallen[other] += 1


class _Coverage(_Static):
    """Each point of RNN(picked) is now covered and counts for nobody any more."""

    def __init__(self, graph: NDArray[np.int64]) -> None:
        super().__init__(graph)
        self.reverse = _Reverse(graph)
        self.covered = np.zeros(len(graph), dtype=np.bool_)

    def admit(self, points: NDArray[np.int64]) -> None:
        self.reverse.admit(points)

    def lost(self, point: int) -> int:
        return int(np.count_nonzero(self.covered[self.reverse.of(point)]))

    def pick(self, point: int) -> None:
        self.covered[self.reverse.of(point)] = True


class _Reverse:
    """RNN of the admitted points: the rows that list each, ascending."""

    def __init__(self, graph: NDArray[np.int64]) -> None:
        self.graph = graph
        self.rows: list[NDArray[np.int64]] = []
        self.spans: dict[int, tuple[int, int, int]] = {}  # which of `rows`, from where, to where

    def admit(self, points: NDArray[np.int64]) -> None:
        flat, k = self.graph.ravel(), max(self.graph.shape[1], 1)
        wanted = np.zeros(len(self.graph), dtype=np.bool_)
        wanted[points] = True
        places = np.flatnonzero(wanted[flat])
        listed = flat[places]
        pairs = np.sort(listed << 32 | places // k)  # (point, row) in one number: sorts faster than by index
        self.rows.append(pairs & 0xFFFFFFFF)
        counts = np.bincount(listed, minlength=len(self.graph))[points]  # points ascend, as listed does sorted
        ends = np.cumsum(counts)
        part = [len(self.rows) - 1] * len(points)
        spans = zip(part, (ends - counts).tolist(), ends.tolist(), strict=True)
        self.spans.update(zip(points.tolist(), spans, strict=True))

    def of(self, point: int) -> NDArray[np.int64]:
        part, start, stop = self.spans[point]
        return self.rows[part][start:stop]


MODES: dict[str, type[_Rule]] = {
    "score": _Score,
    "marginal": _Marginal,
    "coverage": _Coverage,
    "static": _Static,
}
