"""Our strategies against scikit-activeml and baal: the same inputs, the same choices, and the time they take.

Run as `.venv-peers/bin/python -m benchmarks.peers`; both sides use the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from kdal_core.acquisition import PoolScores, Selection, strategy
from kdal_core.acquisition.strategies.points import grid_points, unit_points
from kdal_core.acquisition.strategies.typiclust import typical_rounds

BATCH, LABELLED, WIDTH, CLASSES, PASSES, DELTA, SEEDS = 100, 50, 64, 10, 20, 0.45, 10
LARGE = 5_000  # images from which repeats are halved and scikit-activeml's ProbCover is left out


@contextmanager
def lowest_index_first() -> Iterator[None]:
    """While it lasts, scikit-activeml breaks ties by the lowest index, as kdal does, and not by drawing."""
    from skactiveml.pool import _core_set, _prob_cover, _typi_clust  # type: ignore[import-not-found]

    def first_argmax(values: NDArray[np.float64], random_state: object = None) -> NDArray[np.int64]:
        return np.atleast_1d(np.nanargmax(values))

    modules = (_core_set, _prob_cover, _typi_clust)
    originals = [module.rand_argmax for module in modules]
    try:
        for module in modules:
            module.rand_argmax = first_argmax
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module.rand_argmax = original


class Given:
    """A clustering that is known already, in the form of a scikit-learn class."""

    def __init__(self, n_clusters: int, labels: NDArray[np.int64]) -> None:
        self.labels = labels

    def fit_predict(self, rows: object) -> NDArray[np.int64]:
        return self.labels


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds are medians."""

    strategy: str
    peer: str
    images: int
    ours_s: float
    peer_s: float | None
    ratio: float | None
    choices: str
    note: str


def inputs(size: int) -> PoolScores:
    """Twenty blobs in 64 dimensions with probabilities that know them; every number on kdal's grids."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, WIDTH))
    blob = rng.integers(0, 20, size + LABELLED)
    features = centers[blob] + 0.35 * rng.normal(size=(size + LABELLED, WIDTH))
    logits = 3 * np.eye(CLASSES)[blob[:size] % CLASSES] + rng.normal(size=(PASSES, size, CLASSES))
    dropout = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return PoolScores(
        features=np.round(features[:size], 3),
        labelled_features=np.round(features[size:], 3),
        probabilities=np.round(dropout[0], 6),
        dropout=np.round(dropout, 6),
        budget=BATCH,
    )


def timed(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int) -> tuple[Any, Any, float, float]:
    """Results and median seconds of both, run in turns."""
    seconds: tuple[list[float], list[float]] = ([], [])
    results: list[Any] = [None, None]
    for _ in range(repeats):
        for side, call in enumerate((ours, peer)):
            began = time.perf_counter()
            results[side] = call()
            seconds[side].append(time.perf_counter() - began)
    return results[0], results[1], statistics.median(seconds[0]), statistics.median(seconds[1])


def row(name: str, peer: str, size: int, times: tuple[float, float], choices: str, note: str = "") -> Row:
    ours, theirs = times
    return Row(name, peer, size, round(ours, 4), round(theirs, 4), round(ours / theirs, 3), choices, note)


def agreement(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> str:
    """Whether two batches are the same, in the same order."""
    if ours.tolist() == theirs.tolist():
        return "the same, in the same order"
    differs = int(np.flatnonzero(ours != theirs)[0])
    return f"{len(set(ours.tolist()) & set(theirs.tolist()))} of {len(ours)} shared, the first {differs} in order"


def batch(order: Selection) -> NDArray[np.int64]:
    return order.indices[:BATCH]


def stacked(pool: PoolScores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X and y as scikit-activeml takes them: the pool first, then the labelled."""
    rows = np.concatenate([pool.array("features"), pool.array("labelled_features")])
    return rows, np.concatenate([np.full(pool.size, np.nan), np.zeros(LABELLED)])


def against_bald(pool: PoolScores, repeats: int) -> Row:
    from baal.active.heuristics import BALD  # type: ignore[import-not-found]

    passes = np.ascontiguousarray(pool.array("dropout").transpose(1, 2, 0))  # (N, C, M), baal's order
    ours, theirs, *times = timed(lambda: strategy("bald")(pool), lambda: BALD()(passes), repeats)
    return row("bald", "baal BALD", pool.size, (times[0], times[1]), agreement(batch(ours), theirs[:BATCH]))


def against_coreset(pool: PoolScores, repeats: int) -> Row:
    from skactiveml.pool import k_greedy_center

    rows, y = stacked(pool)
    ours, theirs, *times = timed(
        lambda: strategy("coreset")(pool),
        lambda: k_greedy_center(rows, y, BATCH, random_state=0)[0],
        repeats,
    )
    return row(
        "coreset", "scikit-activeml k_greedy_center", pool.size, (times[0], times[1]), agreement(batch(ours), theirs)
    )


def against_badge(pool: PoolScores, repeats: int) -> Row:
    from skactiveml.base import SkactivemlClassifier  # type: ignore[import-not-found]
    from skactiveml.pool import Badge

    probabilities, features = pool.array("probabilities"), pool.array("features")

    class Known(SkactivemlClassifier):  # type: ignore[misc]
        def fit(self, X: object, y: object, sample_weight: object = None) -> Known:
            return self

        def predict_proba(self, X: object) -> NDArray[np.float64]:
            return probabilities

    known, y = Known(classes=list(range(CLASSES))), np.full(len(features), np.nan)

    def peer(seed: int = 0) -> NDArray[np.int64]:
        found = Badge(random_state=seed).query(features, y, known, fit_clf=False, batch_size=BATCH)
        return np.asarray(found)

    ours, theirs, *times = timed(lambda: strategy("badge")(pool), peer, repeats)
    first = "the same first pick" if batch(ours)[0] == theirs[0] else "another first pick"
    seeds = SEEDS if pool.size <= LARGE else 4
    potentials = [
        [
            potential(probabilities, features, batch(strategy("badge")(replace(pool, seed=seed))))
            for seed in range(seeds)
        ],
        [potential(probabilities, features, peer(seed)) for seed in range(seeds)],
    ]
    mean = [statistics.mean(side) for side in potentials]
    spread = [statistics.stdev(side) / seeds**0.5 for side in potentials]
    note = (
        f"randomised: mean squared distance to the nearest pick over {seeds} seeds: "
        f"ours {mean[0]:.3f} ± {spread[0]:.3f}, theirs {mean[1]:.3f} ± {spread[1]:.3f} (standard errors). "
        "Theirs keeps the lengths as the first distances, as if 0 were a pick; ours and the official code do not"
    )
    return row("badge", "scikit-activeml Badge", pool.size, (times[0], times[1]), first, note)


def potential(probabilities: NDArray[np.float64], features: NDArray[np.float64], picks: NDArray[np.int64]) -> float:
    """Mean squared distance of all gradient embeddings to the nearest picked one, from the embeddings themselves."""
    residual = probabilities - np.eye(CLASSES)[probabilities.argmax(axis=1)]
    total = 0.0
    seeds = (residual[picks, :, None] * features[picks, None, :]).reshape(len(picks), -1)
    for start in range(0, len(features), 1000):
        part = slice(start, start + 1000)
        embedded = (residual[part, :, None] * features[part, None, :]).reshape(-1, seeds.shape[1])
        distance = (embedded**2).sum(1)[:, None] + (seeds**2).sum(1) - 2 * embedded @ seeds.T
        total += float(np.maximum(distance, 0).min(axis=1).sum())
    return total / len(features)


def against_typiclust(pool: PoolScores, repeats: int) -> list[Row]:
    from skactiveml.pool import TypiClust

    rows, y = stacked(pool)
    found = MiniBatchKMeans(LABELLED + BATCH, n_init=1, batch_size=5000, random_state=0).fit_predict(rows)
    found = np.unique(found, return_inverse=True)[1]
    order = np.argsort(np.unique(found, return_index=True)[1])  # numbered by their lowest image, so that ties agree
    labels = np.argsort(order)[found]
    points, size = grid_points(pool), pool.size
    given = TypiClust(k=20, cluster_algo=Given, cluster_algo_dict={"labels": labels}, random_state=0)
    ours, theirs, *times = timed(
        lambda: typical_rounds(points.pool, labels[:size], labels[size:], BATCH, min_size=1)[0],
        lambda: given.query(rows, y, batch_size=BATCH),
        repeats,
    )
    note = "the clustering given, small clusters kept as theirs are; ours orders the rest of the pool too"
    picked = row(
        "typiclust", "scikit-activeml TypiClust", size, (times[0], times[1]), agreement(ours[:BATCH], theirs), note
    )
    # scikit-learn's clustering with kdal's settings and the seed that kdal draws
    settings = {"n_init": 1, "batch_size": 5000, "random_state": int(pool.generator().integers(2**31))}
    whole = TypiClust(k=20, cluster_algo=MiniBatchKMeans, cluster_algo_dict=settings, random_state=0)
    ours, theirs, *times = timed(
        lambda: strategy("typiclust", min_size=1)(pool), lambda: whole.query(rows, y, batch_size=BATCH), repeats
    )
    note = (
        "with the clustering, from the same seed; equally large clusters take turns by their lowest image here and by "
        "their number there, hence another order, and another last pick where the batch ends among equals"
    )
    names = ("typiclust", "scikit-activeml TypiClust")
    return [picked, row(*names, size, (times[0], times[1]), agreement(batch(ours), theirs), note)]


def against_probcover(pool: PoolScores, repeats: int) -> Row:
    from skactiveml.pool import ProbCover

    points = unit_points(grid_points(pool))
    rows, y = points.everything * points.step, stacked(pool)[1]

    def peer() -> NDArray[np.int64]:
        found = ProbCover(n_classes=CLASSES, deltas=[DELTA], random_state=0).query(rows, y, batch_size=BATCH)
        return np.asarray(found)

    ours, theirs, *times = timed(lambda: strategy("probcover", delta=DELTA)(pool), peer, repeats)
    note = f"delta {DELTA}, normalised features"
    return row(
        "probcover", "scikit-activeml ProbCover", pool.size, (times[0], times[1]), agreement(batch(ours), theirs), note
    )


def compared(pool: PoolScores, repeats: int) -> list[Row]:
    rows = [against_bald(pool, repeats), against_coreset(pool, repeats), against_badge(pool, repeats)]
    rows += against_typiclust(pool, repeats)
    if pool.size <= LARGE:
        return [*rows, against_probcover(pool, repeats)]
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        strategy("probcover", delta=DELTA)(pool)
        seconds.append(time.perf_counter() - began)
    note = "scikit-activeml left out: it holds all N² distances, 3 GB, and copies its graph at each pick"
    ours = round(statistics.median(seconds), 4)
    return [*rows, Row("probcover", "none", pool.size, ours, None, None, "not compared", note)]


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("artifacts/peers.json"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    with lowest_index_first(), threadpool_limits(options.threads):
        for size in options.sizes:
            rows += compared(inputs(size), options.repeats if size <= LARGE else options.repeats // 2 + 1)
    versions = {name: version(name) for name in ("scikit-activeml", "baal", "numpy", "scikit-learn", "scipy")}
    print(", ".join(f"{name} {number}" for name, number in versions.items()), f"threads {options.threads}", sep=", ")
    print("| strategy | peer | images | ours s | peer s | ratio | choices | note |\n|---|---|---|---|---|---|---|---|")
    for line in rows:
        print("| " + " | ".join("" if value is None else str(value) for value in asdict(line).values()) + " |")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "versions": versions,
        "threads": options.threads,
        "batch": BATCH,
        "labelled": LABELLED,
        "width": WIDTH,
        "classes": CLASSES,
        "passes": PASSES,
        "rows": [asdict(line) for line in rows],
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
