"""Lane markings on rendered roads, as somebody draws them who is in a hurry."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdal.demo.examples.road_scenes import SIZE, RoadScene, render

Json = dict[str, Any]
Floats = NDArray[np.float64]

CLICKS = 7
"""Vertices with which somebody draws a lane."""
UNSTEADY = 1.2
"""Pixels by which a hand misses, the deviation either way: three and a half in an image as wide as TuSimple's."""


class Lanes:
    """A polyline for each painted line, through gaps, wear and whatever hides it."""

    name = "lanes"
    title = "Lane markings"
    label_config = """<View>
  <Header value="Draw each lane marking, also where a vehicle hides it"/>
  <Image name="image" value="$image" zoom="true"/>
  <VectorLabels name="lane" toName="image" closable="false" curves="false" minPoints="2" pointSize="medium">
    <Label value="lane" background="#00b8d9"/>
  </VectorLabels>
</View>"""
    # Small networks and half the pixels either way: a round takes two or three minutes on a laptop without a GPU.
    policy: Json = {  # noqa: RUF012
        "budget": 30,
        "image_size": 200,
        "student": "tiny_rows",
        "teacher": "mid_rows",
        "batch_size": 16,
    }
    rounds = 3
    draws = 1
    suffix = "jpg"

    def __len__(self) -> int:
        return 600

    def image(self, index: int) -> bytes:
        """A scene as a JPEG file."""
        file = io.BytesIO()
        Image.fromarray(_scene(index).image).save(file, "JPEG", quality=92)
        return file.getvalue()

    def truth(self, index: int) -> list[Json]:
        """Where the lanes are, as Label Studio has it."""
        return [_region(lane.points, number) for number, lane in enumerate(_scene(index).lanes)]

    def answer(self, index: int) -> list[Json]:
        """What somebody draws: a few vertices each, not quite where they should be."""
        hand = np.random.default_rng(index)
        drawn = [_few(lane.points) for lane in _scene(index).lanes]
        return [_region(points + hand.normal(0, UNSTEADY, points.shape), i) for i, points in enumerate(drawn)]


@lru_cache(maxsize=16)
def _scene(index: int) -> RoadScene:
    return render(index)


def _few(points: Floats) -> Floats:
    """(CLICKS, 2) of a lane's points (n, 2), equally far apart along it."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    return points[np.searchsorted(along, np.linspace(0, along[-1], CLICKS))]


def _region(points: Floats, number: int) -> Json:
    height, width = SIZE
    shares = (points / (width, height)).clip(0.0, 1.0) * 100
    names = [f"lane-{number}-{i}" for i in range(len(points))]
    vertices = [
        {"id": name, "x": x, "y": y, "prevPointId": before, "isBezier": False}
        for name, before, (x, y) in zip(names, [None, *names[:-1]], shares.tolist(), strict=True)
    ]
    return {
        "id": f"lane-{number}",
        "from_name": "lane",
        "to_name": "image",
        "type": "vectorlabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"vertices": vertices, "closed": False, "vectorlabels": ["lane"]},
    }
