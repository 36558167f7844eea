"""What every network of kdal can do: give outputs, and give one feature vector for each image."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Network(nn.Module):
    """Base of all networks. Takes float images (B, 3, H, W) in [0, 1]; normalises them itself.

    A network of another task overrides `forward_with_features`; the two short ways in follow from it.
    """

    def forward_with_features(self, images: Tensor) -> tuple[Any, Tensor]:
        """(B, 3, H, W) -> raw outputs for the task, and pooled features (B, D), in one pass."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Any:
        """(B, 3, H, W) -> raw outputs; for classification logits (B, C), for lanes `LaneOutputs`."""
        return self.forward_with_features(images)[0]

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> pooled features of the last layer but one, (B, D)."""
        return self.forward_with_features(images)[1]

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that are trained at a learning rate of their own (`TrainConfig.backbone_lr`); by default none."""
        return []


class StagedNetwork(Network):
    """A network in three parts, for those who look at many mixes of few images (`kdal_core.distillation`).

    The outputs are `tail(trunk(stem(images)))`. In eval mode `stem` is affine in the images, so the stem of a mix is
    the mix of the stems; `tail` is cheap beside the other two.
    """

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> maps (B, ...), affine in the images in eval mode."""
        raise NotImplementedError

    def trunk(self, maps: Tensor) -> Tensor:
        """Maps (B, ...) of `stem`, which may be overwritten -> hidden values (B, D), not yet rectified."""
        raise NotImplementedError

    def tail(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) of `trunk` -> outputs (B, C), features (B, F)."""
        raise NotImplementedError

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> logits (B, C), features (B, F)."""
        return self.tail(self.trunk(self.stem(images)))


class Normalize(nn.Module):
    """Images in [0, 1] -> (images - mean) / std for each of the three channels."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        mean = images.new_tensor(self.mean).view(1, 3, 1, 1)
        std = images.new_tensor(self.std).view(1, 3, 1, 1)
        return (images - mean) / std


def parameter_count(model: nn.Module) -> int:
    """Number of trainable numbers in a model; also right for a model built on the meta device.

    >>> parameter_count(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())
