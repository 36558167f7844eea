"""Handwritten digits: 1,797 real ones of 8 x 8 pixels that scikit-learn brings along."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

Json = dict[str, Any]


class Digits:
    """One choice of ten for each image."""

    name = "digits"
    title = "Handwritten digits"
    label_config = """<View>
  <Header value="Which digit is this?"/>
  <Image name="image" value="$image" width="320px" zoom="false" zoomControl="false"/>
  <Choices name="digit" toName="image" choice="single" required="true" showInline="true">
    {choices}
  </Choices>
</View>""".format(choices="\n    ".join(f'<Choice value="{digit}" hotkey="{digit}"/>' for digit in range(10)))
    policy: Json = {"budget": 50}  # noqa: RUF012
    rounds = 5
    draws = 3
    suffix = "png"

    def __init__(self) -> None:
        self._digits = load_digits()

    def __len__(self) -> int:
        return len(self._digits.images)

    def image(self, index: int) -> bytes:
        """A digit as a PNG file."""
        file = io.BytesIO()
        Image.fromarray((self._digits.images[index] * 255 / 16).round().astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    def truth(self, index: int) -> list[Json]:
        """What the digit is, as Label Studio has it."""
        choice = str(self._digits.target[index])
        return [{"from_name": "digit", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}]

    def answer(self, index: int) -> list[Json]:
        """What somebody chooses, who knows digits."""
        return self.truth(index)
