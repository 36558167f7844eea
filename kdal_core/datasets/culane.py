"""CULane's form of lanes: beside each image a text file, a line for each lane: ``x y x y ...`` in pixels.

    driver_23_30frame/05151649_0422.MP4/00000.jpg
    driver_23_30frame/05151649_0422.MP4/00000.lines.txt
    list/train.txt                              /driver_23_30frame/05151649_0422.MP4/00000.jpg

Source: Pan et al. 2018, "Spatial As Deep: Spatial CNN for Traffic Scene Understanding".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal_core.datasets.finding import Finder, first_file
from kdal_core.datasets.notes import Note, warn
from kdal_core.datasets.scene import LaneScene, raw_lines, safe_path
from kdal_core.datasets.texts import BOM, lines_of, read_text, write_text
from kdal_core.errors import ConfigError, LabelFormatError

Floats = NDArray[np.float64]

LISTS = "list"
"""Folder of the files that name the images of a split."""
LABEL_SUFFIX = ".lines.txt"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
SAME = 1e-6
"""Pixels by which nobody has moved a point: what its file said of it still holds, to its last digit."""


def list_files(folder: Path) -> list[str]:
    """Names of a CULane folder's files that list images: ``list/train.txt``, ``list/test_split/test0_normal.txt``."""
    return sorted(path.relative_to(folder).as_posix() for path in (folder / LISTS).rglob("*.txt"))


def read_culane(folder: Path, lists: Sequence[str] = (), note: Note = warn) -> list[LaneScene]:
    """The images of a CULane folder with their lanes: those that are listed, then those that only have a label.

    Lanes come as they are written, most of them from the bottom up, and may leave the image. A listed image without
    a label file has none (CULane publishes labels for all, others do not).

    Args:
        folder: holds ``list`` and, below it, the images, each with its label file.
        lists: names of the list files to read; by default all, and whatever they leave out.
        note: takes what could not be used, a sentence each; logged as warnings by default. The image of a damaged
            label has none (None).

    Raises:
        ConfigError: no labels at all, or one of `lists` is not there.
        LabelFormatError: nothing that can be used at all; names file and line.
    """
    problems: list[str] = []
    named: dict[str, dict[str, tuple[int, str]]] = {}
    for name in lists or list_files(folder):
        for number, line in enumerate(raw_lines(folder, name)):
            if not (words := line.removeprefix(BOM).split()):
                continue
            try:
                path = safe_path(words[0].replace("\\", "/"), f"{folder / name}:{number + 1}")
            except LabelFormatError as error:
                problems.append(f"{error}: it is left out")
                continue
            named.setdefault(path, {})[name] = (number, line)
    if not lists:
        finder = Finder(folder)
        for label in sorted(path for path in finder.walk() if path.endswith(LABEL_SUFFIX)):
            named.setdefault(_image_of(finder, label), {})
    if not named and problems:
        raise LabelFormatError(problems[0])
    if not named:
        raise ConfigError(f"{folder}: no CULane labels here (list/*.txt, or *{LABEL_SUFFIX} beside images)")
    scenes = [_scene(folder, path, where, problems.append) for path, where in named.items()]
    for problem in problems:
        note(problem)
    return scenes


def write_culane(scenes: Iterable[LaneScene], folder: Path) -> None:
    """Write labels that `read_culane` reads back: the same values, list files and order of lines.

    The label of an image whose lanes nobody changed is written as it was.
    """
    files: dict[str, list[tuple[int, str]]] = {}
    for scene in scenes:
        path = safe_path(scene.path, "a scene's path")
        for name, place in scene.lists.items():
            files.setdefault(safe_path(name, path), []).append(place)
        if scene.lanes is not None:
            write_text(folder / label_file(path), _text(scene.lanes, scene.extra))
    for name, lines in files.items():
        write_text(folder / name, "".join(f"{line}\n" for _, line in sorted(lines, key=lambda item: item[0])))


def label_file(image: str) -> str:
    """Name of the label file of an image.

    >>> label_file("driver_23/00000.jpg")
    'driver_23/00000.lines.txt'
    """
    return str(PurePosixPath(image).with_suffix(LABEL_SUFFIX))


def _image_of(finder: Finder, label: str) -> str:
    stem = label.removesuffix(LABEL_SUFFIX)
    return first_file(finder, [stem + suffix for suffix in IMAGE_SUFFIXES]) or stem + IMAGE_SUFFIXES[0]


def _scene(folder: Path, path: str, where: dict[str, tuple[int, str]], note: Note) -> LaneScene:
    name = label_file(path)
    if not (folder / name).exists():
        return LaneScene(path, None, lists=where)
    try:
        text, encoding = read_text(folder / name)
        lanes = _lanes(text, str(folder / name))
    except (ConfigError, LabelFormatError) as error:
        note(f"{error}; the label of {path} is unknown")
        return LaneScene(path, None, lists=where)
    as_it_was = encoding == "utf-8" and text != "".join(f"{_line(lane)}\n" for lane in lanes)
    return LaneScene(path, lanes, {"text": text} if as_it_was else {}, where)


def _lanes(text: str, where: str) -> tuple[Floats, ...]:
    lanes = []
    for number, line in enumerate(lines_of(text), start=1):
        words = line.split()
        try:
            numbers = np.array([float(word) for word in words], dtype=np.float64)
        except ValueError as error:
            raise LabelFormatError(f"{where}:{number}: it is no line of numbers ({error})") from error
        if len(numbers) % 2 or not np.isfinite(numbers).all():
            raise LabelFormatError(f"{where}:{number}: it is no line of finite pairs x y ({len(numbers)} numbers)")
        if len(numbers):
            lanes.append(numbers.reshape(-1, 2))
    return tuple(lanes)


def _text(lanes: Sequence[Floats], extra: Mapping[str, Any]) -> str:
    """A label's text: as it was read where nobody changed a lane, else in CULane's own writing."""
    before = extra.get("text")
    if isinstance(before, str):
        was = _lanes(before, "its meta")
        same = len(was) == len(lanes) and all(
            a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= SAME) for a, b in zip(was, lanes, strict=True)
        )
        if same:
            return before
    return "".join(f"{_line(lane)}\n" for lane in lanes)


def _line(lane: Floats) -> str:
    """A lane in CULane's own writing, a blank behind each number."""
    return "".join(f"{_shortest(value)} " for value in lane.ravel().tolist())


def _shortest(value: float) -> str:
    return repr(value).removesuffix(".0")
