"""A scene of a seed: the image, and its lanes as somebody should label them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdal.demo.examples.road_scenes.ground import paint_background, paint_ground
from kdal.demo.examples.road_scenes.objects import put_objects
from kdal.demo.examples.road_scenes.world import KINDS, Camera, Light, Line, Road

Floats = NDArray[np.float64]

SIZE = (144, 400)
"""(height, width) of an image unless another one is asked for."""
FARTHEST = 75.0
"""Metres up to which lanes are labelled: beyond, they are too near each other to be told apart."""
LEAST = 0.08
"""Share of the image's height that a lane must cover to be labelled."""


@dataclass(frozen=True, eq=False)
class LaneMarking:
    """One painted line, straight through gaps between dashes, wear and whatever hides it."""

    points: Floats
    """(n, 2) x and y in pixels, a point for each row of pixels, from top to bottom."""
    occluded: float
    """Share of the points that vehicles hide, in [0, 1]."""
    worn: float
    """Share of the paint that is gone, in [0, 1]."""


@dataclass(frozen=True, eq=False)
class RoadScene:
    """An image with its lanes, from left to right."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    lanes: tuple[LaneMarking, ...]
    kind: str
    """One of `KINDS`."""


def render(seed: int, size: tuple[int, int] = SIZE) -> RoadScene:
    """The scene of a seed, always the same.

    Args:
        seed: any whole number >= 0.
        size: (height, width) in pixels.
    """
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    camera, road, light = Camera.drawn(rng, size), Road.drawn(rng), Light.drawn(rng, kind)
    canvas = paint_background(rng, camera, light)
    paint_ground(canvas, rng, camera, road, light, shadows=kind == "shadow" or rng.random() < 0.1)
    hidden = put_objects(canvas, rng, camera, road, light)
    lanes = [_marking(line, camera, road, hidden) for line in road.lines]
    return RoadScene(_exposed(canvas, rng), tuple(lane for lane in lanes if lane is not None), kind)


def _marking(line: Line, camera: Camera, road: Road, hidden: NDArray[np.bool_]) -> LaneMarking | None:
    """A line as it is labelled; none where too little of it is in the image."""
    height, width = camera.size
    top = camera.horizon + camera.focal * camera.height / FARTHEST
    rows = np.arange(max(0, int(np.ceil(top - 0.5))), height)
    z = camera.depth(rows + 0.5)
    points = camera.pixels(road.centre(z) + line.place, 0.0, z)
    seen = np.flatnonzero((points[:, 0] >= 0) & (points[:, 0] < width))
    if len(seen) < LEAST * height:
        return None
    run = max(np.split(seen, np.flatnonzero(np.diff(seen) > 1) + 1), key=len)  # a bend may leave and come back
    covered = hidden[rows[run], points[run, 0].astype(np.int64)]
    return LaneMarking(points[run], float(covered.mean()), line.worn)


def _exposed(canvas: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The canvas (H, W, 3) as a camera's chip takes it: some gain, some tint, some noise."""
    gains = rng.uniform(0.85, 1.12) * np.array([rng.uniform(0.95, 1.05), 1.0, rng.uniform(0.95, 1.05)])
    noise = rng.standard_normal(canvas.shape[:2])[..., None] * rng.uniform(1, 5)
    return np.clip(canvas * gains + noise, 0, 255).astype(np.uint8)
