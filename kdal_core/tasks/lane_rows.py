"""Lanes as tensors: polylines of a batch, the slots and rows that a network learns them in, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdal_core.tasks.lane import Lane

POINTS = 64  # of a lane, equally far apart in y
WINDOW = 2  # columns either way of the chosen one over which x is averaged
# A lane does not leap from row to row: what a step to another column costs, in nats, up to `REACH` columns; what any
# farther leap costs; and the probability below which a column counts as impossible. Chosen on validation images.
STEP, REACH, LEAP, IMPOSSIBLE = 0.3, 6, 4.5, 1e-4
LEAST_ROWS = 2  # of a lane that is predicted


def as_points(targets: Sequence[Sequence[Lane]]) -> tuple[Tensor, Tensor]:
    """Lanes of B images as points (B, L, P, 2), top to bottom, NaN where there is no lane, and classes (B, L)."""
    most = max((len(lanes) for lanes in targets), default=0) or 1
    points = np.full((len(targets), most, POINTS, 2), np.nan, dtype=np.float32)
    labels = np.zeros((len(targets), most), dtype=np.int64)
    steps = np.linspace(0, 1, POINTS)
    for image, lanes in enumerate(targets):
        for number, lane in enumerate(lanes):
            x, y = lane.points.T
            points[image, number, :, 1] = y[0] + steps * (y[-1] - y[0])
            points[image, number, :, 0] = np.interp(y[0] + steps * (y[-1] - y[0]), y, x)
            labels[image, number] = lane.label
    return torch.from_numpy(points), torch.from_numpy(labels)


def in_slots(points: Tensor, labels: Tensor, slots: int, rows: int) -> tuple[Tensor, Tensor]:
    """What a network should predict for lanes.

    Slots are numbered from left to right, so that the two in the middle are the lanes left and right of the point in
    the middle of the image's lower edge, and their neighbours follow outwards: a lane's slot depends on where it
    meets that edge (drawn on in a straight line where it ends above), on the lanes between it and the middle, and on
    nothing else. Where lanes meet it in one point, the one that lies further left counts as left of the other. Lanes
    beyond the outermost slots are left out.

    Args:
        points: (B, L, P, 2) of `as_points`, moved or not.
        labels: (B, L).
        slots, rows: S, even, and R.

    Returns:
        x (B, S, R) as shares of the width, NaN where no lane is; classes (B, S), -1 for an empty slot.

    Source: the numbering is that of CULane and Ultra Fast Lane Detection (arXiv:2004.11757), for any number of lanes.
    """
    x, y = points[..., 0], points[..., 1]  # (B, L, P)
    y = torch.cummax(y.nan_to_num(nan=torch.inf), dim=-1).values  # a moved lane may turn back a little
    anchors = (torch.arange(rows, device=points.device, dtype=points.dtype) + 0.5) / rows  # (R,)
    at = _interpolated(x, y, anchors)  # (B, L, R)
    half = 0.5 / rows
    there = (anchors >= y[..., :1] - half) & (anchors <= y[..., -1:] + half) & (at >= 0) & (at <= 1)
    there &= torch.isfinite(y[..., -1:])
    at = torch.where(there, at, torch.nan)
    present = there.sum(dim=-1) >= LEAST_ROWS  # (B, L)
    slot = _slots(_foot(x, y), x.mean(dim=-1), present, slots)
    kept = present & (slot >= 0) & (slot < slots)
    image, lane = torch.nonzero(kept, as_tuple=True)
    result = points.new_full((len(points), slots, rows), torch.nan)
    kinds = labels.new_full((len(points), slots), -1)
    result[image, slot[image, lane]] = at[image, lane]
    kinds[image, slot[image, lane]] = labels[image, lane]
    return result, kinds


def as_distributions(x: Tensor, columns: int) -> Tensor:
    """x (..., R) as shares of the width -> (..., R, G + 1): the two nearest of G columns, or "absent".

    The two weigh so that their mean is x, which makes columns wider than a pixel no loss. Nearer to the image's border
    than half a column there is one column only: x then becomes that column's middle.

    >>> as_distributions(torch.tensor([0.5, 0.125, torch.nan]), columns=4).tolist()
    [[0.0, 0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    absent = torch.isnan(x)
    place = (x.nan_to_num() * columns - 0.5).clamp(0, columns - 1)
    lower = place.floor().clamp(max=columns - 2)
    share = place - lower
    result = x.new_zeros(*x.shape, columns + 1)
    index = lower.long()[..., None]
    result.scatter_(-1, index, (1 - share)[..., None])
    result.scatter_(-1, index + 1, share[..., None])
    result[absent] = 0.0
    result[..., -1] = absent.to(x.dtype)
    return result


def from_distributions(probabilities: Tensor, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Probabilities (..., R, G + 1) -> x (..., R) as shares of the width, and the probability (..., R) of a lane.

    x is the mean over the columns next to that of `likeliest_path`, which is finer than a column; where the path passes
    a row at a place that has no probability, over those next to the row's likeliest one.

    Args:
        probabilities: of G columns and, last, of no lane, for R rows from top to bottom.
        wanted: (...) whether x is asked for; NaN where it is not, which saves time. None: everywhere.

    >>> x, there = from_distributions(torch.tensor([[0.0, 0.5, 0.5, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0, 0.9]]))
    >>> x.tolist(), [round(share, 4) for share in there.tolist()]
    ([0.5, 0.125], [1.0, 0.1])
    """
    columns = probabilities.shape[-1] - 1
    if wanted is None:
        wanted = torch.ones(probabilities.shape[:-2], dtype=torch.bool, device=probabilities.device)
    places = probabilities[..., :columns][wanted]  # (M, R, G)
    path = likeliest_path(places)
    near, weights = _around(path, places)
    if (lost := weights.sum(dim=-1) < IMPOSSIBLE).any():  # two leaps cost more than to pass a row where nothing is
        near, weights = _around(torch.where(lost, places.argmax(dim=-1), path), places)
    x = probabilities.new_full(probabilities.shape[:-1], torch.nan)
    x[wanted] = (weights * (near + 0.5)).sum(dim=-1) / weights.sum(dim=-1).clamp(min=1e-9) / columns
    return x, 1 - probabilities[..., -1]


def _around(path: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The columns next to those of a path (M, R), and what they weigh (both (M, R, 5)); none beyond the image."""
    near = path[..., None] + torch.arange(-WINDOW, WINDOW + 1, device=places.device)
    columns = places.shape[-1]
    return near, places.gather(-1, near.clamp(0, columns - 1)) * ((near >= 0) & (near < columns))


def likeliest_path(places: Tensor) -> Tensor:
    """The columns (M, R) that a lane most probably takes, given each row's probabilities (M, R, G) alone.

    Of all ways from the top row to the bottom one, that with the largest sum of log-probabilities less the costs of its
    steps and leaps (Viterbi 1967): one doubtful row does not throw a lane across the image, while a sure one does.

    >>> rows = torch.full((1, 5, 64), 1e-4)
    >>> rows[0, torch.arange(5), torch.tensor([10, 11, 12, 13, 14])] = 0.4
    >>> rows[0, 2, 50] = 0.5
    >>> likeliest_path(rows).tolist()
    [[10, 11, 12, 13, 14]]
    """
    count, rows, columns = places.shape
    scores = torch.log(places.float() + IMPOSSIBLE)
    here = torch.arange(columns, device=places.device)
    cost = STEP * torch.arange(-REACH, REACH + 1, device=places.device).abs()
    best = scores[:, 0]  # (M, G), of the ways that end there
    origins = []
    for row in range(1, rows):
        padded = F.pad(best, (REACH, REACH), value=-torch.inf).unfold(1, 2 * REACH + 1, 1)  # (M, G, 13)
        by_step, step = (padded - cost).max(dim=-1)
        top, start = best.max(dim=-1, keepdim=True)
        leaps = top - LEAP > by_step
        origins.append(torch.where(leaps, start, here + step - REACH))
        best = torch.where(leaps, top - LEAP, by_step) + scores[:, row]
    path = [best.argmax(dim=-1, keepdim=True)] if count else [here.new_zeros(0, 1)]
    for origin in reversed(origins):
        path.append(origin.gather(1, path[-1]))
    return torch.cat(path[::-1], dim=1)


def _interpolated(x: Tensor, y: Tensor, anchors: Tensor) -> Tensor:
    """x of polylines (B, L, P) with rising y at rows (R,), (B, L, R); drawn on in straight lines beyond the ends."""
    rows = anchors.expand(*y.shape[:-1], -1).contiguous()
    after = torch.searchsorted(y.contiguous(), rows).clamp(1, y.shape[-1] - 1)
    before = after - 1
    height = (y.gather(-1, after) - y.gather(-1, before)).clamp(min=1e-6)
    share = (rows - y.gather(-1, before)) / height
    return x.gather(-1, before) + share * (x.gather(-1, after) - x.gather(-1, before))


def _foot(x: Tensor, y: Tensor) -> Tensor:
    """(B, L) x at which lanes (B, L, P) meet the lower edge, drawn on in the direction of their lowest eighth."""
    back = max(1, x.shape[-1] // 8)
    direction = (x[..., -1] - x[..., -1 - back]) / (y[..., -1] - y[..., -1 - back]).clamp(min=1e-3)
    drawn_on = x[..., -1] + direction * (1 - y[..., -1])
    return torch.where(y[..., -1] > 1, _interpolated(x, y, y.new_ones(1))[..., 0], drawn_on)


def _slots(foot: Tensor, middle: Tensor, present: Tensor, slots: int) -> Tensor:
    """(B, L) slot numbers, outwards from the middle of the image; out of range for lanes beyond the outermost.

    Lanes are ordered by their feet (B, L), then by their own middles (B, L), then by number.
    """
    left, right = present & (foot < 0.5), present & (foot >= 0.5)
    same = torch.eye(foot.shape[1], dtype=torch.bool, device=foot.device)
    before = torch.ones_like(same).tril(-1)
    for x in (middle, foot):  # before[b, i, j]: lane j comes before lane i, from left to right
        before = (x[:, :, None] > x[:, None, :]) | (x[:, :, None] == x[:, None, :]) & before  # (B, L, L)
    after = ~before & ~same
    rank_right = (before & right[:, None, :]).sum(dim=-1)
    rank_left = (after & left[:, None, :]).sum(dim=-1)
    return torch.where(left, slots // 2 - 1 - rank_left, torch.where(right, slots // 2 + rank_right, -1))
