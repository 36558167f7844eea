"""Row-anchor networks: for each lane slot and row of the image, in which column the lane is, or that it is absent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdal_core.models.bodies import convolution, map_shapes
from kdal_core.models.network import Network
from kdal_core.models.pretrained_body import PretrainedBody

SQUEEZED = 8  # channels of the deepest map that the slots' presence is read from
MOST_CELLS = 1024  # of that map; larger ones are averaged down, or the layer that reads them would outgrow the network


class LaneOutputs(NamedTuple):
    """What a row-anchor network says of a batch, before any softmax.

    Attributes:
        rows: (B, S, R, G + 1) logits: for each of S slots and R row anchors, G columns and "absent" last.
        kinds: (B, S, C) logits of the lane's class.
    """

    rows: Tensor
    kinds: Tensor


@dataclass(frozen=True)
class RowShape:
    """Channels of each stage, of which each halves the image; convolutions a stage; channels of the joined map.

    Widths are multiples of 16: oneDNN's channels-last kernels for 8 channels crash in the backward pass.
    """

    stages: tuple[int, ...]
    convolutions: int
    joined: int
    context: int
    """Length of the vector that sums the image up."""


ROW_SHAPES: dict[str, RowShape] = {
    "tiny_rows": RowShape(stages=(16, 32, 48, 64), convolutions=1, joined=32, context=64),
    "small_rows": RowShape(stages=(16, 32, 64, 96), convolutions=2, joined=48, context=96),
    "mid_rows": RowShape(stages=(16, 48, 96, 192), convolutions=2, joined=48, context=256),
    "wide_rows": RowShape(stages=(32, 64, 128, 256), convolutions=3, joined=96, context=256),
}
"""Networks of our own for small images; `tiny_rows` and `mid_rows`, `small_rows` and `wide_rows` are pairs."""


class RowAnchorNet(Network):
    """A convolutional body, its maps joined from deep to shallow, and for each slot a map of where its lane is.

    Where: a 1 x 1 convolution of the joined map, one channel for each slot, read at R rows and G columns. Whether, and
    of which class: from the deepest map, flattened, since to count lanes from the middle outwards means to look at
    the whole image. The row-wise form, "absent" as one more column, and the numbering of slots are those of Ultra
    Fast Lane Detection; its fully connected layer over rows and columns needs many more labels than the convolution.

    Source: Qin, Wang & Li 2020 (arXiv:2004.11757), section 3; the convolutional head is our choice.

    Args:
        body: the stages of a backbone.
        image_size: (height, width) in pixels.
        slots, rows, columns: S, R, G.
        classes: C.
        joined: channels of the joined map.
        context: length of the vector read from the deepest map.
    """

    def __init__(
        self,
        body: nn.Module,
        image_size: tuple[int, int],
        *,
        slots: int,
        rows: int,
        columns: int,
        classes: int,
        joined: int,
        context: int,
    ) -> None:
        super().__init__()
        self.slots, self.rows, self.columns = slots, rows, columns
        self.body = body
        maps = map_shapes(body, image_size)
        self.laterals = nn.ModuleList(nn.Conv2d(size[1], joined, 1) for size in maps)
        # A lane is long and thin: context along rows first, then along columns; of the finest map but one, where a
        # convolution costs a quarter.
        self.join = nn.Sequential(
            convolution(joined, joined, (1, 9)), convolution(joined, joined, (7, 1)), convolution(joined, joined, 3)
        )
        self.where = nn.Conv2d(joined, slots, 1)
        _, channels, height, width = maps[-1]
        shrink = math.ceil(math.sqrt(height * width / MOST_CELLS))
        self.squeeze = nn.Sequential(nn.Conv2d(channels, SQUEEZED, 1), nn.AvgPool2d(shrink, ceil_mode=True))
        cells = math.ceil(height / shrink) * math.ceil(width / shrink)
        self.context = nn.Sequential(nn.Linear(SQUEEZED * cells, context), nn.ReLU())
        self.absent = nn.Linear(context, slots * rows)
        self.kinds = nn.Linear(context, slots * classes)
        self.to(memory_format=torch.channels_last)  # a CPU's convolutions are a quarter faster so, with bfloat16 more

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of its body that are trained, where this is a pretrained one."""
        return self.body.trained if isinstance(self.body, PretrainedBody) else []

    def forward_with_features(self, images: Tensor) -> tuple[LaneOutputs, Tensor]:
        """(B, 3, H, W) in [0, 1] -> outputs, features (B, D): the context and the joined map's mean."""
        images = images.contiguous(memory_format=torch.channels_last)
        maps: list[Tensor] = self.body(images)  # shallow to deep, each (B, channels, h, w)
        joined = self.laterals[-1](maps[-1])
        for depth in reversed(range(len(maps) - 1)):
            if depth == 0:
                joined = self.join(joined)
            finer = maps[depth]
            above = F.interpolate(joined, size=finer.shape[2:], mode="bilinear", align_corners=False)
            joined = self.laterals[depth](finer) + above
        joined = F.relu(joined)
        context = self.context(self.squeeze(maps[-1]).flatten(1))  # (B, context)
        where = F.interpolate(
            self.where(joined), size=(self.rows, self.columns), mode="bilinear", align_corners=False
        )  # (B, S, R, G)
        absent = self.absent(context).view(-1, self.slots, self.rows, 1)
        # so that "absent" competes with all columns together, however many they are
        absent = absent + torch.logsumexp(where.float(), dim=-1, keepdim=True).to(absent.dtype)
        outputs = LaneOutputs(torch.cat([where, absent], dim=-1), self.kinds(context).view(len(images), self.slots, -1))
        return outputs, torch.cat([context, joined.mean(dim=(2, 3))], dim=1)
