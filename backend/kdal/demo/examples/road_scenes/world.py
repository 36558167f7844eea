"""The world of a scene: a camera, a road with its lines, and what light does to colours. All of it drawn by lot."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Rgb = tuple[float, float, float]

KINDS = {"day": 0.45, "shadow": 0.2, "night": 0.2, "fog": 0.15}
"""Kinds of light, and how often each occurs."""
BENDS = 90.0
"""Metres up to which a road bends; from there on it runs straight."""
WHITE, YELLOW = (222, 222, 216), (214, 172, 62)


@dataclass(frozen=True)
class Camera:
    """Where things of the world lie in the image."""

    size: tuple[int, int]
    """(height, width) of the image in pixels."""
    focal: float
    middle: float
    """Column that looks straight ahead."""
    horizon: float
    """Row of the horizon."""
    height: float
    """Metres above the road, which is flat."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, size: tuple[int, int]) -> Camera:
        """Some camera in some car."""
        height, width = size
        return cls(
            size,
            focal=width * rng.uniform(0.62, 0.8),
            middle=width * rng.uniform(0.46, 0.54),
            horizon=height * rng.uniform(0.24, 0.37),
            height=rng.uniform(1.25, 1.7),
        )

    def pixels(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> Floats:
        """(..., 2) where points of the world are seen."""
        right, up, ahead = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in (x, y, z)))
        scale = self.focal / ahead
        return np.stack([self.middle + scale * right, self.horizon + scale * (self.height - up)], axis=-1)

    def depth(self, rows: ArrayLike) -> Floats:
        """z of the road in rows below the horizon."""
        below: Floats = np.asarray(rows, dtype=np.float64) - self.horizon
        return self.focal * self.height / below


@dataclass(frozen=True)
class Line:
    """A painted line along the road."""

    place: float
    """Metres right of the road's middle."""
    width: float
    dash: float
    gap: float
    """Between two dashes; 0 for a solid line."""
    phase: float
    worn: float
    """Share of the paint that is gone."""
    colour: Rgb

    def painted(self, start: Floats, stop: Floats) -> Floats:
        """Share of the way from each start to each stop (z) that was painted when the line was new."""
        period = self.dash + self.gap

        def metres(z: Floats) -> Floats:  # of dashes up to there
            turns = np.floor((z + self.phase) / period)
            covered: Floats = turns * self.dash + np.minimum(z + self.phase - turns * period, self.dash)
            return covered

        return (metres(stop) - metres(start)) / (stop - start)


@dataclass(frozen=True)
class Road:
    """A road of one or several lanes, seen by a car that drives in one of them."""

    offset: float
    """Metres from the car to the road's middle."""
    heading: float
    bend: float
    """1 / radius, positive to the right."""
    lines: tuple[Line, ...]
    """From left to right."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Road:
        """Some road of up to four lanes; old ones have little paint left."""
        lanes = int(rng.choice([1, 2, 3, 4], p=[0.1, 0.35, 0.35, 0.2]))
        width, ours, dash = rng.uniform(3.1, 3.8), int(rng.integers(lanes)), rng.uniform(2.5, 5.0)
        wear = rng.beta(1.0, 6.0) + (rng.uniform(0.3, 0.6) if rng.random() < 0.15 else 0.0)
        lines = []
        for number in range(lanes + 1):
            solid = rng.random() < (0.85 if number in (0, lanes) else 0.12)
            line = Line(
                place=(number - lanes / 2) * width,
                width=rng.uniform(0.11, 0.2),
                dash=dash,
                gap=0.0 if solid else dash * rng.uniform(1.2, 2.2),
                phase=rng.uniform(0, 20),
                worn=float(np.clip(wear + rng.normal(0, 0.08), 0, 0.95)),
                colour=YELLOW if number == 0 and rng.random() < 0.35 else WHITE,
            )
            lines.append(line)
        bend = rng.normal(0, 0.0012 if rng.random() < 0.6 else 0.005)
        offset = (lanes / 2 - ours - 0.5) * width + rng.normal(0, 0.25)
        return cls(offset, rng.normal(0, 0.012), bend, tuple(lines))

    @property
    def lanes(self) -> list[float]:
        """Metres right of the road's middle of each lane's middle."""
        return [(left.place + right.place) / 2 for left, right in pairwise(self.lines)]

    def centre(self, z: ArrayLike) -> Floats:
        """x of the road's middle."""
        ahead = np.asarray(z, dtype=np.float64)
        near = np.minimum(ahead, BENDS)
        x: Floats = self.offset + self.heading * ahead + self.bend * (near**2 / 2 + near * (ahead - near))
        return x


@dataclass(frozen=True)
class Light:
    """What night and fog do to colours."""

    ambient: float
    beam: float
    """Brightness of the headlights; 0 by day."""
    fog: float
    """Metres at which two thirds of what is seen are haze."""
    haze: Rgb

    @classmethod
    def drawn(cls, rng: np.random.Generator, kind: str) -> Light:
        """Some light of one of `KINDS`."""
        if kind == "night":
            return cls(rng.uniform(0.1, 0.22), rng.uniform(0.75, 1.15), 400.0, (10, 12, 20))
        grey = rng.uniform(165, 210)
        fog = rng.uniform(16, 45) if kind == "fog" else rng.uniform(400, 1500)
        return cls(rng.uniform(0.75, 1.1), 0.0, fog, (grey, grey, grey * rng.uniform(1.0, 1.05)))

    def on(self, colours: ArrayLike, x: ArrayLike, z: ArrayLike) -> Floats:
        """Colours (..., 3) of things at x and z (...), as the camera sees them."""
        distance = np.asarray(z, dtype=np.float64)
        lit = self.beam * np.exp(-((np.asarray(x) / (2.0 + 0.22 * distance)) ** 2)) * np.minimum(1.0, 16 / distance)
        clear = np.exp(-distance / self.fog)
        shown, hazy = np.asarray(colours) * (self.ambient + lit)[..., None], np.array(self.haze)
        seen: Floats = hazy + (shown - hazy) * clear[..., None]
        return seen
