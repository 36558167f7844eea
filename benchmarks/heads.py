"""Heads on frozen features beside plain logistic regression: accuracy over numbers of random labels.

Run as `python -m benchmarks.heads FILE.npz ...`. A file holds `labels` (N,), `classes` (C,) and one array (N, D) of
features for each backbone. For each seed a third of the images is kept aside to score on, and the labels are drawn at
random from the others, the pool. The rival is scikit-learn's logistic regression on the student's features, scaled to
length 1, with the C of the least cross-entropy in five-fold cross-validation. S-KD minus the rival is paired by seed,
with its 95% t-interval. Where a file holds `test` (N,), true for test images, these are scored on and all others are
the pool.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

from kdal_core.simulation.curves import interval
from kdal_core.training.heads import HeadPool

COUNTS = (20, 50, 100, 200, 500, 1000)
GRID = tuple(10.0**power for power in np.arange(-0.5, 3.1, 0.5))
"""The rival's C."""
FLOOR = 1e-4  # the least probability that the cross-entropy counts with


def rival(features: NDArray[np.float32], targets: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Weights (K, D + 1), bias last, and the classes (K,) of logistic regression on features (L, D) of length 1."""
    classes = np.unique(targets)
    if len(classes) == 1:
        return np.zeros((1, features.shape[1] + 1)), classes
    rows, span = features.astype(np.float64), None
    if len(rows) < rows.shape[1]:  # the optimum lies in the span of the rows: the same result, sooner
        span, triangle = np.linalg.qr(rows.T)
        rows = triangle.T
    count = min(5, len(rows))
    kind = StratifiedKFold if np.bincount(targets).max() >= count else KFold
    split = kind(count, shuffle=True, random_state=0)
    losses = np.zeros(len(GRID))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds, and slow convergence
        for learnt, out in split.split(rows, targets):
            if len(np.unique(targets[learnt])) == 1:
                continue
            model = LogisticRegression(warm_start=True, max_iter=200)
            for place, c in enumerate(GRID):
                said = model.set_params(C=c).fit(rows[learnt], targets[learnt]).predict_proba(rows[out])
                right = (said * (model.classes_ == targets[out, None])).sum(axis=1)
                losses[place] -= np.log(np.maximum(right, FLOOR)).sum()
        model = LogisticRegression(C=GRID[int(losses.argmin())], max_iter=1000).fit(rows, targets)
    weights = model.coef_ if span is None else model.coef_ @ span.T
    weights = np.column_stack([weights, model.intercept_])
    return (np.vstack([-weights, weights]) / 2 if len(classes) == 2 else weights), classes


def unit(features: NDArray[Any]) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = features.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows


def measure(
    labels: NDArray[np.int64],
    classes: int,
    student: NDArray[Any],
    teacher: Sequence[NDArray[Any]],
    counts: Sequence[int],
    seeds: int,
    test: NDArray[np.bool_] | None = None,
) -> dict[int, dict[str, list[float]]]:
    """For each number of labels, by seed: accuracies in per cent, and seconds."""
    results: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(labels))
        pool, aside = order[: len(order) * 2 // 3], order[len(order) * 2 // 3 :]
        if test is not None:
            pool, aside = order[~test[order]], order[test[order]]
        seen, truth = [kind[aside] for kind in teacher], labels[aside]
        began = time.process_time()
        ready = HeadPool(student[pool], [kind[pool] for kind in teacher], seed=seed)
        prepared = time.process_time() - began
        for count in counts:
            if count > len(pool):
                continue
            targets = labels[pool[:count]]
            began = time.process_time()
            weights, named = rival(unit(student[pool[:count]]), targets)
            rival_took = time.process_time() - began
            scores = unit(student[aside]) @ weights[:, :-1].T + weights[:, -1]
            began = time.process_time()
            trio = ready.fit(np.arange(count), targets, classes)
            took = time.process_time() - began
            row = results[count]
            for name, said in (
                ("LR", named[scores.argmax(axis=1)]),
                ("S", trio.student.logits(student[aside]).argmax(axis=1)),
                ("T", trio.teacher_head.probabilities(seen).argmax(axis=1)),
                ("S-KD", trio.distilled.logits(student[aside]).argmax(axis=1)),
            ):
                row[name].append(100 * float((said == truth).mean()))
            row["seconds"].append(prepared + took)
            row["LR seconds"].append(rival_took)
    return results


def table(name: str, results: dict[int, dict[str, list[float]]]) -> str:
    """Markdown: one row for each number of labels."""
    lines = [
        f"| {name}: labels | seeds | LR | S | T | S-KD | S-KD - LR | seconds | LR's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for count, row in results.items():
        found = interval([ours - theirs for ours, theirs in zip(row["S-KD"], row["LR"], strict=True)])
        assert found is not None  # there is one seed at least
        width = "" if found.half_width is None else f" ± {found.half_width:.2f}"
        means = " | ".join(f"{np.mean(row[model]):.2f}" for model in ("LR", "S", "T", "S-KD"))
        took = " | ".join(f"{np.mean(row[what]):.2f}" for what in ("seconds", "LR seconds"))
        lines.append(f"| {count} | {found.seeds} | {means} | {found.mean:+.2f}{width} | {took} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--student", default="mobilenet_v2", help="the array that S and S-KD read; T reads all arrays")
    parser.add_argument("--labels", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--output", type=Path, help="a Markdown file to write the tables into, too")
    options = parser.parse_args()
    tables = []
    for file in options.files:
        with np.load(file) as held:
            labels, classes = held["labels"].astype(np.int64), len(held["classes"])
            kinds = {name: held[name] for name in held.files if name not in ("labels", "classes", "test")}
            test = held["test"] if "test" in held.files else None
        teacher = list(kinds.values())
        results = measure(labels, classes, kinds[options.student], teacher, options.labels, options.seeds, test)
        tables.append(table(file.stem, results))
        print(tables[-1], "\n", flush=True)
        if options.output is not None:
            options.output.write_text("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    main()
