"""Labelled images, in memory or still in their files: what data sets are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kdal_core.datasets.images import IMAGE_FORMATS, image_size, upright
from kdal_core.errors import ConfigError

SPLIT_SEED = 20261122
TEST_SHARE = 0.2
BATCH = 1024


class Images(Protocol):
    """Images with labels, decoded or not."""

    def __len__(self) -> int:
        """N, the number of images."""

    def take(self, indices: NDArray[np.int64], /) -> Self:
        """The images at these positions."""

    def resized(self, side: int | None, /) -> LabelledImages:
        """The images, with a longer side of this many pixels, or None: as they are."""


Part = TypeVar("Part", bound=Images)


@dataclass(frozen=True)
class LabelledImages:
    """Images in memory and what is known of them.

    Attributes:
        images: (N, 3, H, W) uint8.
        labels: (N,) true targets: class numbers, or tuples of lanes or boxes (dtype object).
        attributes: {name: (N,) tuples}, a number for each lane of an image; classes have none.
        traits: {name: (N,)} numbers by which images are compared, NaN where an image has none; classes have none.
    """

    images: Tensor
    labels: NDArray[Any]
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    traits: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64], /) -> LabelledImages:
        """The images at these positions."""
        return LabelledImages(
            self.images[torch.from_numpy(indices)],
            self.labels[indices],
            {name: values[indices] for name, values in self.attributes.items()},
            {name: values[indices] for name, values in self.traits.items()},
        )

    def resized(self, side: int | None, /) -> LabelledImages:
        """The images with a longer side of this many pixels."""
        height, width = self.images.shape[2:]
        size = fitted((height, width), side) if side is not None else (height, width)
        if size == (height, width):
            smaller = self.images.contiguous()
        else:
            parts = [
                F.interpolate(batch.float(), size, mode="bilinear", antialias=True)
                .round()
                .clamp(0, 255)
                .to(torch.uint8)
                for batch in torch.split(self.images, BATCH)
            ]
            smaller = torch.cat(parts)
        return LabelledImages(smaller, self.labels, self.attributes, self.traits)


@dataclass(frozen=True)
class Dataset:
    """A data set with its own split: what may be labelled, and what models are judged by."""

    classes: tuple[str, ...]
    training: Images
    test: Images
    task: str = "classification"


def fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) with a longer side of `side`.

    >>> fitted((144, 400), 200)
    (72, 200)
    """
    longer = max(size)
    return max(1, round(size[0] * side / longer)), max(1, round(size[1] * side / longer))


def own_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file as people see it.

    Raises:
        ConfigError: it is not there, or no image.
    """
    width, height = image_size(path)
    return height, width


def decoded(path: Path, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """An image (3, H, W) uint8 of this size, upright, and its own (height, width) as people see it.

    Raises:
        ConfigError: it is not there, or no image.
    """
    height, width = size
    own = own_size(path)
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            enough = (2 * width, 2 * height)  # a JPEG is not decoded finer than is needed
            image.draft("RGB", enough if image.size == own[::-1] else enough[::-1])
            pixels = upright(image).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    except Exception as error:  # on damaged bytes Pillow raises whatever its parsers trip over
        raise ConfigError(f"The image {str(path)!r} cannot be read: {error or type(error).__name__}") from error
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1), own


def split_off(everything: Part) -> tuple[Part, Part]:
    """Training and test images, a fixed fifth, of a data set that has no split of its own."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(everything))
    test, training = np.split(order, [round(TEST_SHARE * len(order))])
    return everything.take(training), everything.take(test)
