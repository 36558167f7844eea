"""Networks on pretrained backbones against those that are trained from nothing, with few labels of boxes or lanes.

For each trio S/T named, the scores of T and S-KD on the validation images of the campaign `boxes` (or `lanes`), of
boxes the AP of platelets, too, and the processor seconds of one thread that their training took; labels are drawn at
random from the campaign's pool, as in `benchmarks.box_trio`. With `--student-alone` S is trained instead, by the name
before the slash. Names of backbones are those of torchvision and timm; their weights are found wherever they can be
had. Each figure is kept, and a second run goes on. Run as
`python -m benchmarks.pretrained_places tiny_boxes/small_boxes tiny_boxes/mobilenet_v2 --data folder`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.box_trio import class_scores
from benchmarks.lane_trio import cell
from kdal_core.models import Network
from kdal_core.simulation import Campaign, load_campaign
from kdal_core.simulation.datasets import load_split
from kdal_core.tasks import get_task
from kdal_core.training import TrioSpec, distil, infer, train_student, train_teacher

Figures = dict[str, float]


def main() -> None:
    """Train each trio on each draw, measure, print means with intervals, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trios", nargs="+", help="student/teacher")
    parser.add_argument("--data", type=Path, default=None, help="the folder that holds `BCCD/BCCD` or `lanes`")
    parser.add_argument("--campaign", choices=("boxes", "lanes"), default="boxes")
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--student-alone", action="store_true")
    parser.add_argument("--training", type=json.loads, default={}, help="JSON, what is other than in the campaign")
    parser.add_argument("--out", type=Path, default=Path("artifacts/pretrained_places.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Figures] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    campaign = load_campaign(options.campaign)
    campaign = campaign.model_copy(
        update={"score_on": "validation", "training": {**campaign.training, **options.training}}
    )
    table = Table("", "seeds", *WHAT)
    for trio in options.trios:
        student, _, teacher = trio.partition("/")
        rows = []
        for seed in options.seeds:
            about = f"{options.campaign}, {trio}, {options.labels} labels, S alone {options.student_alone}, "
            about += f"{json.dumps(options.training, sort_keys=True)}, seed {seed}"
            if about not in kept:
                kept[about] = measure(campaign, options, student, teacher, seed)
                options.out.write_text(json.dumps(kept, indent=2))
                print(f"{about}: {kept[about]}", flush=True)
            rows.append(kept[about])
        known = {what: [row[what] for row in rows if what in row] for what in WHAT}
        seconds = {what: f"{np.mean(found):.0f}" if found else "" for what, found in known.items()}
        cells = (seconds[what] if what.endswith("seconds") else cell(known[what]) for what in WHAT)
        table.add_row(trio, str(len(rows)), *cells)
    Console(width=160).print(table)


WHAT = tuple(f"{model}{what}" for model in ("S", "T", "S-KD") for what in ("", ", platelets", ", seconds"))


def measure(campaign: Campaign, options: Any, student: str, teacher: str, seed: int) -> Figures:
    """The figures of one draw of labels."""
    split = load_split(campaign, seed, options.data)
    pool, held_out = split.pool, split.held_out
    config, task = campaign.train_config(seed), get_task(campaign.task, split.classes)
    spec = TrioSpec.suited(task, split.image_size, student=student, teacher=teacher or None, weights="auto")
    learnt, left = np.split(np.random.default_rng(seed).permutation(len(pool)), [options.labels])
    images, targets = pool.take(learnt).images, list(pool.labels[learnt])
    found: Figures = {}

    def timed(name: str, train: Callable[[], Network]) -> Network:
        start = time.process_time()
        model = train()
        seconds = time.process_time() - start
        predictions = infer(task, model, held_out.images).predictions
        labels = list(held_out.labels)
        found.update({name: task.score(predictions, labels), f"{name}, seconds": seconds})
        if campaign.task == "boxes":  # platelets are the class that is found worst
            found[f"{name}, platelets"] = min(class_scores(task, predictions, labels))
        return model

    if options.student_alone:
        timed("S", lambda: train_student(task, spec, images, targets, config))
        return found
    taught = timed("T", lambda: train_teacher(task, spec, images, targets, config))
    others = pool.take(left).images
    timed("S-KD", lambda: distil(task, spec, taught, images, targets, config, unlabelled=others))
    return found


if __name__ == "__main__":
    main()
