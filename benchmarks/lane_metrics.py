"""TuSimple's and CULane's metrics against plain Python that does the same, on the same lanes in one run.

The plain programs go through lists, number by number: TuSimple's over the rows of each pair of lanes, CULane's over
the rows of each short line that a lane is drawn with, as OpenCV draws it. Both must give the very same results. Run as
`python -m benchmarks.lane_metrics`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np

from kdal_core.metrics import culane, tusimple

Lane = list[tuple[float, float]]
Xs = list[list[float]]
Scores = tuple[float, float, float]

HALF = 1 << 15  # OpenCV's fixed point has sixteen places


def scenes(images: int, height: int, width: int, rows: Sequence[int]) -> list[tuple[Xs, Xs]]:
    """Predicted and labelled lanes of images, x at each row: two to six that meet at the horizon; some missed."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(images):
        count = int(rng.integers(2, 7))
        horizon, bend = rng.uniform(0.35, 0.65), rng.normal(0, 0.1)
        below = np.array([(row - rows[0]) / (height - rows[0]) for row in rows])
        feet = np.linspace(-0.2, 1.2, count) + rng.normal(0, 0.03, count)
        lanes = [width * (horizon + (foot - horizon) * below + bend * below * (1 - below)) for foot in feet]
        guesses = [x + width * rng.normal(0, 0.006) for x in lanes if rng.random() < 0.9]
        pred, gt = ([[round(v, 1) if 0 <= v < width else -2.0 for v in x] for x in part] for part in (guesses, lanes))
        found.append((pred, gt))
    return found


def vertices(lanes: Xs, rows: Sequence[int]) -> list[Lane]:
    found = [[(x, float(y)) for x, y in zip(lane, rows, strict=True) if x >= 0] for lane in lanes]
    return [lane for lane in found if len(lane) > 1]


def plain_tusimple(pred: Xs, gt: Xs, rows: Sequence[int], run_time: float) -> Scores:
    if run_time > 200 or len(pred) > len(gt) + 2:
        return 0.0, 0.0, 1.0
    best = []
    for lane in gt:
        points = [(x, y) for x, y in zip(lane, rows, strict=True) if x >= 0]
        slope = 0.0
        if len(points) > 1:
            mean_x, mean_y = sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
            slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((y - mean_y) ** 2 for _, y in points)
        near = 20 / math.cos(math.atan(slope))
        wanted = [x if x >= 0 else -100 for x in lane]
        shares = [0.0]
        for guess in pred:
            placed = [x if x >= 0 else -100 for x in guess]
            shares.append(sum(abs(a - b) < near for a, b in zip(placed, wanted, strict=True)) / len(rows))
        best.append(max(shares))
    missed = sum(share < 0.85 for share in best)
    fp = (len(pred) - len(best) + missed) / len(pred) if pred else 0.0
    total = sum(best)
    if len(gt) > 4:
        missed, total = max(missed - 1, 0), total - min(best)
    counted = max(min(len(gt), 4), 1)
    return total / counted, fp, missed / counted


def plain_culane(pred: list[Lane], gt: list[Lane], image_size: tuple[int, int]) -> tuple[int, int, int]:
    masks = [[painted(lane, image_size) for lane in lanes] for lanes in (pred, gt)]
    overlap = [[iou(a, b) for b in masks[1]] for a in masks[0]]
    if len(pred) > len(gt):
        overlap = [list(column) for column in zip(*overlap, strict=True)]
    best, most = 0, -1.0
    for order in permutations(range(max(len(pred), len(gt))), min(len(pred), len(gt))):
        pairs = [row[column] for row, column in zip(overlap, order, strict=True)]
        if sum(pairs) > most:
            best, most = sum(pair > 0.5 for pair in pairs), sum(pairs)
    return best, len(pred) - best, len(gt) - best


def iou(a: list[bytearray], b: list[bytearray]) -> float:
    common = sum(x & y for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))
    either = sum(x | y for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))
    return common / max(either, 1)


def painted(lane: Lane, image_size: tuple[int, int], width: int = 30) -> list[bytearray]:
    """Rows of a picture in which the lane is 1."""
    canvas = [bytearray(image_size[1]) for _ in range(image_size[0])]
    points = [(round(x), round(y)) for x, y in spline(lane)]
    for start, end in pairwise(points):
        draw(canvas, start, end, width)
    return canvas


def spline(lane: Lane) -> Lane:
    """Fifty points from each vertex to the next of the natural cubic spline, in single precision as they go out."""
    lane = [(single(x), single(y)) for x, y in lane]
    if len(lane) == 2:
        return lane
    chords = [math.dist(a, b) for a, b in pairwise(lane)]
    bent = [bends([point[axis] for point in lane], chords) for axis in (0, 1)]
    points = []
    for i, chord in enumerate(chords):
        for k in range(50):
            t = chord / 50 * k
            at = []
            for axis in (0, 1):
                a, (m, after) = lane[i][axis], bent[axis][i : i + 2]
                b = (lane[i + 1][axis] - a) / chord - chord * (2 * m + after) / 6
                at.append(single(a + b * t + m / 2 * t**2 + (after - m) / (6 * chord) * t**3))
            points.append((at[0], at[1]))
    return [*points, lane[-1]]


def single(x: float) -> float:
    return float(np.float32(x))


def bends(values: list[float], chords: list[float]) -> list[float]:
    """Second derivatives at the vertices, by elimination from the front and substitution from the back."""
    slopes = [(b - a) / chord for a, b, chord in zip(values, values[1:], chords, strict=False)]
    factors, sides = [0.0], [0.0]
    for i in range(1, len(chords)):
        pivot = 2 * (chords[i - 1] + chords[i]) - chords[i - 1] * factors[-1]
        sides.append((6 * (slopes[i] - slopes[i - 1]) - chords[i - 1] * sides[-1]) / pivot)
        factors.append(chords[i] / pivot)
    found = [0.0]
    for factor, side in zip(factors[:0:-1], sides[:0:-1], strict=True):
        found.append(side - factor * found[-1])
    return [*found, 0.0][::-1]


def draw(canvas: list[bytearray], start: tuple[int, int], end: tuple[int, int], width: int) -> None:
    """A thick line: a rectangle with its outline, and a disc at either end."""
    (x0, y0), (x1, y1) = start, end
    if start != end:
        scale = (width + width % 2) * HALF / math.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2)
        sx, sy = round((y1 - y0) * scale), round((x0 - x1) * scale)
        x0, y0, x1, y1 = (v << 16 for v in (x0, y0, x1, y1))
        corners = [(x0 + sx, y0 + sy), (x0 - sx, y0 - sy), (x1 - sx, y1 - sy), (x1 + sx, y1 + sy)]
        for i in range(4):
            draw_thin(canvas, corners[i - 1], corners[i])
        fill(canvas, corners)
    for x, y in (start, end):
        disc(canvas, x, y, (width + 1) // 2)


def paint(canvas: list[bytearray], row: int, first: int, last: int) -> None:
    if 0 <= row < len(canvas):
        for column in range(max(first, 0), min(last, len(canvas[row]) - 1) + 1):
            canvas[row][column] = 1


def fill(canvas: list[bytearray], corners: list[tuple[int, int]]) -> None:
    """Row by row from the highest corner down, between the sides on either hand."""
    rows = [(y + HALF) >> 16 for _, y in corners]
    top = min(range(4), key=lambda i: corners[i][1])
    at, until, x, step = [top, top], [rows[top]] * 2, [0, 0], [0, 0]
    for row in range(rows[top], max(rows)):
        for side, turn in ((0, 1), (1, 3)):
            while until[side] <= row:
                here, there = at[side], (at[side] + turn) % 4
                at[side], until[side] = there, rows[there]
                height = rows[there] - row
                if height > 0:
                    x[side] = corners[here][0]
                    step[side] = toward_zero((corners[there][0] - corners[here][0]) * 2 + height, 2 * height)
        paint(canvas, row, (min(x) + HALF) >> 16, (max(x) + HALF) >> 16)
        x = [x[0] + step[0], x[1] + step[1]]


def draw_thin(canvas: list[bytearray], start: tuple[int, int], end: tuple[int, int]) -> None:
    """A line of one pixel, cut to the picture first."""
    p, q = list(start), list(end)
    last = [(len(canvas[0]) << 16) - 1, (len(canvas) << 16) - 1]
    for axis in (1, 0):
        if any(max(p[i], q[i]) < 0 or min(p[i], q[i]) > last[i] for i in (0, 1)):
            return
        for a, b in ((p, q), (q, p)):
            bound = min(max(a[axis], 0), last[axis])
            if a[axis] != bound:
                a[1 - axis] += toward_zero((bound - a[axis]) * (b[1 - axis] - a[1 - axis]), b[axis] - a[axis])
                a[axis] = bound
    if any(p[i] < 0 or p[i] > last[i] or q[i] < 0 or q[i] > last[i] for i in (0, 1)):
        return
    axis = int(abs(q[1] - p[1]) >= abs(q[0] - p[0]))
    if q[axis] < p[axis]:
        p, q = q, p
    length = q[axis] - p[axis]
    slope = toward_zero((q[1 - axis] - p[1 - axis]) << 16, length | 1)
    for k in range((length >> 16) + 1):
        at = [((p[axis] + HALF) >> 16) + k, (p[1 - axis] + HALF + slope * k) >> 16]
        x, y = at[::-1] if axis else at
        paint(canvas, y, x, x)
    paint(canvas, (q[1] + HALF) >> 16, (q[0] + HALF) >> 16, (q[0] + HALF) >> 16)


def disc(canvas: list[bytearray], x: int, y: int, radius: int) -> None:
    error, across, down = 0, radius, 0
    while across >= down:
        for row, reach in ((down, across), (across, down)):
            paint(canvas, y - row, x - reach, x + reach)
            paint(canvas, y + row, x - reach, x + reach)
        error += 2 * down + 1
        down += 1
        if error > 0:
            error -= 2 * across - 1
            across -= 1


def toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def timed(metric: Callable[..., object], arguments: Sequence[tuple[object, ...]]) -> tuple[list[object], float]:
    """Results for all images, and ms an image."""
    began = time.perf_counter()
    results = [metric(*one) for one in arguments]
    return results, 1000 * (time.perf_counter() - began) / len(arguments)


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--drawn", type=int, default=4, help="of the images, drawn in plain Python for CULane")
    parser.add_argument("--repeats", type=int, default=3, help="of ours, of which the median counts")
    parser.add_argument("--out", type=Path, default=Path("artifacts/lane_metrics.json"))
    options = parser.parse_args()
    report: dict[str, dict[str, float]] = {}
    print("| metric | ms an image | plain Python, ms an image | times faster |\n|---|---|---|---|")

    def compare(
        name: str,
        ours: Callable[..., object],
        plain: Callable[..., object],
        arguments: Sequence[tuple[object, ...]],
        some: int,
    ) -> None:
        expected, plain_ms = timed(plain, arguments[:some])
        assert timed(ours, arguments[:some])[0] == expected, name
        ms = statistics.median(timed(ours, arguments)[1] for _ in range(options.repeats))
        report[name] = {"ms": round(ms, 4), "plain_ms": round(plain_ms, 3), "faster": round(plain_ms / ms, 1)}
        print(f"| {name} | {ms:.3f} | {plain_ms:.3f} | {plain_ms / ms:.1f} |", flush=True)

    for height, width, rows in ((720, 1280, range(160, 720, 10)), (144, 400, range(36, 144, 4))):
        scored = [(pred, gt, list(rows), 10.0) for pred, gt in scenes(options.images, height, width, rows)]
        compare(f"TuSimple, {width} x {height}", tusimple, plain_tusimple, scored, options.images)
    for height, width, rows in ((590, 1640, range(250, 590, 10)), (144, 400, range(36, 144, 4))):
        size = (height, width)
        drawn = [(vertices(pred, rows), vertices(gt, rows), size) for pred, gt in scenes(options.images, *size, rows)]
        compare(f"CULane, {width} x {height}", culane, plain_culane, drawn, options.drawn)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
