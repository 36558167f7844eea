"""An image of a lane data set with its lanes, whichever form the data set has."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kdal_core.datasets.texts import lines_of, read_text
from kdal_core.errors import LabelFormatError

Floats = NDArray[np.float64]

LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""


class Scene(Protocol):
    """An image of a data set, whatever its label is."""

    @property
    def path(self) -> str:
        """Of the image within the data set's folder, with forward slashes."""

    @property
    def labelled(self) -> bool:
        """Whether the data set says what the image shows, be it nothing."""

    @property
    def extra(self) -> dict[str, Any]:
        """What else the data set says of it, as JSON."""

    @property
    def lists(self) -> dict[str, tuple[int, str]]:
        """The data set's files that name it -> its place there, from 0, and what that line says."""


@dataclass(frozen=True, eq=False)
class LaneScene:
    """An image and the lanes that its data set says it shows."""

    path: str
    """Of the image within the data set's folder, with forward slashes."""
    lanes: tuple[Floats, ...] | None
    """Each (n, 2): x and y in pixels in the order of the file, n >= 0; none at all for an image without a label."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else the data set says of it, as JSON."""
    lists: dict[str, tuple[int, str]] = field(default_factory=dict)
    """The data set's files that name it -> its line there, from 0, and what that line says (TuSimple: nothing)."""

    @property
    def labelled(self) -> bool:
        """Whether the data set says which lanes the image shows, be it none."""
        return self.lanes is not None


def safe_path(name: str, where: str) -> str:
    """A file's name within a data set, once it is sure that it stays there.

    Args:
        name: as the data set says it; a leading slash is CULane's and means the data set's folder.
        where: what says it, for the error.

    Raises:
        LabelFormatError: it is empty, leads out of the folder, or cannot be a file's name.

    >>> safe_path("/driver_23/00000.jpg", "list/train.txt:1")
    'driver_23/00000.jpg'
    """
    path = PurePosixPath(name.lstrip("/"))
    if not path.name or ".." in path.parts or not set(name).isdisjoint("\0\n\\") or not _fits(path):
        raise LabelFormatError(f"{where}: {name[:200]!r} is no file of the data set's folder")
    return str(path)


def _fits(path: PurePosixPath) -> bool:
    """Whether file systems take a path: its names are text, and not too long."""
    try:
        return all(len(part.encode()) <= LONGEST_NAME for part in path.parts)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def raw_lines(folder: Path, name: str) -> list[str]:
    """The lines of a file that lists images, with what is needed to write them back: a byte-order mark, ``\\r``.

    Raises:
        ConfigError, LabelFormatError: as `read_lines`.
    """
    lines = read_text(folder / name)[0].split("\n")
    return lines if lines[-1] else lines[:-1]


def read_lines(folder: Path, name: str) -> list[str]:
    """The lines of a text file of a data set, without its byte-order mark.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
        LabelFormatError: it is no text.
    """
    return lines_of(read_text(folder / name)[0])
