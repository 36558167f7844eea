"""Orders of a pool on frozen features: what S-KD learns of the same number of labels, in one order and another.

Each FILE.npz holds features of photos by name, (N, D) each, `labels` (N,) and `classes`. For each seed two thirds of
the photos are the pool and the rest tells how well is learnt. A round labels 20 more of the pool and trains three
linear heads: S on the student's features, T on all features joined and on the pool's neighbour graph, S-KD on what T
says of the whole pool. Every order is served by the same S-KD. Strategies that can begin without labels do, all others
begin with the same random batch. Run as `python -m benchmarks.orders FILE.npz ... --seeds 30`; what is finished is kept
in --out and not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from scipy.stats import t as student_t

from kdal_core.acquisition import PoolScores, cold_start, nearest_neighbors, strategy
from kdal_core.metrics import class_gap

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

STUDENT = "mobilenet_v2"
"""The features that the served head reads; T reads all of the file."""
COMPONENTS = 128
NEIGHBOURS, ALPHA = 10, 0.9
INVERSE_PENALTY = 30.0
LABELS = 0.3
"""Weight of the labels beside T's word when S-KD learns."""
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {})
    for name in (
        *("random", "entropy", "margin", "badge", "coreset", "typiclust", "probcover", "maxherding", "uherding"),
        *("dropquery", "tcm", "pcoreset", "kd_gap"),
    )
} | {
    "kd_gap, random start": ("kd_gap", {"mode": "kernel"}),
    "kd_gap, coverage": ("kd_gap", {"mode": "coverage"}),
    "kd_gap, the paper's": ("kd_gap", {"mode": "score"}),
    "uherding on T's features": ("uherding", {}),
}
"""Strategy and parameters of each order. Without parameters kd_gap begins with its cold start, on T's features."""


@dataclass(frozen=True)
class Photos:
    """One split of a set: features of pool (N, ·) and validation photos (V, ·), and their labels."""

    student: Floats
    joined: Floats
    labels: Indices
    unseen: Floats
    """(V, ·) of the student."""
    answers: Indices
    classes: int

    @cached_property
    def spreading(self) -> Floats:
        """(N, N) how much of the label of one pool image reaches another: (1 - alpha · S)^-1, Zhou et al. 2004."""
        size = len(self.joined)
        neighbors = nearest_neighbors(self.joined, NEIGHBOURS)
        joins = np.zeros((size, size))
        joins[np.arange(size)[:, None], neighbors] = 1
        graph: Floats = np.maximum(joins, joins.T)
        root = np.sqrt(graph.sum(axis=1))
        found: Floats = np.linalg.inv(np.eye(size) - ALPHA * graph / root / root[:, None])
        return found


@dataclass(frozen=True)
class Heads:
    """The trio of a round: probabilities (N, C) of the pool, and the served head."""

    student: Floats
    teacher: Floats
    distilled: Floats
    weights: Floats

    @classmethod
    def fit(cls, photos: Photos, labelled: Indices) -> Heads:
        """Train S, T and S-KD on these labels."""
        hard = np.eye(photos.classes)[photos.labels[labelled]]
        own = fit_head(photos.student[labelled], hard)
        joined = fit_head(photos.joined[labelled], hard)
        spread = photos.spreading[:, labelled] @ (hard / np.maximum(hard.sum(axis=0), 1))
        spread /= np.maximum(spread.sum(axis=1, keepdims=True), 1e-12)
        teacher = (spread + predict(joined, photos.joined)) ** 2
        teacher /= teacher.sum(axis=1, keepdims=True)
        size = len(teacher)
        served = fit_head(
            np.concatenate([photos.student, photos.student[labelled]]),
            np.concatenate([teacher, hard]),
            np.concatenate([np.ones(size), np.full(len(labelled), LABELS * size / len(labelled))]),
        )
        return cls(predict(own, photos.student), teacher, predict(served, photos.student), served)


def fit_head(features: Floats, targets: Floats, weights: Floats | None = None) -> Floats:
    """A linear head (D + 1, C), the bias last, that minimises the mean cross-entropy to targets (n, C), with a penalty.

    With equal weights it is logistic regression with C = 30.
    """
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(np.float32)
    goal = targets.astype(np.float32)
    share = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
    weighed = share.astype(np.float32)[:, None]
    penalty = 1 / (INVERSE_PENALTY * len(rows))
    shape = (rows.shape[1], goal.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        head = flat.reshape(shape)
        logs = log_softmax(rows @ head.astype(np.float32), axis=1)
        gradient = (rows.T @ (weighed * (np.exp(logs) - goal))).astype(np.float64)
        gradient[:-1] += penalty * head[:-1]
        value = -float((weighed * goal * logs).sum()) + penalty / 2 * float((head[:-1] ** 2).sum())
        return value, gradient.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 60, "ftol": 1e-7})
    head: Floats = found.x.reshape(shape)
    return head


def predict(head: Floats, features: Floats) -> Floats:
    """Probabilities (N, C)."""
    found: Floats = softmax(features @ head[:-1] + head[-1], axis=1)
    return found


def load(file: Path, seed: int) -> Photos:
    """A set's split of this seed; principal components are those of the pool."""
    with np.load(file) as held:
        labels, classes = held["labels"].astype(np.int64), len(held["classes"])
        features = {name: held[name] for name in held.files if name not in ("labels", "classes")}
    order = np.random.default_rng(seed).permutation(len(labels))
    pool, unseen = np.split(order, [2 * len(labels) // 3])
    reduced = {name: components(rows, pool) for name, rows in features.items()}
    joined = np.concatenate([rows[pool] for rows in reduced.values()], axis=1)
    own = reduced[STUDENT]
    return Photos(own[pool], joined, labels[pool], own[unseen], labels[unseen], classes)


def components(rows: NDArray[np.float32], pool: Indices) -> Floats:
    """Rows (M, D) on the pool's first principal components, at length 1."""
    centred = rows.astype(np.float64) - rows[pool].mean(axis=0)
    size = len(rows[0])
    _, axes = eigh(centred[pool].T @ centred[pool], subset_by_index=[max(0, size - COMPONENTS), size - 1])
    found = centred @ axes
    result: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
    return result


def observed(photos: Photos, left: Indices, labelled: Indices, heads: Heads | None, seed: int, size: int) -> PoolScores:
    """What a strategy is told of the unlabelled part of the pool."""
    own, joined = photos.student, photos.joined
    seen: dict[str, Any] = {
        "features": own[left],
        "labelled_features": own[labelled],
        "teacher_features": joined[left],
        "labelled_teacher_features": joined[labelled],
    }
    if heads is not None:
        served, generator = heads.distilled, np.random.default_rng([seed, len(labelled)])
        kept = (generator.random((3, len(left), own.shape[1])) < 0.25) / 0.25  # DropQuery's rate of dropout is 0.75
        seen |= {
            "probabilities": served[left],
            "labelled_probabilities": served[labelled],
            "dropout": np.stack([predict(heads.weights, own[left] * mask) for mask in kept]),
            "d_ss": class_gap(served[left], heads.student[left]),
            "d_st": class_gap(served[left], heads.teacher[left]),
        }
    return PoolScores(**seen, seed=seed, budget=size)


Order = Callable[[PoolScores, Heads | None], Indices]
"""The unlabelled pool, best first; before the first labels without heads."""


def campaign(photos: Photos, order: Order, seed: int, size: int, rounds: int) -> list[float]:
    """S-KD's accuracy on the unseen photos after each round of `size` labels."""
    labelled: Indices = np.zeros(0, dtype=np.int64)
    heads, curve = None, []
    for _ in range(rounds):
        left = np.setdiff1d(np.arange(len(photos.labels)), labelled)
        pool = observed(photos, left, labelled, heads, 1_000 * seed + len(labelled), size)
        labelled = np.concatenate([labelled, left[order(pool, heads)[:size]]])
        heads = Heads.fit(photos, labelled)
        curve.append(float((predict(heads.weights, photos.unseen).argmax(axis=1) == photos.answers).mean()))
    return curve


def ordered_by(arm: str) -> Order:
    """An arm's order; its first batch is random where its strategy cannot begin by itself."""
    name, parameters = ARMS[arm]
    chosen = strategy(name, **parameters)

    def order(pool: PoolScores, heads: Heads | None) -> Indices:
        if arm.endswith("T's features"):
            pool = replace(pool, features=pool.teacher_features, labelled_features=pool.labelled_teacher_features)
        if heads is not None or chosen.cold:
            return chosen(pool).indices
        if arm == "kd_gap":
            return cold_start(
                pool.matrix("teacher_features"), mode="kernel", seed=pool.seed, budget=pool.budget
            ).indices
        return strategy("random")(pool).indices

    return order


def measure(
    files: Iterable[Path], arms: dict[str, Order], seeds: range, size: int, rounds: int, out: Path
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Accuracies by set, arm and seed, of which those in `out` are not computed again."""
    curves: dict[str, dict[str, dict[str, list[float]]]] = json.loads(out.read_text()) if out.exists() else {}
    for seed in seeds:
        for file in files:
            of_set = curves.setdefault(file.stem, {})
            todo = [name for name in arms if str(seed) not in of_set.get(name, {})]
            if not todo:
                continue
            began, photos = time.perf_counter(), load(file, seed)
            for name in todo:
                of_set.setdefault(name, {})[str(seed)] = campaign(photos, arms[name], seed, size, rounds)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(curves))
            print(f"{file.stem}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    return curves


def interval(values: Floats) -> str:
    """The mean in points and half its 95% interval."""
    if len(values) < 2:
        return f"{100 * values.mean():+.1f}"
    half = student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{100 * values.mean():+.1f} ± {100 * half:.1f}"


def share_of_labels(curve: Floats, target: float, size: int) -> float:
    """Labels at which a curve of one accuracy a round first reaches the target, of all labels; 1 where it does not."""
    counts = size * np.arange(1, len(curve) + 1)
    reached = np.flatnonzero(curve >= target)
    if not len(reached):
        return 1.0
    i = int(reached[0])
    if i == 0:
        return float(counts[0] / counts[-1])
    part = (target - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float((counts[i - 1] + part * size) / counts[-1])


def table(curves: dict[str, dict[str, dict[str, list[float]]]], size: int, against: str = "random") -> str:
    """Markdown: what each order is ahead of random, over the seeds that both have."""
    sets = list(curves)
    heads = [f"{name}: area | first | last | labels" for name in sets]
    lines = [f"| order | {' | '.join(heads)} |", f"|---|{'---|' * (4 * len(sets))}"]
    for arm in dict.fromkeys(arm for of_set in curves.values() for arm in of_set):
        cells = []
        for name in sets:
            common = [seed for seed in curves[name].get(arm, {}) if seed in curves[name][against]]
            if not common:
                cells += ["", "", "", ""]
                continue
            own = np.array([curves[name][arm][seed] for seed in common])
            other = np.array([curves[name][against][seed] for seed in common])
            ahead = own - other
            needed = share_of_labels(own.mean(axis=0), float(other.mean(axis=0)[-1]), size)
            cells += [*map(interval, (ahead.mean(axis=1), ahead[:, 0], ahead[:, -1])), f"{needed:.2f}"]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print tables, keep the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--size", type=int, default=20, help="labels of a round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path("artifacts/orders.json"))
    options = parser.parse_args()
    arms = {name: ordered_by(name) for name in options.arms}
    curves = measure(options.files, arms, range(options.seeds), options.size, options.rounds, options.out)
    print(table(curves, options.size))


if __name__ == "__main__":
    main()
