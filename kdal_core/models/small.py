"""Small networks for images of 8 to 64 pixels: `small_cnn` (student) and `wide_cnn` (teacher) are the default pair;
`tiny_cnn` and `mid_cnn` are a cheaper one, for campaigns of hundreds of trainings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from kdal_core.models.network import Normalize, StagedNetwork

LARGEST_SIDE = 64


@dataclass(frozen=True)
class SmallShape:
    """Width of the first stage, convolutions in each stage, and length of the feature vector.

    Widths are multiples of 16: oneDNN's channels-last kernels for 8 channels crash in the backward pass.
    """

    width: int
    convolutions: int
    features: int


SHAPES: dict[str, SmallShape] = {
    "tiny_cnn": SmallShape(width=16, convolutions=1, features=64),
    "small_cnn": SmallShape(width=32, convolutions=1, features=64),
    "mid_cnn": SmallShape(width=32, convolutions=2, features=96),
    "wide_cnn": SmallShape(width=64, convolutions=2, features=128),
}


class SmallNet(StagedNetwork):
    """Stages of convolutions, halving the image until its short side is about 4, then 2x2 pooled features."""

    def __init__(self, shape: SmallShape, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        halvings = max(0, min(4, int(math.log2(max(1, min(image_size)) / 4)))) if min(image_size) >= 4 else 0
        layers: list[nn.Module] = [Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))]
        channels = 3
        for stage in range(halvings + 1):
            width = shape.width if stage == 0 else 2 * shape.width
            for _ in range(shape.convolutions):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
            if stage < halvings:
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.embed = nn.Sequential(
            nn.Linear(4 * channels, shape.features, bias=False), nn.BatchNorm1d(shape.features), nn.ReLU()
        )
        self.head = nn.Linear(shape.features, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, width, H, W): normalised, convolved, batch-normalised."""
        maps: Tensor = self.body[:3](images)
        return maps

    def trunk(self, maps: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, D) before the last rectifier."""
        hidden: Tensor = self.embed[:2](self.body[3:](maps))
        return hidden

    def tail(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) -> logits (B, C), features (B, D)."""
        features: Tensor = self.embed[2](hidden)
        return self.head(features), features
