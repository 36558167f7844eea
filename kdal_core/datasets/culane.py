"""CULane's form of lanes: beside each image a text file, a line for each lane: ``x y x y ...`` in pixels.

    driver_23_30frame/05151649_0422.MP4/00000.jpg
    driver_23_30frame/05151649_0422.MP4/00000.lines.txt
    list/train.txt                              /driver_23_30frame/05151649_0422.MP4/00000.jpg

Source: Pan et al. 2018, "Spatial As Deep: Spatial CNN for Traffic Scene Understanding".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from kdal_core.datasets.scene import LaneScene, read_lines, safe_path
from kdal_core.errors import ConfigError, LabelFormatError

Floats = NDArray[np.float64]

LISTS = "list"
"""Folder of the files that name the images of a split."""
LABEL_SUFFIX = ".lines.txt"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def list_files(folder: Path) -> list[str]:
    """Names of a CULane folder's files that list images: ``list/train.txt``, ``list/test_split/test0_normal.txt``."""
    return sorted(path.relative_to(folder).as_posix() for path in (folder / LISTS).rglob("*.txt"))


def read_culane(folder: Path, lists: Sequence[str] = ()) -> list[LaneScene]:
    """The images of a CULane folder with their lanes: those that are listed, then those that only have a label.

    Lanes come as they are written, most of them from the bottom up, and may leave the image. A listed image without
    a label file has none (CULane publishes labels for all, others do not).

    Args:
        folder: holds ``list`` and, below it, the images, each with its label file.
        lists: names of the list files to read; by default all, and whatever they leave out.

    Raises:
        ConfigError: no labels at all, or one of `lists` is not there.
        LabelFormatError: a damaged line; names file and line.
    """
    named: dict[str, dict[str, tuple[int, str]]] = {}
    for name in lists or list_files(folder):
        for number, line in enumerate(read_lines(folder, name)):
            if words := line.split():
                path = safe_path(words[0], f"{folder / name}:{number + 1}")
                named.setdefault(path, {})[name] = (number, line)
    if not lists:
        for file in sorted(folder.rglob(f"*{LABEL_SUFFIX}")):
            image = _image_of(file).relative_to(folder).as_posix()
            named.setdefault(image, {})
    if not named:
        raise ConfigError(f"{folder}: no CULane labels here (list/*.txt, or *{LABEL_SUFFIX} beside images)")
    return [LaneScene(path, _read_lanes(folder, path), lists=where) for path, where in named.items()]


def write_culane(scenes: Iterable[LaneScene], folder: Path) -> None:
    """Write labels that `read_culane` reads back: the same values, list files and order of lines."""
    files: dict[str, list[tuple[int, str]]] = {}
    for scene in scenes:
        path = safe_path(scene.path, "a scene's path")
        for name, place in scene.lists.items():
            files.setdefault(safe_path(name, path), []).append(place)
        if scene.lanes is not None:
            _write(folder / label_file(path), [_line(lane) for lane in scene.lanes])
    for name, lines in files.items():
        _write(folder / name, [line for _, line in sorted(lines, key=lambda item: item[0])])


def label_file(image: str) -> str:
    """Name of the label file of an image.

    >>> label_file("driver_23/00000.jpg")
    'driver_23/00000.lines.txt'
    """
    return str(PurePosixPath(image).with_suffix(LABEL_SUFFIX))


def _image_of(label: Path) -> Path:
    stem = label.name.removesuffix(LABEL_SUFFIX)
    there = (path for suffix in IMAGE_SUFFIXES if (path := label.with_name(stem + suffix)).exists())
    return next(there, label.with_name(stem + IMAGE_SUFFIXES[0]))


def _read_lanes(folder: Path, image: str) -> tuple[Floats, ...] | None:
    name = label_file(image)
    if not (folder / name).exists():
        return None
    lanes = []
    for number, line in enumerate(read_lines(folder, name)):
        words = line.split()
        where = f"{folder / name}:{number + 1}"
        try:
            numbers = np.array([float(word) for word in words], dtype=np.float64)
        except ValueError as error:
            raise LabelFormatError(f"{where}: it is no line of numbers ({error})") from error
        if len(numbers) % 2 or not np.isfinite(numbers).all():
            raise LabelFormatError(f"{where}: it is no line of finite pairs x y ({len(numbers)} numbers)")
        if len(numbers):
            lanes.append(numbers.reshape(-1, 2))
    return tuple(lanes)


def _line(lane: Floats) -> str:
    """A lane in CULane's own writing, a blank behind each number."""
    return "".join(f"{_shortest(value)} " for value in lane.ravel().tolist())


def _shortest(value: float) -> str:
    return repr(value).removesuffix(".0")


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
