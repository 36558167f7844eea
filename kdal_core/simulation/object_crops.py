"""A box data set as one of classes: each object that is boxed, cut out, is an image of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kdal_core.errors import ConfigError
from kdal_core.simulation.box_folders import BoxFiles, boxes_of, read_box_folder
from kdal_core.simulation.images import Dataset, Images, LabelledImages, decoded, own_size

SIDE = 96
"""Pixels of the square that each object fills."""
MARGIN = 0.1
"""How much of its longer side is seen around an object, on each side."""


def read_object_crops(form: str, root: Path) -> Dataset:
    """Every box of a box data set, cut out; its test images' objects are the test images.

    Args:
        form: "coco", "voc" or "yolo".
        root: its folder.

    Raises:
        ConfigError: no such folder, no labels in it, or an image that cannot be read.
    """
    data = read_box_folder(form, root)
    return Dataset(data.classes, _crops(data.training), _crops(data.test))


def _crops(files: Images) -> LabelledImages:
    assert isinstance(files, BoxFiles)
    found = list(_objects(files))
    if not found:
        raise ConfigError(f"No image of a part of {str(files.folder)!r}, for labelling or for testing, has a box.")
    labels = np.array([label for _, label in found], dtype=np.int64)
    return LabelledImages(torch.stack([pixels for pixels, _ in found]), labels)


def _objects(files: BoxFiles) -> Iterator[tuple[Tensor, int]]:
    """Each object (3, SIDE, SIDE) uint8 and its class; black where its square lies outside the image."""
    for scene in files.scenes:
        path = files.folder / scene.path
        pixels, (height, width) = decoded(path, own_size(path))
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        for box in boxes_of(scene, (height, width), files.classes):
            corners = (box.left * width, box.top * height, box.right * width, box.bottom * height)
            margin = MARGIN * max(corners[2] - corners[0], corners[3] - corners[1])
            left, top = (max(0, round(corner - margin)) for corner in corners[:2])
            right, bottom = (min(size, round(at + margin)) for size, at in zip(picture.size, corners[2:], strict=True))
            square = ImageOps.pad(picture.crop((left, top, right, bottom)), (SIDE, SIDE))
            yield torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous(), box.label
