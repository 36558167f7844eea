"""What stands on the ground: trees, lamps, rails and vehicles, drawn as flat pieces from far to near."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from kdal.demo.examples.road_scenes.world import Camera, Light, Road

Floats = NDArray[np.float64]
Point = tuple[float, float, float]
Thing = tuple[float, Callable[[], None]]
"""How far away it is, and what draws it."""

FINE = 2
"""Pixels either way that one pixel is drawn with, for smooth edges."""
BODIES = ((1.8, 1.45, 4.3, 0.6), (2.0, 2.2, 5.2, 0.55), (2.5, 3.5, 9.0, 1.0))
"""Cars, vans, lorries: metres wide, high and long, and which share of the height is below the windows."""
HUES = ((205, 205, 205), (35, 36, 40), (120, 124, 130), (140, 28, 26), (34, 60, 120), (225, 224, 218))
STEEL, GLASS, TYRE, SHADE = (120, 122, 124), (52, 60, 68), (18, 18, 20), (26, 26, 28)


def put_objects(
    canvas: Floats, rng: np.random.Generator, camera: Camera, road: Road, light: Light
) -> NDArray[np.bool_]:
    """Draw everything over the canvas (H, W, 3); returns where vehicles hide what is behind them, (H, W)."""
    scenery, traffic = Brush(camera, light), Brush(camera, light)
    things = [*_scenery(rng, road, scenery), *_traffic(rng, road, traffic)]
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()
    scenery.put_on(canvas)
    return traffic.put_on(canvas) > 0.5


class Brush:
    """Draws flat pieces of the world on a layer of its own, with smooth edges."""

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera, self.light = camera, light
        self._layer = Image.new("RGBA", (camera.size[1] * FINE, camera.size[0] * FINE))
        self._draw = ImageDraw.Draw(self._layer)

    def piece(self, corners: Sequence[Point], colour: ArrayLike, *, glows: bool = False) -> None:
        """A convex piece."""
        x, y, z = np.array(corners, dtype=np.float64).T
        self._draw.polygon(self._places(x, y, z), fill=self._seen(colour, float(x.mean()), float(z.mean()), glows))

    def upright(
        self, left: float, right: float, low: float, high: float, z: float, colour: ArrayLike, *, glows: bool = False
    ) -> None:
        """A rectangle that faces the camera."""
        self.piece([(left, low, z), (right, low, z), (right, high, z), (left, high, z)], colour, glows=glows)

    def disc(self, x: float, y: float, z: float, radius: float, colour: ArrayLike, *, glows: bool = False) -> None:
        """A disc that faces the camera."""
        box = self._places(np.array([x - radius, x + radius]), np.array([y + radius, y - radius]), np.array([z, z]))
        self._draw.ellipse(box, fill=self._seen(colour, x, z, glows))

    def put_on(self, canvas: Floats) -> Floats:
        """Lay what was drawn over the canvas (H, W, 3); returns which share of each pixel it covers, (H, W)."""
        layer = np.asarray(self._layer.convert("RGBa").reduce(FINE), dtype=np.float64)
        share = layer[..., 3] / 255
        canvas *= 1 - share[..., None]
        canvas += layer[..., :3]
        return share

    def _places(self, x: Floats, y: Floats, z: Floats) -> list[tuple[float, float]]:
        return [(column, row) for column, row in (self.camera.pixels(x, y, z) * FINE).tolist()]

    def _seen(self, colour: ArrayLike, x: float, z: float, glows: bool) -> tuple[int, int, int, int]:
        seen = np.asarray(colour, dtype=np.float64) if glows else self.light.on(colour, x, z)
        red, green, blue = np.clip(seen, 0, 255).astype(int).tolist()
        return red, green, blue, 255


def _scenery(rng: np.random.Generator, road: Road, brush: Brush) -> Iterator[Thing]:
    verge = road.lines[-1].place + 3.0
    for side in (-1, 1):
        if rng.random() < 0.3:
            for z in np.geomspace(4, 120, 24).tolist():
                yield z, partial(_rail, brush, road, side * verge, z)
        draw, width = (_tree, 6.0) if rng.random() < 0.65 else (_lamp, 2.0)
        for z in np.arange(rng.uniform(6, 30), 110, rng.uniform(9, 40)).tolist():
            x = float(road.centre(z)) + side * (verge + rng.uniform(1.5, width))
            yield z, partial(draw, brush, x, z, rng.uniform(4, 9), rng.uniform(0.7, 1.2))


def _traffic(rng: np.random.Generator, road: Road, brush: Brush) -> Iterator[Thing]:
    density = rng.choice([0.0, 0.5, 1.0], p=[0.25, 0.5, 0.25])
    for lane in road.lanes:
        ours = abs(lane + road.offset) < 1.6
        z = rng.uniform(9 if ours else 4, 60)
        while z < 90:
            if rng.random() < density:
                body, hue = BODIES[rng.choice(3, p=[0.72, 0.14, 0.14])], HUES[rng.integers(len(HUES))]
                paint = np.array(hue) * rng.uniform(0.85, 1.1)
                yield z, partial(_vehicle, brush, road, lane + rng.normal(0, 0.25), z, body, paint)
            z += rng.uniform(11, 35)


def _rail(brush: Brush, road: Road, place: float, z: float) -> None:
    far = z * 1.16
    a, b = float(road.centre(z)) + place, float(road.centre(far)) + place
    brush.piece([(a, 0.45, z), (b, 0.45, far), (b, 0.75, far), (a, 0.75, z)], (150, 152, 155))
    brush.upright(a - 0.06, a + 0.06, 0, 0.7, z, (105, 106, 108))


def _tree(brush: Brush, x: float, z: float, tall: float, shade: float) -> None:
    brush.upright(x - 0.16, x + 0.16, 0, tall, z, (66, 52, 42))
    for right, up, radius, leaf in ((-0.18, 0.6, 0.24, 42), (0.2, 0.66, 0.22, 48), (0, 0.85, 0.26, 55)):
        green = np.array([leaf, leaf + 26, leaf * 0.7]) * shade
        brush.disc(x + right * tall, up * tall, z, radius * tall, green)


def _lamp(brush: Brush, x: float, z: float, tall: float, shade: float) -> None:
    top, arm, night = tall + 1, x - np.sign(x) * 1.4, brush.light.beam > 0
    brush.upright(x - 0.06, x + 0.06, 0, top, z, np.array(STEEL) * shade)
    brush.upright(min(x, arm), max(x, arm), top - 0.1, top, z, np.array(STEEL) * shade)
    brush.disc(arm, top - 0.15, z, 0.16, (255, 226, 170) if night else (200, 200, 195), glows=night)


def _vehicle(
    brush: Brush, road: Road, place: float, z: float, body: tuple[float, float, float, float], paint: Floats
) -> None:
    """A vehicle seen from behind, its middle `place` metres right of the road's."""
    wide, tall, long, below = body
    x, far, low, belt = float(road.centre(z)) + place, z + long, 0.28, tall * below
    ahead = float(road.centre(far)) + place
    left, right = x - wide / 2, x + wide / 2
    side = 1 if x < 0 else -1  # whichever flank the camera sees
    flank, gone = x + side * wide / 2, ahead + side * wide / 2
    shadow = [(left, 0, z), (right, 0, z), (ahead + wide / 2, 0, far), (ahead - wide / 2, 0, far)]
    brush.piece(shadow, SHADE)
    brush.piece([(flank, low, z), (gone, low, far), (gone, belt, far), (flank, belt, z)], paint * 0.72)
    slant = 0.0 if belt == tall else 0.12 * wide
    if slant:
        near, end = z + 0.06 * long, far - 0.3 * long
        panes = [(flank, belt, z), (gone, belt, end + 0.8), (gone - side * slant, tall, end)]
        brush.piece([*panes, (flank - side * slant, tall, near)], (48, 54, 60))
    for wheel in (left + 0.05, right - 0.3):
        brush.upright(wheel, wheel + 0.25, 0, 0.4, z, TYRE)
    brush.upright(left, right, low, belt, z, paint)
    if slant:
        cabin = [(left, belt, z), (right, belt, z), (right - slant, tall, z), (left + slant, tall, z)]
        brush.piece(cabin, paint * 0.95)
        sill, lintel = belt + 0.05, tall - 0.12
        panes = [(left + slant, sill, z), (right - slant, sill, z)]
        brush.piece([*panes, (right - 1.4 * slant, lintel, z), (left + 1.4 * slant, lintel, z)], GLASS)
    night, high = brush.light.beam > 0, min(belt - 0.3, 0.75)
    for lamp in (left + 0.08, right - 0.33):
        red = (235, 40, 30) if night else (170, 26, 24)
        brush.upright(lamp, lamp + 0.25, high, high + 0.17, z, red, glows=night)
    brush.upright(x - 0.26, x + 0.26, 0.5, 0.62, z, (205, 205, 195))
