"""Pretrained networks as sources of features: by name, with their weights, on the pixels that they were trained for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdal_core.errors import ConfigError
from kdal_core.models.network import Normalize, parameter_count
from kdal_core.models.pretrained import IMAGENET_MEAN, IMAGENET_STD, headless, torchvision_names
from kdal_core.models.seeding import seeded

if TYPE_CHECKING:
    from kdal_core.models.weights import Weights

LEAST_SIDE = 160
"""Pixels of the longer side below which images are enlarged: on smaller ones pretrained features are of little use."""


@dataclass(frozen=True)
class Preprocessing:
    """The pixels that a backbone was trained on.

    Attributes:
        mean, std: of each channel, of images in [0, 1].
        multiple: both sides are a multiple of it: the patch of a transformer.
        fixed: (height, width), where it takes no other.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    multiple: int = 1
    fixed: tuple[int, int] | None = None

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) to which images of this size are brought.

        >>> Preprocessing().size(32, 32), Preprocessing().size(168, 224), Preprocessing(multiple=14).size(168, 224)
        ((160, 160), (168, 224), (168, 224))
        """
        if self.fixed is not None:
            return self.fixed
        scale = max(1.0, LEAST_SIDE / max(height, width))
        height, width = (max(1, round(side * scale / self.multiple)) * self.multiple for side in (height, width))
        return height, width

    def resized(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) brought to `size`."""
        size = self.size(images.shape[2], images.shape[3])
        if size == images.shape[2:]:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


class Backbone(nn.Module):
    """A network without its last layer; frozen, in eval mode whatever it is told.

    Args:
        name: one that `has_pretrained_features` knows.
        weights: what `kdal_core.models.weights.find_weights` found; None: parameters are random.

    Attributes:
        name: as given.
        digest: names preprocessing and parameters, as it was made with them: equal digests give equal features, as long
            as nobody trains it. Hexadecimal, 64 digits.
        preprocessing: the pixels that it was trained on.
        width: D, numbers of a feature vector.

    Raises:
        ConfigError: an unknown name, or weights of another network.
    """

    def __init__(self, name: str, weights: Weights | None = None) -> None:
        super().__init__()
        body, self.preprocessing = architecture(name)
        self.name, self.weights = name, weights
        self.body = body
        if weights is not None:
            weights.load(body)
        self.normalize = Normalize(self.preprocessing.mean, self.preprocessing.std)
        self.requires_grad_(False)
        self.train(False)
        self.to(memory_format=torch.channels_last)

    @property
    def digest(self) -> str:
        """See the class."""
        told = f"1 {self.name} {'none' if self.weights is None else self.weights.sha256} {self.preprocessing}"
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def width(self) -> int:
        """See the class."""
        return _width(self.name)

    def train(self, mode: bool = True) -> Backbone:
        """Nothing: its averages are those of the images that it was pretrained on."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] -> (B, D)."""
        images = self.preprocessing.resized(images)
        features: Tensor = self.body(self.normalize(images).contiguous(memory_format=torch.channels_last))
        return features

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, or float in [0, 1] -> (B, D) float32."""
        images = images.float().div(255) if images.dtype == torch.uint8 else images
        features: Tensor = self(images.to(next(self.parameters()).device)).float().cpu()
        return features


def backbone(name: str = "auto", weights: str = "auto", *, cache: Path | None = None) -> Backbone:
    """A pretrained backbone by name, its weights from the cache, the hub, a package or a file.

    Args:
        name: one that `has_pretrained_features` knows; "auto": the student of `default_backbones`.
        weights: "auto", "none" (random parameters), or a .safetensors or .pth file.
        cache: folder in which weights are kept; None: kdal's own, in the user's cache folder.

    Raises:
        ConfigError: an unknown name, or weights that cannot be had.
    """
    from kdal_core.models.weights import default_backbones, find_weights

    if name == "auto":
        name = default_backbones(cache=cache).student.name if weights == "auto" else "mobilenet_v2"
    if weights == "none":
        with seeded(0):
            return Backbone(name)
    return Backbone(name, find_weights(name, weights, cache=cache))


def is_backbone(name: str) -> bool:
    """Whether `backbone` knows the name: torchvision's and timm's networks for classes of images."""
    return name in torchvision_names() or _in_timm(name)


def has_pretrained_features(names: str) -> bool:
    """Whether each of these names, joined by "+", is that of a backbone."""
    return all(is_backbone(name) for name in names.split("+"))


def check_backbone(name: str) -> None:
    """Refuse a name that `backbone` does not know.

    Raises:
        ConfigError: says which names are near.
    """
    if not is_backbone(name):
        import difflib

        import timm

        near = difflib.get_close_matches(name, [*torchvision_names(), *timm.list_models()], n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"There is no backbone {name!r}.{hint} Known are the networks of torchvision and of timm.")


def backbone_parameters(name: str) -> int:
    """How many parameters a backbone has. No memory is used for them."""
    return parameter_count(empty_body(name))


def empty_body(name: str) -> nn.Module:
    """A backbone's network on the meta device: names and shapes of its tensors, and no memory for them."""
    with torch.device("meta"):
        return architecture(name)[0]


@lru_cache
def _width(name: str) -> int:
    with torch.device("meta"), torch.inference_mode():
        body, preprocessing = architecture(name)
        height, width = preprocessing.size(LEAST_SIDE, LEAST_SIDE)
        features: Tensor = body.eval()(torch.empty(1, 3, height, width))
    return features.shape[1]


def _in_timm(name: str) -> bool:
    import timm

    try:
        return bool(timm.is_model(name)) and ("." not in name or name in timm.list_pretrained())
    except (RuntimeError, ValueError):
        return False


def architecture(name: str) -> tuple[nn.Module, Preprocessing]:
    """A network with random parameters and without its last layer, and the pixels that it wants.

    Raises:
        ConfigError: an unknown name.
    """
    check_backbone(name)
    if name in torchvision_names():
        return headless(name), Preprocessing(fixed=(224, 224) if name.startswith("vit_") else None)
    import timm

    config: Any = timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0}
    try:
        any_size: dict[str, Any] = {"dynamic_img_size": True} if config.fixed_input_size else {}
        body, fixed = timm.create_model(name, **options, **any_size), None
    except TypeError:  # a network whose positions are bound to one size
        body, fixed = timm.create_model(name, **options), config.input_size[1:]
    patch = getattr(getattr(body, "patch_embed", None), "patch_size", 1)
    multiple = int(patch if isinstance(patch, int) else patch[0])
    return body, Preprocessing(tuple(config.mean), tuple(config.std), multiple, fixed)
