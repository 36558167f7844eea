"""What a YOLO folder says of itself: the names of its classes, and where its splits are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from kdal_core.datasets.finding import Finder, elsewhere
from kdal_core.datasets.texts import lines_of, read_text
from kdal_core.errors import ConfigError, LabelFormatError

SETTINGS = "data.yaml"
SETTINGS_FILES = (SETTINGS, "data.yml", "dataset.yaml", "dataset.yml")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
SPLITS = ("train", "val", "test")
IMAGES = "images"
NOTHING = ("", "~", "null", "Null", "NULL")
"""What YAML means by no value."""
MOST_LETTERS = 4 * 1024**2
"""Length of a settings file above which it is none."""


@dataclass(frozen=True)
class Head:
    """What a folder says of itself."""

    names: Mapping[int, str]
    """Class number -> name."""
    files: Mapping[str, str]
    """The files that say it -> their text."""
    encodings: Mapping[str, str] = field(default_factory=dict)
    """Those of these files that are not in UTF-8 -> their encoding."""
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split -> where its images are said to be: folders, and files that list them."""
    root: str = ""
    """What the settings call the folder (`path`)."""
    keypoints: int = 0
    """Numbers behind a box that tell key points."""


def is_yolo(folder: Path) -> bool:
    """Whether a folder says which classes its text files mean."""
    if any((folder / name).is_file() for name in (SETTINGS, *NAME_FILES)):
        return True
    return _settings_file(folder) is not None


def read_head(folder: Path) -> Head:
    """What a folder says of itself.

    Raises:
        ConfigError: nothing says what the classes are called.
        LabelFormatError: what says it is damaged.
    """
    files, encodings = {}, {}
    found = _settings_file(folder)
    for name in ([found] if found else []) + [name for name in NAME_FILES if (folder / name).is_file()]:
        files[name], encoding = read_text(folder / name)
        if encoding != "utf-8":
            encodings[name] = encoding
    if not files:
        raise ConfigError(f"{folder}: nothing says what the classes are called ({SETTINGS}, {', '.join(NAME_FILES)})")
    settings = settings_of(files, str(folder))
    splits = {split: places for split in SPLITS if (places := _places(settings.get(split)))}
    root = settings.get("path")
    return Head(
        names_of(files, str(folder)),
        files,
        encodings,
        splits,
        root if isinstance(root, str) and root not in NOTHING else "",
        _keypoints(settings.get("kpt_shape")),
    )


def settings_of(files: Mapping[str, str], where: str = "") -> dict[str, Any]:
    """The settings of a folder, every value as text: YAML would read a class "no" as false.

    Raises:
        LabelFormatError: they are no YAML, or no mapping.
    """
    name = next((name for name in files if name.endswith((".yaml", ".yml"))), None)
    if name is None:
        return {}
    try:
        return _mapping(files[name])
    except LabelFormatError as error:
        raise LabelFormatError(f"{where}/{name}: {error}") from error


def names_of(files: Mapping[str, str], where: str = "") -> dict[int, str]:
    """Names by class number: of the settings, else of a file of names, whose lines they are.

    Raises:
        LabelFormatError: they are damaged, or two classes have the same name.
    """
    said = settings_of(files, where).get("names")
    if said is None:
        listed = next((lines_of(files[name]) for name in NAME_FILES if name in files), [])
        said = [name.strip() for name in listed]
    pairs = list(said.items()) if isinstance(said, dict) else list(enumerate(said)) if isinstance(said, list) else None
    if pairs is None or not all(str(number).isdecimal() and isinstance(name, str) for number, name in pairs):
        raise LabelFormatError(f"{where}: names must be a list, or class numbers with a name each")
    names = {int(number): name for number, name in pairs if name}
    if len(set(names.values())) < len(names):
        raise LabelFormatError(f"{where}: two classes have the same name")
    return names


def place_of(finder: Finder, head: Head, said: str) -> str | None:
    """The folder or file of a data set that its settings mean by a path, which may be another computer's.

    >>> # "../train/images" is train/images, "C:\\\\data\\\\images\\\\train" images/train, if they are there
    """
    parts = elsewhere(said)
    for base in _bases(finder, head):
        for start in range(max(1, len(parts))):
            tail = parts[start:]
            exact = start == 0 or len(tail) > 1 or tail[0] != IMAGES  # "images" alone may be another split's
            place = str(PurePosixPath(base, *tail))
            if exact and (finder.is_folder(place) or (place.endswith(".txt") and finder.is_file(place))):
                return place
    return None


def _bases(finder: Finder, head: Head) -> Iterator[str]:
    parts = elsewhere(head.root)
    for start in range(len(parts)):
        if finder.is_folder(base := "/".join(parts[start:])):
            yield base
    yield "."


def _settings_file(folder: Path) -> str | None:
    """Name of the file with the folder's settings: one of the usual names, else one that tells names and splits."""
    if (folder / SETTINGS).is_file():
        return SETTINGS
    others = sorted(path.name for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern))
    for name in (*SETTINGS_FILES, *others):
        if name.startswith(".") or not (folder / name).is_file():
            continue
        try:
            settings = _mapping(read_text(folder / name)[0])
        except (ConfigError, LabelFormatError):
            continue
        if "names" in settings and any(split in settings for split in SPLITS):
            return name
    return None


def _mapping(text: str) -> dict[str, Any]:
    if len(text) > MOST_LETTERS:
        raise LabelFormatError(f"it has {len(text):,} letters, more than any settings")
    try:
        settings = yaml.load(text, _Texts)  # a BaseLoader makes texts, lists and mappings only
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise LabelFormatError(f"it is no YAML ({error})") from error
    if not isinstance(settings, dict):
        raise LabelFormatError("it is no mapping of settings")
    return settings


class _Texts(yaml.BaseLoader):
    """Every scalar as text; a key that is there twice is an error, for one of its values would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key is there twice", node.start_mark)
        return found


def _places(said: Any) -> list[str]:
    places = said if isinstance(said, list) else [said]
    return [place for place in places if isinstance(place, str) and place not in NOTHING]


def _keypoints(shape: Any) -> int:
    """Numbers that a pose data set's lines have behind their box: [17, 3] of 17 points."""
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(n, str) and n.isdecimal() for n in shape):
        return 0
    return int(shape[0]) * int(shape[1])
