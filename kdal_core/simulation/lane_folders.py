"""Lane data sets as folders in TuSimple's and CULane's form: a pool to label, and test images.

A split is decided by the names of the files that list the images: those whose names begin with "test" are for testing
(`test_label.json`, `test.jsonl`, `list/test.txt`), the others for training (`label_data_0313.json`, `train.jsonl`,
`list/train.txt`). Where none is for testing, a fixed fifth of the images is.

What a record says of its lanes by a number for each of them (`"worn": [0.2, 1.0]`) is an attribute: noise can be bound
to it, and what each order picks can be compared by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdal_core.datasets import LANE_FOLDERS, LaneScene
from kdal_core.datasets.culane import list_files
from kdal_core.datasets.tusimple import label_files
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.simulation.images import Dataset, LabelledImages, decoded, fitted, own_size, split_off
from kdal_core.tasks.lane import Lane, clean_lane

CLASSES = ("lane",)
COUNT = "lanes"
"""Name of the trait that counts an image's lanes."""
NO_LABELS = ("test_tasks", "list/test_split/")
"""What files begin with that list test images a second time."""
OVERLAPPING = {"list/train.txt": "list/train_gt.txt", "list/val.txt": "list/val_gt.txt"}
"""Lists of CULane and their twins with other columns."""


@dataclass(frozen=True)
class LaneFiles:
    """Images in files with their lanes, not decoded yet.

    Attributes:
        folder: of the data set.
        scenes: N images, each with a label.
        size: (height, width) in pixels of the data set's first image, whose form all are given.
    """

    folder: Path
    scenes: tuple[LaneScene, ...]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scenes)

    def take(self, indices: NDArray[np.int64]) -> LaneFiles:
        """The images at these positions."""
        return LaneFiles(self.folder, tuple(self.scenes[index] for index in indices.tolist()), self.size)

    def resized(self, side: int | None) -> LabelledImages:
        """The images with a longer side of this many pixels, decoded one after the other, and their lanes as `Lane`."""
        size = self.size if side is None else fitted(self.size, side)
        images = torch.empty((len(self), 3, *size), dtype=torch.uint8)
        labels = np.empty(len(self), dtype=object)
        names = attribute_names(self.scenes)
        attributes = {name: np.empty(len(self), dtype=object) for name in names}
        for number, scene in enumerate(self.scenes):
            images[number], own = decoded(self.folder / scene.path, size)
            kept = _lanes(scene, own)
            labels[number] = tuple(kept.values())
            for name in names:
                attributes[name][number] = tuple(float(scene.extra[name][place]) for place in kept)
        return LabelledImages(images, labels, attributes, traits_of(labels, attributes))


def read_lane_folder(form: str, root: Path) -> Dataset:
    """A lane data set; images are read when they are taken.

    Args:
        form: "tusimple" or "culane".
        root: its folder.

    Raises:
        ConfigError: no such folder, no labels in it, or an image that is not there.
    """
    if not root.is_dir():
        raise ConfigError(
            f"There is no folder {str(root)!r}. Name the data's folder with --data, KDAL_DATA or data.root."
        )
    read, names = LANE_FOLDERS[form].read, _lists(form, root)
    test_names = [name for name in names if Path(name).name.startswith("test")]
    train_names = [name for name in names if name not in test_names]
    if names and not train_names:
        raise ConfigError(f"{str(root)!r} lists test images only ({', '.join(test_names)}): there is no pool to label.")
    training = _labelled(read(root, train_names))  # of CULane, no list at all means every image with a label
    if not training:
        raise ConfigError(f"No image of {str(root)!r} has a label.")
    whole = LaneFiles(root, training, own_size(root / training[0].path))
    if test_names and (test := _labelled(read(root, test_names))):
        return Dataset(CLASSES, whole, LaneFiles(root, test, whole.size), task="lanes")
    return Dataset(CLASSES, *split_off(whole), task="lanes")


def attribute_names(scenes: Sequence[LaneScene]) -> list[str]:
    """What all scenes say of their lanes by a number for each."""
    names = [name for name in (scenes[0].extra if scenes else {}) if name != "h_samples"]
    return [name for name in names if all(_for_each_lane(scene, scene.extra.get(name)) for scene in scenes)]


def traits_of(labels: NDArray[Any], attributes: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
    """Numbers by which images are compared: how many lanes, and the mean of each attribute over them, NaN without any.

    Args:
        labels: (N,) tuples of lanes.
        attributes: {name: (N,) tuples, a number for each lane}.
    """
    counts = np.array([len(lanes) for lanes in labels], dtype=np.float64)
    means = {
        name: np.array([np.mean(of_lanes) if of_lanes else np.nan for of_lanes in values], dtype=np.float64)
        for name, values in attributes.items()
    }
    return {COUNT: counts, **means}


def _lists(form: str, root: Path) -> list[str]:
    """The files that list labelled images, each image in one of them."""
    found = label_files(root) if form == "tusimple" else list_files(root)
    kept = [name for name in found if not name.startswith(NO_LABELS)]
    return [name for name in kept if not any(name == twin and first in kept for first, twin in OVERLAPPING.items())]


def _labelled(scenes: Sequence[LaneScene]) -> tuple[LaneScene, ...]:
    return tuple(scene for scene in scenes if scene.lanes is not None)


def _for_each_lane(scene: LaneScene, values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) == len(scene.lanes or ())
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )


def _lanes(scene: LaneScene, size: tuple[int, int]) -> dict[int, Lane]:
    """The lanes of a scene by their number there; those that are none, a single point say, are left out."""
    height, width = size
    found = {}
    for number, points in enumerate(scene.lanes or ()):
        try:
            found[number] = clean_lane(points / (width, height))
        except LabelFormatError:
            continue
    return found
