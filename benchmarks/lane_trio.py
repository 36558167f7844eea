"""S, S-KD and T trained on all labels of a lane folder: TuSimple's measures and lane F1 on its test images.

TuSimple's threshold of 20 pixels is meant for images 1,280 pixels wide: lanes are measured at that width, whatever
the images' own. Nothing is chosen here: the settings are those of the campaign `lanes`, chosen on validation images.
Each seed's figures are kept, and a second run goes on. Run as `python -m benchmarks.lane_trio --data folder`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from kdal_core.metrics import tusimple
from kdal_core.simulation import load_campaign
from kdal_core.simulation.curves import interval
from kdal_core.simulation.datasets import Split, load_dataset
from kdal_core.simulation.lane_folders import LaneFiles
from kdal_core.simulation.runner import training_setup
from kdal_core.tasks.lane import lanes_of, x_at
from kdal_core.training import infer, train_trio

WIDTH = 1280
MODELS = {"S": "student", "S-KD": "distilled", "T": "teacher"}
MEASURES = ("F1", "accuracy", "FP", "FN")

Floats = NDArray[np.float64]


def main() -> None:
    """Train each seed's trio, measure it, print means with intervals, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="the folder that holds `lanes`, in TuSimple's form")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("artifacts/lane_trio.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for seed in range(options.seeds):
        if str(seed) not in kept:
            kept[str(seed)] = measure(options.data, seed)
            options.out.write_text(json.dumps(kept, indent=2))
            print(f"seed {seed}: {kept[str(seed)]}", flush=True)
    table = Table("model", *MEASURES)
    for name in MODELS:
        table.add_row(
            name, *(cell([kept[str(seed)][name][what] for seed in range(options.seeds)]) for what in MEASURES)
        )
    Console().print(table)


def measure(data: Path | None, seed: int) -> dict[str, dict[str, float]]:
    """The three models' figures on the test images, by model."""
    campaign = load_campaign("lanes")
    dataset = load_dataset(campaign.data, data)
    if not isinstance(dataset.test, LaneFiles):
        raise SystemExit("the campaign `lanes` is about no lane folder")
    training, test = (part.resized(campaign.data.image_size) for part in (dataset.training, dataset.test))
    setup = training_setup(campaign, Split(dataset.classes, training, test))
    trio = train_trio(setup.task, setup.spec, training.images, list(training.labels), campaign.train_config(seed))
    found = {}
    for name, field in MODELS.items():
        predictions = infer(setup.task, getattr(trio, field), test.images).predictions
        f1 = setup.task.score(predictions, list(test.labels))
        found[name] = {"F1": f1} | tusimple_means(predictions, dataset.test)
    return found


def tusimple_means(predictions: NDArray[np.float32], files: LaneFiles) -> dict[str, float]:
    """Accuracy, FP and FN, means over the images, at the rows that the data set's records name."""
    height, width = files.size
    scale = WIDTH / width
    figures = []
    for prediction, scene in zip(predictions, files.scenes, strict=True):
        rows = np.asarray(scene.extra["h_samples"], dtype=np.float64)
        found = [np.nan_to_num(x_at(lane, rows / height) * WIDTH, nan=-2.0) for lane, _ in lanes_of(prediction)]
        labelled = [on_rows(lane, rows) * scale for lane in scene.lanes or ()]
        figures.append(tusimple(found, labelled, rows * scale, run_time=0.0))
    return dict(zip(("accuracy", "FP", "FN"), np.mean(figures, axis=0).tolist(), strict=True))


def on_rows(lane: Floats, rows: Floats) -> Floats:
    """x (R,) of a labelled lane (n, 2), whose points are on some of the rows; -2 on the others."""
    x = np.full(len(rows), -2.0)
    x[np.searchsorted(rows, lane[:, 1])] = lane[:, 0]
    return x


def cell(values: list[float]) -> str:
    """Mean and 95% interval over the seeds, in per cent."""
    found = interval(values)
    if found is None:
        return ""
    spread = "" if found.half_width is None else f" ± {100 * found.half_width:.2f}"
    return f"{100 * found.mean:.2f}{spread}"


if __name__ == "__main__":
    main()
