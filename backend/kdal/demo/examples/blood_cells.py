"""Rendered pictures of blood under a microscope: red and white cells and platelets, overlapping, in uneven light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZE = (240, 320)
"""(height, width) in pixels."""
KINDS = ("red cell", "white cell", "platelet")
RED, WHITE, PLATELET = range(3)

APART = 26.0
"""Pixels between the middles of two cells at least."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A cell and where it ends.

    Attributes:
        kind: its place in `KINDS`.
        box: left, top, right, bottom in pixels, inside the image.
    """

    kind: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Smear:
    """A picture: image (H, W, 3) uint8 and its cells."""

    image: NDArray[np.uint8]
    cells: tuple[Cell, ...]


def render(index: int) -> Smear:
    """The picture of a number: the same number, the same picture.

    >>> smear = render(3)
    >>> smear.image.shape, all(cell.kind in range(3) for cell in smear.cells)
    ((240, 320, 3), True)
    """
    rng = np.random.default_rng([20261122, index])
    height, width = SIZE
    y, x = np.mgrid[:height, :width] + 0.5
    light = 1 + 0.12 * (np.cos(rng.uniform(0, 6)) * (x / width - 0.5) + np.sin(rng.uniform(0, 6)) * (y / height - 0.5))
    image = np.array([236, 214, 208]) * rng.uniform(0.92, 1.05) * light[..., None]
    cells: list[Cell] = []
    middles: list[Floats] = []
    counts = rng.poisson([rng.uniform(2, 11), 0.9, 0.9])
    for kind in [RED] * counts[RED] + [WHITE] * counts[WHITE] + [PLATELET] * counts[PLATELET]:
        middle = rng.uniform([0, 0], [width, height])
        if any(np.hypot(*(middle - other)) < APART for other in middles):
            continue  # cells overlap, but none hides another
        image, cell = _painted(image, x, y, kind, middle, rng)
        if cell is not None:
            cells.append(cell)
            middles.append(middle)
    image = _soft(image) + rng.normal(0, 4, image.shape)
    return Smear(image.clip(0, 255).astype(np.uint8), tuple(cells))


def _painted(
    image: Floats, x: Floats, y: Floats, kind: int, middle: Floats, rng: np.random.Generator
) -> tuple[Floats, Cell | None]:
    """The image with a cell in it; no cell where too little of it is inside to be seen."""
    radius = (rng.uniform(19, 26), rng.uniform(32, 44), rng.uniform(5, 8))[kind]
    wide, high = radius * rng.uniform(0.88, 1.12, 2)
    across, down = (x - middle[0]) / wide, (y - middle[1]) / high
    distance = np.hypot(across, down)  # 1 on the cell's border
    height, width = SIZE
    half = np.array([wide, high])
    near = np.maximum(middle - half, 0)
    far = np.minimum(middle + half, (width, height))
    if (far - near < 0.5 * half).any():
        return image, None
    inside = np.clip((1 - distance) * radius / 2, 0, 1)[..., None]
    if kind == RED:
        pale = np.exp(-((distance / 0.45) ** 2))[..., None] * rng.uniform(0.3, 0.8)
        colour = np.array([205, 120, 125]) * (1 - pale) + np.array([232, 190, 186]) * pale
        strength = 0.75
    elif kind == WHITE:
        lobes = np.zeros(x.shape)
        for _ in range(rng.integers(2, 5)):
            at = rng.uniform(-0.4, 0.4, 2)
            lobes = np.maximum(lobes, np.exp(-(((across - at[0]) ** 2 + (down - at[1]) ** 2) / 0.13)))
        nucleus = np.clip(3 * lobes - 1, 0, 1)[..., None]
        colour = np.array([196, 170, 205]) * (1 - nucleus) + np.array([98, 58, 142]) * nucleus
        strength = 0.9
    else:
        colour, strength = np.array([134, 92, 168]) * rng.uniform(0.9, 1.15), 0.85
    painted: Floats = image * (1 - strength * inside) + colour * strength * inside
    return painted, Cell(kind, (float(near[0]), float(near[1]), float(far[0]), float(far[1])))


def _soft(image: Floats) -> Floats:
    """Out of focus by a pixel."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    blurred: Floats = (4 * image + padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 8
    return blurred
