"""How far two lanes are apart, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_matrix, as_nonnegative, as_vector

CAP = 100.0  # pixels; about the distance between two neighbouring lanes in an image 1,000 pixels wide
ARC_POINTS = 32  # points of a lane that are matched by time warping
MOST_ROWS = 100_000

Method = Literal["rows", "dtw"]
Floats = NDArray[np.float64]


def lane_distance(
    a: ArrayLike,
    b: ArrayLike,
    *,
    rows: ArrayLike | None = None,
    step: float = 1.0,
    cap: float = CAP,
    method: Method = "rows",
) -> float:
    """Distance between two lanes: symmetric, 0 for the same lane, whichever end each was drawn from.

    "rows": the mean, over the rows that either lane covers, of the horizontal distance; a row that only one
    covers costs `cap`. A lane that meets a row more than once is taken at the mean of its crossings.

    "dtw": dynamic time warping between 32 points along each lane, mean Euclidean cost along the best path with
    Sakoe & Chiba's symmetric weights (a diagonal step counts twice); the smallest over the directions of both.
    It does not know rows: two lanes of which one is a part of the other are apart by what is missing.

    Args:
        a: (n, 2) vertices (x, y) in pixels in drawing order, n >= 2.
        b: (m, 2), the same.
        rows: (R,) y at which to compare, pixels; by default every multiple of `step` from the one nearest a
            lane's highest vertex to the one nearest its lowest, so that no lane is too short for all rows.
        step: > 0, pixels between rows.
        cap: >= 0, pixels.
        method: "rows" or "dtw".

    Returns:
        Pixels, >= 0.

    Raises:
        InvalidInput: a lane that is not (n, 2) finite numbers, no row of `rows` covered by either lane, more
            than 100,000 rows, or another argument out of range.

    Source: the lane paper's Dist(l1, l2), segment-wise Euclidean; rows and cap are our choice (methods.md,
    section 2). Sakoe & Chiba 1978, "Dynamic programming algorithm optimization", symmetric form.

    >>> lane_distance([[10, 0], [10, 99]], [[13, 99], [13, 0]])
    3.0
    >>> lane_distance([[10, 0], [10, 99]], [[10, 0], [10, 49]], cap=80)  # half of the rows are covered by one
    40.0
    """
    first, second = as_lane("a", a), as_lane("b", b)
    heights = None if rows is None else as_vector("rows", rows)
    return float(lane_distances([first], [second], rows=heights, step=step, cap=cap, method=method)[0, 0])


def lane_distances(
    a: Sequence[Floats],
    b: Sequence[Floats],
    *,
    rows: Floats | None = None,
    step: float = 1.0,
    cap: float = CAP,
    method: Method = "rows",
) -> Floats:
    """`lane_distance` of every lane of a to every lane of b, (A, B) pixels; A, B >= 1, lanes from `as_lane`."""
    cap = as_nonnegative("cap", cap)
    if method == "dtw":
        return _warped(a, b)
    if method != "rows":
        raise InvalidInput(f"method must be 'rows' or 'dtw', not {method!r}.")
    if as_nonnegative("step", step) == 0:
        raise InvalidInput("step must be more than 0.")
    lanes = [*a, *b]
    if rows is None:
        low, high = np.transpose([_span(lane, step) for lane in lanes])  # in steps, (A + B,) each
        _check_rows(low, high)
        numbers = np.arange(low.min(), high.max() + 1)  # (R,)
        covered = (low[:, None] <= numbers) & (numbers <= high[:, None])
        rows = numbers * step
    else:
        covered = np.array([(lane[:, 1].min() <= rows) & (rows <= lane[:, 1].max()) for lane in lanes])
    at = np.stack([mean_crossings(lane, rows) for lane in lanes])  # (A + B, R)
    return _row_means(at[: len(a)], covered[: len(a)], at[len(a) :], covered[len(a) :], cap)


def as_lane(name: str, vertices: ArrayLike) -> Floats:
    """`vertices` as (n, 2) float64, n >= 2, every entry finite."""
    lane = as_matrix(name, vertices)
    if lane.shape[1] != 2 or len(lane) < 2:
        raise InvalidInput(f"{name} must hold at least two vertices (x, y), not {lane.shape}.")
    return lane


def _span(lane: Floats, step: float) -> tuple[float, float]:
    """Numbers of the first and last row a lane covers, each the nearest to its end; halves go down the image."""
    low, high = np.floor(np.array([lane[:, 1].min(), lane[:, 1].max()]) / step + 0.5)
    return low, high


def _check_rows(low: Floats, high: Floats) -> None:
    if not high.max() - low.min() < MOST_ROWS:
        raise InvalidInput(f"The lanes span more than {MOST_ROWS:,} rows: use a larger step, or check their units.")


def mean_crossings(lane: Floats, rows: Floats) -> Floats:
    """(R,) x of a lane at each row; beyond its ends that of the end, several crossings averaged."""
    start, end = lane[:-1], lane[1:]
    upward = (start[:, 1] > end[:, 1])[:, None]
    start, end = np.where(upward, end, start), np.where(upward, start, end)  # each segment top down: (n - 1, 2)
    y = np.clip(rows, lane[:, 1].min(), lane[:, 1].max())[:, None]  # (R, 1)
    crossing = (start[:, 1] <= y) & (y <= end[:, 1])  # (R, n - 1)
    height = end[:, 1] - start[:, 1]
    level = height == 0  # a level segment crosses its own row at its middle
    above = np.clip(y, start[:, 1], end[:, 1]) - start[:, 1]  # clipped, or it could overflow where nothing crosses
    share = np.where(level, 0.5, above / np.where(level, 1.0, height))
    x = start[:, 0] * (1 - share) + end[:, 0] * share
    mean: Floats = np.where(crossing, x, 0.0).sum(axis=1) / crossing.sum(axis=1)
    return mean


def _row_means(a: Floats, a_covers: NDArray[np.bool_], b: Floats, b_covers: NDArray[np.bool_], cap: float) -> Floats:
    """Mean cost per row, (A, B), of x (A, R) and (B, R) and which rows each lane covers."""
    both = a_covers[:, None] & b_covers[None]  # (A, B, R)
    either = a_covers[:, None] | b_covers[None]
    count = either.sum(axis=2)
    if not count.all():
        raise InvalidInput("rows: neither lane covers any of them, so nothing can be compared.")
    cost = np.where(both, np.abs(a[:, None] - b[None]), cap)
    mean: Floats = np.where(either, cost, 0.0).sum(axis=2) / count
    return mean


def _warped(a: Sequence[Floats], b: Sequence[Floats]) -> Floats:
    """(A, B) distances by time warping."""
    first, second = np.stack([_along(lane) for lane in a]), np.stack([_along(lane) for lane in b])
    costs = np.linalg.norm(first[:, None, :, None] - second[None, :, None, :], axis=-1)  # (A, B, K, K)
    turned = [costs, costs[..., ::-1, :], costs[..., :, ::-1], costs[..., ::-1, ::-1]]
    smallest: Floats = time_warping(np.stack(turned)).min(axis=0)
    return smallest


def _along(lane: Floats) -> Floats:
    """(K, 2) points of a lane, equally far apart along it, both ends among them."""
    lengths = np.linalg.norm(np.diff(lane, axis=0), axis=1)
    position = np.concatenate([[0.0], np.cumsum(lengths)])  # (n,)
    wanted = np.linspace(0, position[-1], ARC_POINTS)
    return np.stack([np.interp(wanted, position, lane[:, axis]) for axis in (0, 1)], axis=1)


def time_warping(costs: Floats) -> Floats:
    """Mean cost along the cheapest monotone path through costs (..., n, m), diagonal steps counted twice.

    The counts of any path then sum to n + m, by which the total is divided; all matrices are solved at once.

    >>> float(time_warping(np.array([[0.0, 4.0], [4.0, 2.0]])))  # (2 · 0 + 2 · 2) / 4
    1.0
    """
    *_, n, m = costs.shape
    total = np.full((*costs.shape[:-2], n + 1, m + 1), np.inf)
    total[..., 0, 0] = 0.0
    for diagonal in range(2, n + m + 1):  # cells with i + j = diagonal, counted from 1, depend on earlier ones only
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        cost = costs[..., i - 1, j - 1]
        straight = np.minimum(total[..., i - 1, j], total[..., i, j - 1]) + cost
        total[..., i, j] = np.minimum(straight, total[..., i - 1, j - 1] + 2 * cost)
    mean: Floats = total[..., n, m] / (n + m)
    return mean
