"""S, T, S-KD and an S-KD that hears of labelled images alone, with few labels of BCCD: mAP@.5, and what the gaps say.

Networks and settings are those of the campaign `boxes`, labels are drawn at random from its pool. Scored on its
validation images, which choices are made by; `--labels 0 --test` is for the end: all labels, on the test images. Beside
the means, the AP of the class that S and S-KD find worst. Of the gaps: D_SS's median, the share of images where it is
1, and how D_SS + D_ST goes with S-KD's true error (rank correlation of 1 - the image's own mAP@.5), over the images
that were not learnt. Each figure is kept, and a second run goes on. Run as `python -m benchmarks.box_trio --data
folder`; with `--training '{"batch_size": 8}'` it trains otherwise than the campaign does.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.lane_trio import cell
from kdal_core.acquisition import prediction_gap
from kdal_core.simulation import Campaign, load_campaign
from kdal_core.simulation.datasets import load_split
from kdal_core.simulation.runner import training_setup
from kdal_core.tasks import Box, Task
from kdal_core.training import distil, infer, train_student, train_teacher

MODELS = ("S", "T", "S-KD", "S-KD, labelled images alone")
WORST = ("S, worst class", "S-KD, worst class")
GAPS = ("D_SS, median", "D_SS is 1", "goes with the error")
WHAT = (*MODELS, *WORST, *GAPS)


def main() -> None:
    """Train for each number of labels and seed, measure, print means with intervals, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="the folder that holds `BCCD/BCCD`")
    parser.add_argument("--labels", type=int, nargs="+", default=[30, 100], help="0: all")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--training", type=json.loads, default={}, help="JSON, what is other than in the campaign")
    parser.add_argument("--out", type=Path, default=Path("artifacts/box_trio.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.out.read_text()) if options.out.is_file() else {}
    campaign = load_campaign("boxes")
    training = {**campaign.training, **options.training}
    campaign = campaign.model_copy(update={"score_on": "test" if options.test else "validation", "training": training})
    columns = {}
    for labels in options.labels:
        about = f"{campaign.score_on}, {labels or 'all'} labels, {json.dumps(training, sort_keys=True)}"
        names = [f"{about}, seed {seed}" for seed in range(options.seeds)]
        for seed, name in enumerate(names):
            if name not in kept:
                kept[name] = measure(campaign, options.data, labels, seed)
                options.out.write_text(json.dumps(kept, indent=2))
                print(f"{name}: {kept[name]}", flush=True)
        columns[f"{labels or 'all'} labels"] = [
            cell([kept[name][what] for name in names if what in kept[name]]) for what in WHAT
        ]
    table = Table("", *columns)
    for row in zip(WHAT, *columns.values(), strict=True):
        table.add_row(*row)
    Console().print(table)


def measure(campaign: Campaign, data: Path | None, labels: int, seed: int) -> dict[str, float]:
    """The figures of one choice of labels."""
    split = load_split(campaign, seed, data)
    pool, held_out = split.pool, split.held_out
    setup, config = training_setup(campaign, split), campaign.train_config(seed)
    task, spec = setup.task, setup.spec
    learnt, left = np.split(np.random.default_rng(seed).permutation(len(pool)), [labels or len(pool)])
    images, targets = pool.take(learnt).images, list(pool.labels[learnt])
    teacher = train_teacher(task, spec, images, targets, config)
    others = pool.take(left).images
    models = {
        "S": train_student(task, spec, images, targets, config),
        "T": teacher,
        "S-KD": distil(task, spec, teacher, images, targets, config, unlabelled=others),
    }
    if len(left):
        models[MODELS[3]] = distil(task, spec, teacher, images, targets, replace(config, unlabelled=False))
    seen = torch.cat([held_out.images, others])
    truth = [*held_out.labels, *pool.labels[left]]
    predictions = {name: infer(task, model, seen).predictions for name, model in models.items()}
    scored = len(held_out)
    found = {name: task.score(each[:scored], truth[:scored]) for name, each in predictions.items()}
    for name, worst in zip(("S", "S-KD"), WORST, strict=True):
        found[worst] = min(class_scores(task, predictions[name][:scored], truth[:scored]))
    d_ss, d_st = (prediction_gap(task, predictions["S-KD"], predictions[other]) for other in ("S", "T"))
    errors = [1 - task.score(predictions["S-KD"][i : i + 1], truth[i : i + 1]) for i in range(len(truth))]
    gaps = (np.median(d_ss), (d_ss == 1).mean(), spearmanr(d_ss + d_st, errors).statistic)
    return found | dict(zip(GAPS, map(float, gaps), strict=True))


def class_scores(task: Task, predictions: NDArray[np.float32], truth: list[tuple[Box, ...]]) -> list[float]:
    """AP@.5 of each class that is labelled."""
    labelled = sorted({box.label for boxes in truth for box in boxes})
    return [
        task.score(
            np.where(predictions[..., 5:] == label, predictions, np.nan),
            [tuple(box for box in boxes if box.label == label) for boxes in truth],
        )
        for label in labelled
    ]


if __name__ == "__main__":
    main()
