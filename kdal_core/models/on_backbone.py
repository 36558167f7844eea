"""A classifier that is one layer on the features of a backbone: what frozen and fine-tuned ones have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdal_core.models.backbones import Backbone
from kdal_core.models.network import Network


class ClassifierOnBackbone(Network):
    """A backbone and a linear head.

    Args:
        backbone: one with its weights, or a name, where a checkpoint brings them.
        num_classes: C >= 1.
    """

    def __init__(self, backbone: Backbone | str, num_classes: int) -> None:
        super().__init__()
        self.backbone = Backbone(backbone) if isinstance(backbone, str) else backbone
        self.head = nn.Linear(self.backbone.width, num_classes)
        self.register_buffer("normalised", torch.tensor(False))

    def set_head(self, weight: Tensor, bias: Tensor, *, normalised: bool) -> None:
        """Replace the head.

        Args:
            weight, bias: (C, D), (C,).
            normalised: whether the head takes features of length 1.
        """
        with torch.no_grad():
            self.head.weight.copy_(weight)
            self.head.bias.copy_(bias)
            self.get_buffer("normalised").fill_(normalised)

    def logits(self, features: Tensor) -> Tensor:
        """(B, D) of the backbone -> (B, C)."""
        length = torch.where(self.get_buffer("normalised"), features.norm(dim=1, keepdim=True), 1.0)
        logits: Tensor = self.head(features / length.clamp_min(1e-12))
        return logits

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> logits (B, C), features (B, D)."""
        features = self.backbone(images)
        return self.logits(features), features
