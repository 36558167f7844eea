"""Labels against accuracy on handwritten digits: kdal's order against a random one.

    python -m benchmarks.digits_curve --seeds 5 --rounds 5 --budget 50 --out artifacts/digits

scikit-learn's 1,797 digits of 8 x 8 pixels. One fixed test split of 500 is held apart: it is scored after each
round and used for nothing else. A campaign starts with no label; each round labels `budget` more images of the
pool and trains the trio from scratch on all labels so far. Both arms train alike; only the order differs.
Seeds change the order of the pool, the initial weights, the batches, and the random arm's picks.
Settings were chosen on other seeds and on a part of the pool (`--tuning`), see docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor

from kdal_core.acquisition import (
    PoolScores,
    cold_start,
    cold_start_features,
    prediction_gap,
    strategy,
)
from kdal_core.models import default_pair
from kdal_core.tasks import Task, get_task
from kdal_core.training import TrainConfig, Trio, TrioSpec, infer, train_trio

ARMS = ("kd_gap", "random")
TEST_IMAGES, TUNING_IMAGES, SPLIT_SEED = 500, 400, 20261122


@dataclass(frozen=True)
class Settings:
    rounds: int = 5
    budget: int = 50
    tuning: bool = False
    acquisition: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Digits:
    pool: Tensor  # (N, 3, 8, 8) uint8
    pool_labels: list[int]
    held_out: Tensor  # (M, 3, 8, 8) uint8
    held_out_labels: list[int]


def digits(seed: int, *, tuning: bool) -> Digits:
    """The pool in this seed's order, and what to score on: the test split, or when tuning a part of the pool."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.round(pixels * 255 / 16).astype(np.uint8)).view(-1, 1, 8, 8).repeat(1, 3, 1, 1)
    split = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    test, pool = split[:TEST_IMAGES], np.random.default_rng(seed).permutation(split[TEST_IMAGES:])
    if tuning:
        test, pool = pool[:TUNING_IMAGES], pool[TUNING_IMAGES:]
    return Digits(images[pool], labels[pool].tolist(), images[test], labels[test].tolist())


def campaign(arm: str, seed: int, settings: Settings) -> list[float]:
    """Accuracy of S-KD on the held-out images after each round of one labelling campaign."""
    data = digits(seed, tuning=settings.tuning)
    task = get_task("classification", [str(digit) for digit in range(10)])
    spec = TrioSpec(*default_pair((8, 8)), image_size=(8, 8))
    labelled: list[int] = []
    accuracies = []
    order = first_order(arm, seed, data, settings)
    for number in range(settings.rounds):
        labelled += order[: settings.budget].tolist()
        config = TrainConfig(seed=1000 * seed + number, device="cpu", **settings.training)
        targets = [data.pool_labels[index] for index in labelled]
        trio = train_trio(task, spec, data.pool[labelled], targets, config)
        predictions = infer(task, trio.distilled, data.held_out, device="cpu").predictions
        accuracies.append(task.score(predictions, data.held_out_labels))
        order = next_order(arm, config.seed, task, trio, data, labelled, settings)
    return accuracies


def first_order(arm: str, seed: int, data: Digits, settings: Settings) -> NDArray[np.int64]:
    """The whole pool before any label: by diversity alone, or at random."""
    if arm == "random":
        nothing = np.zeros(len(data.pool))
        return strategy("random")(PoolScores(nothing, nothing, nothing[:, None], seed=seed)).indices
    return cold_start(cold_start_features(data.pool), **settings.start).indices


def next_order(
    arm: str, seed: int, task: Task, trio: Trio, data: Digits, labelled: Sequence[int], settings: Settings
) -> NDArray[np.int64]:
    """The unlabelled part of the pool, best first."""
    unlabelled = np.setdiff1d(np.arange(len(data.pool)), labelled)
    images = data.pool[unlabelled]
    distilled = infer(task, trio.distilled, images, device="cpu")
    scores = PoolScores(
        d_ss=prediction_gap(task, distilled.predictions, infer(task, trio.student, images).predictions),
        d_st=prediction_gap(task, distilled.predictions, infer(task, trio.teacher, images).predictions),
        features=distilled.features,
        seed=seed,
        **settings.acquisition,
    )
    return unlabelled[strategy(arm)(scores).indices]


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and half-width of its 95% t-interval over the first axis."""
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    width = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(width)


def run(arms: Sequence[str], seeds: Sequence[int], settings: Settings, workers: int) -> dict[str, Any]:
    """Accuracies {arm: (seeds, rounds)} of all campaigns, one process and one torch thread for each."""
    jobs = [(arm, seed) for seed in seeds for arm in arms]
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as processes:
        curves = list(processes.map(partial(_job, settings), jobs))
    return {arm: [curve for (name, _), curve in zip(jobs, curves, strict=True) if name == arm] for arm in arms}


def _job(settings: Settings, job: tuple[str, int]) -> list[float]:
    return campaign(*job, settings)


def table(curves: dict[str, NDArray[np.float64]], budget: int) -> str:
    """Markdown: accuracy of both arms after each round, and their paired difference, in per cent."""
    lines = ["| labels | kd_gap | random | kd_gap - random |", "|---|---|---|---|"]
    for number in range(curves["kd_gap"].shape[1]):
        columns = [curves["kd_gap"], curves["random"], curves["kd_gap"] - curves["random"]]
        cells = [interval(100 * column[:, number]) for column in columns]
        texts = [f"{mean:.2f} ± {width:.2f}" for mean, width in cells]
        lines.append(f"| {(number + 1) * budget} | {' | '.join(texts)} |")
    return "\n".join(lines)


def plot(curves: dict[str, NDArray[np.float64]], budget: int, path: Path) -> None:
    """Both curves with their 95% intervals, one faint line for each seed."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for arm, colour in zip(ARMS, ("tab:blue", "tab:orange"), strict=True):
        labels = budget * np.arange(1, curves[arm].shape[1] + 1)
        means, widths = np.array([interval(100 * column) for column in curves[arm].T]).T
        axes.plot(labels, 100 * curves[arm].T, color=colour, alpha=0.2, linewidth=0.8)
        axes.errorbar(labels, means, yerr=widths, color=colour, marker="o", capsize=4, label=arm)
    axes.set(xlabel="labels", ylabel="test accuracy of S-KD, %", xticks=labels)
    axes.set_title(f"Digits: mean and 95% interval over {len(curves['random'])} seeds")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="kdal's order against a random one, on handwritten digits")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=50, help="labels a round")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one torch thread each")
    parser.add_argument("--tuning", action="store_true", help="score on a part of the pool, not on the test split")
    parser.add_argument("--out", type=Path, default=Path("artifacts/digits"))
    options = parser.parse_args()
    settings = Settings(rounds=options.rounds, budget=options.budget, tuning=options.tuning)
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    start = time.perf_counter()
    curves = {arm: np.array(rows) for arm, rows in run(ARMS, seeds, settings, options.workers).items()}
    mean, width = interval(100 * (curves["kd_gap"] - curves["random"])[:, -1])
    options.out.mkdir(parents=True, exist_ok=True)
    text = table(curves, options.budget)
    (options.out / "digits_curve.md").write_text(text + "\n")
    result = {
        "seeds": seeds,
        "budget": options.budget,
        "accuracy": {arm: rows.tolist() for arm, rows in curves.items()},
        "final_difference_percent": {"mean": mean, "half_width_95": width},
        "seconds": round(time.perf_counter() - start, 1),
    }
    (options.out / "digits_curve.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(curves, options.budget, options.out / "digits_curve.png")
    print(text)
    print(f"\nAfter the last round kd_gap is {mean:+.2f} ± {width:.2f} points from random (95%, paired).")


if __name__ == "__main__":
    main()
