"""Classifiers by name: build one, list them, pick and check a student and its teacher."""

from __future__ import annotations

from kdal_core.errors import ConfigError
from kdal_core.models.building import Family
from kdal_core.models.lenet import LENET, LeNet5
from kdal_core.models.network import Network
from kdal_core.models.pretrained import TorchvisionNet, torchvision_names
from kdal_core.models.small import LARGEST_SIDE, SHAPES, SmallNet


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
        name: one of `model_names()`.
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
    return ("small_cnn", "wide_cnn") if max(image_size) <= LARGEST_SIDE else ("mobilenet_v3_large", "resnet50")


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
        return TorchvisionNet(name, num_classes, image_size=image_size, pretrained=pretrained)

    return Family((*SHAPES, LENET), torchvision_names(), image_size, construct)
