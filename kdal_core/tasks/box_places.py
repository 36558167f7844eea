"""Boxes as tensors: those of a batch, the places of a grid that learn them, and boxes out of places again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from kdal_core.models.fcos import REACH, BoxOutputs, Levels
from kdal_core.tasks.box import Box

RADIUS = 1.5
"""Strides around a box's middle within which places learn it."""
LEAST_VISIBLE = 0.25
"""Share of a box's area that must be left in a random view, or the view does not show it any more."""
CANDIDATES = 4
"""Boxes looked at before overlapping ones are taken out, for each that may be left."""
MOST_CELLS = 48
"""Cells of a side of the map of probabilities; a larger map's cells are joined, the likeliest of each square counts."""


@dataclass(frozen=True)
class Matches:
    """Which places learn which boxes.

    Attributes:
        image, place: (P,) the places that learn a box.
        box: (P,) its number in the image.
        counts: (B,) how many these are in each image.
    """

    image: Tensor
    place: Tensor
    box: Tensor
    counts: Tensor


def as_tensors(targets: Sequence[Sequence[Box]]) -> tuple[Tensor, Tensor]:
    """Boxes of B images as corners (B, M, 4) in shares, NaN where there is no box, and classes (B, M)."""
    most = max((len(boxes) for boxes in targets), default=0) or 1
    corners = np.full((len(targets), most, 4), np.nan, dtype=np.float32)
    labels = np.zeros((len(targets), most), dtype=np.int64)
    for image, boxes in enumerate(targets):
        if boxes:
            corners[image, : len(boxes)] = [box.corners for box in boxes]
            labels[image, : len(boxes)] = [box.label for box in boxes]
    return torch.from_numpy(corners), torch.from_numpy(labels)


def seen(corners: Tensor) -> Tensor:
    """Corners (B, M, 4) of boxes that were moved, put in order and cut at the image's border.

    NaN where less than `LEAST_VISIBLE` of the box is left.

    >>> seen(torch.tensor([[[0.5, 0.5, -0.5, 0.0], [0.9, 0.0, 1.9, 1.0]]])).tolist()
    [[[0.0, 0.0, 0.5, 0.5], [nan, nan, nan, nan]]]
    """
    near, far = torch.minimum(corners[..., :2], corners[..., 2:]), torch.maximum(corners[..., :2], corners[..., 2:])
    cut = torch.cat([near.clamp(0, 1), far.clamp(0, 1)], dim=-1)
    whole = (far - near).prod(dim=-1, keepdim=True)
    left = (cut[..., 2:] - cut[..., :2]).prod(dim=-1, keepdim=True)
    return torch.where(left >= LEAST_VISIBLE * whole, cut, torch.nan)


def match(corners: Tensor, grid: Tensor, levels: Levels) -> Matches:
    """Which places learn which boxes.

    A place learns a box when it lies in it, at most `RADIUS` strides beside its middle, and the box's farthest border
    is as far away as its level is for: up to `REACH` strides, on the finest level from 0 on, on the others from half of
    that, on the coarsest without limit. Of several boxes the one with the smallest area; of equal ones the first. Boxes
    smaller than a stride are taken as large as one, so that some place is in them.

    Args:
        corners: (B, M, 4) shares; NaN where no box is.
        grid: (A, 4) of `BoxOutputs`.
        levels: of `BoxOutputs`.

    Source: Tian et al. 2019 (arXiv:1904.01355), section 3, with the centre sampling of torchvision's FCOS.
    """
    images, most = corners.shape[:2]
    middles = (corners[..., :2] + corners[..., 2:]) / 2  # (B, M, 2): x, y
    halves = (corners[..., 2:] - corners[..., :2]) / 2
    found = []  # of each level: image, box and place of what may be learnt there
    start = 0
    for number, (rows, columns) in enumerate(levels):
        part = grid[start : start + rows * columns]
        x, column, width = _near(part[:columns, 0], part[0, 2], middles[..., 0], halves[..., 0])
        y, row, height = _near(part[::columns, 1], part[0, 3], middles[..., 1], halves[..., 1])
        inside = (x <= width.clamp(0.5, RADIUS))[..., None, :] & (y <= height.clamp(0.5, RADIUS))[..., None]
        farthest = torch.maximum((x + width)[..., None, :], (y + height)[..., None])  # (B, M, n, n)
        learns = inside & (farthest > (REACH / 2 if number else 0.0))
        if number < len(levels) - 1:
            learns &= farthest <= REACH
        image, box, down, across = torch.nonzero(learns, as_tuple=True)
        found.append((image, box, start + row[image, box, down] * columns + column[image, box, across]))
        start += rows * columns
    image, box, place = (torch.cat(parts) for parts in zip(*found, strict=True))
    area = (corners[..., 2:] - corners[..., :2]).prod(dim=-1)[image, box]  # (P,)
    cell = image * len(grid) + place
    smallest = area.new_full((images * len(grid),), torch.inf).scatter_reduce_(0, cell, area, "amin")
    least = area == smallest[cell]
    first = box.new_full((images * len(grid),), most).scatter_reduce_(0, cell[least], box[least], "amin")
    chosen = first.reshape(images, len(grid))
    image, place = torch.nonzero(chosen < most, as_tuple=True)
    return Matches(image, place, chosen[image, place], (chosen < most).sum(dim=1))


def _near(places: Tensor, stride: Tensor, middles: Tensor, halves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Along x or y, of boxes (B, M), the few places of a level that may lie near enough to their middles.

    Only these are looked at: of all pairs of place and box less than one in a hundred.

    Args:
        places: (n,) where the level's places lie, as shares of the image.
        stride: () from one to the next.
        middles, halves: (B, M) the boxes' middles and half their sizes, as shares.

    Returns:
        (B, M, k) how far the places lie beside the middles, in strides, infinite where there is none; (B, M, k) their
        numbers; (B, M, 1) halves in strides.
    """
    leftmost = (middles / stride - RADIUS - 0.5).floor().nan_to_num(-1e6).long()
    number = leftmost[..., None] + torch.arange(2 * math.ceil(RADIUS) + 1, device=places.device)
    there = (number >= 0) & (number < len(places))
    number = number.clamp(0, len(places) - 1)
    beside = ((places[number] - middles[..., None]) / stride).abs()
    return torch.where(there, beside, torch.inf), number, (halves / stride)[..., None]


def reach_of(corners: Tensor, places: Tensor) -> Tensor:
    """How far boxes (P, 4) reach left, up, right and down of their places (P, 4) of a grid, in strides, >= 0."""
    strides = places[:, 2:].repeat(1, 2)
    towards = corners.new_tensor([-1.0, -1.0, 1.0, 1.0])
    return ((corners - places[:, :2].repeat(1, 2)) / strides * towards).clamp(min=0)


def around(reach: Tensor) -> Tensor:
    """Boxes (..., 4) as x1, y1, x2, y2 around their own places, in strides."""
    return reach * reach.new_tensor([-1.0, -1.0, 1.0, 1.0])


def centreness(reach: Tensor) -> Tensor:
    """(P, 4) -> (P,) in [0, 1]: 1 in the middle of the box, 0 on its border.

    Source: Tian et al. 2019 (arXiv:1904.01355), equation 3.

    >>> centreness(torch.tensor([[2.0, 3.0, 2.0, 3.0], [1.0, 1.0, 4.0, 1.0]])).tolist()
    [1.0, 0.5]
    """
    first, second = reach[:, :2], reach[:, 2:]
    ratio = torch.minimum(first, second) / torch.maximum(first, second).clamp(min=1e-6)
    return ratio.prod(dim=1).sqrt()


def class_weights(wanted: Tensor) -> Tensor:
    """How much a place that learns a class counts: (B, A, C), 1 where a place learns the class -> (B, C).

    The square root of how many places the image's classes have on average, divided by those of this one.

    >>> wanted = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    >>> class_weights(wanted)
    tensor([[0.7906, 1.5811]])
    """
    places = wanted.sum(dim=1)
    present = (places > 0).sum(dim=1, keepdim=True).clamp(min=1)
    return (places.sum(dim=1, keepdim=True) / present / places.clamp(min=1)).sqrt()


def found_boxes(outputs: BoxOutputs, most: int, least: float, overlap: float) -> Tensor:
    """Predictions (B, most, 6) float32: left, top, right, bottom in shares, score, class; NaN behind the last.

    Args:
        outputs: of a network.
        most: boxes of an image.
        least: boxes with a lower score, the geometric mean of class and centre-ness, are none.
        overlap: IoU from which on the lower of two boxes of a class goes.
    """
    return found_places(outputs, most, least, overlap)[0]


def found_places(outputs: BoxOutputs, most: int, least: float, overlap: float) -> tuple[Tensor, Tensor]:
    """`found_boxes`, and the places (B, most) of the grid that found them; -1 behind the last."""
    scores = (outputs.logits.float().sigmoid() * outputs.centre.float().sigmoid()[..., None]).sqrt()  # (B, A, C)
    classes = scores.shape[2]
    top, index = scores.flatten(1).topk(min(CANDIDATES * most, scores[0].numel()), dim=1)  # (B, n), best first
    place, label = index // classes, index % classes
    reach = outputs.reach.float().gather(1, place[..., None].expand(-1, -1, 4))
    grid = outputs.grid[place]  # (B, n, 4)
    corners = (grid[..., :2].repeat(1, 1, 2) + around(reach) * grid[..., 2:].repeat(1, 1, 2)).clamp(0, 1)
    rows = torch.cat([corners, top[..., None], label[..., None].to(top.dtype)], dim=-1)
    result = rows.new_full((len(rows), most, 6), torch.nan)
    places = place.new_full((len(rows), most), -1)
    for image, boxes in enumerate(rows):
        sure = boxes[boxes[:, 4] >= least]  # the first ones: they come best first
        # Each class in a part of the plane of its own: boxes of different classes do not overlap.
        apart = sure[:, :4].double() + 2 * sure[:, 5:].double()
        kept = nms(apart, sure[:, 4].double(), overlap)[:most]
        result[image, : len(kept)] = sure[kept]
        places[image, : len(kept)] = place[image, kept]
    return result, places


def probability_maps(outputs: BoxOutputs) -> Tensor:
    """(B, C, h, w): how probable each class is at each cell of the finest level, all levels joined.

    A coarser level's place speaks for all cells in it; levels join as if they were independent.
    """
    parts = torch.split(outputs.logits.float().sigmoid(), [math.prod(level) for level in outputs.levels], dim=1)
    absent: Tensor | None = None
    for number, (part, (rows, columns)) in enumerate(zip(parts, outputs.levels, strict=True)):
        map_ = part.transpose(1, 2).reshape(len(part), -1, rows, columns)  # (B, C, rows, columns)
        wide = map_.repeat_interleave(2**number, dim=2).repeat_interleave(2**number, dim=3)
        here = 1 - wide[:, :, : outputs.levels[0][0], : outputs.levels[0][1]]
        absent = here if absent is None else absent * here
    assert absent is not None
    there = 1 - absent
    shrink = math.ceil(max(there.shape[2:]) / MOST_CELLS)
    return F.max_pool2d(there, shrink, ceil_mode=True) if shrink > 1 else there
