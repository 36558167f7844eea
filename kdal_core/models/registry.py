"""The networks by name: classifiers, detectors of boxes, row networks of lanes; which suit as student and teacher."""

from __future__ import annotations

from kdal_core.errors import ConfigError
from kdal_core.models.bodies import BACKBONES, SmallBody, TorchvisionBody
from kdal_core.models.building import Family
from kdal_core.models.fcos import BOX_SHAPES, FCOS, BoxNet, FcosNet
from kdal_core.models.frozen import FROZEN, FrozenClassifier, is_frozen
from kdal_core.models.lenet import LENET, LeNet5
from kdal_core.models.network import Network
from kdal_core.models.pretrained import TorchvisionNet, torchvision_names
from kdal_core.models.pretrained_body import PRETRAINED, PretrainedBody, is_pretrained
from kdal_core.models.row_anchor import ROW_SHAPES, RowAnchorNet
from kdal_core.models.small import LARGEST_SIDE, SHAPES, SmallNet
from kdal_core.models.tuned import TUNED, TunedClassifier, is_tuned

LARGEST_SMALL_SIDE = 512
"""Pixels of the longer side up to which our small networks find boxes and lanes."""
BOX_JOINED, BOX_DEPTH = 128, 2
ROW_JOINED, ROW_CONTEXT = 64, 256
"""Channels, and layers, of the heads on torchvision's networks."""
PRETRAINED_BOX_JOINED = 64
"""Channels of a detector's pyramid and towers on a pretrained backbone: with more of them the head would cost more than
the backbone does."""


# ------------------------------------------------------------------ classifiers


def model_names() -> list[str]:
    """Every name that `build_model` knows, our own first.

    >>> model_names()[:4], "resnet50" in model_names()
    (['tiny_cnn', 'small_cnn', 'mid_cnn', 'wide_cnn'], True)
    """
    return [*SHAPES, LENET, *torchvision_names()]


def build_model(
    name: str, num_classes: int, image_size: tuple[int, int], weights: str = "none", *, seed: int = 0
) -> Network:
    """A network with fresh (or pretrained) parameters; the same seed gives the same parameters.

    Args:
        name: one of `model_names()`, or "frozen/" or "tuned/" and the name of a backbone: a `FrozenClassifier`, or
            a `TunedClassifier`.
        num_classes: C >= 1.
        image_size: (height, width) in pixels of the images it will see.
        weights: "none"; "default", torchvision's own, downloaded; or the path of a .safetensors file with the
            same network's weights (its last layer is used only where the number of classes agrees).
        seed: of the initialisation. The process's own random state is left as it was.

    Raises:
        ConfigError: an unknown name, a size the network cannot take, or weights that cannot be had.

    >>> import torch
    >>> model = build_model("small_cnn", num_classes=10, image_size=(8, 8))
    >>> model(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """
    return _classifiers(num_classes, image_size).build(name, weights, seed=seed)


def default_pair(image_size: tuple[int, int]) -> tuple[str, str]:
    """(student, teacher) for images of this (height, width): our small networks up to 64 px.

    >>> default_pair((8, 8)), default_pair((480, 640))
    (('small_cnn', 'wide_cnn'), ('mobilenet_v3_large', 'resnet50'))
    """
    return ("small_cnn", "wide_cnn") if suits_small_networks(image_size) else ("mobilenet_v3_large", "resnet50")


def suits_small_networks(image_size: tuple[int, int]) -> bool:
    """Whether images of this (height, width) are so small that our own networks suit them.

    >>> suits_small_networks((28, 28)), suits_small_networks((168, 224))
    (True, False)
    """
    return max(image_size) <= LARGEST_SIDE


def check_model(name: str, num_classes: int, image_size: tuple[int, int]) -> None:
    """Refuse a network that cannot be built for these classes and this (height, width). No memory is used for it.

    Raises:
        ConfigError: an unknown name, or a size the network cannot take.
    """
    family = _classifiers(num_classes, image_size)
    family.check(name)
    family.check_runs(name)


def check_pair(student: str, teacher: str, num_classes: int, image_size: tuple[int, int]) -> None:
    """Refuse a teacher with less than 4 times the student's parameters. No memory is used for either.

    Raises:
        ConfigError: an unknown name, a size a network cannot take, or a teacher that is too small.

    >>> check_pair("small_cnn", "wide_cnn", num_classes=10, image_size=(28, 28))
    """
    _classifiers(num_classes, image_size).check_pair(student, teacher)


def _classifiers(num_classes: int, image_size: tuple[int, int]) -> Family:
    if num_classes < 1:
        raise ConfigError(f"A model needs at least one class, not {num_classes}.")

    def construct(name: str, pretrained: bool) -> Network:
        if name in SHAPES:
            return SmallNet(SHAPES[name], num_classes, image_size)
        if name == LENET:
            return LeNet5(num_classes, image_size)
        if name.startswith(FROZEN):
            return FrozenClassifier(name.removeprefix(FROZEN), num_classes)
        if name.startswith(TUNED):
            return TunedClassifier(name.removeprefix(TUNED), num_classes)
        return TorchvisionNet(name, num_classes, image_size=image_size, pretrained=pretrained)

    def on_backbone(name: str) -> bool:
        return is_frozen(name) or is_tuned(name)

    return Family((*SHAPES, LENET), torchvision_names(), image_size, construct, also=on_backbone)


# ------------------------------------------------------------------ detectors of boxes


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
        if name.startswith(PRETRAINED):
            features = PretrainedBody(name.removeprefix(PRETRAINED))
            return BoxNet(features, image_size, classes=classes, joined=PRETRAINED_BOX_JOINED, depth=BOX_DEPTH)
        body = TorchvisionBody(name, image_size, pretrained=pretrained)
        return BoxNet(body, image_size, classes=classes, joined=BOX_JOINED, depth=BOX_DEPTH)

    heads = ("laterals.", "further.", "smooth.", "what.", "where.", "classify.", "measure.", "detector.")
    return Family(tuple(BOX_SHAPES), (FCOS, *torchvision_names()), image_size, construct, heads, also=is_pretrained)


# ------------------------------------------------------------------ row networks of lanes


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
        if name.startswith(PRETRAINED):
            features = PretrainedBody(name.removeprefix(PRETRAINED))
            return RowAnchorNet(features, image_size, **sizes, joined=ROW_JOINED, context=ROW_CONTEXT)
        body = TorchvisionBody(name, image_size, pretrained=pretrained)
        return RowAnchorNet(body, image_size, **sizes, joined=ROW_JOINED, context=ROW_CONTEXT)

    heads = ("where.", "absent.", "kinds.", "context.", "squeeze.", "laterals.", "join.")
    return Family(tuple(ROW_SHAPES), torchvision_names(), image_size, construct, heads, also=is_pretrained)
