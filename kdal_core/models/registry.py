"""Networks by name: build one, list them, pick and check a student and its teacher."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from kdal_core.errors import ConfigError
from kdal_core.models.network import Network, parameter_count
from kdal_core.models.pretrained import TorchvisionNet, torchvision_names
from kdal_core.models.small import LARGEST_SIDE, SHAPES, SmallNet

TEACHER_FACTOR = 4
_random_state = threading.RLock()  # torch's default generator belongs to the whole process


def model_names() -> list[str]:
    """Every name that `build_model` knows, our own first.

    >>> model_names()[:4], "resnet50" in model_names()
    (['tiny_cnn', 'small_cnn', 'mid_cnn', 'wide_cnn'], True)
    """
    return [*SHAPES, *torchvision_names()]


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

    >>> model = build_model("small_cnn", num_classes=10, image_size=(8, 8))
    >>> model(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 10])
    """
    _check_arguments(name, num_classes, image_size)
    _check_runs(name, image_size)
    with seeded(seed):
        model = _construct(name, num_classes, image_size, pretrained=weights == "default")
    if weights == "default":
        _check_runs(name, image_size, model.eval())  # pretrained transformers take one size only
        model.train()
    if weights not in {"none", "default"}:
        _load_weights(model, name, Path(weights))
    return model


def default_pair(image_size: tuple[int, int]) -> tuple[str, str]:
    """(student, teacher) for images of this (height, width): our small networks up to 64 px.

    >>> default_pair((8, 8)), default_pair((480, 640))
    (('small_cnn', 'wide_cnn'), ('mobilenet_v3_large', 'resnet50'))
    """
    return ("small_cnn", "wide_cnn") if max(image_size) <= LARGEST_SIDE else ("mobilenet_v3_large", "resnet50")


def check_pair(student: str, teacher: str, num_classes: int, image_size: tuple[int, int]) -> None:
    """Refuse a teacher with less than 4 times the student's parameters. No memory is used for either.

    Raises:
        ConfigError: an unknown name, a size a network cannot take, or a teacher that is too small.

    >>> check_pair("small_cnn", "wide_cnn", num_classes=10, image_size=(28, 28))
    """
    sizes = []
    for name in (student, teacher):
        _check_arguments(name, num_classes, image_size)
        _check_runs(name, image_size)
        sizes.append(parameter_count(_on_meta(name, num_classes, image_size)))
    if sizes[1] < TEACHER_FACTOR * sizes[0]:
        raise ConfigError(
            f"The teacher {teacher!r} has {sizes[1]:,} parameters, the student {student!r} {sizes[0]:,}. "
            f"A teacher needs at least {TEACHER_FACTOR} times as many: choose a larger teacher or a smaller "
            "student."
        )


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's default generators for a block and put them back after it; one block at a time."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with _random_state, torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield


def _construct(name: str, num_classes: int, image_size: tuple[int, int], *, pretrained: bool) -> Network:
    if name in SHAPES:
        if pretrained:
            raise ConfigError(f"{name!r} has no pretrained weights; use weights='none' or a torchvision network.")
        return SmallNet(SHAPES[name], num_classes, image_size)
    return TorchvisionNet(name, num_classes, image_size=image_size, pretrained=pretrained)


def _on_meta(name: str, num_classes: int, image_size: tuple[int, int]) -> Network:
    try:
        with torch.device("meta"):
            return _construct(name, num_classes, image_size, pretrained=False)
    except NotImplementedError:  # a few networks (RegNet) compute their own shape with tensors
        with seeded(0):
            return _construct(name, num_classes, image_size, pretrained=False).to("meta")


def _check_arguments(name: str, num_classes: int, image_size: tuple[int, int]) -> None:
    names = model_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"There is no model {name!r}.{hint} Known: {', '.join(SHAPES)} and torchvision's networks.")
    if num_classes < 1:
        raise ConfigError(f"A model needs at least one class, not {num_classes}.")
    if len(image_size) != 2 or min(image_size) < 1:
        raise ConfigError(f"image_size must be (height, width) in pixels, not {image_size!r}.")


def _check_runs(name: str, image_size: tuple[int, int], model: Network | None = None) -> None:
    """Run the network once on one image; without a model on the meta device: shapes only, no arithmetic."""
    try:
        with torch.inference_mode():
            if model is None:
                _on_meta(name, 2, image_size).eval()(torch.empty(1, 3, *image_size, device="meta"))
            else:
                model(torch.zeros(1, 3, *image_size))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise ConfigError(
            f"Model {name!r} cannot take images of {image_size[0]} x {image_size[1]} pixels: {error}"
        ) from error


def _load_weights(model: Network, name: str, path: Path) -> None:
    """Load a .safetensors file: one of ours, or a torchvision state dict of the same network."""
    if path.suffix != ".safetensors":
        raise ConfigError(f"weights must be 'none', 'default' or a .safetensors file, not {str(path)!r}.")
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"The weights file {str(path)!r} cannot be read: {error}") from error
    wanted = model.state_dict()
    if not found.keys() & wanted.keys():
        found = {f"body.{key}": value for key, value in found.items()}
    fitting = {key: value for key, value in found.items() if key in wanted and value.shape == wanted[key].shape}
    missing = [key for key in wanted if key not in fitting and not key.startswith("head.")]
    if missing:
        raise ConfigError(
            f"The weights file {str(path)!r} does not fit {name!r}: {len(missing)} tensors are missing or "
            f"have another shape, the first is {missing[0]!r}."
        )
    model.load_state_dict({**wanted, **fitting})
