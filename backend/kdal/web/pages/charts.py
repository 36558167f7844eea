"""Where a chart's marks are: the templates write them as SVG, which a browser draws without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdal.aliases import Json

WIDTH, HEIGHT = 480, 270
"""Of a chart, in its own units; a browser scales it to the width there is."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 40
"""Margins for the axes' words."""


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover a range.

    >>> ticks(0, 250), [round(value, 2) for value in ticks(0.53, 0.97)]
    ([0.0, 50.0, 100.0, 150.0, 200.0, 250.0], [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    """
    span = max(high - low, 1e-9)
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, last + 1)]


def curve(points: Sequence[Json], target: float | None = None) -> Json:
    """A curve of shares over labels, each point with an interval.

    Args:
        points: {"labels", "value", "low", "high"} each, by labels.
        target: a line to be reached.
    """
    values = [point[name] for point in points for name in ("value", "low", "high") if point[name] is not None]
    shown = values + ([] if target is None else [target])
    down = ticks(max(0.0, min(shown) - 0.02), min(1.0, max(shown) + 0.02))
    across = ticks(0, max(point["labels"] for point in points) or 1)

    def x(labels: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * labels / across[-1], 1)

    def y(share: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (down[-1] - share) / (down[-1] - down[0]), 1)

    marks = [
        {
            **point,
            "x": x(point["labels"]),
            "y": y(point["value"]),
            "y_low": y(point["value"] if point["low"] is None else point["low"]),
            "y_high": y(point["value"] if point["high"] is None else point["high"]),
        }
        for point in points
    ]
    there = [f"{mark['x']},{mark['y_high']}" for mark in marks]
    back = [f"{mark['x']},{mark['y_low']}" for mark in reversed(marks)]
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "marks": marks,
        "line": " ".join(f"{mark['x']},{mark['y']}" for mark in marks),
        "band": " ".join(there + back),
        "x_ticks": [{"at": x(value), "text": f"{value:,.0f}".replace(",", "\u202f")} for value in across],
        "y_ticks": [{"at": y(value), "text": f"{value:.0%}"} for value in down if value <= 1.0001],
        "target": None if target is None else y(target),
    }


def heat(count: int, most: int) -> int:
    """How strongly a cell of a table is coloured: 0 (nothing) to 5.

    >>> [heat(count, 100) for count in (0, 1, 25, 100)]
    [0, 1, 3, 5]
    """
    return 0 if not count or not most else min(5, 1 + int(4.999 * math.sqrt(count / most)))
