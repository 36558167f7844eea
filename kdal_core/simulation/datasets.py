"""Labelled data sets by name: a pool to label, and images that are never labelled, to score on.

Data is read from a folder; nothing is downloaded unless torchvision is told so by whoever fetched the data:

    python -c "from torchvision.datasets import MNIST; MNIST('data', download=True)"
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from kdal_core.errors import ConfigError
from kdal_core.simulation.campaign import Campaign, DataSettings

SPLIT_SEED = 20261122
DIGITS_TEST = 600
FOLDER_TEST = 0.2
DEFAULT_SIDE = 224
BATCH = 1024


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, 3, H, W) uint8 and their true classes (N,)."""

    images: Tensor
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> LabelledImages:
        """The images at these positions."""
        return LabelledImages(self.images[torch.from_numpy(indices)], self.labels[indices])


@dataclass(frozen=True)
class Dataset:
    """A data set with its own split: what may be labelled, and what models are judged by."""

    classes: tuple[str, ...]
    training: LabelledImages
    test: LabelledImages


@dataclass(frozen=True)
class Split:
    """One seed's part of a data set: the pool, and the images that the campaign scores on."""

    classes: tuple[str, ...]
    pool: LabelledImages
    held_out: LabelledImages

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.pool.images.shape[2:]
        return height, width


def load_split(campaign: Campaign, seed: int, root: Path | None = None) -> Split:
    """A seed's pool and held-out images.

    The validation images are the same for all seeds and never in a pool; pools are drawn anew for each seed.

    Raises:
        ConfigError: no such data set, data that is not there, or fewer images than the campaign needs.
    """
    settings = campaign.data
    data = load_dataset(settings, root)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.training))
    kept, free = np.split(order, [settings.validation])
    size = len(free) if settings.pool is None else settings.pool
    needed = campaign.labels_after(campaign.rounds - 1)
    if not needed <= size <= len(free):
        raise ConfigError(
            f"{settings.name} offers a pool of {len(free):,} images; data.pool asks for {size:,} and the campaign "
            f"labels {needed:,} of them."
        )
    pool = np.random.default_rng([SPLIT_SEED, seed]).permutation(free)[:size]
    if campaign.score_on == "validation":
        held_out = data.training.take(kept)
    else:
        count = len(data.test) if settings.test is None else min(settings.test, len(data.test))
        held_out = data.test.take(np.arange(count))
    return Split(data.classes, _resized(data.training.take(pool), settings), _resized(held_out, settings))


def load_dataset(settings: DataSettings, root: Path | None = None) -> Dataset:
    """A whole data set, images in their own size.

    Args:
        settings: name, and a root that outranks the other one.
        root: folder of the data; None: the environment's KDAL_DATA, else `data`.
    """
    if settings.name not in DATASETS:
        raise ConfigError(f"There is no data set {settings.name!r}; known: {', '.join(DATASETS)}.")
    folder = settings.root or root or Path(os.environ.get("KDAL_DATA", "data"))
    return DATASETS[settings.name](folder)


def dataset_names() -> list[str]:
    """Every name that `data.name` of a campaign may have.

    >>> dataset_names()
    ['digits', 'mnist', 'fashion_mnist', 'folder']
    """
    return list(DATASETS)


def _digits(root: Path) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; the test images are a fixed third."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.round(pixels * 255 / 16).astype(np.uint8)).view(-1, 1, 8, 8).repeat(1, 3, 1, 1)
    everything = LabelledImages(images, labels.astype(np.int64))
    test, training = np.split(np.random.default_rng(SPLIT_SEED).permutation(len(labels)), [DIGITS_TEST])
    return Dataset(tuple("0123456789"), everything.take(training), everything.take(test))


def _torchvision(name: str) -> Callable[[Path], Dataset]:
    """A data set of torchvision with MNIST's form and its own test images."""

    def load(root: Path) -> Dataset:
        from torchvision import datasets

        try:
            training, test = (getattr(datasets, name)(root, train=train) for train in (True, False))
        except RuntimeError as error:
            raise ConfigError(
                f"{name} is not in {str(root)!r}. Name its folder with --data or KDAL_DATA, or fetch it: "
                f"python -c \"from torchvision.datasets import {name}; {name}('{root}', download=True)\""
            ) from error
        return Dataset(
            tuple(str(label) for label in training.classes),
            *(
                LabelledImages(part.data[:, None].expand(-1, 3, -1, -1), part.targets.numpy().astype(np.int64))
                for part in (training, test)
            ),
        )

    return load


def _folder(root: Path) -> Dataset:
    """A user's own images: `root/<class>/*.jpg`; or `root/train/<class>/` and `root/test/<class>/`."""
    from torchvision.datasets import ImageFolder

    has_split = (root / "train").is_dir() and (root / "test").is_dir()
    try:
        parts = [ImageFolder(str(root / part)) for part in ("train", "test")] if has_split else [ImageFolder(str(root))]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{str(root)!r} holds no folder of images for each class: {error}") from error
    if has_split and parts[0].classes != parts[1].classes:
        raise ConfigError(f"The folders train and test of {str(root)!r} hold different classes.")
    read = [_read_files([path for path, _ in part.samples], [label for _, label in part.samples]) for part in parts]
    if not has_split:
        order = np.random.default_rng(SPLIT_SEED).permutation(len(read[0]))
        test, training = np.split(order, [round(FOLDER_TEST * len(order))])
        read = [read[0].take(training), read[0].take(test)]
    return Dataset(tuple(parts[0].classes), *read)


def _read_files(paths: list[str], labels: list[int]) -> LabelledImages:
    """Images of any size, each fitted into one square of at most 224 pixels."""
    from PIL import Image, ImageOps

    images = []
    for path in paths:
        with Image.open(path) as image:
            square = ImageOps.pad(image.convert("RGB"), (DEFAULT_SIDE, DEFAULT_SIDE))
            images.append(torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous())
    return LabelledImages(torch.stack(images), np.asarray(labels, dtype=np.int64))


def _resized(part: LabelledImages, settings: DataSettings) -> LabelledImages:
    height, width = part.images.shape[2:]
    side = settings.image_size
    if side is None or side == max(height, width):
        return LabelledImages(part.images.contiguous(), part.labels)
    size = (max(1, round(height * side / max(height, width))), max(1, round(width * side / max(height, width))))
    smaller = [
        F.interpolate(batch.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
        for batch in torch.split(part.images, BATCH)
    ]
    return LabelledImages(torch.cat(smaller), part.labels)


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _digits,
    "mnist": _torchvision("MNIST"),
    "fashion_mnist": _torchvision("FashionMNIST"),
    "folder": _folder,
}
