"""Which pixels lines of some width cover: those that OpenCV's `line` paints, without OpenCV and many lines at once.

Such a line is a filled rectangle, the rectangle's outline and a disc at either end, each rounded to pixels in its own
way. Pixels are held as spans, runs in a row: no canvas is painted or counted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SHIFT = 16  # OpenCV computes in fixed point with this many binary places
ONE, HALF = 1 << SHIFT, 1 << (SHIFT - 1)
FARTHEST = 20_000  # pixels; coordinates, images and widths up to here overflow neither OpenCV's arithmetic nor ours


class Spans(NamedTuple):
    """Runs of pixels (S,), from first to last, as places: (owner · height + row) · (columns + 1) + column.

    No pixel has the last place of a row, so runs of two rows never touch.
    """

    first: Ints
    last: Ints


def cover(starts: Ints, ends: Ints, owners: Ints, width: int, image_size: tuple[int, int]) -> Spans:
    """The pixels of an image that lines cover, each once for each owner, as `cv2.line(image, start, end, 1, width)`.

    Args:
        starts: (L, 2) whole pixels (x, y), none more than 20,000 from 0.
        ends: (L, 2), the same; a line that ends where it starts is a disc.
        owners: (L,) number, >= 0, of the curve a line belongs to.
        width: pixels, from 2.
        image_size: (height, columns), pixels.

    Returns:
        Spans in ascending order that neither overlap nor touch each other.
    """
    limit, reach = np.array(image_size)[::-1], width // 2 + 2
    low, high = np.minimum(starts, ends) - reach, np.maximum(starts, ends) + reach
    inside = ((low >= 0) & (high < limit)).all(axis=1)
    across = ((high >= 0) & (low < limit)).all(axis=1) & ~inside
    parts = [
        _inside(starts[inside], ends[inside], owners[inside], width, image_size),
        _across(starts[across], ends[across], owners[across], width, image_size),
    ]
    return merge(Spans(*(np.concatenate(column) for column in zip(*parts, strict=True))))


def merge(spans: Spans) -> Spans:
    """The same pixels in ascending order, spans that overlap or touch made one."""
    first, last = np.sort(spans.first), np.sort(spans.last)
    apart = first[1:] > last[:-1] + 1  # as many spans have ended as have begun
    return Spans(first[np.append(True, apart)[: len(first)]], last[np.append(apart, True)[: len(last)]])


def ragged(sizes: Ints) -> tuple[Ints, Ints]:
    """Sizes (N,) of runs -> (sum,) the number of each entry's run, and its place in the run.

    >>> [part.tolist() for part in ragged(np.array([2, 3]))]
    [[0, 0, 1, 1, 1], [0, 1, 0, 1, 2]]
    """
    of = np.repeat(np.arange(len(sizes)), sizes)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _inside(starts: Ints, ends: Ints, owners: Ints, width: int, image_size: tuple[int, int]) -> Spans:
    """Spans of lines that stay clear of the border, where those of one step differ only by where they start."""
    if len(starts) == 0:
        return Spans(owners, owners)
    height, stride = image_size[0], image_size[1] + 1
    steps = ends - starts
    _, one, which = np.unique(steps[:, 1] * (2 * FARTHEST) + steps[:, 0], return_index=True, return_inverse=True)
    strokes = [_stroke(*steps[line].tolist(), width, stride) for line in one]  # few: mostly to a neighbouring pixel
    sizes = np.array([len(stroke.first) for stroke in strokes])
    first, last = (np.concatenate(column) for column in zip(*strokes, strict=True))
    line, at = ragged(sizes[which])
    at += (np.cumsum(sizes) - sizes)[which][line]
    place = ((owners * height + starts[:, 1]) * stride + starts[:, 0])[line]
    return Spans(place + first[at], place + last[at])


@lru_cache(maxsize=1024)
def _stroke(dx: int, dy: int, width: int, stride: int) -> Spans:
    """Spans of the line from (0, 0) to (dx, dy); a row is `stride` places."""
    row, first, last = _body(dx, dy, width)
    _, y, x = _thin(*_edges(np.array([[dx, dy]]), width))
    place = y * stride + x
    return merge(Spans(np.append(row * stride + first, place), np.append(row * stride + last, place)))


def _across(starts: Ints, ends: Ints, owners: Ints, width: int, image_size: tuple[int, int]) -> Spans:
    """Spans of lines at the border, where OpenCV cuts their outlines and rounds them again."""
    height, columns = image_size
    bodies = [_body(*step, width) for step in (ends - starts).tolist()]
    line = np.repeat(np.arange(len(bodies)), [body.shape[1] for body in bodies])
    body = np.concatenate([np.empty((3, 0), dtype=np.int64), *bodies], axis=1) + starts[line][:, [1, 0, 0]].T
    begins, finishes = (part + np.repeat(starts, 4, axis=0) * ONE for part in _edges(ends - starts, width))
    begins, finishes, left = _cut(begins, finishes, np.array([columns, height]) * ONE - 1)
    edge, y, x = _thin(begins[left], finishes[left])
    owner = owners[np.append(line, np.flatnonzero(left)[edge] // 4)]
    row, first, last = np.append(body, [y, x, x], axis=1)
    seen = (row >= 0) & (row < height) & (last >= 0) & (first < columns)
    place = ((owner * height + row) * (columns + 1))[seen]
    return Spans(place + np.maximum(first[seen], 0), place + np.minimum(last[seen], columns - 1))


@lru_cache(maxsize=1024)
def _body(dx: int, dy: int, width: int) -> Ints:
    """(3, S) row, first and last column of the spans of the line from (0, 0) to (dx, dy), but for the outline."""
    radius = (width + 1) // 2
    reach = _disc(radius)
    rows = np.arange(-radius, radius + 1)
    rectangle = _filled(_corners(np.array([[dx, dy]]), width)[0].tolist())
    return np.hstack([[rows, -reach, reach], [rows + dy, dx - reach, dx + reach], rectangle])


def _disc(radius: int) -> Ints:
    """(2 radius + 1,) how far a disc reaches to either side in each of its rows, by Bresenham's rule."""
    reach = np.zeros(radius + 1, dtype=np.int64)
    error, x, y = 0, radius, 0
    while x >= y:
        reach[y], reach[x] = max(reach[y], x), max(reach[x], y)
        error += 2 * y + 1
        y += 1
        if error > 0:
            error -= 2 * x - 1
            x -= 1
    return np.concatenate([reach[:0:-1], reach])


def _corners(steps: Ints, width: int) -> Ints:
    """(L, 4, 2) corners, in their order, of the rectangles around lines from (0, 0) to steps (L, 2); fixed point."""
    x, y = steps.T
    scale = (width + width % 2) * HALF / np.sqrt(np.maximum(x * x + y * y, 1))  # no step, no rectangle
    side = np.rint(np.stack([y * scale, -x * scale], axis=1)).astype(np.int64)
    return np.stack([side, -side, steps * ONE - side, steps * ONE + side], axis=1)


def _edges(steps: Ints, width: int) -> tuple[Ints, Ints]:
    """Starts and ends, (4 L, 2) each, of the edges of these rectangles."""
    corners = _corners(steps, width)
    return np.roll(corners, 1, axis=1).reshape(-1, 2), corners.reshape(-1, 2)


def _filled(corners: list[list[int]]) -> Ints:
    """(3, S) row, first and last column of a rectangle's spans. Its last row is left to the outline, as in OpenCV."""
    rows = [_pixel(y) for _, y in corners]
    top, bottom = min(range(4), key=lambda i: corners[i][1]), max(rows)
    sides = []
    for turn in (1, -1):  # the two ways down from the highest corner
        at, row, x = top, rows[top], [np.empty(0, dtype=np.int64)]
        while row < bottom:
            below = (at + turn) % 4
            height = rows[below] - row
            if height > 0:
                slope = _quotient(2 * (corners[below][0] - corners[at][0]) + height, 2 * height)
                x.append(corners[at][0] + slope * np.arange(height))
                row += height
            at = below
        sides.append(np.concatenate(x))
    return np.stack([np.arange(rows[top], bottom), _pixel(np.minimum(*sides)), _pixel(np.maximum(*sides))])


def _cut(starts: Ints, ends: Ints, last: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Lines (E, 2) cut to 0 <= (x, y) <= last, at the rows first, and which of them are left, (E,); fixed point."""
    starts, ends = starts.copy(), ends.copy()
    left = np.full(len(starts), True)
    for axis in (1, 0):
        left &= ~_beside(starts, ends, last)
        for point, other in ((starts, ends), (ends, starts)):
            bound = np.clip(point[:, axis], 0, last[axis])
            out = np.flatnonzero(left & (bound != point[:, axis]))
            to, step = bound[out] - point[out, axis], other[out] - point[out]
            point[out, 1 - axis] += _quotient(to * step[:, 1 - axis], step[:, axis])
            point[out, axis] = bound[out]
    return starts, ends, left & ~_beside(starts, ends, last)


def _beside(starts: Ints, ends: Ints, last: Ints) -> NDArray[np.bool_]:
    """(E,) lines of which both ends lie beyond the same border."""
    below, above = (starts < 0) & (ends < 0), (starts > last) & (ends > last)
    beside: NDArray[np.bool_] = np.any(below | above, axis=1)
    return beside


def _thin(starts: Ints, ends: Ints) -> tuple[Ints, Ints, Ints]:
    """Which line (of E), row and column of each pixel of lines one pixel wide between fixed points (E, 2)."""
    steps = ends - starts
    line = np.arange(len(steps))
    axis = (np.abs(steps[:, 1]) >= np.abs(steps[:, 0])).astype(np.int64)  # x or y: a pixel for each place along it
    back = (steps[line, axis] < 0)[:, None]
    starts, ends, steps = np.where(back, ends, starts), np.where(back, starts, ends), np.where(back, -steps, steps)
    length = steps[line, axis]
    slope = _quotient(steps[line, 1 - axis] * ONE, length | 1)
    of, along = ragged((length >> SHIFT) + 1)
    main = _pixel(starts[line, axis])[of] + along
    side = _pixel(starts[line, 1 - axis][of] + slope[of] * along)
    steep = axis[of] == 1
    end = _pixel(ends)  # drawn separately: the steps might fall short of it
    y, x = np.where(steep, main, side), np.where(steep, side, main)
    return np.append(of, line), np.append(y, end[:, 1]), np.append(x, end[:, 0])


def _pixel(fixed: Any) -> Any:
    """The nearest pixel, of coordinates in fixed point."""
    return (fixed + HALF) >> SHIFT


def _quotient(a: Any, b: Any) -> Any:
    """a / b cut towards zero, as in C; // would cut down."""
    return np.sign(a) * np.sign(b) * (abs(a) // abs(b))
