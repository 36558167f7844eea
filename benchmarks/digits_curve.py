"""Labels against accuracy on handwritten digits: kdal's order against a random one.

    python -m benchmarks.digits_curve --out artifacts/digits

scikit-learn's 1,797 digits of 8 x 8 pixels. Every seed has a random test split of its own (600 images, scored after
each round and used for nothing else) and a pool of the other 1,197. A campaign starts with no label; each round labels
`budget` more images of the pool and trains from scratch on all labels so far. Both arms train alike; only the order
differs. A seed's estimate of an arm is the mean over repeats, which differ in initial weights, batches and the random
arm's picks. Settings were chosen with `--tuning`: scored on 500 images that no test split holds; see docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
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
from kdal_core.training import TrainConfig, Trio, TrioSpec, distil, infer, train, train_trio

ARMS = ("kd_gap", "random")
SEPARATING_ARM = "start_then_random"  # the cold start's first batch, then random ones
REPEATS = 4
TEST_IMAGES, TUNING_IMAGES, TUNING_POOL, SPLIT_SEED = 600, 500, 1100, 20261122
# glibc gives every large tensor back to the kernel and asks for it anew: a fifth of the training time.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_TOP_PAD_": "67108864"}


@dataclass(frozen=True)
class Settings:
    rounds: int = 5
    budget: int = 50
    tuning: bool = False
    acquisition: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One campaign."""

    arm: str
    seed: int
    repeat: int


@dataclass(frozen=True)
class Digits:
    pool: Tensor  # (N, 3, 8, 8) uint8
    pool_labels: list[int]
    held_out: Tensor  # (M, 3, 8, 8) uint8
    held_out_labels: list[int]


def digits(seed: int, *, tuning: bool) -> Digits:
    """A seed's pool, and what to score on: its own test split, or when tuning the images kept for that."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.round(pixels * 255 / 16).astype(np.uint8)).view(-1, 1, 8, 8).repeat(1, 3, 1, 1)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    first, kept, last = np.split(order, [500, 500 + TUNING_IMAGES])
    others = np.random.default_rng(seed).permutation(np.r_[first, last])
    if tuning:
        test, pool = kept, others[:TUNING_POOL]
    else:
        test, pool = others[:TEST_IMAGES], np.random.default_rng(seed).permutation(np.r_[others[TEST_IMAGES:], kept])
    return Digits(images[pool], labels[pool].tolist(), images[test], labels[test].tolist())


def campaign(job: Job, settings: Settings) -> list[float]:
    """Accuracy of S-KD on the held-out images after each round of one labelling campaign."""
    data = digits(job.seed, tuning=settings.tuning)
    task = get_task("classification", [str(digit) for digit in range(10)])
    seed = 10_000 * job.seed + 100 * job.repeat
    order = first_order(job.arm, seed, data, settings)
    labelled: list[int] = []
    accuracies = []
    for number in range(settings.rounds):
        labelled += order[: settings.budget].tolist()
        config = TrainConfig(seed=seed + number, device="cpu", **settings.training)
        trio = train_round(job.arm, task, data, labelled, config)
        predictions = infer(task, trio.distilled, data.held_out, device="cpu").predictions
        accuracies.append(task.score(predictions, data.held_out_labels))
        order = next_order(job.arm, config.seed, task, trio, data, labelled, settings)
    return accuracies


def train_round(arm: str, task: Task, data: Digits, labelled: Sequence[int], config: TrainConfig) -> Trio:
    """The trio from scratch. Where the order is random nobody asks S, so it is left untrained."""
    spec = TrioSpec(*default_pair((8, 8)), image_size=(8, 8))
    images, targets = data.pool[labelled], [data.pool_labels[index] for index in labelled]
    if arm == "kd_gap":
        return train_trio(task, spec, images, targets, config)
    teacher = task.build(spec.teacher, spec.image_size, seed=3 * config.seed + 1)  # the seeds of train_trio
    train(task, teacher, images, targets, replace(config, seed=3 * config.seed + 1))
    return Trio(teacher, teacher, distil(task, spec, teacher, images, targets, config))


def first_order(arm: str, seed: int, data: Digits, settings: Settings) -> NDArray[np.int64]:
    """The whole pool before any label: by diversity alone, or at random."""
    if arm == "random":
        return _random_order(len(data.pool), seed)
    return cold_start(cold_start_features(data.pool), **settings.start).indices


def next_order(
    arm: str, seed: int, task: Task, trio: Trio, data: Digits, labelled: Sequence[int], settings: Settings
) -> NDArray[np.int64]:
    """The unlabelled part of the pool, best first."""
    unlabelled = np.setdiff1d(np.arange(len(data.pool)), labelled)
    if arm != "kd_gap":
        return unlabelled[_random_order(len(unlabelled), seed)]
    images = data.pool[unlabelled]
    distilled = infer(task, trio.distilled, images, device="cpu")
    student, teacher = (infer(task, model, images, device="cpu") for model in (trio.student, trio.teacher))
    scores = PoolScores(
        d_ss=prediction_gap(task, distilled.predictions, student.predictions),
        d_st=prediction_gap(task, distilled.predictions, teacher.predictions),
        features=distilled.features,
        seed=seed,
        **settings.acquisition,
    )
    return unlabelled[strategy("kd_gap")(scores).indices]


def _random_order(size: int, seed: int) -> NDArray[np.int64]:
    nothing = np.zeros(size)
    return strategy("random")(PoolScores(nothing, nothing, nothing[:, None], seed=seed)).indices


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and half-width of its 95% t-interval over the first axis."""
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    width = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(width)


def run(jobs: Sequence[Job], settings: Settings, workers: int, log: Path) -> dict[Job, list[float]]:
    """Accuracies after each round of all campaigns, each in a process of one torch thread; `log` grows with them."""
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)  # read when a process starts, so for the children
    curves: dict[Job, list[float]] = {}
    with (
        log.open("w") as lines,
        ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as processes,
    ):
        running = {processes.submit(campaign, job, settings): job for job in jobs}
        for done in as_completed(running):
            job = running[done]
            curves[job] = done.result()
            lines.write(json.dumps({**asdict(job), "accuracy": curves[job]}) + "\n")
            lines.flush()
    return curves


def by_seed(curves: dict[Job, list[float]]) -> dict[str, NDArray[np.float64]]:
    """{arm: (seeds, rounds)}, each entry the mean over the repeats of this seed and arm."""
    result = {}
    for arm in dict.fromkeys(job.arm for job in curves):
        seeds = sorted({job.seed for job in curves if job.arm == arm})
        result[arm] = np.array(
            [
                np.mean([curve for job, curve in curves.items() if (job.arm, job.seed) == (arm, seed)], axis=0)
                for seed in seeds
            ]
        )
    return result


def table(curves: dict[str, NDArray[np.float64]], budget: int) -> str:
    """Markdown: accuracy of all arms after each round, and kd_gap's paired differences to the others, in per cent."""
    others = [arm for arm in curves if arm != "kd_gap"]
    names = [*curves, *(f"kd_gap - {arm}" for arm in others)]
    lines = [f"| labels | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    columns = [*curves.values(), *(curves["kd_gap"] - curves[arm] for arm in others)]
    for number in range(curves["kd_gap"].shape[1]):
        cells = [interval(100 * column[:, number]) for column in columns]
        texts = [f"{mean:.2f} ± {width:.2f}" for mean, width in cells]
        lines.append(f"| {(number + 1) * budget} | {' | '.join(texts)} |")
    return "\n".join(lines)


def plot(curves: dict[str, NDArray[np.float64]], budget: int, path: Path) -> None:
    """Left the curves with their 95% intervals, one faint line for each seed; right the paired difference."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (axes, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    labels = budget * np.arange(1, curves["random"].shape[1] + 1)
    for place, (arm, colour) in enumerate(zip(curves, ("tab:blue", "tab:orange", "tab:green"), strict=False)):
        means, widths = np.array([interval(100 * column) for column in curves[arm].T]).T
        beside = labels + (place - 0.5) * 0.03 * budget  # so that the bars do not hide each other
        axes.plot(labels, 100 * curves[arm].T, color=colour, alpha=0.2, linewidth=0.8)
        axes.errorbar(beside, means, yerr=widths, color=colour, marker="o", markersize=4, capsize=4, label=arm)
    axes.set(xlabel="labels", ylabel="test accuracy of S-KD, %", xticks=labels)
    axes.set_title(f"Digits: mean and 95% interval over {len(curves['random'])} seeds")
    axes.legend(loc="lower right")
    means, widths = np.array([interval(100 * column) for column in (curves["kd_gap"] - curves["random"]).T]).T
    right.axhline(0, color="black", linewidth=0.8)
    right.errorbar(labels, means, yerr=widths, color="tab:blue", marker="o", markersize=4, capsize=4)
    right.set(xlabel="labels", ylabel="kd_gap - random, percentage points", xticks=labels)
    right.set_title("Difference paired by seed, 95% interval")
    for part in (axes, right):
        part.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="kdal's order against a random one, on handwritten digits")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--first-seed", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="campaigns for each seed and arm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=50, help="labels a round")
    parser.add_argument("--separate", action="store_true", help=f"also run the arm {SEPARATING_ARM}")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one torch thread each")
    parser.add_argument(
        "--tuning", action="store_true", help="score on the images kept for tuning, not on a test split"
    )
    parser.add_argument("--out", type=Path, default=Path("artifacts/digits"))
    options = parser.parse_args()
    settings = Settings(rounds=options.rounds, budget=options.budget, tuning=options.tuning)
    arms = (*ARMS, SEPARATING_ARM) if options.separate else ARMS
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    jobs = [Job(arm, seed, repeat) for repeat in range(options.repeats) for seed in seeds for arm in arms]
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    campaigns = run(jobs, settings, options.workers, options.out / "campaigns.jsonl")
    curves = by_seed({job: campaigns[job] for job in jobs})
    mean, width = interval(100 * (curves["kd_gap"] - curves["random"])[:, -1])
    text = table(curves, options.budget)
    (options.out / "digits_curve.md").write_text(text + "\n")
    result = {
        "seeds": seeds,
        "repeats": options.repeats,
        "budget": options.budget,
        "accuracy": {arm: rows.tolist() for arm, rows in curves.items()},
        "final_difference_percent": {"mean": mean, "half_width_95": width},
        "seconds": round(time.perf_counter() - start, 1),
    }
    (options.out / "digits_curve.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(curves, options.budget, options.out / "digits_curve.png")
    print(text)
    print(f"\nAfter the last round kd_gap is {mean:+.2f} ± {width:.2f} points from random (95%, paired by seed).")


if __name__ == "__main__":
    main()
