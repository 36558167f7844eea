"""Random views of images that leave any label that is not about position or handedness true."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def random_affine(
    images: Tensor,
    generator: torch.Generator,
    *,
    degrees: float = 10.0,
    shift: float = 0.08,
    zoom: float = 0.1,
) -> Tensor:
    """Rotate, shift and zoom each image of a batch a little; never mirrored (a mirrored 2 is no 2).

    Args:
        images: (B, 3, H, W) float in [0, 1].
        generator: a CPU generator; the only source of randomness.
        degrees: largest rotation either way.
        shift: largest shift either way, as a share of height and width.
        zoom: largest change of scale either way, as a share.

    Returns:
        (B, 3, H, W) float in [0, 1]; what comes in over the edge repeats the edge.
    """
    draws = torch.rand(len(images), 4, generator=generator) * 2 - 1  # (B, 4) in [-1, 1)
    angle = draws[:, 0] * math.radians(degrees)
    scale = 1 + draws[:, 1] * zoom
    height, width = images.shape[2:]
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    theta = torch.stack(
        [
            torch.stack([cos, -sin * height / width, draws[:, 2] * 2 * shift], dim=1),
            torch.stack([sin * width / height, cos, draws[:, 3] * 2 * shift], dim=1),
        ],
        dim=1,
    ).to(images.device)  # (B, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
