"""Suggestions drawn into pictures: boxes, lines, polygons and points of Label Studio's regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image, ImageDraw

from kdal.aliases import Json

MOST = 100
"""Regions of a picture that are drawn."""
MOST_NAMED = 4
"""Labels that a caption names."""
COLOURS = ("#ff3b30", "#0a84ff", "#ffd60a", "#30d158", "#bf5af2", "#ff9f0a", "#64d2ff", "#ff6eb4")
"""Bright, and told apart on dark and on light photos beside the dark edge that each line gets."""


def draw(image: Image.Image, regions: Iterable[Json]) -> Image.Image:
    """A picture with regions drawn in; the labels of one colour are of one class.

    Args:
        image: RGB; it is drawn into.
        regions: of Label Studio, in percent of the picture; what cannot be drawn (choices, brushes) is passed over.
    """
    pen = ImageDraw.Draw(image)
    scale = (image.width / 100, image.height / 100)
    width = max(2, round(min(image.size) / 90))
    colours: dict[str, str] = {}
    for region in list(regions)[:MOST]:
        label = (_labels(region) or [""])[0]
        colour = colours.setdefault(label, COLOURS[len(colours) % len(COLOURS)])
        for points in _outlines(region):
            line = [(x * scale[0], y * scale[1]) for x, y in points]
            pen.line(line, fill="#000000", width=width + 2, joint="curve")
            pen.line(line, fill=colour, width=width, joint="curve")
    return image


def names(regions: Sequence[Json]) -> list[tuple[str, int, float | None]]:
    """What regions say, for a caption: each label, how often, and the highest confidence; the surest first."""
    found: dict[str, tuple[int, float | None]] = {}
    for region in regions[:MOST]:
        score = region.get("score")
        score = float(score) if isinstance(score, int | float) else None
        for label in _labels(region):
            count, best = found.get(label, (0, None))
            known = [each for each in (best, score) if each is not None]
            found[label] = (count + 1, max(known) if known else None)
    ranked = sorted(found.items(), key=lambda item: (-(item[1][1] or 0), item[0]))
    return [(label, count, best) for label, (count, best) in ranked[:MOST_NAMED]]


def _labels(region: Json) -> list[str]:
    value = region.get("value")
    listed = value.get(str(region.get("type", ""))) if isinstance(value, dict) else None
    return [str(label) for label in listed] if isinstance(listed, list) else []


def _outlines(region: Json) -> list[list[tuple[float, float]]]:
    """Lines of (x, y) in percent; none of a region without a shape, or with one that makes no sense."""
    value: Any = region.get("value")
    try:
        if "vertices" in value:
            line = [(float(each["x"]), float(each["y"])) for each in value["vertices"]]
            return [line + line[:1] if value.get("closed") else line] if len(line) > 1 else []
        if "points" in value:
            line = [(float(x), float(y)) for x, y in value["points"]]
            return [line + line[:1]] if len(line) > 1 else []
        if "width" in value and "height" in value and "x" in value:
            left, top = float(value["x"]), float(value["y"])
            right, bottom = left + float(value["width"]), top + float(value["height"])
            if (right - left < 1 and bottom - top < 1) or region.get("type") == "keypointlabels":
                return [[(left - 1.5, top), (left + 1.5, top)], [(left, top - 1.5), (left, top + 1.5)]]
            return [[(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]]
    except (KeyError, TypeError, ValueError):
        pass
    return []
