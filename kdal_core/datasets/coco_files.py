"""COCO's label files: which files of a folder are some, and their records as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from kdal_core.datasets.box_scene import Json
from kdal_core.datasets.notes import Note
from kdal_core.datasets.texts import decode, parse_json, read_bytes
from kdal_core.errors import ConfigError, LabelFormatError

PLACES = (
    "*.json",
    "annotations/*.json",
    "*/*coco*.json",  # Roboflow: train/_annotations.coco.json
    "*/annotations/*.json",
    "*/annotations*.json",
    "*/instances*.json",
    "*/labels.json",
    "*/result.json",
)
"""Where label files are looked for; not everywhere, for other tools write a JSON file for each image."""
SAME_IMAGES = ("person_keypoints_", "stuff_", "captions_", "panoptic_")
"""What files of the published data set begin with that label the images of `instances_` a second time."""
MOST_BYTES = 8 * 1024**3


@dataclass(frozen=True, eq=False)
class LabelFile:
    """The records of a label file."""

    name: str
    """Within the data set's folder."""
    where: str
    """Name for messages."""
    images: Sequence[Json]
    annotations: Sequence[Json] | None
    """None at all for a list of images."""
    head: Json
    """What else it says, and its categories; images and annotations hold their places, with None."""

    @cached_property
    def _by_image(self) -> dict[str | None, list[tuple[int, Json]]]:
        found: dict[str | None, list[tuple[int, Json]]] = {}
        for at, annotation in enumerate(self.annotations or ()):
            found.setdefault(key_of(annotation.get("image_id")), []).append((at, annotation))
        return found

    def of_image(self, image: Json) -> list[tuple[int, Json]]:
        """The annotations of an image, each with its place among all."""
        return self._by_image.get(key_of(image.get("id")), [])

    def orphans(self) -> list[tuple[int, Json]]:
        """The annotations of images that are not listed, each with its place among all."""
        listed = {key_of(image.get("id")) for image in self.images} - {None}
        return sorted(
            (found for image, of in self._by_image.items() if image not in listed for found in of),
            key=lambda found: found[0],
        )


def coco_files(folder: Path) -> list[str]:
    """Names of the files of a folder that hold COCO labels: JSON objects with images, and annotations or categories."""
    return [file.name for file in label_files(folder, lambda problem: None)]


def is_coco(folder: Path) -> bool:
    """Whether a folder has a COCO label file."""
    return next(label_files(folder, lambda problem: None), None) is not None


def label_files(folder: Path, note: Note) -> Iterator[LabelFile]:
    """The label files of a folder, one after the other; `note` is told of those that are damaged."""
    names = _candidates(folder)
    for name in names:
        if _repeats(name, names):
            note(f"{folder / name}: it labels the images of another file a second time: left out")
            continue
        try:
            yield open_label_file(folder, name)
        except (ConfigError, LabelFormatError) as error:
            note(f"{error}: left out")


def open_label_file(folder: Path, name: str) -> LabelFile:
    """The records of a label file.

    Raises:
        ConfigError: it is not there.
        LabelFormatError: it is no JSON, or not COCO's.
    """
    data, where = _load(folder / name), str(folder / name)
    if not isinstance(data, dict):
        raise LabelFormatError(f"{where}: it has no list of images")
    annotations = None if data.get("annotations") is None else _records(data, "annotations", where)
    if annotations or data.get("categories") is not None:
        _records(data, "categories", where)
    head = {key: (value if key not in ("images", "annotations") else None) for key, value in data.items()}
    return LabelFile(name, where, _records(data, "images", where), annotations, head)


def labels_of(file: LabelFile, note: Note) -> dict[str, str]:
    """The name of each category by its number, as `key_of` writes it, without those that no annotation uses.

    Raises:
        LabelFormatError: two that are used have the same name.
    """
    used = {key_of(annotation.get("category_id")) for annotation in file.annotations or ()}
    found: dict[str, str] = {}
    unclear: set[str] = set()
    for number, category in enumerate(file.head.get("categories") or ()):
        key, name = key_of(category.get("id")), category.get("name")
        if key not in used:  # Roboflow's root category among them, which is called like a class
            continue
        if key is None or not isinstance(name, str) or not name.strip():
            note(f"{file.where}: category {number + 1} has no id and name: what is of it is unknown")
        elif found.setdefault(key, name) != name:
            unclear.add(key)
            note(f"{file.where}: the categories {found[key]!r} and {name!r} have one id: what is of them is unknown")
    labels: dict[str, str] = {}
    known: dict[str, str] = {}
    for key, name in found.items():
        if key in unclear:
            continue
        if (other := known.setdefault(name, key)) != key:
            raise LabelFormatError(
                f"{file.where}: categories must have distinct names, found {name!r} for both {other} and {key}"
            )
        labels[key] = name
    return labels


def key_of(number: Any) -> str | None:
    """What a record is called by, or calls another by: some tools write text in one place and numbers in another.

    >>> key_of(7), key_of("7"), key_of(7.0), key_of(True), key_of(None)
    ('7', '7', '7', None, None)
    """
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int | str):
        return None
    try:
        return str(number)
    except ValueError:  # thousands of digits
        return None


def _candidates(folder: Path) -> list[str]:
    """Names of the files that look like COCO labels, without reading them as JSON: they may be large."""
    found = {path.relative_to(folder).as_posix() for place in PLACES for path in folder.glob(place)}
    names = (name for name in sorted(found) if not any(part.startswith(".") for part in PurePosixPath(name).parts))
    return [name for name in names if _looks_right(folder / name)]


def _looks_right(path: Path) -> bool:
    try:
        data = read_bytes(path, MOST_BYTES)
        start = data[:64].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    except (ConfigError, LabelFormatError):
        return False
    plain = data.replace(b"\0", b"") if b"\0" in data[:64] else data  # UTF-16
    return start.startswith(b"{") and b'"images"' in plain and (b'"annotations"' in plain or b'"categories"' in plain)


def _repeats(name: str, names: Sequence[str]) -> bool:
    path = PurePosixPath(name)
    starts = [start for start in SAME_IMAGES if path.name.startswith(start)]
    return any(str(path.with_name("instances_" + path.name.removeprefix(start))) in names for start in starts)


def _load(path: Path) -> Any:
    try:
        text, _ = decode(read_bytes(path, MOST_BYTES))
        return parse_json(text)
    except (ValueError, RecursionError) as error:  # what is no text among them
        raise LabelFormatError(f"{path}: it is no JSON ({error})") from error


def _records(data: Json, key: str, where: str) -> list[Json]:
    found = data.get(key)
    if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
        raise LabelFormatError(f"{where}: it has no list of {key}")
    return found
