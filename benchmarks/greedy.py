"""The greedy pass against one argpartition of as many numbers as the graph has, and against recomputing all scores.

numpy's argpartition of one long row has a vectorised kernel and is several times faster than that of the same numbers
as N rows of k, which is what a neighbour search does; both are measured.
All are timed in one run on the same pool. Recomputing counts, for all points and at each pick, the reverse
neighbours not yet used up, with numpy; it is run for a few picks and scaled linearly to the budget. Run as
`python -m benchmarks.greedy`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kdal_core.acquisition import MODES, greedy_select

BETA = 0.1


def pool(size: int, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Uncertainty and the neighbours of clustered points in six dimensions, by a k-d tree."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(1000, 6))
    points = centres[rng.integers(0, 1000, size)] + 0.3 * rng.normal(size=(size, 6))
    neighbors = cKDTree(points).query(points, k + 1)[1][:, 1:]
    return rng.random(size), neighbors.astype(np.int64)


def recompute(values: NDArray[np.float64], graph: NDArray[np.int64], picks: int, mode: str) -> NDArray[np.int64]:
    """The same picks the plain way: every score computed again before each of them."""
    size, k = graph.shape
    picked = np.zeros(size, dtype=np.bool_)
    counted = np.ones(size, dtype=np.bool_)  # rows whose arcs count
    order = np.empty(picks, dtype=np.int64)
    for i in range(picks):
        diversity = np.bincount(graph.ravel(), weights=np.repeat(counted, k), minlength=size)
        if mode == "marginal":
            diversity -= picked[graph].sum(axis=1)
        scores = values + BETA * diversity
        scores[picked] = -np.inf
        order[i] = np.argmax(scores)
        picked[order[i]] = True
        if mode in ("score", "marginal"):
            counted[order[i]] = False
        elif mode == "coverage":
            counted[(graph == order[i]).any(axis=1)] = False
    return order


def median_ms(one: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        one()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--budget", type=int, default=1_000)
    parser.add_argument("--recomputed", type=int, default=10, help="picks made by recomputing, then scaled")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("artifacts/greedy.json"))
    options = parser.parse_args()
    values, graph = pool(options.size, options.k)
    numbers = np.random.default_rng(1).random(options.size * options.k)
    report: dict[str, object] = {"size": options.size, "k": options.k, "budget": options.budget}
    print(
        f"N = {options.size}, k = {options.k}, b = {options.budget}; recomputing: {options.recomputed} picks, scaled\n"
    )
    print("| mode | ms | argpartition, ms | ratio | by rows, ms | ratio | recomputing, ms | times faster |")
    print("|---|---|---|---|---|---|---|---|")
    for mode in MODES:

        def ours(mode: str = mode) -> object:
            return greedy_select(values, graph, options.budget, BETA, mode)

        def plain(mode: str = mode) -> object:
            return recompute(values, graph, options.recomputed, mode)

        same = greedy_select(values, graph, options.recomputed, BETA, mode).indices
        assert np.array_equal(recompute(values, graph, options.recomputed, mode), same), mode
        a = median_ms(lambda: np.argpartition(numbers, options.budget), options.repeats)
        rows = median_ms(lambda: np.argpartition(numbers.reshape(-1, options.k), options.k // 2), options.repeats)
        b = median_ms(ours, options.repeats)
        c = median_ms(plain, 3) * options.budget / options.recomputed
        row = {"ms": b, "argpartition_ms": a, "ratio": b / a, "rows_ms": rows, "rows_ratio": b / rows}
        row |= {"recompute_ms": c, "faster": c / b}
        report[mode] = {name: round(value, 2) for name, value in row.items()}
        print(
            f"| {mode} | {b:.1f} | {a:.1f} | {b / a:.1f} | {rows:.1f} | {b / rows:.2f} | {c:.0f} | {c / b:.0f} |",
            flush=True,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
