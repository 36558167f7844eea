"""A second head that predicts, from several depths of a network, the loss the network will have on an image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdal_core.models.network import Network
from kdal_core.models.seeding import seeded
from kdal_core.validation import InvalidInput

# Layers whose 4-D outputs are (B, channels, H, W) in every torchvision network. Others (LayerNorm, GELU,
# Linear) also give 4-D outputs with the channels last, which cannot be told apart from their shape.
MAPS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish)


class LossHeadNet(Network):
    """A network and a small module beside it that predicts each image's loss from features of all depths.

    Levels: the last feature map at each resolution above 1 x 1, averaged over its area, and the pooled
    features. Each level goes through Linear(width) and ReLU; all together through Linear(1). Where a network
    joins parallel branches without a layer after it (SqueezeNet, GoogLeNet), a map is that of one branch.

    Args:
        inner: any network with a `body`; it is trained together with the loss head.
        image_size: (height, width) in pixels of the images it will see; the levels are found by one run.
        width: numbers kept of each level, 1 to 128 (the paper's).
        joint: whether the loss head's gradient also reaches `inner`.
        seed: of the loss head's parameters. The process's own random state is left as it was.

    Raises:
        InvalidInput: a network without a body, or a width out of range.

    Source: Yoo & Kweon 2019 (arXiv:1905.03677), section 3.2. There the gradient reaches the network for the
    first 120 of 200 epochs only. A network here does not know how far its training is, so it is all or
    nothing, by default nothing: `inner` then learns exactly what it would learn alone, and a strategy that
    ranks by predicted loss is compared on the same model as all others. With few labels joint training also
    did worse (digits, 60 and 200 labels, 300 steps, 3 seeds each: accuracy 3 to 7 points lower, and
    a lower rank correlation between predicted and true loss).

    >>> from kdal_core.models import build_model
    >>> model = LossHeadNet(build_model("small_cnn", num_classes=10, image_size=(8, 8)), (8, 8))
    >>> logits, predicted_loss = model(torch.zeros(2, 3, 8, 8))
    >>> logits.shape, predicted_loss.shape
    (torch.Size([2, 10]), torch.Size([2]))
    """

    def __init__(
        self, inner: Network, image_size: tuple[int, int], *, width: int = 128, joint: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        if "body" not in dict(inner.named_children()):
            raise InvalidInput(f"inner must have a body; {type(inner).__name__} has none.")
        if not 1 <= width <= 128:
            raise InvalidInput(f"width must lie from 1 to 128, not {width!r}.")
        self.inner, self.joint = inner, joint
        sizes = [level.shape[1] for level in self._probe(image_size)]
        with seeded(seed):
            self.levels = nn.ModuleList(nn.Sequential(nn.Linear(size, width), nn.ReLU()) for size in sizes)
            self.loss_head = nn.Linear(width * len(sizes), 1)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of `inner`."""
        return self.inner.pretrained_parameters()

    def forward_with_features(self, images: Tensor) -> tuple[Any, Tensor]:
        """(B, 3, H, W) -> (outputs of `inner`, predicted losses (B,)), features (B, D)."""
        outputs, features, levels = self._run(images)
        if not self.joint:
            levels = [level.detach() for level in levels]
        kept = [layer(level) for layer, level in zip(self.levels, levels, strict=True)]  # each (B, width)
        predicted = self.loss_head(torch.cat(kept, dim=1)).squeeze(1)  # (B,)
        return (outputs, predicted), features

    def _run(self, images: Tensor) -> tuple[Any, Tensor, list[Tensor]]:
        """Outputs, features (B, D) and levels, each (B, channels), shallowest first."""
        with _last_maps(self.inner.get_submodule("body")) as maps:
            outputs, features = self.inner.forward_with_features(images)
        return outputs, features, [level.mean(dim=(2, 3)) for level in maps.values()] + [features]

    def _probe(self, image_size: tuple[int, int]) -> list[Tensor]:
        """The levels of one black image; in eval mode, since batch norm cannot take one image otherwise."""
        training = self.inner.training
        self.inner.eval()
        with torch.inference_mode():
            levels = self._run(torch.zeros(1, 3, *image_size))[2]
        self.inner.train(training)
        return levels


@contextmanager
def _last_maps(body: nn.Module) -> Iterator[dict[torch.Size, Tensor]]:
    """Listen to a body for one pass: {(H, W): the last map (B, channels, H, W) of that size}."""
    maps: dict[torch.Size, Tensor] = {}

    def listen(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if output.ndim == 4 and output.shape[2:].numel() > 1:  # 1 x 1: a channel gate, or pooled already
            maps[output.shape[2:]] = output

    hooks = [module.register_forward_hook(listen) for module in body.modules() if isinstance(module, MAPS)]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()
