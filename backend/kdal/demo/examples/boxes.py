"""Boxes around cells in rendered pictures of blood, as somebody draws them who is in a hurry."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from kdal.demo.examples.blood_cells import KINDS, SIZE, Smear, render

Json = dict[str, Any]
Corners = tuple[float, float, float, float]

UNSTEADY = 1.5
"""Pixels by which a hand misses a border, the deviation either way."""


class Boxes:
    """A box around each cell, also where another hides a part of it."""

    name = "boxes"
    title = "Blood cells"
    label_config = """<View>
  <Header value="Draw a box around each cell and platelet"/>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="cell" toName="image">
    <Label value="red cell" background="#d14343"/>
    <Label value="white cell" background="#7b4fc9"/>
    <Label value="platelet" background="#0f9d8f"/>
  </RectangleLabels>
</View>"""
    # Small networks and three quarters of the pixels either way: a round takes a minute or two without a GPU.
    policy: Json = {  # noqa: RUF012
        "budget": 20,
        "image_size": 240,
        "student": "tiny_boxes",
        "teacher": "small_boxes",
    }
    rounds = 4
    draws = 1
    suffix = "jpg"

    def __len__(self) -> int:
        return 400

    def image(self, index: int) -> bytes:
        """A picture as a JPEG file."""
        file = io.BytesIO()
        Image.fromarray(_smear(index).image).save(file, "JPEG", quality=92)
        return file.getvalue()

    def truth(self, index: int) -> list[Json]:
        """Where the cells are, as Label Studio has it."""
        return [_region(cell.box, cell.kind, number) for number, cell in enumerate(_smear(index).cells)]

    def answer(self, index: int) -> list[Json]:
        """What somebody draws: borders that are not quite where they should be."""
        hand = np.random.default_rng(index)
        regions = []
        for number, cell in enumerate(_smear(index).cells):
            left, top, right, bottom = (np.array(cell.box) + hand.normal(0, UNSTEADY, 4)).tolist()
            regions.append(_region((left, top, max(right, left + 2), max(bottom, top + 2)), cell.kind, number))
        return regions


@lru_cache(maxsize=16)
def _smear(index: int) -> Smear:
    return render(index)


def _region(box: Corners, kind: int, number: int) -> Json:
    height, width = SIZE
    shares = (np.array(box) / (width, height, width, height)).clip(0.0, 1.0) * 100
    left, top, right, bottom = shares.tolist()
    value = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
    return {
        "id": f"cell-{number}",
        "from_name": "cell",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, "rectanglelabels": [KINDS[kind]]},
    }
