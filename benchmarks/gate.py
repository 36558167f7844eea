"""How often the gate errs: refuses a model that is no worse, or lets a worse one serve.

First by a simulated pair of models. Each image is harder or easier for both: whether a model is right depends on a
normal variable that the two share for the most part. The true accuracies are given, and the labels of the held-out
images drawn again and again. Then on the digits: logistic regressions on pixels stand for heads on frozen features, and
1,000 other images say which of two is truly worse. Beside it: the old gate, which refused whatever scored lower.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_predict

from kdal_core.evaluation import ALPHA, compare

HELD_OUT = (2, 5, 10, 20, 50, 100)
POINTS = (0, 5, 10, 20)
SERVING = 0.85
"""True accuracy of the model that serves."""
SHARED = 0.7
"""Correlation of what decides whether the two models are right on an image."""

HEAD = LogisticRegression(C=0.1, max_iter=300)

Booleans = NDArray[np.bool_]
Gate = Callable[[Booleans, Booleans], bool]


def refused_by_kdal(new: Booleans, serving: Booleans) -> bool:
    return bool(new.sum() < serving.sum() and compare(new, serving).worse())


def refused_before(new: Booleans, serving: Booleans) -> bool:
    return bool(new.sum() < serving.sum())


def simulated(labels: int, points: float, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Shares of draws in which kdal's gate and the old one refuse a model that is worse by this many points."""
    shared = rng.normal(size=(draws, labels))

    def right(accuracy: float) -> Booleans:
        own = rng.normal(size=(draws, labels))
        found: Booleans = np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own < norm.ppf(accuracy)
        return found

    serving, new = right(SERVING), right(SERVING - points / 100)
    lost = (serving & ~new).sum(axis=1)
    won = (new & ~serving).sum(axis=1)
    # As `compare`, for all draws at once: McNemar's exact test, one-sided.
    worse = (lost > won) & (binom.sf(lost - 1, lost + won, 0.5) < ALPHA)
    for draw in range(min(draws, 50)):
        assert bool(worse[draw]) == refused_by_kdal(new[draw], serving[draw])
    return float(worse.mean()), float((lost > won).mean())


def table_of_draws(draws: int) -> str:
    rng = np.random.default_rng(0)
    lines = [
        "| held-out labels | " + " | ".join(f"{p} points worse" for p in POINTS) + " |",
        "|---" * (len(POINTS) + 1) + "|",
    ]
    for labels in HELD_OUT:
        cells = []
        for points in POINTS:
            ours, before = simulated(labels, points, draws, rng)
            cells.append(f"{ours:.1%}, {before:.0%}")
        lines.append(f"| {labels} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def digits(labels: int, spoilt: float, seed: int) -> dict[str, float]:
    """One round: a serving head of some labels, a new one of 50 more, of whose new labels a share is wrong.

    Spoilt labels make models that are truly worse; without any, the new one is nearly always better. They are in the
    training set alone, so that they speak in nobody's favour when models are compared.
    """
    rng = np.random.default_rng([seed, labels, round(100 * spoilt)])
    pixels, truth = load_digits(return_X_y=True)
    pixels = pixels / 16
    order = rng.permutation(len(pixels))
    rows, test = order[: labels + 50], order[-1000:]
    held = rng.uniform(size=len(rows)) < 0.1
    before = np.arange(len(rows)) < labels
    given = truth.copy()
    wrong = rows[rng.uniform(size=len(rows)) < spoilt]
    given[wrong] = rng.integers(0, 10, len(wrong))

    old, new = rows[before & ~held], rows[~held]
    serving = clone(HEAD).fit(pixels[old], truth[old])
    coming = clone(HEAD).fit(pixels[new], given[new])
    folds = KFold(10, shuffle=True, random_state=seed)
    out_of_fold = cross_val_predict(HEAD, pixels[new], given[new], cv=folds)
    earlier = cross_val_predict(HEAD, pixels[old], truth[old], cv=folds)

    def right(model: LogisticRegression, where: NDArray[np.int64]) -> Booleans:
        found: Booleans = model.predict(pixels[where]) == truth[where]
        return found

    kept, later = rows[held], rows[~before & ~held]
    by_fold = dict(zip(new.tolist(), (out_of_fold == truth[new]).tolist(), strict=True))
    by_fold_before = dict(zip(old.tolist(), (earlier == truth[old]).tolist(), strict=True))
    new_right, serving_right = right(coming, kept), right(serving, kept)
    new_later = np.array([by_fold[row] for row in later.tolist()], dtype=np.bool_)
    new_old = np.array([by_fold[row] for row in old.tolist()], dtype=np.bool_)
    serving_old = np.array([by_fold_before[row] for row in old.tolist()], dtype=np.bool_)
    both = np.concatenate([new_right, new_later]), np.concatenate([serving_right, right(serving, later)])
    every = np.concatenate([both[0], new_old]), np.concatenate([both[1], serving_old])
    return {
        "labels": labels,
        "spoilt": spoilt,
        "loss": float(right(serving, test).mean() - right(coming, test).mean()),
        "before": refused_before(new_right, serving_right),
        "held_out": refused_by_kdal(new_right, serving_right),
        "later": refused_by_kdal(*both),
        "every": refused_by_kdal(*every),
    }


def table_of_digits(rows: list[dict[str, float]]) -> str:
    """Refusals by how much worse a new model truly is."""
    groups = [("no worse", -1.0, 0.0), ("up to 5 points", 1e-9, 0.05), ("5 to 10", 0.05, 0.1), ("more", 0.1, 1.0)]
    names = ("before", "held_out", "later", "every")
    lines = [
        "| labels | truly worse by | models | before | held-out labels | and later ones, out-of-fold "
        "| and all others, out-of-fold |",
        "|---|---|---|---|---|---|---|",
    ]
    for labels in sorted({row["labels"] for row in rows}):
        for name, low, high in groups:
            group = [row for row in rows if row["labels"] == labels and low <= row["loss"] <= high]
            if group:
                shares = " | ".join(f"{np.mean([row[key] for row in group]):.0%}" for key in names)
                lines.append(f"| {labels} + 50 | {name} | {len(group)} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--spoilt", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.6])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("artifacts/gate.md"), help="where the tables go")
    args = parser.parse_args()
    pages = [table_of_draws(args.draws)]
    print(pages[0], flush=True)
    rows = [digits(n, share, seed) for n in args.labels for share in args.spoilt for seed in range(args.seeds)]
    pages.append(table_of_digits(rows))
    print(pages[1])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n\n".join(pages) + "\n")
    args.out.with_suffix(".json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
