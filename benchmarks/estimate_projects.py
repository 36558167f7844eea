"""Projects on which honest estimates are tried: what could be seen of the models in each round, and what is true.

Each FILE.npz holds features of photos by name, (N, D) each, `labels` (N,) and `classes`; the digits' pixels stand for
features of their own. Two thirds of the images are the pool, the rest says what is true. A round labels 50, a share of
them drawn at random, and trains the heads that kdal trains. Seen is which of the images drawn in the next round the
served model gets right, and which of them one does that was trained on the drawn images alone: an order at random.

One JSON a project goes into --out; what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from kdal_core.acquisition import cold_start, explore, strategy
from kdal_core.simulation.heads import PoolFeatures
from kdal_core.tasks import get_task
from kdal_core.training import Head, HeadTrio

STUDENT = "mobilenet_v2"
BUDGET, ROUNDS = 50, 10
ORDERS = ("kd_gap", "random")
LEAST_SHADOW = 10
"""Images from which on a model is trained on those drawn at random alone."""

Indices = NDArray[np.int64]


def sets(files: list[Path]) -> Iterator[tuple[str, NDArray[np.int64], int, NDArray[Any], list[NDArray[Any]]]]:
    """Name, labels, classes, the student's features and the teacher's."""
    pixels, truth = load_digits(return_X_y=True)
    yield "digits", truth.astype(np.int64), 10, pixels.astype(np.float16), [pixels.astype(np.float16)]
    for file in files:
        with np.load(file) as held:
            kinds = {name: held[name].astype(np.float16) for name in held.files if name not in ("labels", "classes")}
            labels, classes = held["labels"].astype(np.int64), len(held["classes"])
        yield file.stem, labels, classes, kinds[STUDENT], list(kinds.values())


def project(
    labels: Indices,
    classes: int,
    student: NDArray[Any],
    teacher: list[NDArray[Any]],
    order: str,
    share: float,
    seed: int,
) -> list[dict[str, Any]]:
    """The rounds of one project."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    pool, aside = np.split(rows, [2 * len(rows) // 3])
    features = PoolFeatures(
        student[pool], tuple(kind[pool] for kind in teacher), student[aside], tuple(kind[aside] for kind in teacher)
    )
    task, bound = get_task("classification", tuple(map(str, range(classes)))), strategy(order)
    truth, answers = labels[pool], labels[aside].tolist()
    labelled: Indices = np.zeros(0, dtype=np.int64)
    drawn: Indices = labelled
    trio: HeadTrio | None = None
    waiting: list[tuple[dict[str, Any], Head]] = []
    rounds: list[dict[str, Any]] = []
    for number in range(ROUNDS + 1):
        left = np.setdiff1d(np.arange(len(pool)), labelled)
        if order == "random":
            ranked = np.random.default_rng([seed, number]).permutation(left)
        elif trio is None:
            ranked = cold_start(features.spaces[1], mode="kernel", seed=seed, budget=BUDGET).indices
        else:
            shown = features.observed(task, trio, left, labelled, bound.reads, seed=seed, budget=BUDGET)
            ranked = left[bound(shown).indices]
        explored = explore(ranked, share, budget=BUDGET, batches=1, seed=seed * 1000 + number)
        for note, head in waiting:
            found = head.probabilities(features.student[explored.drawn]).argmax(axis=1) == truth[explored.drawn]
            note["right"] = found.astype(int).tolist()
        if number == ROUNDS:
            break
        labelled, drawn = np.concatenate([labelled, explored.indices[:BUDGET]]), np.concatenate([drawn, explored.drawn])
        trio, waiting = features.trained(labelled, truth[labelled].tolist(), classes), []
        served: dict[str, Any] = {"labels": len(labelled), "true": features.scores(task, trio, answers)["distilled"]}
        waiting.append((served, trio.distilled))
        entry = {"served": served}
        if len(drawn) >= LEAST_SHADOW:
            shadow = features.trained(drawn, truth[drawn].tolist(), classes)
            entry["at_random"] = {"labels": len(drawn), "true": features.scores(task, shadow, answers)["distilled"]}
            waiting.append((entry["at_random"], shadow.distilled))
        rounds.append(entry)
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.1, help="of each batch that is drawn at random")
    parser.add_argument("--out", type=Path, default=Path("artifacts/estimates"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name, labels, classes, student, teacher in sets(options.files):
            for order in ORDERS:
                path = options.out / f"{name}-{order}-{options.share:g}-{seed}.json"
                if path.exists():
                    continue
                found = project(labels, classes, student, teacher, order, options.share, seed)
                path.write_text(json.dumps(found) + "\n")
                print(path.stem, [round(entry["served"]["true"], 3) for entry in found], flush=True)


if __name__ == "__main__":
    main()
