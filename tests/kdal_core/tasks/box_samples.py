"""A small box task, boxes of it and outputs of a network, drawn at random: what tests of boxes share."""

import torch

from kdal_core.models.fcos import BoxOutputs, grid_levels, place_grid
from kdal_core.tasks import Box, BoxTask

TASK = BoxTask(("cell", "platelet"))
SIZE = (96, 160)
LEVELS = grid_levels(SIZE)
GRID = place_grid(SIZE, LEVELS)
SMALL, WIDE = Box(0.1, 0.2, 0.25, 0.45), Box(0.3, 0.05, 0.95, 0.9, 1)


def random_boxes(rng, most=5):
    rows = []
    for _ in range(rng.integers(0, most)):
        left, top = rng.uniform(0, 0.8, 2)
        right, bottom = left + rng.uniform(0.02, 1 - left), top + rng.uniform(0.02, 1 - top)
        rows.append(Box(left, top, right, bottom, int(rng.integers(0, 2))))
    return tuple(rows)


def random_outputs(seed, images=3, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(images, len(GRID), 2, generator=generator) - 1
    reach = 3 * torch.rand(images, len(GRID), 4, generator=generator)
    return BoxOutputs(logits, reach, torch.randn(images, len(GRID), generator=generator), GRID, LEVELS)
