"""YOLO's form of boxes: a text file for each image, a line for each box: class, middle and size as shares of the image.

    data.yaml                   names: [cat, dog]   train: images/train   val: images/val
    images/train/1.jpg          labels/train/1.txt: 0 0.5 0.5 0.25 0.1

Source: Ultralytics' documentation of detection data sets; darknet's lists of images (train: train.txt) and its files of
names (classes.txt, obj.names) are read too. An image without a text file has no label; an empty file: no object.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from kdal_core.datasets.box_scene import BoxScene, Corners, Mark, same_box
from kdal_core.datasets.images import IMAGE_SUFFIXES
from kdal_core.datasets.scene import read_lines, safe_path
from kdal_core.errors import ConfigError, LabelFormatError

SETTINGS = "data.yaml"
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
SPLITS = ("train", "val", "test")
IMAGES, LABELS = "images", "labels"
DECIMALS = 6
"""Digits behind the point of a share that is written; those of boxes that nobody changed stay as they were."""


def is_yolo(folder: Path) -> bool:
    """Whether a folder says which classes its text files mean."""
    return any((folder / name).is_file() for name in (SETTINGS, *NAME_FILES))


def read_yolo(folder: Path, lists: Sequence[str] = ()) -> list[BoxScene]:
    """The images of a YOLO folder with their boxes, split by split, in the order of their names or of the split's list.

    Args:
        folder: of the data set.
        lists: splits to read, out of train, val and test; all of them by default.

    Raises:
        ConfigError: no names of classes, no images, or one of `lists` is not there.
        LabelFormatError: a damaged line; names file and line.
    """
    settings, names, files = _head(folder)
    splits = {split: settings[split] for split in SPLITS if settings.get(split)}
    if unknown := [name for name in lists if name not in splits]:
        raise ConfigError(f"{folder}: there is no split {unknown[0]!r}, only {', '.join(splits) or 'one'}")
    found: dict[str, dict[str, tuple[int, str]]] = {}
    for split in lists or splits:
        for number, path in enumerate(_images(folder, splits[split], split)):
            found.setdefault(path, {})[split] = (number, "")
    if not splits:
        found = {path: {} for path in _images(folder, ".", str(folder))}
    if not found:
        raise ConfigError(f"{folder}: there are no images here")
    scenes: list[BoxScene] = []
    for path, where in found.items():
        extra = {"files": files} if not scenes else {}
        scenes.append(BoxScene(path, _marks(folder, label_file(path), names), extra, where))
    return scenes


def write_yolo(scenes: Iterable[BoxScene], folder: Path) -> None:
    """Write labels that `read_yolo` reads back. The lines of boxes that nobody changed are written as they were."""
    everything = list(scenes)
    files: dict[str, str] = next((scene.extra["files"] for scene in everything if "files" in scene.extra), {})
    names = _names_of(files)
    new = sorted({mark.label for scene in everything for mark in scene.marks or ()} - set(names.values()))
    free = max(names, default=-1) + 1
    names |= dict(enumerate(new, start=free))
    numbers = {name: number for number, name in names.items()}
    for scene in everything:
        if scene.marks is not None:
            path = folder / label_file(safe_path(scene.path, "a scene's path"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{_line(mark, numbers)}\n" for mark in scene.marks), encoding="utf-8")
    if new or not files:
        files = {SETTINGS: _settings(everything, names)}
    for name, text in files.items():
        path = folder / safe_path(name, "a data set's head")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def label_file(image: str) -> str:
    """Name of the label file of an image: in the folder `LABELS` that mirrors its `IMAGES`, else beside it.

    >>> label_file("images/train/1.jpg"), label_file("pictures/1.png")
    ('labels/train/1.txt', 'pictures/1.txt')
    """
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    if IMAGES in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index(IMAGES)] = LABELS
    return "/".join(parts)


def _head(folder: Path) -> tuple[dict[str, Any], dict[int, str], dict[str, str]]:
    """Settings, names by class number, and the files that they were read from."""
    files = {}
    for name in (SETTINGS, *NAME_FILES):
        if (folder / name).is_file():
            files[name] = "".join(f"{line}\n" for line in read_lines(folder, name))
    if not files:
        raise ConfigError(f"{folder}: nothing says what the classes are called ({SETTINGS}, {', '.join(NAME_FILES)})")
    return _settings_of(files, str(folder)), _names_of(files, str(folder)), files


def _settings_of(files: dict[str, str], where: str = "") -> dict[str, Any]:
    if SETTINGS not in files:
        return {}
    try:
        settings = yaml.safe_load(files[SETTINGS])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LabelFormatError(f"{where}/{SETTINGS}: it is no YAML ({error})") from error
    if not isinstance(settings, dict):
        raise LabelFormatError(f"{where}/{SETTINGS}: it is no mapping of settings")
    return settings


def _names_of(files: dict[str, str], where: str = "") -> dict[int, str]:
    """Names by class number."""
    said = _settings_of(files, where).get("names")
    if said is None:
        listed = next((files[name].split("\n") for name in NAME_FILES if name in files), [])
        said = [name.strip() for name in listed if name.strip()]
    pairs = list(said.items()) if isinstance(said, dict) else list(enumerate(said)) if isinstance(said, list) else []
    if any(isinstance(number, bool) or not isinstance(number, int) for number, _ in pairs):
        raise LabelFormatError(f"{where}: names must be a list, or class numbers with a name each")
    names = {number: str(name) for number, name in pairs}
    if len(set(names.values())) < len(names):
        raise LabelFormatError(f"{where}: two classes have the same name")
    return names


def _images(folder: Path, said: Any, split: str) -> list[str]:
    """Paths of a split's images: of those in folders, or on the lines of text files."""
    found: list[str] = []
    for place in said if isinstance(said, list) else [said]:
        name = str(place).removeprefix("./").removeprefix("../") or "."
        path = folder / ("." if name == "." else safe_path(name, split))
        if path.suffix == ".txt":
            lines = read_lines(folder, path.relative_to(folder).as_posix())
            found += [safe_path(line.strip().removeprefix("./"), str(path)) for line in lines if line.strip()]
        elif path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            found += [file.relative_to(folder).as_posix() for file in files]
        else:
            raise ConfigError(f"{folder}: its split {split!r} is said to be in {str(place)!r}, which is not there")
    return found


def _marks(folder: Path, name: str, names: dict[int, str]) -> tuple[Mark, ...] | None:
    if not (folder / name).is_file():
        return None
    marks = []
    for number, line in enumerate(read_lines(folder, name)):
        if line.strip():
            where = f"{folder / name}:{number + 1}"
            kind, corners = _parsed(line, where)
            if kind not in names:
                raise LabelFormatError(f"{where}: class {kind} has no name")
            marks.append(Mark(names[kind], corners, {"line": line, "label": names[kind]}))
    return tuple(marks)


def _parsed(line: str, where: str) -> tuple[int, Corners]:
    """Class number and corners of a line."""
    words = line.split()
    try:
        kind, (x, y, wide, high) = int(words[0]), [float(word) for word in words[1:5]]
    except (ValueError, IndexError) as error:
        raise LabelFormatError(f"{where}: it is no class number and four shares ({error})") from error
    if len(words) != 5 or not all(math.isfinite(value) for value in (x, y, wide, high)):
        raise LabelFormatError(f"{where}: it is no class number and four finite shares but {len(words)} words")
    return kind, (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)


def _line(mark: Mark, numbers: dict[str, int]) -> str:
    before = mark.extra.get("line")
    if isinstance(before, str) and mark.extra.get("label") == mark.label:
        kind, corners = _parsed(before, "a line")
        if same_box(corners, mark.corners) and kind == numbers[mark.label]:
            return before
    left, top, right, bottom = mark.corners
    shares = ((left + right) / 2, (top + bottom) / 2, abs(right - left), abs(bottom - top))
    return " ".join([str(numbers[mark.label]), *(f"{share:.{DECIMALS}f}" for share in shares)])


def _settings(scenes: Sequence[BoxScene], names: dict[int, str]) -> str:
    """A data.yaml for scenes, by the folders that they lie in."""
    splits = {name for scene in scenes for name in scene.lists if name in SPLITS} or {"train"}
    places = {
        split: sorted(
            {str(PurePosixPath(scene.path).parent) for scene in scenes if split in (scene.lists or {"train"})}
        )
        for split in SPLITS
        if split in splits
    }
    return yaml.safe_dump({**places, "names": names}, sort_keys=False, allow_unicode=True)
