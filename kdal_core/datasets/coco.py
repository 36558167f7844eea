"""COCO's form of boxes: one JSON file of images, annotations and categories for each split.

    annotations/instances_train2017.json    train2017/000000000009.jpg

Source: Lin et al. 2014, https://cocodataset.org/#format-data. A box is [left, top, width, height] in pixels from 0.
Crowds (iscrowd: 1) are no single objects: they are kept, and are no boxes. Files of other tools are read too:
Roboflow's `train/_annotations.coco.json`, Label Studio's `result.json` with paths of another computer.

An image without annotations shows no object, unless its file has no annotations at all (an image list), or something is
known to be on it that is not known well enough: then its label is unknown, and a note says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from kdal_core.datasets.box_scene import BoxScene, Json, Mark
from kdal_core.datasets.coco_files import (
    LabelFile,
    coco_files,
    is_coco,
    key_of,
    label_files,
    labels_of,
    open_label_file,
)
from kdal_core.datasets.coco_writing import DECIMALS, LABEL_FILE, corners_of, record_of, write_coco
from kdal_core.datasets.finding import Finder, elsewhere, first_file
from kdal_core.datasets.notes import Note, Tally, warn
from kdal_core.datasets.scene import safe_path
from kdal_core.datasets.sizes import as_size, size_of
from kdal_core.errors import ConfigError, LabelFormatError


def read_coco(folder: Path, lists: Sequence[str] = (), note: Note = warn) -> list[BoxScene]:
    """The images of a COCO folder with their boxes, in the order of its files.

    What cannot be used is left out, and `note` says so by name: an image whose file cannot be told, an annotation of an
    image that is not listed. An image with an object that cannot be read has no label (None).

    Args:
        folder: holds the label files, or folders with them, and the images.
        lists: names of the label files to read; all of them by default.
        note: takes what could not be used, a sentence each; logged as warnings by default.

    Raises:
        ConfigError: no label files, or one of `lists` is not there.
        LabelFormatError: a damaged file, two images with one id, two files with different labels for one image, or
            nothing that can be used at all; names file and record.
    """
    finder, tally = Finder(folder), Tally(note)
    files = [open_label_file(folder, name) for name in lists] or _all(folder, note)
    entries = [entry for file in files for entry in _entries(file, note)]
    placed = _placed(entries, finder, note)
    scenes: dict[str, BoxScene] = {}
    for file in files:
        labels = labels_of(file, note)
        for entry, twins in placed.get(file.name, []):
            scene = _scene(entry, twins, labels, finder, note)
            scenes[scene.path] = _one_of(scenes.get(scene.path), scene, folder, tally)
        _note_orphans(file, note)
    tally.say()
    if not scenes:
        raise LabelFormatError(f"{folder / files[0].name}: none of its {len(entries):,} images can be used")
    return _with_heads(list(scenes.values()), files)


@dataclass(frozen=True, eq=False)
class _Entry:
    """An image's record."""

    file: LabelFile
    number: int
    """Among the file's images, from 0."""
    record: Json
    path: str = ""
    """Of the image within the folder, once it is found."""

    @property
    def said(self) -> str:
        return str(self.record["file_name"])

    @property
    def where(self) -> str:
        return f"{self.file.where}: {self.said[:200]}"


@dataclass
class _Reading:
    """What becomes of an image's annotations."""

    marks: list[Mark] = field(default_factory=list)
    hidden: list[tuple[int, Json]] = field(default_factory=list)
    """Crowds, with their place among the file's annotations."""


def _all(folder: Path, note: Note) -> list[LabelFile]:
    """The label files of a folder.

    Raises:
        ConfigError: there are none.
        LabelFormatError: there are damaged ones only.
    """
    problems: list[str] = []
    files = list(label_files(folder, problems.append))
    if not files and problems:
        raise LabelFormatError(problems[0].removesuffix(": left out"))
    if not files:
        raise ConfigError(f"{folder}: no COCO labels here (a .json file with images and annotations)")
    for problem in problems:
        note(problem)
    return files


def _entries(file: LabelFile, note: Note) -> list[_Entry]:
    """The images of a file that can be told apart.

    Raises:
        LabelFormatError: two of them have one id.
    """
    found: dict[str, _Entry] = {}
    entries: list[_Entry] = []
    for number, record in enumerate(file.images):
        key = key_of(record.get("id"))
        if key is None or not isinstance(record.get("file_name"), str):
            note(f"{file.where}: image {number + 1} has no id and file_name: it is left out")
            continue
        entry = _Entry(file, number, record)
        other = found.setdefault(key, entry)
        if file.annotations is not None and other.said != entry.said:
            raise LabelFormatError(
                f"{file.where}: {other.said[:200]} and {entry.said[:200]} have the same id, {record['id']!r}: nobody "
                "can tell whose its annotations are. Give each image an id of its own, and each annotation its image's"
            )
        entries.append(entry)
    return entries


def _placed(
    entries: Sequence[_Entry], finder: Finder, note: Note
) -> dict[str, list[tuple[_Entry, tuple[_Entry, ...]]]]:
    """For each file its images where they lie, each with other records of the same image in that file."""
    paths = {id(entry): path for entry in entries if (path := _direct(entry, finder)) is not None}
    taken = set(paths.values())
    moved: dict[str, list[_Entry]] = {}
    for entry in entries:
        if id(entry) not in paths and (path := finder.moved(entry.said)) is not None and path not in taken:
            moved.setdefault(path, []).append(entry)
    for path, claims in moved.items():
        if len({entry.said for entry in claims}) == 1:  # else they are different images, of which one is here
            paths |= {id(entry): path for entry in claims}
    found: dict[str, dict[str, list[_Entry]]] = {}
    for entry in entries:
        try:
            path = paths.get(id(entry)) or safe_path(entry.said, entry.file.where)
        except LabelFormatError as error:
            same = finder.named(parts[-1]) if (parts := elsewhere(entry.said)) else []
            several = f"; {len(same)} images below the folder have its name" if len(same) > 1 else ""
            note(f"{error}{several}: it is left out")
            continue
        found.setdefault(entry.file.name, {}).setdefault(path, []).append(replace(entry, path=path))
    return {name: [(first, tuple(rest)) for first, *rest in of.values()] for name, of in found.items()}


def _direct(entry: _Entry, finder: Finder) -> str | None:
    """Where an image lies: beside the label file, in a folder images, or in the one that the split is called after."""
    said = entry.said.replace("\\", "/")
    try:
        said = safe_path(said, "")
    except LabelFormatError:
        return None
    split = PurePosixPath(entry.file.name).stem.removeprefix("instances_")
    here = PurePosixPath(entry.file.name).parent
    above = here.parent  # of Roboflow's and others' train/annotations/x.json
    places = (said, f"{here}/{said}", f"images/{said}", f"{split}/{said}", f"images/{split}/{said}")
    more = (f"{here}/images/{said}", f"{above}/{said}", f"{above}/images/{said}", f"data/{said}", f"{here}/data/{said}")
    found = first_file(finder, places + more)
    return None if found is None else str(PurePosixPath(found))


def _scene(entry: _Entry, twins: Sequence[_Entry], labels: dict[str, str], finder: Finder, note: Note) -> BoxScene:
    """An image with its boxes; with no label when one of its objects cannot be read."""
    file = entry.file
    extra: Json = {"image": entry.record}
    if twins:
        extra["twins"] = [[twin.number, twin.record] for twin in twins]
    lists = {file.name: (entry.number, "")}
    said = as_size(entry.record.get("width"), entry.record.get("height"))
    annotations = dict(found for each in (entry, *twins) for found in file.of_image(each.record))
    if file.annotations is None:
        return BoxScene(entry.path, None, extra, lists, said)
    try:
        size = size_of(finder, entry.path, said)
        if any(other != said for other in (as_size(t.record.get("width"), t.record.get("height")) for t in twins)):
            raise LabelFormatError("it is listed twice, with two sizes")
        found = _read(sorted(annotations.items()), labels, size)
    except LabelFormatError as error:
        note(f"{entry.where}: {error}; the image's label is unknown")
        return BoxScene(entry.path, None, extra, lists, said)
    if found.hidden:
        extra["hidden"] = [[at, annotation] for at, annotation in found.hidden]
        if not found.marks:
            note(f"{entry.where}: it shows crowds only, and no single object; the image's label is unknown")
            return BoxScene(entry.path, None, extra, lists, size)
    return BoxScene(entry.path, tuple(found.marks), extra, lists, size)


def _read(annotations: Sequence[tuple[int, Json]], labels: dict[str, str], size: tuple[int, int]) -> _Reading:
    """Raises `LabelFormatError`, by the annotation's id, for one that is no box."""
    found = _Reading()
    for at, annotation in annotations:
        if annotation.get("iscrowd") in (1, "1"):
            found.hidden.append((at, annotation))
            continue
        name = f"annotation {annotation.get('id', at + 1)}"
        label = labels.get(key_of(annotation.get("category_id")) or "")
        if label is None:
            raise LabelFormatError(f"{name}: its category {annotation.get('category_id')!r} is none")
        try:
            corners = corners_of(annotation, size)
        except LabelFormatError as error:
            raise LabelFormatError(f"{name}: {error}") from error
        found.marks.append(Mark(label, corners, {"annotation": annotation, "at": at, "label": label}))
    return found


def _one_of(known: BoxScene | None, scene: BoxScene, folder: Path, tally: Tally) -> BoxScene:
    """The one of two records of an image in two files that has a label.

    Raises:
        LabelFormatError: they have different ones.
    """
    if known is None:
        return scene
    if known.marks is None or scene.marks is None:
        return known if scene.marks is None else scene
    (first,), (second,) = known.lists, scene.lists
    if sorted((m.label, m.corners) for m in known.marks) != sorted((m.label, m.corners) for m in scene.marks):
        raise LabelFormatError(
            f"{folder / second}: {scene.path} has a label in {first} too, and another one: say with --list which file "
            "to read"
        )
    tally.add(f"it has the same label in {first}, which is read", f"{folder / second}: {scene.path}")
    return known


def _note_orphans(file: LabelFile, note: Note) -> None:
    """Say which annotations are of no listed image.

    Raises:
        LabelFormatError: all of them are.
    """
    orphans = file.orphans()
    if not orphans:
        return
    at, annotation = orphans[0]
    what = f"annotation {annotation.get('id', at + 1)} is of image {annotation.get('image_id')!r}, which is none"
    if len(orphans) == len(file.annotations or ()):
        raise LabelFormatError(f"{file.where}: {what}, and so are all others: whose they are cannot be told")
    more = f", and {len(orphans) - 1:,} more of such images" if len(orphans) > 1 else ""
    note(f"{file.where}: {what}{more}: left out")


def _with_heads(scenes: list[BoxScene], files: Sequence[LabelFile]) -> list[BoxScene]:
    """Let the first image of each file keep what the file says beside images and annotations."""
    heads = {file.name: file.head for file in files}
    for place, scene in enumerate(scenes):
        (name,) = scene.lists
        if (head := heads.pop(name, None)) is not None:
            scenes[place] = replace(scene, extra=scene.extra | {"head": head})
    return scenes


__all__ = ["DECIMALS", "LABEL_FILE", "coco_files", "is_coco", "read_coco", "record_of", "write_coco"]
