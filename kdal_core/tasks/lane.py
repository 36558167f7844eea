"""Lane markings as labels: a polyline in shares of the image, the same whatever size a network sees.

A label of an image is a tuple of lanes, empty where the image shows none. A prediction of an image is a float32
array (S, R + 2), a row for each of S slots: x at each of R row anchors as share of the width, NaN where the lane is
absent; then the lane's score in [0, 1]; then its class number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.errors import LabelFormatError
from kdal_core.metrics.lane_distance import mean_crossings
from kdal_core.validation import InvalidInput, as_count, as_matrix, as_vector

SAME = 1e-6
"""Share of the image by which two vertices of a drawn lane must differ to count as two."""
TOLERANCE = 1e-4
"""Share of the image by which leaving out vertices may move a lane: 0.1 pixels of 1,000."""
MOST_VERTICES = 256
"""Vertices of a cleaned lane at most; a lane that needs more is read at as many rows."""
FAR = 100.0
"""Image widths or heights beyond which a vertex is no habit of drawing but damage."""

MOST_DRAWN = 100_000
"""Vertices beyond which nobody has drawn a lane."""
CROSSINGS_AT_ONCE = 1 << 20

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lane:
    """A lane marking, from top to bottom.

    Args:
        points: (n, 2) vertices (x, y) as shares of the image's width and height, n >= 2, y never falling and the last
            y below the first. Inside the image both lie in [0, 1]; a lane may reach outside.
        label: class number, >= 0.

    Raises:
        InvalidInput: anything else; `clean_lane` makes lanes of what people draw.
    """

    points: Floats
    label: int = 0

    def __post_init__(self) -> None:
        points = as_matrix("points", self.points)
        if points.shape[1] != 2 or len(points) < 2:
            raise InvalidInput(f"points must hold at least two vertices (x, y), not {points.shape}.")
        if (np.diff(points[:, 1]) < 0).any() or not points[-1, 1] > points[0, 1]:
            raise InvalidInput("points must run from top to bottom: y never falls, and the last lies below the first.")
        if (points.min(axis=0) > 1).any() or (points.max(axis=0) < 0).any():
            raise InvalidInput("points lie outside the image: they are shares of its width and height, 0 to 1.")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "label", as_count("label", self.label, low=0, high=2**31 - 1))


def clean_lane(points: ArrayLike, label: int = 0) -> Lane:
    """The lane that somebody drew.

    What people and drawing tools leave behind is cleaned: vertices that are no numbers, repeated vertices, the first
    vertex repeated as the last, either direction of drawing, thousands of vertices. Both ends are cut at the image's
    border. A lane that turns back or crosses itself is taken at the mean of its crossings with each row, as
    `lane_distance` takes it. Vertices are left out as long as that moves the lane by less than `TOLERANCE`.

    Args:
        points: (n, 2) vertices (x, y) in drawing order, shares of the image's width and height.
        label: class number.

    Raises:
        LabelFormatError: what is drawn is no lane: a single point, nothing inside the image, or a level line, which no
            row can tell from a point. Says which.
        InvalidInput: points that are not (n, 2) numbers.

    >>> clean_lane([[0.5, 0.9], [0.5, 0.9], [0.4, 0.3], [0.5, 0.9]]).points.tolist()
    [[0.4, 0.3], [0.5, 0.9]]
    """
    try:
        drawn = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"points must be an array of numbers: {error}.") from error
    if drawn.size == 0:
        raise LabelFormatError("it has no vertices")
    if drawn.ndim != 2 or drawn.shape[1] != 2:
        raise InvalidInput(f"points must have the shape (n, 2), not {drawn.shape}.")
    if len(drawn) > MOST_DRAWN:
        raise LabelFormatError(f"it has {len(drawn):,} vertices, more than anybody draws ({MOST_DRAWN:,})")
    vertices = drawn[np.isfinite(drawn).all(axis=1)]
    if (np.abs(vertices) > FAR).any():
        raise LabelFormatError(f"a vertex lies more than {FAR:.0f} images away from the image")
    border = np.round(vertices)
    vertices = without_repeats(np.where(np.abs(vertices - border) <= SAME, border, vertices))  # on it, but for noise
    if len(vertices) < 2:
        raise LabelFormatError(f"it is a single point (vertices drawn: {len(drawn)}): a lane needs two")
    inside = _cut(vertices)
    if len(inside) < 2:
        raise LabelFormatError("it lies outside the image")
    _refuse_level(inside)
    if tuple(inside[0, ::-1]) > tuple(inside[-1, ::-1]):
        inside = inside[::-1]
    reduced = reduce_vertices(inside)
    if (np.diff(reduced[:, 1]) < 0).any() or len(reduced) > MOST_VERTICES:
        reduced = reduce_vertices(_one_x_for_each_row(inside))
        if reduced[:, 0].max() < 0 or reduced[:, 0].min() > 1:
            raise LabelFormatError("it lies outside the image, taken at the mean of its crossings with each row")
    _refuse_level(reduced[[0, -1]])  # what rises above its ends by less than the tolerance is gone
    return Lane(reduced, label)


def _refuse_level(points: Floats) -> None:
    if np.ptp(points[:, 1].clip(0.0, 1.0)) <= SAME:
        raise LabelFormatError("it is level inside the image: kdal reads a lane as one x for each row")


def reduce_vertices(points: ArrayLike, tolerance: float = TOLERANCE) -> Floats:
    """Those of the vertices (n, 2) that are needed to stay within `tolerance` of the polyline, (m, 2); ends stay.

    Source: Douglas & Peucker 1973, "Algorithms for the reduction of the number of points".

    >>> reduce_vertices([[0.0, 0.0], [0.1, 0.1], [0.2, 0.2], [0.0, 1.0]]).tolist()
    [[0.0, 0.0], [0.2, 0.2], [0.0, 1.0]]
    """
    vertices = as_matrix("points", points)
    kept = np.zeros(len(vertices), dtype=np.bool_)
    kept[[0, -1]] = True
    parts = [(0, len(vertices) - 1)]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        distances = _distances(vertices[first + 1 : last], vertices[first], vertices[last])
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            parts += [(first, middle), (middle, last)]
    return vertices[kept]


def row_anchors(count: int) -> Floats:
    """(R,) y of the rows at which lanes are predicted, as shares of the height: the middles of R equal strips.

    >>> row_anchors(4).tolist()
    [0.125, 0.375, 0.625, 0.875]
    """
    number = as_count("count", count, low=1, high=100_000)
    anchors: Floats = (np.arange(number) + 0.5) / number
    return anchors


def x_at(lane: Lane, rows: ArrayLike) -> Floats:
    """x of a lane at each row, NaN where it is not: above, below or beside the image's part that it covers.

    Args:
        lane: n vertices.
        rows: (R,) y as shares of the height.

    Returns:
        (R,) shares of the width in [0, 1], or NaN. On the row of a level piece, its middle.

    >>> x_at(Lane([[0.2, 0.0], [0.4, 0.5]]), [0.25, 0.5, 0.75]).round(9).tolist()
    [0.3, 0.4, nan]
    """
    wanted = as_vector("rows", rows)
    x, y = lane.points.T
    x_below, x_above = _limits(x, y, wanted)
    at = (x_below + x_above) / 2
    absent = (wanted < y[0]) | (wanted > y[-1]) | (at < 0) | (at > 1)
    at[absent] = np.nan
    return at


def lanes_of(prediction: ArrayLike) -> list[tuple[Lane, float]]:
    """The lanes of one image's prediction, each with its score, in the order of the slots.

    A gap between two rows is bridged by a straight line; a slot with fewer than two rows is empty.

    Args:
        prediction: (S, R + 2): x at the R `row_anchors`, score, class number.

    >>> [(lane.points.tolist(), score) for lane, score in lanes_of([[0.5, np.nan, 0.75, 0.25, 0.9, 1]])]
    [([[0.5, 0.125], [0.75, 0.625], [0.25, 0.875]], 0.9)]
    """
    slots = np.asarray(prediction, dtype=np.float64)
    if slots.ndim != 2 or slots.shape[1] < 3:
        raise InvalidInput(f"prediction must have the shape (S, R + 2), not {slots.shape}.")
    anchors = row_anchors(slots.shape[1] - 2)
    found = []
    for slot in slots:
        x, score, label = slot[:-2], slot[-2], slot[-1]
        there = np.isfinite(x)
        # A network may put a lane beside the image: nobody can see or label it.
        if there.sum() >= 2 and x[there].max() >= 0 and x[there].min() <= 1:
            lane = Lane(np.stack([x[there], anchors[there]], axis=1), int(np.nan_to_num(label)))
            found.append((lane, float(np.nan_to_num(score))))
    return found


def lanes_as_json(lanes: Iterable[Lane]) -> list[dict[str, Any]]:
    """A label as JSON, every digit kept.

    >>> lanes_as_json([Lane([[0.5, 0.1], [0.5, 0.9]], label=2)])
    [{'label': 2, 'points': [[0.5, 0.1], [0.5, 0.9]]}]
    """
    return [{"label": lane.label, "points": lane.points.tolist()} for lane in lanes]


def lanes_from_json(value: Iterable[dict[str, Any]]) -> tuple[Lane, ...]:
    """The label that `lanes_as_json` wrote."""
    return tuple(Lane(np.asarray(item["points"], dtype=np.float64), item["label"]) for item in value)


def without_repeats(vertices: Floats) -> Floats:
    """Vertices (n, 2) without those that repeat the one before, or the first one at the end."""
    kept = _distinct(vertices)
    # A lane is open: its first vertex at its end comes from tools that close whatever is drawn.
    while len(kept) > 2 and np.abs(kept[-1] - kept[0]).max() <= SAME:
        kept = kept[:-1]
    return kept


def _distinct(vertices: Floats) -> Floats:
    """Vertices (n, 2) without those that repeat the one before."""
    if len(vertices) < 2:
        return vertices
    moved = np.abs(np.diff(vertices, axis=0)).max(axis=1) > SAME
    return np.concatenate([vertices[:1], vertices[1:][moved]])


def _cut(vertices: Floats) -> Floats:
    """From where the lane first enters the image to where it last leaves, (m, 2); nothing when it never enters."""
    start, step = vertices[:-1], np.diff(vertices, axis=0)
    moves = step != 0
    with np.errstate(over="ignore"):  # a segment all but parallel to a border meets it infinitely far away
        borders = np.stack([-start, 1 - start]) / np.where(moves, step, 1.0)
    beside = np.where((start >= 0) & (start <= 1), -np.inf, np.inf)
    enter = np.where(moves, borders.min(axis=0), beside).max(axis=1).clip(min=0.0)  # (n - 1,) shares of each segment
    leave = np.where(moves, borders.max(axis=0), -beside).min(axis=1).clip(max=1.0)
    inside = np.flatnonzero(enter < leave)
    if len(inside) == 0:
        return vertices[:0]
    first, last = inside[0], inside[-1]
    head = start[first] + enter[first] * step[first]
    tail = start[last] + leave[last] * step[last] if leave[last] < 1 else vertices[last + 1]
    ends = np.stack([head, tail]).clip(0.0, 1.0)
    return _distinct(np.concatenate([ends[:1], vertices[first + 1 : last + 1], ends[1:]]))


def _distances(points: Floats, start: Floats, end: Floats) -> Floats:
    """(n,) Euclidean distances of points (n, 2) to the segment from start to end."""
    along, offsets = end - start, points - start
    length = along @ along
    share = (offsets @ along / length).clip(0.0, 1.0) if length > 0 else np.zeros(len(points))
    distances: Floats = np.linalg.norm(offsets - share[:, None] * along, axis=1)
    return distances


def _one_x_for_each_row(vertices: Floats) -> Floats:
    """A lane (n, 2) that turns back, as one that does not, (m, 2): the means of its crossings with the image's rows."""
    y = vertices[:, 1]
    rows = np.linspace(max(y.min(), 0.0), min(y.max(), 1.0), MOST_VERTICES)
    parts = np.array_split(rows, -(-len(vertices) * len(rows) // CROSSINGS_AT_ONCE))  # a scribble has many segments
    x = np.concatenate([mean_crossings(vertices, part) for part in parts])
    return np.stack([x, rows], axis=1)


def _limits(x: Floats, y: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """x at each row, approached from above and from below: they differ on the row of a level piece. y never falls."""
    last = len(y) - 1
    found = []
    for side in ("left", "right"):
        after = np.searchsorted(y, rows, side=side).clip(1, last)
        before = after - 1
        height = y[after] - y[before]
        level = 0.0 if side == "left" else 1.0  # of a level piece, the end that the lane comes to first, or last
        share = np.where(height > 0, (rows - y[before]) / np.where(height > 0, height, 1.0), level).clip(0.0, 1.0)
        found.append(x[before] * (1 - share) + x[after] * share)
    return found[0], found[1]
