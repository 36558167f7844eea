"""Random views of images, and what becomes of points in them."""

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
    return warped(images, random_matrices(images, generator, degrees=degrees, shift=shift, zoom=zoom))


def random_matrices(
    images: Tensor, generator: torch.Generator, *, degrees: float, shift: float, zoom: float, mirrored: bool = False
) -> Tensor:
    """(B, 2, 3) for `warped` and `moved`: each leads from the new image's coordinates in [-1, 1] to the old one's.

    Args:
        images: (B, 3, H, W).
        generator, degrees, shift, zoom: as in `random_affine`.
        mirrored: whether every other view or so is mirrored left to right.
    """
    draws = torch.rand(len(images), 4, generator=generator) * 2 - 1  # (B, 4) in [-1, 1)
    angle = draws[:, 0] * math.radians(degrees)
    scale = 1 + draws[:, 1] * zoom
    height, width = images.shape[2:]
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    matrices = torch.stack(
        [
            torch.stack([cos, -sin * height / width, draws[:, 2] * 2 * shift], dim=1),
            torch.stack([sin * width / height, cos, draws[:, 3] * 2 * shift], dim=1),
        ],
        dim=1,
    )  # (B, 2, 3)
    if mirrored:
        side = torch.where(torch.rand(len(images), generator=generator) < 0.5, -1.0, 1.0)
        matrices[:, :, 0] *= side[:, None]  # x of the new image, before all else
    return matrices.to(images.device)


def warped(images: Tensor, matrices: Tensor) -> Tensor:
    """Images (B, 3, H, W) seen through matrices (B, 2, 3); what comes in over the edge repeats the edge."""
    grid = _grid(matrices, images.shape[2], images.shape[3])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """(B, height, width, 2): where the middle of each new pixel lies in the old image, in [-1, 1].

    What `F.affine_grid` gives, in a tenth of its time: a column's share plus a row's, pairs added as complex numbers.
    """
    x = (torch.arange(width, device=matrices.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=matrices.device) * 2 + 1) / height - 1
    right = matrices[:, None, :, 0] * x[:, None]  # (B, width, 2)
    down = matrices[:, None, :, 1] * y[:, None] + matrices[:, None, :, 2]  # (B, height, 2)
    columns, rows = torch.view_as_complex(right.contiguous()), torch.view_as_complex(down.contiguous())
    return torch.view_as_real(columns[:, None] + rows[:, :, None])


def moved(points: Tensor, matrices: Tensor) -> Tensor:
    """Where points of the old images lie in the `warped` ones.

    Args:
        points: (B, ..., 2), x and y as shares of width and height; NaN stays NaN.
        matrices: (B, 2, 3) of `random_matrices`.

    Returns:
        (B, ..., 2), shares of the new images; outside [0, 1] where a point has left the image.
    """
    flat = (points * 2 - 1).reshape(len(points), math.prod(points.shape[1:-1]), 2)  # (B, n, 2)
    back: Tensor = torch.linalg.inv(matrices[:, :, :2])  # (B, 2, 2)
    new: Tensor = (flat - matrices[:, None, :, 2]) @ back.transpose(1, 2)
    return ((new + 1) / 2).reshape(points.shape)


def random_colours(
    images: Tensor, generator: torch.Generator, *, brightness: float = 0.25, tint: float = 0.1
) -> Tensor:
    """Each image brighter or darker, and each of its channels a little more so.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        generator: a CPU generator; the only source of randomness.
        brightness: largest change either way, as a share.
        tint: the same of a single channel.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    draws = torch.rand(len(images), 4, generator=generator) * 2 - 1  # (B, 4) in [-1, 1)
    gains = (1 + brightness * draws[:, :1]) * (1 + tint * draws[:, 1:])  # (B, 3)
    return (images * gains[:, :, None, None].to(images.device)).clamp_(0, 1)
