"""YOLO's form of boxes: a text file for each image, a line for each box: class, middle and size as shares of the image.

    data.yaml                   names: [cat, dog]   train: images/train   val: images/val
    images/train/1.jpg          labels/train/1.txt: 0 0.5 0.5 0.25 0.1

Source: Ultralytics' documentation of detection data sets; darknet's lists of images (train: train.txt) and its files of
names (classes.txt, obj.names) are read too, and paths of another computer. An image without a text file has no label;
an empty file says that it shows no object. A line that tells an outline is the box around it; a confidence is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from kdal_core.datasets.box_scene import BoxScene, Mark
from kdal_core.datasets.finding import Finder, first_file
from kdal_core.datasets.notes import Note, Tally, warn
from kdal_core.datasets.scene import read_lines, safe_path
from kdal_core.datasets.texts import lines_of, read_text, write_text
from kdal_core.datasets.yolo_lines import as_text, number_said, parse, text_of, told
from kdal_core.datasets.yolo_settings import (
    IMAGES,
    NAME_FILES,
    SETTINGS,
    SPLITS,
    Head,
    is_yolo,
    names_of,
    place_of,
    read_head,
)
from kdal_core.errors import ConfigError, LabelFormatError

LABELS = "labels"
IMAGE_FOLDERS = (IMAGES, "JPEGImages")
"""Folders of images that one called `LABELS` mirrors."""


def read_yolo(folder: Path, lists: Sequence[str] = (), note: Note = warn) -> list[BoxScene]:
    """The images of a YOLO folder with their boxes, split by split, in the order of their names or of the split's list.

    An image with a line that cannot be read has no label (None), and `note` says why, by file and line.

    Args:
        folder: of the data set.
        lists: splits to read, out of train, val and test; all of them by default, that are there.
        note: takes what could not be used, a sentence each; logged as warnings by default.

    Raises:
        ConfigError: no names of classes, no images, or one of `lists` is not there.
        LabelFormatError: what names the classes is damaged.
    """
    head, finder, tally = read_head(folder), Finder(folder), Tally(note)
    if unknown := [name for name in lists if name not in head.splits]:
        raise ConfigError(f"{folder}: there is no split {unknown[0]!r}, only {', '.join(head.splits) or 'one'}")
    found: dict[str, dict[str, tuple[int, str]]] = {}
    missing: list[str] = []
    for split in lists or head.splits:
        paths = _images(finder, head, split, missing, note)
        if lists and missing:
            raise ConfigError(missing[0])
        for number, path in enumerate(paths):
            found.setdefault(path, {})[split] = (number, "")
    if not head.splits:
        found = {path: {} for path in finder.images()}
    if not found:
        raise ConfigError(missing[0] if missing else f"{folder}: there are no images here")
    for sentence in missing:
        note(f"{sentence}: left out")
    labels = {path: _label_of(finder, path) for path in found}
    images_of: dict[str, list[str]] = {}
    for path, label in labels.items():
        images_of.setdefault(label, []).append(path)
    scenes: list[BoxScene] = []
    for path, where in found.items():
        if len(others := images_of[labels[path]]) > 1 and finder.is_file(labels[path]):
            note(f"{folder / labels[path]}: it may be of {others[0]} or of {others[1]}; the label of {path} is unknown")
            scenes.append(BoxScene(path, None, {}, where))
        else:
            scenes.append(_scene(finder, head, path, labels[path], where, note, tally))
    if not lists:
        _count_orphans(finder, set(images_of), tally)
    tally.say()
    scenes[0].extra["files"] = dict(head.files)
    if head.encodings:
        scenes[0].extra["encodings"] = dict(head.encodings)
    return scenes


def write_yolo(scenes: Iterable[BoxScene], folder: Path) -> None:
    """Write labels that `read_yolo` reads back. An image's file is as it was where nobody changed a box."""
    everything = list(scenes)
    first = next((scene.extra for scene in everything if "files" in scene.extra), {})
    files: dict[str, str] = first.get("files", {})
    encodings: dict[str, str] = first.get("encodings", {})
    marks = [mark for scene in everything for mark in scene.marks or ()]
    names = names_of(files) if files else _names_said(marks)
    new = sorted({mark.label for mark in marks} - set(names.values()))
    names |= dict(enumerate(new, start=max(names, default=-1) + 1))
    numbers = {name: number for number, name in names.items()}
    for scene in everything:
        if scene.marks is not None:
            text, before = text_of(scene, numbers), scene.extra.get("text")
            encoding = scene.extra.get("encoding", "utf-8") if text == before else "utf-8"
            write_text(folder / written_label(scene), text, encoding)
    if new or not files:
        files, encodings = {SETTINGS: _settings(everything, names)}, {}
    for name, text in files.items():
        write_text(folder / safe_path(name, "a data set's head"), text, encodings.get(name, "utf-8"))


def label_file(image: str) -> str:
    """Name of the label file of an image: in the folder `LABELS` that mirrors its `IMAGES`, else beside it.

    >>> label_file("images/train/1.jpg"), label_file("pictures/1.png")
    ('labels/train/1.txt', 'pictures/1.txt')
    """
    return _mirrored(image, IMAGES) or str(PurePosixPath(image).with_suffix(".txt"))


def written_label(scene: BoxScene) -> str:
    """Name of the label file of an image: where it came from, else as `label_file` says."""
    if isinstance(said := scene.extra.get("file"), str):
        return safe_path(said, scene.path)
    return label_file(safe_path(scene.path, "a scene's path"))


def _mirrored(image: str, folder: str) -> str | None:
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    if folder not in parts[:-1]:
        return None
    parts[len(parts) - 1 - parts[::-1].index(folder)] = LABELS
    return "/".join(parts)


def _label_of(finder: Finder, image: str) -> str:
    """Name of the label file of an image where it is, else where it would be."""
    places = [place for folder in IMAGE_FOLDERS if (place := _mirrored(image, folder)) is not None]
    return first_file(finder, [*places, str(PurePosixPath(image).with_suffix(".txt"))]) or label_file(image)


def _images(finder: Finder, head: Head, split: str, missing: list[str], note: Note) -> list[str]:
    """Paths of a split's images: of those in folders, or on the lines of text files. Places not there are `missing`."""
    found: list[str] = []
    for said in head.splits[split]:
        place = place_of(finder, head, said)
        if place is None:
            missing.append(f"{finder.folder}: its split {split!r} is said to be in {said[:200]!r}, which is not there")
        elif place.endswith(".txt") and not finder.is_folder(place):
            found += _on_lines(finder, place, note)
        else:
            found += finder.images(place)
    return found


def _on_lines(finder: Finder, name: str, note: Note) -> list[str]:
    found = []
    for number, line in enumerate(read_lines(finder.folder, name)):
        said = line.strip().replace("\\", "/")
        if not said or said.startswith("#"):
            continue
        try:
            path = safe_path(said.removeprefix("./"), f"{finder.folder / name}:{number + 1}")
            beside = str(PurePosixPath(name).parent / path)
            found.append(first_file(finder, [path, beside]) or finder.moved(said) or path)
        except LabelFormatError as error:
            if (moved := finder.moved(said)) is not None:
                found.append(moved)
            else:
                note(f"{error}: it is left out")
    return found


def _scene(
    finder: Finder, head: Head, path: str, label: str, where: dict[str, tuple[int, str]], note: Note, tally: Tally
) -> BoxScene:
    """An image with its boxes; with no label when a line cannot be read."""
    if not finder.is_file(label):
        return BoxScene(path, None, {}, where)
    file = finder.folder / label
    try:
        text, encoding = read_text(file)
        marks = _marks(text, head, str(file), tally)
    except (ConfigError, LabelFormatError) as error:
        note(f"{error}; the label of {path} is unknown")
        return BoxScene(path, None, {}, where)
    extra: dict[str, Any] = {} if label == label_file(path) else {"file": label}
    if text != as_text(told(text)):
        extra |= {"text": text} | ({} if encoding == "utf-8" else {"encoding": encoding})
    return BoxScene(path, marks, extra, where)


def _marks(text: str, head: Head, file: str, tally: Tally) -> tuple[Mark, ...]:
    lines = told(text)
    marks = []
    for line in lines:
        try:
            said = parse(line, head.keypoints)
            if said.kind not in head.names:
                raise LabelFormatError(f"class {said.kind} has no name")
        except LabelFormatError as error:
            number = lines_of(text).index(line) + 1
            raise LabelFormatError(f"{file}:{number}: {error}") from error
        if said.confidence:
            tally.add("a sixth number, a confidence, is ignored", file)
        name = head.names[said.kind]
        extra: dict[str, Any] = {"line": line, "label": name}
        marks.append(Mark(name, said.corners, extra | ({"keypoints": head.keypoints} if head.keypoints else {})))
    return tuple(marks)


def _count_orphans(finder: Finder, used: set[str], tally: Tally) -> None:
    """Count label files in the folders of those that are used which are of no image."""
    for folder in {str(PurePosixPath(label).parent) for label in used if finder.is_file(label)}:
        for path in finder.walk(folder):
            parent, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
            other = parent != folder or path in used or not name.endswith(".txt") or path in NAME_FILES
            if not other and _is_label(finder.folder / path):
                tally.add("a label file without an image", str(finder.folder / path))


def _is_label(file: Path) -> bool:
    try:
        lines = told(read_text(file)[0])
        return bool(lines) and parse(lines[0]) is not None
    except (ConfigError, LabelFormatError):
        return False


def _names_said(marks: Sequence[Mark]) -> dict[int, str]:
    """Names by class number as the lines of boxes say them, where the folder's head is lost."""
    names: dict[int, str] = {}
    for mark in marks:
        if (number := number_said(mark)) is not None:
            names.setdefault(number, mark.label)
    distinct = {name: number for number, name in names.items()}
    return {number: name for name, number in distinct.items()}


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


__all__ = ["is_yolo", "label_file", "read_yolo", "write_yolo", "written_label"]
