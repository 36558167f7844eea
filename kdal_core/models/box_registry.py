"""Detectors by name: build one, list them, pick and check a student and its teacher."""

from __future__ import annotations

from kdal_core.models.bodies import BACKBONES, SmallBody, TorchvisionBody
from kdal_core.models.building import Family
from kdal_core.models.fcos import BOX_SHAPES, FCOS, BoxNet, FcosNet
from kdal_core.models.network import Network
from kdal_core.models.pretrained import torchvision_names

LARGEST_SMALL_SIDE = 512
TORCHVISION_JOINED, TORCHVISION_DEPTH = 128, 2


def box_model_names() -> list[str]:
    """Every name that a box task can build, our own first.

    >>> box_model_names()[:5], "resnet50" in box_model_names(), "vit_b_16" in box_model_names()
    (['tiny_boxes', 'small_boxes', 'mid_boxes', 'wide_boxes', 'fcos_resnet50_fpn'], True, False)
    """
    return [*BOX_SHAPES, FCOS, *(name for name in torchvision_names() if name.startswith(BACKBONES))]


def default_box_pair(image_size: tuple[int, int]) -> tuple[str, str]:
    """(student, teacher) for images of this (height, width): our small networks up to 512 px.

    >>> default_box_pair((240, 320)), default_box_pair((800, 1333))
    (('small_boxes', 'wide_boxes'), ('mobilenet_v3_large', 'fcos_resnet50_fpn'))
    """
    small = max(image_size) <= LARGEST_SMALL_SIDE
    return ("small_boxes", "wide_boxes") if small else ("mobilenet_v3_large", FCOS)


def box_networks(image_size: tuple[int, int], *, classes: int) -> Family:
    """The family of detectors for images of one (height, width) and C classes; all of them share one grid."""

    def construct(name: str, pretrained: bool) -> Network:
        if name in BOX_SHAPES:
            shape = BOX_SHAPES[name]
            small = SmallBody(shape.stages, shape.convolutions)
            return BoxNet(small, image_size, classes=classes, joined=shape.joined, depth=shape.depth)
        if name == FCOS:
            return FcosNet(image_size, classes=classes, pretrained=pretrained)
        body = TorchvisionBody(name, image_size, pretrained=pretrained)
        return BoxNet(body, image_size, classes=classes, joined=TORCHVISION_JOINED, depth=TORCHVISION_DEPTH)

    heads = ("laterals.", "further.", "smooth.", "what.", "where.", "classify.", "measure.", "detector.")
    return Family(tuple(BOX_SHAPES), (FCOS, *torchvision_names()), image_size, construct, heads)
