"""How often confidences are right, before and after they are calibrated on the few labels that a project holds out.

The digits, labelled in a random order; the networks and settings of a round. Of each number of labels a tenth is held
out and calibrates the distilled student; images that nobody has labelled say how often it is then right.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torchmetrics.functional.classification import multiclass_calibration_error

from kdal.policy import Policy
from kdal_core.evaluation import calibrated, fit_temperature
from kdal_core.tasks import get_task
from kdal_core.training import distil, infer, train_pair

UNLABELLED = 600
"""Images that say how often a model is right."""


@dataclass(frozen=True)
class Row:
    """One model: what it is sure of, and how often that is right, on images that nobody has labelled."""

    labels: int
    seed: int
    held_out: int
    accuracy: float
    best: float
    """Temperature that would have been right."""
    temperature: float
    """That which the held-out labels gave."""
    error: float
    """Expected calibration error of the model's own confidences, of 15 bins."""
    error_after: float
    ticked: float
    """Share of images with a suggestion from 2/3 on."""
    ticked_right: float
    """Share of these on which it is right."""
    ticked_after: float
    ticked_right_after: float


def measure(labels: int, seed: int) -> Row:
    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy((pixels * 255 / 16).round()).to(torch.uint8).view(-1, 1, 8, 8).repeat(1, 3, 1, 1)
    order = np.random.default_rng(seed).permutation(len(images))
    held, shown, others = np.split(order, [labels // 10, labels])
    task, policy = get_task("classification", tuple("0123456789")), Policy(seed=seed)
    spec, config = policy.trio(task, (8, 8)), policy.training(task, "cpu")
    truth = classes[shown].tolist()
    pair = train_pair(task, spec, images[shown], truth, config)
    student = distil(task, spec, pair.teacher, images[shown], truth, config)

    def seen(rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return infer(task, student, images[rows], device="cpu").predictions, classes[rows]

    found, right = seen(others[:UNLABELLED])
    temperature = fit_temperature(*seen(held))
    after = calibrated(found, temperature)
    before_ticks, after_ticks = ticks(found, right), ticks(after, right)
    return Row(
        labels=labels,
        seed=seed,
        held_out=len(held),
        accuracy=float((found.argmax(axis=1) == right).mean()),
        best=fit_temperature(found, right),
        temperature=temperature,
        error=error(found, right),
        error_after=error(after, right),
        ticked=before_ticks[0],
        ticked_right=before_ticks[1],
        ticked_after=after_ticks[0],
        ticked_right_after=after_ticks[1],
    )


def error(probabilities: NDArray[np.floating], right: NDArray[np.int64]) -> float:
    found = torch.from_numpy(np.asarray(probabilities, dtype=np.float64))
    return float(multiclass_calibration_error(found, torch.from_numpy(right), num_classes=found.shape[1]))


def ticks(probabilities: NDArray[np.floating], right: NDArray[np.int64]) -> tuple[float, float]:
    """Share of images with a suggestion, and share of these on which it is right."""
    sure = probabilities.max(axis=1) >= 2 / 3
    correct = probabilities.argmax(axis=1) == right
    return float(sure.mean()), float(correct[sure].mean()) if sure.any() else float("nan")


def table(rows: list[Row]) -> str:
    lines = [
        "| labels | held out | right | temperature, best | calibration error, after | ticked, right | after |",
        "|---|---|---|---|---|---|---|",
    ]
    for labels in sorted({row.labels for row in rows}):
        mean = {
            name: float(np.nanmean([getattr(row, name) for row in rows if row.labels == labels]))
            for name in asdict(rows[0])
        }
        lines.append(
            f"| {labels} | {mean['held_out']:.0f} | {mean['accuracy']:.1%} "
            f"| {mean['temperature']:.2f}, {mean['best']:.2f} | {mean['error']:.1%}, {mean['error_after']:.1%} "
            f"| {mean['ticked']:.0%}, {mean['ticked_right']:.1%} "
            f"| {mean['ticked_after']:.0%}, {mean['ticked_right_after']:.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the numbers go")
    args = parser.parse_args()
    rows = []
    for labels in args.labels:
        for seed in range(args.seeds):
            rows.append(measure(labels, seed))
            print(json.dumps(asdict(rows[-1])), flush=True)
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
