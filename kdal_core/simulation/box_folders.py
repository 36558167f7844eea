"""Box data sets as folders in COCO's, Pascal VOC's and YOLO's form: a pool to label, and test images.

A split is decided by the names of the files that list the images, or of YOLO's splits: those whose names begin with
"test" are for testing (`ImageSets/Main/test.txt`, `test.json`); where there are none, those that begin with "val"
(`instances_val2017.json`); where these are missing too, a fixed fifth of the images is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kdal_core.datasets import BOX_FOLDERS, BoxScene
from kdal_core.datasets.box_scene import class_names
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.simulation.images import Dataset, LabelledImages, decoded, fitted, own_size, split_off
from kdal_core.tasks.box import Box, clean_box

COUNT = "boxes"
"""Name of the trait that counts an image's boxes."""
LEAST_PIXELS = 1.5
"""A box that is one pixel wide or high is a click that somebody's tool has written down."""


@dataclass(frozen=True)
class BoxFiles:
    """Images in files with their boxes, not decoded yet.

    Attributes:
        folder: of the data set.
        scenes: N images, each with a label.
        size: (height, width) in pixels of the data set's first image, whose form all are given.
        classes: names, whose positions are the class numbers.
    """

    folder: Path
    scenes: tuple[BoxScene, ...]
    size: tuple[int, int]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scenes)

    def take(self, indices: NDArray[np.int64]) -> BoxFiles:
        """The images at these positions."""
        chosen = tuple(self.scenes[index] for index in indices.tolist())
        return BoxFiles(self.folder, chosen, self.size, self.classes)

    def resized(self, side: int | None) -> LabelledImages:
        """The images with a longer side of this many pixels, decoded one after the other, and their boxes as `Box`."""
        size = self.size if side is None else fitted(self.size, side)
        images = torch.empty((len(self), 3, *size), dtype=torch.uint8)
        labels = np.empty(len(self), dtype=object)
        for number, scene in enumerate(self.scenes):
            images[number], own = decoded(self.folder / scene.path, size)
            labels[number] = boxes_of(scene, own, self.classes)
        counts = np.array([len(boxes) for boxes in labels], dtype=np.float64)
        return LabelledImages(images, labels, traits={COUNT: counts})


def read_box_folder(form: str, root: Path) -> Dataset:
    """A box data set; images are read when they are taken.

    Args:
        form: "coco", "voc" or "yolo".
        root: its folder.

    Raises:
        ConfigError: no such folder, no labels in it, or an image that is not there.
    """
    if not root.is_dir():
        raise ConfigError(
            f"There is no folder {str(root)!r}. Name the data's folder with --data, KDAL_DATA or data.root."
        )
    scenes = [scene for scene in BOX_FOLDERS[form].read(root, []) if _known(scene)]
    if not any(scene.marks for scene in scenes):
        raise ConfigError(f"No image of {str(root)!r} has a box.")
    testing = [_listed(scene, "test") for scene in scenes]
    if not any(testing):
        testing = [_listed(scene, "val") for scene in scenes]
    training = tuple(scene for scene, tests in zip(scenes, testing, strict=True) if not tests)
    if not training:
        raise ConfigError(f"{str(root)!r} lists test images only: there is no pool to label.")
    classes, size = class_names(scenes), own_size(root / training[0].path)
    whole = BoxFiles(root, training, size, classes)
    if any(testing):
        test = tuple(scene for scene, tests in zip(scenes, testing, strict=True) if tests)
        return Dataset(classes, whole, BoxFiles(root, test, size, classes), task="boxes")
    return Dataset(classes, *split_off(whole), task="boxes")


def _known(scene: BoxScene) -> bool:
    """Whether it is known what an image shows: clicks alone, boxes without size, do not say that it shows nothing."""
    if not scene.marks:
        return scene.marks is not None
    return any(left != right and top != bottom for left, top, right, bottom in (mark.corners for mark in scene.marks))


def _listed(scene: BoxScene, split: str) -> bool:
    return any(Path(name).stem.removeprefix("instances_").startswith(split) for name in scene.lists)


def boxes_of(scene: BoxScene, size: tuple[int, int], classes: tuple[str, ...]) -> tuple[Box, ...]:
    """The boxes of a scene whose image is of this (height, width); those that are none, a click say, are left out."""
    found = []
    for mark in scene.marks or ():
        left, top, right, bottom = mark.corners
        if min(abs(right - left) * size[1], abs(bottom - top) * size[0]) < LEAST_PIXELS:
            continue
        try:
            found.append(clean_box(left, top, right, bottom, classes.index(mark.label)))
        except LabelFormatError:
            continue
    return tuple(found)
