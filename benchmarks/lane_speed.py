"""Training and inference of lane networks against the bare network, and what decoding takes, in one run.

What is measured: `benchmarks.task_speed`. Run as `python -m benchmarks.lane_speed`.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.task_speed import Subject, compare, options_for
from kdal_core.tasks import Lane, LaneTask

SIZE = (144, 400)
TASK = LaneTask(("lane",))


def roads(count: int) -> Subject:
    """Images of noise, and two to five lanes each: what they show costs no time."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, *SIZE), dtype=np.uint8))
    y = np.linspace(0.35, 1, 20)
    feet = [np.linspace(0.05, 0.95, rng.integers(2, 6)) for _ in range(count)]
    lanes = [tuple(Lane(np.stack([0.5 + (foot - 0.5) * y**2, y], axis=1)) for foot in row) for row in feet]
    return Subject(TASK, images, lanes, batch=32)


if __name__ == "__main__":
    chosen = options_for(__doc__, [TASK.default_pair(SIZE)[0], "resnet18"], "artifacts/lane_speed.json")
    compare(roads(chosen.images), chosen)
