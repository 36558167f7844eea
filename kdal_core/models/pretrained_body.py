"""The maps of a pretrained backbone, for networks that look at places: detectors of boxes, rows of lanes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import Conv2dNormActivation

from kdal_core.errors import ConfigError
from kdal_core.models.backbones import architecture, is_backbone
from kdal_core.models.bodies import Layers, check_maps
from kdal_core.models.network import Normalize
from kdal_core.models.pretrained import torchvision_names

PRETRAINED = "pretrained/"
"""How the names of networks on a pretrained backbone begin; the backbone's follows."""
FROZEN_TO = 4
"""Pixels between neighbouring places of the map up to which layers are not trained: edges and colours suit all images,
and their maps are the largest, so that half of what a step costs is saved."""


def is_pretrained(name: str) -> bool:
    """Whether a name is that of a network on a pretrained backbone.

    >>> is_pretrained("pretrained/mobilenet_v2"), is_pretrained("mobilenet_v2"), is_pretrained("pretrained/x")
    (True, False, False)
    """
    return name.startswith(PRETRAINED) and is_backbone(name.removeprefix(PRETRAINED))


class PretrainedBody(nn.Module):
    """A backbone's maps, shallow to deep, on the pixels that it was pretrained on.

    It has no pretrained parameters before `mark_pretrained` is called. From then on its batch norms keep their
    averages, since those of a few images a step are worse, and its layers up to `FROZEN_TO` are left as they are. (What
    is trained may learn at a rate of its own: `TrainConfig.backbone_lr`.)

    Args:
        name: one that `has_pretrained_features` knows.

    Attributes:
        net: the network; its parameters have the names that they have in files of weights.
        pretrained: whether it was given pretrained parameters.

    Raises:
        ConfigError: an unknown name, or a network whose maps cannot be read.
    """

    net: Any

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.pretrained = name, False
        if name in torchvision_names():
            check_maps(name)
        body: Any
        body, self.preprocessing = architecture(name)
        self.normalize = Normalize(self.preprocessing.mean, self.preprocessing.std)
        if name in torchvision_names():
            self.net = Layers(body)
            self._drop_widening()
        elif hasattr(body, "forward_intermediates") and hasattr(body, "prune_intermediate_layers"):
            self.net = body
            body.prune_intermediate_layers(None, prune_head=True)
        else:
            raise ConfigError(f"{name!r} gives no maps to detect with: choose another backbone.")

    def _drop_widening(self) -> None:
        """Take off a last 1 x 1 convolution: it widens the deepest map for a classifier that is not there."""
        last = self.net.get_submodule(self.net.layers[-1])
        if isinstance(last, Conv2dNormActivation) and last[0].kernel_size == (1, 1):
            del self.net.features[-1]
            self.net.layers.pop()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> maps, shallow to deep, from a quarter of the resolution on."""
        x = self.normalize(self.preprocessing.resized(images)).contiguous(memory_format=torch.channels_last)
        if isinstance(self.net, Layers):
            return [found for _, found in self.net.maps(x)]
        last: dict[torch.Size, Tensor] = {}
        for found in self.net.forward_intermediates(x, intermediates_only=True, output_fmt="NCHW"):
            last[found.shape[2:]] = found
        coarse = [found for size, found in last.items() if 4 * size[0] <= x.shape[2] + 3]
        return coarse or list(last.values())[-1:]

    def mark_pretrained(self) -> None:
        """Say that the parameters that were loaded are pretrained ones."""
        self.pretrained = True
        names, parameters = zip(*self.net.named_parameters(), strict=True)
        stage = self._frozen_stage()
        count = max((number + 1 for number, name in enumerate(names) if name.startswith(f"{stage}.")), default=0)
        for parameter in parameters[:count]:
            parameter.requires_grad_(False)
        self.train(self.training)

    @property
    def trained(self) -> list[nn.Parameter]:
        """Its pretrained parameters that are trained; none before it has any."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad] if self.pretrained else []

    def _frozen_stage(self) -> str | None:
        """The last layer or stage that is not trained; none of a network that begins with coarser maps."""
        if isinstance(self.net, Layers):
            side = 16 * FROZEN_TO
            with torch.no_grad():
                name, found = self.net.eval().maps(next(self.net.parameters()).new_zeros(1, 3, side, side))[0]
            return name if side <= FROZEN_TO * found.shape[2] else None
        stages = [stage["module"] for stage in self.net.feature_info if stage["reduction"] <= FROZEN_TO]
        return stages[-1] if stages else None

    def train(self, mode: bool = True) -> PretrainedBody:
        """As any module, but that pretrained batch norms stay as they are."""
        super().train(mode)
        if self.pretrained:
            for module in self.net.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
