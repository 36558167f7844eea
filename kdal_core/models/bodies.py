"""The convolutional parts of networks that look at places: maps of an image, from shallow to deep."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdal_core.errors import ConfigError
from kdal_core.models.network import Normalize
from kdal_core.models.pretrained import IMAGENET_MEAN, IMAGENET_STD, torchvision_model

BACKBONES = (
    "alexnet",
    "convnext",
    "densenet",
    "efficientnet",
    "mobilenet",
    "resnet",
    "resnext",
    "squeezenet",
    "vgg",
    "wide_resnet",
)
"""How the names of torchvision's networks begin whose maps can be read: a list of layers, channels first."""


class SmallBody(nn.Module):
    """Stages of convolutions, each halving the image; all maps but the first stage's.

    Widths should be multiples of 16: oneDNN's channels-last kernels for 8 channels crash in the backward pass.

    Args:
        stages: channels of each.
        convolutions: of a stage, the halving one among them; the first two have one less beside it.
    """

    def __init__(self, stages: tuple[int, ...], convolutions: int) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        made, channels = [], 3
        for number, width in enumerate(stages):
            layers = [convolution(channels, width, 3, stride=2)]
            layers += [convolution(width, width, 3) for _ in range(convolutions if number > 1 else convolutions - 1)]
            made.append(nn.Sequential(*layers))
            channels = width
        self.stages = nn.ModuleList(made)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps, shallow to deep."""
        x, maps = self.normalize(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]


def check_maps(name: str) -> None:
    """Refuse a network of torchvision that is not among `BACKBONES`.

    Raises:
        ConfigError: says which are.
    """
    if not name.startswith(BACKBONES):
        known = ", ".join(BACKBONES)
        raise ConfigError(
            f"{name!r} gives no maps to detect with: of torchvision's networks kdal reads those named {known}."
        )


class Layers(nn.Module):
    """The convolutional layers of a torchvision network, one after the other: its last map at each resolution.

    They have torchvision's own names, so that files of torchvision's weights fit.

    Args:
        model: a network whose name `check_maps` has let pass.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if isinstance(features := getattr(model, "features", None), nn.Sequential):
            self.features = features
            self.layers = [f"features.{layer}" for layer, _ in features.named_children()]
        else:
            self.layers = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
            for layer in self.layers:
                self.add_module(layer, model.get_submodule(layer))

    def maps(self, x: Tensor) -> list[tuple[str, Tensor]]:
        """(B, 3, H, W), normalised -> (the layer's name, its map) from a quarter of the resolution on."""
        last, height = {}, x.shape[2]
        for layer in self.layers:
            x = self.get_submodule(layer)(x)
            last[x.shape[2:]] = layer, x
        coarse = [found for size, found in last.items() if 4 * size[0] <= height + 3]
        return coarse or [(self.layers[-1], x)]


class TorchvisionBody(Layers):
    """`Layers` of a network by its name, fresh or with the weights that torchvision downloads.

    Raises:
        ConfigError: a network that is not among `BACKBONES`.
    """

    def __init__(self, name: str, image_size: tuple[int, int], *, pretrained: bool) -> None:
        check_maps(name)
        super().__init__(torchvision_model(name, image_size, pretrained))
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps, shallow to deep."""
        return [found for _, found in self.maps(self.normalize(images))]


def convolution(channels: int, width: int, kernel: int | tuple[int, int], stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU; odd kernels keep the map's size but for the stride."""
    height, breadth = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = ((height - 1) // 2, (breadth - 1) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, width, (height, breadth), stride, padding, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


def map_shapes(body: nn.Module, image_size: tuple[int, int]) -> list[torch.Size]:
    """Shapes of a body's maps for one image; in eval mode, since batch norm cannot take one image otherwise."""
    body.eval()
    with torch.no_grad():
        parameter = next(body.parameters())
        shapes = [found.shape for found in body(parameter.new_zeros(1, 3, *image_size))]
    body.train()
    return shapes
