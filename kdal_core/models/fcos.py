"""Dense anchor-free detectors: at each place of one grid, what lies there and how far its box reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from kdal_core.errors import ConfigError
from kdal_core.models.bodies import map_shapes
from kdal_core.models.network import Network, Normalize
from kdal_core.models.pretrained import IMAGENET_MEAN, IMAGENET_STD
from kdal_core.models.pretrained_body import PretrainedBody

FINEST = 8
"""Pixels between neighbouring places of the finest level; each further level doubles them."""
MOST_LEVELS = 5
REACH = 8.0
"""Strides that a box may reach from a place of its level, but for the coarsest."""
PRIOR = 0.01
"""Probability of a class at a place before anything is learnt, so that focal loss is not drowned at first."""
FIRST_REACH = 2.0
"""Strides that boxes reach before anything is learnt, about."""
FCOS = "fcos_resnet50_fpn"
"""torchvision's own detector."""

Levels = tuple[tuple[int, int], ...]


class BoxOutputs(NamedTuple):
    """What a dense detector says of a batch, before any sigmoid.

    The A places are those of all levels one after the other, finest first, each row by row.

    Attributes:
        logits: (B, A, C), one for each class on its own.
        reach: (B, A, 4) how far a box reaches left, up, right and down of its place, in strides of the level, >= 0.
        centre: (B, A) logits of centre-ness: how near the place is to the middle of its box.
        grid: (A, 4) the places' x and y and their level's stride along x and y, as shares of the image's width and
            height.
        levels: (height, width) of each level.
        places: (B, A, E) features of each place, of the pyramid; None where nobody computed them.
    """

    logits: Tensor
    reach: Tensor
    centre: Tensor
    grid: Tensor
    levels: Levels
    places: Tensor | None = None


@dataclass(frozen=True)
class BoxShape:
    """Channels of each stage, of which each halves the image; convolutions a stage; channels and depth of the towers.

    Widths are multiples of 16: oneDNN's channels-last kernels for 8 channels crash in the backward pass.
    """

    stages: tuple[int, ...]
    convolutions: int
    joined: int
    depth: int


BOX_SHAPES: dict[str, BoxShape] = {
    "tiny_boxes": BoxShape(stages=(16, 32, 48, 64, 48), convolutions=1, joined=32, depth=1),
    "small_boxes": BoxShape(stages=(16, 32, 64, 96, 128), convolutions=2, joined=48, depth=2),
    "mid_boxes": BoxShape(stages=(16, 48, 96, 128, 160), convolutions=2, joined=64, depth=2),
    "wide_boxes": BoxShape(stages=(32, 64, 128, 256, 256), convolutions=3, joined=128, depth=2),
}
"""Networks of our own for small images; `tiny_boxes` and `small_boxes` are the cheapest pair, `small_boxes` and
`wide_boxes` the default one."""


def grid_levels(image_size: tuple[int, int]) -> Levels:
    """(height, width) of each level for images of a (height, width): as many levels as their largest box needs.

    All networks for images of one size have the same, so that student and teacher speak of the same places.

    >>> grid_levels((240, 320)), len(grid_levels((800, 1333)))
    (((30, 40), (15, 20), (8, 10)), 5)
    """
    count = 1
    while count < MOST_LEVELS and REACH * FINEST * 2 ** (count - 1) < max(image_size) / 2:
        count += 1
    strides = [FINEST * 2**level for level in range(count)]
    return tuple((math.ceil(image_size[0] / stride), math.ceil(image_size[1] / stride)) for stride in strides)


def place_grid(image_size: tuple[int, int], levels: Levels) -> Tensor:
    """(A, 4) `BoxOutputs.grid`: each place lies in the middle of its cell."""
    height, width = image_size
    parts = []
    for number, (rows, columns) in enumerate(levels):
        stride = FINEST * 2**number
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        steps = torch.tensor([stride / width, stride / height])
        places = torch.stack([x.flatten(), y.flatten()], dim=1) * steps
        parts.append(torch.cat([places, steps.expand(len(places), 2)], dim=1))
    return torch.cat(parts)


class BoxNet(Network):
    """A convolutional body, its maps joined from deep to shallow to a pyramid, and two towers that all levels share.

    Source: Tian et al. 2019, FCOS (arXiv:1904.01355), with centre-ness beside the boxes as in arXiv:2006.09214. Ours:
    the sizes, as many levels as the image needs, softplus for reaches.

    Args:
        body: the stages of a backbone.
        image_size: (height, width) in pixels.
        classes: C.
        joined: channels of the pyramid and the towers.
        depth: convolutions of each tower.
    """

    def __init__(self, body: nn.Module, image_size: tuple[int, int], *, classes: int, joined: int, depth: int) -> None:
        super().__init__()
        self.body, self.image_size, self.levels = body, image_size, grid_levels(image_size)
        shapes = map_shapes(body, image_size)
        self.sources = _sources([(shape[2], shape[3]) for shape in shapes], self.levels)
        self.laterals = nn.ModuleList(nn.Conv2d(shapes[source][1], joined, 1) for source in self.sources)
        beyond = len(self.levels) - len(self.sources)
        self.further = nn.ModuleList(nn.Conv2d(joined, joined, 3, stride=2, padding=1) for _ in range(beyond))
        self.smooth = nn.ModuleList(nn.Conv2d(joined, joined, 3, padding=1) for _ in self.sources)
        self.what = _tower(joined, depth)
        self.where = _tower(joined, depth)
        self.classify = nn.Conv2d(joined, classes, 3, padding=1)
        self.measure = nn.Conv2d(joined, 5, 3, padding=1)
        for layer in (self.classify, self.measure):
            nn.init.normal_(layer.weight, std=0.01)
        self.classify.bias = nn.Parameter(torch.full((classes,), -math.log((1 - PRIOR) / PRIOR)))
        self.measure.bias = nn.Parameter(torch.tensor([FIRST_REACH] * 4 + [0.0]))
        self.register_buffer("grid", place_grid(image_size, self.levels), persistent=False)
        self.to(memory_format=torch.channels_last)  # a CPU's convolutions are a quarter faster so, with bfloat16 more

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of its body that are trained, where this is a pretrained one."""
        return self.body.trained if isinstance(self.body, PretrainedBody) else []

    def forward_with_features(self, images: Tensor) -> tuple[BoxOutputs, Tensor]:
        """(B, 3, H, W) in [0, 1] -> outputs, features (B, D): each level's mean."""
        pyramid = self._pyramid(images.contiguous(memory_format=torch.channels_last))
        logits, measures = [], []
        for level in pyramid:
            logits.append(_as_rows(self.classify(self.what(level))))
            measures.append(_as_rows(self.measure(self.where(level))))
        measured = torch.cat(measures, dim=1)  # (B, A, 5)
        reach = F.softplus(measured[..., :4])
        grid: Tensor = self.get_buffer("grid")
        places = torch.cat([_as_rows(level) for level in pyramid], dim=1)
        outputs = BoxOutputs(torch.cat(logits, dim=1), reach, measured[..., 4], grid, self.levels, places)
        return outputs, torch.cat([level.mean(dim=(2, 3)) for level in pyramid], dim=1)

    def _pyramid(self, images: Tensor) -> list[Tensor]:
        """(B, joined, h, w) of each level, finest first."""
        maps: list[Tensor] = self.body(images)
        levels: list[Tensor] = []
        for number in reversed(range(len(self.sources))):
            lateral = self.laterals[number](maps[self.sources[number]])
            if lateral.shape[2:] != self.levels[number]:
                lateral = F.interpolate(lateral, size=self.levels[number], mode="bilinear", align_corners=False)
            if levels:
                lateral = lateral + F.interpolate(levels[-1], size=self.levels[number], mode="nearest")
            levels.append(lateral)
        levels = [smooth(level) for smooth, level in zip(self.smooth, reversed(levels), strict=True)]
        for layer in self.further:
            levels.append(layer(F.relu(levels[-1])))
        return levels


class FcosNet(Network):
    """torchvision's FCOS on ResNet-50: its backbone, pyramid and head, on the grid that all our detectors share.

    Raises:
        ConfigError: the weights cannot be downloaded.
    """

    def __init__(self, image_size: tuple[int, int], *, classes: int, pretrained: bool) -> None:
        super().__init__()
        self.levels = grid_levels(image_size)
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        model = torchvision.models.detection.fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=classes)
        if pretrained:
            _load_pretrained(model)
        self.body, self.detector = model.backbone, model.head
        self.register_buffer("grid", place_grid(image_size, self.levels), persistent=False)

    def forward_with_features(self, images: Tensor) -> tuple[BoxOutputs, Tensor]:
        """(B, 3, H, W) in [0, 1] -> outputs, features (B, D): each level's mean."""
        pyramid = list(self.body(self.normalize(images)).values())[: len(self.levels)]
        found = self.detector(pyramid)
        outputs = BoxOutputs(
            found["cls_logits"],
            found["bbox_regression"],
            found["bbox_ctrness"].squeeze(-1),
            self.get_buffer("grid"),
            self.levels,
            torch.cat([_as_rows(level) for level in pyramid], dim=1),
        )
        return outputs, torch.cat([level.mean(dim=(2, 3)) for level in pyramid], dim=1)


def _load_pretrained(model: nn.Module) -> None:
    """torchvision's weights for COCO but for the last layer, which is for other classes."""
    weights = torchvision.models.detection.FCOS_ResNet50_FPN_Weights.DEFAULT
    try:
        found = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"The pretrained weights of {FCOS!r} could not be downloaded ({error}). Give weights a path to a local "
            ".safetensors file, or 'none' to train from scratch."
        ) from error
    own = model.state_dict()
    fitting = {key: value for key, value in found.items() if key in own and value.shape == own[key].shape}
    model.load_state_dict({**own, **fitting})


def _sources(maps: list[tuple[int, int]], levels: Levels) -> list[int]:
    """Which of a body's maps (height, width) each level is made of; levels coarser than all maps have none.

    >>> _sources([(60, 80), (30, 40), (15, 20)], ((30, 40), (15, 20), (8, 10)))
    [1, 2]
    """
    found: list[int] = []
    for rows, _ in levels:
        nearest = min(range(len(maps)), key=lambda number: abs(math.log(maps[number][0] / rows)))
        if found and (nearest == found[-1] or maps[nearest][0] > 1.5 * rows):
            break
        found.append(nearest)
    return found


def _tower(joined: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(joined, joined, 3, padding=1, bias=False),
            nn.GroupNorm(joined // 8, joined),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _as_rows(maps: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, h · w, K)."""
    return maps.flatten(2).transpose(1, 2)
