"""Training and inference of detectors against the bare network, and what decoding (NMS too) takes, in one run.

What is measured: `benchmarks.task_speed`; training first, so that there are boxes to decode. Run as
`python -m benchmarks.box_speed`.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.task_speed import Subject, compare, options_for
from kdal_core.tasks import Box, BoxTask

SIZE = (240, 320)
TASK = BoxTask(("red cell", "white cell", "platelet"))
MOST = 20
"""Boxes of an image, as many as blood shows."""


def plates(count: int) -> Subject:
    """Images with 5 to 20 bright discs each on noise, and the boxes around them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (count, *SIZE, 3), dtype=np.uint8)
    targets = []
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for image in images:
        boxes = []
        for _ in range(int(rng.integers(5, MOST + 1))):
            radius, label = int(rng.integers(8, 40)), int(rng.integers(0, 3))
            column, row = int(rng.integers(radius, SIZE[1] - radius)), int(rng.integers(radius, SIZE[0] - radius))
            image[np.hypot(x - column, y - row) < radius, label] += 120
            left, right = (column - radius) / SIZE[1], (column + radius) / SIZE[1]
            boxes.append(Box(left, (row - radius) / SIZE[0], right, (row + radius) / SIZE[0], label))
        targets.append(tuple(boxes))
    return Subject(TASK, torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), targets, batch=16)


if __name__ == "__main__":
    chosen = options_for(__doc__, ["tiny_boxes", TASK.default_pair(SIZE)[0], "resnet18"], "artifacts/box_speed.json")
    compare(plates(chosen.images), chosen)
