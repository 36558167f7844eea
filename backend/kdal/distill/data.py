"""The images of a distillation: those to mix, and labelled ones to score on.

All that is wrong with them is said here, before a query is spent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from kdal.distill.config import Distillation
from kdal_core.datasets.images import upright
from kdal_core.distillation import pool_of_images
from kdal_core.errors import AssetError, ConfigError
from kdal_core.simulation.campaign import DataSettings as DatasetSettings
from kdal_core.simulation.datasets import dataset_names, load_dataset
from kdal_core.simulation.images import Dataset

FILES = ("*.png", "*.jpg", "*.jpeg", "*.bmp", "*.webp", "*.tif", "*.tiff")


@dataclass(frozen=True)
class Tests:
    """Labelled images that no choice depends on."""

    images: Tensor
    """uint8 (N, 3, H, W)."""
    labels: NDArray[np.int64]
    """(N,) numbers of the teacher's classes."""


@dataclass(frozen=True)
class Material:
    """What a distillation works on."""

    pool: Tensor
    """uint8 (N, 3, H, W), N >= 2, unlabelled."""
    tests: Tests | None


def load_material(plan: Distillation, classes: tuple[str, ...], root: Path | None) -> Material:
    """The images of a distillation.

    Args:
        plan: which.
        classes: the teacher's, which test labels must name.
        root: folder of the data; None: the environment's KDAL_DATA, else `data`.

    Raises:
        ConfigError: data that is not there, images that cannot be mixed, or other classes than the teacher's.
        AssetError: a file that is no image.
    """
    folder = root or Path(os.environ.get("KDAL_DATA", "data"))
    if plan.data.name == "images":
        return Material(_pool(_drawn(_files(folder / (plan.data.root or "")), plan), plan), None)
    if plan.data.name not in dataset_names():
        known = ", ".join(["images", *dataset_names()])
        raise ConfigError(f"data.name: there are no images called {plan.data.name!r}; known: {known}.")
    data = load_dataset(DatasetSettings(name=plan.data.name, root=plan.data.root), folder)
    if data.task != "classification":
        raise ConfigError(f"{plan.data.name} is labelled for task: {data.task}; distillation is about classes.")
    chosen = data.training.take(_positions(len(data.training), plan)).resized(plan.data.image_size)
    return Material(_pool(chosen.images, plan), _tests(data, plan, classes))


def _tests(data: Dataset, plan: Distillation, classes: tuple[str, ...]) -> Tests | None:
    """The data set's test images, their labels as the teacher's class numbers."""
    count = len(data.test) if plan.data.test is None else min(plan.data.test, len(data.test))
    if count == 0:
        return None
    if sorted(data.classes) != sorted(classes):
        raise ConfigError(
            f"The test images of {plan.data.name} are of the classes {', '.join(data.classes)}, the teacher's are "
            f"{', '.join(classes)}: give the teacher's classes these names, or set data.test: 0."
        )
    found = data.test.take(np.arange(count)).resized(plan.data.image_size)
    number = np.array([classes.index(name) for name in data.classes], dtype=np.int64)
    return Tests(found.images, number[found.labels.astype(np.int64)])


def _pool(images: Tensor, plan: Distillation) -> Tensor:
    return pool_of_images(images, mixed_colours=bool(plan.mixup.mixed_colours))


def _positions(count: int, plan: Distillation) -> NDArray[np.int64]:
    """Which of this many images, in a fixed order."""
    wanted = count if plan.data.count is None else plan.data.count
    if wanted > count:
        raise ConfigError(f"data.count asks for {wanted:,} images, {plan.data.name} has {count:,}.")
    return np.sort(np.random.default_rng([20261122, plan.seed]).permutation(count)[:wanted])


def _drawn(paths: list[Path], plan: Distillation) -> Tensor:
    images = [_read(paths[position], plan.data.image_size) for position in _positions(len(paths), plan)]
    if len({image.shape for image in images}) > 1:
        sizes = sorted({(int(image.shape[2]), int(image.shape[1])) for image in images})
        raise ConfigError(
            f"The images are of {len(sizes)} sizes, from {sizes[0][0]} x {sizes[0][1]} to {sizes[-1][0]} x "
            f"{sizes[-1][1]} pixels, and only images of one size can be mixed: set data.image_size."
        )
    return torch.stack(images)


def _files(folder: Path) -> list[Path]:
    paths = sorted(path for pattern in FILES for path in folder.rglob(pattern))
    if len(paths) < 2:
        raise ConfigError(f"{str(folder)!r} holds {len(paths)} image files; mixing takes at least two.")
    return paths


def _read(path: Path, side: int | None) -> Tensor:
    """uint8 (3, H, W), or fitted into a square of `side` pixels."""
    try:
        with Image.open(path) as file:
            image = upright(file).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise AssetError(f"{str(path)!r} cannot be read as an image: {error}") from error
    if side is not None:
        image = ImageOps.pad(image, (side, side))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
