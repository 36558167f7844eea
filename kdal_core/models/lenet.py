"""LeNet-5: student and teacher of the black-box distillation literature on MNIST and Fashion-MNIST."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdal_core.models.network import StagedNetwork

LENET = "lenet5"
SHORTEST_SIDE = 12  # pixels: the second convolution then leaves 2 x 2, the second pooling 1 x 1


class LeNet5(StagedNetwork):
    """Two 5 x 5 convolutions and three linear layers: 61,706 parameters at 28 x 28 pixels and ten classes.

    It sees grey images: the mean of the three channels. Rectifiers and max-pooling stand in place of the
    original's tanh and learnt subsampling, as in the code that results are published with today.

    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition, figure 2.
    """

    def __init__(self, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        if min(image_size) < SHORTEST_SIDE:
            raise ValueError(f"LeNet-5 needs at least {SHORTEST_SIDE} pixels a side")
        height, width = ((side // 2 - 4) // 2 for side in image_size)
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * height * width, 120)
        self.fc2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, num_classes)

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 6, H, W): grey, in [-1, 1], convolved."""
        grey = images.mean(dim=1, keepdim=True) * 2 - 1
        maps: Tensor = self.conv1(grey)
        return maps

    def trunk(self, maps: Tensor) -> Tensor:
        """(B, 6, H, W) -> (B, 84) before the last rectifier."""
        x = F.relu(_halved(maps))  # the same as rectifying first, at a quarter of the work
        x = F.relu(_halved(self.conv2(x)))  # (B, 16, h, w)
        hidden: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return hidden

    def tail(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 84) -> logits (B, C), features (B, 84)."""
        features = F.relu(hidden)
        return self.head(features), features


def _halved(maps: Tensor) -> Tensor:
    """2 x 2 max-pooling of (B, C, H, W), an odd last row or column left out.

    On a CPU, torch's own takes twenty times as long for maps this small: two thirds of the network's time. Its
    gradient is the faster one, so training keeps it; the values are the same.
    """
    if maps.requires_grad or maps.is_cuda:
        return F.max_pool2d(maps, 2)
    height, width = maps.shape[2] // 2 * 2, maps.shape[3] // 2 * 2
    rows = torch.maximum(maps[:, :, 0:height:2], maps[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])
