"""Labelled data sets by name: a pool to label, and images that are never labelled, to score on.

Data is read from a folder; nothing is downloaded unless torchvision is told so by whoever fetched the data:

    python -c "from torchvision.datasets import MNIST; MNIST('data', download=True)"
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from kdal_core.datasets.images import upright
from kdal_core.errors import ConfigError
from kdal_core.simulation.box_folders import read_box_folder
from kdal_core.simulation.campaign import Campaign, DataSettings
from kdal_core.simulation.images import SPLIT_SEED, Dataset, LabelledImages, split_off
from kdal_core.simulation.lane_folders import read_lane_folder
from kdal_core.simulation.object_crops import read_object_crops

DIGITS_TEST = 600
DEFAULT_SIDE = 224


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

    The validation images are the same for all seeds and never in a pool; each seed draws a pool of its own.

    Raises:
        ConfigError: no such data set, data that is not there, or fewer images than the campaign needs.
    """
    settings = campaign.data
    data = load_dataset(settings, root)
    if data.task != campaign.task:
        raise ConfigError(f"{settings.name} is labelled for task: {data.task}, not for task: {campaign.task}.")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.training))
    kept, free = np.split(order, [settings.validation])
    size = len(free) if settings.pool is None else settings.pool
    needed = campaign.labels_after(campaign.rounds - 1)
    if campaign.counts_objects:
        needed = 1  # an image has any number of them
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
    found = data.training.take(pool).resized(settings.image_size)
    if campaign.counts_objects and (objects := sum(map(len, found.labels))) < campaign.labels_after(
        campaign.rounds - 1
    ):
        raise ConfigError(f"The pool shows {objects:,} objects, fewer than the campaign labels.")
    return Split(data.classes, found, held_out.resized(settings.image_size))


def load_dataset(settings: DataSettings, root: Path | None = None) -> Dataset:
    """A whole data set, images in their own size.

    Args:
        settings: name and root.
        root: folder of the data; None: the environment's KDAL_DATA, else `data`. A relative `settings.root` is a
            folder in it.
    """
    if settings.name not in DATASETS:
        raise ConfigError(f"There is no data set {settings.name!r}; known: {', '.join(DATASETS)}.")
    folder = root or Path(os.environ.get("KDAL_DATA", "data"))
    return DATASETS[settings.name](folder / (settings.root or ""))


def dataset_names() -> list[str]:
    """Every name that `data.name` of a campaign may have.

    >>> dataset_names()  # doctest: +NORMALIZE_WHITESPACE
    ['digits', 'mnist', 'fashion_mnist', 'folder', 'tusimple', 'culane', 'coco', 'voc', 'yolo',
     'coco_objects', 'voc_objects', 'yolo_objects']
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
        parts = [
            LabelledImages(part.data[:, None].expand(-1, 3, -1, -1), part.targets.numpy().astype(np.int64))
            for part in (training, test)
        ]
        return Dataset(tuple(str(label) for label in training.classes), parts[0], parts[1])

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
    training, test = read if has_split else split_off(read[0])
    return Dataset(tuple(parts[0].classes), training, test)


def _read_files(paths: list[str], labels: list[int]) -> LabelledImages:
    """Images of any size, each fitted into one square of at most 224 pixels."""
    from PIL import Image, ImageOps

    images = []
    for path in paths:
        with Image.open(path) as image:
            square = ImageOps.pad(upright(image).convert("RGB"), (DEFAULT_SIDE, DEFAULT_SIDE))
            images.append(torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous())
    return LabelledImages(torch.stack(images), np.asarray(labels, dtype=np.int64))


DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "digits": _digits,
    "mnist": _torchvision("MNIST"),
    "fashion_mnist": _torchvision("FashionMNIST"),
    "folder": _folder,
    "tusimple": partial(read_lane_folder, "tusimple"),
    "culane": partial(read_lane_folder, "culane"),
    "coco": partial(read_box_folder, "coco"),
    "voc": partial(read_box_folder, "voc"),
    "yolo": partial(read_box_folder, "yolo"),
    "coco_objects": partial(read_object_crops, "coco"),
    "voc_objects": partial(read_object_crops, "voc"),
    "yolo_objects": partial(read_object_crops, "yolo"),
}
