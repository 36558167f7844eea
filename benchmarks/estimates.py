"""How often honest estimates err, by simulation: the promise of accepted suggestions, intervals, time and labels saved.

Accepting: images of which some are hard, with confidences that say how hard, are too sure, say little or say nothing;
missed is the target where the accuracy on the accepted images, whose labels are hidden, is below it. Intervals:
how often they hold the truth. Time: 400 projects in which suggestions save nothing, or a third of the time, with one
task in twenty left open over a break. Labels: projects of `benchmarks.estimate_projects`, where it is known what is
true, if they are in --projects.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, trim_mean

from benchmarks.estimate_projects import sets
from kdal_core.evaluation import (
    LearningCurve,
    accept_threshold,
    bootstrap,
    labels_saved,
    learning_curve,
    mean_interval,
    time_saved,
    wilson,
)
from kdal_core.training import HeadPool

PROJECTS = 200
Floats = NDArray[np.float64]
CONFIDENCES: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "calibrated": lambda chance, rng: chance,
    "too sure": lambda chance, rng: 1 / (1 + np.exp(-2.5 * np.log(chance / (1 - chance)) - 1)),
    "noisy": lambda chance, rng: (chance + rng.normal(0, 0.1, len(chance))).clip(0, 1),
    "meaningless": lambda chance, rng: rng.random(len(chance)),
}
ACCEPTING = (
    *((50, 1000, 0.9), (100, 1000, 0.9), (300, 1000, 0.9)),
    *((300, 3000, 0.95), (600, 5000, 0.95), (1000, 5000, 0.99)),
)
"""Held-out labels, pool, target."""


def table_of_accepting(projects: int) -> str:
    lines = [
        "| held-out labels | pool | target | " + " | ".join(f"{kind}: missed, share" for kind in CONFIDENCES) + " |",
        "|---" * (3 + len(CONFIDENCES)) + "|",
    ]
    for labels, pool, target in ACCEPTING:
        cells = []
        for confidence in CONFIDENCES.values():
            missed, shares = 0, []
            for seed in range(projects):
                rng = np.random.default_rng(seed)
                # Three of four images are easy.
                easy = rng.random(labels + pool) < 0.75
                chance = np.where(easy, 0.998, rng.beta(4, 2, labels + pool)).clip(0.05, 0.998)
                right, said = rng.random(len(chance)) < chance, confidence(chance, rng)
                found = accept_threshold(said[:labels], right[:labels], target, pool=said[labels:])
                shares.append(found.share)
                if found.threshold is not None:
                    missed += right[labels:][said[labels:] >= found.threshold].mean() < target
            cells.append(f"{missed / projects:.1%}, {np.mean(shares):.0%}")
        lines.append(f"| {labels} | {pool} | {target:.0%} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def table_of_measured_models(files: list[Path], projects: int) -> str:
    """One model of 200 labels a set; its other images are split into held-out ones and a pool again and again."""
    lines = ["| images | right | held-out labels | pool | target | missed | share |", "|---|---|---|---|---|---|---|"]
    for name, labels, classes, student, teacher in sets(files):
        order = np.random.default_rng(0).permutation(len(labels))
        shown, others = order[:200], order[200:]
        model = HeadPool(student, teacher).fit(shown, labels[shown], classes).distilled
        probabilities = model.probabilities(student[others])
        said, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels[others]
        for held, target in ((100, 0.9), (300, 0.9), (300, 0.95)):
            missed, shares = 0, []
            for seed in range(projects):
                rows = np.random.default_rng(seed).permutation(len(others))
                seen, pool = rows[:held], rows[held:]
                found = accept_threshold(said[seen], right[seen], target, pool=said[pool])
                shares.append(found.share)
                if found.threshold is not None:
                    missed += right[pool][said[pool] >= found.threshold].mean() < target
            lines.append(
                f"| {name} | {right.mean():.1%} | {held} | {len(others) - held} | {target:.0%} "
                f"| {missed / projects:.1%} | {np.mean(shares):.0%} |"
            )
    return "\n".join(lines)


def table_of_the_worst_case(projects: int) -> str:
    """Confidences say nothing, and one image more is wrong than a pool of the target's accuracy may hold."""
    rng, labels, target = np.random.default_rng(0), 60, 0.9
    lines = ["| held-out labels | pool | target | missed |", "|---|---|---|---|"]
    for pool in (50, 200, 1000, 5000):
        missed = 0
        for _ in range(projects):
            right = rng.permutation(np.arange(labels + pool) > math.floor((1 - target) * pool))
            said = rng.random(labels + pool)
            found = accept_threshold(said[:labels], right[:labels], target, pool=said[labels:])
            if found.threshold is not None:
                missed += right[labels:][said[labels:] >= found.threshold].mean() < target
        lines.append(f"| {labels} | {pool} | {target:.0%} | {missed / projects:.1%} |")
    return "\n".join(lines)


def table_of_intervals(draws: int) -> str:
    rng = np.random.default_rng(0)
    lines = ["| images | right or wrong: 60% | 85% | 95% | mean IoU | F1 of all objects |", "|---|---|---|---|---|---|"]
    for images in (5, 10, 20, 50, 100):
        cells = []
        for accuracy in (0.6, 0.85, 0.95):
            held = [low <= accuracy <= high for low, high in (wilson(right, images) for right in range(images + 1))]
            cells.append(f"{binom.pmf(np.arange(images + 1), images, accuracy)[held].sum():.1%}")
        for truth, draw in ((0.85 * 0.75, iou), (f1(objects(200_000, rng)), None)):
            held = []
            for _ in range(draws):
                if draw is not None:
                    low, high = mean_interval(draw(images, rng))
                else:
                    seen = objects(images, rng)
                    low, high = bootstrap(lambda rows, seen=seen: f1(seen[:, rows]), images)  # type: ignore[misc]
                held.append(low <= truth <= high)
            cells.append(f"{np.mean(held):.1%}")
        lines.append(f"| {images} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def iou(images: int, rng: np.random.Generator) -> Floats:
    """Of images, one of seven of which is missed altogether."""
    found: Floats = rng.beta(6, 2, images) * (rng.random(images) < 0.85)
    return found


def objects(images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(3, images): hits, false alarms, misses; some images are harder than others."""
    there = rng.poisson(5, images) + 1
    hits = rng.binomial(there, rng.beta(4, 2, images))
    return np.stack([hits, rng.poisson(1, images), there - hits])


def f1(counts: NDArray[np.int64]) -> float:
    hits, alarms, misses = counts.sum(axis=1)
    return float(2 * hits / max(2 * hits + alarms + misses, 1))


def table_of_times(projects: int) -> str:
    rng = np.random.default_rng(0)
    lines = ["| tasks with, without | saves nothing: told | a third: told | interval holds it |", "|---|---|---|---|"]
    # Trimmed means are linear in the median, so that this much of 12 seconds is saved by a third.
    truth = float(trim_mean(seconds(rng, 12, 1_000_000), 0.2)) / 3
    for helped, plain in ((10, 10), (25, 25), (50, 50), (100, 25)):
        told, holds = {0.0: 0, 1 / 3: 0}, 0
        for _ in range(projects):
            for saving in told:
                times = np.concatenate([seconds(rng, 12 * (1 - saving), helped), seconds(rng, 12, plain)])
                found = time_saved(times, [1] * helped + [0] * plain)
                told[saving] += found.told
                if saving and found.interval is not None:
                    holds += found.interval.low <= truth <= found.interval.high
        cells = [told[0.0], told[1 / 3], holds]
        lines.append(f"| {helped}, {plain} | " + " | ".join(f"{cell / projects:.1%}" for cell in cells) + " |")
    return "\n".join(lines)


def seconds(rng: np.random.Generator, median: float, count: int) -> Floats:
    times: Floats = median * np.exp(0.5 * rng.normal(size=count))
    times += np.where(rng.random(count) < 0.05, 1800 * rng.random(count), 0)
    return times


def table_of_labels(folder: Path) -> str:
    said: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for path in sorted(folder.glob("*.json")):
        name, order, share, _ = path.stem.split("-")
        rounds = json.loads(path.read_text())
        curves = [curve_of([entry[kind] for entry in rounds if kind in entry]) for kind in ("served", "at_random")]
        said[name, order, f"{float(share):.0%}"][labels_saved(*curves).sentence] += 1
    lines = ["| images | order | drawn at random | projects | what is said in the end |", "|---|---|---|---|---|"]
    for key, sentences in said.items():
        lines += [f"| {' | '.join(key)} | {count} | {sentence} |" for sentence, count in sentences.items()]
    return "\n".join(lines)


def table_of_saving_nothing(projects: int) -> str:
    """Both curves the same law, half of each batch of 50 drawn at random: how often a saving or a waste is told."""
    lines = ["| images a model | intervals of 0.95 | of 0.99 |", "|---|---|---|"]
    served = np.arange(50, 551, 50)
    for images in (10, 40):
        rng, told, count = np.random.default_rng(0), {0.95: 0, 0.99: 0}, 0
        while count < projects:
            error, exponent = rng.uniform(0.1, 0.4), 0.5 * np.exp(0.5 * rng.normal())
            floor = error * rng.uniform() * (count % 2)  # every other one has none
            values = [1 - floor - (error - floor) * (n / 50) ** -exponent for n in (served, served[1:] // 2)]
            if values[1][0] < 0.05:
                continue
            models = [
                [{"labels": n, "right": rng.random(images) < value} for n, value in zip(labels, curve, strict=True)]
                for labels, curve in zip((served, served[1:] // 2), values, strict=True)
            ]
            curves = [curve_of(each) for each in models]
            for level in told:
                told[level] += labels_saved(*curves, level=level).told
            count += 1
        lines.append(f"| {images} | " + " | ".join(f"{number / projects:.1%}" for number in told.values()) + " |")
    return "\n".join(lines)


def curve_of(models: list[dict[str, Any]]) -> LearningCurve:
    rights = [model["right"] for model in models]
    labels = np.repeat([model["labels"] for model in models], [len(right) for right in rights])
    return learning_curve(labels, np.concatenate(rights), np.ones(len(labels)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="features, as benchmarks.estimate_projects reads them")
    parser.add_argument("--projects", type=Path, default=Path("docs/runs/estimates"), help="folder of projects")
    parser.add_argument("--out", type=Path, default=Path("artifacts/estimates.md"), help="where the tables go")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tables: list[Callable[[], str]] = [
        partial(table_of_accepting, PROJECTS),
        partial(table_of_measured_models, options.files, PROJECTS),
        partial(table_of_the_worst_case, 20 * PROJECTS),
        partial(table_of_times, 2 * PROJECTS),
        partial(table_of_labels, options.projects),
        partial(table_of_saving_nothing, PROJECTS),
        partial(table_of_intervals, 2 * PROJECTS),
    ]
    pages = []
    for made in tables:
        pages.append(made())
        print(pages[-1], "\n", flush=True)
        options.out.write_text("\n\n".join(pages) + "\n")


if __name__ == "__main__":
    main()
