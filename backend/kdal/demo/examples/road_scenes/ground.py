"""The sky, what is on the horizon, fields, asphalt and paint: everything that is painted pixel by pixel."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal.demo.examples.road_scenes.world import Camera, Light, Road

Floats = NDArray[np.float64]

TILE = 512
MEADOWS = ((84, 104, 58), (128, 122, 84), (112, 108, 100))


def paint_background(rng: np.random.Generator, camera: Camera, light: Light) -> Floats:
    """(H, W, 3): sky, hills and woods."""
    height, width = camera.size
    rows, columns = np.arange(height)[:, None], np.arange(width)
    blue = np.array([105.0, 155.0, 222.0])
    blue += (190 - blue) * rng.uniform(0, 1)
    up = np.clip(1 - (rows + 0.5) / camera.horizon, 0, 1)[..., None]
    sky = 225 + (blue - 225) * up**0.6
    clouds = _noise(columns * 0.8 + rng.uniform(0, TILE), rows * 3.2, 3.0)
    sky = sky + (240 - sky) * (rng.uniform(0, 0.8) * np.clip(2.5 * clouds - 1.2, 0, 1))[..., None]
    canvas = light.on(sky, 0.0, np.full((height, width), 80.0))
    for far, tall in ((0.8, 0.3), (0.45, 0.18)):  # hills, then woods before them
        ridge = _noise(columns * rng.uniform(1.0, 2.5) / far, np.full(width, rng.uniform(0, TILE)), 16.0)
        leaves = _noise(columns * 2.0, np.full(width, 7.0), 2.0) * 0.25 * (1 - far)
        top = camera.horizon * (1 - tall * rng.uniform(0.3, 1.6) * (ridge + leaves))
        green = np.array([rng.uniform(40, 75), rng.uniform(62, 90), rng.uniform(40, 60)])
        canvas[rows >= top] = light.on(green * (1 - far) + 135 * far, 0.0, 160.0 * far)
    return canvas


def paint_ground(
    canvas: Floats, rng: np.random.Generator, camera: Camera, road: Road, light: Light, *, shadows: bool
) -> None:
    """Paint what is below the horizon over the canvas (H, W, 3)."""
    height, width = camera.size
    rows = np.arange(int(np.ceil(camera.horizon)) + 1, height)
    far, near = camera.depth(rows[:, None]), camera.depth(rows[:, None] + 1)  # a row of pixels covers some metres
    z = camera.depth(rows[:, None] + 0.5)  # (R, 1)
    pixel = z / camera.focal  # metres that a pixel is wide
    x = (np.arange(width) + 0.5 - camera.middle) * pixel  # (R, W)
    across = x - road.centre(z)  # metres right of the road's middle
    fine = np.minimum(1.0, 14 / z)  # what is too fine to be seen from afar fades into its mean

    meadow = np.array(MEADOWS[rng.choice(len(MEADOWS), p=[0.6, 0.25, 0.15])])
    colours = meadow * (1 + (_noise(x * 9, z * 9) - 0.5) * 0.7 * fine + (_noise(x, z) - 0.5) * 0.3)[..., None]
    shoulder = road.lines[-1].place + rng.uniform(0.5, 2.5)
    paved = np.clip((shoulder - np.abs(across)) / pixel + 0.5, 0, 1)
    colours += (_asphalt(rng, road, across, z, fine) - colours) * paved[..., None]

    blotches = _noise(across * 30 + 17, z * 11)
    for line in road.lines:
        left, right = np.maximum(across - pixel / 2, line.place - line.width / 2), line.place + line.width / 2
        share = np.clip(np.minimum(across + pixel / 2, right) - left, 0, None) / pixel
        kept = np.clip((blotches - line.worn) * 6 + 0.5, 0, 1) * fine + (1 - line.worn) * (1 - fine)
        paint = share * line.painted(near, far) * kept
        colours += (np.array(line.colour) - colours) * paint[..., None]

    if shadows:  # of trees beside the road
        crowns = _noise(across * rng.uniform(9, 22) + 50, z * rng.uniform(7, 16), 7.0)
        dark = rng.uniform(0.4, 0.65) * np.clip((rng.uniform(0.35, 0.65) - crowns) * 9 + 0.5, 0, 1)
        colours *= 1 - dark[..., None]
    canvas[rows] = light.on(colours, x, np.broadcast_to(z, x.shape))


def _asphalt(rng: np.random.Generator, road: Road, across: Floats, z: Floats, fine: Floats) -> Floats:
    """(R, W, 3): grains, stains, what tyres leave, tar in cracks."""
    grey = rng.uniform(72, 122) + (_noise(across * 40, z * 40) - 0.5) * 26 * fine
    grey += (_noise(across * 3, z * 0.6) - 0.5) * 16
    dark = rng.uniform(0, 12)
    for wheel in (lane + side for lane in road.lanes for side in (-0.8, 0.8)):
        grey -= dark * np.exp(-(((across - wheel) / 0.4) ** 2))
    if rng.random() < 0.4:
        cracks = np.abs(_noise(across * 6 + 90, z * 4) - 0.5) < 0.012
        grey -= cracks * fine * rng.uniform(15, 40)
    colours: Floats = grey[..., None] * np.array([1.0, 1.0, 1.03])
    return colours


@cache
def _tile(least: float) -> Floats:
    """(TILE, TILE) blotches from a size on, alike at opposite borders; each value in [0, 1] as often as any other."""
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE))
    strength = np.exp(-((frequency * least) ** 2)) / np.maximum(frequency, 3 / TILE) ** 1.1
    field = np.fft.irfft2(np.fft.rfft2(np.random.default_rng(0).standard_normal((TILE, TILE))) * strength)
    ranks: Floats = np.argsort(np.argsort(field, axis=None)) / (TILE**2 - 1)
    return ranks.reshape(TILE, TILE)


def _noise(x: ArrayLike, y: ArrayLike, least: float = 0.0) -> Floats:
    """Blotches in [0, 1] at any place (...), the smallest about `least` wide: 0 for grains of 1."""
    columns, rows = np.asarray(x).astype(np.int64) & (TILE - 1), np.asarray(y).astype(np.int64) & (TILE - 1)
    found: Floats = _tile(least)[rows, columns]
    return found
