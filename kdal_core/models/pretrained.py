"""Any torchvision classification network by its name, with our head on its last features."""

from __future__ import annotations

from typing import Any
from urllib.error import URLError

import torchvision
from torch import Tensor, nn

from kdal_core.errors import ConfigError
from kdal_core.models.network import Network, Normalize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def torchvision_names() -> list[str]:
    """Names of torchvision's classification networks."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


class TorchvisionNet(Network):
    """A torchvision network whose last layer is taken off; `head` stands in its place."""

    def __init__(self, name: str, num_classes: int, *, image_size: tuple[int, int], pretrained: bool) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        self.body = torchvision_model(name, image_size, pretrained)
        self.head = nn.Linear(_take_off_last_layer(self.body), num_classes)

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> logits (B, C), features (B, D)."""
        features: Tensor = self.body(self.normalize(images))  # (B, D)
        return self.head(features), features


def headless(name: str) -> nn.Module:
    """A torchvision network with random parameters, without its last layer."""
    model = torchvision_model(name, (224, 224), pretrained=False)
    _take_off_last_layer(model)
    return model


def torchvision_model(name: str, image_size: tuple[int, int], pretrained: bool) -> nn.Module:
    """A network as torchvision builds it, downloaded weights and all.

    Raises:
        ConfigError: the weights cannot be downloaded.
    """
    options: dict[str, Any] = {}
    if name in {"inception_v3", "googlenet"}:
        options = {"aux_logits": False} if pretrained else {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_") and not pretrained:
        options = {"image_size": image_size[0]}
    elif name.startswith("maxvit") and not pretrained:
        options = {"input_size": image_size}
    try:
        model: nn.Module = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
    except (URLError, OSError, RuntimeError) as error:
        if not pretrained:
            raise  # the caller knows what it asked for
        raise ConfigError(
            f"The pretrained weights of {name!r} could not be downloaded ({error}). Give weights a path to a "
            "local .safetensors file, or 'none' to train from scratch."
        ) from error
    return model


def _take_off_last_layer(model: nn.Module) -> int:
    """Replace the last linear (or 1x1 convolution) layer by nothing; return how many features it took."""
    name, layer = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][
        -1
    ]
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, nn.Identity())
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
