"""Where the files are that a data set names: below its folder and nowhere else, whatever the names look like."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from kdal_core.datasets.images import IMAGE_SUFFIXES

Key = TypeVar("Key", bound=Hashable)

SKIPPED = ("__MACOSX",)
"""Folders that tools leave behind; those whose names begin with a dot are skipped too."""
DRIVE = re.compile(r"^[A-Za-z]:")
FEW = 2
"""Parts of a path that are enough to tell a file by, wherever the folder has been moved to."""


class Finder:
    """The files below a data set's folder. Links to folders are not followed, hidden files not seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def is_file(self, path: str) -> bool:
        """Whether a relative path is a file."""
        return _is(self.folder / path, Path.is_file)

    def is_folder(self, path: str) -> bool:
        """Whether a relative path is a folder."""
        return _is(self.folder / path, Path.is_dir)

    def walk(self, below: str = ".") -> Iterator[str]:
        """Relative paths of the files below a folder of the data set, in the order of their names."""
        root = self.folder / below
        for place, folders, names in os.walk(root, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
            where = Path(place).relative_to(self.folder)
            for name in sorted(names):
                if not name.startswith("."):
                    yield (where / name).as_posix()

    def images(self, below: str = ".") -> list[str]:
        """Relative paths of the images below a folder of the data set, in the order of their paths."""
        found = (path for path in self.walk(below) if is_image(path))
        return sorted(found, key=lambda path: PurePosixPath(path).parts)

    def named(self, name: str) -> list[str]:
        """The images of this name, in whatever folder; of another case only where there is none in this one."""
        return self._by_name.get(name) or self._by_lower_name.get(name.lower(), [])

    def with_stem(self, folder: str, stem: str) -> list[str]:
        """The images in a folder whose names are this stem and any usual suffix."""
        return self._by_stem.get((folder, stem), [])

    def with_stem_anywhere(self, stem: str) -> list[str]:
        """The images whose names are this stem and any usual suffix, in whatever folder."""
        return self._by_stem_anywhere.get(stem, [])

    def moved(self, said: str) -> str | None:
        """The image that a path means that was written elsewhere: on another computer, or in another folder.

        It is the one whose path ends as `said` does, in two parts or more, else the only one of its name.
        """
        parts = elsewhere(said)
        for start in range(len(parts) - FEW + 1):
            if self.is_file(tail := "/".join(parts[start:])) and is_image(tail):
                return tail
        found = self.named(parts[-1]) if parts else []
        return found[0] if len(found) == 1 else None

    @cached_property
    def _images(self) -> list[str]:
        return self.images()

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped((PurePosixPath(path).name, path) for path in self._images)

    @cached_property
    def _by_lower_name(self) -> dict[str, list[str]]:
        return _grouped((PurePosixPath(path).name.lower(), path) for path in self._images)

    @cached_property
    def _by_stem(self) -> dict[tuple[str, str], list[str]]:
        return _grouped(((str(PurePosixPath(path).parent), PurePosixPath(path).stem), path) for path in self._images)

    @cached_property
    def _by_stem_anywhere(self) -> dict[str, list[str]]:
        return _grouped((PurePosixPath(path).stem, path) for path in self._images)


def is_image(path: str) -> bool:
    """Whether a file's name is an image's.

    >>> is_image("a/b.JPG"), is_image("a/Thumbs.db"), is_image("a/._b.jpg")
    (True, False, False)
    """
    found = PurePosixPath(path)
    return found.suffix.lower() in IMAGE_SUFFIXES and not found.name.startswith(".")


def elsewhere(said: str) -> tuple[str, ...]:
    r"""The parts of a path that another computer wrote: without its drive, and without what leads upwards.

    >>> elsewhere("C:\\data\\images\\a.jpg"), elsewhere("../../media/upload/4/a.jpg")
    (('data', 'images', 'a.jpg'), ('media', 'upload', '4', 'a.jpg'))
    >>> elsewhere("/data/local-files/?d=set/a%20b.jpg"), elsewhere("s3://bucket/set/a.jpg")
    (('set', 'a b.jpg'), ('set', 'a.jpg'))
    """
    text = said
    if "://" in said or said.startswith("/data/local-files/?"):
        address = _split(said)
        local = parse_qs(address.query).get("d") if address is not None else None
        text = local[0] if local else unquote(address.path) if address is not None else said
    parts = DRIVE.sub("", text.replace("\\", "/")).split("/")
    kept = [part for part in parts if part not in ("", ".") and "\0" not in part]
    last_up = max((place for place, part in enumerate(kept) if part == ".."), default=-1)
    return tuple(kept[last_up + 1 :])


def _split(address: str) -> SplitResult | None:
    try:
        return urlsplit(address)
    except ValueError:
        return None


def _grouped(pairs: Iterable[tuple[Key, str]]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for key, path in pairs:
        found.setdefault(key, []).append(path)
    return found


def _is(path: Path, what: Callable[[Path], bool]) -> bool:
    try:
        return what(path)
    except (OSError, ValueError):  # a name that is too long, or no name at all
        return False


def first_file(finder: Finder, places: Sequence[str]) -> str | None:
    """The first of these relative paths that is a file."""
    return next((place for place in places if finder.is_file(place)), None)
