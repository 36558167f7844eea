"""Dropout in front of a network's head, so that one trained network can be asked many times (MC dropout)."""

from __future__ import annotations

from torch import Tensor, nn

from kdal_core.models.network import Network
from kdal_core.validation import InvalidInput


class DropoutNet(Network):
    """A network with dropout between its features and its head: on in training, off in eval mode.

    It has no parameters of its own: save and load `inner`, wrap it again.

    Args:
        inner: a network whose outputs are `inner.head(features)`, as those of `build_model` are.
        p: share of the features that is dropped, in [0, 1); the others are scaled by 1 / (1 - p).

    Raises:
        InvalidInput: a network without a head over its features, or a rate out of range.

    Source: Gal & Ghahramani 2016 (arXiv:1506.02142); in front of the last layer only, which is our choice:
    a pass then costs one head, not one network. `kdal_core.training.stochastic` makes the passes.

    >>> import torch
    >>> from kdal_core.models import build_model
    >>> model = DropoutNet(build_model("small_cnn", num_classes=10, image_size=(8, 8)), p=0.3)
    >>> model(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, inner: Network, p: float = 0.5) -> None:
        super().__init__()
        if "head" not in dict(inner.named_children()):
            raise InvalidInput(f"inner must have a head over its features; {type(inner).__name__} has none.")
        if not 0 <= p < 1:
            raise InvalidInput(f"p must be a share in [0, 1), not {p!r}.")
        self.inner, self.p = inner, p
        self.dropout = nn.Dropout(p)

    @property
    def head(self) -> nn.Module:
        """The last layer of `inner`, features (B, D) -> outputs."""
        return self.inner.get_submodule("head")

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of `inner`."""
        return self.inner.pretrained_parameters()

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> outputs after dropout, features (B, D) before it."""
        features = self.inner.features(images)  # (B, D)
        return self.head(self.dropout(features)), features
