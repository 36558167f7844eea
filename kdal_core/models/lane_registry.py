"""Row-anchor networks by name: build one, list them, pick and check a student and its teacher."""

from __future__ import annotations

from kdal_core.models.bodies import BACKBONES, SmallBody, TorchvisionBody
from kdal_core.models.building import Family
from kdal_core.models.network import Network
from kdal_core.models.pretrained import torchvision_names
from kdal_core.models.row_anchor import ROW_SHAPES, RowAnchorNet

LARGEST_SMALL_SIDE = 512
TORCHVISION_JOINED, TORCHVISION_CONTEXT = 64, 256


def lane_model_names() -> list[str]:
    """Every name that a lane task can build, our own first.

    >>> lane_model_names()[:4], "resnet50" in lane_model_names(), "vit_b_16" in lane_model_names()
    (['tiny_rows', 'small_rows', 'mid_rows', 'wide_rows'], True, False)
    """
    return [*ROW_SHAPES, *(name for name in torchvision_names() if name.startswith(BACKBONES))]


def default_lane_pair(image_size: tuple[int, int]) -> tuple[str, str]:
    """(student, teacher) for images of this (height, width): our small networks up to 512 px.

    >>> default_lane_pair((144, 400)), default_lane_pair((590, 1640))
    (('small_rows', 'wide_rows'), ('mobilenet_v3_large', 'resnet50'))
    """
    small = max(image_size) <= LARGEST_SMALL_SIDE
    return ("small_rows", "wide_rows") if small else ("mobilenet_v3_large", "resnet50")


def lane_networks(image_size: tuple[int, int], *, slots: int, rows: int, columns: int, classes: int) -> Family:
    """The family of row-anchor networks for images of one (height, width): S slots, R rows, G columns, C classes."""

    def construct(name: str, pretrained: bool) -> Network:
        sizes = {"slots": slots, "rows": rows, "columns": columns, "classes": classes}
        if name in ROW_SHAPES:
            shape = ROW_SHAPES[name]
            small = SmallBody(shape.stages, shape.convolutions)
            return RowAnchorNet(small, image_size, **sizes, joined=shape.joined, context=shape.context)
        body = TorchvisionBody(name, image_size, pretrained=pretrained)
        return RowAnchorNet(body, image_size, **sizes, joined=TORCHVISION_JOINED, context=TORCHVISION_CONTEXT)

    heads = ("where.", "absent.", "kinds.", "context.", "squeeze.", "laterals.", "join.")
    return Family(tuple(ROW_SHAPES), torchvision_names(), image_size, construct, heads)
