"""How often `kdal accept` breaks its promise where its held-out labels come from the rounds of a project.

The core's own simulation draws held-out labels from the pool that is accepted from. In a project they are the random
share of batches (`explore`) of all rounds so far, predicted out of fold, and the order has meanwhile taken the images
that it prefers. Here projects are lived through on hidden labels: scikit-learn's digits as their pixels, or features of
photos from FILE.npz (as benchmarks.estimate_projects takes them). Each prints how many projects accepted anything, what
share of the pool, and in how many the accepted suggestions were right less often than the target.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.estimate_projects import Indices, sets
from kdal_core.acquisition import explore
from kdal_core.evaluation import AcceptThreshold, accept_threshold
from kdal_core.training import HeadPool

ORDERS = ("uncertain", "typical", "random")
"""Least confident first; most confident first, the order that speaks for the model most; at random."""


def project(
    labels: Indices,
    classes: int,
    student: NDArray[Any],
    teacher: list[NDArray[Any]],
    *,
    order: str,
    images: int,
    rounds: int,
    budget: int,
    share: float,
    target: float,
    seed: int,
) -> tuple[AcceptThreshold, float]:
    """What is found after some rounds, and which share of the accepted suggestions is right (1 of none)."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(labels))[:images]
    truth = labels[rows]
    pool = HeadPool(student[rows], [kind[rows] for kind in teacher], seed=seed)
    labelled: Indices = np.zeros(0, dtype=np.int64)
    drawn: Indices = labelled
    sure: NDArray[Any] = np.zeros(len(rows))
    for number in range(rounds):
        left = np.setdiff1d(np.arange(len(rows)), labelled)
        ranked = rng.permutation(left)
        if number and order != "random":
            ranked = ranked[np.argsort((1 if order == "uncertain" else -1) * sure[ranked], kind="stable")]
        explored = explore(ranked, share, budget=budget, batches=1, seed=seed * 100 + number)
        labelled, drawn = np.concatenate([labelled, explored.indices[:budget]]), np.concatenate([drawn, explored.drawn])
        said = pool.fit(labelled, truth[labelled], classes).distilled.probabilities(student[rows])
        sure = said.max(axis=1)
    folds = pool.out_of_fold(labelled, truth[labelled], classes)
    held = np.isin(labelled, drawn)
    left = np.setdiff1d(np.arange(len(rows)), labelled)
    right = folds[held].argmax(axis=1) == truth[labelled[held]]
    found = accept_threshold(folds[held].max(axis=1).clip(0, 1), right, target, pool=sure[left].clip(0, 1))
    if found.threshold is None:
        return found, 1.0
    accepted = left[sure[left] >= found.threshold]
    return found, float((said[accepted].argmax(axis=1) == truth[accepted]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--projects", type=int, default=200)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--share", type=float, default=0.4, help="of each batch that is drawn at random")
    parser.add_argument("--target", type=float, default=0.9)
    options = parser.parse_args()
    for name, labels, classes, student, teacher in sets(options.files):
        for order in ORDERS:
            results = [
                project(
                    labels,
                    classes,
                    student,
                    teacher,
                    order=order,
                    images=options.images,
                    rounds=options.rounds,
                    budget=options.budget,
                    share=options.share,
                    target=options.target,
                    seed=seed,
                )
                for seed in range(options.projects)
            ]
            some = [(found, right) for found, right in results if found.threshold is not None]
            missed = sum(right < options.target for _, right in some)
            shares = [found.share for found, _ in some] or [0.0]
            print(
                f"{name}, {order}: {len(some)} of {len(results)} projects accepted, {np.mean(shares):.0%} of the pool; "
                f"{missed} missed {options.target:.0%}; right {np.mean([right for _, right in results]):.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
